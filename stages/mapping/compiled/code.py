"""What one state of a learned schema is written by: the columns of many messages at once, to lines."""

from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Final, NamedTuple

from msgspec import Raw

from pipeline.points.field_type import FieldType
from stages.mapping.compiled.columns import (
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
from stages.mapping.compiled.schema import Reader
from stages.mapping.compiled.series import RuleChooser, Series, SeriesColumns
from stages.mapping.compiled.written import Written
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.type_guard import TypeGuard, converted, kind_of
from stages.mapping.reject import Reject

#: Characters of a time in a line, at most, with what stands around it.
TIME_CHARS: Final = 22


class Misfit(Exception):
    """Some messages of a part need the exact rules; by their indices in the part."""

    def __init__(self, indices: set[int]) -> None:
        super().__init__()
        self.indices = indices


class AllByRules(Exception):
    """The whole part has to go by the exact rules."""


class Part(NamedTuple):
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


#: JSON texts of values that are not there; and of those that are no time either.
_ABSENT: Final = (b"\0", b"null")
_MISSING: Final = (*_ABSENT, b'""')


def _first(texts: Sequence[Raw], others: Sequence[Raw], missing: tuple[bytes, ...]) -> Sequence[Raw]:
    """Of each row the text, or the other one where it is missing; all texts, or all others, where there is but one."""
    if not texts or not others:
        return texts or others
    return [other if bytes(text) in missing else text for text, other in zip(texts, others, strict=True)]


class Code:
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
        #: Keys of fields that had a value since `forget_use`.
        self._used: set[str] = set()

    @property
    def has_unused(self) -> bool:
        """Whether a field has had no value since `forget_use`."""
        return len(self._used) < len(self._fields)

    def forget_use(self) -> None:
        """Takes all fields for unused from now on."""
        self._used.clear()

    def description(self) -> str:
        """A line for each value that something is made of, and the code of the rules."""
        roles = [(column.path, [*(["tag or measurement"] if column.in_head else []), *(
            ["time"] if column.is_time else []), *([f"field {column.lead[:-1]}"] if column.lead else [])])
            for column in [*self.reader.outer.all_columns(), *self.reader.inner.all_columns()]]
        lines = [f"# {path}: {', '.join(some)}" for path, some in roles if some]
        return "\n".join([*lines, *([] if self._chooser is None else [self._chooser.source])])

    def written(self, part: Part, most_bytes: int) -> Written:
        """The points of the messages. Raises Misfit and AllByRules."""
        owner, elements = self._elements(part)
        raws = self._raws(part.structs, elements, owner, most_bytes)
        return self.of_columns(part, raws, owner, len(part.structs) if owner is None else len(owner), most_bytes)

    def of_columns(self, part: Part, raws: Mapping[int, Sequence[Raw]], owner: list[int] | None, count: int,
                   most_bytes: int) -> Written:
        """The same for `count` points, whose texts are there already, by the identity of their columns; `owner` is of
        each the index of its message, None where each is a message of its own.
        """
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

    def _check_dropped(self, raws: Mapping[int, Sequence[Raw]], dropped: list[int], owner: list[int] | None) -> None:
        """Raises Misfit for messages that are dropped only if none of their arrays and objects is over a limit."""
        bad: set[int] = set()
        for column in raws.values():
            some = b"\n".join([b"", *[column[row] for row in dropped]])
            if b"\n{" in some or b"\n[" in some:
                bad.update([row for row in dropped if bytes(column[row])[:1] in (b"{", b"[")])
        _raise_misfit(bad, owner)

    def _elements(self, part: Part) -> tuple[list[int] | None, list[Any]]:
        """Of each element of the exploded arrays the index of its message, and the elements; None where none is."""
        if self.reader.elements is None:
            return None, []
        arrays = self.reader.elements(part.structs)
        limits, reader = self._limits, self.reader
        most = min(limits.points, limits.values // (reader.keys + 1), limits.expanded // (reader.element_chars + 1))
        bad = {index for index, array in enumerate(arrays) if not array or len(array) > most}
        if bad:
            raise Misfit(bad)
        owner = list(chain.from_iterable(map(repeat, range(len(arrays)), map(len, arrays))))
        return owner, list(chain.from_iterable(arrays))

    def _raws(self, structs: list[Any], elements: list[Any], owner: list[int] | None,
              most_bytes: int) -> dict[int, list[Raw]]:
        """The texts of each column, of each point. Raises AllByRules where they take more than `most_bytes`."""
        outer = [(id(column), texts) for column, texts in self.reader.outer.texts(structs)]
        if owner is None:
            return dict(outer)
        sizes = list(map(sum, zip(*[map(len, texts) for _, texts in outer], strict=True)))
        if sum([sizes[index] for index in owner] if sizes else ()) > most_bytes:
            raise AllByRules
        raws = {key: [texts[index] for index in owner] for key, texts in outer}
        return raws | {id(column): texts for column, texts in self.reader.inner.texts(elements)}

    def _rows(self, part: Part, raws: Mapping[int, Sequence[Raw]], owner: list[int] | None, choices: list[int] | None,
              count: int, most_bytes: int) -> Written:
        bad: set[int] = set()
        values: list[tuple[str, Uniform | Listed]] = []
        for column in [*self.reader.outer.all_columns(), *self.reader.inner.all_columns()]:
            if column.lead:
                found = self._fields[id(column)].values(raws[id(column)], part.is_long, bad)
                if found is not None and (isinstance(found, Uniform) or any(found)):
                    values.append((column.lead, found))
                    self._used.add(column.lead)
            elif not (column.in_head or column.is_time or column.is_operand):
                check_unused(self._rules, column, raws[id(column)], bad)
        times = self._times(part, raws, owner, bad)
        _raise_misfit(bad, owner)
        if not values:
            raise AllByRules
        # Last, as new tags are counted there: only those of messages that the rules would come as far with.
        series = self._series(part, raws, owner, choices, count, bad)
        _raise_misfit(bad, owner)
        heads = [one.head for one in series]
        size = sum([size_of(found, lead) for lead, found in values]) + count * (
            TIME_CHARS + self.series[part.partition].longest)
        if size > most_bytes and size - count * self.series[part.partition].longest + sum(map(len, heads)) > most_bytes:
            raise AllByRules
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

    def _series(self, part: Part, raws: Mapping[int, Sequence[Raw]], owner: list[int] | None, choices: list[int] | None,
                count: int, bad: set[int]) -> list[Series]:
        columns = self.series.get(part.partition)
        if columns is None:
            columns = self.series[part.partition] = SeriesColumns(self._rules, self._head_columns, part.partition)
        return columns.series([texts_of(raws[id(column)]) for column in self._head_columns],
                              _of_rows(part.headers, owner), choices, count, bad)

    def _times(self, part: Part, raws: Mapping[int, Sequence[Raw]], owner: list[int] | None,
               bad: set[int]) -> list[str]:
        if part.times is not None:
            times = list(map(str, part.times))
            return times if owner is None else [times[index] for index in owner]
        texts: Sequence[Raw] = ()
        for path in self._rules.times.paths:
            found: Sequence[Raw] = ()
            for column in [*self.reader.outer.all_columns(), *self.reader.inner.all_columns()]:
                if column.is_time and column.path == path:
                    # An element's own time goes before that of its message.
                    found = _first(raws[id(column)], found, _ABSENT)
            if texts and found:
                # One that is not asked for may be too deep.
                bad.update([row for row, raw in enumerate(found) if bytes(raw)[:1] in (b"{", b"[")])
            texts = _first(texts, found, _MISSING) if found else texts
        if owner is not None and not any([column.is_time for column in self.reader.inner.all_columns()]):
            return self._times_of_messages(texts, owner, bad)
        return self._time.times(texts, bad)

    def _times_of_messages(self, texts: Sequence[Raw], owner: list[int], bad: set[int]) -> list[str]:
        """Times of points that are those of their messages: each message's is read once."""
        firsts = [row for row, (message, before) in enumerate(zip(owner, [-1, *owner], strict=False))
                  if message != before]
        wrong: set[int] = set()
        times = self._time.times([texts[row] for row in firsts], wrong)
        bad.update([firsts[index] for index in wrong])
        by_message = dict(zip([owner[row] for row in firsts], times, strict=True))
        return list(map(by_message.__getitem__, owner))

    def _check_expanded(self, lines: list[str], owner: list[int] | None) -> None:
        """Raises Misfit for messages whose points are over `max_expanded_bytes`."""
        expanded = self._limits.expanded
        if owner is None or sum(map(len, lines)) <= expanded:
            return
        sizes: dict[int, int] = {}
        for message, line in zip(owner, lines, strict=True):
            sizes[message] = sizes.get(message, 0) + len(line)
        bad = {message for message, size in sizes.items() if size > expanded}
        if bad:
            raise Misfit(bad)

    def _guarded(self, values: list[tuple[str, Uniform | Listed]], series: list[Series], may_ask: bool,
                 bad: set[int]) -> list[tuple[str, Uniform | Listed]]:
        """The values as the types that were decided for their fields. Raises AllByRules where that is to be asked in
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
    """The types decided. Raises AllByRules where one is to be asked for, and messages before these are not written."""
    known = guard.known(measurement)
    if all([lead in known for lead in kinds]):
        return known
    if not may_ask:
        raise AllByRules
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
    """Raises Misfit for the messages of these points, if there are any."""
    if rows:
        raise Misfit(rows if owner is None else {owner[row] for row in rows})


def _of_rows(headers: Sequence[tuple[str, ...]] | None, owner: list[int] | None) -> Sequence[tuple[str, ...]] | None:
    """The headers of each row's message; rows are those of `owner`, or the messages themselves."""
    return headers if headers is None or owner is None else [headers[index] for index in owner]
