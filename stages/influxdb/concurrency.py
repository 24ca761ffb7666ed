"""Limits the requests that one database gets at a time. Pure: the clock is passed in.

Slow start: the limit doubles with every round of answers until one is slow; then additive increase, multiplicative
decrease. And a circuit breaker: after a failure that is not caused by one batch nothing is sent for a while, and then
one request at a time, until one is answered. Nothing is skipped; while nothing is sent, reading stops, too.
"""

from pipeline.backoff import Backoff
from stages.influxdb.answers import Accepted, Answer, BadLines, OperatorNeeded, Retry, TooLarge

#: An answer slower than this many times the fastest (and than SLOW_SECONDS) means that the database is overloaded.
#: InfluxDB 3 needs up to two seconds normally: it flushes its write-ahead log once a second.
SLOW_FACTOR = 8.0
SLOW_SECONDS = 3.0
DECREASE_OVERLOAD = 0.5
DECREASE_SLOW = 0.8
#: Largest later body, as a part of one that was too large.
SHRINK_FACTOR = 0.75


class ConcurrencyLimiter:
    """The state of one database in one process."""

    def __init__(self, max_in_flight: int, backoff: Backoff, retry_after_max: float) -> None:
        """A Retry-After is followed up to `retry_after_max` seconds."""
        #: Most requests at a time; may be changed.
        self.max_in_flight = max_in_flight
        self._backoff = backoff
        self._retry_after_max = retry_after_max
        self._limit = min(2.0, float(max_in_flight))
        #: No request was slow or failed so far.
        self._slow_start = True
        self._fastest = float("inf")
        #: The circuit breaker is open: the time from which on one request is tried. None: it is closed.
        self._open_until: float | None = None
        self.in_flight = 0
        #: Requests so far that the server has stored, or whose bad lines it has identified.
        self.acknowledged = 0
        #: Failures in a row.
        self.failures = 0
        #: The message of the last failure; "" after a success.
        self.problem = ""
        #: The operator has to act.
        self.paused = False
        #: Largest body that the server accepts, bytes; None: no limit is known.
        self.max_bytes: int | None = None

    @property
    def limit(self) -> int:
        """The number of requests at a time now."""
        return 1 if self._open_until is not None else int(self._limit)

    def allows(self, now: float) -> bool:
        """Whether a request may be sent at `now` (seconds, monotonic)."""
        if self._open_until is not None and now < self._open_until:
            return False
        return self.in_flight < self.limit

    def retry_now(self) -> None:
        """Ends the pause after a failure: its cause may have gone."""
        if self._open_until is not None:
            self._open_until = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until a request may be sent again after a failure; 0 without one."""
        return max(0.0, self._open_until - now) if self._open_until is not None else 0.0

    def started(self) -> None:
        """A request is in flight."""
        self.in_flight += 1

    def answered(self, answer: Answer, size: int, seconds: float, now: float) -> None:
        """A request of `size` bytes was answered, or has failed, after `seconds`."""
        self.in_flight -= 1
        if isinstance(answer, Retry | OperatorNeeded):
            self._trip(answer, now)
            return
        self.acknowledged += isinstance(answer, Accepted | BadLines)
        self.failures = 0
        self.problem, self.paused, self._open_until = "", False, None
        self._backoff.reset()
        if isinstance(answer, TooLarge):
            self.max_bytes = min(self.max_bytes or size, max(1, int(size * SHRINK_FACTOR)))
            return
        self._fastest = min(self._fastest, seconds)
        if seconds > max(SLOW_SECONDS, self._fastest * SLOW_FACTOR):
            self._limit = max(1.0, self._limit * DECREASE_SLOW)
            self._slow_start = False
        else:
            self._limit = min(float(self.max_in_flight), self._limit + (1.0 if self._slow_start else 1.0 / self._limit))

    def _trip(self, answer: Retry | OperatorNeeded, now: float) -> None:
        """Opens the circuit breaker. Requests that were in flight then do not prolong the pause."""
        self.failures += 1
        self._slow_start = False
        self.problem, self.paused = answer.message, isinstance(answer, OperatorNeeded)
        if isinstance(answer, Retry) and answer.reason in ("rate_limited", "unavailable", "timeout"):
            self._limit = max(1.0, self._limit * DECREASE_OVERLOAD)
        after = (answer.after or 0.0) if isinstance(answer, Retry) else 0.0
        after = min(after, self._retry_after_max)
        if self._open_until is None or now >= self._open_until:
            self._open_until = now + max(self._backoff.next(), after)
        else:
            self._open_until = max(self._open_until, now + after)
