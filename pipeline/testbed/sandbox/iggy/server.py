"""The sandbox broker: speaks Iggy's binary protocol to the real client, keeps everything in memory, fails on command.

All methods belong to the thread of the event loop that `start` ran on.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from pipeline.testbed.sandbox.iggy import protocol, websocket
from pipeline.testbed.sandbox.iggy.commands import handle
from pipeline.testbed.sandbox.iggy.protocol import Answer, Buffer, Request
from pipeline.testbed.sandbox.iggy.state import CutAnswer, Evicted, Session, State

#: First size of a connection's buffer, bytes; it grows to the largest frame.
BUFFER_BYTES = 1 << 18
#: Largest frame that is taken, bytes: the default of the server's `message_bus.max_message_size`.
MAX_FRAME_BYTES = 64 << 20
#: Kernel's send buffer of a connection, bytes: one poll of some thousand messages fits, so that it leaves in one call.
SEND_BUFFER_BYTES = 4 << 20
#: How often a client has to send something: the default of the server's `heartbeat.interval`, seconds.
HEARTBEAT_SECONDS = 30.0
#: A member of a group that has sent nothing for so many intervals is put out. Source: the server's `[heartbeat]`.
STALE_INTERVALS = 1.2


class Broker:
    """Listens on loopback. The methods from `refuse_connections` on make it fail."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, username: str = "iggy", password: str = "iggy", *,
                 max_frame_bytes: int = MAX_FRAME_BYTES, tls: ssl.SSLContext | None = None,
                 websocket_port: int | None = None, heartbeat_seconds: float = HEARTBEAT_SECONDS,
                 **options: Any) -> None:
        """Port 0 takes a free one. A larger frame than `max_frame_bytes` ends its connection.

        With `tls` all listeners are encrypted. `websocket_port`: that of a listener for WebSocket; None: there is none.
        A connection that is a member of a group and sends nothing for `STALE_INTERVALS` times `heartbeat_seconds` is
        closed at the next look, once in `heartbeat_seconds`, and its partitions go to the others. `options` are those
        of `State`.
        """
        self.host = host
        self.port = port
        self.websocket_port = websocket_port
        self.tls = tls
        self.max_frame_bytes = max_frame_bytes
        self.heartbeat_seconds = heartbeat_seconds
        self.state = State((username, password), **options)
        self.connections: set[Connection] = set()
        self.delay_seconds = 0.0
        self.hung = False
        #: Bound, never listening: they keep the ports while the broker is down.
        self._reservations: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._restart: asyncio.Task[None] | None = None
        self._reaper: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Listens. Raises OSError when a port is taken."""
        self.port = self._reserve(self.port)
        if self.websocket_port is not None:
            self.websocket_port = self._reserve(self.websocket_port)
        self.state.address = self.host, self.port
        await self._listen()
        self._reap()

    def _reap(self) -> None:
        """Closes what is silent for too long, now and once an interval, as the server does: its host may be gone
        without a word."""
        loop = asyncio.get_running_loop()
        stale = loop.time() - STALE_INTERVALS * self.heartbeat_seconds
        for connection in [one for one in self.connections if one.heard < stale and not self.hung]:
            if self.state.is_member(connection.session):
                connection.transport.abort()
        self._reaper = loop.call_later(self.heartbeat_seconds, self._reap)

    def _reserve(self, port: int) -> int:
        reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            reservation.bind((self.host, port))
        except OSError:
            reservation.close()
            raise
        self._reservations.append(reservation)
        return int(reservation.getsockname()[1])

    async def _listen(self) -> None:
        if self._servers:
            return
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(lambda: Connection(self), self.host, self.port, ssl=self.tls))
        if self.websocket_port is not None:
            self._servers.append(await loop.create_server(lambda: WebSocketConnection(self), self.host,
                                                          self.websocket_port, ssl=self.tls))

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def stop(self) -> None:
        """Stops listening and drops all connections, for good."""
        if self._restart is not None:
            self._restart.cancel()
        if self._reaper is not None:
            self._reaper.cancel()
        self._stop_listening()
        self.drop_connections()
        for reservation in self._reservations:
            reservation.close()

    @property
    def address(self) -> str:
        """host:port."""
        return f"{self.host}:{self.port}"

    @property
    def websocket_address(self) -> str:
        """host:port of the listener for WebSocket; "" without one."""
        return "" if self.websocket_port is None else f"{self.host}:{self.websocket_port}"

    @property
    def listening(self) -> bool:
        """Whether it accepts connections now."""
        return bool(self._servers)

    async def refuse_connections(self, refuse: bool) -> None:
        """Refuses new connections ("connection refused") until called with False. Existing connections remain."""
        if refuse:
            self._stop_listening()
        else:
            await self._listen()

    def drop_connections(self) -> int:
        """Resets every connection. Returns their number."""
        dropped = list(self.connections)
        for connection in dropped:
            connection.transport.abort()
        return len(dropped)

    def delay_answers(self, seconds: float) -> None:
        """Delays the answer to each further request by this time; 0 ends it."""
        self.delay_seconds = seconds

    def hang(self) -> None:
        """Continues to read, but answers nothing until `resume`."""
        self.hung = True

    def resume(self) -> None:
        """Answers the requests received since `hang`, and continues."""
        self.hung = False
        for connection in list(self.connections):
            connection.answer_waiting()

    async def restart(self, seconds: float, ghosts: bool = False) -> None:
        """Stops: no listening, no connections, no sessions. Starts again on the same port, with all data, in `seconds`.

        With `ghosts` the memberships of the old sessions remain in the groups, as with server 0.9.0-edge.5: a client
        that joins again is a second member, and the partitions of the first one are not polled. Returns when it has
        stopped.
        """
        if self._restart is not None:
            self._restart.cancel()
        self._stop_listening()
        self.state.forget_connections(ghosts)
        self.drop_connections()
        self._restart = asyncio.create_task(self._back_in(seconds))
        await asyncio.sleep(0)

    async def _back_in(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._listen()

    async def crash(self, stream: str, topic: str, partition: int, lose: int, seconds: float = 0.0,
                    ghosts: bool = False) -> None:
        """A `restart` that loses the last `lose` messages of a partition; new messages reuse their offsets.

        Stored offsets beyond the log's end become its current offset, as on the real server: 0 if everything is lost,
        so that a poll of the next message skips the first new one. Raises Refused if the partition does not exist.
        """
        self.state.topic(stream, topic).lose(partition, lose)
        await self.restart(seconds, ghosts)

    def cut_polls(self, count: int = 1) -> None:
        """Sends only half of each of the next `count` poll replies that have messages, then closes the connection."""
        self.state.polls_to_cut = count


class Connection(asyncio.BufferedProtocol):
    """One client's connection: cuts frames out of one buffer, answers each in order."""

    transport: asyncio.Transport
    session: Session

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        #: When bytes came last, seconds of the loop's clock.
        self.heard = asyncio.get_running_loop().time()
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        #: Requests to be answered later, with the loop's time when.
        self._waiting: deque[tuple[float, Request]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection."""
        self.transport = cast(asyncio.Transport, transport)
        host, port = self.transport.get_extra_info("peername")[:2]
        ours = self.transport.get_extra_info("sockname")[0]
        self.session = self.broker.state.connect(f"{host}:{port}", ours)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.broker.connections.add(self)

    def _send(self, parts: Sequence[Buffer]) -> None:
        self.transport.writelines(parts)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self.broker.connections.discard(self)
        self.broker.state.disconnect(self.session)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._view[self._filled:]

    def buffer_updated(self, nbytes: int) -> None:
        """Answers every whole frame."""
        self.heard = asyncio.get_running_loop().time()
        self._filled += nbytes
        start = 0
        while self._filled - start >= protocol.HEADER_BYTES:
            size = int.from_bytes(self._view[start + 48:start + 52], "little")
            if not protocol.HEADER_BYTES <= size <= self.broker.max_frame_bytes:
                self.transport.abort()
                return
            if self._filled - start < size:
                self._make_room(start, size)
                return
            self._take(protocol.parse_request(self._view[start:start + size]))
            start += size
        self._make_room(start, protocol.HEADER_BYTES)

    def _make_room(self, start: int, size: int) -> None:
        rest = self._filled - start
        if size > len(self._buffer):
            buffer = bytearray(max(size, 2 * len(self._buffer)))
            buffer[:rest] = self._view[start:self._filled]
            self._buffer, self._view = buffer, memoryview(buffer)
        elif start:
            self._view[:rest] = bytes(self._view[start:self._filled])
        self._filled = rest

    def _take(self, request: Request) -> None:
        if not (self._waiting or self.broker.hung or self.broker.delay_seconds):
            self._answer(request)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + self.broker.delay_seconds
        self._waiting.append((due, request.kept()))
        loop.call_at(due, self.answer_waiting)

    def answer_waiting(self) -> None:
        """Answers what is due, in order, unless the broker hangs."""
        now = asyncio.get_running_loop().time()
        while self._waiting and not self.broker.hung and self._waiting[0][0] <= now + 1e-3:
            self._answer(self._waiting.popleft()[1])

    def _answer(self, request: Request) -> None:
        if self.transport.is_closing() or request.command != protocol.COMMAND_REQUEST:
            return
        match handle(self.broker.state, self.session, request):
            case Evicted(client, reason):
                self._send([protocol.eviction(client, reason)])
            case CutAnswer(answer):
                whole = b"".join([protocol.reply_header(request, answer), *answer.parts])
                self.transport.write(whole[:len(whole) // 2])
                self.transport.close()
            case Answer() as answer:
                self._send([protocol.reply_header(request, answer), *answer.parts])


class WebSocketConnection(asyncio.Protocol):
    """A connection over WebSocket: each message is one frame of Iggy's protocol, in both directions."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._head = b""
        self._frames: websocket.FrameReader | None = None
        self._connection = _Unpacked(broker)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._connection.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._connection.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Answers the handshake, then every whole frame."""
        assert self._transport is not None
        if self._frames is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                if len(self._head) > websocket.MAX_HEAD_BYTES or self._head[:4] != b"GET "[:len(self._head)]:
                    self._transport.abort()
                return
            try:
                self._transport.write(websocket.handshake(self._head[:end]))
            except websocket.NotWebSocket:
                self._transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                self._transport.close()
                return
            self._frames, data = websocket.FrameReader(self._broker.max_frame_bytes), self._head[end + 4:]
        try:
            self._connection.take_bytes(self._frames.feed(data))
        except websocket.BadFrame:
            self._transport.abort()
            return
        self._transport.writelines(self._frames.replies)
        self._frames.replies.clear()
        if self._frames.closed:
            self._transport.close()


class _Unpacked(Connection):
    """A connection of which the bytes come out of frames of WebSocket, and the answers go into them."""

    def take_bytes(self, data: bytes) -> None:
        """The next bytes."""
        view = memoryview(data)
        while view:
            room = self.get_buffer(-1)
            taken = min(len(room), len(view))
            room[:taken] = view[:taken]
            view = view[taken:]
            self.buffer_updated(taken)

    def _send(self, parts: Sequence[Buffer]) -> None:
        self.transport.writelines([websocket.frame(sum(map(len, parts))), *parts])
