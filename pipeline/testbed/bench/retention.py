"""One device of five with a wrong clock: its lines are outside of the database's retention. Against none, in turns."""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import requests
from msgspec import Struct

from pipeline.errors import PipelineError
from pipeline.testbed.bench import influxd
from pipeline.testbed.bench.throughput import PARTITIONS, RUN_SECONDS, cpu_us
from pipeline.testbed.harness import telemetry
from pipeline.testbed.harness.runs import is_settled
from pipeline.testbed.harness.sandboxes import running_sandbox

#: How long the database keeps points, seconds; and how wrong the clock is.
KEPT: Final = 7 * 86_400
WRONG: Final = 30 * 86_400
#: Of so many messages one has a wrong time.
EVERY: Final = 5
#: How old the first message is, seconds.
AGE: Final = 86_400


class Run(Struct, frozen=True):
    """One run."""

    messages_per_second: int
    #: Microseconds of the whole pipeline a message.
    cpu_us: float
    dead_letters: int


class RetentionFigures(Struct, frozen=True):
    """Runs with a fifth of the lines outside the retention beside runs without, and the middle ratios."""

    messages: int
    bad: list[Run]
    good: list[Run]
    #: Throughput and CPU a message of the first divided by those of the second.
    ratio: float
    cpu_ratio: float


def message(first_ms: int, bad: bool, index: int) -> bytes:
    """Message `index`, of which the first has the time `first_ms`; where there are `bad` ones, maybe one of them."""
    late = WRONG * 1_000 if bad and index % EVERY == 0 else 0
    return telemetry.telemetry(index).replace(b'"ts":', b'"old":').replace(
        b"}", b',"ts":%d}' % (first_ms + index // telemetry.DEVICES * 100 - late))


def measure(folder: Path, messages: int, pairs: int, workers: int) -> RetentionFigures:
    """Each run into an empty database. Raises PipelineError."""
    found: dict[bool, list[Run]] = {True: [], False: []}
    for number in range(pairs):
        for bad in (False, True):
            below = folder / f"{number}-{bad}"
            below.mkdir()
            found[bad].append(_run(below, messages, bad, workers))
    return RetentionFigures(messages, found[True], found[False],
                            _middle(found, lambda run: run.messages_per_second), _middle(found, lambda run: run.cpu_us))


def _middle(found: dict[bool, list[Run]], of: Callable[[Run], float]) -> float:
    ratios = [of(bad) / of(good) for bad, good in zip(found[True], found[False], strict=True)]
    return round(statistics.median(ratios), 2)


def _run(folder: Path, messages: int, bad: bool, workers: int) -> Run:
    first = (int(time.time()) - AGE) * 1_000
    with influxd.influxd(folder / "influxd") as server, running_sandbox(folder, "--only", "iggy") as addresses:
        change = f"ALTER RETENTION POLICY autogen ON {influxd.DATABASE} DURATION {KEPT}s"
        requests.post(f"{server.url}/query", data={"q": change}, timeout=10).raise_for_status()
        telemetry.produce_now(addresses.iggy, messages, PARTITIONS, make=partial(message, first, bad))
        config = telemetry.sink_of(server.url, influxd.INFLUXDB1, options=f"workers = {workers}\n")
        with telemetry.sink_run(folder, addresses.iggy, config) as run:
            status = run.wait_for(lambda s: is_settled(s, messages), "the last message", RUN_SECONDS)
            cpu = cpu_us(run.pids(), status.startup_cpu, messages)
            if run.stop() != 0 or status.rejected != (-(-messages // EVERY) if bad else 0):
                raise PipelineError(f"the run went wrong; the log says:\n{run.log()}")
    return Run(round(messages / (status.last_settled_at - status.first_dispatched_at)), cpu["total"], status.rejected)


def text(found: RetentionFigures) -> str:
    """The figures for people."""
    rows = [f"{what}: {run.messages_per_second:,} messages/s, {run.cpu_us:.2f} us of CPU a message, "
            f"{run.dead_letters:,} dead letters"
            for good, bad in zip(found.good, found.bad, strict=True)
            for what, run in (("all within the retention", good), ("a fifth outside", bad))]
    return "\n".join([*rows, f"{found.messages:,} messages a run; the middle ratio of throughput {found.ratio}, "
                             f"of CPU {found.cpu_ratio}"])


def to_json(found: RetentionFigures) -> str:
    """One line."""
    return json.dumps(msgspec.to_builtins(found))
