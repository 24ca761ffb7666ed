"""`pipeline preview`: the lines that messages would become, and the rejects. Nothing is written or committed."""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import click
import msgspec

from pipeline.commands.config import load_config
from pipeline.commands.preview_samples import LAST_MESSAGES, NothingToPreview, Sample, gather_samples
from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import DATABASE, STANDARD_INPUT
from pipeline.config.mapping_checks import mapping_option_warnings
from pipeline.config.patterns import is_pattern
from pipeline.config.schema import Config, MappingConfig, SinkConfig, Subscription
from pipeline.config.steps_schema import DropStep
from pipeline.errors import PipelineError
from pipeline.options import Command, config_option
from pipeline.overwriting import overwriting_advice
from pipeline.printable import printable, printable_json
from pipeline.topic_configs import as_topic
from pipeline.wire.sink import Notice
from stages.influxdb.body import split_lines
from stages.mapping.batch import BatchOrigin, Encoded
from stages.mapping.check import mapping_warnings
from stages.mapping.explain import MOST_MESSAGES, Explanation, LeftOut, explain
from stages.mapping.records.merge import field_set
from stages.mapping.records.series import Origin
from stages.mapping.standalone import local_encoder

#: Measurements of a source that are shown, unless they are named.
MOST_MEASUREMENTS: Final = 20
#: Keys that are listed as left out.
_MOST_KEYS: Final = 40
#: Tables that are not used here.
_UNUSED: Final = ("sources", "dead_letters", "network", "http", "otlp", "pipeline", "tests")
#: Series key, fields and time of a line as the encoders write it.
_LINE: Final = re.compile(rb"((?:[^ \\]|\\.)+) (.*) (-?[0-9]+)", re.DOTALL)


class MessageOutcome(NamedTuple):
    """What one message becomes."""

    label: str
    #: (bucket, line) of each point; "" is the configured bucket.
    lines: list[tuple[str, str]]
    #: "reason: detail"; "" if it is not rejected.
    reject: str
    #: Label of the message whose line has its point, too.
    merged_into: str = ""
    #: Keys that are not written, and why.
    left_out: tuple[LeftOut, ...] = ()


class Collision(NamedTuple):
    """Points with the same measurement, tags and time, of which the later ones overwrite fields of the earlier ones."""

    #: Measurement and tags, and the time, as in the line.
    series: str
    time: str
    #: Labels of the messages.
    labels: list[str]
    #: How many points overwrite others.
    overwritten: int


class Applied(NamedTuple):
    """What a rule or step did."""

    #: "rule 1" or "step 2", and its words.
    name: str
    words: str
    #: Labels of the messages that it applied to; of a step, those that it left out.
    labels: list[str]


class PreviewReport(NamedTuple):
    """What all messages become."""

    outcomes: list[MessageOutcome]
    #: Points that overwrite others.
    collisions: list[Collision]
    #: Python source that was generated for their shapes.
    code: list[str]
    #: What is written and may not be what was meant: for each kind and partition the number, and an example.
    notices: list[Notice]
    #: What rules and steps did, each once.
    applied: list[Applied] = []

    @property
    def overwritten(self) -> int:
        """How many points overwrite others."""
        return sum(collision.overwritten for collision in self.collisions)


