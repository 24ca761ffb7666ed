"""Which ranges are dispatched and settled, and so which offset may be committed. Pure: no sockets, no clock.

One rule: the offset that may be stored for a partition is the last offset of the contiguous prefix of its dispatched
ranges that are settled: written, or rejected with their dead letters stored.
"""

from collections import OrderedDict

from msgspec.structs import replace

from pipeline.wire.sink import Partition, Range

#: Ranges of a partition whose Settled arrived before their Dispatched, at most. Usually there are none or a few.
MAX_EARLY = 10_000


class _Entry:
    """One dispatched range: whether it is settled, was ever settled (`counted`), and when it was last sent."""

    __slots__ = ("counted", "range", "sent_at", "settled")

    def __init__(self, range_: Range, sent_at: float) -> None:
        self.range = range_
        self.sent_at = sent_at
        self.settled = self.counted = False


class Load:
    """Totals that one ingest process has dispatched in this epoch, and how much of it is in flight."""

    __slots__ = ("dispatched_bytes", "dispatched_messages", "in_flight_bytes", "in_flight_messages")

    def __init__(self) -> None:
        self.dispatched_messages = self.dispatched_bytes = self.in_flight_messages = self.in_flight_bytes = 0

    def add(self, range_: Range) -> None:
        """A range was dispatched."""
        self.dispatched_messages += range_.messages
        self.dispatched_bytes += range_.bytes
        self.in_flight_messages += range_.messages
        self.in_flight_bytes += range_.bytes

    def return_(self, range_: Range) -> None:
        """A range is in flight again."""
        self.in_flight_messages += range_.messages
        self.in_flight_bytes += range_.bytes

    def remove(self, range_: Range) -> None:
        """A range is no longer in flight."""
        self.in_flight_messages -= range_.messages
        self.in_flight_bytes -= range_.bytes


