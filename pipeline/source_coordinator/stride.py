"""How wide the next time window is, from how full the last ones were."""

from pipeline.points.times import MAX_TIME, MIN_TIME, SECOND
from pipeline.points.windows import TimeWindow, floor

#: Width to begin with where answers have no order, nanoseconds: an hour.
FIRST_WIDTH = 3_600 * SECOND
#: A page with fewer rows than this share makes the next window twice as wide.
ROOMY = 0.5
#: After a page that was cut, the next window is so many times as wide as that page: enough for some more of them.
AHEAD = 4


class Stride:
    """How wide the next window of one measurement is: wider while little is found, narrower where much is."""

    def __init__(self, ordered: bool, align: int = 1, maximum: int = MAX_TIME - MIN_TIME) -> None:
        """`ordered`: answers are in the order of time. `align`: windows end at multiples of it, and aren't split
        further; `maximum` width; both nanoseconds."""
        self.align = align
        self.maximum = maximum
        self.width = maximum if ordered else min(maximum, max(FIRST_WIDTH, align))
        self._too_full = 0

    def next(self, start: int, limit: int) -> TimeWindow | None:
        """The window from `start` on, up to `limit` at most; None when there is no room for one."""
        if self.align > 1:
            limit = floor(limit, self.align)
        end = limit
        if start + self.width < limit:
            end = max(floor(start + self.width, self.align), floor(start, self.align) + self.align)
        return TimeWindow(start, min(end, limit)) if end > start and limit > start else None

    def narrower(self, window: TimeWindow, first: int) -> TimeWindow | None:
        """The begin of a window that was too full: half of it, and the n-th time in a row a 2^n-th.

        `first` is the time of some row that was seen. Where that is in the second half, what is before it comes first:
        probably nothing. None when the window can't be narrower, and is to be read whole.
        """
        if window.width <= self.align:
            return None
        self._too_full += 1
        silent = floor(first, self.align)
        if self._too_full == 1 and window.start + window.width // 2 < silent < window.end:
            return TimeWindow(window.start, silent)
        self.width = max(window.width >> self._too_full, self.align)
        end = max(floor(window.start + self.width, self.align), floor(window.start, self.align) + self.align)
        return TimeWindow(window.start, end) if end < window.end else None

    def read(self, window: TimeWindow, rows: int, page_size: int, first: int) -> None:
        """A page of `rows` covers `window`; its first row is of the time `first`."""
        self._too_full = 0
        if rows >= page_size:
            self.width = min(self.maximum, max(self.align, AHEAD * max(1, window.end - max(first, window.start))))
        elif rows < page_size * ROOMY and window.width > self.width - self.align:
            self.width = min(self.maximum, self.width * 2)