def report_on(config: Config, subscription: int, samples: Sequence[Sample]) -> PreviewReport:
    """Sends the samples of one topic through its mapping, partition by partition."""
    outcomes: list[MessageOutcome] = []
    points: list[tuple[str, bytes, str]] = []
    notices: list[Notice] = []
    applied: dict[str, Applied] = {}
    encoder = local_encoder(config, subscription)
    for partition in dict.fromkeys(sample.partition for sample in samples):
        some = [sample for sample in samples if sample.partition == partition]
        origin = BatchOrigin(
            partition, some[0].offset, [sample.offset for sample in some], [sample.timestamp for sample in some],
            time.time_ns() // 1_000,
            [sample.headers for sample in some] if encoder.rules.config.header_names() else None)
        payloads = [sample.payload for sample in some]
        found = _outcomes(some, encoder.encode(payloads, origin))
        explanation = explain(config, subscription, payloads, origin,
                              [bool(outcome.lines or outcome.merged_into) for outcome in found])
        outcomes += [outcome._replace(left_out=tuple(keys))
                     for outcome, keys in zip(found, explanation.keys, strict=True)]
        _add_applied(applied, encoder.rules.config, explanation, some)
        notices += _labelled(encoder.rules.notices.take(), some)
        unmerged = local_encoder(config, subscription, merge=False).encode(payloads, origin)
        points += [(bucket, line, some[messages[0]].label) for bucket, line, messages in _lines(unmerged)]
    code = []
    if learned := encoder.general.description():
        code.append(f"# keys in any order, read and written together:\n{learned}")
    code += [f"# for messages that are written by one template:\n{source}" for source in encoder.templates.sources()]
    return PreviewReport(outcomes, _collisions(points), code, notices, list(applied.values()))


def _add_applied(applied: dict[str, Applied], mapping: MappingConfig, explanation: Explanation,
                 samples: Sequence[Sample]) -> None:
    """Adds what the steps and rules did to the messages of one partition."""
    for number, step in enumerate(mapping.steps):
        if isinstance(step, DropStep) or explanation.steps[number]:
            name = f"step {number + 1}"
            words = f"{step.__struct_config__.tag}{f' ({step.when})' if isinstance(step, DropStep) else ''}: left out"
            held = applied.setdefault(name, Applied(name, words, []))
            held.labels.extend([samples[index].label for index in explanation.steps[number]])
    for number, rule in enumerate(mapping.rules):
        name = f"rule {number + 1}"
        does = "left out" if rule.then else ", ".join(
            [f"{key} {value}" for key, value in (("measurement", rule.measurement), ("bucket", rule.bucket)) if value])
        held = applied.setdefault(name, Applied(name, f"{rule.when}: {does}", []))
        held.labels.extend([samples[index].label for index in explanation.rules[number]])


def _labelled(notices: Sequence[Notice], samples: Sequence[Sample]) -> list[Notice]:
    """Notices whose places are the labels of their messages."""
    labels = {Origin(sample.partition, sample.offset).place: sample.label for sample in samples}
    return [Notice(notice.kind, notice.count, labels.get(notice.place, notice.place), notice.detail)
            for notice in notices]


def _lines(encoded: Encoded) -> list[tuple[str, bytes, tuple[int, ...]]]:
    """(bucket, line, messages) of each point."""
    found = []
    for group in encoded.groups:
        lines = split_lines(group.body, group.points)
        found += [(group.bucket, line, group.messages_of(at)) for at, line in enumerate(lines)]
    return found


def _outcomes(samples: Sequence[Sample], encoded: Encoded) -> list[MessageOutcome]:
    lines: list[list[tuple[str, str]]] = [[] for _ in samples]
    into = [""] * len(samples)
    for bucket, line, source in _lines(encoded):
        lines[source[0]].append((bucket, line.decode()))
        for other in source[1:]:
            into[other] = samples[source[0]].label
    rejects = {at: f"{reason}: {detail}" for at, reason, detail in encoded.rejects}
    return [MessageOutcome(sample.label, lines[index], rejects.get(index, ""), into[index])
            for index, sample in enumerate(samples)]


