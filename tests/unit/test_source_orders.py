"""Which pages a source orders: each measurement has its turn, and none that is stuck holds up the others."""

from collections import Counter

import msgspec

from pipeline.config.source_schema import SourceConfig
from pipeline.source_coordinator.source import Source
from pipeline.source_coordinator.state import SourceState, identity_of
from pipeline.source_coordinator.state_file import StateFile
from pipeline.wire import source as source_wire

HOUR = 3_600 * 10**9
#: Where reading ends.
NOW = 1_000 * HOUR


def source_of(names: str, **options: object) -> Source:
    """A source whose measurements had a page in their first hour."""
    config = msgspec.convert({"name": "s", "state_file": "unused", "from": "1970-01-01T00:00:00Z", "page_size": 100,
                              "buffer_duration_ms": 0, **options, "output": {"stream": "o"}}, SourceConfig)
    source = Source(0, config, 1, NOW, StateFile(config, "unused"), SourceState(identity_of(config), 0))
    for name in names:
        source.add_measurement(name, ordered=True)
        ledger = source.ledgers[name]
        page = ledger.next(NOW)
        assert page is not None and ledger.page_read(page.seq, 0, min(HOUR, page.window.end), 80, 0)
        assert ledger.confirm(page.seq, 0, [])
    return source


def read(source: Source, order: source_wire.Read, end: int = 0) -> None:
    """A page of that order was read: up to `end`, or all of its window."""
    ledger = source.ledgers[order.id.measurement.name]
    assert ledger.page_read(order.id.seq, order.id.attempt, end or order.window.end, 80, order.window.start)
    source.want(order.id.measurement.name)


def confirm(source: Source, order: source_wire.Read) -> None:
    assert source.ledgers[order.id.measurement.name].confirm(order.id.seq, order.id.attempt, [])
    source.want(order.id.measurement.name)


def counted(orders: list[source_wire.Read]) -> Counter[str]:
    return Counter(order.id.measurement.name for order in orders)


def test_measurements_have_turns_and_windows_follow_each_other() -> None:
    source = source_of("ab", parallel_windows=4, max_parallel_queries=8)
    orders = source.orders(0.0)
    assert counted(orders) == {"a": 3, "b": 3}
    windows = [order.window for order in orders if order.id.measurement.name == "a"]
    assert [window.start for window in windows[1:]] == [window.end for window in windows[:-1]]
    assert [order.id.follows[1] for order in orders] == [order.window.start for order in orders]


def test_the_rest_of_a_page_that_was_cut_comes_next_even_where_all_places_are_taken() -> None:
    source = source_of("ab", parallel_windows=4, max_parallel_queries=8)
    first, *others = [order for order in source.orders(0.0) if order.id.measurement.name == "a"]
    for order in others:
        read(source, order)
    middle = first.window.start + first.window.width // 2
    read(source, first, middle)
    assert source.orders(0.0) == []
    confirm(source, first)
    [rest] = source.orders(0.0)
    assert (rest.id.measurement.name, rest.window.start, rest.id.follows) == ("a", middle, (0, middle))
    assert middle < rest.window.end <= first.window.end


def test_measurements_that_are_refused_hold_up_no_others_and_hold_no_more() -> None:
    source = source_of("abcdefgh", parallel_windows=2, pages_in_flight=2)
    held: list[str] = []
    while orders := source.orders(0.0):
        for order in orders:
            held.append(order.id.measurement.name)
            source.refused[order.id.measurement.name] = "no"
            source.want(order.id.measurement.name)
    assert held == list("abcdefgh")


def test_pages_that_wait_for_an_earlier_one_are_not_overdue() -> None:
    source = source_of("a", parallel_windows=2)
    ledger = source.ledgers["a"]
    first, second = source.orders(0.0)
    assert ledger.page_read(second.id.seq, 0, second.window.end, 80, second.window.start, 5.0)
    assert ledger.oldest_unconfirmed() is None
    assert ledger.page_read(first.id.seq, 0, first.window.end, 80, first.window.start, 20.0)
    assert ledger.oldest_unconfirmed() == 20.0
    assert ledger.confirm(first.id.seq, 0, [], 30.0)
    assert ledger.oldest_unconfirmed() == 30.0


def test_as_they_come_pages_ahead_are_bounded() -> None:
    source = source_of("a", parallel_windows=2, keep_order=False)
    _first, *orders = source.orders(0.0)
    sent = 0
    while orders:
        for order in orders:
            read(source, order)
            confirm(source, order)
            sent += 1
        orders = source.orders(0.0)
    assert sent == 199
    assert source.ledgers["a"].watermark == HOUR
    assert len(source.ledgers["a"].pages) == 200


def test_a_window_is_no_wider_than_allowed_unless_nothing_was_found() -> None:
    source = source_of("a", max_window_ms=600_000)
    [order] = source.orders(0.0)
    assert order.window.start == HOUR // 6
    assert order.window.width == HOUR // 6
    ledger = source.ledgers["a"]
    for rows, width in [(1, HOUR // 6), (0, HOUR // 3), (0, HOUR * 2 // 3), (1, HOUR // 6)]:
        ledger.page_read(order.id.seq, 0, order.window.end, rows, order.window.start)
        confirm(source, order)
        [order] = source.orders(0.0)
        assert order.window.width == width
