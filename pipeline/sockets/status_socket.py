"""A coordinator's Status: published several times a second (PUB), of which a subscriber (SUB) keeps the newest."""

import asyncio
from collections.abc import Callable

import zmq
import zmq.asyncio
from msgspec import Struct

from pipeline.sockets.control_socket import limit
from pipeline.sockets.endpoints import LOCAL_RECONNECT_MILLISECONDS, Endpoints
from pipeline.wire import common

#: Seconds between two Status messages.
STATUS_SECONDS = 0.25
#: Largest Status, bytes. It is one frame: CONFLATE does not support messages of several.
STATUS_BYTES = 64 << 20


class StatusPublisher:
    """The PUB of a coordinator."""

    def __init__(self, endpoints: Endpoints, endpoint: str) -> None:
        self._socket = zmq.asyncio.Context.instance().socket(zmq.PUB)
        endpoints.bind(self._socket, endpoint)

    async def run(self, status: Callable[[], Struct]) -> None:
        """Publishes `status()` until cancelled."""
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            await self._socket.send(common.encode(status()))


class StatusSubscriber:
    """Receives the newest Status of one coordinator."""

    def __init__(self, endpoint: str) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._socket = context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.CONFLATE, 1)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.setsockopt(zmq.RECONNECT_IVL, LOCAL_RECONNECT_MILLISECONDS)
        limit(self._socket, STATUS_BYTES)
        self._socket.connect(endpoint)

    def receive(self) -> bytes | None:
        """The frame of the newest Status that has not been received; None when there is none. Never waits."""
        return self._socket.recv() if self._socket.poll(0) else None
