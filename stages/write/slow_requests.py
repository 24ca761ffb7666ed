"""Finds requests that take long, for a log line while they do. Pure: the clock is passed in."""

from typing import Generic, TypeVar

#: A request that takes longer is logged, seconds; at most half of its deadline.
SLOW_SECONDS = 10.0
#: Seconds between two log lines about one request.
REMIND_SECONDS = 10.0

K = TypeVar("K")


class SlowRequests(Generic[K]):
    """The requests in flight to one database, by a key."""

    def __init__(self, deadline_seconds: float) -> None:
        """A request fails after `deadline_seconds`."""
        self._slow_seconds = min(SLOW_SECONDS, deadline_seconds / 2)
        #: key -> when it was sent, and when it is to be logged.
        self._sent: dict[K, tuple[float, float]] = {}

    def started(self, key: K, now: float) -> None:
        """A request is in flight from `now` on (seconds, monotonic)."""
        self._sent[key] = now, now + self._slow_seconds

    def ended(self, key: K) -> None:
        """A request was answered, or has failed."""
        self._sent.pop(key, None)

    def any(self, now: float) -> bool:
        """Whether any request is slow."""
        return any(now - began >= self._slow_seconds for began, _ in self._sent.values())

    def to_log(self, now: float) -> list[tuple[K, float]]:
        """The requests to log now, each with its seconds so far: once it is slow, and again from time to time."""
        due = [(key, now - began) for key, (began, at) in self._sent.items() if now >= at]
        for key, _ in due:
            self._sent[key] = self._sent[key][0], now + REMIND_SECONDS
        return due
