"""The ledger under any order of events: never stores past an unsettled message, never stalls."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from pipeline.ledger import Ledger
from pipeline.wire import Partition, Range

PARTITIONS = [Partition(0, 0), Partition(0, 1), Partition(1, 0)]
EPOCH = 7


class LedgerMachine(RuleBasedStateMachine):
    """Dispatches, settles in any order (also early, twice, stale), stores; compares with a plain model."""

    ranges = Bundle("ranges")

    @initialize()
    def begin(self) -> None:
        """An empty ledger and an empty model."""
        self.ledger = Ledger(EPOCH)
        self.next = dict.fromkeys(PARTITIONS, 0)
        self.dispatched: dict[Partition, list[Range]] = {where: [] for where in PARTITIONS}
        self.settled: set[Range] = set()
        self.now = 0.0

    def _new_range(self, where: Partition, gap: int, messages: int) -> Range:
        first = self.next[where] + gap
        self.next[where] = first + messages
        range_ = Range(EPOCH, where, first, first + messages - 1, messages, messages * 10)
        self.dispatched[where].append(range_)
        return range_

    @rule(target=ranges, where=st.sampled_from(PARTITIONS), gap=st.integers(0, 3), messages=st.integers(1, 5))
    def dispatch(self, where: Partition, gap: int, messages: int) -> Range:
        """Ingest dispatches the next range of a partition, perhaps after a gap in the log."""
        range_ = self._new_range(where, gap, messages)
        self.ledger.dispatch(range_, self.now)
        return range_

    @rule(where=st.sampled_from(PARTITIONS), messages=st.integers(1, 5))
    def settled_before_dispatch_is_heard(self, where: Partition, messages: int) -> None:
        """The writer's word overtakes that of ingest."""
        range_ = self._new_range(where, 0, messages)
        self.ledger.settle(range_)
        self.ledger.dispatch(range_, self.now)
        self.settled.add(range_)

    @rule(range_=ranges)
    def settle(self, range_: Range) -> None:
        """A range is settled, perhaps once more (it was read again)."""
        assert self.ledger.settle(range_) == (range_ not in self.settled)
        self.settled.add(range_)

    @rule(range_=ranges)
    def dispatch_again(self, range_: Range) -> None:
        """A repeated dispatch changes nothing."""
        before = self.ledger.in_flight_messages
        self.ledger.dispatch(range_, self.now)
        assert self.ledger.in_flight_messages == before

    @rule(range_=ranges)
    def settle_of_another_epoch(self, range_: Range) -> None:
        """What an earlier coordinator's batches come to is ignored."""
        assert not self.ledger.settle(Range(EPOCH - 1, *[getattr(range_, f) for f in range_.__struct_fields__[1:]]))

    @rule()
    def store(self) -> None:
        """Iggy confirms what may be stored."""
        for where, offset in self.ledger.storable():
            assert offset > self.ledger.committed(where)
            self.ledger.stored(where, offset)

    @rule(target=ranges, range_=consumes(ranges))
    def worker_dies(self, range_: Range) -> object:
        """Exactly the unsettled ranges are to be read again, and are then not overdue."""
        expected = [r for rs in self.dispatched.values() for r in rs if r not in self.settled]
        assert sorted(self.ledger.unsettled(), key=str) == sorted(expected, key=str)
        self.now += 100
        assert len(self.ledger.overdue(self.now, 60)) == len(expected)
        self.ledger.resent(expected, self.now)
        assert not self.ledger.overdue(self.now, 60)
        return multiple(range_)

    @invariant()
    def stores_exactly_the_settled_prefix(self) -> None:
        """What is storable or stored is the end of the settled prefix, neither more nor less."""
        storable = dict(self.ledger.storable())
        for where, ranges in self.dispatched.items():
            prefix = -1
            for range_ in ranges:
                if range_ not in self.settled:
                    break
                prefix = range_.last
            assert max(storable.get(where, -1), self.ledger.committed(where)) == prefix

    @invariant()
    def counts_what_is_in_flight(self) -> None:
        """The window is computed from these."""
        open_ = [r for rs in self.dispatched.values() for r in rs if r not in self.settled]
        assert self.ledger.in_flight_messages == sum(r.messages for r in open_)
        assert self.ledger.in_flight_bytes == sum(r.bytes for r in open_)
        assert self.ledger.idle == (not open_ and not self.ledger.storable())


TestLedger = LedgerMachine.TestCase
