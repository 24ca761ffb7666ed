"""What a source with nothing new costs: CPU of the pipeline, for one measurement and for many."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import requests
from msgspec import Struct

from pipeline.testbed.bench.sampler import cpu_seconds
from pipeline.testbed.harness.configurations import SANDBOX_V2, SourceConfiguration
from pipeline.testbed.harness.procfs import descendants, pss_bytes
from pipeline.testbed.harness.runs import SourceRun
from pipeline.testbed.harness.sandboxes import running_sandbox

#: Longest wait until all measurements are read, and the pipeline's pages are in Iggy, seconds.
START_SECONDS = 300.0
#: From then to the beginning of the measurement, seconds.
WARM_UP_SECONDS = 20.0
#: Points of each measurement, a second apart.
POINTS = 3


class IdleSource(Struct, frozen=True):
    """So many measurements without new points."""

    measurements: int
    #: By process, and of all: percent of one core.
    cpu_percent: dict[str, float]
    cpu_percent_total: float
    #: Pages read by themselves, a second.
    pages_per_second: float
    #: Proportional set size of all processes at the end, MiB.
    memory_mib: float


def measure(folder: Path, measurements: Sequence[int], seconds: float) -> Iterator[IdleSource]:
    """A sandbox and a pipeline with the defaults for each number of measurements. Raises PipelineError."""
    for count in measurements:
        below = folder / f"{count}-measurements"
        below.mkdir()
        with running_sandbox(below) as sandbox:
            _fill(sandbox.influxdb, count)
            config = SourceConfiguration(
                stream="idle", output='topic = "all"', influxdb=f'url = "{sandbox.influxdb}"\n{SANDBOX_V2}',
                source=f'state_file = "{below}/state.json"').text(sandbox.iggy, below / "run")
            with SourceRun(below, config) as run:
                before = run.wait_for(lambda status: status.points == count * POINTS and status.caught_up,  # noqa: B023
                                      "all points to be read", START_SECONDS)
                _watch(run, WARM_UP_SECONDS)
                before = run.status or before
                cpu, began = _cpu(run), time.monotonic()
                _watch(run, seconds)
                after, ended = _cpu(run), time.monotonic()
                pages = (run.status or before).pages - before.pages
                spent = {name: (after[name] - cpu.get(name, 0.0)) / (ended - began) * 100 for name in after}
                yield IdleSource(
                    count, {name: round(percent, 2) for name, percent in spent.items()},
                    round(sum(spent.values()), 2), round(pages / (ended - began), 2),
                    round(sum(map(pss_bytes, _pids(run).values())) / 2**20, 1))


def _fill(url: str, count: int) -> None:
    now = time.time_ns() - 60_000_000_000
    lines = [f"m{number},t=a v={number} {now + at * 1_000_000_000}" for number in range(count) for at in range(POINTS)]
    requests.post(f"{url}/api/v2/write?org=sandbox&bucket=sandbox", data="\n".join(lines).encode(), timeout=60,
                  headers={"Authorization": "Token sandbox-token"}).raise_for_status()


def _pids(run: SourceRun) -> dict[str, int]:
    named = run.pids()
    others = [pid for pid in descendants(run.process.pid) if pid not in named.values()]
    return {**named, **{f"helper-{number}": pid for number, pid in enumerate(others)}}


def _cpu(run: SourceRun) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in _pids(run).items()}


def _watch(run: SourceRun, seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        run.watch(min(0.5, left))


def text(found: IdleSource) -> str:
    """One line for a terminal."""
    busiest = sorted(found.cpu_percent.items(), key=lambda item: -item[1])
    each = ", ".join(f"{name} {percent:g}" for name, percent in busiest if percent >= 0.01)
    return (f"{found.measurements:>6,} idle measurements: {found.cpu_percent_total:6.2f} % of a core, "
            f"{found.pages_per_second:g} pages/s, {found.memory_mib:g} MiB ({each})")
