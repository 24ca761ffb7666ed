"""Batches of payloads to line protocol: the whole batch at once where all its messages have one shape.

Otherwise each message is tried against the shapes known so far, and goes by the rules where none fits.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from pipeline.schema import MappingConfig, Precision
from stages.mapping.reject import Reject
from stages.mapping.rules import Origin, Rules
from stages.mapping.shapes import Row, Shape, can_learn, learn

#: Shapes remembered, at most; the one that matched least lately is forgotten.
_MAX_SHAPES: Final = 16
#: Shapes learned from one batch, at most: compiling one takes about as long as 200 messages by the rules.
_LEARNED_PER_BATCH: Final = 2
#: `key=` and value of each field of a field set that we wrote.
_FIELD: Final = re.compile(r'((?:[^=\\]|\\.)+=)("(?:[^"\\]|\\.)*"|[^,]*),?', re.DOTALL)


class Rejected(NamedTuple):
    """A message of the batch, by its index there, that cannot become a point."""

    at: int
    reason: str
    detail: str


class Encoded(Struct, frozen=True):
    """A batch as line protocol."""

    #: The lines, each ending in a line break.
    body: bytes
    points: int
    rejects: list[Rejected]
    #: Of each line, the indices of the messages it comes from; None where line i comes from message i.
    sources: list[tuple[int, ...]] | None


class BatchOrigin(Struct, frozen=True):
    """Where the messages of a batch were; times in microseconds since 1970, None where the mapping does not ask."""

    partition: int = 0
    #: Offset of the first; the others follow it unless `offsets` has them.
    first: int = 0
    offsets: Sequence[int] | None = None
    timestamps: Sequence[int] | None = None
    arrival: int | None = None

    def of(self, index: int) -> Origin:
        """Where one message was."""
        return Origin(self.partition, self.offsets[index] if self.offsets else self.first + index,
                      self.timestamps[index] if self.timestamps else None, self.arrival)


class _Line(NamedTuple):
    """A point on its way into the body, when the batch is not of one shape."""

    head: str
    time: str
    body: str
    keys: frozenset[str]
    sources: tuple[int, ...]


class Encoder:
    """The mapping of one topic's messages, compiled. Not thread-safe: it learns as it goes."""

    def __init__(self, config: MappingConfig, precision: Precision, stream: str, topic: str) -> None:
        """Raises `escape.Unwritable` where the configured names cannot be written."""
        self.rules = Rules(config, precision, stream, topic)
        self._merge = config.merge_duplicates
        #: Most lately useful first.
        self.shapes: list[Shape] = []
        self._can_learn = can_learn(self.rules)

    def encode(self, payloads: Sequence[bytes], origin: BatchOrigin) -> Encoded:
        """A batch as line protocol. Messages that cannot become points are among its rejects; nothing is raised."""
        if self._can_learn and payloads:
            lines = self._uniform(payloads, origin)
            if lines is not None:
                return Encoded("".join(lines).encode(), len(lines), [], None)
        return self._mixed(payloads, origin)

    def _uniform(self, payloads: Sequence[bytes], origin: BatchOrigin) -> list[str] | None:
        """The lines of a batch whose messages all have the first shape and are different points, or None."""
        if not self.shapes:
            self._learn(payloads[0])
            if not self.shapes:
                return None
        shape, count = self.shapes[0], len(payloads)
        joined = b"\n".join(payloads)
        try:
            rows: list[Row] = shape.pattern.findall(joined.decode())
            if len(rows) != count or joined.count(b"\n") != count - 1:
                return None
            heads, times = shape.identities(rows, self._times(count, origin))
        except (UnicodeDecodeError, Reject):
            return None
        if self._merge and len(set(zip(heads, times, strict=True))) != count:
            return None
        return shape.lines(rows, heads, times)

    def _times(self, count: int, origin: BatchOrigin) -> list[int] | None:
        """The messages' own times in the precision written; None where they come from a field. Raises Reject."""
        rules = self.rules
        if rules.time_path:
            return None
        if rules.config.timestamp_from == "arrival":
            return [rules.message_time(origin.arrival)] * count
        own: Sequence[int | None] = origin.timestamps or [None] * count
        return [rules.message_time(micros) for micros in own]

    def _learn(self, payload: bytes) -> Shape | None:
        """Learns the shape of a message, if it has one."""
        shape = learn(self.rules, payload)
        if shape is not None:
            self.shapes.insert(0, shape)
            del self.shapes[_MAX_SHAPES:]
        return shape

    def _mixed(self, payloads: Sequence[bytes], origin: BatchOrigin) -> Encoded:
        """A batch of several shapes, or with messages that need the rules."""
        lines: list[_Line] = []
        rejects: list[Rejected] = []
        hits: dict[Shape, int] = {}
        learned = 0
        for index, payload in enumerate(payloads):
            try:
                line = self._by_shape(payload, index, origin, hits) if self._can_learn else None
                if line is not None:
                    lines.append(line)
                    continue
                lines += self._by_rules(payload, index, origin)
                if self._can_learn and learned < _LEARNED_PER_BATCH:
                    learned += self._learn(payload) is not None
            except Reject as reject:
                rejects.append(Rejected(index, reject.reason, reject.detail))
        self.shapes.sort(key=lambda shape: -hits.get(shape, 0))
        if self._merge:
            lines = merged(lines)
        body = "".join([f"{line.head} {line.body} {line.time}\n" for line in lines])
        contiguous = all(line.sources == (index,) for index, line in enumerate(lines))
        return Encoded(body.encode(), len(lines), rejects, None if contiguous else [line.sources for line in lines])

    def _by_shape(self, payload: bytes, index: int, origin: BatchOrigin, hits: dict[Shape, int]) -> _Line | None:
        """The message's line if it has a known shape. Raises Reject."""
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            return None
        for shape in self.shapes:
            match = shape.pattern.fullmatch(text)
            if match is not None:
                hits[shape] = hits.get(shape, 0) + 1
                rows = [match.groups()]
                times = None if self.rules.time_path else [self.rules.time({}, origin.of(index))]
                (head,), (time,) = shape.identities(rows, times)
                return _Line(head, str(time), shape.body(rows[0]), shape.keys, (index,))
        return None

    def _by_rules(self, payload: bytes, index: int, origin: BatchOrigin) -> list[_Line]:
        """The message's lines by the rules. Raises Reject."""
        points = self.rules.points(payload, origin.of(index))
        return [_Line(point.head, str(point.time), ",".join([key + value for key, value in point.fields.items()]),
                      frozenset(point.fields), (index,)) for point in points]


def merged(lines: Sequence[_Line]) -> list[_Line]:
    """One line for each measurement, tag set and time, at the place of the first; of equal fields the last stays."""
    out: dict[tuple[str, str], _Line] = {}
    for line in lines:
        earlier = out.get((line.head, line.time))
        out[line.head, line.time] = line if earlier is None else _joined(earlier, line)
    return list(out.values())


def _joined(earlier: _Line, later: _Line) -> _Line:
    sources = tuple(dict.fromkeys(earlier.sources + later.sources))
    if earlier.keys <= later.keys:
        return later._replace(sources=sources)
    if earlier.keys.isdisjoint(later.keys):
        body = f"{earlier.body},{later.body}"
    else:
        fields = {**dict(_FIELD.findall(earlier.body)), **dict(_FIELD.findall(later.body))}
        body = ",".join([key + value for key, value in fields.items()])
    return later._replace(body=body, keys=earlier.keys | later.keys, sources=sources)
