"""The general way: messages of any shape, read by Structs that were learned, and written column by column.

A batch is read by one call of the decoder for each message; then each field of all messages is made at once. What does
not fit, for whatever reason, is given back by its index: it goes by the exact rules, which say what it is, and from
what they wrote the schema learns. Nothing is decided here that the rules would decide otherwise.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, repeat
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from pipeline.points.field_type import FieldType
from stages.mapping.compiled.columns import (
    SAFE_CHARS,
    FieldColumn,
    Listed,
    Uniform,
    check_unused,
    first_type,
    has_all,
    of_type,
    pieces,
    size_of,
    texts_of,
)
from stages.mapping.compiled.moments import TimeColumn
from stages.mapping.compiled.schema import Reader, Schema
from stages.mapping.compiled.series import RuleChooser, Series, SeriesColumns
from stages.mapping.compiled.written import Written, joined
from stages.mapping.cpu_limit import CpuLimit
from stages.mapping.limits import Limits
from stages.mapping.records.conditions import METADATA_PREFIX, all_paths_of, paths_of
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.type_guard import TypeGuard, converted, kind_of
from stages.mapping.reject import Reject

#: Messages of a batch are taken in parts of so many bytes: their columns stay in the processor's caches.
_PART_BYTES: Final = 100_000
#: Times that a part is tried without the messages that were found not to fit, before all of it goes by the rules.
_TRIES: Final = 3
#: A key costs about 3 us whenever Structs are made. So many are made of at first; then so many more for each message
#: that comes, and at most so many at once: a hundredth of what the messages themselves cost.
_FIRST_CREDIT: Final = 4_000.0
_CREDIT_PER_MESSAGE: Final = 0.1
#: Messages after which a schema that has no room for a new key forgets all, to learn what there is now.
_FORGET_AFTER: Final = 200_000
#: What may hide a colon in a string: one that is counted shows a key that is there twice.
_HIDDEN_COLON: Final = re.compile(rb"\\u003[aA]")
#: Characters of a time in a line, at most, with what stands around it.
TIME_CHARS: Final = 22
_encoder: Final = msgspec.json.Encoder()


class _Misfit(Exception):
    """Some messages of a part need the exact rules; by their indices in the part."""

    def __init__(self, indices: set[int]) -> None:
        super().__init__()
        self.indices = indices


class _AllByRules(Exception):
    """The whole part has to go by the exact rules."""


class _Part(NamedTuple):
    """Messages that are encoded at once."""

    structs: list[Any]
    #: Times of their own; None where a field has them.
    times: Sequence[int] | None
    headers: Sequence[tuple[str, ...]] | None
    partition: int
    #: The longest may be longer than any number that is surely in range.
    is_long: bool
    #: Whether what the type guard does not know may be asked: all messages before these are written already.
    may_ask: bool


class General:
    """The general way of one topic. Not thread-safe: it learns as it goes."""

    def __init__(self, rules: RecordMapper, cpu: CpuLimit) -> None:
        self._rules = rules
        self._cpu = cpu
        self._limits: Limits = rules.flattener.limits
        config = rules.config
        #: Whether messages can go this way at all under the mapping.
        asks_for_offset = any(f"{METADATA_PREFIX}offset()" in all_paths_of(rule.when) for rule in config.rules)
        self.is_possible = not ("offset" in config.metadata_tags or asks_for_offset or (
            rules.time_path and not rules.times.only_format))
        operands = frozenset(path for rule in config.rules for path in paths_of(rule.when))
        self.schema = Schema(rules, operands)
        self._drops = frozenset([number for number, rule in enumerate(config.rules) if rule.then == "drop"])
        self._code: _Code | None = None
        self._is_stale = False
        self._credit = _FIRST_CREDIT
        self._since_forgotten = 0
        #: How often Structs were made, and of how many keys in all.
        self.compiled = self.compiled_keys = 0
        #: How often a full schema was forgotten.
        self.forgotten = 0
        #: Messages that were written this way, or dropped.
        self.written = 0

    @property
    def is_ready(self) -> bool:
        """Whether something was learned that messages can be read by."""
        return self._code is not None

    def description(self) -> str:
        """What was learned, for people: the keys that are read, what becomes of each, and the code of the rules."""
        return "" if self._code is None else self._code.description()

    def forget_series(self) -> None:
        """Forgets measurements and tags: they are to be made otherwise from now on."""
        if self._code is not None:
            self._code.series.clear()

    def learn(self, payloads: Sequence[bytes]) -> bool:
        """Learns from messages that were given back, and came out right by the rules. Whether others may fit now."""
        for payload in payloads:
            self._is_stale |= self.schema.learn(payload)
        if self.schema.is_full and payloads and self._since_forgotten >= _FORGET_AFTER:
            self._since_forgotten = 0
            self.forgotten += 1
            self.schema.forget()
            self._is_stale = any([self.schema.learn(payload) for payload in payloads])
        if not self._is_stale or self._credit < self.schema.keys:
            return False
        self._compile()
        return self.is_ready

    def _compile(self) -> None:
        self._is_stale = False
        self._credit -= self.schema.keys
        self.compiled += 1
        self.compiled_keys += self.schema.keys
        reader = None if self.schema.asks_for_more() else self.schema.reader()
        self._code = _Code(self._rules, reader) if reader is not None else None

    def encode(self, payloads: Sequence[bytes], indices: Sequence[int], times: Sequence[int] | None, partition: int,
               headers: Sequence[tuple[str, ...]] | None, most_bytes: int) -> tuple[Written | None, list[int], int]:
        """The points of those of the payloads at `indices` that fit; the indices of the others; how many were dropped
        on purpose. Times and headers are of all payloads.

        More than `most_bytes` of lines are not made. All messages before those at `indices` must be written.
        """
        self._credit = min(_FIRST_CREDIT, self._credit + _CREDIT_PER_MESSAGE * len(payloads))
        self._since_forgotten += len(payloads)
        code = self._code
        if code is None:
            return None, list(indices), 0
        parts: list[Written] = []
        misfits: list[int] = []
        dropped = 0
        for some in _parts(payloads, indices):
            self._cpu.begin()
            done, rest, left_out = self._part(code, payloads, some, times, partition, headers, most_bytes, not misfits)
            if done is not None:
                parts.append(done)
                most_bytes -= done.size
            misfits += rest
            dropped += left_out
        self.written += len(indices) - len(misfits)
        return joined(parts) if parts else None, misfits, dropped

    def _part(self, code: "_Code", payloads: Sequence[bytes], indices: Sequence[int], times: Sequence[int] | None,
              partition: int, headers: Sequence[tuple[str, ...]] | None, most_bytes: int,
              may_ask: bool) -> tuple[Written | None, list[int], int]:
        """See `encode`."""
        fitting, structs, longest = _readable(code.reader, payloads, indices, self._limits)
        for _ in range(_TRIES):
            if not fitting:
                break
            part = _Part(structs, times and [times[index] for index in fitting],
                         headers and [headers[index] for index in fitting], partition,
                         longest >= SAFE_CHARS, may_ask and len(fitting) == len(indices))
            try:
                made = code.written(part, most_bytes)
            except _AllByRules:
                break
            except _Misfit as misfit:
                keep = [at for at in range(len(fitting)) if at not in misfit.indices]
                fitting, structs = [fitting[at] for at in keep], [structs[at] for at in keep]
                continue
            misfits: list[int] = []
            if len(fitting) < len(indices) or made.misfits:
                good = set(fitting).difference([fitting[at] for at in made.misfits])
                misfits = [index for index in indices if index not in good]
            if fitting[-1] != len(fitting) - 1:
                made = made._replace(messages=[fitting[at] for at in made.messages])
            dropped = len(fitting) - len(made.misfits) - len(set(made.messages)) if code.can_drop else 0
            return made, misfits, dropped
        return None, list(indices), 0


def _parts(payloads: Sequence[bytes], indices: Sequence[int]) -> Iterator[Sequence[int]]:
    """The indices in parts of about `_PART_BYTES` of their payloads."""
    some = payloads if len(indices) == len(payloads) else [payloads[index] for index in indices]
    ends = list(accumulate(map(len, some)))
    begin = 0
    while begin < len(ends):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, bisect_right(ends, before + _PART_BYTES, begin))
        yield indices[begin:end]
        begin = end


def _readable(reader: Reader, payloads: Sequence[bytes], indices: Sequence[int],
              limits: Limits) -> tuple[list[int], list[Any], int]:
    """Indices of the messages that the Structs read without losing anything, those, and the longest one's bytes."""
    some = payloads if len(indices) == len(payloads) else [payloads[index] for index in indices]
    structs: list[Any] = []
    bad: set[int] = set()
    reading = map(reader.decode, some)
    while True:
        try:
            structs.extend(reading)  # what was read before an error is kept, and reading goes on after it
            break
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            bad.add(len(structs) + len(bad))
    fitting = list(indices)
    if bad:
        fitting = [index for at, index in enumerate(indices) if at not in bad]
        some = [payload for at, payload in enumerate(some) if at not in bad]
    whole = b"\n".join(some)
    longest = max(map(len, some), default=0)
    encoded = _encoder.encode(structs)
    # Written again, Structs that lost nothing are as long as what they were read from: brackets, and commas between.
    is_whole = reader.is_verbatim and len(encoded) == len(whole) + 2
    # Of a key that is there twice the Structs hold one value: the other one's colon is missing.
    if ((is_whole or whole.count(b":") == encoded.count(b":") and not (
            b"\\" in whole and _HIDDEN_COLON.search(whole))) and longest < 2 * limits.values and _is_text(whole)):
        return fitting, structs, longest
    kept = [at for at, payload in enumerate(some)
            if payload.count(b":") == _encoder.encode(structs[at]).count(b":") and len(payload) < 2 * limits.values
            and not _HIDDEN_COLON.search(payload) and _is_text(payload)]
    return [fitting[at] for at in kept], [structs[at] for at in kept], longest


