"""The lines of several batches of one sink as one message to a writer."""

from collections.abc import Sequence

from msgspec import Struct

from pipeline.compression import compress
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire.frames import cut
from stages.mapping.batch import Lines


class _Bucket(Struct):
    """What goes to one bucket."""

    bodies: list[bytes]
    points: int
    #: As in `wire.BucketLines`.
    messages: list[tuple[int, ...]] | None
    escapes: bool


class SharedLines:
    """Collects the lines of batches. Those of one batch alone are not copied."""

    def __init__(self) -> None:
        self._parts: list[wire.LinesPart] = []
        self._buckets: dict[str, _Bucket] = {}
        #: Messages of the batches so far.
        self._messages = 0

    def add(self, part: wire.LinesPart, groups: Sequence[Lines]) -> None:
        """Adds a batch, which has at least one line."""
        self._parts.append(part)
        for lines in groups:
            bucket = self._buckets.get(lines.bucket)
            if bucket is None and not self._messages:
                self._buckets[lines.bucket] = _Bucket([lines.body], lines.points, lines.sources, lines.escapes)
                continue
            if bucket is None:
                bucket = self._buckets[lines.bucket] = _Bucket([], 0, [], False)
            self._append(bucket, lines)
        self._messages += part.messages

    def _append(self, bucket: _Bucket, lines: Lines) -> None:
        """Adds the lines of a batch that is not the first. Line i stays that of message i where it is so in all."""
        if bucket.messages is not None or lines.sources is not None or bucket.points != self._messages:
            if bucket.messages is None:
                bucket.messages = [(index,) for index in range(bucket.points)]
            first = self._messages
            if lines.sources is None:
                bucket.messages += [(first + index,) for index in range(lines.points)]
            else:
                bucket.messages += [tuple([first + index for index in indices]) for indices in lines.sources]
        bucket.bodies.append(lines.body)
        bucket.points += lines.points
        bucket.escapes |= lines.escapes

    def frames(self, gzip: bool) -> list[bytes]:
        """The frames for the writer."""
        bodies = [b"".join(bucket.bodies) if len(bucket.bodies) > 1 else bucket.bodies[0]
                  for bucket in self._buckets.values()]
        head = wire.Lines(self._parts, [wire.BucketLines(name, bucket.points, bucket.messages, bucket.escapes)
                                        for name, bucket in self._buckets.items()])
        return cut([common.encode(head), *(map(compress, bodies) if gzip else bodies)])
