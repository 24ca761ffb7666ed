"""The sandbox broker: speaks Iggy's binary protocol to the real client, keeps everything in memory."""

import asyncio
import struct
import time
from collections.abc import Callable

from pipeline.sandbox import protocol
from pipeline.sandbox.log import PartitionLog
from pipeline.sandbox.protocol import Reader, Refused, Request

#: Kinds of consumer, and of polling strategy.
SINGLE, GROUP = 1, 2
OFFSET, TIMESTAMP, FIRST, LAST, NEXT = 1, 2, 3, 4, 5
#: Polls and stores of a consumer that names no partition take this one.
DEFAULT_PARTITION = 0
Parts = list[bytes | memoryview]


def now_micros() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


class Group:
    """A consumer group of one topic; its members, by session, share the partitions in turn."""

    def __init__(self, id_: int, name: str) -> None:
        self.id = id_
        self.name = name
        self.members: list[int] = []
        #: Where each member's next poll without a partition goes.
        self.turns: dict[int, int] = {}

    def partitions(self, session: int, count: int) -> list[int]:
        """The partitions of a member; none for a stranger."""
        if session not in self.members:
            return []
        return list(range(self.members.index(session), count, len(self.members)))


class Topic:
    """A topic: partitions, stored offsets, groups."""

    def __init__(self, id_: int, name: str, partitions: int) -> None:
        self.id = id_
        self.name = name
        self.created_at = now_micros()
        self.logs = [PartitionLog(number) for number in range(partitions)]
        #: (kind, consumer, partition) -> offset.
        self.offsets: dict[tuple[int, int | str, int], int] = {}
        self.groups: dict[str, Group] = {}
        self.next_group = 0

    def log(self, partition: int) -> PartitionLog:
        """One partition's log. Raises Refused when there is none."""
        if partition >= len(self.logs):
            raise Refused(protocol.PARTITION_NOT_FOUND)
        return self.logs[partition]

    def group(self, name: int | str) -> Group | None:
        """A group by name or id."""
        return next((g for g in self.groups.values() if name in (g.name, g.id)), None)

    def summary(self) -> bytes:
        """The topic as in a list of topics."""
        return (struct.pack("<IQIQBQQQ", self.id, self.created_at, len(self.logs), 2**64 - 1, 1, 2**64 - 1,
                            sum(log.size for log in self.logs), sum(log.next_offset for log in self.logs))
                + protocol.text(self.name) + protocol.options())

    def details(self) -> bytes:
        """The topic with its partitions."""
        return self.summary() + b"".join(
            struct.pack("<IQIQQQ", log.partition, self.created_at, 1 if log.next_offset else 0, log.current_offset,
                        log.size, log.next_offset) for log in self.logs)


class Stream:
    """A stream and its topics."""

    def __init__(self, id_: int, name: str) -> None:
        self.id = id_
        self.name = name
        self.created_at = now_micros()
        self.topics: dict[str, Topic] = {}
        self.next_topic = 0

    def topic(self, name: int | str) -> Topic | None:
        """A topic by name or id."""
        return next((t for t in self.topics.values() if name in (t.name, t.id)), None)

    def summary(self) -> bytes:
        """The stream as in a list of streams."""
        logs = [log for topic in self.topics.values() for log in topic.logs]
        return struct.pack("<IQIQQ", self.id, self.created_at, len(self.topics), sum(log.size for log in logs),
                           sum(log.next_offset for log in logs)) + protocol.text(self.name) + bytes(4)


class Broker:
    """Listens on loopback. Can be told to fail: `refuse`, `delay_seconds`, `drop_connections()`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, username: str = "iggy", password: str = "iggy") -> None:
        self.host = host
        self.port = port
        self.credentials = username, password
        self.streams: dict[str, Stream] = {}
        #: Close every new connection at once.
        self.refuse = False
        #: Wait so long before each answer.
        self.delay_seconds = 0.0
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._next_stream = 0
        self._next_session = 64

    async def start(self) -> None:
        """Listens. Raises OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening and drops all connections."""
        if self._server is not None:
            self._server.close()
        self.drop_connections()

    @property
    def address(self) -> str:
        """host:port."""
        return f"{self.host}:{self.port}"

    def drop_connections(self) -> None:
        """Cuts every connection that there is."""
        for connection in list(self.connections):
            connection.transport.abort()

    def stream(self, name: int | str) -> Stream | None:
        """A stream by name or id."""
        return next((s for s in self.streams.values() if name in (s.name, s.id)), None)

    def topic(self, stream: int | str, topic: int | str) -> Topic:
        """A topic. Raises Refused when it or its stream is missing."""
        found = self.stream(stream)
        inside = found.topic(topic) if found else None
        if inside is None:
            raise Refused(protocol.RESOURCE_NOT_FOUND)
        return inside

    def stored_offset(self, stream: str, topic: str, partition: int, consumer: str) -> int | None:
        """What is stored for a single consumer, or None."""
        return self.topic(stream, topic).offsets.get((SINGLE, consumer, partition))

    def new_session(self) -> int:
        """The number of a new session."""
        self._next_session += 1
        return self._next_session

    def new_stream(self, name: str) -> Stream:
        """Makes a stream."""
        stream = self.streams[name] = Stream(self._next_stream, name)
        self._next_stream += 1
        return stream

    def forget_member(self, session: int) -> None:
        """A connection is gone: it leaves its groups."""
        for stream in self.streams.values():
            for topic in stream.topics.values():
                for group in topic.groups.values():
                    if session in group.members:
                        group.members.remove(session)


class Connection(asyncio.Protocol):
    """One client's connection: cuts frames, answers each in order."""

    transport: asyncio.Transport

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.session = 0
        self._buffer = bytearray()
        self._ready_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection, or closes it when told to refuse."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.broker.connections.add(self)
        if self.broker.refuse:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self.broker.connections.discard(self)
        if self.session:
            self.broker.forget_member(self.session)

    def data_received(self, data: bytes) -> None:
        """Answers every whole frame."""
        self._buffer += data
        while len(self._buffer) >= protocol.HEADER_BYTES:
            size = int.from_bytes(self._buffer[48:52], "little")
            if size < protocol.HEADER_BYTES:
                self.transport.abort()
                return
            if len(self._buffer) < size:
                return
            frame = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._schedule(protocol.parse_request(frame))

    def _schedule(self, request: Request) -> None:
        if not self.broker.delay_seconds:
            self._answer(request)
            return
        loop = asyncio.get_running_loop()
        self._ready_at = max(self._ready_at, loop.time()) + self.broker.delay_seconds
        loop.call_at(self._ready_at, self._answer, request)

    def _answer(self, request: Request) -> None:
        from pipeline.sandbox.commands import handle

        if self.transport.is_closing():
            return
        if request.command != protocol.COMMAND_REQUEST:
            return
        status, parts, operation = 0, [b""], request.operation
        try:
            answer = handle(self.broker, self, request)
            if answer is None:
                self.transport.close()
                return
            parts, operation = answer
        except Refused as refused:
            status = refused.status
        except (struct.error, IndexError, UnicodeDecodeError):
            self.transport.abort()
            return
        size = sum(map(len, parts))
        header = protocol.reply_header(request, size, status, self.session, operation)
        self.transport.writelines([header, *parts])


Handler = Callable[[Broker, Connection, Reader], bytes]