def _collisions(points: Sequence[tuple[str, bytes, str]]) -> list[Collision]:
    """The collisions of points, given as (bucket, line, label) of each in order."""
    same: dict[tuple[str, bytes, bytes], list[tuple[set[str], str]]] = {}
    for bucket, line, label in points:
        match = _LINE.fullmatch(line)
        if match is not None:
            same.setdefault((bucket, match[1], match[3]), []).append((set(field_set(match[2].decode())), label))
    collisions = []
    for (_, series, at), some in same.items():
        labels: dict[str, None] = {}
        overwritten = 0
        #: Field -> label of the message that last wrote it.
        owners: dict[str, str] = {}
        for fields, label in some:
            replaced = [owners[field] for field in fields if field in owners]
            if replaced:
                overwritten += 1
                labels.update(dict.fromkeys([*replaced, label]))
            owners.update(dict.fromkeys(fields, label))
        if labels:
            collisions.append(Collision(series.decode(), at.decode(), list(labels), overwritten))
    return collisions


def chosen_subscription(config: Config, path: ConfigInputs, topic: str) -> int:
    """Index of the topic named "stream/topic" or "topic"; the first one without a name. Raises PipelineError."""
    if not config.subscriptions():
        raise NothingToPreview(f"{path}: has no [[topics]], and so no mapping to preview"
                               + ("; --source NAME previews a source" if config.sources else ""))
    names = [subscription.label() for subscription in config.subscriptions()]
    for index, name in enumerate(names):
        if topic in ("", name, name.partition("/")[2]):
            return index
    for index, subscription in enumerate(config.subscriptions()):
        if subscription.matches(*_names_of(topic, subscription)):
            return index
    raise NothingToPreview(f"{path}: has no topic {topic}; there are {', '.join(names)}")


def _names_of(topic: str, subscription: Subscription) -> tuple[str, str]:
    """Stream and topic of "stream/topic", or "topic" in the stream of a subscription."""
    stream, slash, name = topic.partition("/")
    return (stream, name) if slash else (subscription.stream, topic)


def with_topic(config: Config, subscription: int, topic: str, from_iggy: bool) -> Config:
    """The configuration with one topic in place of a pattern: the one that is named, or the server's first that
    matches. Raises NothingToPreview, and IggyError."""
    pattern = config.subscriptions()[subscription]
    if not pattern.is_pattern:
        return config
    stream, name = _names_of(topic, pattern) if topic else (pattern.stream, pattern.topic)
    if from_iggy and (is_pattern(stream) or is_pattern(name)):
        # Imported here, because most previews are of files.
        from pipeline.iggy.topic_patterns import first_found
        found = asyncio.run(first_found(config, subscription))
        if found is None:
            raise NothingToPreview(f"no topic matches {pattern.label()} yet")
        stream, name = found
    if not topic:
        click.echo(f"pipeline: {printable(pattern.label())} is a pattern; the messages are taken for those of "
                   f"{printable(f'{stream}/{name}')}; --topic STREAM/TOPIC chooses one that matches", err=True)
    return as_topic(config, subscription, stream, name)


@click.command(cls=Command, short_help="Shows what messages would become, or a source would send")
@config_option
@click.option("--input", "inputs", multiple=True, metavar="FILE", help="Messages; - is standard input. May be given "
              "several times.")
@click.option("--each", type=click.Choice(["line", "file"]), help="What a message is in a FILE; by default a line of "
              "it with the formats json, text and line_protocol, and the whole file with others.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="With --input: a user header of the "
              "messages. May be given several times.")
@click.option("--from-iggy", is_flag=True, help="The last messages of each partition; nothing is committed.")
@click.option("--count", type=click.IntRange(1, 10_000), help="With --from-iggy: of each partition; 10 by default. "
              "With --source: see there.")
@click.option("--topic", default="", metavar="STREAM/TOPIC", help="The topic whose mapping is used; the first one by "
              "default.")
@click.option("--source", "source", metavar="NAME", help="What this source would send, instead: measurements, series, "
              "points by window of time, and the first messages, --count of each measurement, 3 by default.")
@click.option("--measurement", "measurements", multiple=True, metavar="NAME|PATTERN", help="With --source: only these; "
              f"the first {MOST_MEASUREMENTS} by default. May be given several times.")
