"""The last line of a terminal, which says what the pipeline does now; log lines appear above it.

Every process of the pipeline writes its log to the same terminal: each erases the line before it writes
(`TerminalFormatter`), and it is shown again soon.
"""

import os
import shutil
from collections import deque
from collections.abc import Sequence
from typing import Final, TextIO

from pipeline.log_formats import ERASE, LogFormat
from pipeline.logs import clean, has_live_line
from pipeline.supervisor.directions import SinkDirection, SourceDirection

#: Seconds between two looks of it, and those that its rates are of.
SHOW_SECONDS: Final = 0.5
RATE_SECONDS: Final = 3.0


class Rate:
    """The growth of a total per second, over the last RATE_SECONDS."""

    def __init__(self) -> None:
        self._totals: deque[tuple[float, int]] = deque()

    def add(self, total: int, now: float) -> float:
        """The rate with a new total. One that has become smaller counts from 0 again."""
        if self._totals and total < self._totals[-1][1]:
            self._totals.clear()
        self._totals.append((now, total))
        while len(self._totals) > 2 and now - self._totals[1][0] >= RATE_SECONDS:
            self._totals.popleft()
        began, first = self._totals[0]
        return (total - first) / (now - began) if now > began else 0.0


class LiveLine:
    """Shows the state of the directions, where there is a terminal."""

    def __init__(self, stream: TextIO, form: LogFormat) -> None:
        self._stream = stream
        self._is_shown = form in ("auto", "text") and has_live_line(stream, os.environ)
        self._at = 0.0
        self._rates: dict[str, Rate] = {}

    def show(self, directions: Sequence[SinkDirection | SourceDirection], now: float) -> bool:
        """Shows the line again if it is time to. False where there is none: progress is to be logged then."""
        if not self._is_shown:
            return False
        if now - self._at < SHOW_SECONDS:
            return True
        self._at = now
        states = []
        for direction in directions:
            rate = self._rates.setdefault(direction.coordinator, Rate())
            states.append(direction.state(None if (total := direction.total) is None else rate.add(total, now)))
        self._write(fitted(" | ".join(states), shutil.get_terminal_size().columns))
        return True

    def clear(self) -> None:
        """Removes the line, at the end."""
        if self._is_shown:
            self._write("")

    def _write(self, text: str) -> None:
        try:
            if os.tcgetpgrp(self._stream.fileno()) == os.getpgrp():  # else a shell has put it into the background
                self._stream.write(ERASE + clean(text))
                self._stream.flush()
        except (OSError, ValueError):
            self._is_shown = False  # the terminal is gone


def fitted(text: str, columns: int) -> str:
    """The text cut to one line of a terminal, whose last column stays empty."""
    most = max(10, columns - 1)
    return text if len(text) <= most else f"{text[:most - 1]}…"
