"""Input and output of an encoder: the origin of a batch's messages, and their lines."""

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

from msgspec import Struct

from pipeline.wire.sink import Overwritten
from stages.mapping.records.series import Origin


class TooMuch(Exception):
    """The lines of a batch would take too much memory: its messages have to be encoded in parts."""


class Rejected(NamedTuple):
    """A message of the batch, by its index, that cannot become a point."""

    at: int
    reason: str
    detail: str


class Lines(NamedTuple):
    """The lines for one bucket; "" is the configured one."""

    bucket: str
    #: The lines, each ending in a line break.
    body: bytes
    points: int
    #: Of each line, the indices of the messages it comes from; None where line i comes from message i.
    sources: list[tuple[int, ...]] | None

    @property
    def escapes(self) -> bool:
        """Whether there is a backslash, or a line break in a string: servers parse these differently."""
        return b"\\" in self.body or self.body.count(b"\n") != self.points

    def messages_of(self, line: int) -> tuple[int, ...]:
        """The indices of the batch's messages that a line comes from."""
        return self.sources[line] if self.sources else (line,)


class Points(NamedTuple):
    """The points of a batch, bucket by bucket."""

    #: Series key of each; prefixed with the bucket if it is not the configured one.
    heads: Sequence[str]
    times: Sequence[str]
    lines: Sequence[str]
    #: Hashes of head and time of each. Points with different hashes are different.
    hashes: set[int]


def texts_of(times: Sequence[Any]) -> Sequence[str]:
    """Times, which are all texts or all numbers, as texts."""
    return times if times and isinstance(times[0], str) else list(map(str, times))


def series_of(head: str) -> str:
    """The series key of a head of `Points`."""
    return head.rpartition("\n")[2]


def hashes_of(heads: Sequence[str], times: Sequence[str]) -> set[int]:
    """The hashes of `Points`."""
    return set(map(hash, zip(heads, times, strict=True)))


class Encoded(Struct, frozen=True):
    """A batch as line protocol."""

    groups: list[Lines]
    rejects: list[Rejected]
    #: Messages that the mapping left out.
    dropped: int = 0
    #: Points of the batch that overwrite others of it.
    overwritten: Overwritten = Overwritten()
    written: Points = Points((), (), (), set())

    @property
    def body(self) -> bytes:
        """All lines, bucket by bucket."""
        return b"".join([lines.body for lines in self.groups])

    def lines_of(self, message: int) -> Iterator[tuple[int, str, str, str, str]]:
        """The points, all of one message, as `stages.mapping.records.merge.Line`."""
        heads, times, lines, _ = self.written
        buckets = chain.from_iterable([repeat(group.bucket, group.points) for group in self.groups])
        for bucket, head, time, line in zip(buckets, heads, times, lines, strict=True):
            yield message, series_of(head), time, line, bucket

    @property
    def points(self) -> int:
        """Number of lines."""
        return sum([lines.points for lines in self.groups])


class BatchOrigin(Struct, frozen=True):
    """Places and times of a batch's messages; times in microseconds since 1970, None if the mapping does not need
    them."""

    partition: int = 0
    #: Offset of the first message; the others are contiguous unless `offsets` is given.
    first: int = 0
    offsets: Sequence[int] | None = None
    timestamps: Sequence[int] | None = None
    arrival: int | None = None
    #: For each message, the values of the headers in `header_tags`; None if the mapping has none.
    headers: Sequence[tuple[str, ...]] | None = None

    def of(self, index: int) -> Origin:
        """The origin of one message."""
        return Origin(self.partition, self.offsets[index] if self.offsets else self.first + index,
                      self.timestamps[index] if self.timestamps else None, self.arrival,
                      self.headers[index] if self.headers else ())

    def after(self, count: int) -> "BatchOrigin":
        """The origin of the messages after the first `count`, of which there may be none."""
        def rest(values: Sequence[Any] | None) -> Sequence[Any] | None:
            return None if values is None else values[count:]

        return BatchOrigin(self.partition, self.first + count, rest(self.offsets), rest(self.timestamps), self.arrival,
                           rest(self.headers))

    def alone(self, index: int) -> "BatchOrigin":
        """The origin of a batch with this message only."""
        one = self.of(index)
        return BatchOrigin(one.partition, one.offset, None, None if one.timestamp is None else [one.timestamp],
                           one.arrival, None if self.headers is None else [one.headers])
