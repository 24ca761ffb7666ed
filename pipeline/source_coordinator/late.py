"""Counts points that were written after their time was read, and so were missed: by comparing counts. Pure.

What was read is summed up in windows of time. A window is counted by the database `late_check_ms` after it was read;
then, with its neighbours, in windows of an hour an hour later, and in windows of a day a day later, if these are the
factors of LEVELS. What the database has more than was read is late.
"""

from collections import deque
from typing import Final

from msgspec import Struct

from pipeline.points.times import SECOND
from pipeline.points.windows import TimeWindow

#: Widths of the windows, and their age when they are counted: multiples of `late_check_ms`. 5 min, 1 h and 1 d.
LEVELS: Final = (1, 12, 288)
#: A count that is not answered is asked for again after this time, nanoseconds, and at most so often.
ASK_AGAIN: Final = 60 * SECOND
MOST_TRIES: Final = 3
#: Windows that were read ahead of others, at most.
MOST_AHEAD: Final = 1_000


class _Counted(Struct):
    """A window that is to be counted."""

    window: TimeWindow
    rows: int
    #: When it was last asked for, nanoseconds since 1970, and how often.
    asked_at: int = 0
    tries: int = 0


class _PageRows(Struct):
    """What is known of the rows of a page that is not confirmed yet, or not reported as read."""

    attempt: int
    window: TimeWindow | None = None
    #: None: the page is cut, and has fewer rows than were read.
    rows: int | None = None
    #: What convert has counted.
    total: int | None = None


class LateWatch:
    """The windows of one measurement that was caught up with. Times in nanoseconds since 1970."""

    def __init__(self, after: int, begin: int) -> None:
        """`after`: `late_check_ms`, 0 for never. Windows that start before `begin` do not count: they were read long
        after their time."""
        self._after = after
        #: Up to where windows are known without a gap; None before the first one.
        self._position: int | None = None
        self._begin = begin
        self._ahead: dict[int, tuple[int, int]] = {}
        self._pages: dict[int, _PageRows] = {}
        #: For each level, the window that grows, and those that wait to be counted.
        self._open: list[_Counted | None] = [None] * len(LEVELS)
        self._waiting: list[deque[_Counted]] = [deque() for _ in LEVELS]
        #: Late points so far.
        self.late = 0

    def page_read(self, seq: int, attempt: int, window: TimeWindow, rows: int | None) -> None:
        """A page was read: its rows, None if more were read than it has."""
        if self._after:
            page = self._page(seq, attempt)
            page.window, page.rows = window, rows
            self._settle(seq, page)

    def page_confirmed(self, seq: int, attempt: int, total: int) -> None:
        """Iggy has a page, of so many rows. This may be reported before the page is reported as read."""
        if self._after:
            page = self._page(seq, attempt)
            page.total = total
            self._settle(seq, page)

    def _page(self, seq: int, attempt: int) -> _PageRows:
        page = self._pages.get(seq)
        if page is None or page.attempt != attempt:
            page = self._pages[seq] = _PageRows(attempt)
            if len(self._pages) > MOST_AHEAD:
                del self._pages[next(iter(self._pages))]
        return page

    def _settle(self, seq: int, page: _PageRows) -> None:
        if page.window is not None and page.total is not None:
            del self._pages[seq]
            self.add(page.window, page.total if page.rows is None else page.rows)

    def add(self, window: TimeWindow, rows: int) -> None:
        """A window has so many rows in Iggy. Windows may come in any order."""
        if not self._after or window.start < self._begin or window.width <= 0:
            return
        if self._position is None:
            self._position = window.start
        if window.start < self._position:
            # Read once more: what it has then is not known by window.
            if window.end <= self._position or rows:
                return
            window = TimeWindow(self._position, window.end)
        self._ahead[window.start] = window.end, rows
        if len(self._ahead) > MOST_AHEAD:
            self._position = min(self._ahead)
        while (found := self._ahead.pop(self._position, None)) is not None:
            self._grow(0, TimeWindow(self._position, found[0]), found[1])
            self._position = found[0]

    def _grow(self, level: int, window: TimeWindow, rows: int) -> None:
        """Adds to the window of a level that grows, and closes it when it is wide enough."""
        width, grown = self._after * LEVELS[level], self._open[level]
        if grown is not None and grown.window.end != window.start:
            self._waiting[level].append(grown)
            grown = None
        grown = _Counted(window, rows) if grown is None else \
            _Counted(TimeWindow(grown.window.start, window.end), grown.rows + rows)
        self._open[level] = grown
        if grown.window.width >= width:
            self._waiting[level].append(grown)
            self._open[level] = None

    def due(self, now: int) -> tuple[TimeWindow, int] | None:
        """A window that is to be counted now, and its rows; None if there is none."""
        for level, waiting in enumerate(self._waiting):
            while waiting and waiting[0].tries >= MOST_TRIES and now - waiting[0].asked_at >= ASK_AGAIN:
                waiting.popleft()  # it cannot be counted
            if not waiting:
                continue
            first = waiting[0]
            if now - first.window.end < self._after * LEVELS[level] or first.tries and \
                    now - first.asked_at < ASK_AGAIN:
                continue
            first.asked_at, first.tries = now, first.tries + 1
            return first.window, first.rows
        return None

    def counted(self, window: TimeWindow, rows: int) -> int:
        """The database has so many rows in a window, or at least so many. Returns how many of them are late.

        Fewer than were read do not make the others of wider windows late: some were deleted, or were not counted.
        """
        for level, waiting in enumerate(self._waiting):
            if waiting and waiting[0].window == window and waiting[0].tries:
                before = waiting.popleft().rows
                late = max(0, rows - before)
                self.late += late
                if level + 1 < len(LEVELS):
                    self._grow(level + 1, window, max(rows, before))
                return late
        return 0

    def stop(self) -> None:
        """Its points cannot be counted."""
        self._after = 0
        self._ahead.clear()
        self._pages.clear()
        for waiting in self._waiting:
            waiting.clear()
