"""Samples for `pipeline tap`: writers and produce make them (XPUB) while somebody listens (SUB), and never wait for
that.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import zmq
import zmq.asyncio
from msgspec import Struct

from pipeline.sockets.control_socket import limit
from pipeline.sockets.endpoints import Endpoints
from pipeline.wire import common

#: Seconds between two samples of one writer, at least.
SAMPLE_SECONDS: Final = 0.5
#: Samples that wait for a slow listener, at most; further ones are dropped.
HIGH_WATER_MARK: Final = 4
#: Subscribed to everything.
_SUBSCRIBED: Final = b"\x01"


class TapPublisher:
    """The side of a writer, or of produce."""

    def __init__(self, endpoints: Endpoints, endpoint: str) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._socket = context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.LINGER, 0)
        endpoints.bind(self._socket, endpoint)
        self._has_listener = False
        self._next = 0.0

    def wants(self, now: float) -> bool:
        """Whether a sample is wanted at `now` (seconds, monotonic). Costs next to nothing."""
        if now < self._next:
            return False
        self._next = now + SAMPLE_SECONDS
        while self._socket.poll(0):
            # The first listener that comes, and the last one that goes, cause a message.
            self._has_listener = self._socket.recv()[:1] == _SUBSCRIBED
        return self._has_listener

    def send(self, samples: Struct) -> None:
        """Sends a sample. It is dropped where the listeners are slow."""
        with contextlib.suppress(zmq.Again):
            self._socket.send(common.encode(samples), zmq.NOBLOCK)


class TapListener:
    """The side of the HTTP process."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._socket = zmq.asyncio.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        limit(self._socket)
        for endpoint in endpoints:
            self._socket.connect(endpoint)

    async def receive(self, seconds: float) -> bytes | None:
        """The frame of a sample; None if there is none for so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                frame: bytes = await self._socket.recv()
                return frame
        except TimeoutError:
            return None

    def close(self) -> None:
        """Ends it: no more samples are made."""
        self._socket.close()
