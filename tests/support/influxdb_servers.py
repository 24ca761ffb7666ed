"""InfluxDBs for tests: the sandbox's on a thread of its own, and Debian's InfluxDB 1.6.7 as a process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from pipeline.testbed.harness.influxd import running_influxd
from pipeline.testbed.sandbox.influxdb.server import InfluxServer

#: Longest wait for a server to start or stop, seconds.
START_SECONDS = 60.0


@contextmanager
def running_influxdb(**options: Any) -> Iterator[InfluxServer]:
    """A sandbox InfluxDB made with `options`, while the block lasts."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = InfluxServer(**options)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(START_SECONDS)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(START_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def ask(url: str, authorization: str, method: str, path: str, **options: object) -> requests.Response:
    """A request to a real server's API, which has to succeed."""
    answer = requests.request(method, url + path, headers={"Authorization": authorization}, timeout=60,
                              **options)  # type: ignore[arg-type]
    answer.raise_for_status()
    return answer


@contextmanager
def running_influxdb1(folder: Path, auth: bool = False) -> Iterator[str]:
    """The URL of a real InfluxDB 1.6.7 without databases, while the block lasts. Its data go to `folder`.

    With `auth` it wants a user and a password; the first user made is the administrator.
    """
    with running_influxd(folder, auth=auth) as server:
        yield server.url
