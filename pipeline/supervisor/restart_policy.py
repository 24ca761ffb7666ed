"""When a process that died is restarted, and when the pipeline must stop instead. Pure: the caller gives the time."""

from collections import deque

from pipeline.backoff import Backoff

#: Pauses before the second and later restarts of one process, seconds; the first is immediate.
FIRST_PAUSE_SECONDS, PAUSE_FACTOR, LONGEST_PAUSE_SECONDS = 0.25, 2.0, 5.0
#: The pauses of a process that has lived so long start from the first again, seconds.
STEADY_SECONDS = 30.0
#: With too many deaths, the coordinator has this time to excuse them, seconds: a message may have caused them.
EXCUSE_SECONDS = 3.0
#: Deaths in a row before a first heartbeat that stop the pipeline: a process that fails at its start will fail again.
MAX_BOOT_FAILURES = 3


class RestartPolicy:
    """Counts the deaths of all processes of one pipeline."""

    def __init__(self, max_restarts: int, window_seconds: float) -> None:
        """More than `max_restarts` deaths within `window_seconds` are too many."""
        self.limit(max_restarts, window_seconds)
        self._deaths: deque[float] = deque()
        #: When there became too many.
        self._too_many_since = float("inf")
        self._pauses: dict[str, Backoff] = {}
        self._boot_failures: dict[str, int] = {}

    def limit(self, max_restarts: int, window_seconds: float) -> None:
        """More than `max_restarts` deaths within `window_seconds` are too many."""
        self._max = max_restarts
        self._window = window_seconds

    def died(self, name: str, now: float, lived: float, booted: bool) -> float:
        """A process died after `lived` seconds. Returns the pause before its restart, seconds.

        `now`: seconds of any monotonic clock; `booted`: it had sent a heartbeat.
        """
        self._deaths.append(now)
        while now - self._deaths[0] > self._window:
            self._deaths.popleft()
        self._check(now)
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
        """This number of the last deaths was caused by a message: they do not count, and the process may restart
        now."""
        for _ in range(min(deaths, len(self._deaths))):
            self._deaths.pop()
        self._pauses.pop(name, None)
        self._check(float("inf"))

    def _check(self, now: float) -> None:
        self._too_many_since = min(self._too_many_since, now) if len(self._deaths) > self._max else float("inf")

    def too_many(self, now: float) -> bool:
        """Whether the pipeline has to stop."""
        return now - self._too_many_since >= EXCUSE_SECONDS

    def fails_at_boot(self, name: str) -> bool:
        """Whether a process has died so often before its first heartbeat that another restart is useless."""
        return self._boot_failures.get(name, 0) >= MAX_BOOT_FAILURES
