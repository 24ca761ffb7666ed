"""The pages of one measurement, and its watermark: up to where all points are in Iggy. Pure: no sockets, no clock.

One rule: the watermark is the end of the contiguous prefix of confirmed pages, and never moves back.

From the watermark to the end of the round, time is divided into parts that follow each other: pages that were ordered,
and `Unordered` time. A page that covers less than its window leaves the rest of it unordered. The earliest unordered
time is ordered first, so that windows that are read in parallel stay close to the watermark.
"""

from pipeline.points.fingerprints import Fingerprint, Fingerprints
from pipeline.points.times import MIN_TIME, SECOND
from pipeline.points.windows import TimeWindow
from pipeline.source_coordinator.stride import Stride

#: Windows with a multiple of this in them are read, not probed, nanoseconds. A field may have another type in each
#: shard, of which a probe sees one; shards begin at multiples of it.
PROBE_WITHIN = 900 * SECOND

#: Pages are enlarged to so many times the rows that one time has had, if these are more than a page: enough for two
#: such times, of which the second need not be the last.
PAGES_OF_ONE_TIME = 2.2

#: Pages after the watermark, confirmed ones included, of a measurement. After a death they are sent again.
MAX_PAGES_AHEAD = 200

#: The number of a round, and a time in it, where a page ends: there the next one is to be sent.
Position = tuple[int, int]


class Unordered:
    """Time that is not ordered yet, nanoseconds since 1970."""

    __slots__ = ("end", "follows", "start")

    def __init__(self, start: int, end: int, follows: Position) -> None:
        self.start = start
        self.end = end
        #: End of the page before it.
        self.follows = follows


class Page:
    """A page in flight: ordered, and not settled."""

    __slots__ = ("attempt", "confirmed", "fingerprints", "follows", "is_read", "ordered_at", "overflows",
                 "remember_from", "round", "rows", "seen_until", "seq", "size", "whole", "window")

    def __init__(self, seq: int, window: TimeWindow, round_: int, follows: Position, seen_until: int,
                 remember_from: int, rows: int, size: int) -> None:
        self.seq = seq
        #: The round that it belongs to, and the end of the page before it.
        self.round = round_
        self.follows = follows
        #: How often its window was too wide.
        self.overflows = 0
        #: What it may have, where that is more than configured; else 0.
        self.rows = rows
        self.size = size
        self.window = window
        #: Points before it may have been sent already; those from `remember_from` on will be read again.
        self.seen_until = seen_until
        self.remember_from = remember_from
        self.attempt = 0
        #: The window is to be read without a limit of rows.
        self.whole = False
        #: The query stage has read it; convert or produce has it.
        self.is_read = False
        #: Iggy has all of its messages.
        self.confirmed = False
        self.fingerprints: list[Fingerprint] = []
        #: When it was last ordered or read; seconds of the caller's clock.
        self.ordered_at = 0.0


