"""Windows of time, half-open: `[start, end)` in nanoseconds since 1970. Pure.

A window's answer is at most a page of rows. Where the answer is in the order of time, a page that is full ends before
its last time (rows of that time may be missing from it, in any order); the rest of the window comes next. Where it has
no order, a window that is too full is read again at half its width, then an eighth, a 64th and so on: every try costs
a page that is thrown away, and a window that is too narrow little. So equal times are never torn apart.
"""

from msgspec import Struct

from pipeline.points.times import MAX_TIME, MIN_TIME, SECOND

#: Width to begin with where answers have no order, nanoseconds: an hour.
FIRST_WIDTH = 3_600 * SECOND
#: A page with fewer rows than this share makes the next window twice as wide.
ROOMY = 0.5
#: After a page that was cut, the next window is so many times as wide as that page: enough for some more of them.
AHEAD = 4


class Window(Struct, frozen=True, array_like=True):
    """`start` is inside, `end` is not; nanoseconds since 1970."""

    start: int
    end: int

    @property
    def width(self) -> int:
        """Nanoseconds."""
        return self.end - self.start


def floor(time: int, align: int) -> int:
    """The last multiple of `align` that is not after `time`."""
    return time - time % align


def cut_before(window: Window, last: int) -> int:
    """Where a page of an ordered answer ends that broke off at a row of the time `last`.

    Raises ValueError when nothing would be left: all its rows are of the window's first time; that time is then to be
    read whole.
    """
    if last <= window.start:
        raise ValueError("more rows than a page at one time")
    return min(last, window.end)


class Stride:
    """How wide the next window of one measurement is: wider while little is found, narrower where much is."""

    def __init__(self, ordered: bool, align: int = 1, maximum: int = MAX_TIME - MIN_TIME) -> None:
        """`ordered`: answers are in the order of time. `align`: windows end at multiples of it, and aren't split
        further; `maximum` width; both nanoseconds."""
        self.align = align
        self.maximum = maximum
        self.width = maximum if ordered else min(maximum, max(FIRST_WIDTH, align))
        self._too_full = 0

    def next(self, start: int, limit: int) -> Window | None:
        """The window from `start` on, up to `limit` at most; None when there is no room for one."""
        if self.align > 1:
            limit = floor(limit, self.align)
        end = limit
        if start + self.width < limit:
            end = max(floor(start + self.width, self.align), floor(start, self.align) + self.align)
        return Window(start, min(end, limit)) if end > start and limit > start else None

    def narrower(self, window: Window, first: int) -> Window | None:
        """The begin of a window that was too full: half of it, and the n-th time in a row a 2^n-th.

        `first` is the time of some row that was seen. Where that is in the second half, what is before it comes first:
        probably nothing. None when the window can't be narrower, and is to be read whole.
        """
        if window.width <= self.align:
            return None
        self._too_full += 1
        silent = floor(first, self.align)
        if self._too_full == 1 and window.start + window.width // 2 < silent < window.end:
            return Window(window.start, silent)
        self.width = max(window.width >> self._too_full, self.align)
        end = max(floor(window.start + self.width, self.align), floor(window.start, self.align) + self.align)
        return Window(window.start, end) if end < window.end else None

    def read(self, window: Window, rows: int, page_size: int, first: int) -> None:
        """A page of `rows` covers `window`; its first row is of the time `first`."""
        self._too_full = 0
        if rows >= page_size:
            self.width = min(self.maximum, max(self.align, AHEAD * max(1, window.end - max(first, window.start))))
        elif rows < page_size * ROOMY and window.width > self.width - self.align:
            self.width = min(self.maximum, self.width * 2)
