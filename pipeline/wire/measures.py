"""Distributions of what is measured, with fixed buckets, as processes accumulate them and send them with their reports.

What is sent is what was measured since the last report.
"""

from bisect import bisect_left
from itertools import accumulate
from math import inf
from typing import Final

from msgspec import Struct

from pipeline.wire.common import Count

#: Upper bounds of the buckets of durations, seconds; of messages in a batch; of sizes, bytes. There is one more for the
#: values above the last.
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
                  300.0)
MESSAGES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5)
BYTES: Final = (100.0, 1e3, 5e3, 1e4, 5e4, 1e5, 5e5, 1e6, 5e6, 1e7, 5e7, 1e8)


class Histogram(Struct, array_like=True):
    """How often a value was in each bucket. Not frozen: it is accumulated."""

    #: One for each bound, and one for the values above; empty before the first value.
    counts: list[Count] = []
    sum: float = 0.0

    def observe(self, value: float, bounds: tuple[float, ...]) -> None:
        """Counts a value."""
        if not self.counts:
            self.counts = [0] * (len(bounds) + 1)
        self.counts[bisect_left(bounds, value)] += 1
        self.sum += value

    def add(self, more: "Histogram") -> None:
        """Adds what another one has counted, with the same bounds."""
        if not self.counts:
            self.counts = [0] * len(more.counts)
        if more.counts:
            self.counts = [ours + theirs for ours, theirs in zip(self.counts, more.counts, strict=True)]
            self.sum += more.sum

    def fits(self, bounds: tuple[float, ...]) -> bool:
        """Whether it may be one with these bounds."""
        return len(self.counts) in (0, len(bounds) + 1)

    def cumulative(self, bounds: tuple[float, ...]) -> list[tuple[float, int]]:
        """(upper bound, number of values up to it), the last with infinity."""
        counts = self.counts or [0] * (len(bounds) + 1)
        return list(zip([*bounds, inf], accumulate(counts), strict=True))
