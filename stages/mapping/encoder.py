"""Batches of payloads to line protocol: the messages of each shape at once, the others one by one by the rules."""

from collections.abc import Callable, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, Final

from pipeline.config.schema import MappingConfig, Precision
from pipeline.wire import payload_frame
from pipeline.wire.sink import Overwritten
from stages.mapping.batch import BatchOrigin, Encoded, Lines, Points, Rejected, TooMuch, hashes_of, texts_of
from stages.mapping.budget import Budget
from stages.mapping.compiled.shape import Row, Shape, can_learn, learn
from stages.mapping.compiled.uniform_batch import BatchTemplate
from stages.mapping.cpu_limit import CpuLimit, TooSlow
from stages.mapping.limits import Limits
from stages.mapping.payload_decoder import PayloadDecoder, in_messages
from stages.mapping.records import message_times, plausible, timestamps
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.merge import Line, merged
from stages.mapping.records.overwrites import repeated, within
from stages.mapping.records.record import is_array
from stages.mapping.records.series import Origin
from stages.mapping.records.type_guard import SlowPathNeeded, TypeGuard
from stages.mapping.reject import Dropped, Reject, failure

__all__ = ["BatchOrigin", "Encoded", "Encoder", "Lines", "Rejected"]

#: Shapes remembered, at most; the one that matched least lately is forgotten.
_MAX_SHAPES: Final = 16
#: Shapes learned from one batch, at most: compiling one takes about as long as 200 messages by the rules.
_LEARNED_PER_BATCH: Final = 2
#: Lines of one batch, at most, unless `max_points` allows a single message more: each takes about 250 bytes beside its
#: text. And the bytes of those texts for each byte of the payloads, unless `max_expanded_bytes` allows more.
_BATCH_LINES: Final = 500_000
_GROWTH: Final = 3


