"""What tests of the source direction share: a running `pipeline start` with sources, and what has come to Iggy."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import requests
import zmq
from apache_iggy import AutoLogin, Consumer, IggyClient, PollingStrategy, ReceiveMessage, TcpConfig

from pipeline.sockets.endpoints import Endpoints
from pipeline.testbed.harness.waiting import wait_until
from pipeline.wire import source as source_wire
from tests.support.sinks import SandboxInflux

#: Longest wait for something that happens by itself, seconds.
SOON_SECONDS = 60.0
#: Time of the first point of `lines_of`.
FIRST_TIME = 1_700_000_000_000_000_000
NOTHING: Mapping[str, str] = MappingProxyType({})
EXAMPLES = Path(__file__).parents[2] / "configs"
CONFIG = """
[iggy]
address = "{iggy}"
[[sources]]
name = "source"
{state}
poll_interval_ms = 100
buffer_duration_ms = 0
discovery_interval_ms = 500
{source}
[sources.influxdb]
url = "{url}"
retry_backoff_ms = 20
retry_backoff_max_ms = 200
{influxdb}
[sources.output]
stream = "{stream}"
topic = "out"
{output}
[pipeline]
workers = 2
runtime_dir = "{folder}/run"
{options}
"""


class SourceRun:
    """A running `pipeline start`."""

    def __init__(self, folder: Path, iggy: str, url: str, influxdb: str, stream: str, *, source: str = "",
                 state: str = "", output: str = "", options: str = "", arguments: Iterable[str] = (),
                 start: bool = True, config: str = "", environ: Mapping[str, str] = NOTHING) -> None:
        """Folder and options as in CONFIG, `config` takes its place; `state` says where the state is, in a file unless
        given; `environ` is more of the environment; the log is in `folder`/pipeline.log."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.iggy = iggy
        self.stream = stream
        self.config = folder / "pipeline.toml"
        self.state_file = folder / "state.json"
        self.log_file = folder / "pipeline.log"
        state = state or f'state_file = "{self.state_file}"'
        self.config.write_text(config or CONFIG.format(
            iggy=iggy, folder=folder, url=url, influxdb=influxdb, stream=stream, state=state, source=source,
            output=output, options=options))
        self.arguments = list(arguments)
        self.environ = {**os.environ, **environ}
        self.process: subprocess.Popen[bytes] | None = None
        self.status: source_wire.SourceStatus | None = None
        if start:
            self.start()

    def start(self, *arguments: str) -> None:
        """Starts it (again)."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.subscriber = context.socket(zmq.SUB)
        self.subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        self.subscriber.connect(Endpoints(str(self.folder / "run")).source_status)
        self.status = None
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "pipeline", "start", "-c", str(self.config),
                                             *self.arguments, *arguments], stderr=log, env=self.environ)

    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text()

    def wait_for(self, condition: Callable[[source_wire.SourceStatus], object],
                 seconds: float = SOON_SECONDS) -> source_wire.SourceStatus:
        """The first Status for which `condition` holds."""
        def holds() -> bool:
            ended = self.process is None or self.process.poll() is not None
            while self.subscriber.poll(0):
                self.status = source_wire.decode_status(self.subscriber.recv())
                if condition(self.status):
                    return True
            assert not ended, f"it ended:\n{self.log()[-3000:]}"
            return False

        try:
            wait_until(holds, seconds, "the source")
        except Exception as error:
            raise AssertionError(f"{error}; last: {self.status}\n{self.log()[-3000:]}") from None
        assert self.status is not None
        return self.status

    def kill(self, name: str) -> None:
        """kill -9 of one process by its name; returns once that was seen."""
        status = self.status
        if status is None or name not in status.pids:
            status = self.wait_for(lambda status: name in status.pids)
        os.kill(status.pids[name], signal.SIGKILL)
        wait_until(lambda: f"{name} died" in self.log(), SOON_SECONDS, "the death to be seen")

    def stop(self, seconds: float = SOON_SECONDS) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def ends(self, seconds: float = SOON_SECONDS) -> int:
        """The exit code, once it has ended by itself."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:g} s:\n{self.log()[-3000:]}") from None

    def close(self) -> None:
        """Ends it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def messages(self, topic: str = "out") -> list[ReceiveMessage]:
        """Every message of a topic, partition by partition."""
        return [message for part in read_partitions(self.iggy, self.stream, topic) for message in part]

    def points(self, topic: str = "out") -> list[dict[str, Any]]:
        """The JSON objects of a topic."""
        return [json.loads(message.payload()) for message in self.messages(topic)]


class CopyRun(SourceRun):
    """`pipeline start` with an example configuration that copies one database into another."""

    def __init__(self, folder: Path, example: str, iggy: str, replaced: dict[str, str], *, source: str = "") -> None:
        """`example` is the name of a file in configs/; `replaced`: its texts -> what stands there instead.

        `source` is more of `[[sources]]`.
        """
        text = (EXAMPLES / f"{example}.toml").read_text() + f'\n[pipeline]\nruntime_dir = "{folder}/run"\n'
        for old, new in {"127.0.0.1:8090": iggy, 'state_file = "': f'{source}\nstate_file = "{folder}/',
                         **replaced}.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        stream = re.search('stream = "(.*)"', text)
        assert stream is not None
        super().__init__(folder, iggy, "", "", stream[1], arguments=["--until-caught-up"], config=text)


def read_partitions(address: str, stream: str, topic: str) -> list[list[ReceiveMessage]]:
    """Every message of a topic, by partition; none when it is not there."""
    async def all_of_them() -> list[list[ReceiveMessage]]:
        client = IggyClient(TcpConfig(server_address=address, auto_login=AutoLogin.username_password("iggy", "iggy")))
        await client.connect()
        details = await client.get_topic(stream, topic) if await client.get_stream(stream) else None
        out = []
        for partition in details.partitions if details is not None else []:
            found: list[ReceiveMessage] = []
            while polled := await client.poll_messages(
                    stream, topic, consumer=Consumer.Single("test"), count=10_000, auto_commit=False,
                    polling_strategy=PollingStrategy.Offset(len(found)), partition_id=partition.id):
                found += polled
            out.append(found)
        return out

    return asyncio.run(all_of_them())


def identity(point: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a point one of its own: measurement, tags, time."""
    return point["measurement"], tuple(sorted(point["tags"].items())), point["time"]


