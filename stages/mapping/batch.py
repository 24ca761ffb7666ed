"""What goes into an encoder and comes out of it: where the messages of a batch were, and their lines."""

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

from msgspec import Struct

from pipeline.wire.sink import Overwritten
from stages.mapping.records.series import Origin


class TooMuch(Exception):
    """The lines of a batch would take too much memory: its messages have to go in parts."""


class Rejected(NamedTuple):
    """A message of the batch, by its index there, that cannot become a point."""

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
        """Whether a backslash, or a line break in a string, stands somewhere: not every server reads those alike."""
        return b"\\" in self.body or self.body.count(b"\n") != self.points

    def messages_of(self, line: int) -> tuple[int, ...]:
        """The indices of the batch's messages that a line comes from."""
        return self.sources[line] if self.sources else (line,)


class Points(NamedTuple):
    """The points of a batch, those of one bucket after those of the other."""

    #: Measurement and tags of each; before them the bucket, where it isn't the configured one.
    heads: Sequence[str]
    times: Sequence[str]
    lines: Sequence[str]
    #: Of head and time of each. Points with different hashes are different ones.
    hashes: set[int]


def texts_of(times: Sequence[Any]) -> Sequence[str]:
    """Times, which are all texts or all numbers, as they stand in lines."""
    return times if times and isinstance(times[0], str) else list(map(str, times))


def series_of(head: str) -> str:
    """Measurement and tags of a head of `Points`."""
    return head.rpartition("\n")[2]


def hashes_of(heads: Sequence[str], times: Sequence[str]) -> set[int]:
    """See `Points`."""
    return set(map(hash, zip(heads, times, strict=True)))


class Encoded(Struct, frozen=True):
    """A batch as line protocol."""

    groups: list[Lines]
    rejects: list[Rejected]
    #: Messages that were left out on purpose.
    dropped: int = 0
    #: Points of the batch that took the place of others of it.
    overwritten: Overwritten = Overwritten()
    written: Points = Points((), (), (), set())

    @property
    def body(self) -> bytes:
        """All lines, those of one bucket after those of the other."""
        return b"".join([lines.body for lines in self.groups])

    def lines_of(self, message: int) -> Iterator[tuple[int, str, str, str, str]]:
        """The points, all of one message, as `stages.mapping.records.merge.Line`."""
        heads, times, lines, _ = self.written
        buckets = chain.from_iterable([repeat(group.bucket, group.points) for group in self.groups])
        for bucket, head, time, line in zip(buckets, heads, times, lines, strict=True):
            yield message, series_of(head), time, line, bucket

    @property
    def points(self) -> int:
        """How many lines there are."""
        return sum([lines.points for lines in self.groups])


class BatchOrigin(Struct, frozen=True):
    """Where the messages of a batch were; times in microseconds since 1970, None where the mapping does not ask."""

    partition: int = 0
    #: Offset of the first; the others follow it unless `offsets` has them.
    first: int = 0
    offsets: Sequence[int] | None = None
    timestamps: Sequence[int] | None = None
    arrival: int | None = None
    #: Of each message, the values of the headers in `header_tags`; None where the mapping has none.
    headers: Sequence[tuple[str, ...]] | None = None

    def of(self, index: int) -> Origin:
        """Where one message was."""
        return Origin(self.partition, self.offsets[index] if self.offsets else self.first + index,
                      self.timestamps[index] if self.timestamps else None, self.arrival,
                      self.headers[index] if self.headers else ())

    def alone(self, index: int) -> "BatchOrigin":
        """That of a batch with this message only."""
        one = self.of(index)
        return BatchOrigin(one.partition, one.offset, None, None if one.timestamp is None else [one.timestamp],
                           one.arrival, None if self.headers is None else [one.headers])
