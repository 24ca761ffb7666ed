"""Half-open time windows: `[start, end)` in nanoseconds since 1970. Pure.

An answer has at most a page of rows. If answers are in time order, a full page ends before the time of its last row,
because other rows of that time may be missing; the rest of the window is read next. If answers have no order, a window
with too many rows is read again at half its width, then an eighth, a 64th and so on: each try discards a page, while a
window that is too narrow costs little. Rows of equal time always stay together.
"""

from msgspec import Struct

from pipeline.points.times import MIN_TIME


class TimeWindow(Struct, frozen=True, array_like=True):
    """`[start, end)`, nanoseconds since 1970."""

    start: int
    end: int

    @property
    def width(self) -> int:
        """Width in nanoseconds."""
        return self.end - self.start


def floor(time: int, align: int) -> int:
    """The last multiple of `align` that is not after `time`; or the first one that InfluxDB can store."""
    found = time - time % align
    return found if found >= MIN_TIME else found + align


def cut_before(window: TimeWindow, last: int) -> int:
    """The end of a page whose answer is in time order and was cut after a row of the time `last`.

    Raises ValueError if the page would be empty because all its rows have the window's first time, which must then be
    read without a limit.
    """
    if last <= window.start:
        raise ValueError("more rows than a page at one time")
    return min(last, window.end)
