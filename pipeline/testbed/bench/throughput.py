"""A backlog read to its end: sandbox broker or a given Iggy -> pipeline -> a receiver that counts, or a database."""

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.testbed.bench.results import Throughput
from pipeline.testbed.bench.sampler import cpu_seconds
from pipeline.testbed.harness import processes, telemetry

PARTITIONS = 2
IDLE_SECONDS = 5.0
#: Longest a run may take, seconds.
RUN_SECONDS = 300.0


@contextmanager
def sandbox(folder: Path, *options: str) -> Iterator[processes.Addresses]:
    """A sandbox while the block lasts."""
    process, addresses = processes.start_sandbox(folder, *options)
    try:
        yield addresses
    finally:
        process.kill()
        process.wait()


@contextmanager
def running(run: processes.PipelineRun) -> Iterator[processes.PipelineRun]:
    """A pipeline that is over when the block is."""
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()


@contextmanager
def filled(folder: Path, iggy: str, messages: int, partitions: int = PARTITIONS) -> Iterator[tuple[str, str]]:
    """Address and stream of an Iggy with all messages: a sandbox, or the given one, whose stream is deleted after."""
    if not iggy:
        with sandbox(folder, "--only", "iggy") as addresses:
            telemetry.produce_now(addresses.iggy, messages, partitions)
            yield addresses.iggy, telemetry.STREAM
        return
    stream = f"pipeline-bench-{secrets.token_hex(4)}"
    try:
        telemetry.produce_now(iggy, messages, partitions, stream)
        yield iggy, stream
    finally:
        telemetry.delete_stream(iggy, stream)


def reading(template: str, stream: str) -> str:
    """The configuration of a bench, so that it reads another stream."""
    return template.replace(f'stream = "{telemetry.STREAM}"', f'stream = "{stream}"')


def backlog(folder: Path, messages: int, workers: int, writers: int, influxdb: str = "",
            template: str = processes.CONFIG, iggy: str = "") -> Throughput:
    """Sends all messages first, then runs the pipeline over them. Raises PipelineError.

    `influxdb` is the URL of a database that is there already; `template` the configuration; `iggy` the host:port of a
    server with user and password `iggy`.
    """
    with filled(folder, iggy, messages) as (address, stream), \
            sandbox(folder, "--only", "influxdb", "--count-only") as counting:
        template = reading(template, stream)
        with running(processes.PipelineRun(folder, address, influxdb or counting.influxdb, workers,
                                     f"writers = {writers}\n", template)) as run:
            status = run.wait_for(lambda s: s.written + s.rejected >= messages, RUN_SECONDS, "the last message")
            cpu = cpu_us(run.pids(), status.startup_cpu, messages)
            if run.stop() != 0 or status.rejected:
                raise PipelineError(f"the run went wrong; the log says:\n{run.log.read_text()}")
    seconds = status.last_settled_at - status.first_dispatched_at
    return Throughput(messages, round(messages / seconds), cpu, round(status.sent_bytes / status.written, 1), workers,
                      writers, status.batches)


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
    with sandbox(folder) as addresses:
        telemetry.produce_now(addresses.iggy, 10, PARTITIONS)
        with running(processes.PipelineRun(folder, addresses.iggy, addresses.influxdb, 2)) as run:
            run.wait_for(lambda s: s.ready and s.written == 10, processes.READY_SECONDS, "the first points")
            _watch(run, 2)  # the pauses grow to their full length
            pids = run.pids()
            before = {name: cpu_seconds(pid) for name, pid in pids.items()}
            began = time.monotonic()
            _watch(run, IDLE_SECONDS)
            seconds = time.monotonic() - began
            percent = {name: round((cpu_seconds(pid) - before[name]) / seconds * 100, 2) for name, pid in pids.items()}
    return {"idle_cpu_percent": round(sum(percent.values()), 2), "idle_cpu_percent_by_process": percent}


def _watch(run: processes.PipelineRun, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        run.watch(0.5)