def write(influxdb: SandboxInflux, lines: list[str]) -> None:
    """Stores lines in the sandbox."""
    path = {"v1": "/write?db=sandbox", "v2": "/api/v2/write?org=sandbox&bucket=sandbox",
            "v3": "/api/v3/write_lp?db=sandbox&precision=nanosecond"}[influxdb.flavour]
    for at in range(0, len(lines), 5_000):
        answer = requests.post(influxdb.url + path, data="\n".join(lines[at:at + 5_000]).encode(), timeout=60,
                               headers={"Authorization": "Token sandbox-token"})
        assert answer.status_code == 204, answer.text


def lines_of(count: int) -> list[str]:
    """Points of 7 devices, all types; three points have each time."""
    return [f'm,device=d{n % 7} f={n}.0,i={n}i,s="n {n}",b={"true" if n % 2 else "false"} {FIRST_TIME + n // 3 * 10**9}'
            for n in range(count)]


def check(points: list[dict[str, Any]], count: int, once: bool = True) -> None:
    """All of `lines_of`, as they were stored; with `once`, none twice."""
    found = Counter(p["fields"]["i"] for p in points)
    assert sorted(found) == list(range(count))
    assert not once or len(points) == count
    for p in points:
        n = p["fields"]["i"]
        assert p == {"measurement": "m", "tags": {"device": f"d{n % 7}"}, "time": FIRST_TIME + n // 3 * 10**9,
                     "fields": {"b": n % 2 == 1, "f": float(n), "i": n, "s": f"n {n}"}}
        assert isinstance(p["fields"]["f"], float)
