"""A real InfluxDB 1.x on this machine, and what it takes at most: a bare loop of ready-made bodies."""

import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import requests
from msgspec import Struct

from pipeline.compression import compress
from pipeline.errors import PipelineError
from pipeline.testbed.bench.encoder import MAPPING
from pipeline.testbed.harness import processes, telemetry, waiting
from stages.mapping.encoder import BatchOrigin, Encoder

BATCH: Final = 5_000
#: Threads that POST at a time: as many as the pipeline's writers have requests in flight.
POSTERS: Final = 8
DATABASE: Final = "sandbox"
_CONFIG: Final = """reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
max-body-size = 0
[monitor]
store-enabled = false
"""


def for_influxdb1(template: str) -> str:
    """The configuration of a bench that writes to the sandbox, so that it writes to `influxd`."""
    return template.replace('version = "v2"\n', "").replace(
        'org = "sandbox"\nbucket = "sandbox"\ntoken = "sandbox-token"\n', f'version = "v1"\ndatabase = "{DATABASE}"\n')


class Influxd(Struct, frozen=True):
    """A running `influxd`."""

    url: str
    pid: int


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
    program = shutil.which("influxd")
    if program is None:
        raise PipelineError("influxd isn't installed; apt-get install influxdb, or give another --target")
    folder.mkdir(parents=True, exist_ok=True)
    port = waiting.free_port(1)
    (folder / "influxdb.conf").write_text(_CONFIG.format(folder=folder, port=port, rpc=port + 1))
    url = f"http://127.0.0.1:{port}"
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or ours)  # a child has those of its parent
    process = subprocess.Popen([program, "-config", str(folder / "influxdb.conf")], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    os.sched_setaffinity(0, ours)
    try:
        waiting.wait_until(lambda: pings(url), processes.READY_SECONDS, "influxd")
        requests.post(f"{url}/query", data={"q": f"CREATE DATABASE {DATABASE}"}, timeout=10).raise_for_status()
        yield Influxd(url, process.pid)
    finally:
        process.kill()
        process.wait()


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


def pings(url: str) -> bool:
    """Whether an InfluxDB answers there, within a second."""
    try:
        return requests.get(f"{url}/ping", timeout=1).status_code == 204
    except (requests.ConnectionError, requests.Timeout):
        return False
