"""Limits of every socket; and a control socket for asyncio: everything that has come in at once, sends that never wait.

`zmq.asyncio` makes a future and a task for each message, about 0.1 ms of CPU; this costs that once for all messages
that have come in since the last look.
"""

import asyncio
from typing import Any

import zmq

from pipeline.wire.frames import FRAME_BYTES, cut

#: What encryption adds to a frame, bytes, at most.
FRAME_MARGIN = 1_024
#: A peer that has not said who it is after so long, milliseconds, is disconnected.
HANDSHAKE_MILLISECONDS = 5_000
#: Largest Status, bytes: it is one frame, since of several the newest could not be kept alone.
STATUS_BYTES = 64 << 20
#: A look at the socket at least so often, seconds, whatever its file descriptor says.
LOOK_SECONDS = 1.0


def sender_of(identity: bytes) -> str:
    """The name of the process that a ROUTER's message is from; "" for one that has been replaced.

    When a process takes the name of one that died, what the dead one has left in its pipe comes under an identity that
    0MQ makes up: a zero byte and four more. Source: `router_t::identify_peer` of libzmq, with ROUTER_HANDOVER.
    """
    return "" if identity[:1] == b"\0" else identity.decode("utf-8", "backslashreplace")


def limit(socket: "zmq.Socket[Any]", frame_bytes: int = FRAME_BYTES) -> None:
    """Bounds what a peer can send before it is known, and how long it may take for that. To be called first.

    A larger frame costs its sender the connection, before it is read.
    """
    socket.setsockopt(zmq.MAXMSGSIZE, frame_bytes + FRAME_MARGIN)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MILLISECONDS)


def _key_of(frame: zmq.Frame) -> str:
    """The key of a frame's sender, as `pipeline.sockets.door` has told libzmq; "" where there is none."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""


class ControlSocket:
    """A ROUTER or DEALER without a high-water mark, so that a send never has to wait. For one event loop.

    A 0MQ file descriptor tells of new events once, and a send may take in the telling: so each send looks again.
    """

    def __init__(self, socket: "zmq.Socket[bytes]", with_keys: bool = False) -> None:
        """The socket is made by the caller; its send high-water mark is taken away here, which counts for connections
        that are made later. `with_keys`: the keys of senders are wanted."""
        socket.setsockopt(zmq.SNDHWM, 0)
        self.socket = socket
        self._with_keys = with_keys
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._ready: asyncio.Future[None] | None = None

    async def receive(self) -> list[list[bytes]]:
        """All messages that are there, each a list of its frames; waits for the first one."""
        while not (messages := self._all()):
            await self._wait()
        return messages

    async def _wait(self) -> None:
        """Until there may be something. Only then is the descriptor watched: it is readable until one looks."""
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        loop.add_reader(self._descriptor, self._wake)
        timer = loop.call_later(LOOK_SECONDS, self._wake)
        try:
            await self._ready
        finally:
            timer.cancel()
            loop.remove_reader(self._descriptor)
            self._ready = None

    def _wake(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    async def receive_from(self) -> list[tuple[bytes, str | None, list[bytes]]]:
        """The same of a ROUTER: of each message the sender's identity, its key where that is wanted, and the frames."""
        return [(identity, frames.pop() if self._with_keys else None, frames)  # type: ignore[misc]
                for identity, *frames in await self.receive()]

    def _all(self) -> list[list[bytes]]:
        messages: list[Any] = []
        try:
            while True:
                if self._with_keys:
                    frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
                    messages.append([*(frame.bytes for frame in frames), _key_of(frames[-1])])
                else:
                    messages.append(self.socket.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            return messages

    def send(self, *parts: bytes) -> None:
        """Sends one message; what a ROUTER has no peer for is dropped."""
        self.socket.send_multipart(cut(parts), zmq.NOBLOCK)
        self._wake()
