"""For processes whose PYTHONPATH begins with this folder: a wall clock that a test can set.

It is ahead by as many seconds as the file that CLOCK_OFFSET_FILE names says. Clocks that nobody can set stay as they
are.
"""

import os
import time

_real_time, _real_time_ns = time.time, time.time_ns


def _offset() -> int:
    """Nanoseconds."""
    with open(os.environ["CLOCK_OFFSET_FILE"], encoding="ascii") as file:
        return int(float(file.read() or 0) * 1e9)


time.time = lambda: _real_time() + _offset() / 1e9
time.time_ns = lambda: _real_time_ns() + _offset()