def _is_text(payload: bytes) -> bool:
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _of_rows(headers: Sequence[tuple[str, ...]] | None, owner: list[int] | None) -> Sequence[tuple[str, ...]] | None:
    """The headers of each row's message; rows are those of `owner`, or the messages themselves."""
    return headers if headers is None or owner is None else [headers[index] for index in owner]


class _Code:
    """What one state of the schema is read and written by."""

    def __init__(self, rules: RecordMapper, reader: Reader) -> None:
        self.reader = reader
        self._rules = rules
        self._limits = rules.flattener.limits
        columns = [*reader.outer.all_columns(), *reader.inner.all_columns()]
        self._fields = {id(column): FieldColumn(rules, column) for column in columns if column.lead}
        self._time = TimeColumn(rules)
        self._head_columns = [column for column in columns if column.in_head]
        self._operands = [column for column in columns if column.is_operand]
        self._chooser = RuleChooser(rules, self._operands) if rules.config.rules else None
        self.can_drop = self._chooser is not None and bool(self._chooser.drops)
        #: By partition.
        self.series: dict[int, SeriesColumns] = {}

    def description(self) -> str:
        """A line for each value that something is made of, and the code of the rules."""
        roles = [(column.path, [*(["tag or measurement"] if column.in_head else []), *(
            ["time"] if column.is_time else []), *([f"field {column.lead[:-1]}"] if column.lead else [])])
            for column in [*self.reader.outer.all_columns(), *self.reader.inner.all_columns()]]
        lines = [f"# {path}: {', '.join(some)}" for path, some in roles if some]
        return "\n".join([*lines, *([] if self._chooser is None else [self._chooser.source])])

    def written(self, part: _Part, most_bytes: int) -> Written:
        """The points of the messages. Raises _Misfit and _AllByRules."""
        owner, elements = self._elements(part)
        raws = self._raws(part.structs, elements, owner, most_bytes)
        count = len(part.structs) if owner is None else len(owner)
        bad: set[int] = set()
        choices = None
        if self._chooser is not None:
            choices = self._chooser.choices([raws[id(column)] for column in self._operands], part.partition,
                                            _of_rows(part.headers, owner), count, bad)
            _raise_misfit(bad, owner)
            drops = self._chooser.drops
            if drops and not drops.isdisjoint(choices):
                self._check_dropped(raws, [row for row, choice in enumerate(choices) if choice in drops], owner)
                kept = [row for row, choice in enumerate(choices) if choice not in drops]
                if not kept:
                    return Written([], [], [], [], [], 0)
                choices = [choices[row] for row in kept]
                owner = kept if owner is None else [owner[row] for row in kept]
                raws = {key: [column[row] for row in kept] for key, column in raws.items()}
                count = len(kept)
        return self._rows(part, raws, owner, choices, count, most_bytes)

    def _check_dropped(self, raws: dict[int, list[Raw]], dropped: list[int], owner: list[int] | None) -> None:
        """Raises _Misfit for messages that are dropped only if none of their arrays and objects is over a limit."""
        bad: set[int] = set()
        for column in raws.values():
            some = b"\n".join([b"", *[column[row] for row in dropped]])
            if b"\n{" in some or b"\n[" in some:
                bad.update([row for row in dropped if bytes(column[row])[:1] in (b"{", b"[")])
        _raise_misfit(bad, owner)

    def _elements(self, part: _Part) -> tuple[list[int] | None, list[Any]]:
        """Of each element of the exploded arrays the index of its message, and the elements; None where none is."""
        if self.reader.elements is None:
            return None, []
        arrays = self.reader.elements(part.structs)
        limits, reader = self._limits, self.reader
        most = min(limits.points, limits.values // (reader.keys + 1), limits.expanded // (reader.element_chars + 1))
        bad = {index for index, array in enumerate(arrays) if not array or len(array) > most}
        if bad:
            raise _Misfit(bad)
        owner = list(chain.from_iterable(map(repeat, range(len(arrays)), map(len, arrays))))
        return owner, list(chain.from_iterable(arrays))

    def _raws(self, structs: list[Any], elements: list[Any], owner: list[int] | None,
              most_bytes: int) -> dict[int, list[Raw]]:
        """The texts of each column, of each point. Raises _AllByRules where they take more than `most_bytes`."""
        outer = [(id(column), texts) for column, texts in self.reader.outer.texts(structs)]
        if owner is None:
            return dict(outer)
        sizes = list(map(sum, zip(*[map(len, texts) for _, texts in outer], strict=True)))
        if sum([sizes[index] for index in owner] if sizes else ()) > most_bytes:
            raise _AllByRules
        raws = {key: [texts[index] for index in owner] for key, texts in outer}
        return raws | {id(column): texts for column, texts in self.reader.inner.texts(elements)}

    def _rows(self, part: _Part, raws: dict[int, list[Raw]], owner: list[int] | None, choices: list[int] | None,
              count: int, most_bytes: int) -> Written:
        bad: set[int] = set()
        values: list[tuple[str, Uniform | Listed]] = []
        for column in [*self.reader.outer.all_columns(), *self.reader.inner.all_columns()]:
            if column.lead:
                found = self._fields[id(column)].values(raws[id(column)], part.is_long, bad)
                if found is not None and (isinstance(found, Uniform) or any(found)):
                    values.append((column.lead, found))
            elif not (column.in_head or column.is_time or column.is_operand):
                check_unused(self._rules, column, raws[id(column)], bad)
        times = self._times(part, raws, owner, bad)
        _raise_misfit(bad, owner)
        if not values:
            raise _AllByRules
        # Last, as new tags are counted there: only those of messages that the rules would come as far with.
        series = self._series(part, raws, owner, choices, count, bad)
        _raise_misfit(bad, owner)
        heads = [one.head for one in series]
        size = sum([size_of(found, lead) for lead, found in values]) + count * (
            TIME_CHARS + self.series[part.partition].longest)
        if size > most_bytes and size - count * self.series[part.partition].longest + sum(map(len, heads)) > most_bytes:
            raise _AllByRules
        values = self._guarded(values, series, part.may_ask, bad)
        _raise_misfit(bad, owner)
        lines = _lines(heads, values, times, bad)
        buckets = [one.bucket for one in series] if self._rules.router is not None else None
        if bad and owner is None:
            rows = [row for row in range(count) if row not in bad]
            return Written(rows, [heads[row] for row in rows], [times[row] for row in rows],
                           [lines[row] for row in rows], buckets and [buckets[row] for row in rows], size,
                           frozenset(bad))
        _raise_misfit(bad, owner)
        self._check_expanded(lines, owner)
        return Written(owner if owner is not None else list(range(count)), heads, times, lines, buckets, size)

    def _series(self, part: _Part, raws: dict[int, list[Raw]], owner: list[int] | None, choices: list[int] | None,
                count: int, bad: set[int]) -> list[Series]:
        columns = self.series.get(part.partition)
        if columns is None:
            columns = self.series[part.partition] = SeriesColumns(self._rules, self._head_columns, part.partition)
        return columns.series([texts_of(raws[id(column)]) for column in self._head_columns],
                              _of_rows(part.headers, owner), choices, count, bad)

    def _times(self, part: _Part, raws: dict[int, list[Raw]], owner: list[int] | None, bad: set[int]) -> list[str]:
        if part.times is not None:
            times = list(map(str, part.times))
            return times if owner is None else [times[index] for index in owner]
        columns = [column for column in [*self.reader.outer.all_columns(), *self.reader.inner.all_columns()]
                   if column.is_time]
        texts = raws[id(columns[0])]
        for column in columns[1:]:  # an element's own time goes before that of its message
            texts = [outer if bytes(inner) in (b"\0", b"null") else inner
                     for outer, inner in zip(texts, raws[id(column)], strict=True)]
        return self._time.times(texts, bad)

    def _check_expanded(self, lines: list[str], owner: list[int] | None) -> None:
        """Raises _Misfit for messages whose points are over `max_expanded_bytes`."""
        expanded = self._limits.expanded
        if owner is None or sum(map(len, lines)) <= expanded:
            return
        sizes: dict[int, int] = {}
        for message, line in zip(owner, lines, strict=True):
            sizes[message] = sizes.get(message, 0) + len(line)
        bad = {message for message, size in sizes.items() if size > expanded}
        if bad:
            raise _Misfit(bad)

    def _guarded(self, values: list[tuple[str, Uniform | Listed]], series: list[Series], may_ask: bool,
                 bad: set[int]) -> list[tuple[str, Uniform | Listed]]:
        """The values as the types that were decided for their fields. Raises _AllByRules where that is to be asked in
        the messages' order.
        """
        if self._rules.guard is None:
            return values
        if self._rules.router is None and self._rules.heads.fixed:
            groups = {("", self._rules.heads.fixed)}
        else:
            groups = {(one.bucket, one.measurement) for one in set(series)}
        if len(groups) == 1:
            ((bucket, measurement),) = groups
            guard = self._rules.guard_of(bucket)
            known = _known(guard, measurement, {lead: first_type(found) for lead, found in values}, may_ask)
            return [(lead, of_type(found, lead, known[lead], bad)) for lead, found in values]
        places = [(one.bucket, one.measurement) for one in series]
        return [(lead, self._of_places(found, lead, places, may_ask, bad)) for lead, found in values]

    def _of_places(self, found: Uniform | Listed, lead: str, places: list[tuple[str, str]], may_ask: bool,
                   bad: set[int]) -> Uniform | Listed:
        """The values of one field in several measurements or buckets."""
        if isinstance(found, Uniform):
            there = set(places) if not found.absent else {
                place for place, text in zip(places, found.joined.split(found.separator), strict=True)
                if text != "\0"}
            kinds = {self._decided(place, lead, found.kind, may_ask) for place in there}
            if kinds == {found.kind}:
                return found
            found = ["" if text == "\0" else text + found.suffix for text in found.joined.split(found.separator)]
        out: list[str] = []
        for index, (value, place) in enumerate(zip(found, places, strict=True)):
            if value:
                kind = kind_of(value)
                decided = self._decided(place, lead, kind, may_ask)
                try:
                    value = value if decided == kind else converted(lead, value, decided)
                except Reject:
                    bad.add(index)
            out.append(value)
        return out

    def _decided(self, place: tuple[str, str], lead: str, kind: FieldType, may_ask: bool) -> FieldType:
        bucket, measurement = place
        return _known(self._rules.guard_of(bucket), measurement, {lead: kind}, may_ask)[lead]


def _known(guard: TypeGuard, measurement: str, kinds: Mapping[str, FieldType],
           may_ask: bool) -> Mapping[str, FieldType]:
    """The types decided. Raises _AllByRules where one is to be asked for, and messages before these are not written."""
    known = guard.known(measurement)
    if all([lead in known for lead in kinds]):
        return known
    if not may_ask:
        raise _AllByRules
    return guard.decided(measurement, kinds)


def _lines(heads: list[str], values: list[tuple[str, Uniform | Listed]], times: list[str], bad: set[int]) -> list[str]:
    """The lines, each with its line break; indices of those that would have no field go to `bad`."""
    ends = (" " + "\n ".join(times) + "\n").splitlines(keepends=True)
    # A field that each message has goes first: what stands before it needs no comma.
    first = next((at for at, (_, found) in enumerate(values) if has_all(found)), -1)
    if first >= 0:
        values = [values[first], *values[:first], *values[first + 1:]]
    columns = [pieces(found, lead, "," if number or first < 0 else " ") for number, (lead, found) in enumerate(values)]
    if first >= 0:
        return list(map("".join, zip(heads, *columns, ends, strict=True)))
    bodies = list(map("".join, zip(*columns, strict=True)))
    if "" in bodies:
        bad.update([index for index, body in enumerate(bodies) if not body])
    return [f"{head} {body[1:]}{end}" for head, body, end in zip(heads, bodies, ends, strict=True)]


def _raise_misfit(rows: set[int], owner: list[int] | None) -> None:
    """Raises _Misfit for the messages of these points, if there are any."""
    if rows:
        raise _Misfit(rows if owner is None else {owner[row] for row in rows})

