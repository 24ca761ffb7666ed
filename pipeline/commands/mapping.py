"""`pipeline mapping suggest`: proposes a mapping for messages. Nothing is written or committed."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click

from pipeline.commands.config import load_config
from pipeline.commands.preview import chosen_subscription, with_topic
from pipeline.commands.preview_samples import NothingToPreview, content_of, messages_of_iggy
from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import DATABASE
from pipeline.options import Command, Group
from pipeline.printable import printable_json
from stages.mapping.suggest.inputs import Detected, UnknownFormat, detect_files, detect_messages
from stages.mapping.suggest.suggest import About, Suggestion, as_toml, suggest

#: Default of `--count`: messages of each partition.
LAST_MESSAGES = 200
#: Tables that are not used here.
_UNUSED = (*DATABASE, "sources", "dead_letters", "network", "pipeline", "tests")


@click.group(cls=Group)
def mapping() -> None:
    """Helps to write a mapping."""


@mapping.command("suggest", cls=Command)
@click.option("--input", "inputs", multiple=True, metavar="FILE", help="Messages; - is standard input. May be given "
              "several times.")
@click.option("--each", type=click.Choice(["line", "file"]), help="What a message is in a FILE; found out by default.")
@click.option("--from-iggy", is_flag=True, help="The last messages of each partition of a topic in the configuration; "
              "no offset is stored.")
@click.option("-c", "--config", "paths", multiple=True, metavar="FILE|FOLDER", help="With --from-iggy: a configuration "
              "with [iggy] and [[topics]], as for other commands.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Instead of a key of it.")
@click.option("--count", type=click.IntRange(1, 10_000), help=f"With --from-iggy: messages of each partition; "
              f"{LAST_MESSAGES} by default.")
@click.option("--topic", default="", metavar="STREAM/TOPIC", help="With --from-iggy: the topic to look at, the first "
              "one by default; otherwise: the topic in the suggestion.")
@click.option("--json", "as_json", is_flag=True, help="The options and reasons as one JSON object.")
def suggest_command(inputs: tuple[str, ...], each: str | None, from_iggy: bool, paths: tuple[str, ...],
                    settings: tuple[str, ...], count: int | None, topic: str, as_json: bool) -> None:
    """Proposes a mapping for messages: a configuration with the reasons, for standard output.

    Texts of few values become tags, numbers fields, what looks like a time the time. Check the proposal with
    `pipeline preview`: it is made from the messages that were there, and they cannot tell everything.
    """
    _check_usage(inputs, each, from_iggy, bool(paths or settings), count)
    try:
        if from_iggy:
            detected, about = _of_iggy(ConfigInputs(paths, settings), topic, count or LAST_MESSAGES)
        else:
            detected, about = _of_files(inputs or ("-",), each or "", topic)
    except UnknownFormat as error:
        raise NothingToPreview(str(error)) from None
    suggestion = suggest(detected, about.stream, about.topic)
    click.echo(_as_json(suggestion) if as_json else as_toml(suggestion, about), nl=as_json)


def _check_usage(inputs: tuple[str, ...], each: str | None, from_iggy: bool, has_config: bool,
                 count: int | None) -> None:
    """Raises UsageError."""
    if from_iggy and not has_config:
        raise click.UsageError("--from-iggy: give the configuration with [iggy] and [[topics]], -c FILE")
    if from_iggy and inputs:
        raise click.UsageError("--from-iggy and --input exclude each other")
    if not from_iggy and has_config:
        raise click.UsageError("--config: only with --from-iggy")
    if not from_iggy and count is not None:
        raise click.UsageError("--count: only with --from-iggy")
    if from_iggy and each is not None:
        raise click.UsageError("--each: only with --input")
    if not from_iggy and not inputs and sys.stdin.isatty():
        raise click.UsageError("give messages with --input FILE, or --from-iggy -c FILE")


def _of_files(inputs: tuple[str, ...], each: str, topic: str) -> tuple[Detected, About]:
    """The messages in files, and their names. Raises NothingToPreview and UnknownFormat."""
    contents = [content for name in inputs if (content := content_of(name)).strip()]
    if not contents:
        raise NothingToPreview("there is no message; give some with --input FILE or --from-iggy")
    detected = detect_files(contents, each)
    stream, _, name = topic.rpartition("/")
    # `preview` takes lines of these formats for messages, and whole files of others.
    by_line = detected.format in ("json", "text", "line_protocol") and "compression" not in detected.options
    option = "" if (detected.each == "line") == by_line else f" --each {detected.each}"
    files = " ".join([f"--input {file}" for file in inputs])
    shown = ", ".join(["standard input" if file == "-" else Path(file).name for file in inputs])
    return detected, About(shown, stream or "telemetry", name or "sensors",
                           f"pipeline preview -c suggested.toml {files}{option}")


def _of_iggy(path: ConfigInputs, topic: str, count: int) -> tuple[Detected, About]:
    """The last messages of a topic. Raises ConfigError, IggyError, NothingToPreview and UnknownFormat."""
    config = load_config(path, unused=_UNUSED)
    subscription = chosen_subscription(config, path, topic)
    config = with_topic(config, subscription, topic, from_iggy=True)
    chosen = config.subscriptions()[subscription]
    messages = asyncio.run(messages_of_iggy(config, subscription, count))
    if not messages:
        raise NothingToPreview(f"{chosen.label()}: has no message")
    from pipeline.iggy.headers import headers_of
    headers = [headers_of(message) for _, message in messages]
    detected = detect_messages([message.payload() for _, message in messages], headers)
    return detected, About(chosen.label(), chosen.stream, chosen.topic,
                           f"pipeline preview -c suggested.toml --from-iggy, with the [iggy] of {path}")


def _as_json(suggestion: Suggestion) -> str:
    trial, proposal = suggestion.trial, suggestion.proposal
    row: dict[str, Any] = {
        "messages": trial.messages, "format": suggestion.detected.format, "each": suggestion.detected.each,
        "mapping": proposal.options, "reasons": proposal.reasons, "notes": proposal.notes, "lines": trial.lines,
        "dropped": trial.dropped, "overwritten": trial.overwritten,
        "rejected": {reason: {"count": count, "detail": trial.details[reason]}
                     for reason, count in trial.rejected.items()}}
    return printable_json(json.dumps(row, ensure_ascii=False))


