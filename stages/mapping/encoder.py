"""Batches of payloads to line protocol, in three ways that write the same points.

A batch that is written by one template throughout is cut at once (`compiled.uniform_batch`); others go the general way
(`compiled.general`); what does not fit there goes one by one by the rules (`records.mapper`), the reference.
"""

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, Final

from msgspec.structs import replace

from pipeline.config.schema import MappingConfig, Precision
from pipeline.wire import payload_frame
from pipeline.wire.sink import Overwritten, Ways
from stages.mapping.batch import BatchOrigin, Encoded, Lines, Points, Rejected, TooMuch, hashes_of
from stages.mapping.budget import Budget
from stages.mapping.compiled.by_column import ByColumn
from stages.mapping.compiled.general import General
from stages.mapping.compiled.templates import Templates
from stages.mapping.compiled.uniform_batch import BatchTemplate
from stages.mapping.compiled.written import Written, in_order, of_lines
from stages.mapping.cpu_limit import CpuLimit, TooSlow
from stages.mapping.limits import Limits
from stages.mapping.payload_decoder import PayloadDecoder, in_messages
from stages.mapping.records import message_times, plausible, timestamps
from stages.mapping.records.conditions import METADATA_PREFIX, all_paths_of
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.merge import Line, merged
from stages.mapping.records.overwrites import repeated, within
from stages.mapping.records.record import is_array
from stages.mapping.records.type_guard import TypeGuard
from stages.mapping.reject import Dropped, Reject, failure

__all__ = ["BatchOrigin", "Encoded", "Encoder", "Lines", "Rejected"]

