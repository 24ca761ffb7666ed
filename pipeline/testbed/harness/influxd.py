"""Starts Debian's InfluxDB 1.x as a process."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import requests
from msgspec import Struct

from pipeline.errors import PipelineError
from pipeline.testbed.harness.waiting import free_port, wait_until

_CONFIG: Final = """reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
[http]
bind-address = "127.0.0.1:{port}"
auth-enabled = {auth}
log-enabled = false
{http}
[monitor]
store-enabled = false
"""


class Influxd(Struct, frozen=True):
    """A running `influxd`."""

    url: str
    pid: int


@contextmanager
def running_influxd(folder: Path, *, auth: bool = False, http: str = "", cores: set[int] | None = None,
                    ) -> Iterator[Influxd]:
    """An `influxd` without databases while the block lasts. Raises PipelineError where it isn't installed.

    Its data go to `folder`. With `auth` it wants a user and a password; the first user made is the administrator.
    `http`: more of its `[http]`. It runs on `cores`, all by default.
    """
    program = shutil.which("influxd")
    if program is None:
        raise PipelineError("influxd isn't installed; apt-get install influxdb")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port(1)
    config = folder / "influxdb.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, rpc=port + 1, auth=str(auth).lower(), http=http))
    url = f"http://127.0.0.1:{port}"
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or ours)  # a child has those of its parent
    process = subprocess.Popen([program, "-config", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.sched_setaffinity(0, ours)
    try:
        wait_until(lambda: pings(url), "influxd")
        yield Influxd(url, process.pid)
    finally:
        process.kill()
        process.wait()


def pings(url: str) -> bool:
    """Whether an InfluxDB answers there, within a second."""
    try:
        return requests.get(f"{url}/ping", timeout=1).status_code == 204
    except (requests.ConnectionError, requests.Timeout):
        return False
