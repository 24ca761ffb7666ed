"""`pipeline tap`: a sample of the lines, messages and rejects that pass through a running pipeline."""

import json
from collections.abc import Sequence
from typing import Any, Final

import click

from pipeline.commands.config import load_config
from pipeline.commands.status import UNUSED
from pipeline.config.inputs import ConfigInputs
from pipeline.errors import PipelineError
from pipeline.http.client import lines
from pipeline.options import Command, config_option
from pipeline.printable import printable

#: An answer without a line for so long, seconds, has ended: the pipeline sends one each second.
SILENT_SECONDS = 30.0
#: Choices of `--only`, and the kinds of samples that they are.
_KINDS: Final = {"lines": ("line",), "messages": ("message",), "rejects": ("reject", "row")}


@click.command(cls=Command)
@config_option
@click.option("--topic", default="", metavar="STREAM/TOPIC", help="Only what comes from this topic, or goes to it.")
@click.option("--sink", default="", metavar="NAME", help="Only what goes to this sink.")
@click.option("--source", default="", metavar="NAME", help="Only what comes from this source.")
@click.option("--only", type=click.Choice(list(_KINDS)), help="Lines of sinks, messages of sources, or rejects.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line, with stream, topic, partition and offset.")
def tap(path: ConfigInputs, topic: str, sink: str, source: str, only: str | None, count: int | None,
        as_json: bool) -> None:
    """Shows samples of the lines, messages and rejects that pass.

    Each writer gives the first lines of a batch twice a second, and the source direction the first messages of a page,
    while somebody taps; the pipeline does not wait for that. Rejects of sinks are the last ones of the status. It goes
    on until Ctrl-C.
    """
    config = load_config(path, unused=UNUSED)
    _check_name("--sink", sink, [one.name for one in config.all_sinks()])
    _check_name("--source", source, [one.name for one in config.sources])
    if topic and "/" not in topic:
        raise click.BadParameter("give STREAM/TOPIC", param_hint="--topic")
    shown = 0
    for content in lines(config, "/tap", SILENT_SECONDS):
        if not content.strip():
            continue
        one = json.loads(content)
        if (topic and f"{one['stream']}/{one['topic']}" != topic or sink and one.get("sink") != sink
                or source and one.get("source") != source or only and one["kind"] not in _KINDS[only]):
            continue
        click.echo(content.decode().rstrip() if as_json else described(one))
        shown += 1
        if count is not None and shown >= count:
            return
    raise PipelineError("the pipeline has ended")


def _check_name(option: str, name: str, known: Sequence[str]) -> None:
    if name and name not in known:
        raise click.BadParameter(f"there is none of this name; there is {', '.join(known) or 'none'}",
                                 param_hint=option)


def described(one: dict[str, Any]) -> str:
    """A sample for people: a line as it is written, a message after a comment with its place, and a reject as a comment
    of line protocol."""
    if one["kind"] == "line":
        return printable(one["line"])
    if one["kind"] == "message":
        where = f"partition {one['partition']}" if one["partition"] >= 0 else "a partition that Iggy chooses"
        head = f"# {one['source']}: {one['measurement']} to {one['stream']}/{one['topic']} {where}, {one['size']} bytes"
        encoding = f" ({one['encoding']})" if one["encoding"] else ""
        return "\n".join([printable(head + encoding), *map(printable, one["text"].rstrip("\n").split("\n"))])
    if one["kind"] == "row":
        return printable(f"# rejected {one['source']}: {one['measurement']}: {one['reason']}: {one['detail']} | "
                         f"{one['row']}")
    place = f"{one['stream']}/{one['topic']} partition {one['partition']} offset {one['offset']}"
    line = f" | {one['line']}" if one["line"] else ""
    return printable(f"# rejected {place}: {one['reason']}: {one['detail']}{line}")
