"""What is done with messages that are none, or do not fit: they are dropped, counted and logged, and harm nobody."""

import logging
import time
from collections.abc import Callable

#: Seconds between two lines about what was dropped.
TELL_SECONDS = 60.0


class Dropped:
    """What one process has dropped."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self.count = 0
        self._logger = logger
        self._clock = clock
        self._told_at = float("-inf")
        self._untold = 0

    def drop(self, sender: str, why: str) -> None:
        """Counts a message from `sender` ("" where that is not known). Logs the first, then one line a minute."""
        self.count += 1
        self._untold += 1
        now = self._clock()
        if now - self._told_at < TELL_SECONDS:
            return
        more = f" (and {self._untold - 1} more since the last such line)" if self._untold > 1 else ""
        self._logger.warning("dropped a message%s: %s%s. It comes from a process that is none of this pipeline, or has "
                             "another version or configuration", f" of {sender[:100]}" if sender else "", why, more)
        self._told_at, self._untold = now, 0
