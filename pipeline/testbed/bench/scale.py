"""`scripts/bench scale`: what topics, partitions and pipelines cost, by CPU; and what follows for many hosts."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil

from pipeline.config.iggy_schema import IggyConfig
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.testbed.bench.sampler import cpu_seconds
from pipeline.testbed.bench.scale_law import Case, Scale
from pipeline.testbed.bench.throughput import RUN_SECONDS
from pipeline.testbed.harness import telemetry
from pipeline.testbed.harness.configurations import SANDBOX_V2, SinkConfiguration
from pipeline.testbed.harness.procfs import descendants, pss_bytes
from pipeline.testbed.harness.runs import SinkRun
from pipeline.testbed.harness.sandboxes import running_sandbox

#: What is measured unless something else is asked for.
CASES = (Case(1, 1, 1), Case(1, 10, 1), Case(1, 100, 1), Case(1, 1_000, 1), Case(200, 1, 1), Case(200, 5, 1),
         Case(1, 12, 2), Case(1, 12, 3), Case(1, 999, 3))
#: One of each, so that a process more is not what differs; the rest is the default.
OPTIONS = "workers = 1\nreaders = 1\nwriters = 1\n"
GROUP = "scale"
#: Before CPU is measured, nothing is sent for so long, until pauses have their full length; seconds.
QUIET_SECONDS = 4.0


def measure(folder: Path, cases: Iterable[Case], messages: int, seconds: float, iggy: str = "") -> Iterator[Scale]:
    """One case after the other, each idle for `seconds`, and then with `messages`. Raises PipelineError.

    `iggy`: host:port of a server with user and password `iggy`, on this machine if its CPU is to be measured, too; "":
    a sandbox for each case.
    """
    for number, case in enumerate(cases):
        below = folder / f"case-{number}"
        below.mkdir()
        with ExitStack() as stack:
            address = iggy or stack.enter_context(running_sandbox(below, "--only", "iggy")).iggy
            url = stack.enter_context(running_sandbox(below, "--only", "influxdb", "--count-only")).influxdb
            stream = f"scale-{time.time_ns()}"
            stack.callback(telemetry.delete_stream, address, stream)
            asyncio.run(_make_topics(address, stream, case))
            yield _Run(below, case, address, url, stream, _server_pid(iggy), stack).measure(messages, seconds)


class _Run:
    """One case: its pipelines, from their start to the last message."""

    def __init__(self, folder: Path, case: Case, iggy: str, url: str, stream: str, server: int | None,
                 stack: ExitStack) -> None:
        """`server`: the process of Iggy, if it is known. The pipelines end with `stack`."""
        self._case = case
        self._iggy = iggy
        self._stream = stream
        self._server = server
        config = SinkConfiguration(
            stream=stream, topic=f"{telemetry.TOPIC}-*" if case.topics > 1 else f"{telemetry.TOPIC}-0",
            mapping=telemetry.MAPPING, options=OPTIONS,
            influxdb=f'url = "{url}"\nprecision = "ms"\n{SANDBOX_V2}',
            iggy_options=f'consumer_group = "{GROUP}"' if case.pipelines > 1 else "")
        self._runs = []
        for number in range(case.pipelines):
            below = folder / f"pipeline-{number}"
            run = SinkRun(below, config.text(iggy, below / "run"))
            stack.callback(run.close)
            self._runs.append(run)

    def measure(self, messages: int, seconds: float) -> Scale:
        """Idle for `seconds`, and then with `messages`. Raises PipelineError."""
        began = time.monotonic()
        for number, run in enumerate(self._runs, 1):
            run.start()
            # In a group each has its share, before the next one joins: otherwise the server deals out unevenly.
            share = self._case.partitions_in_all // number
            run.wait_for(lambda s: s.ready and len(s.partitions) >= share, "its partitions",  # noqa: B023
                         RUN_SECONDS)
        ready_seconds = time.monotonic() - began
        start_cpu = sum(self._cpu().values())
        self._watch(min(QUIET_SECONDS, seconds))
        before, began = self._cpu(), time.monotonic()
        self._watch(seconds)
        after, ended = self._cpu(), time.monotonic()
        idle = _difference(before, after, 100 / (ended - began))
        memory = self._memory()
        before, served = self._cpu(), self._server_cpu()
        asyncio.run(_send(self._iggy, self._stream, self._case, messages))
        self._settle(messages)
        spent = _difference(before, self._cpu(), 1e6 / messages)
        return Scale(
            case=self._case, messages=messages, ready_seconds=round(ready_seconds, 1),
            start_cpu_seconds=round(start_cpu, 2), idle_cpu_percent=idle, cpu_us_per_message=spent,
            iggy_us_per_message=round((self._server_cpu() - served) / messages * 1e6, 2),
            batches=sum(run.status.batches for run in self._runs if run.status is not None),
            idle_mib=memory, busy_mib=self._memory(), takeover_seconds=self._takeover_seconds())

    def _settle(self, messages: int) -> None:
        until = time.monotonic() + RUN_SECONDS
        while True:
            statuses = [status for run in self._runs if (status := run.watch(0.05)) is not None]
            if sum(status.read for status in statuses) >= messages and not any(one.in_flight for one in statuses):
                return
            if time.monotonic() > until:
                raise PipelineError(f"timed out after {RUN_SECONDS:g} s waiting for the last message; "
                                    f"{self._runs[0].log_end()}")

    def _takeover_seconds(self) -> float:
        """From the death of a pipeline until the others have its partitions; 0 for one alone."""
        if self._case.pipelines == 1:
            return 0.0
        dead, left = self._runs[-1], self._runs[:-1]
        dead.process.kill()
        began = time.monotonic()
        while sum(len(run.status.partitions) for run in left if run.status) < self._case.partitions_in_all:
            for run in left:
                run.watch(0.02)
            if time.monotonic() > began + RUN_SECONDS:
                raise PipelineError(f"timed out after {RUN_SECONDS:g} s waiting for a dead pipeline's partitions; "
                                    f"{left[0].log_end()}")
        return round(time.monotonic() - began, 1)

    def _watch(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for run in self._runs:
                run.watch(0.2 / len(self._runs))

    def _pids(self) -> dict[int, str]:
        """pid -> kind, of every process of all pipelines."""
        found: dict[int, str] = {}
        for run in self._runs:
            found |= dict.fromkeys(descendants(run.process.pid), "other")
            found |= {pid: name.rpartition("-")[0] if name[-1].isdigit() else name for name, pid in run.pids().items()}
        return found

    def _cpu(self) -> dict[str, float]:
        """CPU seconds so far, by kind of process."""
        spent: dict[str, float] = {}
        for pid, kind in self._pids().items():
            spent[kind] = spent.get(kind, 0.0) + cpu_seconds(pid)
        return spent

    def _memory(self) -> float:
        return round(sum(map(pss_bytes, self._pids())) / 2**20, 1)

    def _server_cpu(self) -> float:
        return cpu_seconds(self._server) if self._server is not None else 0.0


def _difference(before: dict[str, float], after: dict[str, float], factor: float) -> dict[str, float]:
    """What was spent between, by kind and in "total"."""
    spent = {kind: (after[kind] - before.get(kind, 0.0)) * factor for kind in sorted(after)}
    return {"total": round(sum(spent.values()), 3), **{kind: round(value, 3) for kind, value in spent.items()}}


def _server_pid(address: str) -> int | None:
    """The process of this machine that listens at host:port; None if there is none, or it may not be seen."""
    if not address:
        return None
    port = int(address.rpartition(":")[2])
    try:
        return next((one.pid for one in psutil.net_connections("tcp")
                     if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port), None)
    except psutil.AccessDenied:
        return None


async def _make_topics(address: str, stream: str, case: Case) -> None:
    iggy = await _connected(address)
    for topic in range(case.topics):
        await iggy.make_topic(stream, f"{telemetry.TOPIC}-{topic}", case.partitions)


async def _send(address: str, stream: str, case: Case, messages: int) -> None:
    """In batches, each to the next partition."""
    iggy = await _connected(address)
    for batch, first in enumerate(range(0, messages, telemetry.SEND_MESSAGES)):
        topic, partition = batch % case.topics, batch // case.topics % case.partitions
        payloads = [telemetry.telemetry(n) for n in range(first, min(first + telemetry.SEND_MESSAGES, messages))]
        await iggy.send(stream, f"{telemetry.TOPIC}-{topic}", payloads, partition)


async def _connected(address: str) -> IggyConnection:
    iggy = IggyConnection(IggyConfig(address=address))
    await iggy.connect()
    return iggy
