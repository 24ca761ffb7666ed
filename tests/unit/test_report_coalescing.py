"""How long the coordinator gathers: short where ingest waits for it, long where nobody does."""

import pytest

from pipeline.coordinator.coalescing import IDLE_SECONDS, MAX_SECONDS, MIN_SECONDS, ReportCoalescer


def test_with_little_on_its_way_it_looks_soon() -> None:
    gathering = ReportCoalescer(100_000)
    assert gathering.pause(1_000, 500, 10.0) == IDLE_SECONDS
    assert gathering.pause(1_000_000, 500, 11.0) == IDLE_SECONDS


def test_with_much_on_its_way_it_waits_for_a_quarter_of_the_window() -> None:
    gathering = ReportCoalescer(100_000)
    gathering.pause(0, 90_000, 10.0)
    assert gathering.pause(1_000_000, 90_000, 11.0) == pytest.approx(0.025)


def test_it_waits_neither_for_ever_nor_not_at_all() -> None:
    gathering = ReportCoalescer(100_000)
    gathering.pause(0, 90_000, 10.0)
    assert gathering.pause(100, 90_000, 11.0) == MAX_SECONDS
    assert gathering.pause(100_000_000, 90_000, 12.0) == MIN_SECONDS


def test_where_nothing_is_settled_it_looks_soon() -> None:
    """The database is down, or what comes in is about what was settled before."""
    gathering = ReportCoalescer(100_000)
    gathering.pause(5_000, 100_000, 10.0)
    assert gathering.pause(5_000, 100_000, 11.0) == IDLE_SECONDS


def test_what_is_reopened_does_not_count() -> None:
    gathering = ReportCoalescer(100_000)
    gathering.pause(50_000, 50_000, 10.0)
    assert gathering.pause(20_000, 80_000, 11.0) == IDLE_SECONDS
