"""Logging of one process: one line on standard error for each record, with time (UTC), level and process.

Much of what is logged comes from outside: parts of payloads, servers' messages, names of topics, exceptions of
libraries. This module, and no other, escapes characters that are not printable, cuts long messages and replaces the
secrets of the configuration.
"""

import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator

from pipeline.printable import printable

#: Longest message, characters, and the most lines of a traceback.
MAX_CHARACTERS = 4_000
MAX_TRACEBACK_LINES = 200
#: Prefix of each line of a traceback, so that none can be mistaken for a record.
TRACEBACK_INDENT = "  | "
HIDDEN = "***"


class LineFormatter(logging.Formatter):
    """Formats records as the module describes. Holds the secrets of this process."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Adds texts to replace."""
        self._secrets.update(filter(None, secrets))
        if self._secrets:
            longest_first = sorted(self._secrets, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def clean(self, text: str) -> str:
        """The text as one line, without secrets, at most MAX_CHARACTERS long."""
        text = text[:MAX_CHARACTERS * 2]  # longer than the result: a secret that is cut in two would not be found
        if self._pattern is not None:
            text = self._pattern.sub(HIDDEN, text)
        return printable(text, MAX_CHARACTERS)

    def format(self, record: logging.LogRecord) -> str:
        """One line for the record, and one for each line of its traceback."""
        record.message = self.clean(record.getMessage())
        record.asctime = self.formatTime(record, self.datefmt)
        lines = [self.formatMessage(record)]
        if record.exc_info:
            trace = self.formatException(record.exc_info).split("\n")
            half = MAX_TRACEBACK_LINES // 2
            if len(trace) > MAX_TRACEBACK_LINES:
                trace = [*trace[:half], "...", *trace[-half:]]
            lines += [TRACEBACK_INDENT + self.clean(line) for line in trace]
        return "\n".join(lines)


def setup_logging(process: str, level: str, secrets: Iterable[str] = ()) -> logging.Logger:
    """Sets up and returns the logger of this process. Call once, at its start. `secrets` are never logged."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("WARNING")
    logger = logging.getLogger(process)
    logger.setLevel(level.upper())
    return logger


def hide(secrets: Iterable[str]) -> None:
    """Replaces these texts, too, in what this process logs: a token that was read from a file, for example."""
    for formatter in _formatters():
        formatter.hide(secrets)


def clean(text: str) -> str:
    """A text as it would be logged: for errors that are printed or sent to another process."""
    return next(_formatters(), LineFormatter()).clean(text)


def _formatters() -> Iterator[LineFormatter]:
    return (handler.formatter for handler in logging.getLogger().handlers
            if isinstance(handler.formatter, LineFormatter))


class RepeatFilter:
    """Limits repeated log lines: each text once in `seconds`, and at most MAX_TEXTS different texts in that time."""

    #: Different texts that are logged within `seconds`.
    MAX_TEXTS = 5

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        #: Text -> when it was last allowed, in seconds of the caller's clock.
        self._allowed: dict[str, float] = {}

    def allows(self, text: str, now: float) -> bool:
        """True when `text` should be logged at `now` (seconds of any monotonic clock)."""
        self._allowed = {allowed: at for allowed, at in self._allowed.items() if now - at < self.seconds}
        if text in self._allowed or len(self._allowed) >= self.MAX_TEXTS:
            return False
        self._allowed[text] = now
        return True
