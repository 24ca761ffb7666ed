"""Memory of the pipeline with the database down and a backlog in Iggy, and whether it catches up. See `scripts/bench`.

The figure is the sum of the proportional set sizes of all its processes: memory that several share counts once.
"""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.testbed.harness import procfs, telemetry
from pipeline.testbed.harness.runs import SinkRun, is_settled
from pipeline.testbed.harness.sandboxes import start_sandbox
from pipeline.testbed.harness.waiting import free_port
from pipeline.wire import sink as wire

PARTITIONS = 2
#: While the database is down, the pipeline is watched until it has read nothing more for so long, seconds.
STALLED_SECONDS = 6.0
#: What the catching up may take at most, seconds beside a second for so many messages.
CATCH_UP_SECONDS, CATCH_UP_RATE = 60.0, 2_000


class Peak:
    """The largest sum seen, with its parts."""

    def __init__(self) -> None:
        self.bytes = 0
        self.parts: dict[str, int] = {}

    def look(self, run: SinkRun) -> None:
        """Measures now. Processes that are not there any more count nothing."""
        parts = {name: procfs.pss_bytes(pid) for name, pid in run.pids().items()}
        if sum(parts.values()) > self.bytes:
            self.bytes, self.parts = sum(parts.values()), parts


def adversary(index: int) -> bytes:
    """Message number `index` of a producer that means ill: a new device in each, in sixteen shapes."""
    fields = [b'"temperature":20.5', b'"humidity":40.5', b'"pressure":1000.25', b'"battery":90']
    kept = [field for bit, field in enumerate(fields) if index % 16 >> bit & 1]
    return b'{"site":"site-%d","device":"device-%032d",%b,"ok":true,"ts":%d}' % (
        index % 5, index, b",".join([*kept, b'"spare":1']), telemetry.FIRST_TIME_MS + index)


#: What may be sent.
DATA: dict[str, Callable[[int], bytes]] = {"telemetry": telemetry.telemetry, "adversary": adversary}


def measure(folder: Path, messages: int, workers: int, data: str = "telemetry",
            options: str = "") -> dict[str, Any]:
    """Sends all messages, runs the pipeline without a database for a while, then with one that only counts.

    `options`: lines of `[pipeline]`.
    """
    broker, iggy = start_sandbox(folder, "--only", "iggy")
    run, receiver = None, None
    try:
        telemetry.produce_now(iggy.iggy, messages, PARTITIONS, make=DATA[data])
        port = free_port()
        config = telemetry.sink_of(f"http://127.0.0.1:{port}", options=f"workers = {workers}\n{options}")
        run = telemetry.sink_run(folder, iggy.iggy, config)
        run.start()
        down = Peak()
        run.wait_for(lambda s: s.retrying, "the writers to find no database")
        stalled = _watch_until_stalled(run, down)
        receiver, _ = start_sandbox(folder, "--only", "influxdb", "--count-only", "--influx-port", str(port))
        up = Peak()
        began = time.monotonic()
        until = began + CATCH_UP_SECONDS + messages / CATCH_UP_RATE
        while not is_settled(status := _watch(run, up, 1.0), messages):
            if time.monotonic() > until:
                raise click.ClickException(f"{status.written:,} of {messages:,} messages are written; "
                                           f"{run.log_end()}")
        seconds = time.monotonic() - began
        exit_code = run.stop()
    finally:
        for process in (run.process if run else None, broker, receiver):
            _end(process)
    return {"messages": messages, "data": data, "workers": workers, "peak_pss_mb": _mb(max(down.bytes, up.bytes)),
            "peak_pss_mb_database_down": _mb(down.bytes), "peak_pss_mb_catching_up": _mb(up.bytes),
            "pss_mb_by_process": {name: _mb(size) for name, size in sorted(down.parts.items())},
            "in_flight_while_down": stalled.in_flight, "catch_up_seconds": round(seconds, 1), "exit_code": exit_code}


def _watch_until_stalled(run: SinkRun, peak: Peak) -> wire.Status:
    read = -1
    while (status := _watch(run, peak, STALLED_SECONDS)).read > read:
        read = status.read
    return status


def _watch(run: SinkRun, peak: Peak, seconds: float) -> wire.Status:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        run.watch(min(0.2, left))
        peak.look(run)
    if run.status is None:
        raise click.ClickException("the pipeline gives no status")
    return run.status


def _mb(size: int) -> float:
    return round(size / 1e6, 1)


def _end(process: "subprocess.Popen[bytes] | None") -> None:
    if process is not None:
        process.kill()
        process.wait()
