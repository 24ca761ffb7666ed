"""What pipeline tests share: a sandbox InfluxDB on a thread, a running `pipeline start`, messages to send."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import requests
import zmq
from apache_iggy import AutoLogin, Consumer, IggyClient, Partitioning, PollingStrategy, SendMessage, TcpConfig

from pipeline.sockets.endpoints import Endpoints
from pipeline.testbed.harness.waiting import wait_until
from pipeline.testbed.sandbox.influxdb.answers import Flavour
from pipeline.wire import sink as wire
from tests.support.iggy_servers import RunningIggy

#: Longest wait for something that happens by itself, seconds.
SOON_SECONDS = 60.0
TOPIC = "readings"
NOTHING: Mapping[str, str] = MappingProxyType({})
#: `[influxdb]` for each flavour of the sandbox.
TARGETS: dict[str, str] = {
    "v1": 'version = "v1"\ndatabase = "sandbox"',
    "v2": 'version = "v2"\norg = "sandbox"\nbucket = "sandbox"\ntoken = "sandbox-token"',
    "v3": 'version = "v3"\ndatabase = "sandbox"\ntoken = "sandbox-token"',
    "questdb": 'database = "sandbox"',
}
CONFIG = """
[iggy]
address = "{iggy}"
[[topics]]
stream = "{stream}"
topic = "readings"
{topic}
[mapping]
tag_fields = ["device"]
timestamp_from = "field"
timestamp_field = "ts"
timestamp_format = "epoch_ns"
{mapping}
[influxdb]
url = "{influxdb}"
{target}
retry_backoff_ms = 20
retry_backoff_max_ms = 200
[dead_letters]
{dead_letters}
[pipeline]
batch_size = 500
flush_interval_ms = 50
runtime_dir = "{folder}"
{options}
"""


class SandboxInflux:
    """A running sandbox InfluxDB, and what tests ask of it."""

    def __init__(self, url: str, flavour: Flavour = "v2", flight_url: str = "") -> None:
        self.url = url
        self.flavour = flavour
        self.flight_url = flight_url

    def count(self) -> int:
        """Points stored."""
        return int(requests.get(f"{self.url}/sandbox/count?bucket=sandbox", timeout=60).json()["points"])

    def points(self) -> list[dict[str, Any]]:
        """All points, sorted."""
        found: list[dict[str, Any]] = requests.get(f"{self.url}/sandbox/points?bucket=sandbox&limit=10000000",
                                                   timeout=60).json()
        return found

    def stats(self) -> dict[str, Any]:
        """Requests, bytes and statuses so far."""
        found: dict[str, Any] = requests.get(f"{self.url}/sandbox/stats", timeout=60).json()
        return found

    def fail(self, *rules: dict[str, Any]) -> None:
        """Makes writes fail as `pipeline.testbed.sandbox.influxdb.faults` has it; no rule: all works."""
        requests.put(f"{self.url}/sandbox/faults", data=json.dumps(list(rules)), timeout=60).raise_for_status()

    def stall_after(self, writes: int) -> None:
        """Takes so many more writes, one each 20 ms for a sender, and answers 503 from then on: until `fail()`.

        For what has to happen in the middle of the work, however fast or slow the machine is. Wait for stored points
        (`count`), not for acknowledged ones: a batch stored before an older one of its partition is written again.
        """
        self.fail({"delay_seconds": 0.02, "times": writes}, {"status": 503})


class Sink:
    """A running `pipeline start`."""

    def __init__(self, folder: Path, iggy: str, stream: str, influxdb: str, target: str, *, topic: str = "",
                 mapping: str = "", options: str = "", dead_letters: str = "", arguments: Iterable[str] = (),
                 iggy_options: str = "", config: str = CONFIG, environ: Mapping[str, str] = NOTHING) -> None:
        """Folder and options as in CONFIG, `iggy_options` more of `[iggy]`. The log is in `folder`/pipeline.log.

        `config` takes the place of CONFIG; `environ` is more of the environment.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = folder / "pipeline.toml"
        self.log_file = folder / "pipeline.log"
        self.config.write_text(config.replace("[iggy]", f"[iggy]\n{iggy_options}").format(
            iggy=iggy, stream=stream, topic=topic, mapping=mapping, influxdb=influxdb, target=target,
            dead_letters=dead_letters, options=options, folder=folder / "run"))
        self.arguments = list(arguments)
        self.environ = {**os.environ, **environ}
        self.process: subprocess.Popen[bytes]
        self.status: wire.Status | None = None
        self.start()

    def start(self) -> None:
        """Starts it (again)."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.subscriber = context.socket(zmq.SUB)
        self.subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        self.subscriber.connect(Endpoints(str(self.folder / "run")).status)
        self.status = None
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "pipeline", "start", "-c", str(self.config),
                                             "--workers", "2", *self.arguments], stderr=log,
                                            env=self.environ)

    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text()

    def wait_for(self, condition: Callable[[wire.Status], object], seconds: float = SOON_SECONDS) -> wire.Status:
        """The first Status for which `condition` holds."""
        def holds() -> bool:
            ended = self.process.poll() is not None
            while self.subscriber.poll(0):
                self.status = wire.decode_status(self.subscriber.recv())
                if condition(self.status):
                    return True
            assert not ended, f"the pipeline ended:\n{self.log()[-3000:]}"
            return False

        try:
            wait_until(holds, seconds, "the pipeline")
        except Exception as error:
            raise AssertionError(f"{error}; last: {self.status}\n{self.log()[-3000:]}") from None
        assert self.status is not None
        return self.status

    def settles(self, messages: int, seconds: float = SOON_SECONDS) -> wire.Status:
        """Waits until so many messages are committed, and nothing is in flight."""
        return self.wait_for(lambda status: sum(p.committed + 1 for p in status.partitions) >= messages
                             and status.in_flight == 0, seconds)

    def kill(self, name: str) -> None:
        """kill -9 of one process by its name."""
        status = self.wait_for(lambda status: name in status.pids)
        os.kill(status.pids[name], signal.SIGKILL)

    def stop(self, seconds: float = SOON_SECONDS) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def close(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.process.wait()


def message(number: int, **more: Any) -> bytes:
    """Message `number`: a point of its own."""
    return json.dumps({"device": f"d{number % 7}", "value": number, "ok": number % 2 == 0, "ts": 1_000 + number,
                       **more}).encode()


def point(number: int) -> dict[str, Any]:
    """What `message(number)` is stored as."""
    return {"measurement": TOPIC, "tags": [["device", f"d{number % 7}"]],
            "fields": {"value": float(number), "ok": number % 2 == 0}, "time": 1_000 + number}


def numbers(points: list[dict[str, Any]]) -> list[int]:
    """The numbers of the messages that points come from, sorted; and that they are stored as they should be."""
    found = sorted(p["time"] - 1_000 for p in points)
    for p in points:
        assert {key: p[key] for key in ("measurement", "tags", "fields", "time")} == point(p["time"] - 1_000)
    return found


def send(address: str, stream: str, payloads: list[bytes], partitions: int = 1) -> None:
    """Sends messages to the partitions in turn, 500 at a time."""
    async def all_of_them() -> None:
        client = await _client(address)
        for batch, first in enumerate(range(0, len(payloads), 500)):
            await client.send_messages(stream, TOPIC, Partitioning.partition_id(batch % partitions),
                                       [SendMessage(payload) for payload in payloads[first:first + 500]])

    asyncio.run(all_of_them())


def read_topic(address: str, stream: str, topic: str) -> list[bytes]:
    """All payloads of partition 0 of a topic; none when it is not there."""
    async def all_of_them() -> list[bytes]:
        client = await _client(address)
        if await client.get_topic(stream, topic) is None:
            return []
        polled = await client.poll_messages(
            stream, topic, consumer=Consumer.Single("test"), polling_strategy=PollingStrategy.First(), count=100_000,
            auto_commit=False, partition_id=0)
        return [message.payload() for message in polled]

    return asyncio.run(all_of_them())


async def _client(address: str) -> IggyClient:
    client = IggyClient(TcpConfig(server_address=address, auto_login=AutoLogin.username_password("iggy", "iggy")))
    await client.connect()
    return client


def check_that_only_bad_ones_are_rejected(iggy: RunningIggy, stream: str, folder: Path, url: str, target: str) -> None:
    """Of 6,000 messages the 5,000 good ones are written to a server; 1,000 have another type than their field has."""
    iggy.create_topic(stream, TOPIC, 2)
    send(iggy.address, stream, [message(n) for n in range(3_000)], 2)
    sink = Sink(folder, iggy.address, stream, url, target)
    try:
        sink.settles(3_000)
        send(iggy.address, stream, [message(n) if n % 3 else message(n, value="text") for n in range(3_000, 6_000)], 2)
        status = sink.settles(6_000)
        assert (status.written, status.rejected) == (5_000, 1_000)
        assert sink.stop() == 0
    finally:
        sink.close()
