"""The lines of one batch: the body as the encoder made it, its lines and their times, and bodies of some of them. Pure.
"""

from collections.abc import Sequence

from pipeline import compression
from stages.influxdb import body
from stages.influxdb.retention import times_of


class Content:
    """Parsed only when it is needed: most batches are stored as they are."""

    def __init__(self, encoded: bytes, points: int, gzip: bool, unit: int) -> None:
        """`encoded`: the body, of `points` lines. `unit`: nanoseconds of the unit of the lines' times."""
        self.encoded = encoded
        self._points = points
        self._gzip = gzip
        self._unit = unit
        self._lines: list[bytes] | None = None
        self._times: list[int | None] | None = None

    def lines(self) -> list[bytes]:
        """All lines. Raises ValueError, EOFError or zlib.error if the body is invalid."""
        if self._lines is None:
            plain = compression.decompress(self.encoded) if self._gzip else self.encoded
            self._lines = body.split_lines(plain, self._points)
        return self._lines

    def times(self) -> list[int | None]:
        """The times of all lines, nanoseconds since 1970; None for a line without one. Raises as `lines`."""
        if self._times is None:
            self._times = times_of(self.lines(), self._unit)
        return self._times

    def text(self, line: int) -> str:
        """One line, for a dead letter."""
        return self.lines()[line].decode("utf-8", "replace")

    def body_of(self, indices: Sequence[int]) -> bytes:
        """The body of a request with these lines."""
        lines = self.lines()
        plain = b"".join([lines[index] + b"\n" for index in indices])
        return compression.compress(plain) if self._gzip else plain

    def halves(self, indices: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """Two parts of about half the bytes each, of two lines or more."""
        lines = self.lines()
        half = sum(len(lines[index]) + 1 for index in indices) / 2
        size = at = 0
        while at < len(indices) - 1 and (size < half or at == 0):
            size += len(lines[indices[at]]) + 1
            at += 1
        return indices[:at], indices[at:]

    def by_age(self, indices: Sequence[int], oldest: int) -> tuple[Sequence[int], Sequence[int]]:
        """The so many `oldest` lines, and the rest, both in their order."""
        times = self.times()
        by_time = sorted(indices, key=lambda index: (times[index] is None, times[index] or 0))
        return sorted(by_time[:oldest]), sorted(by_time[oldest:])
