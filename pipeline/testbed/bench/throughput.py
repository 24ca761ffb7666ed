"""A backlog read to its end: sandbox broker or a given Iggy -> pipeline -> a receiver that counts, or a database."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pipeline.errors import PipelineError
from pipeline.testbed.bench.results import Throughput
from pipeline.testbed.bench.sampler import cpu_seconds
from pipeline.testbed.harness import telemetry
from pipeline.testbed.harness.configurations import SANDBOX_V2
from pipeline.testbed.harness.runs import SinkRun, is_settled
from pipeline.testbed.harness.sandboxes import running_sandbox
from pipeline.testbed.workloads import catalogue
from pipeline.testbed.workloads.mapping_text import mapping_text

if TYPE_CHECKING:
    from pipeline.testbed.bench.scrape import Scraper

PARTITIONS = 2
IDLE_SECONDS = 5.0
#: Longest a run may take, seconds.
RUN_SECONDS = 300.0


@contextmanager
def filled(folder: Path, iggy: str, messages: int, partitions: int = PARTITIONS,
           make: Callable[[int], bytes] = telemetry.telemetry) -> Iterator[tuple[str, str]]:
    """Address and stream of an Iggy with all messages: a sandbox, or the given one, whose stream is deleted after.

    `make` gives message number n.
    """
    if not iggy:
        with running_sandbox(folder, "--only", "iggy") as addresses:
            telemetry.produce_now(addresses.iggy, messages, partitions, make=make)
            yield addresses.iggy, telemetry.STREAM
        return
    stream = f"pipeline-bench-{secrets.token_hex(4)}"
    try:
        telemetry.produce_now(iggy, messages, partitions, stream, make)
        yield iggy, stream
    finally:
        telemetry.delete_stream(iggy, stream)


def backlog(folder: Path, messages: int, workers: int, writers: int, url: str = "", influxdb: str = SANDBOX_V2,
            iggy: str = "", workload: str = "", scraper: "Scraper | None" = None) -> Throughput:
    """Sends all messages first, then runs the pipeline over them. Raises PipelineError.

    `url` is that of a database that is there already, and `influxdb` the lines of its table; `iggy` the host:port of a
    server with user and password `iggy`; `workload` one of `workloads.catalogue.NAMES`; `scraper` asks the pipeline for
    its metrics meanwhile, or only says where it listens for that.
    """
    work = catalogue.workload(workload, folder) if workload else None
    make = _maker(work) if work is not None else telemetry.telemetry
    with filled(folder, iggy, messages, make=make) as (address, stream), \
            running_sandbox(folder, "--only", "influxdb", "--count-only") as counting:
        options = f"workers = {workers}\nwriters = {writers}\n"
        config = telemetry.sink_of(url or counting.influxdb, influxdb, stream, options)
        if work is not None:
            config = telemetry.sink_of(url or counting.influxdb, influxdb, stream, options,
                                       mapping_text(work.mapping), work.precision)
        if scraper is not None:
            config = msgspec.structs.replace(config, http=f'listen = "{scraper.address}"')
        with telemetry.sink_run(folder, address, config) as run, scraper or nullcontext():
            status = run.wait_for(lambda s: is_settled(s, messages), "the last message", RUN_SECONDS)
            cpu = cpu_us(run.pids(), status.startup_cpu, messages)
            if scraper is not None:
                scraper.finish()
            if run.stop() != 0 or status.rejected and work is None:
                raise PipelineError(f"the run went wrong; the log says:\n{run.log()}")
    seconds = status.last_settled_at - status.first_dispatched_at
    return Throughput(messages, round(messages / seconds), cpu, round(status.sent_bytes / status.written, 1), workers,
                      writers, status.batches)


def _maker(work: catalogue.Workload) -> Callable[[int], bytes]:
    return lambda number: work.message(number, catalogue.FIRST_US + number * catalogue.STEP_US)


def cpu_us(pids: Mapping[str, int], startup_cpu: Mapping[str, float], messages: int) -> dict[str, float]:
    """Microseconds of CPU a message, by kind of process and in total, less what start-up cost."""
    cpu: dict[str, float] = {}
    for name, pid in pids.items():
        if name in startup_cpu:
            kind = name.rpartition("-")[0] if name[-1].isdigit() else name
            cpu[kind] = cpu.get(kind, 0.0) + cpu_seconds(pid) - startup_cpu[name]
    by_kind = {kind: round(seconds / messages * 1e6, 3) for kind, seconds in sorted(cpu.items())}
    return {"total": round(sum(by_kind.values()), 3), **by_kind}


def idle(folder: Path) -> dict[str, object]:
    """CPU of the whole pipeline while there is nothing to read, percent of one core. Raises PipelineError."""
    with running_sandbox(folder) as addresses:
        telemetry.produce_now(addresses.iggy, 10, PARTITIONS)
        config = telemetry.sink_of(addresses.influxdb, options="workers = 2\n")
        with telemetry.sink_run(folder, addresses.iggy, config) as run:
            run.wait_for(lambda s: s.ready and s.written == 10, "the first points")
            _watch(run, 2)  # the pauses grow to their full length
            pids = run.pids()
            before = {name: cpu_seconds(pid) for name, pid in pids.items()}
            began = time.monotonic()
            _watch(run, IDLE_SECONDS)
            seconds = time.monotonic() - began
            percent = {name: round((cpu_seconds(pid) - before[name]) / seconds * 100, 2) for name, pid in pids.items()}
    return {"idle_cpu_percent": round(sum(percent.values()), 2), "idle_cpu_percent_by_process": percent}


def _watch(run: SinkRun, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        run.watch(0.5)
