"""Whatever messages kill processes, each is cornered after a bounded number of deaths, and no other one is."""

import itertools
import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pipeline.coordinator.ledger import Ledger
from pipeline.coordinator.quarantine import EXCUSED_IN_A_ROW, LEAST_DEATHS, PARTS, Quarantine
from pipeline.wire.sink import Partition, Range, Suspect

PARTITION = Partition(0, 3)


def a_range(first: int, last: int, epoch: int = 1) -> Range:
    """A batch of contiguous messages."""
    return Range(epoch, PARTITION, first, last, last - first + 1, 100 * (last - first + 1))


def corner(quarantine: Quarantine, ledger: Ledger, poisons: set[int], most: int | None = None) -> tuple[int, int]:
    """Deals with all that is open in a ledger: each range with a poison kills. Returns deaths, and those excused."""
    deaths = excused = 0
    while ranges := ledger.unsettled():
        for range_ in ranges:
            if quarantine.quarantined(range_) is None and poisons & set(range(range_.first, range_.last + 1)):
                if deaths == most:
                    return deaths, excused
                deaths += 1
                verdict = quarantine.died(range_, "signal SIGSEGV")
                excused += verdict.excused
                ledger.split(range_, verdict.parts)
            else:
                ledger.settle(range_)
                quarantine.settled()
    return deaths, excused


def a_range_of(partition: int, messages: int) -> Range:
    """All messages of a partition as one batch."""
    return Range(1, Partition(0, partition), 0, messages - 1, messages, 100 * messages)


def deaths_for(messages: int) -> int:
    """Deaths that it takes to corner one of so many, at most."""
    return max(LEAST_DEATHS, math.ceil(math.log(messages, PARTS) - 1e-9) + 1)


def test_5_000_messages_are_cornered_in_four_deaths_and_none_of_them_counts() -> None:
    quarantine, ledger = Quarantine(), Ledger(1)
    ledger.start(PARTITION, 0, -1)
    ledger.dispatch(a_range(0, 4_999))
    assert corner(quarantine, ledger, {3_141}) == (4, 4)
    assert [one.first for one in quarantine.suspects(PARTITION) if one.quarantined] == [3_141]


@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=3), st.data())
def test_exactly_the_poisons_are_cornered(sizes: list[int], data: st.DataObject) -> None:
    poisons = data.draw(st.sets(st.integers(0, sum(sizes) - 1), max_size=5))
    quarantine, ledger = Quarantine(), Ledger(1)
    ledger.start(PARTITION, 0, -1)
    at = 0
    for size in sizes:
        ledger.dispatch(a_range(at, at + size - 1))
        at += size
    deaths, _ = corner(quarantine, ledger, poisons)
    assert {one.first for one in quarantine.suspects(PARTITION) if one.quarantined} == poisons
    assert all(one.first == one.last for one in quarantine.suspects(PARTITION) if one.quarantined)
    assert deaths <= sum(deaths_for(max(sizes)) for _ in poisons)
    assert dict(ledger.storable()) == {PARTITION: at - 1}


@given(st.integers(2, 5_000), st.integers(2, 700), st.integers(0, 5), st.data())
def test_a_new_coordinator_goes_on_where_the_old_one_was(size: int, other_size: int, before: int,
                                                         data: st.DataObject) -> None:
    poison = data.draw(st.integers(0, size - 1))
    quarantine, ledger = Quarantine(), Ledger(1)
    ledger.start(PARTITION, 0, -1)
    ledger.dispatch(a_range(0, size - 1))
    deaths, _ = corner(quarantine, ledger, {poison}, most=before)
    kept = msgspec.json.decode(msgspec.json.encode(quarantine.all()), type=list[tuple[Partition, Suspect]])
    quarantine, ledger = Quarantine(kept), Ledger(2)
    ledger.start(PARTITION, 0, -1)
    # Ingest cuts other batches, but at the edges of the suspects.
    edges = {edge for one in quarantine.suspects(PARTITION) for edge in (one.first, one.last + 1)}
    bounds = sorted({0, size, *range(0, size, other_size), *(edge for edge in edges if edge < size)})
    for first, after in itertools.pairwise(bounds):
        ledger.dispatch(a_range(first, after - 1, 2))
    more, _ = corner(quarantine, ledger, {poison})
    assert deaths + more <= deaths_for(size) + 1
    assert [one.first for one in quarantine.suspects(PARTITION) if one.quarantined] == [poison]
    assert quarantine.committed(PARTITION, size - 1) and not quarantine.all()


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=12))
def test_suspects_are_disjoint_and_cover_what_died(deaths: list[tuple[int, int]]) -> None:
    quarantine = Quarantine()
    for first, length in deaths:
        verdict = quarantine.died(a_range(first, first + length), "")
        suspects = quarantine.suspects(PARTITION)
        assert all(one.last < after.first for one, after in itertools.pairwise(suspects))
        covered = {offset for one in suspects for offset in range(one.first, one.last + 1)}
        assert covered >= set(range(first, first + length + 1))
        assert [offset for part in verdict.parts for offset in range(part[0], part[1] + 1)] == list(
            range(first, first + length + 1))
        assert {edge for part in verdict.parts for edge in part} <= covered


