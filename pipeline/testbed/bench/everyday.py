"""What the pipeline costs at rates that installations have: CPU, write requests, latency and memory."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import requests
from msgspec import Struct

from pipeline.config.iggy_schema import IggyConfig
from pipeline.errors import PipelineError
from pipeline.testbed.bench import constant_rate
from pipeline.testbed.bench.latency import Latencies
from pipeline.testbed.bench.sampler import cpu_seconds
from pipeline.testbed.bench.throughput import filled
from pipeline.testbed.harness import telemetry
from pipeline.testbed.harness.configurations import SANDBOX_V2, SinkConfiguration
from pipeline.testbed.harness.procfs import descendants, pss_bytes
from pipeline.testbed.harness.runs import SinkRun

RATES = (0, 100, 1_000, 5_000, 20_000, 100_000)
PARTITIONS = (1, 8, 100)
#: From the beginning of a load, or of an idle time, to the beginning of its measurement, seconds.
WARM_UP_SECONDS = 4.0
#: Longest wait for the last message of a load, seconds.
FINISH_SECONDS = 60.0


class Everyday(Struct, frozen=True):
    """One rate over so many partitions."""

    rate: float
    partitions: int
    #: Whether the rate was held by the load, and by the pipeline.
    held: bool
    #: By process, and of all: percent of one core.
    cpu_percent: dict[str, float]
    cpu_percent_total: float
    #: 0 at rate 0.
    cpu_us_per_message: float
    requests_per_second: float
    points_per_request: float
    #: From the intended send to the acknowledgement; empty at rate 0.
    latency_ms: dict[str, float]
    #: Proportional set size of all processes at the end, MiB.
    memory_mib: float


def measure(folder: Path, rates: Sequence[int], partitions: Sequence[int], seconds: float, options: str,
            iggy: str = "") -> Iterator[Everyday]:
    """A sandbox, or `iggy`, and one pipeline for each number of partitions; each rate in turn for `seconds`.

    `options`: lines of `[pipeline]`. Raises PipelineError.
    """
    Latencies()
    for count in partitions:
        below = folder / f"{count}-partitions"
        below.mkdir()
        with filled(below, iggy, 0, count) as (address, stream), constant_rate.receiver(below) as url:
            config = SinkConfiguration(
                stream=stream, topic=telemetry.TOPIC, mapping=constant_rate.MAPPING, options=options,
                influxdb=f'url = "{url}"\nprecision = "us"\n{SANDBOX_V2}')
            with telemetry.sink_run(below, address, config) as run:
                run.wait_for(lambda s: s.ready)
                for rate in rates:
                    yield _at(run, url, address, stream, rate, count, seconds)


def _at(run: SinkRun, url: str, address: str, stream: str, rate: int, partitions: int,
        seconds: float) -> Everyday:
    before = run.wait_for(lambda s: s.in_flight == 0, "an idle pipeline", FINISH_SECONDS)
    load = None
    if rate:
        options = constant_rate.default_load(rate, WARM_UP_SECONDS + seconds)
        login = IggyConfig(address=address, username="iggy", password="iggy")
        load = constant_rate.Load(msgspec.structs.replace(options, iggy=login, stream=stream, partitions=partitions))
        load.start()
    _watch(run, WARM_UP_SECONDS)
    requests.get(f"{url}/bench/reset", timeout=30)
    cpu, began = _cpu(run), time.monotonic()
    _watch(run, seconds - 1)
    after, ended = _cpu(run), time.monotonic()
    result = constant_rate.result_of(url)
    spent = {name: (after[name] - cpu.get(name, 0.0)) / (ended - began) * 100 for name in after}
    held = True
    if load is not None:
        load.join()
        if load.result is None:
            raise load.error or PipelineError("the load broke off")
        sent = load.result.messages
        held = load.result.held and result.points >= 0.8 * rate * (ended - began)
        run.wait_for(lambda s: s.written + s.rejected >= before.written + before.rejected + sent, "the last message",
                     FINISH_SECONDS)
    total = sum(spent.values())
    return Everyday(
        rate, partitions, held, {name: round(percent, 2) for name, percent in spent.items()}, round(total, 2),
        round(total / 100 / rate * 1e6, 1) if rate else 0.0, round(result.requests / (ended - began), 1),
        round(result.points / max(result.requests, 1), 1), Latencies(result.histogram).milliseconds() if rate else {},
        round(sum(map(pss_bytes, _pids(run).values())) / 2**20, 1))


def _pids(run: SinkRun) -> dict[str, int]:
    """Every process of the pipeline: those that its Status names, and those that only help to start them."""
    named = run.pids()
    others = [pid for pid in descendants(run.process.pid) if pid not in named.values()]
    return {**named, **{f"helper-{number}": pid for number, pid in enumerate(others)}}


def _cpu(run: SinkRun) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in _pids(run).items()}


def _watch(run: SinkRun, seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        run.watch(min(0.5, left))


def text(found: Everyday) -> str:
    """One line for a terminal."""
    latency = ", ".join(f"{name} {found.latency_ms[name]:g} ms" for name in ("p50", "p99") if name in found.latency_ms)
    busiest = sorted(found.cpu_percent.items(), key=lambda item: -item[1])
    each = ", ".join(f"{name} {percent:g}" for name, percent in busiest if percent >= 0.01)
    return (f"{found.rate:>7,}/s, {found.partitions:>3} partitions: {found.cpu_percent_total:6.2f} % of a core, "
            f"{found.requests_per_second:g} requests/s of {found.points_per_request:g} points"
            f"{f', {latency}' if latency else ''}, {found.memory_mib:g} MiB{'' if found.held else '; NOT HELD'} "
            f"({each})")