class Encoder:
    """The mapping of one topic's messages, compiled. Not thread-safe: it learns as it goes."""

    def __init__(self, config: MappingConfig, precision: Precision, stream: str, topic: str,
                 guards: Callable[[str], TypeGuard] | None = None, budget: Budget | None = None) -> None:
        """`guards` gives the type guard of a bucket ("": the configured one); None guards no types. All caches of the
        process share `budget`.

        Raises `escape.Unwritable` where the configured names cannot be written, `conditions.BadCondition`, and
        `formats.errors.BadFormat`.
        """
        self.rules = RecordMapper(config, precision, stream, topic, guards, budget)
        self.limits = Limits.of(config)
        #: Whether a batch whose lines take too much memory is given back; otherwise its messages go one by one.
        self.refuses_much = False
        #: For people.
        self.topic = f"{stream}/{topic}"
        #: Measures what a message, or a quick way, costs; for whoever has a timer.
        self.cpu = CpuLimit(config.max_message_cpu_ms / 1000)
        self._merge = config.merge_duplicates
        self._opener = PayloadDecoder(self.rules)
        #: Whether the heads of two partitions differ; otherwise they are kept but once.
        self._tags_partition = "partition" in config.metadata_tags
        #: Most lately useful first.
        self.shapes: list[Shape] = []
        #: Whether shapes are used at all; the rules give the same lines.
        self.use_shapes = can_learn(self.rules)
        #: The quick way of the shape that the last batch had throughout.
        self.uniform: BatchTemplate | None = None

    def encode(self, payloads: Sequence[bytes], origin: BatchOrigin) -> Encoded:
        """A batch as line protocol. Messages that cannot become points are among its rejects.

        Raises nothing but TooMuch, of several messages, if it `refuses_much`.
        """
        try:
            return self._looked_at(self._encode(payloads, origin), origin)
        except (Exception, TooSlow) as error:
            if isinstance(error, TooMuch) and len(payloads) > 1 and self.refuses_much:
                raise
            # Otherwise one message has broken a way that takes many at once.
            parts = [self._alone(payload, origin.alone(index)) for index, payload in enumerate(payloads)]
            lines = [line for index, part in enumerate(parts) for line in part.lines_of(index)]
            groups, written = _by_bucket(lines, [line[:1] for line in lines])
            rejects = [reject._replace(at=index) for index, part in enumerate(parts) for reject in part.rejects]
            return self._looked_at(Encoded(groups, rejects, sum([part.dropped for part in parts]),
                                           within(merged(lines), self.topic, origin), written), origin)
        finally:
            self.cpu.end()

    def _looked_at(self, encoded: Encoded, origin: BatchOrigin) -> Encoded:
        """The same; notes times that are not plausible."""
        found = plausible.look_at(encoded, origin, self.rules.config, self.rules.precision)
        if found is not None:
            self.rules.notices.add("implausible_time", *found)
        return encoded

    def _alone(self, payload: bytes, origin: BatchOrigin) -> Encoded:
        """One message, whatever happens."""
        try:
            return self._encode([payload], origin)
        except TooMuch:
            return Encoded([], [Rejected(0, "too_expanded", "its points take more memory than max_expanded_bytes = "
                                         f"{self.limits.expanded} and max_points = {self.limits.points} allow")])
        except (Exception, TooSlow) as error:
            return Encoded([], [Rejected(0, *failure(error).args)])

    def _encode(self, payloads: Sequence[bytes], origin: BatchOrigin) -> Encoded:
        if not self._opener.is_needed(payloads):
            encoded = self._objects(payloads, origin)
            if encoded is not None:
                return encoded
            self.rules.notices.take()  # the messages come again
        opened = self._opener.opened(payloads, origin, self.cpu)
        if opened.lines:
            encoded = _Batch(self, (), origin, opened.lines).encoded()
        else:
            encoded = self._objects(opened.payloads, opened.origin, opened=True)
        return in_messages(encoded or Encoded([], []), opened)

    def encode_array(self, array: Any, count: int, origin: BatchOrigin) -> Encoded | None:
        """The same for `count` payloads as `payload_frame` joins them; None where `encode` has to do it."""
        try:
            encoded = None
            if not self._opener.is_needed((array,), as_array=True):
                encoded = self._quickly(array, count, origin)
            return None if encoded is None else self._looked_at(encoded, origin)
        except (Exception, TooSlow):
            return None
        finally:
            self.cpu.end()

    def _objects(self, payloads: Sequence[bytes], origin: BatchOrigin, opened: bool = False) -> Encoded | None:
        """The same for payloads that are JSON objects; None where one is an array, and has to be opened first."""
        if self.uniform is not None and payloads:
            if (encoded := self._quickly(payload_frame.joined(payloads), len(payloads), origin)) is not None:
                return encoded
        batch = _Batch(self, payloads, origin)
        encoded = batch.encoded()
        return encoded if opened or not batch.has_arrays else None

    def _quickly(self, array: Any, count: int, origin: BatchOrigin) -> Encoded | None:
        uniform, self.uniform = self.uniform, None
        if uniform is None or origin.headers is not None:
            return None
        times = own_times(self.rules, origin, count)
        if times is None and not self.rules.time_path:
            return None
        self.cpu.begin()
        written = uniform.lines(array, count, times, self.partition_of(origin), self._merge)
        if written is None:
            return None
        self.uniform = uniform
        return self.one_shape(written, origin)

    def one_shape(self, written: Points, origin: BatchOrigin) -> Encoded:
        """A batch of which each message has become a line, all with the same fields."""
        count = len(written.lines)
        overwritten = Overwritten() if len(written.hashes) == count else repeated(written, self.topic, origin)
        return Encoded([Lines("", "".join(written.lines).encode(), count, None)], [], 0, overwritten, written)

    def learn(self, payload: bytes, origin: Origin) -> Shape | None:
        """Learns the shape of a message, if it has one."""
        shape = learn(self.rules, payload, origin.partition, origin.headers)
        if shape is not None:
            self.shapes.insert(0, shape)
            del self.shapes[_MAX_SHAPES:]
        return shape

    def partition_of(self, origin: BatchOrigin) -> int:
        """The partition of a batch where it is a tag, and otherwise 0."""
        return origin.partition if self._tags_partition else 0

    def over_limit(self, tags: frozenset[str]) -> None:
        """Treats these tags as `on_high_cardinality` says from now on."""
        if tags != self.rules.heads.over:
            self.rules.heads.over = tags
            self.shapes.clear()
            self.uniform = None

    @property
    def merges(self) -> bool:
        """Whether points that are the same become one."""
        return self._merge


