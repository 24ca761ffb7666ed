"""What has been read of one measurement, and up to where all of it is in Iggy. Pure: no sockets, no clock.

One rule: the mark is the end of the contiguous prefix of pages that are confirmed, and never moves back.
"""

from collections import OrderedDict

from pipeline.points.fingerprints import Fingerprint, Fingerprints
from pipeline.points.times import MIN_TIME
from pipeline.points.windows import TimeWindow
from pipeline.source_coordinator.stride import Stride


class Page:
    """A page on its way."""

    __slots__ = ("answered", "attempt", "done", "prints", "remember_from", "seen_until", "sent_at", "seq", "whole",
                 "window")

    def __init__(self, seq: int, window: TimeWindow, seen_until: int, remember_from: int) -> None:
        self.seq = seq
        self.window = window
        #: Points before it may have been sent already; those from `remember_from` on will be read again.
        self.seen_until = seen_until
        self.remember_from = remember_from
        self.attempt = 0
        #: The window is to be read without a limit.
        self.whole = False
        #: The page covers its window; it is with convert or produce.
        self.answered = False
        self.done = False
        self.prints: list[Fingerprint] = []
        #: When it was ordered last; seconds of the caller's clock.
        self.sent_at = 0.0


class WatermarkLedger:
    """The pages of one measurement in one epoch. One is being read at a time; several may be on their way to Iggy."""

    def __init__(self, mark: int, stride: Stride, page_size: int, overlap: int, floor: int,
                 prints: Fingerprints) -> None:
        """All before `mark` is in Iggy already. `overlap` nanoseconds before it are read again each round, but nothing
        before `floor`."""
        self.mark = mark
        self.prints = prints
        self.pages: OrderedDict[int, Page] = OrderedDict()
        self._stride = stride
        self._page_size = page_size
        self._overlap = overlap
        self._floor = floor
        self._seq = 0
        #: Where the next page begins, and where this round ends.
        self._position = mark
        self._round_end = mark
        self._seen_until = MIN_TIME
        #: What is read in this round is to be remembered from here on.
        self._remember_from = 0

    @property
    def next_seq(self) -> int:
        """Number of the first page that isn't confirmed."""
        return next(iter(self.pages), self._seq)

    @property
    def resting(self) -> bool:
        """The round is over: `next` would begin another."""
        return self._position >= self._round_end or self._stride.next(self._position, self._round_end) is None

    @property
    def sending(self) -> bool:
        """Whether something that was read is on its way to Iggy. What is only being read may be left."""
        return any(page.answered and not page.done for page in self.pages.values())

    def behind(self, target: int) -> bool:
        """Whether something before `target` is not in Iggy yet."""
        return self._stride.next(self.mark, target) is not None

    def next(self, target: int, now: float = 0.0) -> Page | None:
        """The next page to read, up to `target` at most; None when there is none, or one is being read."""
        if any(not page.answered for page in self.pages.values()):
            return None
        if self.resting and not self._begin_round(target):
            return None
        window = self._stride.next(self._position, self._round_end)
        if window is None:
            return None
        page = Page(self._seq, window, self._seen_until, self._remember_from)
        page.sent_at = now
        self.pages[self._seq] = page
        self._seq += 1
        return page

    def _begin_round(self, target: int) -> bool:
        # Over the overlap, all that was sent before must be known first.
        if self._stride.next(self._round_end, target) is None or (self._overlap and self.pages):
            return False
        if self._overlap:
            # Not before the floor; and what is read for the first time can't have been sent.
            self._position = max(min(self._floor, self._position), self._position - self._overlap)
            self._seen_until = self._round_end
            self._remember_from = target - self._overlap
        self._round_end = target
        return True

    def answered(self, seq: int, attempt: int, end: int, rows: int, first: int, now: float = 0.0) -> bool:
        """A page of `rows` covers its window up to `end`. False for an older try."""
        page = self._known(seq, attempt)
        if page is None or page.answered or not page.window.start < end <= page.window.end:
            return False
        cut = end < page.window.end
        page.window = TimeWindow(page.window.start, end)
        page.answered = True
        page.sent_at = now
        if not page.whole:
            self._stride.read(page.window, max(rows, self._page_size) if cut else rows, self._page_size, first)
        if seq == self._seq - 1:
            self._position = end
        self._move_mark()
        return True

    def too_full(self, seq: int, attempt: int, one_time: bool, first: int, now: float = 0.0) -> Page | None:
        """More rows than a page: the page is to be read again, narrower, or whole when it can't be. None: an older try.

        `one_time`: they are all of the window's first time; `first` is the time of one of them.
        """
        page = self._known(seq, attempt)
        if page is None or page.answered:
            return None
        start = page.window.start
        window = TimeWindow(start, start + 1) if one_time else self._stride.narrower(page.window, first)
        page.whole = one_time or window is None
        page.window = window or page.window
        page.attempt += 1
        page.sent_at = now
        return page

    def confirmed(self, seq: int, attempt: int, prints: list[Fingerprint]) -> bool:
        """Iggy has the page; that may be heard of before its answer is. True the first time; False for an older try."""
        page = self._known(seq, attempt)
        if page is None or page.done:
            return False
        page.done, page.prints = True, prints
        self._move_mark()
        return True

    def _move_mark(self) -> None:
        while self.pages:
            first, oldest = next(iter(self.pages.items()))
            if not (oldest.done and oldest.answered):
                break
            self.mark = max(self.mark, oldest.window.end)
            self.prints.add(oldest.prints)
            del self.pages[first]
        self.prints.prune(self.mark - self._overlap)

    def again(self, now: float, answered_only: bool = False) -> list[Page]:
        """All that is on its way may be lost, or with `answered_only` what the query stage has sent on: to be read
        again, each page as it was."""
        out = []
        for page in self.pages.values():
            if (page.answered and not page.done) or not (page.answered or answered_only):
                page.attempt += 1
                page.done = False
                # As it was read, whatever is in it now: the pages after it begin at its end.
                page.whole = page.whole or page.answered
                page.answered = False
                page.sent_at = now
                out.append(page)
        return out

    def oldest(self) -> float | None:
        """When the page was ordered or answered that waits longest for Iggy; None when there is none."""
        return min((page.sent_at for page in self.pages.values() if page.answered and not page.done), default=None)

    def _known(self, seq: int, attempt: int) -> Page | None:
        page = self.pages.get(seq)
        return page if page is not None and page.attempt == attempt else None
