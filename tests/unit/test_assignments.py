"""What the coordinator answers ingest about partitions: positions, stored offsets that go back, limits, hand-overs."""

import pytest

from pipeline.config.plan import Until
from pipeline.config.schema import Config, Subscription
from pipeline.coordinator.assignments import Assignments
from pipeline.coordinator.ledger import Ledger
from pipeline.subscriptions import Subscriptions
from pipeline.wire import sink as wire
from pipeline.wire.sink import Partition, PartitionStart, Position, Range

EPOCH = 3
SINGLE, GROUP = Partition(0, 1), Partition(1, 1)


class Topics(Subscriptions):
    """One topic that is read alone, and one that a group reads."""

    def __init__(self) -> None:
        super().__init__(Config())
        self._known = {0: Subscription(0, "s", "single", "earliest", "me"),
                       1: Subscription(0, "s", "group", "earliest", "us", group=True)}


def some(until: Until = "") -> tuple[Ledger, Assignments]:
    """One partition of each topic is read, from 10 on, by "ingest"; its log ends before 100."""
    ledger = Ledger(EPOCH)
    assignments = Assignments(ledger, Topics(), until)
    assignments.start("ingest", wire.Started(EPOCH, [PartitionStart(w, 10, 9, 100) for w in (SINGLE, GROUP)]))
    return ledger, assignments


def dispatched(ledger: Ledger, assignments: Assignments, partition: Partition, first: int, last: int,
               time: int) -> Range:
    """A range is on its way."""
    range_ = Range(EPOCH, partition, first, last, last - first + 1, 10, ledger.generation(partition))
    ledger.dispatch(range_)
    assignments.dispatched(wire.Dispatched(range_, time))
    return range_


def test_a_new_ingest_goes_on_where_the_old_one_was_unless_in_a_group() -> None:
    ledger, assignments = some()
    dispatched(ledger, assignments, SINGLE, 10, 19, 777)
    dispatched(ledger, assignments, GROUP, 10, 19, 778)
    assign = assignments.assign("ingest", 0)
    assert assign.positions == [Position(SINGLE, 0, 20, 777, True)]
    assert (assign.dispatched_messages, ledger.in_flight_messages) == (20, 10)
    assert not ledger.knows(GROUP)
    assert assignments.assign("ingest-1", 1).positions == []


@pytest.mark.parametrize(("stored", "rewinds"), [(9, {}), (4, {}), (0, {}), (10, {SINGLE: 9}), (500, {SINGLE: 9})])
def test_a_stored_offset_beyond_the_position_has_to_go_back(stored: int, rewinds: dict[Partition, int]) -> None:
    ledger = Ledger(EPOCH)
    assignments = Assignments(ledger, Topics(), "")
    assignments.start("ingest", wire.Started(EPOCH, [PartitionStart(SINGLE, 10, stored, 10)]))
    assert assignments.rewinds == rewinds
    assert ledger.storable() == []


def test_after_a_truncation_reading_goes_on_in_the_new_log() -> None:
    ledger, assignments = some()
    old = dispatched(ledger, assignments, SINGLE, 10, 19, 777)
    ledger.settle(old)
    ledger.stored(SINGLE, 19)
    seek = assignments.truncate("ingest", wire.Truncated(EPOCH, SINGLE, 15, 19, 60))
    assert seek.positions == [Position(SINGLE, 1, 15, 777, False)]
    assert assignments.rewinds == {SINGLE: 14}
    assert assignments.truncations == 1
    assert not ledger.settle(Range(EPOCH, SINGLE, 15, 19, 5, 10, 0))


def test_when_all_was_lost_nothing_stays_stored() -> None:
    _, assignments = some()
    assert assignments.truncate("ingest", wire.Truncated(EPOCH, SINGLE, 0, 9, 60)).positions[0].offset == 0
    assert assignments.rewinds == {SINGLE: -1}
    assignments.truncate("ingest", wire.Truncated(EPOCH, SINGLE, 0, 0, 60))
    assert assignments.rewinds == {}


def test_a_partition_that_comes_back_while_it_is_handed_over_begins_anew() -> None:
    ledger, assignments = some()
    range_ = dispatched(ledger, assignments, GROUP, 10, 19, 777)
    assignments.revoke("ingest", wire.Revoked(EPOCH, [GROUP]), 5.0)
    assert assignments.revoking == {GROUP: 5.0} and ledger.knows(GROUP)
    seek = assignments.start("ingest", wire.Started(EPOCH, [PartitionStart(GROUP, 10, 9, 100)]))
    assert [(p.generation, p.offset) for p in seek.positions] == [(1, 10)]
    assert assignments.revoking == {} and not ledger.settle(range_)
    assignments.revoke("ingest", wire.Revoked(EPOCH, [GROUP], at_once=True), 6.0)
    assert not ledger.knows(GROUP) and GROUP not in assignments.owners


def test_what_was_taken_from_an_ingest_is_not_its_to_give_up_or_cut_off() -> None:
    ledger, assignments = some()
    assignments.start("other", wire.Started(EPOCH, [PartitionStart(GROUP, 10, 9, 100)]))
    range_ = dispatched(ledger, assignments, GROUP, 10, 19, 777)
    for at_once in (False, True):
        assignments.revoke("ingest", wire.Revoked(EPOCH, [GROUP], at_once), 6.0)
    assert assignments.truncate("ingest", wire.Truncated(EPOCH, GROUP, 5, 4, 5)).positions == []
    assert assignments.owners[GROUP] == "other" and assignments.revoking == {}
    assert assignments.not_owned("ingest", [SINGLE, GROUP]) == [GROUP]
    assert assignments.not_owned("other", [GROUP]) == []
    assert ledger.settle(range_) and ledger.storable() == [(GROUP, 19)]


def test_the_end_at_the_start_stays_the_limit() -> None:
    ledger, assignments = some("caught-up")
    again = assignments.start("ingest", wire.Started(EPOCH, [PartitionStart(SINGLE, 10, 9, 150)]))
    assert again.positions[0].limit == 100
    assert assignments.truncate("ingest", wire.Truncated(EPOCH, SINGLE, 8, 9, 60)).positions[0].limit == 60
    ledger, assignments = some("once")
    assert assignments.assign("ingest", 0).positions[0].limit == 100
    dispatched(ledger, assignments, SINGLE, 10, 19, 777)
    assert assignments.assign("ingest", 0).positions[0].limit == 20


def test_gaps_are_counted_and_the_newest_kept() -> None:
    _, assignments = some()
    for first in range(0, 300, 10):
        assignments.gap(wire.Gap(EPOCH, SINGLE, first, first + 4))
    assert assignments.missed == 150
    assert len(assignments.gaps) == 20
    assert (assignments.gaps[-1].topic, assignments.gaps[-1].first, assignments.gaps[-1].last) == ("single", 290, 294)
