"""Which ingest process reads which partition, from where, and what happened to its log. Pure: no sockets, no clock."""

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from pipeline.config.plan import Until
from pipeline.coordinator.ledger import Ledger
from pipeline.subscriptions import Subscriptions
from pipeline.wire import sink as wire

#: Newest gaps in the Status, at most.
GAPS_KEPT = 20


class Newest(Struct, frozen=True):
    """Iggy's time of the newest message dispatched, microseconds since 1970."""

    time: int
    #: Whether that is the message just before the position; not after the log was truncated.
    exact: bool


class Assignments:
    """Owners, limits and gaps of all partitions. Its methods return the answers to ingest."""

    def __init__(self, ledger: Ledger, topics: Subscriptions, until: Until,
                 suspects: Callable[[wire.Partition], list[wire.Suspect]] = lambda partition: []) -> None:
        """`suspects` returns those of a partition: batches are cut at their edges."""
        self._suspects = suspects
        self._ledger = ledger
        self._topics = topics
        self._until = until
        #: The ingest process that reads a partition.
        self.owners: dict[wire.Partition, str] = {}
        #: Offsets to store where the stored one is beyond the end of the log; -1: remove it.
        self.rewinds: dict[wire.Partition, int] = {}
        #: Partitions that are released to another member of the group once their offsets are stored: since when,
        #: seconds, monotonic.
        self.revoking: dict[wire.Partition, float] = {}
        self.gaps: deque[wire.GapStatus] = deque(maxlen=GAPS_KEPT)
        self.missed = self.truncations = 0
        self._newest: dict[wire.Partition, Newest] = {}
        self._limits: dict[wire.Partition, int] = {}

    def assign(self, name: str, ingest: int) -> wire.Assign:
        """The message for a new ingest process. It has lost its membership of groups, so it gets no positions there."""
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
        """Ingest `name` starts to read partitions."""
        positions = []
        for start in message.partitions:
            partition = start.partition
            if self._ledger.knows(partition):
                self.drop(partition)
            self.owners[partition] = name
            if self._until:
                self._limits.setdefault(partition, start.end)
            self._ledger.start(partition, start.offset, self._storable(partition, start.offset, start.stored))
            positions.append(self._position(partition, start.offset))
        return wire.Seek(message.epoch, positions)

    def truncate(self, name: str, message: wire.Truncated) -> wire.Seek:
        """The log of a partition was truncated. Ignored unless the sender owns the partition."""
        partition = message.partition
        if self.owners.get(partition) != name:
            return wire.Seek(message.epoch, [])
        self.truncations += 1
        offset = self._ledger.truncate(partition, message.offset, message.stored)
        self._storable(partition, offset, message.stored)
        self._newest[partition] = Newest(self._newest.get(partition, Newest(0, False)).time, False)
        if partition in self._limits:
            self._limits[partition] = min(self._limits[partition], message.end)
        return wire.Seek(message.epoch, [self._position(partition, offset)])

    def _storable(self, partition: wire.Partition, offset: int, stored: int) -> int:
        """The stored offset, or the one before the position if that is lower: the stored one is then to be set back.

        0 is kept; `stages.ingest.log_identity.stored_position` has the reason.
        """
        self.rewinds.pop(partition, None)
        if stored < offset or stored == 0:
            return stored
        self.rewinds[partition] = offset - 1
        return offset - 1

    def dispatched(self, message: wire.Dispatched) -> None:
        """A batch was dispatched."""
        self._newest[message.range.partition] = Newest(message.time, True)

    def gap(self, message: wire.Gap) -> None:
        """Messages were deleted from the log before they were read."""
        subscription = self._topics[message.partition.topic]
        self.missed += message.last - message.first + 1
        self.gaps.append(wire.GapStatus(subscription.stream, subscription.topic, message.partition.number,
                                        message.first, message.last))

    def revoke(self, name: str, message: wire.Revoked, now: float) -> None:
        """Releases partitions of ingest to another member: at once, or once what is in flight is stored.

        Ignored for a partition that another ingest process has reported as its own since: after a restart of Iggy the
        first to reconnect gets all partitions, before the others notice their loss.
        """
        for partition in message.partitions:
            if self.owners.get(partition) != name:
                continue
            if message.at_once:
                self.drop(partition)
            else:
                self.revoking[partition] = now

    def not_owned(self, name: str, read: list[wire.Partition]) -> list[wire.Partition]:
        """Partitions that `name` reads but does not own. Happens when reports of two members arrive out of order."""
        return [partition for partition in read if self.owners.get(partition) != name]

    def drop(self, partition: wire.Partition) -> None:
        """Forgets a partition, which another member of the group reads now."""
        self._ledger.drop(partition)
        for table in (self.owners, self.rewinds, self.revoking):
            table.pop(partition, None)
