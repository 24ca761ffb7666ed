"""What goes into an encoder and comes out of it: where the messages of a batch were, and their lines."""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from stages.mapping.head import Origin


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
    def backslashes(self) -> bool:
        """Whether two are in a row somewhere: not every server reads those in the same way."""
        return b"\\" in self.body and b"\\\\" in self.body  # for one it is looked 40 times as fast as for two


class Encoded(Struct, frozen=True):
    """A batch as line protocol."""

    groups: list[Lines]
    rejects: list[Rejected]
    #: Messages that were left out on purpose.
    dropped: int = 0

    @property
    def body(self) -> bytes:
        """All lines, those of one bucket after those of the other."""
        return b"".join([lines.body for lines in self.groups])

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


def joined(messages: Sequence[Encoded]) -> Encoded:
    """The messages of a batch that were encoded one by one, as one; merged is only what each of them holds."""
    by_bucket: dict[str, list[tuple[int, Lines]]] = {}
    for index, encoded in enumerate(messages):
        for lines in encoded.groups:
            by_bucket.setdefault(lines.bucket, []).append((index, lines))
    return Encoded(
        [Lines(bucket, b"".join([lines.body for _, lines in some]), sum([lines.points for _, lines in some]),
               [(index,) for index, lines in some for _ in range(lines.points)])
         for bucket, some in by_bucket.items()],
        [Rejected(index, reason, detail) for index, encoded in enumerate(messages)
         for _, reason, detail in encoded.rejects],
        sum([encoded.dropped for encoded in messages]))
