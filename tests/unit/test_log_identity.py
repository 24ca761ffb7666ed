"""Whether a log is still the one that was read, and which partitions of a group nobody reads."""

from dataclasses import dataclass

import pytest

from stages.ingest import log_identity
from stages.ingest.log_identity import LogState, Message
from stages.ingest.stalled_partitions import StalledPartitions


@dataclass(frozen=True)
class Details:
    """A partition as the client gives it."""

    current_offset: int
    messages_count: int
    created_at: int = 100


def test_an_empty_log_begins_with_0_or_goes_on_where_it_expired() -> None:
    assert log_identity.log_state(Details(0, 0)) == LogState(0, 100, True)
    assert log_identity.log_state(Details(0, 1)) == LogState(1, 100, False)
    assert log_identity.log_state(Details(41, 0)) == LogState(42, 100, True)
    assert log_identity.log_state(Details(41, 10)) == LogState(42, 100, False)


@pytest.mark.parametrize(("position", "cut_off"), [(0, False), (42, False), (43, True)])
def test_a_log_that_ends_before_the_position_was_cut_off(position: int, cut_off: bool) -> None:
    assert log_identity.is_cut_off(position, LogState(42, 100, False)) == cut_off


@pytest.mark.parametrize(("before", "another"), [
    (Message(9, 500), False), (Message(9, 501), True), (Message(12, 700), False), (None, False)])
def test_another_log_is_known_by_the_message_before_the_position(before: Message | None,
                                                                                 another: bool) -> None:
    assert log_identity.is_another_log(10, 500, before) == another
    assert not log_identity.is_another_log(10, 0, before)


def test_a_partition_is_made_again_only_when_no_message_in_it_is_older() -> None:
    assert not log_identity.seems_recreated(0, LogState(1, 100, False))
    assert not log_identity.seems_recreated(100, LogState(1, 100, False))
    assert log_identity.seems_recreated(99, LogState(1, 100, False))
    assert log_identity.was_recreated(LogState(0, 100, True), None)
    assert log_identity.was_recreated(LogState(1, 100, False), Message(0, 100))
    assert not log_identity.was_recreated(LogState(1, 100, False), Message(0, 99))


def test_a_stored_0_may_mean_that_nothing_is_there_and_is_read_again() -> None:
    assert [log_identity.stored_position(stored) for stored in (0, 1, 41)] == [0, 2, 42]


def test_a_partition_that_waits_and_does_not_move_is_told_once() -> None:
    unread = StalledPartitions(60)
    assert unread.update({0: (5, 10), 1: (5, 10), 2: (9, 10)}, 0) == []
    assert unread.update({0: (5, 10), 1: (6, 10), 2: (9, 10)}, 59) == []
    assert unread.update({0: (5, 10), 1: (6, 10), 2: (9, 10)}, 60) == [0]
    assert unread.update({0: (5, 10), 1: (6, 10), 2: (9, 11)}, 61) == []
    assert unread.update({0: (5, 12), 1: (6, 10), 2: (9, 12)}, 130) == [1, 2]
    assert unread.update({1: (6, 10)}, 140) == []
