"""How long the coordinator lets words on batches pile up before it looks at them. Pure: the clock is passed in.

A wake-up between encoders that fill the caches costs 0.25 ms of CPU, a word in a pile hundredths of it. But ingest
waits for what the coordinator answers: for room in a full window, and for "nothing is on its way" before a batch that
isn't full.
"""

#: Of a wider window so much counts, messages: it is wide for databases that answer late.
MOST_MESSAGES = 100_000
#: While less than an eighth of the window is on its way, seconds.
QUIET_SECONDS = 0.01
#: Otherwise the time in which this part of the window is settled, between these two.
PART = 0.25
LEAST_SECONDS = 0.002
MOST_SECONDS = 0.05


class ReportCoalescer:
    """Follows the rate at which messages are settled."""

    def __init__(self, window: int) -> None:
        """`window` is what may be on its way, in messages."""
        self._window = min(window, MOST_MESSAGES)
        self._settled = 0
        self._looked_at = 0.0

    def pause(self, settled: int, in_flight: int, now: float) -> float:
        """Seconds until the next look. `settled` is counted since the start; `now` in seconds, monotonic."""
        per_second = max(0, settled - self._settled) / max(now - self._looked_at, LEAST_SECONDS)
        self._settled, self._looked_at = settled, now
        if in_flight < self._window / 8 or not per_second:
            return QUIET_SECONDS
        return min(max(self._window * PART / per_second, LEAST_SECONDS), MOST_SECONDS)