#: How often what does not fit is learned from while one batch is encoded, at most, and messages that are learned from
#: each time.
_ROUNDS: Final = 4
_LEARNED_AT_ONCE: Final = 8
#: Batches between two looks for a template, at most: to learn one in vain costs about as much as 200 messages.
_MAX_TEMPLATE_PAUSE: Final = 64
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
        #: Whether the points of two partitions differ; otherwise their heads are kept but once.
        self._needs_partition = "partition" in config.metadata_tags or any(
            f"{METADATA_PREFIX}partition()" in all_paths_of(rule.when) for rule in config.rules)
        self.general = General(self.rules, self.cpu)
        self.templates = Templates(self.rules, self.cpu)
        #: The way of formats that are read by column.
        self.by_column: ByColumn | None = None
        if self._opener.columns is not None and self.general.is_possible:
            self.by_column = ByColumn(self.rules, self._opener.columns, self.cpu)
        #: Whether the compiled ways are used; the rules give the same points.
        self.is_compiled = self.general.is_possible
        #: The quick way of a batch that is written by one template throughout, as the last one was.
        self.uniform: BatchTemplate | None = None
        #: Batches to go until a template is looked for, and how many there are to be after that, if none fits.
        self._until_template = 0
        self._template_pause = 1
        #: Messages since `take_ways` was called.
        self._by_uniform = self._by_rules = 0
        self._taken = Ways()

    def objects_of(self, payload: bytes, origin: BatchOrigin) -> list[bytes]:
        """The JSON objects that the mapping gets from one message, after its steps; for previews."""
        return self._opener.opened([payload], origin, self.cpu).payloads

    def leave_out_quick_formats(self) -> None:
        """Reads each payload of a format by its transcoder from now on, which gives the same points."""
        self._opener.quick = None
        self.by_column = None

    def take_ways(self) -> Ways:
        """How many messages went each way since this was called last, and what was compiled and forgotten."""
        general, templates = self.general, self.templates
        by_column = 0 if self.by_column is None else self.by_column.written
        total = Ways(templates.written, general.written + by_column, 0, general.compiled + templates.learned,
                     general.forgotten + templates.forgotten)
        before, self._taken = self._taken, total
        passed, parsed = self._opener.take_passed()
        found = Ways(self._by_uniform + passed + total.uniform - before.uniform, total.general - before.general,
                     self._by_rules + parsed, total.compiled - before.compiled, total.forgotten - before.forgotten)
        self._by_uniform = self._by_rules = 0
        return found

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
            return self._encode([payload], origin, compiled=False)
        except TooMuch:
            return Encoded([], [Rejected(0, "too_expanded", "its points take more memory than max_expanded_bytes = "
                                         f"{self.limits.expanded} and max_points = {self.limits.points} allow")])
        except (Exception, TooSlow) as error:
            return Encoded([], [Rejected(0, *failure(error).args)])

    def _encode(self, payloads: Sequence[bytes], origin: BatchOrigin, compiled: bool = True) -> Encoded:
        if not self._opener.is_needed(payloads):
            encoded = self._objects(payloads, origin, compiled)
            if encoded is not None:
                return encoded
            self.rules.notices.take()  # the messages come again
        if compiled and (encoded := self._by_columns(payloads, origin)) is not None:
            return encoded
        opened = self._opener.opened(payloads, origin, self.cpu)
        if opened.lines or opened.passed:
            encoded = _Batch(self, (), origin, opened.lines, opened.passed).encoded()
        else:
            encoded = self._objects(opened.payloads, opened.origin, compiled, opened=True)
        return in_messages(encoded or Encoded([], []), opened)

    def _by_columns(self, payloads: Sequence[bytes], origin: BatchOrigin) -> Encoded | None:
        """The same for payloads of a format that is read by column; None where none of them can be."""
        if self.by_column is None or not self.is_compiled:
            return None
        times = own_times(self.rules, origin, len(payloads))
        if times is None and not self.rules.time_path:
            return None
        most = max(self.limits.expanded, _GROWTH * sum(map(len, payloads)))
        written, rest, dropped = self.by_column.encode(payloads, times, self.partition_of(origin), origin.headers, most)
        if written is None:
            return None
        if not rest:
            return replace(_Batch(self, (), origin, written=written).encoded(), dropped=dropped)
        done = set(range(len(payloads))).difference(rest)
        opened = self._opener.opened(payloads, origin, self.cpu, done)
        places = {message: index for index, message in enumerate(opened.messages)}
        written = written._replace(messages=[places[message] for message in written.messages])
        batch = _Batch(self, opened.payloads, opened.origin, written=written)
        batch.pending = [index for index, message in enumerate(opened.messages) if message not in done]
        return in_messages(batch.encoded(), opened)

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

    def _objects(self, payloads: Sequence[bytes], origin: BatchOrigin, compiled: bool,
                 opened: bool = False) -> Encoded | None:
        """The same for payloads that are JSON objects; None where one is an array, and has to be opened first."""
        if compiled and self.uniform is not None and payloads:
            if (encoded := self._quickly(payload_frame.joined(payloads), len(payloads), origin)) is not None:
                return encoded
        batch = _Batch(self, payloads, origin, compiled=compiled)
        encoded = batch.encoded()
        if batch.has_arrays and not opened:
            return None
        self._by_rules += batch.by_rules
        return encoded

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
            self._until_template = self._template_pause
            self._template_pause = min(2 * self._template_pause, _MAX_TEMPLATE_PAUSE)
            return None
        self._template_pause = 1
        self.uniform = uniform
        self._by_uniform += count
        return self.one_shape(written, origin)

    def one_shape(self, written: Points, origin: BatchOrigin) -> Encoded:
        """A batch of which each message has become a line, all with the same fields."""
        count = len(written.lines)
        overwritten = Overwritten() if len(written.hashes) == count else repeated(written, self.topic, origin)
        return Encoded([Lines("", "".join(written.lines).encode(), count, None)], [], 0, overwritten, written)

    def learn_template(self, payload: bytes, partition: int) -> None:
        """Looks for the template of a message, of a batch that went the general way as a whole."""
        self._until_template -= 1
        if self._until_template < 0 and self.templates.can_be_uniform:
            self.uniform = self.templates.learn(payload, partition)
            if self.uniform is None:
                self._until_template = _MAX_TEMPLATE_PAUSE

    def partition_of(self, origin: BatchOrigin) -> int:
        """The partition of a batch where it is a tag, or rules ask for it, and otherwise 0."""
        return origin.partition if self._needs_partition else 0

    def over_limit(self, tags: frozenset[str]) -> None:
        """Treats these tags as `on_high_cardinality` says from now on."""
        if tags != self.rules.heads.over:
            self.rules.heads.over = tags
            self.general.forget_series()
            if self.by_column is not None:
                self.by_column.forget_series()
            self.templates.clear()
            self.uniform = None

    @property
    def merges(self) -> bool:
        """Whether points that are the same become one."""
        return self._merge


