"""How a log record becomes text: for people, for a terminal, for machines (JSON lines), for systemd's journal.

Much of what is logged comes from outside: parts of payloads, servers' messages, names of topics, exceptions of
libraries. This module, and no other, escapes characters that are not printable, cuts long messages and replaces the
secrets of the configuration.
"""

import json
import logging
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from pipeline.printable import printable

LogFormat = Literal["auto", "text", "json", "journal"]
#: Longest message, characters, and the most lines of a traceback.
MAX_CHARACTERS = 4_000
MAX_TRACEBACK_LINES = 200
#: Prefix of each line of a traceback, so that none can be mistaken for a record.
TRACEBACK_INDENT = "  | "
HIDDEN = "***"
#: To the beginning of the line, and erase it: the live line of `pipeline start` stands there.
ERASE: Final = "\r\x1b[K"
#: Priorities of the journal. Source: sd-daemon(3).
_PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
#: Colours of levels on a terminal. Source: ECMA-48, SGR.
_COLOURS: Final = ((logging.ERROR, "31"), (logging.WARNING, "33"))


def facts(**values: str | int | None) -> dict[str, dict[str, str | int]]:
    """What a record is about, given as `extra` of a logging call: fields of JSON lines. None is left out.

    Names: stream, topic, partition, offset, last_offset, sink, source, measurement, url, status, reason, times.
    """
    return {"facts": {name: value for name, value in values.items() if value is not None}}


class LineFormatter(logging.Formatter):
    """One line for a record, with time (UTC), level and process. Holds the secrets of this process."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime
        self.secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Adds texts to replace."""
        self.secrets.update(filter(None, secrets))
        if self.secrets:
            longest_first = sorted(self.secrets, key=len, reverse=True)
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
        return "\n".join([self.formatMessage(record), *(TRACEBACK_INDENT + line for line in self.traceback(record))])

    def traceback(self, record: logging.LogRecord) -> list[str]:
        """The lines of a record's traceback."""
        if not record.exc_info:
            return []
        trace = self.formatException(record.exc_info).split("\n")
        half = MAX_TRACEBACK_LINES // 2
        if len(trace) > MAX_TRACEBACK_LINES:
            trace = [*trace[:half], "...", *trace[-half:]]
        return [self.clean(line) for line in trace]


class TerminalFormatter(LineFormatter):
    """Shorter lines, with the time of day and colours, above the live line."""

    def __init__(self, secrets: Iterable[str] = (), colours: bool = True) -> None:
        super().__init__(secrets)
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """One line for the record, and one for each line of its traceback."""
        level = f"{record.levelname:7}"
        colour = _by_level(_COLOURS, record.levelno, "")
        if colour and self._colours:
            level = f"\x1b[{colour}m{level}\x1b[m"
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        first = f"{clock} {level} {record.name}: {self.clean(record.getMessage())}"
        return ERASE + "\n".join([first, *(TRACEBACK_INDENT + line for line in self.traceback(record))])


class JsonFormatter(LineFormatter):
    """One JSON object a record, with what it is about as fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line. No field of `facts` replaces one of these."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        found: dict[str, Any] = {
            "time": f"{moment}.{record.msecs:03.0f}Z", "level": record.levelname.lower(),
            "process": record.name, "pid": record.process, "message": self.clean(record.getMessage())}
        about: Mapping[str, str | int] = getattr(record, "facts", {})
        for name, value in about.items():
            found.setdefault(name, self.clean(value) if isinstance(value, str) else value)
        if trace := self.traceback(record):
            found["traceback"] = trace
        return json.dumps(found, ensure_ascii=False)


class JournalFormatter(LineFormatter):
    """Lines for systemd's journal: it has the time itself, and reads the priority from the beginning of each."""

    def format(self, record: logging.LogRecord) -> str:
        """One line for the record, and one for each line of its traceback."""
        prefix = f"<{_by_level(_PRIORITIES, record.levelno, 7)}>"
        lines = [f"{record.name}: {self.clean(record.getMessage())}"]
        lines += [TRACEBACK_INDENT + line for line in self.traceback(record)]
        return "\n".join(prefix + line for line in lines)


def _by_level(values: Iterable[tuple[int, Any]], level: int, otherwise: Any) -> Any:
    return next((value for least, value in values if level >= least), otherwise)
