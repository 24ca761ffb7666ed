"""A real VictoriaMetrics."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from pipeline.testbed.harness.waiting import free_port, wait_until


@contextmanager
def running_victoria(folder: Path) -> Iterator[str]:
    """The URL of an empty VictoriaMetrics, which runs while the block lasts."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        ["victoria-metrics", f"-storageDataPath={folder}/victoria", f"-httpListenAddr={address}",
         "-retentionPeriod=100y"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            return requests.get(f"http://{address}/health", timeout=60).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    try:
        wait_until(answers, "VictoriaMetrics")
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()
