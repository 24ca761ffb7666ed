"""What the tests share: an Iggy to talk to. The sandbox's always; a real server too, when the environment names one.

IGGY_TEST_SERVER=host:port names the TCP address of a real server 0.9.0-edge.5 with user and password `iggy`, and
IGGY_TEST_HTTP=host:port its HTTP address (port 3000 of the same host by default). Without the first, the tests are
the same but for those of the real server, which don't exist then.
"""

import asyncio
import inspect
import json
import os
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

# tests/ is on the path before the checkout's root, and tests/pipeline must not pass for the package.
sys.path.insert(0, str(Path(__file__).parents[1]))

from influxdb_servers import running_influxdb  # noqa: E402
from sinks import TARGETS, SandboxInflux, Sink  # noqa: E402

from pipeline.sandbox.broker import Broker  # noqa: E402

SERVER = os.environ.get("IGGY_TEST_SERVER", "")
SERVER_HTTP = os.environ.get("IGGY_TEST_HTTP", f"{SERVER.partition(':')[0]}:3000")
#: Longest wait for one call of the broker's thread or the server's HTTP API, seconds.
CALL_SECONDS = 10.0


class RunningIggy(Protocol):
    """An Iggy that tests talk to; user and password are `iggy`."""

    @property
    def address(self) -> str:
        """host:port of its TCP listener."""

    def create_topic(self, stream: str, topic: str, partitions: int) -> None:
        """Makes a topic, and its stream unless it is there."""


class SandboxIggy:
    """The sandbox broker on a thread of its own."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.call(broker.start)

    @property
    def address(self) -> str:
        """host:port of its TCP listener."""
        return self.broker.address

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls something of the broker on the broker's thread, awaits it if need be, and gives its result."""
        async def on_loop() -> Any:
            result = function(*arguments)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(CALL_SECONDS)

    def create_topic(self, stream: str, topic: str, partitions: int) -> None:
        """Makes a topic, and its stream unless it is there."""
        def create() -> None:
            if stream not in self.broker.streams:
                self.broker.new_stream(stream)
            self.broker.new_topic(stream, topic, partitions)

        self.call(create)

    def close(self) -> None:
        """Stops the broker and its thread."""
        self.call(self.broker.stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class ServerIggy:
    """A real server that runs already. Topics are made over HTTP: it refuses client 0.9.0's way to make them."""

    def __init__(self, address: str, http: str) -> None:
        self.address = address
        self._http = http
        self._streams: list[str] = []
        login = self._request("POST", "/users/login", {"username": "iggy", "password": "iggy"})
        self._token = json.loads(login)["access_token"]["token"]

    def _request(self, method: str, path: str, body: dict[str, object] | None = None) -> bytes:
        headers = {"Content-Type": "application/json"}
        if path != "/users/login":
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(f"http://{self._http}{path}", json.dumps(body).encode() if body else None,
                                         headers, method=method)
        with urllib.request.urlopen(request, timeout=CALL_SECONDS) as answer:
            return bytes(answer.read())

    def create_topic(self, stream: str, topic: str, partitions: int) -> None:
        """Makes a topic, and its stream unless it is there."""
        try:
            self._request("GET", f"/streams/{stream}")
        except urllib.error.HTTPError:
            self._request("POST", "/streams", {"name": stream})
            self._streams.append(stream)
        self._request("POST", f"/streams/{stream}/topics",
                      {"name": topic, "partitions_count": partitions, "compression_algorithm": "none",
                       "message_expiry": 0, "max_topic_size": 0})

    def close(self) -> None:
        """Deletes what was made."""
        for stream in self._streams:
            self._request("DELETE", f"/streams/{stream}")


@contextmanager
def running_sandbox(**options: Any) -> Iterator[SandboxIggy]:
    """A sandbox broker made with `options`, while the block lasts."""
    sandbox = SandboxIggy(Broker(**options))
    try:
        yield sandbox
    finally:
        sandbox.close()


@pytest.fixture
def sandbox() -> Iterator[SandboxIggy]:
    """The sandbox broker, for tests that make it fail."""
    with running_sandbox() as running:
        yield running


@pytest.fixture(params=["sandbox", "server"] if SERVER else ["sandbox"])
def iggy(request: pytest.FixtureRequest) -> Iterator[RunningIggy]:
    """An Iggy: the sandbox's, and in a second run of the test the real server, if there is one."""
    if request.param == "sandbox":
        with running_sandbox() as running:
            yield running
        return
    server = ServerIggy(SERVER, SERVER_HTTP)
    yield server
    server.close()


@pytest.fixture
def iggy_address(iggy: RunningIggy) -> str:
    """Where that Iggy listens."""
    return iggy.address


@pytest.fixture
def stream() -> str:
    """A stream's name that no other test has; the stream isn't there yet."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def influxdb() -> Iterator[SandboxInflux]:
    """A sandbox InfluxDB 2."""
    with running_influxdb() as server:
        yield SandboxInflux(server.url)


@pytest.fixture
def start_sink(tmp_path: Path) -> Iterator[Callable[..., Sink]]:
    """Starts pipelines: (iggy address, stream, influxdb, **options of Sink); all end with the test."""
    with ExitStack() as running:
        def start(address: str, stream: str, influxdb: SandboxInflux, **options: Any) -> Sink:
            folder = tmp_path / f"p{len(list(tmp_path.iterdir()))}"
            sink = Sink(folder, address, stream, influxdb.url, options.pop("target", TARGETS[influxdb.flavour]),
                        **options)
            running.callback(sink.close)
            return sink

        yield start
