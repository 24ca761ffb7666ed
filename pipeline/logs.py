"""Logging of one process: plain lines on standard error with the time (UTC), the level and the process."""

import logging
import sys
import time


def setup_logging(process: str, level: str) -> logging.Logger:
    """The logger of this process. Call once, at its start."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("WARNING")
    logger = logging.getLogger(process)
    logger.setLevel(level.upper())
    return logger


class Muffler:
    """Lets a repeated message through when it changes, and otherwise at most every `seconds`."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self._last = ""
        self._at = float("-inf")

    def allows(self, text: str, now: float) -> bool:
        """True when `text` should be logged at `now` (seconds of any monotonic clock)."""
        if text == self._last and now - self._at < self.seconds:
            return False
        self._last, self._at = text, now
        return True
