"""More series at each time than a page has rows: few queries for each time, whatever the order of answers."""

import pytest

from pipeline.points.fingerprints import Fingerprints
from pipeline.source_coordinator.ledger import Page, WatermarkLedger
from pipeline.source_coordinator.stride import Stride

SECOND = 1_000_000_000
BEGIN = 1_700_000_000 * SECOND
PAGE_SIZE = 50_000
#: Bytes of a row.
ROW = 100


class Database:
    """`series` points every `interval` nanoseconds from BEGIN on."""

    def __init__(self, series: int, interval: int, times: int, ordered: bool) -> None:
        self.series = series
        self.interval = interval
        self.end = BEGIN + interval * times
        self.ordered = ordered
        self.ledger = WatermarkLedger(0, Stride(ordered), PAGE_SIZE, 0, 0, Fingerprints(0))
        self.queries = self.points = self.largest = 0

    def _before(self, time: int) -> int:
        """Times of points before `time`."""
        return max(0, -(-(min(time, self.end) - BEGIN) // self.interval))

    def _at(self, number: int) -> int:
        return BEGIN + number * self.interval

    def answer(self, page: Page) -> Page | None:
        """One query for a page. The page to be read instead; None when it is read."""
        self.queries += 1
        window, limit = page.window, max(PAGE_SIZE, page.rows)
        first, past = self._before(window.start), self._before(window.end)
        rows, end = (past - first) * self.series, window.end
        time = self._at(first) if rows else window.start
        if rows > limit and not page.whole:
            if not self.ordered:
                return self.ledger.overflow(page.seq, page.attempt, one_time=False, first=time)
            last = self._at(first + limit // self.series)
            if last == time:
                return self.ledger.overflow(page.seq, page.attempt, one_time=True, first=time)
            end, rows = last, limit + 1
        read = (self._before(end) - first) * self.series
        self.points += read
        self.largest = max(self.largest, rows)
        assert self.ledger.page_read(page.seq, page.attempt, end, rows, time, size=rows * ROW)
        assert self.ledger.confirm(page.seq, page.attempt, [])
        return None

    def read(self) -> None:
        """Reads all."""
        while self.ledger.behind(self.end):
            page = self.ledger.next(self.end)
            while page is not None:
                page = self.answer(page)


@pytest.mark.parametrize(("series", "seconds", "ordered", "most"), [
    (200_000, 60, True, 1.0), (60_000, 10, True, 1.0), (49_999, 10, True, 1.0), (50_001, 1, True, 1.0),
    (60_000, 10, False, 1.3), (200_000, 60, False, 1.3), (300_000, 3_600, False, 1.3), (60_000, 1, False, 1.3)])
def test_a_width_once_learned_is_kept(series: int, seconds: int, ordered: bool, most: float) -> None:
    database = Database(series, seconds * SECOND, 400, ordered)
    assert database.ledger.share(database.end) == 0
    database.read()
    assert database.ledger.share(database.end) == 1
    assert database.points == series * 400
    assert database.largest <= max(PAGE_SIZE, 2.2 * series) + 1
    # The first time is found in a few dozen queries, where answers have no order.
    assert database.queries <= most * 400 + (60 if not ordered else 5), database.queries
