"""Finds requests that take long, so that they are logged while they last. Pure: the clock is passed in."""

from typing import Generic, TypeVar

#: A request is logged after this time, or half of its limit, seconds.
LONG_SECONDS = 10.0
#: Interval after which it is logged again, seconds.
REMIND_SECONDS = 10.0

K = TypeVar("K")


class RequestsWatch(Generic[K]):
    """The requests in flight at one database, by key."""

    def __init__(self, most_seconds: float) -> None:
        """`most_seconds` is the limit of a request."""
        self._long = min(LONG_SECONDS, most_seconds / 2)
        #: key -> when it was sent, and when it is due to be logged.
        self._sent: dict[K, tuple[float, float]] = {}

    def sent(self, key: K, now: float) -> None:
        """Records that a request was sent at `now` (seconds, monotonic)."""
        self._sent[key] = now, now + self._long

    def ended(self, key: K) -> None:
        """Records that a request was answered, or exceeded its limit."""
        self._sent.pop(key, None)

    def has_long(self, now: float) -> bool:
        """Whether any request takes long."""
        return any(now - began >= self._long for began, _ in self._sent.values())

    def due(self, now: float) -> list[tuple[K, float]]:
        """The requests to log now, each with its seconds so far."""
        found = [(key, now - began) for key, (began, at) in self._sent.items() if now >= at]
        for key, _ in found:
            self._sent[key] = self._sent[key][0], now + REMIND_SECONDS
        return found
