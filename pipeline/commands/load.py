"""`pipeline load`."""

import json
import tempfile
from pathlib import Path

import click
import msgspec

from pipeline.commands.config import load_config
from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import DATABASE
from pipeline.config.mapping_schema import EPOCH_FORMATS
from pipeline.config.patterns import is_pattern
from pipeline.config.schema import MappingConfig
from pipeline.errors import PipelineError
from pipeline.options import Command, config_option
from pipeline.testbed.load.runner import LoadOptions, run_load
from pipeline.testbed.load.schedule import Shape
from pipeline.testbed.load.telemetry import DEFAULT_TIME, MADE_FORMATS, TimeForm


@click.command(cls=Command)
@config_option
@click.option("--rate", default=10_000.0, show_default=True, type=click.FloatRange(0, min_open=True),
              help="Messages a second; of --shape ramp at the end, of burst on average.")
@click.option("--series", default=1_000, show_default=True, type=click.IntRange(1), help="Devices that send.")
@click.option("--fields", default=5, show_default=True, type=click.IntRange(1, 1_000), help="Numbers in a message.")
@click.option("--size", default=0, show_default=True, type=click.IntRange(0, 1_000_000),
              help="Bytes of a message; 0: no more than its fields need.")
@click.option("--partitions", default=2, show_default=True, type=click.IntRange(1, 1_000),
              help="Of the topic, if it is made.")
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--shape", default="steady", show_default=True, type=click.Choice(["steady", "ramp", "burst"]),
              help="ramp: from 0 to the rate; burst: each second's messages within 0.1 s.")
@click.option("--workload", default="", metavar="NAME",
              help="Send messages of one kind of producer, such as zigbee2mqtt, instead; the names are those of "
                   "scripts/bench workloads.")
@click.option("--show-mapping", is_flag=True, help="Only show the [mapping] that the workload is made for.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.pass_context
def load(ctx: click.Context, path: ConfigInputs, rate: float, series: int, fields: int, size: int, partitions: int,
         seconds: float, shape: Shape, workload: str, show_mapping: bool, as_json: bool) -> None:
    """Sends telemetry to Iggy at a constant rate. Exit code 1 with a message when the rate could not be held.

    Messages go to the first topic, created if it is missing, in the format of its mapping, with its tags, fields and
    types; by default with the tags site and device, and numbers. The time in a message is when it was due, not when
    the server accepted it. It has the place and format that the mapping reads; else it is in "ts", in microseconds
    since 1970.

    With --workload the mapping has to be that of the workload.
    """
    if workload or show_mapping:
        mapping = mapping_of(workload)
        if show_mapping:
            click.echo(mapping, nl=False)
            return
    config = load_config(path, unused=(*DATABASE, "sources", "dead_letters", "network", "http", "otlp", "pipeline",
                                       "tests"))
    if not config.all_sinks():
        raise PipelineError(f"{path}: has no [[topics]], and so no topic to send to; a source sends what its "
                            "InfluxDB has")
    sink = config.all_sinks()[0]
    topic = sink.topics[0]
    if is_pattern(topic.stream) or is_pattern(topic.topic):
        raise PipelineError(f"{path}: {topic.stream}/{topic.topic} is a pattern, and a load needs one topic to send "
                            "to; name that in a first [[topics]]")
    result = run_load(LoadOptions(
        iggy=config.iggy, stream=topic.stream, topic=topic.topic, rate=rate, series=series, fields=fields, size=size,
        time=time_form(sink.mapping), mapping=sink.mapping, partitions=partitions, seconds=seconds, shape=shape,
        workload=workload))
    click.echo(result.summary(), err=as_json)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(result)))
    if not result.held:
        ctx.exit(1)


def mapping_of(name: str) -> str:
    """The lines of `[mapping]` for a workload. Raises PipelineError where there is none of that name."""
    from pipeline.testbed.workloads.catalogue import NAMES, workload
    from pipeline.testbed.workloads.mapping_text import mapping_text

    if name not in NAMES:
        raise PipelineError(f"--workload {name}: there is no such workload; give one of {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory() as folder:
        return f"[mapping]\n{mapping_text(workload(name, Path(folder)).mapping)}"


def time_form(mapping: MappingConfig) -> TimeForm:
    """How a message has its time for this mapping; the default where that reads none."""
    if mapping.format == "line_protocol":
        return TimeForm("time", f"epoch_{mapping.line_protocol_precision}")
    if mapping.timestamp_from != "field" or mapping.format not in MADE_FORMATS:
        return DEFAULT_TIME
    alike = {"epoch_auto": "epoch_us", "rfc3164": "%b %d %H:%M:%S"}
    forms = [alike.get(form, form) for form in mapping.time_formats()]
    form = next((form for form in forms if form in (*EPOCH_FORMATS, "rfc3339", "iso8601") or "%" in form), None)
    if form is None:
        raise click.UsageError(f"messages with times as timestamp_format = {forms[0]!r} cannot be made; use a mapping "
                               "with an epoch, rfc3339, iso8601 or strptime format")
    return TimeForm(mapping.time_paths()[0], form, mapping.timestamp_zone)
