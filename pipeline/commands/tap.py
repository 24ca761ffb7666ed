"""`pipeline tap`: a sample of the lines and rejects that pass through a running pipeline."""

import json
from typing import Any

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


@click.command(cls=Command)
@config_option
@click.option("--topic", default="", metavar="STREAM/TOPIC", help="Only what comes from this topic.")
@click.option("--sink", default="", metavar="NAME", help="Only what goes to this sink.")
@click.option("--only", type=click.Choice(["lines", "rejects"]), help="Either lines or rejects.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line, with stream, topic, partition and offset.")
def tap(path: ConfigInputs, topic: str, sink: str, only: str | None, count: int | None, as_json: bool) -> None:
    """Shows samples of the lines and rejects that pass.

    Each writer gives the first lines of a batch twice a second, while somebody taps; the pipeline does not wait for
    that. Rejects are the last ones of the status. It goes on until Ctrl-C.
    """
    config = load_config(path, unused=UNUSED)
    if not config.all_sinks():
        raise PipelineError("this configuration has no sinks; samples of sources are not shown")
    if topic and "/" not in topic:
        raise click.BadParameter("give STREAM/TOPIC", param_hint="--topic")
    shown = 0
    for content in lines(config, "/tap", SILENT_SECONDS):
        if not content.strip():
            continue
        one = json.loads(content)
        if (topic and f"{one['stream']}/{one['topic']}" != topic or sink and one["sink"] != sink
                or only and one["kind"] != only[:-1]):
            continue
        click.echo(content.decode().rstrip() if as_json else described(one))
        shown += 1
        if count is not None and shown >= count:
            return
    raise PipelineError("the pipeline has ended")


def described(one: dict[str, Any]) -> str:
    """A sample for people: a line as it is written, and a reject as a comment of line protocol."""
    if one["kind"] == "line":
        return printable(one["line"])
    place = f"{one['stream']}/{one['topic']} partition {one['partition']} offset {one['offset']}"
    line = f" | {one['line']}" if one["line"] else ""
    return printable(f"# rejected {place}: {one['reason']}: {one['detail']}{line}")
