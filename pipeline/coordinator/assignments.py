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
                 suspects: Callable[[wire.Partition], list[wire.Suspect]] = lambda partition: []) -> None:
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

    def assign(self, name: str, ingest: int) -> wire.Assign:
        """What a new ingest process is told. Its place in a group was lost with its connection: it begins anew."""
        for partition in [partition for partition, owner in self.owners.items() if owner == name]:
            if self._topics[partition.topic].group:
                self.drop(partition)
        load = self._ledger.load(ingest)
        return wire.Assign(self._ledger.epoch,
                           [self._position(partition, offset) for partition, offset in self._ledger.positions()
                            if self.owners.get(partition) == name],
                           load.dispatched_messages, load.dispatched_bytes)

    def _position(self, partition: wire.Partition, offset: int) -> wire.Position:
        newest = self._newest.get(partition, Newest(0, False))
        limit = self._limits.get(partition)
        if self._until == "once" and newest.time:
            limit = offset
        return wire.Position(partition, self._ledger.generation(partition), offset, newest.time, newest.exact, limit,
                             self._suspects(partition))

    def start(self, name: str, message: wire.Started) -> wire.Seek:
        """Ingest has got partitions."""
        positions = []
        for beginning in message.partitions:
            partition = beginning.partition
            if self._ledger.knows(partition):
                self.drop(partition)
            self.owners[partition] = name
            if self._until:
                self._limits.setdefault(partition, beginning.end)
            self._ledger.start(partition, beginning.offset, self._kept(partition, beginning.offset, beginning.stored))
            positions.append(self._position(partition, beginning.offset))
        return wire.Seek(message.epoch, positions)

    def truncate(self, name: str, message: wire.Truncated) -> wire.Seek:
        """A log was cut off, says ingest. What it doesn't own any more is its owner's to say."""
        partition = message.partition
        if self.owners.get(partition) != name:
            return wire.Seek(message.epoch, [])
        self.truncations += 1
        offset = self._ledger.truncate(partition, message.offset, message.stored)
        self._kept(partition, offset, message.stored)
        self._newest[partition] = Newest(self._newest.get(partition, Newest(0, False)).time, False)
        if partition in self._limits:
            self._limits[partition] = min(self._limits[partition], message.end)
        return wire.Seek(message.epoch, [self._position(partition, offset)])

    def _kept(self, partition: wire.Partition, offset: int, stored: int) -> int:
        """The stored offset as far as it is below the position; what is beyond has to go back.

        0 stays: see `stages.ingest.log_identity.stored_position`.
        """
        self.rewinds.pop(partition, None)
        if stored < offset or stored == 0:
            return stored
        self.rewinds[partition] = offset - 1
        return offset - 1

    def dispatched(self, message: wire.Dispatched) -> None:
        """A batch is on its way."""
        self._newest[message.range.partition] = Newest(message.time, True)

    def gap(self, message: wire.Gap) -> None:
        """Messages are gone unread."""
        source = self._topics[message.partition.topic]
        self.missed += message.last - message.first + 1
        self.gaps.append(wire.GapStatus(source.stream, source.topic, message.partition.number, message.first,
                                        message.last))

    def revoke(self, name: str, message: wire.Revoked, now: float) -> None:
        """Partitions of ingest go to another member: at once, or when what is in flight is stored.

        One that another ingest has told of as its own meanwhile is not touched: after a restart of Iggy the first to
        come back gets all partitions, before the others notice what they have lost.
        """
        for partition in message.partitions:
            if self.owners.get(partition) != name:
                continue
            if message.at_once:
                self.drop(partition)
            else:
                self.revoking[partition] = now

    def disowned(self, name: str, read: list[wire.Partition]) -> list[wire.Partition]:
        """Of what ingest reads, what isn't its own here: two of a group may tell of a partition in the wrong order."""
        return [partition for partition in read if self.owners.get(partition) != name]

    def drop(self, partition: wire.Partition) -> None:
        """Another reads this partition now."""
        self._ledger.drop(partition)
        for table in (self.owners, self.rewinds, self.revoking):
            table.pop(partition, None)
