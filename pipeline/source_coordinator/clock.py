"""Corrects the watermarks of sources after a clock was wrong. Pure.

A watermark in the future was set while a clock was ahead. It says that everything before it is in Iggy, which cannot be
known yet. So reading goes back to as long before now as the watermark is beyond now; where the pipeline saw the clock
being set forward, to at most what it had read by then. Points may be sent twice. None is missed that was stored while
the clock was ahead, if it was wrong for no longer than it was ahead by.
"""

#: Steps forward that are larger, nanoseconds, are logged, and what was read before is remembered.
FORWARD = 10_000_000_000
#: Steps back that are larger, nanoseconds, have every watermark checked again.
BACK = 1_000_000_000


def corrected(mark: int, now: int, begin: int, trusted: int | None = None) -> int:
    """Where reading goes on: at the mark, unless it lies beyond `now`. Never before `begin`, where the source begins; a
    mark there is right wherever that is. `trusted`: what was read before the clock was set forward, if that is known.

    All are nanoseconds since 1970.
    """
    if mark <= max(now, begin):
        return mark
    back = now - (mark - now)
    return max(begin, back if trusted is None else min(back, trusted))


class ClockWatch:
    """Finds steps of the wall clock, by a clock that nobody sets."""

    def __init__(self, wall: int, steady: int) -> None:
        """Both in nanoseconds."""
        self._wall = wall
        self._steady = steady

    def jump(self, wall: int, steady: int) -> int:
        """By how much the clock was set since the last look, nanoseconds: forward where it is positive."""
        jump = (wall - self._wall) - (steady - self._steady)
        self._wall, self._steady = wall, steady
        return jump