class _Batch:
    """One batch on its way through the encoder."""

    def __init__(self, encoder: Encoder, payloads: Sequence[bytes], origin: BatchOrigin,
                 lines: Sequence[Line] = ()) -> None:
        """`lines` are there already."""
        self.encoder = encoder
        self.rules = encoder.rules
        self.payloads = payloads
        self.origin = origin
        self.partition = encoder.partition_of(origin)
        self.lines: list[Line] = list(lines)
        self.rejects: list[Rejected] = []
        self.dropped = 0
        #: Bytes of the lines that were made one by one, and most of those, and of all lines.
        self.size = 0
        self.most_bytes = max(encoder.limits.expanded, _GROWTH * sum(map(len, payloads)))
        self.most_lines = max(encoder.limits.points, _BATCH_LINES)
        #: Whether a payload is an array of JSON, which has to be opened first.
        self.has_arrays = False

    def encoded(self) -> Encoded:
        """The whole batch."""
        pending = list(range(len(self.payloads)))
        if self.encoder.use_shapes and pending:
            times = own_times(self.rules, self.origin, len(self.payloads))
            if times is not None or self.rules.time_path:
                done = self._by_shapes(pending, times)
                if isinstance(done, Encoded):
                    return done
                pending = done
        for index in pending:
            self._by_rules(index)
        return self._gathered()

    def _by_shapes(self, pending: list[int], times: Sequence[int] | None) -> Encoded | list[int]:
        """Encodes what has a shape, known or new. Returns the rest, or all in one where all have one shape."""
        encoder, payloads = self.encoder, self.payloads
        encoder.cpu.begin()
        joined = b"\n".join(payloads)
        if joined.count(b"\n") != len(payloads) - 1:
            # A line break between values is as good as a tab; inside a string neither is valid.
            payloads = [payload.replace(b"\n", b"\t") for payload in payloads]
            joined = b"\n".join(payloads)
        hits: dict[Shape, int] = {}
        given_up: list[int] = []
        shapes, learned = list(encoder.shapes), 0
        while pending:
            if shapes:
                shape = shapes.pop(0)
            elif learned < _LEARNED_PER_BATCH:
                learned += 1
                found = encoder.learn(payloads[pending[0]], self.origin.of(pending[0]))
                if found is None:
                    given_up.append(pending.pop(0))
                    continue
                shape = found
            else:
                break
            rows = shape.rows(joined, len(pending))
            if rows is None:
                pending, bad = _decodable(payloads, pending)
                given_up += bad
                if not bad:
                    break
                rows = shape.rows(b"\n".join([payloads[index] for index in pending]), len(pending)) or []
            missed = rows.count(shape.no_row)
            if missed == len(rows):
                continue
            hits[shape] = len(rows) - missed
            if missed == 0 and len(rows) == len(self.payloads):
                encoded = self._uniform(shape, rows, times)
                if encoded is not None:
                    encoder.uniform = shape.uniform
                    return encoded
            pending = self._take(shape, rows, pending, times, missed, given_up)
            joined = b"\n".join([payloads[index] for index in pending])
        encoder.shapes.sort(key=lambda shape: -hits.get(shape, 0))
        return sorted(given_up + pending)

    def _uniform(self, shape: Shape, rows: list[Row], times: Sequence[int] | None) -> Encoded | None:
        """A batch whose messages all have one shape and are different points, or may be the same; or None."""
        try:
            heads, at = shape.identities(rows, times, self.partition, self.origin.headers)
            at = texts_of(at)
            hashes = hashes_of(heads, at)
            if self.encoder.merges and len(hashes) < len(rows):
                return None
            return self.encoder.one_shape(Points(heads, at, shape.lines(rows, heads, at), hashes), self.origin)
        except (Reject, SlowPathNeeded):
            return None

    def _take(self, shape: Shape, rows: list[Row], pending: list[int], times: Sequence[int] | None, missed: int,
              given_up: list[int]) -> list[int]:
        """Encodes the messages that have a row of the shape. Returns the others."""
        others: list[int] = []
        if missed:
            no_row = shape.no_row
            others = [index for index, row in zip(pending, rows, strict=True) if row == no_row]
            pending = [index for index, row in zip(pending, rows, strict=True) if row != no_row]
            rows = [row for row in rows if row != no_row]
        try:
            self.lines += self._shaped(shape, rows, pending, times)
        except (Reject, SlowPathNeeded):
            for index, row in zip(pending, rows, strict=True):
                try:
                    self.lines += self._shaped(shape, [row], [index], times)
                except (Reject, SlowPathNeeded):
                    given_up.append(index)
        return others

    def _shaped(self, shape: Shape, rows: list[Row], indices: list[int], times: Sequence[int] | None) -> list[Line]:
        own = None if times is None else [times[index] for index in indices]
        headers = self.origin.headers
        sent = None if headers is None else [headers[index] for index in indices]
        heads, at = shape.identities(rows, own, self.partition, sent)
        texts = shape.lines(rows, heads, at)
        return list(zip(indices, heads, map(str, at), texts, repeat(""), strict=False))

    def _by_rules(self, index: int) -> None:
        before = len(self.lines)
        notices = self.rules.notices
        if notices.pending:
            notices.drop()
        try:
            self.encoder.cpu.begin()
            points, reject = self.rules.points(self.payloads[index], self.origin.of(index))
            if notices.pending and points:
                notices.place(self.origin.of(index).place)
            for point in points:
                body = ",".join([lead + value for lead, value in point.fields.items()])
                time = str(point.time)
                self.lines.append((index, point.head, time, f"{point.head} {body} {time}\n", point.bucket))
                self.size += len(self.lines[-1][3])
            if self.size > self.most_bytes or len(self.lines) > self.most_lines:
                raise TooMuch
            if reject is not None:
                self.rejects.append(Rejected(index, reject.reason, reject.detail))
        except Reject as error:
            if error.reason in ("not_object", "not_json") and is_array(self.payloads[index]):
                self.has_arrays = True
            self.rejects.append(Rejected(index, error.reason, error.detail))
        except Dropped:
            self.dropped += 1
        except TooMuch:
            raise
        except (Exception, TooSlow) as error:
            del self.lines[before:]
            self.rejects.append(Rejected(index, *failure(error).args))

    def _gathered(self) -> Encoded:
        """The lines in the messages' order, by bucket."""
        self.lines.sort(key=itemgetter(0))
        sources: list[tuple[int, ...]] | None = None
        overwritten = Overwritten()
        if len({(head, time) for _, head, time, _, _ in self.lines}) < len(self.lines):
            found = merged(self.lines)
            overwritten = within(found, self.encoder.topic, self.origin)
            if self.encoder.merges:
                self.lines, sources = found.lines, found.sources
        if sources is None and [line[0] for line in self.lines] != list(range(len(self.lines))):
            sources = [(line[0],) for line in self.lines]
        self.rejects.sort()
        groups, written = _by_bucket(self.lines, sources)
        return Encoded(groups, self.rejects, self.dropped, overwritten, written)