class WatermarkLedger:
    """The pages of one measurement in one epoch. So many are read at a time; more may be on the way to Iggy."""

    def __init__(self, watermark: int, stride: Stride, page_size: int, overlap: int, floor: int,
                 fingerprints: Fingerprints, parallel: int = 1, in_order: bool = True) -> None:
        """All points before `watermark` are in Iggy. Each round reads `overlap` nanoseconds before it again, but
        nothing before `floor`. `parallel`: windows that are read at a time; `in_order`: pages are sent in the order of
        time."""
        self.watermark = watermark
        self.fingerprints = fingerprints
        #: By number.
        self.pages: dict[int, Page] = {}
        #: In the order of time; the last one is unordered, up to the end of the round.
        self._parts: list[Page | Unordered] = [Unordered(watermark, watermark, (0, watermark))]
        self._parallel = parallel
        self._in_order = in_order
        #: Counts how often time began before the end of the last page, for the overlap.
        self._round = 0
        #: When a page was confirmed last: seconds of the caller's clock.
        self._confirmed_at = 0.0
        self._stride = stride
        self._page_size = page_size
        #: As of `Page`: learned from a time that had more rows than a page.
        self._rows = self._size = 0
        self._overlap = overlap
        self._floor = floor
        #: It was read before this coordinator started: what it read first then is not known.
        self._is_resumed = watermark > floor
        self._seq = 0
        self._seen_until = MIN_TIME
        #: Points of this round from this time on are to be remembered.
        self._remember_from = 0
        #: Rows of this round; None before the first one.
        self._round_rows: int | None = None
        #: The window that is being probed; nothing is read meanwhile.
        self.probing: TimeWindow | None = None
        #: Time of the first row that was read, nanoseconds since 1970.
        self.first_row: int | None = None
        #: When the last rows came, and when the measurement was last asked for new ones: seconds of the caller's clock.
        self.active_at = self.asked_at = 0.0

    @property
    def _rest(self) -> Unordered:
        """What is unordered up to the end of the round."""
        rest = self._parts[-1]
        assert isinstance(rest, Unordered)
        return rest

    @property
    def position(self) -> Position:
        """Where the first page that is not settled is to be sent."""
        return self._parts[0].follows

    def _overlap_begin(self, time: int) -> int:
        """Where the overlap before a time begins: where a window may."""
        return self._stride.alignment.floor(time - self._overlap) if self._overlap else time

    @property
    def round_is_over(self) -> bool:
        """Whether `next` would start another round."""
        return self._first_unordered() is None

    @property
    def held(self) -> int:
        """Pages that Iggy has not confirmed. Unordered time before them counts as one: it is to be read first, and the
        others wait for it."""
        return sum(not page.confirmed for page in self.pages.values()) + self.is_blocked

    @property
    def is_blocked(self) -> bool:
        """Whether pages wait for time before them that is not ordered."""
        return len(self._parts) > 1 and isinstance(self._parts[0], Unordered)

    @property
    def may_order(self) -> bool:
        """Whether fewer windows are being read than may be."""
        return sum(not page.is_read for page in self.pages.values()) < self._parallel

    @property
    def sending(self) -> bool:
        """Whether a page was read that Iggy has not confirmed. Pages that are only being read may be abandoned."""
        return any(page.is_read and not page.confirmed for page in self.pages.values())

    def share(self, goal: int) -> float:
        """How much of the time from the first row to `goal` is in Iggy, 0 to 1; 0 before the first row is known.

        Where reading was resumed, it counts from where the source begins, or if that is "earliest" from the first row
        that was read since.
        """
        if self.watermark >= goal:
            return 1.0
        first = self._floor if self._is_resumed and self._floor > MIN_TIME else self.first_row
        if first is None:
            return 0.0
        return max(0.0, min(1.0, (self.watermark - first) / max(1, goal - first)))

    def behind(self, target: int) -> bool:
        """Whether something before `target` is not in Iggy yet."""
        return self._stride.next(self.watermark, target) is not None

    def next(self, target: int, now: float = 0.0) -> Page | None:
        """The next page to read, up to `target`; None when there is none, or enough are being read."""
        if self.probing is not None or not self.may_order:
            return None
        if self.round_is_over and not self._start_round(target):
            return None
        found = self._first_unordered()
        if found is None or found[0] and len(self.pages) >= MAX_PAGES_AHEAD:
            return None
        index, window = found
        unordered = self._parts[index]
        page = Page(self._seq, window, self._round, unordered.follows, self._seen_until, self._remember_from,
                    self._rows, self._size)
        page.ordered_at = now
        self.pages[self._seq] = page
        self._seq += 1
        self._parts.insert(index, page)
        self._begin_after(page, index + 1)
        return page

    def _first_unordered(self) -> tuple[int, TimeWindow] | None:
        """The next window to order, and the index of its part; None at the end of the round."""
        for index, part in enumerate(self._parts):
            if isinstance(part, Unordered):
                window = self._stride.next(part.start, part.end)
                if window is not None:
                    return index, window
                if part is not self._rest:
                    return index, TimeWindow(part.start, part.end)
        return None

    def _begin_after(self, page: Page, index: int) -> None:
        """Has the unordered part at `index` begin where the page ends."""
        unordered, end = self._parts[index], page.window.end
        assert isinstance(unordered, Unordered)
        unordered.start, unordered.follows = end, (page.round, end)
        if end >= unordered.end and unordered is not self._rest:
            del self._parts[index]

    def _shorten(self, page: Page, end: int) -> None:
        """Has a page end earlier; the rest of its window is unordered."""
        before, index = page.window.end, self._parts.index(page) + 1
        page.window = TimeWindow(page.window.start, end)
        if end < before:
            if not isinstance(self._parts[index], Unordered):
                self._parts.insert(index, Unordered(end, before, page.follows))
            self._begin_after(page, index)

    def _start_round(self, target: int) -> bool:
        # With an overlap, the fingerprints of everything sent before must be known first.
        rest = self._rest
        if self._stride.next(rest.end, target) is None or (self._overlap and self.pages):
            return False
        if self._overlap:
            # Not before the floor; and what is read for the first time cannot have been sent.
            rest.start = max(min(self._floor, rest.start), self._overlap_begin(rest.start))
            self._round += 1
            self._seen_until = rest.end
            self._remember_from = self._overlap_begin(target)
        rest.end = target
        self._round_rows = 0
        return True

    def probe(self, target: int) -> TimeWindow | None:
        """The window of the next round, if the last one had no rows, so that a probe may do instead of a page.

        None where the measurement is to be read: it is active, is being read, or the window contains a multiple of
        PROBE_WITHIN.
        """
        if self._round_rows != 0 or self.pages or self.probing is not None or not self.round_is_over:
            return None
        rest = self._rest
        start = max(min(self._floor, rest.start), self._overlap_begin(rest.start))
        if rest.end >= target or start // PROBE_WITHIN != target // PROBE_WITHIN:
            return None
        self.probing = TimeWindow(start, target)
        return self.probing

    def probed(self, window: TimeWindow | None) -> bool:
        """A probe has ended: `window` has no points, or, with None, the measurement is to be read. False for a window
        that is not being probed."""
        if self.probing is None or window not in (None, self.probing):
            return False
        self.probing = None
        if window is not None:
            self.watermark = self._rest.start = self._rest.end = window.end
            self.fingerprints.prune(self._overlap_begin(self.watermark))
        return True

    @property
    def pages_each(self) -> int:
        """How many configured pages a page of this measurement may hold."""
        return max(1, -(-self._rows // self._page_size))

    def page_read(self, seq: int, attempt: int, end: int, rows: int, first: int, now: float = 0.0,
                  size: int = 0) -> bool:
        """A page of `rows` and `size` bytes covers its window up to `end`. False for an earlier attempt."""
        page = self._current(seq, attempt)
        if page is None or page.is_read or not page.window.start < end <= page.window.end:
            return False
        cut = end < page.window.end
        self._shorten(page, end)
        page.is_read = True
        page.ordered_at = now
        self._round_rows = (self._round_rows or 0) + rows
        if rows:
            self.active_at = now
            self.first_row = first if self.first_row is None else self.first_row
        full = max(self._page_size, page.rows)
        if not page.whole:
            self._stride.read(page.window, max(rows, full) if cut else rows, full, first)
        elif rows > full and page.window.end == first + 1:
            self._rows, self._size = int(rows * PAGES_OF_ONE_TIME), int(size * PAGES_OF_ONE_TIME)
            self._stride.crowded = True
        self._move_watermark()
        return True

    def overflow(self, seq: int, attempt: int, one_time: bool, first: int, now: float = 0.0,
                 slow: bool = False) -> Page | None:
        """The window has more rows than a page. Returns the page to be read again, narrower, or whole where it cannot
        be; None for an earlier attempt.

        `first` is the time of one of them; `one_time`: of all that were seen, and it is the first in the window.
        `slow`: the window took the server too long, whatever its rows.
        """
        page = self._current(seq, attempt)
        if page is None or page.is_read:
            return None
        start = page.window.start
        page.overflows += 1
        window = TimeWindow(start, min(max(start, first) + 1, page.window.end)) if one_time \
            else self._stride.narrower(page.window, first, page.overflows, slow)
        # The whole of a window that is slow would be slower.
        page.whole = one_time or window is None and not slow
        if window is not None:
            self._shorten(page, window.end)
        page.attempt += 1
        page.ordered_at = now
        return page

    def confirm(self, seq: int, attempt: int, fingerprints: list[Fingerprint], now: float = 0.0) -> bool:
        """Iggy has the page; this report may arrive before that of `page_read`. True the first time; False for an
        earlier attempt."""
        page = self._current(seq, attempt)
        if page is None or page.confirmed:
            return False
        page.confirmed, page.fingerprints = True, fingerprints
        self._confirmed_at = now
        self._move_watermark()
        return True

    def _move_watermark(self) -> None:
        while isinstance(oldest := self._parts[0], Page) and oldest.confirmed and oldest.is_read:
            self.watermark = max(self.watermark, oldest.window.end)
            self.fingerprints.add(oldest.fingerprints)
            del self.pages[oldest.seq], self._parts[0]
        self.fingerprints.prune(self._overlap_begin(self.watermark))

    def to_reread(self, now: float, read_only: bool = False) -> list[Page]:
        """The pages in flight, which may be lost and are to be read again, unchanged. `read_only`: only those that were
        read, not those that the query stage still works on."""
        found = []
        for page in self._ordered_pages():
            if (page.is_read and not page.confirmed) or not (page.is_read or read_only):
                page.attempt += 1
                page.confirmed = False
                # With the same window, whatever it holds now: the next page starts at its end.
                page.whole = page.whole or page.is_read
                page.is_read = False
                page.ordered_at = now
                found.append(page)
        return found

    def oldest_unconfirmed(self) -> float | None:
        """Since when the page waits that has waited longest for Iggy; None when there is none. In order, only the first
        page can wait for Iggy, and that since the one before it was confirmed; the others wait for it."""
        waiting = [page for page in self._ordered_pages() if not page.confirmed]
        if self._in_order:
            if self.is_blocked or not waiting or not waiting[0].is_read:
                return None
            return max(waiting[0].ordered_at, self._confirmed_at)
        return min((page.ordered_at for page in waiting if page.is_read), default=None)

    def _ordered_pages(self) -> list[Page]:
        return [part for part in self._parts if isinstance(part, Page)]

    def _current(self, seq: int, attempt: int) -> Page | None:
        page = self.pages.get(seq)
        return page if page is not None and page.attempt == attempt else None
