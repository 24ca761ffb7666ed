"""A real InfluxDB 1.x on this machine, and what it takes at most: a bare loop of ready-made bodies."""

import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import requests

from pipeline.compression import compress
from pipeline.errors import PipelineError
from pipeline.testbed.bench.encoder import MAPPING
from pipeline.testbed.harness import telemetry
from pipeline.testbed.harness.influxd import Influxd, running_influxd
from stages.mapping.encoder import BatchOrigin, Encoder

BATCH: Final = 5_000
#: Threads that POST at a time: as many as the pipeline's writers have requests in flight.
POSTERS: Final = 8
DATABASE: Final = "sandbox"
#: `[influxdb]` for it, beside its `url`.
INFLUXDB1: Final = f'version = "v1"\ndatabase = "{DATABASE}"\n'


@contextmanager
def cores_apart(count: int) -> Iterator[set[int]]:
    """The cores of a database, which this process and its children leave alone while the block lasts.

    `count` of 0: all cores, shared. Raises PipelineError when none would be left.
    """
    ours = os.sched_getaffinity(0)
    if count >= len(ours):
        raise PipelineError(f"--database-cores {count}: there are {len(ours)} cores, and one at least is for the rest")
    database = set(sorted(ours)[:count])
    os.sched_setaffinity(0, ours - database)
    try:
        yield database or ours
    finally:
        os.sched_setaffinity(0, ours)


@contextmanager
def influxd(folder: Path, cores: set[int] | None = None) -> Iterator[Influxd]:
    """Debian's `influxd` with an empty database, on these cores (all by default) while the block lasts.

    Raises PipelineError without it.
    """
    with running_influxd(folder, http="max-body-size = 0", cores=cores) as server:
        requests.post(f"{server.url}/query", data={"q": f"CREATE DATABASE {DATABASE}"}, timeout=10).raise_for_status()
        yield server


def bare_loop(url: str, messages: int, token: str = "") -> int:
    """Lines a second that the database takes from threads that only POST bodies made before. Raises PipelineError."""
    headers = {"Content-Encoding": "gzip", **({"Authorization": f"Bearer {token}"} if token else {})}
    encoder = Encoder(MAPPING, "ms", telemetry.STREAM, telemetry.TOPIC)
    bodies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for first in range(0, messages, BATCH):
        payloads = [telemetry.telemetry(index) for index in range(first, min(first + BATCH, messages))]
        bodies.put(compress(encoder.encode(payloads, BatchOrigin()).body))
    problems: list[str] = []

    def post() -> None:
        with requests.Session() as session:
            while not problems:
                try:
                    body = bodies.get_nowait()
                except queue.Empty:
                    return
                answer = session.post(f"{url}/write?db={DATABASE}&precision=ms", data=body, timeout=60,
                                      headers=headers)
                if answer.status_code != 204:
                    problems.append(answer.text)

    threads = [threading.Thread(target=post) for _ in range(POSTERS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise PipelineError(f"{url} refused a write: {problems[0]}")
    return round(messages / (time.monotonic() - began))
