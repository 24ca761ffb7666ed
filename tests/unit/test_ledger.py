"""The ledger, case by case."""

from pipeline.coordinator.ledger import Ledger
from pipeline.wire.sink import Partition, Range

PARTITION = Partition(0, 0)


def a_range(first: int, last: int, epoch: int = 1) -> Range:
    """A contiguous range of one partition, ten bytes a message."""
    return Range(epoch, PARTITION, first, last, last - first + 1, 10 * (last - first + 1))


def test_a_later_batch_settled_first_does_not_move_the_offset() -> None:
    ledger = Ledger(1)
    ledger.dispatch(a_range(0, 9))
    ledger.dispatch(a_range(10, 19))
    ledger.settle(a_range(10, 19))
    assert ledger.storable() == []
    ledger.settle(a_range(0, 9))
    assert ledger.storable() == [(PARTITION, 19)]


def test_what_is_stored_is_not_storable_again() -> None:
    ledger = Ledger(1)
    ledger.dispatch(a_range(0, 9))
    ledger.settle(a_range(0, 9))
    ledger.stored(PARTITION, 9)
    assert ledger.storable() == []
    assert ledger.idle


def test_a_failed_store_stays_storable() -> None:
    ledger = Ledger(1)
    ledger.dispatch(a_range(0, 9))
    ledger.settle(a_range(0, 9))
    assert ledger.storable() == ledger.storable() == [(PARTITION, 9)]
    assert not ledger.idle


def test_a_settlement_of_an_older_epoch_is_ignored() -> None:
    ledger = Ledger(2)
    ledger.dispatch(a_range(0, 9, epoch=2))
    assert not ledger.settle(a_range(0, 9, epoch=1))
    assert ledger.unsettled() == [a_range(0, 9, epoch=2)]


def test_what_is_dispatched_of_a_log_that_is_no_more_fills_no_window() -> None:
    ledger = Ledger(1)
    ledger.dispatch(a_range(0, 9))
    ledger.drop(PARTITION)
    ledger.dispatch(a_range(10, 19))
    assert (ledger.dispatched_messages, ledger.in_flight_messages) == (20, 0)
    assert ledger.positions() == [] and ledger.idle


def test_positions_continue_after_what_was_dispatched() -> None:
    ledger = Ledger(1)
    ledger.start(PARTITION, 40, stored=39)
    assert ledger.positions() == [(PARTITION, 40)]
    assert ledger.committed(PARTITION) == 39
    ledger.dispatch(a_range(40, 44))
    assert ledger.positions() == [(PARTITION, 45)]
    ledger.start(PARTITION, 0, stored=-1)
    assert ledger.positions() == [(PARTITION, 45)]
