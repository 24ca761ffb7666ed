"""Logging of one process, on standard error: where it goes, which records, and repeated ones held back."""

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TextIO

from pipeline.log_formats import JournalFormatter, JsonFormatter, LineFormatter, LogFormat, TerminalFormatter


def setup_logging(process: str, level: str, secrets: Iterable[str] = (), form: LogFormat = "auto") -> logging.Logger:
    """Sets up and returns the logger of this process. Call once, at its start. `secrets` are never logged."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter_for(form, sys.stderr, os.environ, secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("WARNING")
    logger = logging.getLogger(process)
    logger.setLevel(level.upper())
    return logger


def use_log_options(logger: logging.Logger, level: str, form: LogFormat) -> None:
    """Changes what `setup_logging` has set up for this process."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, LineFormatter) and isinstance(handler, logging.StreamHandler):
            handler.setFormatter(formatter_for(form, handler.stream, os.environ, handler.formatter.secrets))
    logger.setLevel(level.upper())


def formatter_for(form: LogFormat, stream: TextIO, environ: Mapping[str, str], secrets: Iterable[str]) -> LineFormatter:
    """How records are written to a stream: "auto" is for the journal where systemd reads the stream."""
    if form == "json":
        return JsonFormatter(secrets)
    if form == "journal" or form == "auto" and _is_journal(stream, environ.get("JOURNAL_STREAM", "")):
        return JournalFormatter(secrets)
    if has_live_line(stream, environ):
        return TerminalFormatter(secrets, "NO_COLOR" not in environ)
    return LineFormatter(secrets)


def has_live_line(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal on which a line can be written again."""
    return _is_terminal(stream) and environ.get("TERM", "dumb") != "dumb"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (OSError, ValueError):  # closed
        return False


def _is_journal(stream: TextIO, named: str) -> bool:
    """Whether a stream is the one that systemd names as DEVICE:INODE. Source: systemd.exec(5), JOURNAL_STREAM."""
    try:
        about = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{about.st_dev}:{about.st_ino}"


def hide(secrets: Iterable[str]) -> None:
    """Replaces these texts, too, in what this process logs: a token that was read from a file, for example."""
    for formatter in _formatters():
        formatter.hide(secrets)


def clean(text: str) -> str:
    """A text as it would be logged: for errors that are printed or sent to another process."""
    return next(_formatters(), LineFormatter()).clean(text)


def error_line(text: str) -> str:
    """A line of an error that ends a command: for people; as a record, where the log is for machines."""
    formatter = next(_formatters(), None)
    if isinstance(formatter, JsonFormatter | JournalFormatter):
        return formatter.format(logging.LogRecord("pipeline", logging.ERROR, "", 0, "%s", (text,), None))
    return f"pipeline: error: {clean(text)}"


def _formatters() -> Iterator[LineFormatter]:
    return (handler.formatter for handler in logging.getLogger().handlers
            if isinstance(handler.formatter, LineFormatter))


class RepeatFilter:
    """Limits repeated log lines: each text once in `seconds`, and at most MAX_TEXTS different texts in that time."""

    #: Different texts that are logged within `seconds`.
    MAX_TEXTS: Final = 5
    #: Different texts that are counted, at most.
    MAX_COUNTED: Final = 100

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        #: Text -> when it was last allowed, in seconds of the caller's clock.
        self._allowed: dict[str, float] = {}
        #: Text -> how often it was held back since it was allowed last.
        self._held: dict[str, int] = {}
        #: How often the text that was allowed last had been held back before, as words that end its line; "" for never.
        self.times = ""

    def allows(self, text: str, now: float) -> bool:
        """True when `text` should be logged at `now` (seconds of any monotonic clock), followed by `times`."""
        self._allowed = {allowed: at for allowed, at in self._allowed.items() if now - at < self.seconds}
        if text in self._allowed or len(self._allowed) >= self.MAX_TEXTS:
            if text in self._held or len(self._held) < self.MAX_COUNTED:
                self._held[text] = self._held.get(text, 0) + 1
            return False
        self._allowed[text] = now
        held = self._held.pop(text, 0)
        self.times = f" (and {held} times more since the last such line)" if held else ""
        return True
