"""Logging of one process: a line of its own for each record on standard error, with the time (UTC), level and process.

Much of what is logged comes from outside: parts of payloads, servers' words, names of topics, texts of other libraries'
exceptions. So here, and nowhere else, everything that is no visible character becomes an escape, long messages are cut,
and the secrets of the configuration are replaced.
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
#: Before each line of a traceback, so that none can be taken for a record.
TRACEBACK_INDENT = "  | "
HIDDEN = "***"


class LineFormatter(logging.Formatter):
    """Formats records; see the module. Knows the secrets of this process."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Replaces these texts, too, from now on."""
        self._secrets.update(filter(None, secrets))
        if self._secrets:
            longest_first = sorted(self._secrets, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def clean(self, text: str) -> str:
        """A text as one line without secrets."""
        text = text[:MAX_CHARACTERS * 2]  # a secret that is cut in two is not found
        if self._pattern is not None:
            text = self._pattern.sub(HIDDEN, text)
        return printable(text, MAX_CHARACTERS)

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
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
    """The logger of this process. Call once, at its start. `secrets` are never logged."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("WARNING")
    logger = logging.getLogger(process)
    logger.setLevel(level.upper())
    return logger


def hide(secrets: Iterable[str]) -> None:
    """Has this process log these texts no more: of a token that was read from a file, for example."""
    for formatter in _formatters():
        formatter.hide(secrets)


def clean(text: str) -> str:
    """A text that may come from outside, as it would be logged: for errors that are printed or sent on."""
    return next(_formatters(), LineFormatter()).clean(text)


def _formatters() -> Iterator[LineFormatter]:
    return (handler.formatter for handler in logging.getLogger().handlers
            if isinstance(handler.formatter, LineFormatter))


class RepeatFilter:
    """Lets each text through once in `seconds`, and no more than a few different ones: texts may differ each time."""

    #: Different texts within the time.
    MOST = 5

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        #: When each was let through; seconds of the caller's clock.
        self._said: dict[str, float] = {}

    def allows(self, text: str, now: float) -> bool:
        """True when `text` should be logged at `now` (seconds of any monotonic clock)."""
        self._said = {said: at for said, at in self._said.items() if now - at < self.seconds}
        if text in self._said or len(self._said) >= self.MOST:
            return False
        self._said[text] = now
        return True
