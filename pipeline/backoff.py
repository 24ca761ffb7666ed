"""Exponential backoff with full jitter. Pure: the caller sleeps, and gives the randomness."""

from collections.abc import Callable


class Backoff:
    """Pauses between tries: uniform between 0 and `initial * multiplier ** n`, never over `maximum` (all seconds).

    Source: "Exponential Backoff And Jitter", the "full jitter" variant.
    """

    def __init__(self, initial: float, multiplier: float, maximum: float, random: Callable[[], float]) -> None:
        self.initial = initial
        self.multiplier = multiplier
        self.maximum = maximum
        self._random = random
        self._ceiling = initial

    def next(self) -> float:
        """Seconds to wait before the next try."""
        ceiling = min(self._ceiling, self.maximum)
        self._ceiling = min(self._ceiling * self.multiplier, self.maximum)
        return ceiling * self._random()

    def reset(self) -> None:
        """Begins again at `initial`: the last try worked."""
        self._ceiling = self.initial
