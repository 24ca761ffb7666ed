"""Limits of every socket; and a control socket for asyncio that receives all messages at once and never blocks on a
send.

`zmq.asyncio` creates a future and a task for each message, about 0.1 ms of CPU. Here that is paid once for all messages
that have arrived since the last call.
"""

import asyncio
from typing import Any

import zmq

from pipeline.wire.frames import FRAME_BYTES, cut

#: What encryption adds to a frame, bytes, at most.
FRAME_MARGIN = 1_024
#: A peer that has not completed the handshake after this time, milliseconds, is disconnected.
HANDSHAKE_MILLISECONDS = 5_000
#: The socket is read at least this often, seconds, whatever its file descriptor signals.
CHECK_SECONDS = 1.0


def sender_of(identity: bytes) -> str:
    """The name of the process that sent a ROUTER's message; "" for one that has been replaced.

    When a process takes over the name of one that died, the messages left in the dead one's pipe get an identity that
    0MQ generates: a zero byte and four more. Source: `router_t::identify_peer` of libzmq, with ROUTER_HANDOVER.
    """
    return "" if identity[:1] == b"\0" else identity.decode("utf-8", "backslashreplace")


def limit(socket: "zmq.Socket[Any]", frame_bytes: int = FRAME_BYTES) -> None:
    """Bounds the frames and the handshake of unknown peers. To be called before bind or connect.

    A peer that sends a larger frame is disconnected before the frame is read.
    """
    socket.setsockopt(zmq.MAXMSGSIZE, frame_bytes + FRAME_MARGIN)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MILLISECONDS)


def router() -> "zmq.Socket[bytes]":
    """The ROUTER of a coordinator. A process that replaces another takes over its name."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    return socket


def _key_of(frame: zmq.Frame) -> str:
    """The key of a frame's sender, which `pipeline.sockets.zap_handler` has set; "" where there is none."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""


class ControlSocket:
    """A ROUTER or DEALER without a send high-water mark, so that a send never blocks. For one event loop.

    ZMQ_FD is edge-triggered and a send can consume the edge, so every send causes another check for input.
    """

    def __init__(self, socket: "zmq.Socket[bytes]", with_keys: bool = False) -> None:
        """Removes the send high-water mark of a socket, for connections that are made later. `with_keys`: the senders'
        keys are needed."""
        socket.setsockopt(zmq.SNDHWM, 0)
        self.socket = socket
        self._with_keys = with_keys
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._ready: asyncio.Future[None] | None = None

    async def receive(self) -> list[list[bytes]]:
        """All messages that have arrived, each a list of its frames. Waits for the first one."""
        while not (messages := self._receive_all()):
            await self._wait()
        return messages

    async def _wait(self) -> None:
        """Waits until there may be input. The descriptor stays readable until it is read, so it is watched only
        here."""
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        loop.add_reader(self._descriptor, self._wake)
        timer = loop.call_later(CHECK_SECONDS, self._wake)
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
        """The same for a ROUTER: each message's sender identity, its key where that is needed, and the frames."""
        return [(identity, frames.pop() if self._with_keys else None, frames)  # type: ignore[misc]
                for identity, *frames in await self.receive()]

    def _receive_all(self) -> list[list[bytes]]:
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
        """Sends one message. A ROUTER drops it if the peer is not connected."""
        self.socket.send_multipart(cut(parts), zmq.NOBLOCK)
        self._wake()
