"""`pipeline sandbox`: a small Iggy and a small InfluxDB, by default on loopback."""

import asyncio
from typing import Literal

import click

from pipeline.options import Command
from pipeline.testbed.sandbox.influxdb.faults import parse_rules
from pipeline.testbed.sandbox.run import HOST, SandboxOptions, serve


@click.command(cls=Command, short_help="Runs a small Iggy and a small InfluxDB to try things out")
@click.option("--host", default=HOST, show_default=True, metavar="ADDRESS",
              help="Address to listen on. Whoever reaches another than loopback can log in: the passwords are public.")
@click.option("--iggy-port", default=8090, show_default=True, type=click.IntRange(0, 65_535),
              help="0 takes a free one.")
@click.option("--iggy-websocket-port", default=None, type=click.IntRange(0, 65_535),
              help="Iggy's WebSocket, too, on this port; 0 takes a free one.")
@click.option("--iggy-certificate", default="", metavar="FILE", help="Encrypt Iggy's listeners, with this certificate.")
@click.option("--iggy-key", default="", metavar="FILE", help="Its key, unless it is in the same file.")
@click.option("--influx-port", default=8086, show_default=True, type=click.IntRange(0, 65_535),
              help="0 takes a free one.")
@click.option("--flavour", default="v2", show_default=True, type=click.Choice(["v1", "v2", "v3", "questdb"]),
              help="The version of InfluxDB to answer like, or QuestDB.")
@click.option("--flight-port", default=None, type=click.IntRange(0, 65_535),
              help="With v3: serve Arrow Flight, too, on this port; 0 takes a free one.")
@click.option("--retention-seconds", default=0, type=click.IntRange(0), help="Refuse points older than this; 0: none.")
@click.option("--fault", "fault_texts", multiple=True, metavar="JSON",
              help='How InfluxDB is to fail, e.g. \'{"status": 503, "times": 3}\'; may be given again.')
def sandbox(host: str, iggy_port: int, iggy_websocket_port: int | None, iggy_certificate: str, iggy_key: str,
            influx_port: int, flavour: Literal["v1", "v2", "v3", "questdb"], flight_port: int | None,
            retention_seconds: int, fault_texts: tuple[str, ...]) -> None:
    """Runs a small Iggy and a small InfluxDB, by default on loopback, for trying out; not for production."""
    rules = tuple(rule for text in fault_texts for rule in parse_rules(text))
    asyncio.run(serve(SandboxOptions(host=host, iggy_port=iggy_port, iggy_websocket_port=iggy_websocket_port,
                                     iggy_certificate=iggy_certificate, iggy_key=iggy_key, influx_port=influx_port,
                                     flavour=flavour, flight_port=flight_port, retention_seconds=retention_seconds,
                                     rules=rules, announce=True)))
