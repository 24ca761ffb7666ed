"""Chooses the width of the next time window by the number of rows in the last ones. Pure."""

from pipeline.points.times import MAX_TIME, MIN_TIME, SECOND
from pipeline.points.windows import TimeWindow, floor

#: First width where answers are in no order, nanoseconds: an hour.
FIRST_WIDTH = 3_600 * SECOND
#: A page with fewer rows than this share of a full one doubles the width.
ROOMY = 0.5
#: After a page that was cut, the next window is this many times as wide as that page: enough for a few more pages.
AHEAD = 4


class Stride:
    """The width of the next window of one measurement: wider after few rows, narrower after many."""

    def __init__(self, ordered: bool, align: int = 1, maximum: int = MAX_TIME - MIN_TIME) -> None:
        """`ordered`: answers are in the order of time. `align`: windows end at multiples of it and are never narrower;
        `maximum`: greatest width; both nanoseconds."""
        self.align = align
        self.maximum = maximum
        self.width = maximum if ordered else min(maximum, max(FIRST_WIDTH, align))
        #: Windows in a row that had too many rows.
        self._overflows = 0

    def next(self, start: int, limit: int) -> TimeWindow | None:
        """The window from `start` on, up to `limit`; None when there is no room for one."""
        if self.align > 1:
            limit = floor(limit, self.align)
        end = limit
        if start + self.width < limit:
            end = max(floor(start + self.width, self.align), floor(start, self.align) + self.align)
        return TimeWindow(start, min(end, limit)) if end > start and limit > start else None

    def narrower(self, window: TimeWindow, first: int) -> TimeWindow | None:
        """The beginning of a window that had too many rows: half of it, and the n-th time in a row a 2^n-th.

        `first` is the time of some row that was seen. Where that is in the second half, the part before it comes first:
        it is probably empty. None when the window cannot be narrower, and has to be read whole.
        """
        if window.width <= self.align:
            return None
        self._overflows += 1
        silent = floor(first, self.align)
        if self._overflows == 1 and window.start + window.width // 2 < silent < window.end:
            return TimeWindow(window.start, silent)
        self.width = max(window.width >> self._overflows, self.align)
        end = max(floor(window.start + self.width, self.align), floor(window.start, self.align) + self.align)
        return TimeWindow(window.start, end) if end < window.end else None

    def read(self, window: TimeWindow, rows: int, page_size: int, first: int) -> None:
        """Adapts the width to a page of `rows` that covers `window`; its first row has the time `first`."""
        self._overflows = 0
        if rows >= page_size:
            self.width = min(self.maximum, max(self.align, AHEAD * max(1, window.end - max(first, window.start))))
        elif rows < page_size * ROOMY and window.width > self.width - self.align:
            self.width = min(self.maximum, self.width * 2)
