"""Messages that are malformed, or do not fit the pipeline, are dropped, counted and logged."""

import logging
import time
from collections.abc import Callable

#: Seconds between two log lines about dropped messages.
LOG_SECONDS = 60.0


class DroppedMessages:
    """The messages that one process has dropped."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self.count = 0
        self._logger = logger
        self._clock = clock
        self._logged_at = float("-inf")
        self._not_logged = 0

    def drop(self, sender: str, reason: str) -> None:
        """Counts a message from `sender` ("" where that is not known). Logs the first, then one line a minute."""
        self.count += 1
        self._not_logged += 1
        now = self._clock()
        if now - self._logged_at < LOG_SECONDS:
            return
        more = f" (and {self._not_logged - 1} more since the last such line)" if self._not_logged > 1 else ""
        self._logger.warning("dropped a message%s: %s%s. It was sent by a process of another pipeline, or of another "
                             "version or configuration", f" from {sender[:100]}" if sender else "", reason, more)
        self._logged_at, self._not_logged = now, 0