def test_where_nothing_gets_through_the_process_is_to_blame() -> None:
    quarantine, ledger = Quarantine(), Ledger(1)
    ledger.start(PARTITION, 0, -1)
    ledger.dispatch(a_range(0, 4_999))
    excused = 0
    for deaths in range(1, 100):
        range_ = next(one for one in ledger.unsettled() if quarantine.quarantined(one) is None)
        verdict = quarantine.died(range_, "signal SIGILL")
        excused += verdict.excused
        ledger.split(range_, verdict.parts)
        if deaths - excused > 10:
            break
    assert deaths - excused > 10 and deaths <= 2 * EXCUSED_IN_A_ROW + 10
    assert sum(one.quarantined for one in quarantine.suspects(PARTITION)) < EXCUSED_IN_A_ROW


def test_one_that_gives_up_a_message_alone_quarantines_it_at_once() -> None:
    quarantine = Quarantine()
    assert quarantine.gave_up(a_range(0, 99), "too much").parts == [(at, at + 4) for at in range(0, 100, 5)]
    verdict = quarantine.gave_up(a_range(7, 7), "KeyError")
    assert verdict.quarantined == Suspect(7, 7, 0, "KeyError", quarantined=True) and verdict.excused == 0


def test_what_the_log_has_lost_is_forgotten() -> None:
    quarantine = Quarantine()
    quarantine.died(a_range(0, 39), "")
    assert quarantine.truncated(PARTITION, 21) and quarantine.suspects(PARTITION)[-1].last == 19
    assert not quarantine.committed(Partition(1, 1), 100)


@given(st.lists(st.integers(1, 400), min_size=2, max_size=60), st.data())
def test_a_poison_in_a_body_of_several_ranges_is_cornered_and_every_death_excused(
        sizes: list[int], data: st.DataObject) -> None:
    quarantine, ledger = Quarantine(), Ledger(1)
    ranges = [a_range_of(number, size) for number, size in enumerate(sizes)]
    for range_ in ranges:
        ledger.start(range_.partition, 0, -1)
        ledger.dispatch(range_)
    bad = data.draw(st.integers(0, len(sizes) - 1))
    poison = data.draw(st.integers(0, sizes[bad] - 1))
    excused = quarantine.died_of_one(ranges, "signal SIGSEGV")
    assert excused == 0, "one death proves little"
    assert all(quarantine.is_suspect(range_) for range_ in ranges)
    deaths = 1
    while unsettled := ledger.unsettled():
        for range_ in unsettled:
            is_bad = range_.partition.number == bad and range_.first <= poison <= range_.last
            if is_bad and quarantine.quarantined(range_) is None:
                deaths += 1
                verdict = quarantine.died(range_, "signal SIGSEGV")
                excused += verdict.excused
                ledger.split(range_, verdict.parts)
            else:
                ledger.settle(range_)
                quarantine.settled()
    assert [(partition.number, one.first) for partition, one in quarantine.all() if one.quarantined] == [(bad, poison)]
    assert deaths == excused <= deaths_for(sizes[bad]) + 1
