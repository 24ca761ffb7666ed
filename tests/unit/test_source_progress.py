"""How much a source has caught up with, and about how long the rest takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.points.fingerprints import Fingerprints
from pipeline.points.times import MIN_TIME
from pipeline.source_coordinator.ledger import WatermarkLedger
from pipeline.source_coordinator.progress import Progress
from pipeline.source_coordinator.stride import Stride


@pytest.mark.parametrize(("first", "end", "share"), [(1_000, 1_250, 0.25), (1_000, 2_000, 1.0), (1_500, 1_750, 0.5)])
def test_the_share_begins_with_the_first_row(first: int, end: int, share: float) -> None:
    ledger = WatermarkLedger(MIN_TIME, Stride(ordered=True), 10, 0, MIN_TIME, Fingerprints(1))
    page = ledger.next(2_000)
    assert page is not None and ledger.share(2_000) == 0
    ledger.page_read(page.seq, page.attempt, end, 10, first)
    assert ledger.share(2_000) == 0  # Iggy does not have it
    ledger.confirm(page.seq, page.attempt, [])
    assert ledger.share(2_000) == share


@pytest.mark.parametrize(("floor", "share"), [(1_000, 0.5), (MIN_TIME, 0.0)])
def test_a_share_goes_on_after_a_restart_where_the_beginning_is_known(floor: int, share: float) -> None:
    ledger = WatermarkLedger(1_500, Stride(ordered=True), 10, 0, floor, Fingerprints(1))
    assert ledger.share(2_000) == share


def test_nothing_is_told_before_something_has_grown() -> None:
    progress = Progress()
    assert progress.seconds_left(0.5, 1.0) is None
    for now in range(10):
        progress.add(0.5, now)
    assert progress.seconds_left(0.5, 10) is None  # it stands still
    assert progress.seconds_left(1.0, 10) == 0


@given(st.floats(0, 0.9), st.floats(1e-6, 0.01), st.integers(3, 2_000))
def test_an_even_growth_ends_when_it_is_told_to(begin: float, growth: float, seconds: int) -> None:
    progress = Progress()
    share = begin
    for now in range(seconds):
        share = begin + growth * now
        if share >= 1:
            return
        progress.add(share, now)
    left = progress.seconds_left(share, seconds - 1)
    assert left == pytest.approx((1 - share) / growth, rel=1e-3)


def test_only_the_last_minutes_count_and_a_new_measurement_begins_anew() -> None:
    progress = Progress()
    for now in range(2_000):
        progress.add(0.1, now)  # the server was unavailable for long
    for now in range(2_000, 2_600):
        progress.add(0.1 + (now - 2_000) / 10_000, now)
    assert progress.seconds_left(0.16, 2_600) == pytest.approx(8_400, rel=0.02)
    progress.add(0.01, 2_601)
    progress.add(0.02, 2_611)
    assert progress.seconds_left(0.02, 2_611) == pytest.approx(980)
