"""Corrects the watermarks of sources after a clock was wrong. Pure.

A watermark in the future was set while a clock was ahead. It claims that everything before it is in Iggy, which cannot
be known yet. Reading therefore continues as long before now as the watermark is after now; where the pipeline noticed
that the clock was set forward, at the latest at what it had read by then. Points may be sent twice. No point is missed
that was stored while the clock was ahead, unless the clock was wrong for longer than it was ahead by.
"""

#: A larger step forward, nanoseconds, is logged, and the target before it is remembered.
FORWARD = 10_000_000_000
#: After a larger step back, nanoseconds, every watermark is checked again.
BACK = 1_000_000_000


def corrected(watermark: int, now: int, begin: int, trusted: int | None = None) -> int:
    """Where reading continues: at the watermark, unless it is after `now`. All are nanoseconds since 1970.

    Never before `begin`, where the source begins: a watermark there is right even in the future. `trusted`: what was
    read before the clock was set forward, if that is known.
    """
    if watermark <= max(now, begin):
        return watermark
    back = now - (watermark - now)
    return max(begin, back if trusted is None else min(back, trusted))


class ClockWatch:
    """Finds steps of the wall clock, by comparing it with a clock that is never set."""

    def __init__(self, wall: int, steady: int) -> None:
        """Both in nanoseconds."""
        self._wall = wall
        self._steady = steady

    def jump(self, wall: int, steady: int) -> int:
        """By how much the wall clock was set since the last call, nanoseconds; positive: forward."""
        jump = (wall - self._wall) - (steady - self._steady)
        self._wall, self._steady = wall, steady
        return jump
