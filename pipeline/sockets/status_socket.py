"""A coordinator's Status: published when it has changed (PUB). A subscriber (SUB) keeps the newest."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import zmq
import zmq.asyncio
from msgspec import Struct

from pipeline.sockets.control_link import seconds_to_heartbeats
from pipeline.sockets.control_socket import limit
from pipeline.sockets.endpoints import LOCAL_RECONNECT_MILLISECONDS, Endpoints
from pipeline.wire import common

#: Seconds between two Status messages, at least, for few partitions. Without changes there is one with every round of
#: heartbeats, so that subscribers see that the coordinator lives.
STATUS_SECONDS = 0.25
#: After a Status whose making took CPU time, of many partitions, so many times of that pass until the next one, but at
#: most so many seconds.
COST_FACTOR = 2_000
MAX_STATUS_SECONDS = 1.0
#: Largest Status, bytes. It is one frame: CONFLATE does not support messages of several.
STATUS_BYTES = 64 << 20


class StatusPublisher:
    """The PUB of a coordinator."""

    def __init__(self, endpoints: Endpoints, endpoint: str) -> None:
        self._socket = zmq.asyncio.Context.instance().socket(zmq.PUB)
        endpoints.bind(self._socket, endpoint)
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """The status is not the one that was last published."""
        self._changed.set()

    async def run(self, status: Callable[[], Struct]) -> None:
        """Publishes `status()` until cancelled."""
        while True:
            self._changed.clear()
            began = time.thread_time()
            frame = common.encode(status())
            pause = min(max(STATUS_SECONDS, COST_FACTOR * (time.thread_time() - began)), MAX_STATUS_SECONDS)
            await self._socket.send(frame)
            published_at = time.monotonic()
            await wait_at_most(self._changed, seconds_to_heartbeats(published_at))
            if (early := published_at + pause - time.monotonic()) > 0:
                await asyncio.sleep(early)


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Waits for an event, but no longer than so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


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

    @property
    def descriptor(self) -> int:
        """Becomes readable when there may be a newer Status."""
        return int(self._socket.getsockopt(zmq.FD))

    def receive(self) -> bytes | None:
        """The frame of the newest Status that has not been received; None when there is none. Never waits."""
        return self._socket.recv() if self._socket.poll(0) else None
