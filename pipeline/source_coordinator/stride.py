"""Chooses the width of the next time window by the number of rows in the last ones. Pure."""

from pipeline.points.alignment import Alignment
from pipeline.points.shards import shard_start
from pipeline.points.times import MAX_TIME, MIN_TIME, SECOND
from pipeline.points.windows import TimeWindow

#: First width where answers are in no order, nanoseconds: an hour.
FIRST_WIDTH = 3_600 * SECOND
#: Where this much or more is to be read, the first point is searched for: 30 days.
SEARCHED_WIDTH = 720 * FIRST_WIDTH
#: A page with fewer rows than this share of a full one doubles the width.
ROOMY = 0.5
#: The next window is at most wide enough for this share of a page, if points are as dense there.
DENSITY = 0.75
#: After a page that was cut, the next window is this many times as wide as that page: enough for a few more pages; or,
#: where windows are read in parallel, for most of one, so that few of them are cut.
AHEAD, AHEAD_IN_PARALLEL = 4, 0.8
#: All of time, nanoseconds.
WHOLE = MAX_TIME - MIN_TIME
#: After this many pages, windows may be twice as wide as one that was too slow.
WIDER_AFTER = 50


class Stride:
    """The width of the next window of one measurement: wider after few rows, narrower after many."""

    def __init__(self, ordered: bool, align: int | Alignment = 1, maximum: int = WHOLE,
                 ahead: float = AHEAD, searches: bool = False, shard: int = 0) -> None:
        """`ordered`: answers are in the order of time. `align`: windows end at multiples of it and are never narrower;
        `maximum`: greatest width of windows with points; both nanoseconds. `ahead`: of AHEAD. `searches`: the first
        window is as wide as can be, since the time before the first point, which may be long, ends a page. `shard`:
        width of the database's shards: no window with points spans two of them; 0 for any."""
        self.alignment = Alignment(align) if isinstance(align, int) else align
        self.align = align = self.alignment.width
        self._shard = shard
        self.maximum = maximum = min(maximum, shard or maximum)
        self.ahead = ahead
        self._first_width = min(maximum, max(FIRST_WIDTH, align))
        self.width = WHOLE if searches else maximum if ordered else self._first_width
        #: Nothing was read yet.
        self._searches = searches
        #: More rows than a page have had one time: windows that overflow are those of two or more times, and are not
        #: tried again at once.
        self.crowded = False
        #: Greatest width that is known to fit, where `crowded`.
        self._fits = WHOLE
        #: Greatest width at present, after a window that was too slow, as `_pages` allow.
        self._ceiling = WHOLE
        #: Pages read since the ceiling was changed.
        self._pages = 0

    def next(self, start: int, limit: int) -> TimeWindow | None:
        """The window from `start` on, up to `limit`; None when there is no room for one."""
        floor, after = self.alignment.floor, self.alignment.after
        if self.align > 1:
            limit = floor(limit)
        end = limit
        if start + self.width < limit:
            end = max(floor(start + self.width), after(floor(start)))
        if self._shard and (boundary := shard_start(min(end, limit), self._shard)) > start:
            end = boundary
        return TimeWindow(start, min(end, limit)) if end > start and limit > start else None

    def narrower(self, window: TimeWindow, first: int, times: int, slow: bool = False) -> TimeWindow | None:
        """The beginning of a window that had too many rows: half of it, and the n-th of `times` in a row a 2^n-th.

        `first` is the time of some row that was seen. Where that is in the second half, the part before it comes first:
        it is probably empty. None when the window cannot be narrower, and has to be read whole. `slow`: the window took
        the server too long, so the next ones are not wider either, until WIDER_AFTER pages were read.
        """
        floor, after = self.alignment.floor, self.alignment.after
        if window.end <= after(floor(window.start)):
            return None
        if slow:
            self._ceiling = max(window.width >> times, self.align)
            self._pages = 0
            self.width = min(self.width, self._ceiling)
        if self._searches:
            self._searches = False
            self.width = self._first_width
            end = max(floor(window.start + self.width), after(floor(window.start)))
            return TimeWindow(window.start, end) if end < window.end else None
        silent = floor(first)
        if times == 1 and window.start + window.width // 2 < silent < window.end:
            return TimeWindow(window.start, silent)
        self.width = max(window.width >> times, self.align)
        if self.crowded and times == 1:
            self._fits = self.width
        end = max(floor(window.start + self.width), after(floor(window.start)))
        return TimeWindow(window.start, end) if end < window.end else None

    def read(self, window: TimeWindow, rows: int, page_size: int, first: int) -> None:
        """Adapts the width to a page of `rows` that covers `window`; its first row has the time `first`."""
        if self._searches:
            self._searches = False
            if not rows:
                self.width = self._first_width
                return
        self._pages += 1
        if self._pages >= WIDER_AFTER and self._ceiling < WHOLE:
            self._ceiling, self._pages = min(WHOLE, self._ceiling * 2), 0
        # Where there is nothing, a wide window costs the server little.
        limit = min(self._ceiling, self.maximum) if rows else self._ceiling
        if rows >= page_size:
            self.width = min(limit, max(self.align, int(self.ahead * max(1, window.end - max(first, window.start)))))
        elif rows < page_size * ROOMY and (window.width > self.width - self.align or self._is_clipped(window)):
            if not rows:
                self._fits = WHOLE
            faster = 16 if not rows and self.width < SECOND else 2
            wider = self.width * faster
            if rows:
                wider = min(wider, max(self.width, int(window.width * DENSITY * page_size / rows)))
            self.width = min(limit, max(self.width, self._fits), wider)
        else:
            self.width = min(self.width, limit)

    def _is_clipped(self, window: TimeWindow) -> bool:
        """Whether a window may have ended early, where a shard does."""
        return bool(self._shard) and shard_start(window.end, self._shard) == window.end
