"""What the sandbox broker keeps: streams with their topics, and the sessions of its clients. No sockets.

All methods belong to the thread that the broker's event loop runs on.
"""

import time
from collections.abc import Callable

from msgspec import Struct

from pipeline.testbed.sandbox.iggy import protocol
from pipeline.testbed.sandbox.iggy.groups import Group
from pipeline.testbed.sandbox.iggy.log import Stream, Topic
from pipeline.testbed.sandbox.iggy.protocol import Answer, Options, Refused, TopicOptions
from pipeline.testbed.sandbox.iggy.users import User, Users

#: How long the hand-over of a partition may take, seconds: the server's `consumer_group.rebalancing_timeout`.
REBALANCING_TIMEOUT_SECONDS = 30.0


class Session(Struct):
    """One client's connection, and who is logged in on it."""

    #: The connection's number, from 1 on.
    number: int
    #: host:port of the client.
    peer: str = ""
    #: The address of ours that it is connected to.
    host: str = ""
    #: The operation that logged it in; 0: not logged in.
    id: int = 0
    #: Who is logged in.
    user: User | None = None

    @property
    def transport_id(self) -> bytes:
        """What replies to operations on a partition name instead of the client's own id."""
        return (1 << 112 | self.number).to_bytes(16, "little")


class Evicted(Struct, frozen=True):
    """Notifies the client that its session has ended; `reason` is one of `protocol.EVICTED_...`."""

    client: bytes
    reason: int


class CutAnswer(Struct, frozen=True):
    """Half of a reply is sent, then the connection is closed."""

    answer: Answer


def now_micros() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


class State:
    """Streams by name, and the numbers of operations."""

    def __init__(self, credentials: tuple[str, str] = ("iggy", "iggy"), *,
                 rebalancing_timeout: float = REBALANCING_TIMEOUT_SECONDS, strict_options: bool = False,
                 clock: Callable[[], int] = now_micros) -> None:
        """`credentials`: root's name and password. `rebalancing_timeout` in seconds.

        `strict_options` refuses topic options that server 0.9.0-edge.5 doesn't know, as it does: client 0.9.0 can't
        create topics then. `clock` gives microseconds since 1970.
        """
        self.users = Users(*credentials, clock())
        #: Host and port that the broker listens on. The host may stand for every address of the machine.
        self.address = ("", 0)
        self.rebalancing_timeout = rebalancing_timeout
        self.strict_options = strict_options
        self.clock = clock
        self.started_at = clock()
        self.streams: dict[str, Stream] = {}
        #: The sessions of all connected clients.
        self.sessions: list[Session] = []
        #: Number of the last operation on streams, topics, groups and sessions.
        self.op = 0
        #: Number of further poll replies with messages to cut.
        self.polls_to_cut = 0
        self._connections = 0

    @property
    def sessions_so_far(self) -> int:
        """Number of connections since the start."""
        return self._connections

    def stream(self, name: int | str) -> Stream:
        """A stream by name or id. Raises Refused when there is none."""
        for stream in self.streams.values():
            if name in (stream.name, stream.id):
                return stream
        raise Refused(protocol.STREAM_NOT_FOUND)

    def topic(self, stream: int | str, topic: int | str) -> Topic:
        """A topic. Raises Refused when it or its stream is missing."""
        for found in self.stream(stream).topics.values():
            if topic in (found.name, found.id):
                return found
        raise Refused(protocol.TOPIC_NOT_FOUND)

    def topics(self) -> list[tuple[Stream, Topic]]:
        """Every topic, with its stream."""
        return [(stream, topic) for stream in self.streams.values() for topic in stream.topics.values()]

    def new_stream(self, name: str) -> Stream:
        """Creates a stream with the lowest free id. Raises Refused when there is one of that name."""
        if name in self.streams:
            raise Refused(protocol.STREAM_EXISTS)
        stream = self.streams[name] = Stream(_free_id([s.id for s in self.streams.values()]), name, self.clock())
        return stream

    def new_topic(self, stream: int | str, name: str, partitions: int, options: Options | None = None) -> Topic:
        """Creates a topic with the lowest free id. Raises Refused: no such stream, or there is one of that name."""
        topics = self.stream(stream).topics
        if name in topics:
            raise Refused(protocol.TOPIC_EXISTS)
        topic = topics[name] = Topic(_free_id([t.id for t in topics.values()]), name, partitions, self.clock(),
                                     TopicOptions(options or {}))
        return topic

    def change_partitions(self, topic: Topic, change: int) -> None:
        """Adds `change` partitions, or removes the last `-change`; the groups are rebalanced at once."""
        if change > 0:
            topic.add_partitions(change, self.clock())
        else:
            topic.remove_partitions(-change)
        for group in topic.groups.values():
            group.rebalance(topic.partition_numbers)

    def settle(self, group: Group) -> None:
        """Completes the group's hand-overs that are due. Called before the group is read."""
        group.settle(time.monotonic(), self.rebalancing_timeout)

    def stored_offset(self, stream: str, topic: str, partition: int, consumer: str) -> int | None:
        """What is stored for a single consumer, or None."""
        return self.topic(stream, topic).offsets.get((consumer, partition))

    def next_op(self) -> int:
        """The number of the operation that is being committed."""
        self.op += 1
        return self.op

    def connect(self, peer: str, host: str = "") -> Session:
        """A client has connected: its host:port, and the address of ours that it has connected to."""
        self._connections += 1
        session = Session(self._connections, peer, host)
        self.sessions.append(session)
        return session

    def disconnect(self, session: Session) -> None:
        """A client's connection is closed."""
        self.end_session(session)
        self.sessions.remove(session)

    def end_session(self, session: Session) -> None:
        """Logs a session out, if it is in: it leaves its groups, whose other members take its partitions at once."""
        if not session.id:
            return
        self.op += 1
        for _, topic in self.topics():
            for group in topic.groups.values():
                group.leave(session.id, topic.partition_numbers)
        session.id = 0

    def is_member(self, session: Session) -> bool:
        """Whether a session is a member of any group."""
        return any(group.member(session.id) for _, topic in self.topics() for group in topic.groups.values())

    def forget_connections(self, ghosts: bool) -> None:
        """Handles a restart: no poll is in progress. With `ghosts` the sessions keep their partitions for ever."""
        for session in self.sessions if ghosts else ():
            session.id = 0
        for _, topic in self.topics():
            topic.forget_polls()

    def expire(self, stream: str, topic: str, partition: int, before: int) -> None:
        """Retention: deletes the partition's messages below offset `before`. Raises Refused when it isn't there."""
        self.topic(stream, topic).log(partition).expire(before)

    def recreate_topic(self, stream: str, topic: str, partitions: int | None = None) -> None:
        """Deletes a topic with all it has, and creates one of the same name. Raises Refused when it isn't there."""
        old = self.topic(stream, topic)
        del self.stream(stream).topics[old.name]
        self.new_topic(stream, old.name, len(old.logs) if partitions is None else partitions, old.options.explicit)

    def add_partitions(self, stream: str, topic: str, count: int) -> None:
        """Adds partitions to a topic. Raises Refused when it isn't there."""
        self.change_partitions(self.topic(stream, topic), count)


def _free_id(taken: list[int]) -> int:
    return next(number for number in range(len(taken) + 1) if number not in taken)
