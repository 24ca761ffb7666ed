"""Finds requests that last: those that a person should know of while they do. Pure: the clock is passed in."""

from typing import Generic, TypeVar

#: A request that lasts for longer is named, seconds; at most half of what it may take.
LONG_SECONDS = 10.0
#: And again after so long, seconds.
REMIND_SECONDS = 10.0

K = TypeVar("K")


class RequestsWatch(Generic[K]):
    """The requests under way at one database; a key names each."""

    def __init__(self, most_seconds: float) -> None:
        """A request is given up after `most_seconds`."""
        self._long = min(LONG_SECONDS, most_seconds / 2)
        #: key -> when it was sent, and when it is to be named.
        self._sent: dict[K, tuple[float, float]] = {}

    def sent(self, key: K, now: float) -> None:
        """A request is under way from `now` on (seconds, monotonic)."""
        self._sent[key] = now, now + self._long

    def ended(self, key: K) -> None:
        """It was answered, or given up."""
        self._sent.pop(key, None)

    def lasts(self, now: float) -> bool:
        """Whether any request lasts for long."""
        return any(now - began >= self._long for began, _ in self._sent.values())

    def to_name(self, now: float) -> list[tuple[K, float]]:
        """The requests to name now, each with the seconds that it lasts: once, and again from time to time."""
        due = [(key, now - began) for key, (began, at) in self._sent.items() if now >= at]
        for key, _ in due:
            self._sent[key] = self._sent[key][0], now + REMIND_SECONDS
        return due
