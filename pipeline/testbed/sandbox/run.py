"""Runs the sandbox: `pipeline sandbox` in the foreground, or `python -m pipeline.testbed.sandbox.run` for tests."""

import asyncio
import errno
import functools
import json
import os
import signal
import socket
import ssl
import sys
from pathlib import Path

import click
from msgspec import Struct

from pipeline.config.toml_values import toml_value
from pipeline.errors import PipelineError
from pipeline.interrupts import end_on_interrupt
from pipeline.testbed.sandbox.iggy.control import handle_control
from pipeline.testbed.sandbox.iggy.server import HEARTBEAT_SECONDS, Broker
from pipeline.testbed.sandbox.influxdb.answers import Flavour
from pipeline.testbed.sandbox.influxdb.faults import Rule, parse_rules
from pipeline.testbed.sandbox.influxdb.server import InfluxServer

HOST = "127.0.0.1"
STREAM, TOPIC, PARTITIONS = "telemetry", "sensors", 2

CONFIG = """\
[iggy]
address = "{iggy}"
{tls}
[[topics]]
stream = "{stream}"
topic = "{topic}"

[mapping]
tag_fields = ["site", "device"]
timestamp_from = "field"
timestamp_field = "ts"
timestamp_format = "epoch_ms"

[influxdb]
url = "{influxdb}"
{target}
precision = "ms"
"""
_TARGETS: dict[Flavour, str] = {
    "v1": 'version = "v1"\ndatabase = "{bucket}"',
    "v2": 'version = "v2"\norg = "{org}"\nbucket = "{bucket}"\ntoken = "{token}"',
    "v3": 'version = "v3"\ndatabase = "{bucket}"\ntoken = "{token}"',
    "questdb": 'database = "{bucket}"',
}


class SandboxOptions(Struct, frozen=True, kw_only=True):
    """What to run. Ports: 0 takes a free one."""

    #: Address that all listen on.
    host: str = HOST
    iggy_port: int = 8090
    influx_port: int = 8086
    #: Port of Iggy's listener for WebSocket; None: there is none.
    iggy_websocket_port: int | None = None
    #: PEM files of the certificate and the key that all listeners of Iggy have; "": they are not encrypted. The key may
    #: be in the certificate's file.
    iggy_certificate: str = ""
    iggy_key: str = ""
    #: Iggy's heartbeat interval, seconds.
    iggy_heartbeat_seconds: float = HEARTBEAT_SECONDS
    #: Port of InfluxDB 3's Flight service; None: no Flight service.
    flight_port: int | None = None
    #: "iggy" or "influxdb": only that one; "": both.
    only: str = ""
    flavour: Flavour = "v2"
    #: Older points are refused; 0: no retention.
    retention_seconds: int = 0
    #: Largest body in bytes; 0: none, None: the flavour's own.
    max_body_bytes: int | None = None
    #: Take writes unread, and count them.
    count_only: bool = False
    rules: tuple[Rule, ...] = ()
    #: Where to write `{"iggy": "host:port", "iggy_websocket": "host:port", "influxdb": "http://host:port", "flight":
    #: "http://host:port", "pid": n}` once all listen; "": nowhere.
    address_file: str = ""
    #: Make the topic that the configuration names, and print all that a user wants to know.
    announce: bool = False


async def serve(options: SandboxOptions) -> None:
    """Runs until SIGINT or SIGTERM. Raises PipelineError when a port can't be had."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    broker = Broker(options.host, options.iggy_port, tls=_tls(options), websocket_port=options.iggy_websocket_port,
                    heartbeat_seconds=options.iggy_heartbeat_seconds) if options.only != "influxdb" else None
    influxdb = None
    if options.only != "iggy":
        influxdb = InfluxServer(
            options.host, options.influx_port, options.flavour, max_body_bytes=options.max_body_bytes,
            retention_seconds=options.retention_seconds, rules=list(options.rules), count_only=options.count_only,
            iggy_control=functools.partial(handle_control, broker) if broker else None,
            flight_port=options.flight_port)
    try:
        if broker is not None:
            await _started(broker, "Iggy", "--iggy-port")
        if influxdb is not None:
            await _started(influxdb, "InfluxDB", "--influx-port")
        if options.address_file:
            _write_addresses(Path(options.address_file), broker, influxdb)
        if options.announce:
            _announce(options, broker, influxdb)
        await stop.wait()
    finally:
        for server in (broker, influxdb):
            if server is not None:
                await server.stop()


def _tls(options: SandboxOptions) -> ssl.SSLContext | None:
    """The server's side of TLS; None without a certificate. Raises PipelineError."""
    if options.iggy_key and not options.iggy_certificate:
        raise PipelineError("--iggy-key: only with --iggy-certificate")
    if not options.iggy_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(options.iggy_certificate, options.iggy_key or None, password=lambda: "-")
    except (OSError, ValueError):
        raise PipelineError(f"{options.iggy_certificate} and its key cannot be used; give a certificate in PEM with "
                            "--iggy-certificate, and the key that belongs to it without a password with --iggy-key"
                            ) from None
    return context


