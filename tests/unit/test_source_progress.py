"""How much a source has caught up with, and about how long the rest takes."""

import pytest

from pipeline.points.fingerprints import Fingerprints
from pipeline.points.times import MIN_TIME
from pipeline.source_coordinator.ledger import WatermarkLedger
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
