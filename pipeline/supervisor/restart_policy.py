"""When a process that died may start again, and when it is enough. Pure: the caller gives the time."""

from collections import deque

from pipeline.backoff import Backoff

#: Pauses before the second and later starts of one process in a row, seconds; the first comes at once.
FIRST_PAUSE_SECONDS, PAUSE_FACTOR, LONGEST_PAUSE_SECONDS = 0.25, 2.0, 5.0
#: A process that has lived so long begins anew with its pauses, seconds.
STEADY_SECONDS = 30.0
#: Deaths that are too many wait so long for an excuse, seconds: the coordinator may find a message to blame.
EXCUSE_SECONDS = 3.0
#: Deaths in a row before a first Hello that stop the pipeline: what fails at its start will fail again.
MAX_BOOT_FAILURES = 3


class RestartPolicy:
    """Counts the deaths of all processes of one pipeline."""

    def __init__(self, max_restarts: int, window_seconds: float) -> None:
        """More than `max_restarts` deaths within `window_seconds` are too many."""
        self._max = max_restarts
        self._window = window_seconds
        self._deaths: deque[float] = deque()
        #: Since when there are too many.
        self._too_many_since = float("inf")
        self._pauses: dict[str, Backoff] = {}
        self._boot_failures: dict[str, int] = {}

    def died(self, name: str, now: float, lived: float, booted: bool) -> float:
        """A process died after `lived` seconds; `booted`: it had said Hello. Returns the pause before its next start.

        `now` in seconds of any monotonic clock.
        """
        self._deaths.append(now)
        while now - self._deaths[0] > self._window:
            self._deaths.popleft()
        self._look(now)
        self._boot_failures[name] = 0 if booted else self._boot_failures.get(name, 0) + 1
        if lived >= STEADY_SECONDS or name not in self._pauses:
            self._pauses[name] = Backoff(FIRST_PAUSE_SECONDS, PAUSE_FACTOR, LONGEST_PAUSE_SECONDS, lambda: 1.0)
            return 0.0
        return self._pauses[name].next()

    @property
    def deaths(self) -> int:
        """Deaths within the window that ends with the last one."""
        return len(self._deaths)

    def excuse(self, name: str, deaths: int) -> None:
        """So many of the last deaths were a message's fault, not this process's: it may start at once."""
        for _ in range(min(deaths, len(self._deaths))):
            self._deaths.pop()
        self._pauses.pop(name, None)
        self._look(float("inf"))

    def _look(self, now: float) -> None:
        self._too_many_since = min(self._too_many_since, now) if len(self._deaths) > self._max else float("inf")

    def too_many(self, now: float) -> bool:
        """Whether the pipeline has to stop."""
        return now - self._too_many_since >= EXCUSE_SECONDS

    def fails_at_boot(self, name: str) -> bool:
        """Whether a process died so often before its first Hello that another try is of no use."""
        return self._boot_failures.get(name, 0) >= MAX_BOOT_FAILURES