def own_times(rules: RecordMapper, origin: BatchOrigin, count: int) -> Sequence[int] | None:
    """The messages' own times in the precision written; None where a field has them, or one has none or a bad one."""
    if rules.time_path:
        return None
    micros = [origin.arrival or 0] * count if rules.config.timestamp_from == "arrival" else origin.timestamps
    if not micros or not all(micros):
        return None
    try:
        return message_times.message_times(micros, origin.partition, origin.offsets or origin.first, rules.precision)
    except timestamps.BadTimestamp:
        return None


def _by_bucket(lines: list[Line], sources: list[tuple[int, ...]] | None) -> tuple[list[Lines], Points]:
    """The lines of each bucket, in the order in which the buckets are met."""
    buckets = dict.fromkeys([bucket for _, _, _, _, bucket in lines])
    if len(buckets) == 1:
        (bucket,) = buckets
        groups = [Lines(bucket, "".join([text for _, _, _, text, _ in lines]).encode(), len(lines), sources)]
        return groups, _points(lines)
    by_bucket: dict[str, list[int]] = {bucket: [] for bucket in buckets}
    for index, line in enumerate(lines):
        by_bucket[line[4]].append(index)
    groups, ordered = [], []
    for bucket, indices in by_bucket.items():
        ordered += [lines[index] for index in indices]
        body = "".join([lines[index][3] for index in indices]).encode()
        groups.append(Lines(bucket, body, len(indices),
                            [sources[index] if sources else (lines[index][0],) for index in indices]))
    return groups, _points(ordered)


def _points(lines: list[Line]) -> Points:
    heads = [f"{bucket}\n{head}" if bucket else head for _, head, _, _, bucket in lines]
    times = [time for _, _, time, _, _ in lines]
    return Points(heads, times, [text for _, _, _, text, _ in lines], hashes_of(heads, times))


def _decodable(payloads: Sequence[bytes], indices: list[int]) -> tuple[list[int], list[int]]:
    """The payloads that are UTF-8, and those that are not."""
    good: list[int] = []
    bad: list[int] = []
    for index in indices:
        try:
            payloads[index].decode()
            good.append(index)
        except UnicodeDecodeError:
            bad.append(index)
    return good, bad