async def _started(server: Broker | InfluxServer, name: str, option: str) -> None:
    try:
        await server.start()
    except OSError as error:
        wrong_host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        advice = ("give an address of this machine with --host" if wrong_host else
                  f"stop what has that port, or give another with {option} (0 takes a free one)")
        raise PipelineError(f"the sandbox's {name} can't listen on {server.host}:{server.port}: {reason}; {advice}"
                            ) from None


def _write_addresses(path: Path, broker: Broker | None, influxdb: InfluxServer | None) -> None:
    """Writes the file under another name first, so that no reader gets half of it."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(json.dumps({"iggy": broker.address if broker else "",
                                      "iggy_websocket": broker.websocket_address if broker else "",
                                      "influxdb": influxdb.url if influxdb else "",
                                      "flight": influxdb.flight_url if influxdb else "", "pid": os.getpid()}))
    unfinished.replace(path)


def _announce(options: SandboxOptions, broker: Broker | None, influxdb: InfluxServer | None) -> None:
    print("A sandbox, for trying out. It is not for production: everything is in memory, and gone when it stops.")
    if broker is not None:
        broker.state.new_stream(STREAM)
        broker.state.new_topic(STREAM, TOPIC, PARTITIONS)
        print(f"Iggy:      {broker.address}, user iggy, password iggy; "
              f"topic {STREAM}/{TOPIC} with {PARTITIONS} partitions")
        if broker.websocket_address:
            print(f"           {broker.websocket_address} for transport = \"websocket\"")
        if broker.tls is not None:
            print("           All of it is encrypted.")
    if influxdb is not None:
        print(f"InfluxDB:  {influxdb.url} ({options.flavour}); {influxdb.url}/sandbox/points?limit=5 shows points")
        if influxdb.flight_url:
            print(f"Flight:    {influxdb.flight_url}, for a source with transport = \"flight\"")
    if broker is not None and influxdb is not None:
        print("\nSave this as pipeline.toml, and run: pipeline start -c pipeline.toml\n")
        print(_config(options, broker, influxdb))
    print("Stop it with Ctrl+C.", flush=True)


def _config(options: SandboxOptions, broker: Broker, influxdb: InfluxServer) -> str:
    """A configuration for `pipeline start -c` with the real ports."""
    identity = influxdb.identity
    target = _TARGETS[options.flavour].format(org=identity.org, bucket=identity.bucket, token=identity.token)
    tls = ("\n[iggy.tls]\nenabled = true\n# Of the certificate's authority, if it is not its own.\n"
           f"ca_file = {toml_value(os.path.abspath(options.iggy_certificate))}\n") if broker.tls else ""
    return CONFIG.format(iggy=broker.address, tls=tls, influxdb=influxdb.url, stream=STREAM, topic=TOPIC, target=target)


@click.command()
@click.option("--host", default=HOST, show_default=True)
@click.option("--iggy-port", default=8090, show_default=True, type=click.IntRange(0, 65_535))
@click.option("--iggy-websocket-port", default=None, type=click.IntRange(0, 65_535))
@click.option("--iggy-certificate", default="", metavar="FILE")
@click.option("--iggy-key", default="", metavar="FILE")
@click.option("--iggy-heartbeat-seconds", default=HEARTBEAT_SECONDS, show_default=True, type=click.FloatRange(0.1))
@click.option("--influx-port", default=8086, show_default=True, type=click.IntRange(0, 65_535))
@click.option("--flight-port", default=None, type=click.IntRange(0, 65_535))
@click.option("--address-file", default="", metavar="FILE", help="Accepted when both listen.")
@click.option("--only", default="", type=click.Choice(["", "iggy", "influxdb"]))
@click.option("--flavour", default="v2", show_default=True, type=click.Choice(["v1", "v2", "v3", "questdb"]))
@click.option("--retention-seconds", default=0, type=click.IntRange(0))
@click.option("--max-body-bytes", default=None, type=click.IntRange(0))
@click.option("--count-only", is_flag=True)
@click.option("--fault", "fault_texts", multiple=True, metavar="JSON")
def main(host: str, iggy_port: int, iggy_websocket_port: int | None, iggy_certificate: str, iggy_key: str,
         iggy_heartbeat_seconds: float, influx_port: int, flight_port: int | None, address_file: str, only: str,
         flavour: Flavour, retention_seconds: int, max_body_bytes: int | None, count_only: bool,
         fault_texts: tuple[str, ...]) -> None:
    """The sandbox for tests: writes its addresses to a file."""
    end_on_interrupt("")
    try:
        rules = [rule for text in fault_texts for rule in parse_rules(text)]
        asyncio.run(serve(SandboxOptions(
            host=host, iggy_heartbeat_seconds=iggy_heartbeat_seconds, iggy_port=iggy_port,
            iggy_websocket_port=iggy_websocket_port, iggy_certificate=iggy_certificate,
            iggy_key=iggy_key, influx_port=influx_port, flight_port=flight_port, only=only, flavour=flavour,
            address_file=address_file, retention_seconds=retention_seconds, max_body_bytes=max_body_bytes,
            count_only=count_only, rules=tuple(rules))))
    except PipelineError as error:
        click.echo(f"sandbox: error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(prog_name="python -m pipeline.testbed.sandbox.run")
