"""What one state of a learned schema is written by: the columns of many messages at once, to lines."""

from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Final, NamedTuple

from msgspec import Raw

from pipeline.points.field_type import FieldType
from stages.mapping.compiled.columns import FieldColumn, Uniform, check_unused, texts_of
from stages.mapping.compiled.fields import Fields, OneField, Place, PlainFields, Taken, TextField, taken
from stages.mapping.compiled.moments import TimeColumn
from stages.mapping.compiled.rows import RowWriter
from stages.mapping.compiled.schema import Reader
from stages.mapping.compiled.series import RuleChooser, Series, SeriesColumns
from stages.mapping.compiled.tables import Column
from stages.mapping.compiled.texts import TextColumn, json_of
from stages.mapping.compiled.written import Written
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.type_guard import TypeGuard

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
        #: All values that something is made of, or may be.
        columns = self._columns = [*reader.outer.all_columns(), *reader.inner.all_columns()]
        tables = [*reader.outer.with_plain(), *reader.inner.with_plain()]
        self._writers = {id(table): RowWriter(table, rules.guard is not None) for table in tables}
        plain = {id(column) for table in tables for column in table.plain.values()}
        apart = [column for column in columns if column.lead and id(column) not in plain]
        self._fields = {id(column): FieldColumn(rules, column) for column in apart if not column.is_text}
        self._texts = {id(column): TextColumn(rules, column) for column in apart if column.is_text}
        self._unused = [column for column in columns if not (
            column.lead or column.in_head or column.is_time or column.is_operand)]
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
        return len(self._used) < sum([bool(column.lead) for column in self._columns])

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
        """The points of the messages, whose Structs are of no use after that. Raises Misfit, Unfit and AllByRules."""
        owner, elements = self._elements(part)
        return self.of_columns(part, self._taken_apart(part.structs, elements, owner, most_bytes), most_bytes)

    def of_columns(self, part: Part, rows: Taken, most_bytes: int) -> Written:
        """The same for what was taken out of the messages already."""
        choices, owner = None, rows.owner
        if self._chooser is not None:
            bad: set[int] = set()
            choices = self._chooser.choices(list(map(rows.values, self._operands)), part.partition,
                                            _of_rows(part.headers, owner), rows.points, bad)
            _raise_misfit(bad, owner)
            drops = self._chooser.drops
            if drops and not drops.isdisjoint(choices):
                self._check_dropped(rows, [row for row, choice in enumerate(choices) if choice in drops])
                kept = [row for row, choice in enumerate(choices) if choice not in drops]
                if not kept:
                    return Written([], [], [], [], [], 0)
                choices = [choices[row] for row in kept]
                rows = rows.only(kept)
        return self._rows(part, rows, choices, most_bytes)

    def _check_dropped(self, rows: Taken, dropped: list[int]) -> None:
        """Raises Misfit for messages that are dropped only if none of their arrays and objects is over a limit."""
        bad: set[int] = set()
        for column in self._columns:
            if not column.is_text and (id(column) in rows.raws or id(column) in rows.of_messages):
                values = rows.values(column)
                some = b"\n".join([b"", *[values[row] for row in dropped]])
                if b"\n{" in some or b"\n[" in some:
                    bad.update([row for row in dropped if bytes(values[row])[:1] in (b"{", b"[")])
        owner = rows.owner
        messages = dropped if owner is None else [owner[row] for row in dropped]
        for table, structs in rows.plain:
            bad.update([dropped[at] for at in self._writers[id(table)].find_open([structs[row] for row in dropped])])
        for table, structs in rows.plain_of_messages:
            bad.update([dropped[at] for at in self._writers[id(table)].find_open([structs[at] for at in messages])])
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

    def _taken_apart(self, structs: list[Any], elements: list[Any], owner: list[int] | None,
                     most_bytes: int) -> Taken:
        """What the Structs of messages and elements hold. Raises AllByRules where it takes more than `most_bytes`."""
        outer, outer_plain = taken(self.reader.outer, structs)
        if owner is None:
            return Taken(len(structs), None, outer, {}, outer_plain)
        sizes = [list(map(len, texts if isinstance(texts[0], Raw) else map(str, texts))) for texts in outer.values()]
        if sum(map(max, sizes)) * len(owner) > most_bytes and (  # mostly they are far smaller
                sum([one[index] for one in sizes for index in owner]) > most_bytes):
            raise AllByRules
        inner, inner_plain = taken(self.reader.inner, elements)
        return Taken(len(elements), owner, inner, outer, inner_plain, outer_plain)

    def _rows(self, part: Part, rows: Taken, choices: list[int] | None, most_bytes: int) -> Written:
        owner, count = rows.owner, rows.points
        bad: set[int] = set()
        values = self._values(part, rows, bad)
        times = self._times(part, rows, bad)
        _raise_misfit(bad, owner)
        if not values:
            raise AllByRules
        # Last, as new tags are counted there: only those of messages that the rules would come as far with.
        series = self._series(part, rows, choices, bad)
        _raise_misfit(bad, owner)
        heads = [one.head for one in series]
        longest = self.series[part.partition].longest
        size = sum([value.size for value in values]) + count * (TIME_CHARS + longest)
        if size > most_bytes and size - count * longest + sum(map(len, heads)) > most_bytes:
            raise AllByRules
        values = self._guarded(values, series, part.may_ask, bad)
        _raise_misfit(bad, owner)
        lines = _lines(heads, values, times, bad)
        buckets = [one.bucket for one in series] if self._rules.router is not None else None
        if bad and owner is None:
            kept = [row for row in range(count) if row not in bad]
            return Written(kept, [heads[row] for row in kept], [times[row] for row in kept],
                           [lines[row] for row in kept], buckets and [buckets[row] for row in kept], size,
                           frozenset(bad))
        _raise_misfit(bad, owner)
        self._check_expanded(lines, owner)
        return Written(list(range(count)) if owner is None else owner, heads, times, lines, buckets, size)

    def _values(self, part: Part, rows: Taken, bad: set[int]) -> list[Fields]:
        """The fields. Indices of rows that need the exact rules are added to `bad`. Raises Misfit and Unfit."""
        values: list[Fields] = []
        for table, structs in rows.plain_of_messages:
            writer, wrong = self._writers[id(table)], set[int]()
            values.append(PlainFields(writer, writer.read(structs, part.is_long, wrong), rows.owner))
            _raise_misfit(wrong, None)
        for table, structs in rows.plain:
            writer = self._writers[id(table)]
            values.append(PlainFields(writer, writer.read(structs, part.is_long, bad)))
        for column in self._columns:
            key = id(column)
            if key in self._fields:
                found = self._fields[key].values(rows.values(column), part.is_long, bad)
                if found is not None and (isinstance(found, Uniform) or any(found)):
                    values.append(OneField(column.lead, found))
            elif key in self._texts:
                pieces = self._texts[key].pieces(rows.values(column), bad)
                if any(pieces):
                    values.append(TextField(column.lead, pieces))
        for column in self._unused:
            check_unused(self._rules, column, rows.values(column), bad)
        for value in values:
            self._used.update(value.leads)
        return [value for value in values if value.leads]

    def _series(self, part: Part, rows: Taken, choices: list[int] | None, bad: set[int]) -> list[Series]:
        columns = self.series.get(part.partition)
        if columns is None:
            columns = self.series[part.partition] = SeriesColumns(self._rules, self._head_columns, part.partition)
        return columns.series([rows.values(column) if column.is_text else texts_of(rows.values(column))
                               for column in self._head_columns],
                              _of_rows(part.headers, rows.owner), choices, rows.points, bad)

    def _times(self, part: Part, rows: Taken, bad: set[int]) -> Sequence[str]:
        """The times of the points; indices of those that need the exact rules go to `bad`. Raises Misfit."""
        owner = rows.owner
        if part.times is not None:
            times = list(map(str, part.times))
            return times if owner is None else [times[index] for index in owner]
        columns = [column for path in self._rules.times.paths for column in self._columns
                   if column.is_time and column.path == path]
        if len(columns) > 1:
            return self._time.times(self._first_times(rows, columns, bad), bad)
        column, = columns
        read = self._time.of_texts if column.is_text else self._time.times
        if owner is None or id(column) not in rows.of_messages:
            return read(rows.values(column), bad)
        wrong: set[int] = set()
        times = read(rows.of_messages[id(column)], wrong)
        _raise_misfit(wrong, None)
        return [times[index] for index in owner]

    def _first_times(self, rows: Taken, columns: list[Column], bad: set[int]) -> Sequence[Any]:
        """The JSON texts of the first times that are there."""
        texts: Sequence[Any] = ()
        for path in self._rules.times.paths:
            found: Sequence[Any] = ()
            for column in columns:
                if column.path == path:
                    # An element's own time goes before that of its message.
                    values = rows.values(column)
                    raws = [Raw(json_of(text)) for text in values] if column.is_text else values
                    found = _first(raws, found, _ABSENT)
            if texts and found:
                # One that is not asked for may be too deep.
                bad.update([row for row, raw in enumerate(found) if bytes(raw)[:1] in (b"{", b"[")])
            texts = _first(texts, found, _MISSING) if found else texts
        return texts

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

    def _guarded(self, values: list[Fields], series: list[Series], may_ask: bool, bad: set[int]) -> list[Fields]:
        """The values as the types that were decided for their fields. Raises Unfit, and AllByRules where that is to be
        asked in the messages' order.
        """
        rules = self._rules
        if rules.guard is None:
            return values
        if rules.router is None and rules.heads.fixed:
            groups = {("", rules.heads.fixed)}
        else:
            groups = {(one.bucket, one.measurement) for one in set(series)}
        if len(groups) == 1:
            ((bucket, measurement),) = groups
            kinds = {lead: kind for value in values for lead, kind in value.kinds().items()}
            known = _known(rules.guard_of(bucket), measurement, kinds, may_ask)
            return [value.of_types(known, bad) for value in values]

        def decide(place: Place, lead: str, kind: FieldType) -> FieldType:
            return _known(rules.guard_of(place[0]), place[1], {lead: kind}, may_ask)[lead]

        places = [(one.bucket, one.measurement) for one in series]
        return [value.of_places(places, decide, bad) for value in values]


def _known(guard: TypeGuard, measurement: str, kinds: Mapping[str, FieldType],
           may_ask: bool) -> Mapping[str, FieldType]:
    """The types decided. Raises AllByRules where one is to be asked for, and messages before these are not written."""
    known = guard.known(measurement)
    if all([lead in known for lead in kinds]):
        return known
    if not may_ask:
        raise AllByRules
    return guard.decided(measurement, kinds)


def _lines(heads: list[str], values: list[Fields], times: Sequence[str], bad: set[int]) -> list[str]:
    """The lines, each with its line break; indices of those that would have no field go to `bad`."""
    # A field that each message has goes first: what stands before it needs no comma.
    first = next((at for at, found in enumerate(values) if found.has_all), -1)
    if first >= 0:
        values = [values[first], *values[:first], *values[first + 1:]]
    columns = [found.pieces("," if number or first < 0 else " ") for number, found in enumerate(values)]
    if first >= 0 and len(columns) == 1:
        return [f"{head}{body} {time}\n" for head, body, time in zip(heads, columns[0], times, strict=True)]
    ends = (" " + "\n ".join(times) + "\n").splitlines(keepends=True)
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
