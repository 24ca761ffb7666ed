"""Starts the sandbox's servers as a process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from pipeline.errors import PipelineError
from pipeline.interrupts import signals_blocked
from pipeline.testbed.harness.waiting import wait_until


class Addresses(Struct, frozen=True):
    """Where a sandbox listens: what it writes to its address file."""

    iggy: str = ""
    iggy_websocket: str = ""
    influxdb: str = ""
    flight: str = ""
    pid: int = 0


def start_sandbox(folder: Path, *options: str) -> tuple["subprocess.Popen[bytes]", Addresses]:
    """Starts `pipeline.testbed.sandbox.run` on free ports with further `options`, and returns when it listens."""
    address_file = folder / f"sandbox-{len(list(folder.iterdir()))}.json"
    with signals_blocked():
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.testbed.sandbox.run", "--iggy-port", "0", "--influx-port", "0",
             "--address-file", str(address_file), *options],
            stdout=subprocess.DEVNULL)
    wait_until(lambda: address_file.exists() or process.poll() is not None, "the sandbox")
    if process.poll() is not None:
        raise PipelineError(f"the sandbox ended with exit code {process.returncode}")
    return process, msgspec.convert(json.loads(address_file.read_text()), Addresses)


@contextmanager
def running_sandbox(folder: Path, *options: str) -> Iterator[Addresses]:
    """`start_sandbox`, which is ended with the block."""
    process, addresses = start_sandbox(folder, *options)
    try:
        yield addresses
    finally:
        process.kill()
        process.wait()