@click.option("--code", is_flag=True, help="Also print the code that is generated for the messages.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a message.")
def preview(path: ConfigInputs, inputs: tuple[str, ...], each: str | None, headers: tuple[str, ...],
            from_iggy: bool, count: int | None, topic: str, source: str | None, measurements: tuple[str, ...],
            code: bool, as_json: bool) -> None:
    """Shows what messages would become, or with --source what a source would send. Nothing is written or committed."""
    if source is not None:
        if inputs or each or headers or from_iggy or topic or code:
            raise click.UsageError("--source: only with --measurement, --count and --json")
        _preview_source(path, source, measurements, count, as_json)
        return
    if measurements:
        raise click.UsageError("--measurement: only with --source")
    if count is not None and not from_iggy:
        raise click.UsageError("--count: only with --from-iggy or --source")
    if each is not None and from_iggy and not inputs:
        raise click.UsageError("--each: only with --input")
    if wrong := [header for header in headers if not header.partition("=")[1] or header.startswith("=")]:
        raise click.UsageError(f"--header: {wrong[0]} is not NAME=VALUE")
    if headers and from_iggy and not inputs:
        raise click.UsageError("--header: only with --input; messages of Iggy have their own")
    if STANDARD_INPUT in path.paths and ("-" in inputs or not inputs and not from_iggy):
        raise NothingToPreview("standard input is the configuration; give messages with --input FILE or --from-iggy")
    config = load_config(path, unused=(*DATABASE, *(() if from_iggy else ("iggy",)), *_UNUSED))
    subscription = chosen_subscription(config, path, topic)
    config = with_topic(config, subscription, topic, from_iggy)
    sink = config.all_sinks()[config.subscriptions()[subscription].sink]
    samples = gather_samples(config, subscription, inputs or (() if from_iggy else ("-",)), each or "",
                             (count or LAST_MESSAGES) if from_iggy else 0,
                             {name: value for name, _, value in (header.partition("=") for header in headers)})
    for warning in (*mapping_option_warnings(sink.mapping, "mapping"),
                    *mapping_warnings(sink.mapping, "mapping", sink.influxdb.precision)):
        click.echo(f"pipeline: warning: {warning}", err=True)
    report = report_on(config, subscription, samples)
    if as_json:
        _print_json(report, code)
    else:
        _print(report, sink, code)


def _preview_source(path: ConfigInputs, name: str, measurements: tuple[str, ...], count: int | None,
                    as_json: bool) -> None:
    # Imported here, because most previews are of sinks.
    from pipeline.commands.source_preview import previews_of, print_previews

    config = load_config(path, unused=(*DATABASE, "mapping", *_UNUSED[1:]))
    chosen = [one for one in config.sources if one.name == name]
    if not chosen:
        known = ", ".join(one.name for one in config.sources)
        raise PipelineError(f"there is no source {name}; the configuration has {known or 'no [[sources]]'}")
    print_previews(previews_of(config, chosen, measurements, count), as_json)


def _print_json(report: PreviewReport, code: bool) -> None:
    for outcome in report.outcomes:
        row: dict[str, Any] = {"message": outcome.label, "lines": [line for _, line in outcome.lines]}
        if any(bucket for bucket, _ in outcome.lines):
            row["buckets"] = [bucket for bucket, _ in outcome.lines]
        if outcome.reject:
            row["reject"] = outcome.reject
        if outcome.merged_into:
            row["merged_into"] = outcome.merged_into
        if outcome.left_out:
            row["left_out"] = {left_out.path: left_out.why for left_out in outcome.left_out}
        click.echo(printable_json(json.dumps(row, ensure_ascii=False)))
    click.echo(printable_json(json.dumps({**_counts(report),
                                          "collisions": [collision.labels for collision in report.collisions],
                                          "colliding_points": [collision._asdict() for collision in report.collisions],
                                          "applied": [applied._asdict() for applied in report.applied],
                                          "warnings": [msgspec.structs.asdict(notice) for notice in report.notices],
                                          **({"code": report.code} if code else {})}, ensure_ascii=False)))


