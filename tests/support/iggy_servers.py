"""Iggys for tests: the sandbox's broker on a thread of its own, and a real server that runs already."""

import asyncio
import contextlib
import inspect
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from pipeline.testbed.sandbox.iggy.server import Broker

SERVER = os.environ.get("IGGY_TEST_SERVER", "")
SERVER_HTTP = os.environ.get("IGGY_TEST_HTTP", f"{SERVER.partition(':')[0]}:3000")
#: TCP address of each sandbox of this process -> that of its listener for WebSocket.
WEBSOCKETS: dict[str, str] = {}
#: Longest wait for one call of the broker's thread or the server's HTTP API, seconds.
CALL_SECONDS = 60.0


def user_of(stream: str) -> str:
    """The name of the user that a test makes for its stream."""
    return stream[:20]


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
        WEBSOCKETS[broker.address] = broker.websocket_address

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
            if stream not in self.broker.state.streams:
                self.broker.state.new_stream(stream)
            self.broker.state.new_topic(stream, topic, partitions)

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
        """Deletes what was made, and the users that tests have named after their streams."""
        for stream in self._streams:
            self._request("DELETE", f"/streams/{stream}")
            with contextlib.suppress(urllib.error.HTTPError):
                self._request("DELETE", f"/users/{user_of(stream)}")


@contextmanager
def running_sandbox(**options: Any) -> Iterator[SandboxIggy]:
    """A sandbox broker made with `options`, while the block lasts."""
    sandbox = SandboxIggy(Broker(**{"websocket_port": 0, **options}))
    try:
        yield sandbox
    finally:
        sandbox.close()
