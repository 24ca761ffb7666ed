"""Which ingest process reads which partition, from where, and what became of its log. Pure: no sockets, no clock."""

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from pipeline.config.plan import Until
from pipeline.config.schema import Subscription
from pipeline.coordinator.ledger import Ledger
from pipeline.wire import sink as wire

#: So many of the newest gaps are kept for the Status.
GAPS_KEPT = 20


class Newest(Struct, frozen=True):
    """Iggy's time of the newest message dispatched, microseconds since 1970."""

    time: int
    #: Whether it is that of the message just before the position; not after the log was cut off.
    exact: bool


class Assignments:
    """The coordinator's knowledge of partitions, beside the ledger. Its methods give what is to be answered."""

    def __init__(self, ledger: Ledger, topics: tuple[Subscription, ...], until: Until,
                 suspects: Callable[[wire.Partition], list[wire.Suspect]] = lambda where: []) -> None:
        """`suspects` gives those of a partition, at whose edges batches are cut."""
        self._suspects = suspects
        self._ledger = ledger
        self._topics = topics
        self._until = until
        #: The ingest process that reads a partition.
        self.owners: dict[wire.Partition, str] = {}
        #: Stored offsets that are beyond the log's end, and have to go back to this one; -1: to none.
        self.rewinds: dict[wire.Partition, int] = {}
        #: Partitions that go to another member of the group when all is stored; since when, seconds, monotonic.
        self.revoking: dict[wire.Partition, float] = {}
        self.gaps: deque[wire.GapStatus] = deque(maxlen=GAPS_KEPT)
        self.missed = self.truncations = 0
        self._newest: dict[wire.Partition, Newest] = {}
        self._limits: dict[wire.Partition, int] = {}

    def assign(self, name: str, reader: int) -> wire.Assign:
        """What a new ingest process is told. Its place in a group was lost with its connection: it begins anew."""
        for where in [where for where, owner in self.owners.items() if owner == name]:
            if self._topics[where.topic].group:
                self.drop(where)
        load = self._ledger.load(reader)
        return wire.Assign(self._ledger.epoch,
                           [self._position(where, offset) for where, offset in self._ledger.positions()
                            if self.owners.get(where) == name],
                           load.dispatched_messages, load.dispatched_bytes)

    def _position(self, where: wire.Partition, offset: int) -> wire.Position:
        newest = self._newest.get(where, Newest(0, False))
        limit = self._limits.get(where)
        if self._until == "once" and newest.time:
            limit = offset
        return wire.Position(where, self._ledger.log(where), offset, newest.time, newest.exact, limit,
                             self._suspects(where))

    def start(self, name: str, message: wire.Started) -> wire.Seek:
        """Ingest has got partitions."""
        positions = []
        for beginning in message.partitions:
            where = beginning.where
            if self._ledger.knows(where):
                self.drop(where)
            self.owners[where] = name
            if self._until:
                self._limits.setdefault(where, beginning.end)
            self._ledger.start(where, beginning.offset, self._kept(beginning.where, beginning.offset, beginning.stored))
            positions.append(self._position(where, beginning.offset))
        return wire.Seek(message.epoch, positions)

    def truncate(self, name: str, message: wire.Truncated) -> wire.Seek:
        """A log was cut off, says ingest. What it doesn't own any more is its owner's to say."""
        where = message.where
        if self.owners.get(where) != name:
            return wire.Seek(message.epoch, [])
        self.truncations += 1
        offset = self._ledger.truncate(where, message.offset, message.stored)
        self._kept(where, offset, message.stored)
        self._newest[where] = Newest(self._newest.get(where, Newest(0, False)).time, False)
        if where in self._limits:
            self._limits[where] = min(self._limits[where], message.end)
        return wire.Seek(message.epoch, [self._position(where, offset)])

    def _kept(self, where: wire.Partition, offset: int, stored: int) -> int:
        """The stored offset as far as it is below the position; what is beyond has to go back.

        0 stays: see `stages.ingest.log_identity.stored_position`.
        """
        self.rewinds.pop(where, None)
        if stored < offset or stored == 0:
            return stored
        self.rewinds[where] = offset - 1
        return offset - 1

    def dispatched(self, message: wire.Dispatched) -> None:
        """A batch is on its way."""
        self._newest[message.range.where] = Newest(message.time, True)

    def gap(self, message: wire.Gap) -> None:
        """Messages are gone unread."""
        source = self._topics[message.where.topic]
        self.missed += message.last - message.first + 1
        self.gaps.append(wire.GapStatus(source.stream, source.topic, message.where.partition, message.first,
                                        message.last))

    def revoke(self, name: str, message: wire.Revoked, now: float) -> None:
        """Partitions of ingest go to another member: at once, or when what is in flight is stored.

        One that another ingest has told of as its own meanwhile is not touched: after a restart of Iggy the first to
        come back gets all partitions, before the others notice what they have lost.
        """
        for where in message.partitions:
            if self.owners.get(where) != name:
                continue
            if message.at_once:
                self.drop(where)
            else:
                self.revoking[where] = now

    def disowned(self, name: str, read: list[wire.Partition]) -> list[wire.Partition]:
        """Of what ingest reads, what isn't its own here: two of a group may tell of a partition in the wrong order."""
        return [where for where in read if self.owners.get(where) != name]

    def drop(self, where: wire.Partition) -> None:
        """Another reads this partition now."""
        self._ledger.drop(where)
        for table in (self.owners, self.rewinds, self.revoking):
            table.pop(where, None)
