"""`max_message_cpu_ms`: the CPU time of one message. Pure: whoever has a timer calls `tick`."""

import time
from collections.abc import Callable
from typing import Final

#: How often a call is interrupted before the process counts as hung: the user's code may catch everything.
MAX_INTERRUPTIONS: Final = 3


class TooSlow(BaseException):
    """A message takes too long; the text, if there is one, says what of it.

    It is no Exception, so that nobody on the way takes it for a message's usual fault.
    """


class CpuLimit:
    """Measures what is at work. To begin costs next to nothing: time is read when the timer ticks."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.process_time) -> None:
        """So long may a message take; `clock` gives CPU seconds."""
        self._seconds = seconds
        self._clock = clock
        self._number = self._seen = 0
        self._since = 0.0
        self._running = False
        #: When the call of the user's code that is at work has to end, and what is said of it then.
        self._call_until = 0.0
        self._call = ""
        self._interruptions = 0
        #: Has the process end after so many seconds of its own CPU time, 0: not. For code in C, which no tick
        #: interrupts.
        self.end_process_after: Callable[[float], object] = lambda seconds: None

    def begin_code_in_c(self) -> None:
        """Code that a message may keep busy for ever, and that cannot be interrupted, is at work from now on."""
        self.end_process_after(self._seconds)

    def end_code_in_c(self) -> None:
        """It has ended."""
        self.end_process_after(0)

    def begin_call(self, seconds: float, words: str) -> None:
        """A call of the user's code is at work from now on, which may last so long, also without using the CPU."""
        self._call_until = time.monotonic() + seconds
        self._call = words
        self._interruptions = 0

    def end_call(self) -> None:
        """It has ended."""
        self._call = ""

    @property
    def is_stuck(self) -> bool:
        """Whether a call of the user's code goes on although it was interrupted again and again."""
        return bool(self._call) and self._interruptions >= MAX_INTERRUPTIONS

    def begin(self) -> None:
        """A message, or a batch on a quick way, is at work from now on."""
        self._number += 1
        self._running = True

    def end(self) -> None:
        """Nothing is at work any more."""
        self._running = False

    def tick(self) -> None:
        """Raises TooSlow where the same has been at work for longer than it may, since the first tick that met it."""
        if self._call and time.monotonic() > self._call_until:
            self._interruptions += 1
            raise TooSlow(self._call)
        if not self._running:
            return
        now = self._clock()
        if self._number != self._seen:
            self._seen, self._since = self._number, now
        elif now - self._since > self._seconds:
            self._running = False
            raise TooSlow
