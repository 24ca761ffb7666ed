"""Starts a sandbox and a pipeline as processes, and watches them: what the demo and the benchmark share."""

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import zmq
from msgspec import Struct

from pipeline.config.schema import IggyConfig
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.interrupts import held
from pipeline.sockets.endpoints import Endpoints
from pipeline.wire import sink as wire

STREAM, TOPIC = "telemetry", "sensors"
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


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Returns once `condition()` holds. Raises PipelineError naming `what` after `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise PipelineError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.02)


def free_port(*beside: int) -> int:
    """A port on which nothing listens, nor on those `beside` it (as many numbers further).

    It is none of those that the system gives to connections, so that it stays free until somebody listens.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with ExitStack() as probes:
            try:
                for offset in (0, *beside):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return port


def start_sandbox(folder: Path, *options: str) -> tuple["subprocess.Popen[bytes]", Addresses]:
    """Starts `pipeline.sandbox.run` on free ports with further `options`, and returns when it listens."""
    address_file = folder / f"sandbox-{len(list(folder.iterdir()))}.json"
    with held():
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.sandbox.run", "--iggy-port", "0", "--influx-port", "0",
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
        with self.log.open("ab") as log, held():
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


def cpu_seconds(pid: int) -> float:
    """User and system CPU seconds a process has used so far; all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process: memory that it shares with n others counts 1/n. 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def telemetry(index: int) -> bytes:
    """Message number `index`: about 140 bytes of JSON; no two have the same device and time."""
    device, tick = index % DEVICES, index // DEVICES
    wave = (tick * 7 + device * 13) % 200
    return (b'{"site":"site-%d","device":"dev-%04d","temperature":%d.%d,"humidity":%d.%d,"pressure":%d.25,"battery":%d,'
            b'"ok":%s,"ts":%d}' % (device % 5, device, 18 + wave // 20, wave % 10, 40 + wave // 10, wave % 7,
                                   1000 + wave % 30, 100 - tick % 90, b"false" if wave == 0 else b"true",
                                   FIRST_TIME_MS + tick * 1000))


async def produce(address: str, messages: int, partitions: int, stream: str = STREAM,
                  make: Callable[[int], bytes] = telemetry) -> None:
    """Creates the stream and topic, and sends `messages` to its partitions in turn. Raises IggyError.

    `make` gives message number n.
    """
    iggy = await _connected(address)
    await iggy.make_topic(stream, TOPIC, partitions)
    for batch, first in enumerate(range(0, messages, SEND_MESSAGES)):
        payloads = [make(i) for i in range(first, min(first + SEND_MESSAGES, messages))]
        await iggy.send(stream, TOPIC, payloads, batch % partitions)


def produce_now(address: str, messages: int, partitions: int, stream: str = STREAM,
                make: Callable[[int], bytes] = telemetry) -> None:
    """`produce`, to its end."""
    asyncio.run(produce(address, messages, partitions, stream, make))


def delete_stream(address: str, stream: str) -> None:
    """Deletes a stream that `produce` made. Raises IggyError."""
    async def delete() -> None:
        await (await _connected(address)).client.delete_stream(stream)

    asyncio.run(delete())


async def _connected(address: str) -> IggyConnection:
    iggy = IggyConnection(IggyConfig(address=address, username="iggy", password="iggy"))
    await iggy.connect()
    return iggy
