"""About how long it takes until a source has caught up, from how its share has grown lately. Pure."""

from collections import deque
from typing import Final

#: The growth of so many seconds counts: long enough for windows of different widths, short enough to notice an outage.
LOOK_BACK_SECONDS: Final = 300.0
#: Pause between two remembered shares, seconds, and the time after which the first estimate is made.
SAMPLE_SECONDS: Final = 2.0


class Progress:
    """The shares of one source, as of `Source.share`, over the last minutes."""

    def __init__(self) -> None:
        #: (time, share), oldest first.
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, share: float, now: float) -> None:
        """Remembers the share at `now`, monotonic seconds. A smaller one (a new measurement was found) begins anew."""
        if self._samples and share < self._samples[-1][1]:
            self._samples.clear()
        if not self._samples or now - self._samples[-1][0] >= SAMPLE_SECONDS:
            self._samples.append((now, share))
        while len(self._samples) > 2 and now - self._samples[1][0] >= LOOK_BACK_SECONDS:
            self._samples.popleft()

    def seconds_left(self, share: float, now: float) -> float | None:
        """Seconds until the share is 1, if it goes on growing as it has; None while that cannot be told."""
        if share >= 1.0:
            return 0.0
        if not self._samples:
            return None
        began, first = self._samples[0]
        if now - began < SAMPLE_SECONDS or share <= first or share <= 0.0:
            return None
        return (1.0 - share) * (now - began) / (share - first)
