"""Windows of time, half-open: `[start, end)` in nanoseconds since 1970. Pure.

A window's answer is at most a page of rows. Where the answer is in the order of time, a page that is full ends before
its last time (rows of that time may be missing from it, in any order); the rest of the window comes next. Where it has
no order, a window that is too full is read again at half its width, then an eighth, a 64th and so on: every try costs
a page that is thrown away, and a window that is too narrow little. So equal times are never torn apart.
"""

from msgspec import Struct


class TimeWindow(Struct, frozen=True, array_like=True):
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


def cut_before(window: TimeWindow, last: int) -> int:
    """Where a page of an ordered answer ends that broke off at a row of the time `last`.

    Raises ValueError when nothing would be left: all its rows are of the window's first time; that time is then to be
    read whole.
    """
    if last <= window.start:
        raise ValueError("more rows than a page at one time")
    return min(last, window.end)