def _counts(report: PreviewReport) -> dict[str, int]:
    return {"messages": len(report.outcomes), "lines": sum(len(outcome.lines) for outcome in report.outcomes),
            "rejected": sum(bool(outcome.reject) for outcome in report.outcomes),
            "dropped": sum(not (outcome.lines or outcome.reject or outcome.merged_into)
                           for outcome in report.outcomes),
            "overwritten": report.overwritten}


def _print(report: PreviewReport, sink: SinkConfig, code: bool) -> None:
    """Prints line protocol, one line each, and the rest as comments that begin with #; in colour on a terminal.

    Characters that are not visible, such as a line break in a string, are escaped; `--json` has them unchanged.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)

    def say(text: str, style: str) -> None:
        console.print(Text(printable(text), style=style))

    for outcome in report.outcomes:
        say(f"# {outcome.label}", "dim")
        if outcome.reject:
            say(f"# rejected: {outcome.reject}", "bold red")
        elif outcome.merged_into:
            say(f"# merged into the point of {outcome.merged_into}", "yellow")
        elif not outcome.lines:
            say("# left out", "yellow")
        for bucket, line in outcome.lines:
            if bucket:
                say(f"# to bucket {bucket}:", "cyan")
            console.print(_coloured(printable(line)))
    if code:
        for source in report.code or ["# no code: each of these messages is mapped on the general path\n"]:
            for line in ("", *source.splitlines()):
                say(line, "green")
    for line in _left_out_lines(report):
        say(line, "yellow")
    for applied in report.applied:
        say(f"# {applied.name}: {applied.words}: {_places(applied.labels)}", "cyan")
    for collision in report.collisions[:10]:
        say(f"# the same point at precision {sink.influxdb.precision}: {', '.join(collision.labels[:5])}"
            + (", ..." if len(collision.labels) > 5 else "") + f": {collision.series} at {collision.time}; of equal "
            "fields only the last stays", "bold yellow")
    if report.overwritten:
        say(f"# {report.overwritten} overwritten: {overwriting_advice(sink)}", "bold yellow")
    for notice in report.notices:
        more = f" ({notice.count} messages)" if notice.count > 1 else ""
        say(f"# warning: {notice.place}: {notice.kind}: {notice.detail}{more}", "bold yellow")
    counts = _counts(report)
    say(f"# messages {counts['messages']}, lines {counts['lines']}, rejected {counts['rejected']}, "
        f"left out {counts['dropped']}; nothing was written", "bold")


def _left_out_lines(report: PreviewReport) -> list[str]:
    """A line for each key that is left out, and each reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for outcome in report.outcomes:
        for left_out in outcome.left_out:
            found.setdefault((left_out.path, left_out.why), []).append(outcome.label)
    lines = [f"# key {path} is left out: {why}: {_places(labels)}"
             for (path, why), labels in list(found.items())[:_MOST_KEYS]]
    if len(found) > _MOST_KEYS:
        lines.append(f"# and {len(found) - _MOST_KEYS} more keys are left out; --json has them all")
    if lines and len(report.outcomes) > MOST_MESSAGES:
        lines.append(f"# (keys, rules and steps: of the first {MOST_MESSAGES:,} messages of each partition)")
    return lines


def _places(labels: Sequence[str]) -> str:
    """How many messages there are, and the first ones."""
    if not labels:
        return "no message"
    few = ", ".join(labels[:3]) + (", ..." if len(labels) > 3 else "")
    return f"{len(labels)} message{'' if len(labels) == 1 else 's'} ({few})"


def _coloured(line: str) -> Any:
    from rich.text import Text

    match = _LINE.fullmatch(line.encode())
    if match is None:
        return Text(line)
    series, fields, at = (part.decode() for part in match.groups())
    return Text.assemble((series, "cyan"), " ", (fields, ""), " ", (at, "magenta"))
