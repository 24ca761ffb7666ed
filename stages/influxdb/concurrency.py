"""Limits the number of concurrent requests to one database. Pure: the clock is passed in.

Slow start: the limit doubles with each round of answers until one is slow. After that: additive increase,
multiplicative decrease. A circuit breaker stops sending, and so reading, but skips nothing: after a failure that does
not concern one batch alone, one request at a time checks whether the database works again.
"""

from pipeline.backoff import Backoff
from stages.influxdb.answers import Accepted, Answer, BadLines, OperatorNeeded, Retry, TooLarge

#: An answer slower than this many times the fastest one, and slower than SLOW_SECONDS, means an overloaded database.
#: InfluxDB 3 normally takes up to two seconds: it flushes its write-ahead log once a second.
SLOW_FACTOR = 8.0
SLOW_SECONDS = 3.0
DECREASE_OVERLOAD = 0.5
DECREASE_SLOW = 0.8
#: Share of a body that was too large that later ones may have.
SMALLER = 0.75


class ConcurrencyLimiter:
    """The state of one database, as seen by one writer process."""

    def __init__(self, most: int, backoff: Backoff, retry_after_max: float) -> None:
        """`most` requests at a time; a Retry-After is followed up to `retry_after_max` seconds."""
        #: Requests at a time, at most; may be changed.
        self.most = most
        self._backoff = backoff
        self._retry_after_max = retry_after_max
        self._limit = min(2.0, float(most))
        #: Nothing was slow, or failed, so far.
        self._slow_start = True
        self._fastest = float("inf")
        self._closed_until: float | None = None
        self.in_flight = 0
        #: Requests so far that the server has stored, or of which it named what is wrong with them.
        self.passed = 0
        #: Failures in a row.
        self.failures = 0
        #: The problem of the database; "" if there is none.
        self.problem = ""
        #: A person has to do something.
        self.paused = False
        #: Largest body that the server takes, as far as is known.
        self.max_bytes: int | None = None

    @property
    def limit(self) -> int:
        """Requests at a time now."""
        return 1 if self._closed_until is not None else int(self._limit)

    def allows(self, now: float) -> bool:
        """Whether a request may be sent at `now` (seconds, monotonic)."""
        if self._closed_until is not None and now < self._closed_until:
            return False
        return self.in_flight < self.limit

    def wait(self, now: float) -> float:
        """Seconds until a request may be sent again after a failure; 0 while nothing is wrong."""
        return max(0.0, self._closed_until - now) if self._closed_until is not None else 0.0

    def started(self) -> None:
        """Records that a request was sent."""
        self.in_flight += 1

    def answered(self, answer: Answer, size: int, seconds: float, now: float) -> None:
        """Handles the answer to, or the failure of, a request of `size` bytes after `seconds`."""
        self.in_flight -= 1
        if isinstance(answer, Retry | OperatorNeeded):
            self._close(answer, now)
            return
        self.passed += isinstance(answer, Accepted | BadLines)
        self.failures = 0
        self.problem, self.paused, self._closed_until = "", False, None
        self._backoff.reset()
        if isinstance(answer, TooLarge):
            self.max_bytes = min(self.max_bytes or size, max(1, int(size * SMALLER)))
            return
        self._fastest = min(self._fastest, seconds)
        if seconds > max(SLOW_SECONDS, self._fastest * SLOW_FACTOR):
            self._limit = max(1.0, self._limit * DECREASE_SLOW)
            self._slow_start = False
        else:
            self._limit = min(float(self.most), self._limit + (1.0 if self._slow_start else 1.0 / self._limit))

    def _close(self, answer: Retry | OperatorNeeded, now: float) -> None:
        self.failures += 1
        self._slow_start = False
        self.problem, self.paused = answer.message, isinstance(answer, OperatorNeeded)
        if isinstance(answer, Retry) and answer.reason in ("rate_limited", "unavailable", "timeout"):
            self._limit = max(1.0, self._limit * DECREASE_OVERLOAD)
        after = (answer.after or 0.0) if isinstance(answer, Retry) else 0.0
        after = min(after, self._retry_after_max)
        if self._closed_until is None or now >= self._closed_until:
            self._closed_until = now + max(self._backoff.next(), after)
        else:
            self._closed_until = max(self._closed_until, now + after)
