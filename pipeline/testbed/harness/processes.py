"""Starts a sandbox and a pipeline as processes, and watches them: what the demo and the benchmark share."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import zmq
from msgspec import Struct

from pipeline.errors import PipelineError
from pipeline.interrupts import signals_blocked
from pipeline.sockets.endpoints import Endpoints
from pipeline.testbed.harness.waiting import wait_until
from pipeline.wire import sink as wire

#: Messages of one send.
SEND_MESSAGES = 1_000
DEVICES = 40
#: Time of the first message, milliseconds since 1970.
FIRST_TIME_MS = 1_700_000_000_000
#: How long a process may take to be ready, seconds.
READY_SECONDS = 30.0


class Addresses(Struct, frozen=True):
    """Where a sandbox listens: what it writes to its address file."""

    iggy: str = ""
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
    wait_until(lambda: address_file.exists() or process.poll() is not None, READY_SECONDS, "the sandbox")
    if process.poll() is not None:
        raise PipelineError(f"the sandbox ended with exit code {process.returncode}")
    return process, msgspec.convert(json.loads(address_file.read_text()), Addresses)


CONFIG = """
[iggy]
address = "{iggy}"
[[topics]]
stream = "telemetry"
topic = "sensors"
[mapping]
tag_fields = ["site", "device"]
field_strategy = "explicit"
field_names = ["temperature", "humidity", "pressure", "battery", "ok"]
timestamp_from = "field"
timestamp_field = "ts"
timestamp_format = "epoch_ms"
[influxdb]
url = "{influxdb}"
org = "sandbox"
bucket = "sandbox"
token = "sandbox-token"
precision = "ms"
[pipeline]
runtime_dir = "{folder}"
"""


class PipelineRun:
    """A running `pipeline start` and the last Status it gave."""

    def __init__(self, folder: Path, iggy: str, influxdb: str, workers: int, more: str = "",
                 template: str = CONFIG) -> None:
        """`more` is appended to the configuration, inside `[pipeline]`. The log goes to `folder`/pipeline.log."""
        self.log = folder / "pipeline.log"
        self.config = folder / "pipeline.toml"
        self.workers = workers
        self.config.write_text(template.format(iggy=iggy, influxdb=influxdb, folder=folder) + more)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.subscriber = context.socket(zmq.SUB)
        self.subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        self.subscriber.connect(Endpoints(str(folder)).status)
        self.status: wire.Status | None = None
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Starts it (again)."""
        with self.log.open("ab") as log, signals_blocked():
            self.process = subprocess.Popen([sys.executable, "-m", "pipeline", "start", "-c", str(self.config),
                                             "--workers", str(self.workers)], stderr=log)

    def watch(self, seconds: float) -> wire.Status | None:
        """Waits at most `seconds` for a newer Status. Raises PipelineError when the pipeline has ended."""
        if self.process.poll() is not None:
            raise PipelineError(f"the pipeline ended with exit code {self.process.returncode}:\n"
                                f"{self.log.read_text()[-4000:]}")
        if self.subscriber.poll(round(seconds * 1000)):
            self.status = wire.decode_status(self.subscriber.recv())
        return self.status

    def wait_for(self, condition: Callable[[wire.Status], bool], seconds: float, what: str) -> wire.Status:
        """The first Status for which `condition` holds; PipelineError after `seconds`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status = self.watch(0.5)
            if status is not None and condition(status):
                return status
        raise PipelineError(f"waited {seconds:g} s in vain for {what}; the log says:\n{self.log.read_text()[-2000:]}")

    def pids(self) -> dict[str, int]:
        """name -> pid of all processes of the pipeline, the supervisor's too."""
        return {**(self.status.pids if self.status else {}), "supervisor": self.process.pid}

    def stop(self) -> int:
        """SIGTERM, and the exit code once it has drained."""
        self.process.terminate()
        return self.process.wait(60)
