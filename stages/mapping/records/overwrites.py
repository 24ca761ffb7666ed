"""Counts points that overwrite others: InfluxDB keeps one for each measurement, tag set and time.

Within a batch all of them are counted (`records.merge`). Between batches, points are compared with the last points of
the same encoder; older points, and those of other encoders, are not seen.
"""

from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from pipeline.wire.sink import Overwritten
from stages.mapping.batch import BatchOrigin, Encoded, Points, series_of
from stages.mapping.records.merge import Merged, fields_of

#: Most points kept for comparison: the last ones of a batch, all of them; and most batches and bytes of lines. Some
#: points of the last batch are always kept.
_LAST_POINTS: Final = 250
_MAX_POINTS: Final = 1_000
_MAX_BATCHES: Final = 100
_MAX_BYTES: Final = 4_000_000
#: Most points kept after a point that overwrites another was found: comparing more of them costs time only then.
_MAX_POINTS_AFTER_HIT: Final = 20_000
#: Longest series key in an example, characters.
_SHOWN_CHARS: Final = 200


class Place(NamedTuple):
    """The place of a message."""

    #: "stream/topic".
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic} partition {self.partition} offset {self.offset}"


def example(earlier: Place, later: Place, head: str, time: str) -> str:
    """The description of a point that overwrites another."""
    point = f"the point {head if len(head) <= _SHOWN_CHARS else head[:_SHOWN_CHARS] + '...'} at {time}"
    if earlier == later:
        return f"{later} makes {point} more than once"
    if earlier[:2] == later[:2]:
        return f"{earlier} and offset {later.offset} both make {point}"
    return f"{earlier} and {later} both make {point}"


def within(merged: Merged, topic: str, origin: BatchOrigin) -> Overwritten:
    """The points of a batch that overwrite others of the same batch."""
    if merged.example is None:
        return Overwritten()
    earlier, later = [Place(topic, origin.partition, origin.of(line[0]).offset) for line in merged.example]
    return Overwritten(merged.overwritten, example(earlier, later, *merged.example[1][1:3]))


def repeated(written: Points, topic: str, origin: BatchOrigin) -> Overwritten:
    """The same if line i comes from message i, and all lines have the same fields."""
    last: dict[tuple[str, str], int] = {}
    points, text = 0, ""
    for index, key in enumerate(zip(written.heads, written.times, strict=True)):
        if key in last:
            points += 1
            text = text or example(Place(topic, origin.partition, origin.of(last[key]).offset),
                                     Place(topic, origin.partition, origin.of(index).offset), *key)
        last[key] = index
    return Overwritten(points, text)


class _Batch(Struct, frozen=True):
    """The last points of a batch, kept for comparison."""

    #: Index of the sink.
    sink: int
    topic: str
    origin: BatchOrigin
    #: Offset of the batch's last message.
    last: int
    #: As in `Points`.
    heads: Sequence[str]
    times: Sequence[str]
    lines: Sequence[str]
    #: For each point, the index of its last message in the batch.
    messages: Sequence[int]
    #: Hash of head and time -> index of the point.
    by_hash: dict[int, int]
    #: Approximate bytes of the lines.
    size: int

    @property
    def reader(self) -> tuple[int, str, int]:
        """The partition that it was read from, for which sink."""
        return self.sink, self.topic, self.origin.partition

    def place(self, point: int) -> Place:
        """The place of a point's message."""
        return Place(self.topic, self.origin.partition, self.origin.of(self.messages[point]).offset)

    def fields(self, point: int) -> set[str]:
        """A point's field keys."""
        return set(fields_of((0, series_of(self.heads[point]), self.times[point], self.lines[point], "")))

    def find(self, hashed: int, head: str, time: str) -> int | None:
        """Index of the point with this head and time; None if there is none."""
        point = self.by_hash.get(hashed)
        return point if point is not None and (self.heads[point], self.times[point]) == (head, time) else None


