"""`max_message_cpu_ms`: the CPU time of one message. Pure: whoever has a timer calls `tick`."""

import time
from collections.abc import Callable


class TooSlow(BaseException):
    """A message takes too long. It is no Exception, so that nobody on the way takes it for a message's usual fault."""


class CpuLimit:
    """Measures what is at work. To begin costs next to nothing: time is read when the timer ticks."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.process_time) -> None:
        """So long may a message take; `clock` gives CPU seconds."""
        self._seconds = seconds
        self._clock = clock
        self._number = self._seen = 0
        self._since = 0.0
        self._running = False

    def begin(self) -> None:
        """A message, or a batch on a quick way, is at work from now on."""
        self._number += 1
        self._running = True

    def end(self) -> None:
        """Nothing is at work any more."""
        self._running = False

    def tick(self) -> None:
        """Raises TooSlow where the same has been at work for longer than it may, since the first tick that met it."""
        if not self._running:
            return
        now = self._clock()
        if self._number != self._seen:
            self._seen, self._since = self._number, now
        elif now - self._since > self._seconds:
            self._running = False
            raise TooSlow
