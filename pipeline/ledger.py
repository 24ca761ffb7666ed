"""What has been dispatched, what is settled, and so which offset may be stored. Pure: no sockets, no clock.

One rule: the offset that may be stored for a partition is the last offset of the contiguous prefix of its
dispatched ranges that are settled (written, or rejected and recorded).
"""

from collections import OrderedDict

from pipeline.wire import Partition, Range


class _Entry:
    """One dispatched range: whether it is settled, and when it was last sent."""

    __slots__ = ("range", "sent_at", "settled")

    def __init__(self, range_: Range, sent_at: float) -> None:
        self.range = range_
        self.sent_at = sent_at
        self.settled = False


class Ledger:
    """The ranges of all partitions in one epoch. Not thread-safe; the coordinator owns it.

    Ranges of a partition are dispatched in the order of their offsets; gaps between them (messages that the log no
    longer has) are allowed. A range may be settled before its dispatch is heard of, and more than once.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.in_flight_messages = 0
        self.in_flight_bytes = 0
        #: Totals since the epoch began.
        self.dispatched_messages = 0
        self.dispatched_bytes = 0
        self._open: dict[Partition, OrderedDict[int, _Entry]] = {}
        self._early: dict[Partition, set[int]] = {}
        #: Last offset dispatched, by partition.
        self._end: dict[Partition, int] = {}
        #: Last offset of the settled prefix, by partition.
        self._prefix: dict[Partition, int] = {}
        #: Last offset stored in Iggy, by partition.
        self._stored: dict[Partition, int] = {}

    def start(self, where: Partition, position: int, stored: int) -> None:
        """Records where reading of a partition begins, and what is stored in Iggy (-1: nothing). Once per partition."""
        if where not in self._end:
            self._end[where] = position - 1
            self._stored[where] = stored

    def dispatch(self, range_: Range, now: float = 0.0) -> None:
        """Records that a range is about to be sent. Ranges of another epoch and repeated ones are ignored."""
        if range_.epoch != self.epoch or range_.first <= self._end.get(range_.where, -1):
            return
        entry = _Entry(range_, now)
        self._open.setdefault(range_.where, OrderedDict())[range_.first] = entry
        self._end[range_.where] = range_.last
        self.in_flight_messages += range_.messages
        self.in_flight_bytes += range_.bytes
        self.dispatched_messages += range_.messages
        self.dispatched_bytes += range_.bytes
        early = self._early.get(range_.where)
        if early and range_.first in early:
            early.discard(range_.first)
            self._settle_entry(entry)

    def settle(self, range_: Range) -> bool:
        """Marks a range as dealt with. True the first time; False for a repeated or stale one."""
        if range_.epoch != self.epoch:
            return False
        if range_.first > self._end.get(range_.where, -1):
            early = self._early.setdefault(range_.where, set())
            new = range_.first not in early
            early.add(range_.first)
            return new
        entry = self._entry(range_)
        if entry is None or entry.settled:
            return False
        self._settle_entry(entry)
        return True

    def _entry(self, range_: Range) -> _Entry | None:
        entries = self._open.get(range_.where)
        return entries.get(range_.first) if entries else None

    def _settle_entry(self, entry: _Entry) -> None:
        where = entry.range.where
        entry.settled = True
        self.in_flight_messages -= entry.range.messages
        self.in_flight_bytes -= entry.range.bytes
        entries = self._open[where]
        while entries:
            first, oldest = next(iter(entries.items()))
            if not oldest.settled:
                break
            self._prefix[where] = oldest.range.last
            del entries[first]

    def is_settled(self, range_: Range) -> bool:
        """Whether a range of this epoch is known, and dealt with."""
        if range_.first > self._end.get(range_.where, -1):
            return range_.first in self._early.get(range_.where, ())
        entry = self._entry(range_)
        return entry is None or entry.settled

    def unsettled(self) -> list[Range]:
        """Every range dispatched and not settled, oldest first in each partition."""
        return [e.range for entries in self._open.values() for e in entries.values() if not e.settled]

    def overdue(self, now: float, seconds: float) -> list[Range]:
        """The unsettled ranges last sent more than `seconds` before `now`."""
        return [e.range for entries in self._open.values() for e in entries.values()
                if not e.settled and now - e.sent_at > seconds]

    def resent(self, ranges: list[Range], now: float) -> None:
        """Records that these ranges are being read again, so that they are not overdue at once."""
        for range_ in ranges:
            entry = self._entry(range_)
            if entry is not None:
                entry.sent_at = now

    def storable(self) -> list[tuple[Partition, int]]:
        """(partition, offset) for each partition whose settled prefix is beyond what is stored in Iggy."""
        return [(where, last) for where, last in self._prefix.items() if last > self._stored.get(where, -1)]

    def stored(self, where: Partition, offset: int) -> None:
        """Records that Iggy has confirmed an offset. Never moves back."""
        self._stored[where] = max(offset, self._stored.get(where, -1))

    def positions(self) -> list[tuple[Partition, int]]:
        """(partition, next offset to dispatch) of each partition started in this epoch."""
        return [(where, last + 1) for where, last in self._end.items()]

    def committed(self, where: Partition) -> int:
        """Last offset stored in Iggy in this epoch, or -1."""
        return self._stored.get(where, -1)

    def dispatched_end(self, where: Partition) -> int:
        """Last offset dispatched in this epoch, or -1."""
        return self._end.get(where, -1)

    @property
    def idle(self) -> bool:
        """True when nothing is in flight and every settled offset is stored."""
        return self.in_flight_messages == 0 and not self.storable()
