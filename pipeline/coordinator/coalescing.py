"""Delay before the coordinator handles queued batch reports. Pure: the clock is passed in.

Each wake-up costs about 0.25 ms of CPU because the encoders have evicted its caches; one more report in the same
wake-up costs about 1 % of that. But ingest waits for the coordinator's answers: for credit when the window is full, and
for the report that nothing is in flight before it sends a batch that is not full.
"""

#: Window size is capped at this many messages here: larger windows exist only to hide slow acknowledgements.
MAX_WINDOW_MESSAGES = 100_000
#: Delay while less than an eighth of the window is in flight, seconds.
IDLE_SECONDS = 0.01
#: Otherwise the time in which this share of the window is settled, between these two bounds.
SHARE = 0.25
MIN_SECONDS = 0.002
MAX_SECONDS = 0.05


class ReportCoalescer:
    """Follows the rate at which messages are settled."""

    def __init__(self, window: int) -> None:
        """`window`: most messages that may be in flight."""
        self._window = min(window, MAX_WINDOW_MESSAGES)
        self._settled = 0
        self._handled_at = 0.0

    def pause(self, settled: int, in_flight: int, now: float) -> float:
        """Seconds until reports are handled next. `settled`: messages since the start; `now`: seconds, monotonic."""
        per_second = max(0, settled - self._settled) / max(now - self._handled_at, MIN_SECONDS)
        self._settled, self._handled_at = settled, now
        if in_flight < self._window / 8 or not per_second:
            return IDLE_SECONDS
        return min(max(self._window * SHARE / per_second, MIN_SECONDS), MAX_SECONDS)
