"""`pipeline demo`: sandbox, producer and pipeline in one command, a live view, and a verdict."""

import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import requests
from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.errors import PipelineError
from pipeline.interrupts import temporary_folder
from pipeline.options import Command
from pipeline.testbed.harness import telemetry
from pipeline.testbed.harness.runs import SinkRun
from pipeline.testbed.harness.sandboxes import start_sandbox
from pipeline.wire import sink as wire

PARTITIONS = 2
#: Longest the demo waits for the last point, seconds, beyond what the messages take at 5,000 a second.
PATIENCE_SECONDS = 60.0
SHOWN_POINTS = 5
#: Columns of a line where there is no terminal.
PLAIN_WIDTH = 140


@click.command(cls=Command, short_help="Runs it all: sandbox, producer, pipeline, and a verdict")
@click.option("--messages", default=100_000, show_default=True, type=click.IntRange(1), help="How many to send.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256), help="Encoder processes.")
@click.option("--plain", is_flag=True, help="Plain lines instead of the live view.")
def demo(messages: int, workers: int, plain: bool) -> None:
    """Shows the whole thing: sandbox, producer, pipeline, and a verdict. Needs no servers."""
    sys.exit(run_demo(messages, workers, plain))


def run_demo(messages: int, workers: int, plain: bool) -> int:
    """Runs the demo. Returns 0 when all that was sent is stored and committed, else 1."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    plain = plain or not console.is_terminal
    with temporary_folder("pipeline-demo-") as folder:
        return _shown(folder, messages, workers, console, plain)


def _shown(folder: Path, messages: int, workers: int, console: Console, plain: bool) -> int:
    run = sandbox = None
    try:
        console.print(f"Starting a sandbox (a small Iggy, a small InfluxDB) and a pipeline with {workers} encoders.")
        sandbox, addresses = start_sandbox(folder)
        telemetry.produce_now(addresses.iggy, 0, PARTITIONS)
        options = f"workers = {workers}\nflush_interval_ms = 200\n"
        run = telemetry.sink_run(folder, addresses.iggy, telemetry.sink_of(addresses.influxdb, options=options))
        run.start()
        run.wait_for(lambda status: status.ready)
        console.print(f"Sending {messages:,} messages of telemetry to {telemetry.STREAM}/{telemetry.TOPIC}.")
        producer = _Producer(addresses.iggy, messages)
        producer.start()
        _watch(run, producer, console, plain)
        exit_code = run.stop()
        return _verdict(console, addresses.influxdb, messages, run.status, exit_code)
    finally:
        for process in (run.process if run else None, sandbox):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(10)


def _committed(status: wire.Status) -> int:
    """Messages whose offsets are committed; all partitions are new."""
    return sum(partition.committed + 1 for partition in status.partitions)


class _Producer(threading.Thread):
    """Sends the messages beside the view."""

    def __init__(self, iggy: str, messages: int) -> None:
        super().__init__(daemon=True)
        self._iggy = iggy
        self.messages = messages
        self.error: PipelineError | None = None

    def run(self) -> None:
        """Sends all."""
        try:
            telemetry.produce_now(self._iggy, self.messages, PARTITIONS)
        except PipelineError as error:
            self.error = error


def _watch(run: SinkRun, producer: _Producer, console: Console, plain: bool) -> None:
    """Shows the way of the messages until all are committed. Raises PipelineError when they can't be sent."""
    messages = producer.messages
    until = time.monotonic() + PATIENCE_SECONDS + messages / 5_000
    earlier, shown_at = run.status, time.monotonic()
    with Live(console=console, auto_refresh=False, transient=False) if not plain else _Nothing() as live:
        while time.monotonic() < until:
            status = run.watch(0.5)
            if producer.error is not None:
                raise producer.error
            now = time.monotonic()
            if status is None or earlier is None:
                continue
            done = _committed(status) >= messages
            if now - shown_at < 0.5 and not done:
                continue
            rates = _rates(earlier, status, now - shown_at)
            if live is None:
                console.print(f"read {status.read:,} ({rates['read']:,.0f}/s)  written {status.written:,} "
                              f"({rates['written']:,.0f}/s)  in flight {status.in_flight:,}")
            else:
                live.update(_table(status, rates, messages), refresh=True)
            if done:
                return
            earlier, shown_at = status, now


class _Nothing:
    """Stands for the live view where there is no terminal."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _rates(earlier: wire.Status, status: wire.Status, seconds: float) -> dict[str, float]:
    return {name: (getattr(status, name) - getattr(earlier, name)) / seconds for name in ("read", "encoded", "written")}


def _table(status: wire.Status, rates: dict[str, float], messages: int) -> Table:
    table = Table(title=f"Iggy -> InfluxDB, {messages:,} messages")
    for heading in ("stage", "messages", "a second"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, name in (("ingest", "read"), ("encode", "encoded"), ("write", "written")):
        table.add_row(stage, f"{getattr(status, name):,}", f"{rates[name]:,.0f}")
    table.add_row("in flight", f"{status.in_flight:,}", "")
    for p in status.partitions:
        table.add_row(f"partition {p.partition}", f"committed {p.committed + 1:,}", f"lag {p.lag:,}")
    return table


def _verdict(console: Console, influxdb: str, messages: int, status: wire.Status | None, exit_code: int) -> int:
    """Compares what was sent with what is stored, and shows some points."""
    stored = requests.get(f"{influxdb}/sandbox/count?bucket=sandbox", timeout=30).json()["points"]
    points: list[dict[str, Any]] = requests.get(f"{influxdb}/sandbox/points?bucket=sandbox&limit={SHOWN_POINTS}",
                                                timeout=60).json()
    table = Table(title=f"{min(len(points), SHOWN_POINTS)} of {stored:,} points")
    for heading in ("measurement", "tags", "fields", "time"):
        table.add_column(heading, overflow="fold" if heading == "fields" else "ellipsis")
    for point in points[:SHOWN_POINTS]:
        tags, fields = dict(point["tags"]), point["fields"]
        table.add_row(point["measurement"], " ".join(f"{k}={v}" for k, v in tags.items()),
                      " ".join(f"{k}={v}" for k, v in fields.items()),
                      datetime.fromtimestamp(point["time"] / 1e9, UTC).isoformat(timespec="milliseconds"))
    console.print(table)
    committed = _committed(status) if status else 0
    console.print(f"sent {messages:,}  stored {stored:,}  offsets committed {committed:,}  exit code {exit_code}")
    good = stored == committed == messages and exit_code == 0
    console.print("OK: nothing lost, nothing twice." if good else "FAILED: these should be equal, and the exit code 0.")
    sys.stdout.flush()
    return 0 if good else 1
