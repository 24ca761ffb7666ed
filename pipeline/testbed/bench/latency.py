"""Latencies in an HdrHistogram: from when a message was meant to be sent to when its point was acknowledged. Pure."""

import importlib
import re
from collections import Counter
from typing import Any, Final

from pipeline.errors import PipelineError, missing_package

#: Units of a millisecond that are distinguished.
UNITS_PER_MS: Final = 10
#: Longest latency that is distinguished from longer ones, an hour, in units.
LONGEST: Final = 3_600_000 * UNITS_PER_MS
#: Significant digits that are kept.
DIGITS: Final = 3
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 100.0)
#: The time at the end of a line.
_TIME: Final = re.compile(rb" (\d+)\n")


class Latencies:
    """All latencies, and those of each second in which they were acknowledged."""

    def __init__(self, encoded: str = "") -> None:
        """Empty, or from `encoded`. Raises PipelineError where the package hdrhistogram is missing."""
        try:
            histogram: Any = importlib.import_module("hdrh.histogram").HdrHistogram
        except ImportError:
            raise PipelineError(f"the benchmark {missing_package('hdrhistogram', 'bench')}") from None
        self._all: Any = histogram.decode(encoded) if encoded else histogram(1, LONGEST, DIGITS)
        self._by_second: dict[int, Counter[int]] = {}

    def add(self, body: bytes, acknowledged_us: int) -> int:
        """Counts the lines of a body, whose times are in microseconds since 1970. Returns how many there are."""
        per_unit = 1_000 // UNITS_PER_MS
        counts = Counter([(acknowledged_us - int(time)) // per_unit for time in _TIME.findall(body)])
        second = self._by_second.setdefault(acknowledged_us // 1_000_000, Counter())
        for units, count in counts.items():
            bounded = min(max(units, 1), LONGEST)
            self._all.record_value(bounded, count)
            second[bounded] += count
        return counts.total()

    def encoded(self) -> str:
        """The histogram in HdrHistogram's own text form."""
        return str(self._all.encode().decode())

    def milliseconds(self) -> dict[str, float]:
        """"p50", "p90", "p99", "p99.9" and "max" in milliseconds; empty where nothing was counted."""
        if not self._all.get_total_count():
            return {}
        names = ["max" if p == 100 else f"p{p:g}" for p in PERCENTILES]
        return {name: round(self._all.get_value_at_percentile(p) / UNITS_PER_MS, 1)
                for name, p in zip(names, PERCENTILES, strict=True)}

    def by_second(self) -> list[tuple[int, int, float, float]]:
        """(second since 1970, points, p50, p99) of each second in which points were acknowledged; milliseconds."""
        return [(second, counts.total(), _percentile(counts, 0.5), _percentile(counts, 0.99))
                for second, counts in sorted(self._by_second.items())]


def _percentile(counts: Counter[int], part: float) -> float:
    wanted, seen = part * counts.total(), 0
    for units, count in sorted(counts.items()):
        seen += count
        if seen >= wanted:
            return units / UNITS_PER_MS
    return 0.0