class _Batch:
    """One batch on its way through the encoder."""

    def __init__(self, encoder: Encoder, payloads: Sequence[bytes], origin: BatchOrigin,
                 lines: Sequence[Line] = (), written: Written | None = None, compiled: bool = True) -> None:
        """`lines` and `written` are there already; without `compiled` all goes by the rules."""
        self.is_compiled = compiled
        self.encoder = encoder
        self.rules = encoder.rules
        self.payloads = payloads
        #: The indices of those that are not written yet.
        self.pending: Sequence[int] = range(len(payloads))
        self.origin = origin
        self.partition = encoder.partition_of(origin)
        self.lines: list[Line] = list(lines)
        #: Points that were made many at once.
        self.written: list[Written] = [] if written is None else [written]
        self.rejects: list[Rejected] = []
        self.dropped = 0
        #: Messages that went by the rules.
        self.by_rules = 0
        #: Bytes of the lines that were made one by one, and most of those, and of all lines.
        self.size = 0
        self.most_bytes = max(encoder.limits.expanded, _GROWTH * sum(map(len, payloads)))
        self.most_lines = max(encoder.limits.points, _BATCH_LINES)
        #: Whether a payload is an array of JSON, which has to be opened first.
        self.has_arrays = False

    def encoded(self) -> Encoded:
        """The whole batch."""
        pending, written = self.pending, self.written
        is_whole = len(pending) == len(self.payloads)
        if self.encoder.is_compiled and self.is_compiled and pending:
            times = own_times(self.rules, self.origin, len(self.payloads))
            if times is not None or self.rules.time_path:
                if is_whole:
                    done, pending = self.encoder.templates.encode(self.payloads, times, self.partition,
                                                                  self.origin.headers)
                    self.dropped += sum([one.dropped for one in done])
                    written += done
                    self.size += sum([one.size for one in done])
                if pending:
                    pending = self._generally(pending, times, written)
        for index in pending:
            self._by_rules(index)
        self.encoder.templates.learn_wanted(self.payloads, self.partition, {reject.at for reject in self.rejects})
        if written:
            whole = in_order([*written, *([of_lines(self.lines)] if self.lines else [])])
            encoded = self._distinct(whole)
            if encoded is not None:
                if len(written) == 1 and is_whole:
                    self._learn_template(len(whole.lines))
                return encoded
        for messages, heads, at, lines, buckets, *_ in written:
            self.lines += zip(messages, heads, at, lines, repeat("") if buckets is None else buckets, strict=False)
        if is_whole:
            self._learn_template(len(self.lines))
        return self._gathered()

    def _learn_template(self, lines: int) -> None:
        """Looks for a template where each message of the batch has become a line."""
        if lines == len(self.payloads) > 0 and not self.rejects and self.is_compiled and self.encoder.is_compiled:
            self.encoder.learn_template(self.payloads[0], self.partition)

    def _generally(self, pending: Sequence[int], times: Sequence[int] | None,
                   written: list[Written]) -> Sequence[int]:
        """Puts those of the pending messages that go the general way into `written`; gives back the indices of the
        rest.

        Some of what does not fit goes by the rules at once, and is learned from: then the rest may fit.
        """
        general = self.encoder.general
        for _ in range(_ROUNDS):
            if general.is_ready:
                done, pending, dropped = general.encode(self.payloads, pending, times, self.partition,
                                                        self.origin.headers, self.most_bytes - self.size)
                self.dropped += dropped
                if done is not None:
                    written.append(done)
                    self.size += done.size
            tried, pending = pending[:_LEARNED_AT_ONCE], pending[_LEARNED_AT_ONCE:]
            for index in tried:
                self._by_rules(index)
            bad = {reject.at for reject in self.rejects}
            if not general.learn([self.payloads[index] for index in tried if index not in bad]) or not pending:
                break
        return pending

    def _distinct(self, written: Written) -> Encoded | None:
        """The whole batch where all that it has is written, and no two points are the same; otherwise None."""
        messages, heads, times, lines, buckets = written[:5]
        if buckets is not None:
            heads = [f"{bucket}\n{head}" if bucket else head for bucket, head in zip(buckets, heads, strict=True)]
        hashes = hashes_of(heads, times) if written.hashes is None or buckets is not None else written.hashes
        if len(hashes) < len(lines):
            return None
        self.rejects.sort()
        by_bucket: dict[str, list[int]] = {bucket: [] for bucket in buckets or ()}
        if len(by_bucket) < 2:
            sources: list[tuple[int, ...]] | None = None
            if messages != list(range(len(messages))):
                sources = list(zip(messages, strict=True))
            groups = [Lines("".join(by_bucket), "".join(lines).encode(), len(lines), sources)] if lines else []
            return Encoded(groups, self.rejects, self.dropped, Overwritten(), Points(heads, times, lines, hashes))
        appends = {bucket: indices.append for bucket, indices in by_bucket.items()}
        for at, bucket in enumerate(buckets or ()):
            appends[bucket](at)
        take = itemgetter(*chain.from_iterable(by_bucket.values()))
        messages, heads, times, lines = list(take(messages)), take(heads), take(times), take(lines)
        groups, begin = [], 0
        for bucket, some in by_bucket.items():
            end = begin + len(some)
            groups.append(Lines(bucket, "".join(lines[begin:end]).encode(), len(some),
                                list(zip(messages[begin:end], strict=True))))
            begin = end
        return Encoded(groups, self.rejects, self.dropped, Overwritten(), Points(heads, times, lines, hashes))

    def _by_rules(self, index: int) -> None:
        before = len(self.lines)
        self.by_rules += 1
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
    not_before = rules.times.not_before if rules.config.timestamp_from == "origin_timestamp" else None
    if not_before is not None and min(micros) * 1_000 < not_before:
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
