"""The ledger under any order of events: never stores past an unsettled message, never stalls.

The model knows, of every message of every incarnation of a log, whether it is dealt with. What the ledger may store is
judged by that alone.
"""

import itertools
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.coordinator.ledger import Ledger
from pipeline.wire.sink import Partition, Range

PARTITIONS = [Partition(0, 0), Partition(0, 1), Partition(1, 0)]
EPOCH = 7


@dataclass
class Log:
    """What the model knows of one partition."""

    #: Incarnation, as the ledger counts.
    number: int = 0
    #: First offset that is ours, and the next to dispatch.
    begin: int = 0
    next: int = 0
    #: Ranges that count, in the order of their offsets.
    ranges: list[Range] = field(default_factory=list)
    #: What Iggy has stored.
    stored: int = -1
    #: Whether we read the partition.
    ours: bool = True


class LedgerMachine(RuleBasedStateMachine):
    """Dispatches, settles in any order (also early, twice, stale), stores, loses logs and partitions."""

    ranges = Bundle("ranges")

    @initialize()
    def begin(self) -> None:
        """An empty ledger and an empty model."""
        self.ledger = Ledger(EPOCH)
        self.logs = {partition: Log() for partition in PARTITIONS}
        #: Of ranges that were ever dispatched.
        self.settled: set[Range] = set()
        #: Of those that ever were.
        self.counted: set[Range] = set()
        self.now = 0.0
        for partition in PARTITIONS:
            self.ledger.start(partition, 0, -1)

    def _open(self) -> list[Range]:
        return [r for log in self.logs.values() for r in log.ranges if r not in self.settled]

    def _new_range(self, partition: Partition, gap: int, messages: int) -> Range:
        log = self.logs[partition]
        first = log.next + gap
        log.next = first + messages
        range_ = Range(EPOCH, partition, first, first + messages - 1, messages, messages * 10, log.number,
                       partition.number)
        if log.ours:
            log.ranges.append(range_)
        return range_

    @rule(target=ranges, partition=st.sampled_from(PARTITIONS), gap=st.integers(0, 3), messages=st.integers(1, 5))
    def dispatch(self, partition: Partition, gap: int, messages: int) -> Range:
        """Ingest dispatches the next range of a partition, perhaps after a gap in the log."""
        if not self.logs[partition].ours:
            return Range(EPOCH - 1, partition, 0, 0, 1, 1)
        range_ = self._new_range(partition, gap, messages)
        self.ledger.dispatch(range_, self.now)
        return range_

    @rule(target=ranges, partition=st.sampled_from(PARTITIONS), messages=st.integers(1, 5))
    def settled_before_dispatch_is_heard(self, partition: Partition, messages: int) -> Range:
        """The writer's word overtakes that of ingest."""
        if not self.logs[partition].ours:
            return Range(EPOCH - 1, partition, 0, 0, 1, 1)
        range_ = self._new_range(partition, 0, messages)
        self.ledger.settle(range_)
        self.ledger.dispatch(range_, self.now)
        self._note(range_)
        return range_

    def _note(self, range_: Range) -> None:
        self.settled.add(range_)
        self.counted.add(range_)

    @rule(range_=ranges)
    def settle(self, range_: Range) -> None:
        """A range is settled, perhaps once more (it was read again), perhaps one of a log that is no more."""
        counts = range_ in self.logs[range_.partition].ranges
        assert self.ledger.settle(range_) == (counts and range_ not in self.counted)
        if counts:
            self._note(range_)

    @rule(partition=st.sampled_from(PARTITIONS), sent=st.integers(1, 5), messages=st.integers(1, 5), late=st.booleans())
    def ingest_dies_between_a_batch_and_the_word_of_it(self, partition: Partition, sent: int, messages: int,
                                                       late: bool) -> None:
        """What the dead one's batch comes to says nothing of its successor's, which begins at the same offset."""
        log = self.logs[partition]
        if not log.ours or sent == messages:
            return
        orphan = Range(EPOCH, partition, log.next, log.next + sent - 1, sent, sent * 10, log.number, partition.number)
        if not late:
            self.ledger.settle(orphan)
        range_ = self._new_range(partition, 0, messages)
        self.ledger.dispatch(range_, self.now)
        if late:
            assert not self.ledger.settle(orphan)

    @rule(range_=ranges)
    def dispatch_again(self, range_: Range) -> None:
        """A repeated dispatch, or one of a log that is no more, changes nothing."""
        before = self.ledger.in_flight_messages, self.ledger.positions()
        self.ledger.dispatch(range_, self.now)
        assert (self.ledger.in_flight_messages, self.ledger.positions()) == before

    @rule(range_=ranges)
    def settle_of_another_epoch(self, range_: Range) -> None:
        """What an earlier coordinator's batches come to is ignored."""
        assert not self.ledger.settle(Range(EPOCH - 1, *[getattr(range_, f) for f in range_.__struct_fields__[1:]]))

    @rule(fails=st.booleans())
    def store(self, fails: bool) -> None:
        """Iggy confirms what may be stored, or does not; then it stays to be stored."""
        storable = self.ledger.storable()
        for partition, offset in storable:
            assert offset > self.ledger.committed(partition)
            if not fails:
                self.ledger.stored(partition, offset)
                self.logs[partition].stored = offset
        assert self.ledger.storable() == (storable if fails else [])

    @rule()
    def worker_dies(self) -> None:
        """Exactly the unsettled ranges are to be read again, and are then not overdue."""
        expected = self._open()
        assert sorted(self.ledger.unsettled(), key=str) == sorted(expected, key=str)
        self.now += 100
        assert len(self.ledger.overdue(self.now, 60)) == len(expected)
        self.ledger.resent(expected, self.now)
        assert not self.ledger.overdue(self.now, 60)

    @rule(data=st.data())
    def read_again_in_part(self, data: st.DataObject) -> None:
        """Two re-reads that overlap: each range is settled by whichever comes first."""
        for range_ in data.draw(st.lists(st.sampled_from(self._open()), max_size=5)) if self._open() else []:
            assert self.ledger.settle(range_) == (range_ not in self.counted)
            self._note(range_)

    @precondition(lambda self: bool(self._open()))
    @rule(data=st.data())
    def reopened_with_the_later_ones(self, data: st.DataObject) -> None:
        """What may be lost is read again with all that is later in its partition."""
        lost = data.draw(st.lists(st.sampled_from(self._open()), min_size=1, max_size=3))
        expected = [r for log in self.logs.values() for r in log.ranges
                    if any(r.partition == one.partition and r.first >= one.first for one in lost)]
        assert sorted(self.ledger.reopen(lost), key=str) == sorted(expected, key=str)
        self.settled -= set(expected)

    @precondition(lambda self: bool(self._open()))
    @rule(data=st.data())
    def a_suspect_range_is_split(self, data: st.DataObject) -> None:
        """Its parts take its place: together they are what it was, and its own end says nothing any more."""
        whole = data.draw(st.sampled_from(self._open()))
        edges = data.draw(st.sets(st.integers(whole.first, whole.last), max_size=3))
        bounds = sorted({whole.first, *edges, whole.last + 1})
        parts = self.ledger.split(whole, [(first, after - 1) for first, after in itertools.pairwise(bounds)])
        assert [part.first for part in parts] == bounds[:-1] and [part.last + 1 for part in parts] == bounds[1:]
        assert sum(part.messages for part in parts) == whole.messages
        assert sum(part.bytes for part in parts) == whole.bytes
        if len(parts) > 1:
            assert not self.ledger.settle(whole)
        ranges = self.logs[whole.partition].ranges
        at = ranges.index(whole)
        ranges[at:at + 1] = parts
        if whole in self.counted:
            self.counted.update(parts)

    @rule(partition=st.sampled_from(PARTITIONS), data=st.data(), server_cuts=st.booleans())
    def log_is_cut_off(self, partition: Partition, data: st.DataObject, server_cuts: bool) -> None:
        """A crash of the server; it may have cut the stored offset down, or not."""
        log = self.logs[partition]
        if not log.ours:
            return
        position = data.draw(st.integers(0, log.next), "position")
        stored = min(log.stored, position - 1) if server_cuts else log.stored
        resumed = self.ledger.truncate(partition, position, stored)
        straddling = [r.first for r in log.ranges if r.first < position <= r.last and not self._in_prefix(r)]
        assert resumed == min([position, *straddling])
        log.ranges = [r for r in log.ranges if r.last < resumed]
        log.number += 1
        log.next, log.begin, log.stored = resumed, min(log.begin, resumed), min(stored, resumed - 1)
        assert self.ledger.generation(partition) == log.number

    def _in_prefix(self, range_: Range) -> bool:
        """Whether a range and all before it are settled: the ledger keeps no entry of it."""
        ranges = self.logs[range_.partition].ranges
        return all(r in self.settled for r in ranges[:ranges.index(range_) + 1])

    @rule(partition=st.sampled_from(PARTITIONS))
    def partition_goes_to_another(self, partition: Partition) -> None:
        """A rebalance takes a partition away."""
        log = self.logs[partition]
        if log.ours:
            self.ledger.drop(partition)
            self.logs[partition] = Log(number=log.number + 1, stored=log.stored, ours=False)

    @precondition(lambda self: not all(log.ours for log in self.logs.values()))
    @rule(data=st.data(), progress=st.integers(0, 20))
    def partition_comes_back(self, data: st.DataObject, progress: int) -> None:
        """A rebalance gives a partition, which another has read further: it begins at the stored offset."""
        partition = data.draw(st.sampled_from([partition for partition, log in self.logs.items() if not log.ours]))
        stored = self.logs[partition].stored + progress
        self.ledger.start(partition, stored + 1, stored)
        self.logs[partition] = Log(self.logs[partition].number, stored + 1, stored + 1, [], stored)

    @rule(partition=st.sampled_from(PARTITIONS))
    def everything_is_settled_at_last(self, partition: Partition) -> None:
        """When all of a partition is acked, all of it may be stored: nothing stalls."""
        log = self.logs[partition]
        for range_ in log.ranges:
            self.ledger.settle(range_)
            self._note(range_)
        if log.ranges:
            end = log.ranges[-1].last
            assert max(dict(self.ledger.storable()).get(partition, -1), self.ledger.committed(partition)) >= end
        for stored, offset in self.ledger.storable():
            self.ledger.stored(stored, offset)
            self.logs[stored].stored = offset
        assert self.ledger.idle_in(partition)

    @invariant()
    def stores_exactly_the_settled_prefix(self) -> None:
        """What is storable or stored is never past an unsettled message, and always all of the settled prefix."""
        storable = dict(self.ledger.storable())
        for partition, log in self.logs.items():
            if not log.ours:
                assert partition not in storable
                continue
            frontier = max(storable.get(partition, -1), self.ledger.committed(partition))
            unsettled = [r.first for r in log.ranges if r not in self.settled]
            assert all(frontier < first for first in unsettled)
            prefix = -1
            for range_ in log.ranges:
                if range_ not in self.settled:
                    break
                prefix = range_.last
            assert frontier >= prefix
            assert frontier < log.next

    @invariant()
    def counts_what_is_in_flight(self) -> None:
        """The window is computed from these."""
        open_ = self._open()
        assert self.ledger.in_flight_messages == sum(r.messages for r in open_)
        assert self.ledger.in_flight_bytes == sum(r.bytes for r in open_)
        for ingest in (0, 1):
            assert self.ledger.load(ingest).in_flight_messages == sum(r.messages for r in open_ if r.ingest == ingest)
        assert self.ledger.idle == (not open_ and not self.ledger.storable())
        for partition, log in self.logs.items():
            assert self.ledger.knows(partition) == log.ours
            if log.ours:
                assert dict(self.ledger.positions())[partition] == log.next


TestLedger = LedgerMachine.TestCase