class RecentPoints:
    """The last points of one encoder. Not thread-safe."""

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()
        #: Points and bytes of all batches.
        self._points = self._bytes = 0
        #: By `reader`: the last offset of each of its batches, in their order.
        self._last: dict[tuple[int, str, int], deque[int]] = {}
        #: Hash of head and time -> how many of the batches have it.
        self._hashes: dict[int, int] = {}

    def add(self, sink: int, topic: str, origin: BatchOrigin, messages: int, encoded: Encoded,
            again: bool = False) -> Overwritten:
        """Keeps the points of a batch. Returns which of them overwrite earlier ones, including those of this batch.

        `sink` is the index of the sink, `topic` is "stream/topic"; `origin` and `messages` describe the batch's
        messages. Messages that are read again (`again`, or an offset that was seen before) become the same points as
        before and overwrite nothing.
        """
        found = encoded.overwritten
        batch = _batch(sink, topic, origin, messages, encoded, _MAX_POINTS_AFTER_HIT if found.points else _LAST_POINTS)
        seen = max(self._last.get(batch.reader, ()), default=-1) >= origin.of(0).offset
        # Two lookups for all batches, of which there may be one for each of many partitions.
        if not again and not seen and not self._hashes.keys().isdisjoint(encoded.written.hashes):
            same = [earlier for earlier in reversed(self._batches)
                    if earlier.sink == sink and not earlier.by_hash.keys().isdisjoint(encoded.written.hashes)]
            if same:
                whole = _batch(sink, topic, origin, messages, encoded, len(encoded.written.lines))
                between = _overwritten(same, whole)
                found = found.and_also(between)
                batch = whole if between.points else batch
        self._remember(batch, _MAX_POINTS_AFTER_HIT if found.points else _MAX_POINTS)
        return found

    def _remember(self, batch: _Batch, points: int) -> None:
        self._batches.append(batch)
        self._last.setdefault(batch.reader, deque()).append(batch.last)
        for hashed in batch.by_hash:
            self._hashes[hashed] = self._hashes.get(hashed, 0) + 1
        self._points += len(batch.lines)
        self._bytes += batch.size
        while len(self._batches) > 1 and (
                len(self._batches) > _MAX_BATCHES or self._points > points or self._bytes > _MAX_BYTES):
            self._forget(self._batches.popleft())

    def _forget(self, batch: _Batch) -> None:
        """Forgets the oldest batch."""
        self._points -= len(batch.lines)
        self._bytes -= batch.size
        self._last[batch.reader].popleft()
        if not self._last[batch.reader]:
            del self._last[batch.reader]
        for hashed in batch.by_hash:
            self._hashes[hashed] -= 1
            if not self._hashes[hashed]:
                del self._hashes[hashed]


def _batch(sink: int, topic: str, origin: BatchOrigin, messages: int, encoded: Encoded,
           most: int) -> _Batch:
    """The last points of a batch, at most `most`."""
    heads, times, lines, _ = encoded.written
    count = min(len(lines), most)
    size = sum(map(len, lines[len(lines) - count:]))
    begin = len(lines) - count
    heads, times = heads[begin:], times[begin:]
    from_messages: Sequence[int] = range(begin, len(lines))
    if len(encoded.groups) > 1 or encoded.groups and encoded.groups[0].sources is not None:
        from_messages = list(chain.from_iterable([
            range(group.points) if group.sources is None else [source[-1] for source in group.sources]
            for group in encoded.groups]))[begin:]
    return _Batch(sink, topic, replace(origin, timestamps=None, headers=None), origin.of(messages - 1).offset,
                  heads, times, lines[begin:], from_messages,
                  dict(zip(map(hash, zip(heads, times, strict=True)), range(count), strict=True)), size)


def _overwritten(before: Sequence[_Batch], batch: _Batch) -> Overwritten:
    """The points of a batch that overwrite points of earlier batches, given with the latest first."""
    found, text = 0, ""
    for hashed, point in batch.by_hash.items():
        head, time = batch.heads[point], batch.times[point]
        for earlier in before:
            other = earlier.find(hashed, head, time)
            if other is not None and not earlier.fields(other).isdisjoint(batch.fields(point)):
                found += 1
                text = text or example(earlier.place(other), batch.place(point), series_of(head), time)
                break
    return Overwritten(found, text)
