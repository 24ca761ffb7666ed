"""Exponential backoff with full jitter. Pure: the caller sleeps and provides the random numbers."""

import random
from collections.abc import Callable
from typing import Protocol


class BackoffOptions(Protocol):
    """The options of a configuration that make up a backoff; times in milliseconds."""

    @property
    def retry_backoff_ms(self) -> int: ...

    @property
    def retry_backoff_multiplier(self) -> float: ...

    @property
    def retry_backoff_max_ms(self) -> int: ...


class Backoff:
    """Pauses between tries: uniform between 0 and `initial * multiplier ** n`, at most `maximum` (all in seconds).

    Source: "Exponential Backoff And Jitter", the "full jitter" variant.
    """

    def __init__(self, initial: float, multiplier: float, maximum: float, uniform: Callable[[], float]) -> None:
        """`uniform` returns random numbers from 0 to 1."""
        self.initial = initial
        self.multiplier = multiplier
        self.maximum = maximum
        self._uniform = uniform
        self._ceiling = initial

    @classmethod
    def of(cls, config: BackoffOptions) -> "Backoff":
        """The backoff of an `[influxdb]` table, with random pauses."""
        return cls(config.retry_backoff_ms / 1000, config.retry_backoff_multiplier,
                   config.retry_backoff_max_ms / 1000, random.random)

    def next(self) -> float:
        """Seconds to wait before the next try."""
        ceiling = min(self._ceiling, self.maximum)
        self._ceiling = min(self._ceiling * self.multiplier, self.maximum)
        return ceiling * self._uniform()

    def reset(self) -> None:
        """Starts again at `initial`. Call after a success."""
        self._ceiling = self.initial
