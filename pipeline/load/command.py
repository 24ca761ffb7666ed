"""`pipeline load`."""

import json

import click
import msgspec

from pipeline.config import load_config
from pipeline.load.run import LoadOptions, run_load
from pipeline.load.schedule import Shape


@click.command()
@click.option("-c", "--config", "path", required=True, metavar="FILE",
              help="Configuration: the load goes to its Iggy, into its first topic, which is made if it is missing.")
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
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.pass_context
def load(ctx: click.Context, path: str, rate: float, series: int, fields: int, size: int, partitions: int,
         seconds: float, shape: Shape, as_json: bool) -> None:
    """Sends telemetry to Iggy at a rate that is held; ends with 1, and says so, where it could not.

    A message's `ts` is the time in microseconds when it was meant to be sent, not when the server let it be sent.
    """
    config = load_config(path)
    topic = config.all_sinks()[0].topics[0]
    result = run_load(LoadOptions(
        iggy=config.iggy, stream=topic.stream, topic=topic.topic, rate=rate, series=series, fields=fields, size=size,
        partitions=partitions, seconds=seconds, shape=shape))
    click.echo(result.words(), err=as_json)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(result)))
    if not result.held:
        ctx.exit(1)