class Ledger:
    """The ranges of all partitions in one epoch. Not thread-safe; the coordinator owns it.

    Ranges of a partition are dispatched in the order of their offsets, with gaps where the log has lost messages. The
    report that a range is settled may arrive before that of its dispatch, and more than once.

    A partition's log has generations, counted from 0: offsets are used again after the log was truncated. An ingest
    process may also die after it sent a batch and before it reported the dispatch; its successor continues at the same
    offset, and may cut another batch. So a report counts only for exactly its range.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        #: By the index of the ingest process.
        self.loads: dict[int, Load] = {}
        self._open: dict[Partition, OrderedDict[int, _Entry]] = {}
        #: Ranges of the current generation whose Settled arrived before their Dispatched.
        self._early: dict[Partition, set[Range]] = {}
        #: Last offset dispatched, by partition.
        self._end: dict[Partition, int] = {}
        #: Last offset of the settled prefix, by partition.
        self._prefix: dict[Partition, int] = {}
        #: Last offset stored in Iggy, by partition.
        self._stored: dict[Partition, int] = {}
        #: Generation of the log, by partition; kept when a partition is dropped.
        self._generations: dict[Partition, int] = {}

    def start(self, partition: Partition, position: int, stored: int) -> None:
        """Records where reading of a partition starts, and the offset stored in Iggy (-1: none). Once per partition."""
        if partition not in self._end:
            self._end[partition] = position - 1
            self._stored[partition] = stored

    def truncate(self, partition: Partition, position: int, stored: int) -> int:
        """The log was truncated: messages below `position` are unchanged, all others are new.

        Forgets ranges that reach beyond, and starts a new generation. Returns where reading must continue: at
        `position`, or earlier where a range straddles it. `stored` is the offset stored in Iggy now, or -1.
        """
        entries = self._open.get(partition, OrderedDict())
        for entry in list(entries.values()):
            if entry.range.last >= position:
                position = min(position, entry.range.first)
                self._forget(entry)
        if self._prefix.get(partition, -1) >= position:
            self._prefix[partition] = position - 1
        self._end[partition] = position - 1
        self._stored[partition] = min(stored, position - 1)
        self._start_generation(partition)
        return position

    def drop(self, partition: Partition) -> None:
        """Forgets a partition, which another process reads now. Later reports about its ranges are ignored."""
        for entry in list(self._open.get(partition, {}).values()):
            self._forget(entry)
        for table in (self._open, self._end, self._prefix, self._stored):
            table.pop(partition, None)
        self._start_generation(partition)

    def _start_generation(self, partition: Partition) -> None:
        self._early.pop(partition, None)
        self._generations[partition] = self.generation(partition) + 1

    def _forget(self, entry: _Entry) -> None:
        del self._open[entry.range.partition][entry.range.first]
        if not entry.settled:
            self.loads[entry.range.ingest].remove(entry.range)

    def generation(self, partition: Partition) -> int:
        """The current generation of a partition's log."""
        return self._generations.get(partition, 0)

    def dispatch(self, range_: Range, now: float = 0.0) -> None:
        """Records that a range is about to be sent. Ignored in another epoch. A duplicate, or a range of an older
        generation, is added to the dispatched totals (ingest counted it too) but not to what is in flight."""
        partition = range_.partition
        if range_.epoch != self.epoch:
            return
        load = self.load(range_.ingest)
        load.add(range_)
        if range_.generation != self.generation(partition) or range_.first <= self._end.get(partition, -1):
            load.remove(range_)
            return
        entry = _Entry(range_, now)
        self._open.setdefault(partition, OrderedDict())[range_.first] = entry
        self._end[partition] = range_.last
        if early := self._early.pop(partition, None):
            if left := {r for r in early if r.first > range_.last}:
                self._early[partition] = left
            if range_ in early:
                self._settle_entry(entry)

    def settle(self, range_: Range) -> bool:
        """Marks a range as settled. True the first time; False for a repeated, reopened or stale one."""
        if range_.epoch != self.epoch:
            return False
        if range_.first > self._end.get(range_.partition, -1):
            if range_.generation != self.generation(range_.partition) or not self.knows(range_.partition):
                return False
            early = self._early.setdefault(range_.partition, set())
            new = range_ not in early and len(early) < MAX_EARLY
            if new:
                early.add(range_)
            return new
        entry = self._entry(range_)
        if entry is None or entry.settled:
            return False
        new = not entry.counted
        self._settle_entry(entry)
        return new

    def _entry(self, range_: Range) -> _Entry | None:
        """The entry of exactly this range, which may be of an earlier generation; None when there is none."""
        entries = self._open.get(range_.partition)
        entry = entries.get(range_.first) if entries else None
        return entry if entry is not None and entry.range == range_ else None

    def _settle_entry(self, entry: _Entry) -> None:
        partition = entry.range.partition
        entry.settled = entry.counted = True
        self.loads[entry.range.ingest].remove(entry.range)
        entries = self._open[partition]
        while entries:
            first, oldest = next(iter(entries.items()))
            if not oldest.settled:
                break
            self._prefix[partition] = oldest.range.last
            del entries[first]

    def split(self, range_: Range, parts: list[tuple[int, int]]) -> list[Range]:
        """Replaces a range by its parts, (first, last) offsets. Returns these as ranges.

        Returns none where the range is settled, or no longer tracked. Later reports about the whole range are ignored.
        """
        entry = self._entry(range_)
        if entry is None or entry.settled:
            return []
        if len(parts) < 2:
            return [range_]
        entries = self._open[range_.partition]
        ranges = divided(range_, parts)
        load = self.load(range_.ingest)
        load.remove(range_)
        for part in ranges:
            load.return_(part)
        made: OrderedDict[int, _Entry] = OrderedDict()
        for first, other in entries.items():
            if other is not entry:
                made[first] = other
                continue
            for part in ranges:
                made[part.first] = _Entry(part, entry.sent_at)
                made[part.first].counted = entry.counted
        self._open[range_.partition] = made
        return ranges

    def reopen(self, lost: list[Range]) -> list[Range]:
        """The ranges to read again when these unsettled ones may be lost: they, and all later ones of their partitions.

        Later ones that were settled are reopened, so that an older value never stays written over a newer one.
        """
        first: dict[Partition, int] = {}
        for range_ in lost:
            if self._entry(range_) is not None:
                first[range_.partition] = min(range_.first, first.get(range_.partition, range_.first))
        found = []
        for partition, begin in first.items():
            for entry in self._open[partition].values():
                if entry.range.first < begin:
                    continue
                found.append(entry.range)
                if entry.settled:
                    entry.settled = False
                    self.load(entry.range.ingest).return_(entry.range)
        return found

    def was_settled(self, range_: Range) -> bool:
        """True if the range, of this epoch, was ever settled, or is no longer tracked."""
        entry = self._entry(range_)
        return self.is_settled(range_) or entry is not None and entry.counted

    def is_settled(self, range_: Range) -> bool:
        """True if the range, of this epoch, is settled, or no longer tracked."""
        if range_.first > self._end.get(range_.partition, -1):
            return range_.generation != self.generation(range_.partition) \
                or range_ in self._early.get(range_.partition, ())
        entry = self._entry(range_)
        return entry is None or entry.settled

    def unsettled(self) -> list[Range]:
        """Every range dispatched and not settled, in the order of offsets in each partition."""
        return [e.range for entries in self._open.values() for e in entries.values() if not e.settled]

    def overdue(self, now: float, seconds: float) -> list[Range]:
        """The unsettled ranges last sent more than `seconds` before `now`."""
        return [e.range for entries in self._open.values() for e in entries.values()
                if not e.settled and now - e.sent_at > seconds]

    def resent(self, ranges: list[Range], now: float) -> None:
        """Records that these ranges are being read again, so that they are not overdue immediately."""
        for range_ in ranges:
            entry = self._entry(range_)
            if entry is not None:
                entry.sent_at = now

    def storable(self) -> list[tuple[Partition, int]]:
        """(partition, offset) for each partition whose settled prefix is beyond the offset stored in Iggy."""
        return [(partition, last) for partition, last in self._prefix.items() if last > self._stored.get(partition, -1)]

    def stored(self, partition: Partition, offset: int) -> None:
        """Records that Iggy has confirmed an offset. Never moves back."""
        self._stored[partition] = max(offset, self._stored.get(partition, -1))

    def positions(self) -> list[tuple[Partition, int]]:
        """(partition, next offset to dispatch) of each partition started in this epoch."""
        return [(partition, last + 1) for partition, last in self._end.items()]

    def knows(self, partition: Partition) -> bool:
        """Whether the partition was started, and not dropped since."""
        return partition in self._end

    def committed(self, partition: Partition) -> int:
        """Last offset stored in Iggy in this epoch, or -1."""
        return self._stored.get(partition, -1)

    def load(self, ingest: int) -> Load:
        """The totals of one ingest process."""
        return self.loads.setdefault(ingest, Load())

    @property
    def in_flight_messages(self) -> int:
        """Dispatched and not settled."""
        return sum(load.in_flight_messages for load in self.loads.values())

    @property
    def in_flight_bytes(self) -> int:
        """Dispatched and not settled, payload bytes."""
        return sum(load.in_flight_bytes for load in self.loads.values())

    @property
    def dispatched_messages(self) -> int:
        """Since the epoch began."""
        return sum(load.dispatched_messages for load in self.loads.values())

    @property
    def idle(self) -> bool:
        """True when nothing is in flight and every settled offset is stored."""
        return self.in_flight_messages == 0 and not self.storable()

    def idle_in(self, partition: Partition) -> bool:
        """True when nothing of one partition is in flight and its settled offset is stored."""
        return not self._open.get(partition) and self._prefix.get(partition, -1) <= self._stored.get(partition, -1)


def divided(range_: Range, parts: list[tuple[int, int]]) -> list[Range]:
    """A range in parts, (first, last) offsets. The messages of each part are an upper bound where the range has
    gaps."""
    ranges = []
    width, left = range_.last - range_.first + 1, range_.bytes
    for first, last in parts:
        share = left if last == range_.last else range_.bytes * (last - first + 1) // width
        left -= share
        ranges.append(replace(range_, first=first, last=last, messages=min(range_.messages, last - first + 1),
                              bytes=share))
    return ranges
