"""`pipeline pause`, `resume`, `drain`, `skip` and `log-level`: steer the running pipeline of a configuration."""

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click
import msgspec

from pipeline.commands.status import running
from pipeline.config.controls import ControlRequest, Selection, Skip
from pipeline.config.inputs import ConfigInputs
from pipeline.errors import PipelineError
from pipeline.http.client import Running, request
from pipeline.options import Command, config_option

F = TypeVar("F", bound=Callable[..., Any])
#: Seconds between two looks at what the pipeline does.
LOOK_SECONDS: Final = 0.2
#: Longest wait until the pipeline acts on a request, seconds.
ACT_SECONDS: Final = 30.0


def _selection_options(command: F) -> F:
    for decorate in (click.option("--source", default="", metavar="NAME", help="Only this source."),
                     click.option("--partition", type=click.IntRange(0, 4_294_967_295), metavar="NUMBER",
                                  help="Only this partition, of --topic."),
                     click.option("--topic", default="", metavar="STREAM/TOPIC", help="Only this topic."),
                     click.option("--sink", default="", metavar="NAME", help="Only this sink.")):
        command = decorate(command)
    return command


@click.command(cls=Command)
@config_option
@_selection_options
@click.option("--keep", is_flag=True, help="The pause holds after a restart of the pipeline, too.")
def pause(path: ConfigInputs, sink: str, topic: str, partition: int | None, source: str, keep: bool) -> None:
    """Stops reading topics and databases, until `pipeline resume`.

    What was read before is written and committed. Without --sink, --topic and --source everything is paused.
    """
    pipeline = running(path)
    _send(pipeline, ControlRequest("pause", _selection(pipeline, sink, topic, partition, source), keep=keep))
    _say(pipeline)


@click.command(cls=Command)
@config_option
@_selection_options
def resume(path: ConfigInputs, sink: str, topic: str, partition: int | None, source: str) -> None:
    """Ends pauses, those that were kept, too.

    Without --sink, --topic and --source all pauses end. A pause of more than what is given here goes on.
    """
    pipeline = running(path)
    _send(pipeline, ControlRequest("resume", _selection(pipeline, sink, topic, partition, source)))
    _say(pipeline)


@click.command(cls=Command, short_help="Pauses everything, and waits until it is written")
@config_option
@click.option("--timeout", type=click.IntRange(1, 86_400), default=300, show_default=True, metavar="SECONDS",
              help="Longest wait until everything is written.")
def drain(path: ConfigInputs, timeout: int) -> None:
    """Pauses everything, and waits until what was read is written."""
    pipeline = running(path)
    _send(pipeline, ControlRequest("pause"))
    until = time.monotonic() + timeout
    while True:
        found = request(pipeline, "GET", "/status")
        sink, source = found["sink"], found["source"]
        uncommitted = [one for one in (sink or {}).get("partitions", ()) if one["committed"] < one["dispatched"]]
        if not uncommitted and not any(direction["in_flight"] for direction in (sink, source) if direction):
            click.echo("drained: everything that was read is written and committed; go on with: pipeline resume")
            return
        if time.monotonic() > until:
            left = [f"{direction['in_flight']} {what}" for direction, what in (
                (sink, "messages"), (source, "pages of sources")) if direction and direction["in_flight"]]
            raise PipelineError(f"{' and '.join(left) or 'offsets'} are still in flight after {timeout} s; everything "
                                "is paused. pipeline status has what is waited for")
        time.sleep(LOOK_SECONDS)


@click.command(cls=Command)
@config_option
@click.option("--topic", required=True, metavar="STREAM/TOPIC")
@click.option("--partition", required=True, type=click.IntRange(0, 4_294_967_295), metavar="NUMBER")
@click.option("--to", "last", required=True, type=click.IntRange(0, 2**63 - 2), metavar="OFFSET",
              help="The last message that is given up.")
def skip(path: ConfigInputs, topic: str, partition: int, last: int) -> None:
    """Gives up messages of a partition: each becomes a dead letter.

    Those up to and including --to that are not written yet are not mapped any more, and their dead letters have the
    reason `skipped`. Messages that are already on their way to the database are still written.
    """
    pipeline = running(path)
    chosen = _selection(pipeline, "", topic, partition)
    sink = request(pipeline, "GET", "/status")["sink"]
    ends = [one["end"] for one in (sink or {}).get("partitions", ())
            if (one["stream"], one["topic"], one["partition"]) == (chosen.stream, chosen.topic, partition)]
    if not ends:
        raise PipelineError(f"{topic} has no partition {partition} that this pipeline reads")
    if last > ends[0]:
        raise click.BadParameter(f"the last offset of {topic} partition {partition} is {ends[0]}; messages that do not "
                                 "exist yet cannot be given up", param_hint="--to")
    _send(pipeline, ControlRequest("skip", skip=Skip(chosen.stream, chosen.topic, partition, last + 1)))
    click.echo(f"{topic} partition {partition}: messages up to offset {last} become dead letters")


@click.command(cls=Command)
@config_option
@click.argument("level", type=click.Choice(["debug", "info", "warning", "error", "default"]))
def log_level(path: ConfigInputs, level: str) -> None:
    """Sets the level of the log of a running pipeline.

    It holds until the next reload or the end; `default` is that of the configuration.
    """
    pipeline = running(path)
    chosen: Any = "" if level == "default" else level
    _send(pipeline, ControlRequest("log-level", level=chosen))
    click.echo(f"the level is {level}")


def _selection(pipeline: Running, sink: str, topic: str, partition: int | None, source: str = "") -> Selection:
    """Raises UsageError for what the configuration does not have, if it can be read."""
    config = pipeline.config
    if source and (sink or topic or partition is not None):
        raise click.UsageError("--source excludes --sink, --topic and --partition: a source reads no topic")
    sources = [one.name for one in config.sources] if config is not None else [source]
    if source and source not in sources:
        raise click.BadParameter(f"there is no such source; there is {', '.join(sources) or 'none'}",
                                 param_hint="--source")
    sinks = [one.name for one in config.all_sinks()] if config is not None else [sink]
    if sink and sink not in sinks:
        raise click.BadParameter(f"there is no such sink; there is {', '.join(sinks)}", param_hint="--sink")
    stream, slash, name = topic.partition("/")
    if topic and (not slash or not stream or not name):
        raise click.BadParameter("give STREAM/TOPIC", param_hint="--topic")
    if topic and config is not None:
        known = [one for one in config.subscriptions() if not sink or config.all_sinks()[one.sink].name == sink]
        if not any(one.matches(stream, name) if one.is_pattern else (one.stream, one.topic) == (stream, name)
                   for one in known):
            raise click.BadParameter(f"no sink reads it; there is {', '.join(one.label() for one in known)}",
                                     param_hint="--topic")
    if partition is not None and not topic:
        raise click.BadParameter("only with --topic", param_hint="--partition")
    return Selection(sink, stream, name, -1 if partition is None else partition, source)


def _send(pipeline: Running, what: ControlRequest) -> None:
    """Sends a request, and waits until the pipeline has acted on it. Raises PipelineError."""
    before = request(pipeline, "GET", "/status")["controls"]["number"]
    request(pipeline, "POST", "/control", msgspec.to_builtins(what))
    until = time.monotonic() + ACT_SECONDS
    while (found := request(pipeline, "GET", "/status")["controls"])["number"] <= before:
        if time.monotonic() > until:
            raise PipelineError("the pipeline does not act on it; see its log")
        time.sleep(LOOK_SECONDS)
    if found["error"]:
        raise PipelineError(found["error"])


def _say(pipeline: Running) -> None:
    paused = request(pipeline, "GET", "/status")["controls"]["paused"]
    click.echo(f"paused: {'; '.join(paused)}" if paused else "nothing is paused")
