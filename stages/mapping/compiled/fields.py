"""The fields of many messages on their way to lines: one of each message, or the plain ones of a table together."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pipeline.points.field_type import FieldType
from stages.mapping.compiled.columns import Listed, Uniform, first_type, has_all, of_type, pieces, size_of
from stages.mapping.compiled.rows import Rows, RowWriter, Unfit
from stages.mapping.compiled.tables import Column, Table
from stages.mapping.records.type_guard import converted, kind_of
from stages.mapping.reject import Reject

#: Bucket and measurement.
Place = tuple[str, str]
#: Gives the type decided for a field, by its place, `key=`, and the type that it has.
Decide = Callable[[Place, str, FieldType], FieldType]


class Fields(Protocol):
    """Fields of each of many points."""

    @property
    def leads(self) -> list[str]:
        """`key=` of those that have a value somewhere."""

    @property
    def size(self) -> int:
        """Characters of all of them in lines, about."""

    @property
    def has_all(self) -> bool:
        """Whether each point has one."""

    def pieces(self, before: str) -> Sequence[str]:
        """`before`, `key=` and value of each point; "" where there is none."""

    def kinds(self) -> Mapping[str, FieldType]:
        """The type of the first value of each. Raises Unfit where one has values of several types."""

    def of_types(self, known: Mapping[str, FieldType], bad: set[int]) -> "Fields":
        """The same as the types that were decided; indices of values that these cannot hold go to `bad`. Raises Unfit.
        """

    def of_places(self, places: Sequence[Place], decide: Decide, bad: set[int]) -> "Fields":
        """The same where types are decided by the point's place."""


class OneField(NamedTuple):
    """One field of each point."""

    lead: str
    values: Uniform | Listed

    @property
    def leads(self) -> list[str]:
        """See Fields."""
        return [self.lead]

    @property
    def size(self) -> int:
        """See Fields."""
        return size_of(self.values, self.lead)

    @property
    def has_all(self) -> bool:
        """See Fields."""
        return has_all(self.values)

    def pieces(self, before: str) -> list[str]:
        """See Fields."""
        return pieces(self.values, self.lead, before)

    def kinds(self) -> dict[str, FieldType]:
        """See Fields."""
        return {self.lead: first_type(self.values)}

    def of_types(self, known: Mapping[str, FieldType], bad: set[int]) -> "OneField":
        """See Fields."""
        return self._replace(values=of_type(self.values, self.lead, known[self.lead], bad))

    def of_places(self, places: Sequence[Place], decide: Decide, bad: set[int]) -> "OneField":
        """See Fields."""
        found = self.values
        if isinstance(found, Uniform):
            there = set(places) if not found.absent else {
                place for place, text in zip(places, found.joined.split(found.separator), strict=True)
                if text != "\0"}
            kinds = {decide(place, self.lead, found.kind) for place in there}
            if kinds == {found.kind}:
                return self
            found = ["" if text == "\0" else text + found.suffix for text in found.joined.split(found.separator)]
        out: list[str] = []
        for index, (value, place) in enumerate(zip(found, places, strict=True)):
            if value:
                kind = kind_of(value)
                decided = decide(place, self.lead, kind)
                try:
                    value = value if decided == kind else converted(self.lead, value, decided)
                except Reject:
                    bad.add(index)
            out.append(value)
        return self._replace(values=out)


class TextField(NamedTuple):
    """A field of texts."""

    lead: str
    #: Comma, `key=` and value of each point; "" where there is none.
    found: list[str]

    @property
    def leads(self) -> list[str]:
        """See Fields."""
        return [self.lead]

    @property
    def size(self) -> int:
        """See Fields."""
        return sum(map(len, self.found))

    @property
    def has_all(self) -> bool:
        """See Fields."""
        return "" not in self.found

    def pieces(self, before: str) -> list[str]:
        """See Fields."""
        return self.found if before == "," else [before + piece[1:] for piece in self.found]

    def kinds(self) -> dict[str, FieldType]:
        """See Fields."""
        return {self.lead: "string"}

    def of_types(self, known: Mapping[str, FieldType], bad: set[int]) -> "TextField":
        """See Fields."""
        if known[self.lead] == "string":
            return self
        bad.update([index for index, piece in enumerate(self.found) if piece])
        return self

    def of_places(self, places: Sequence[Place], decide: Decide, bad: set[int]) -> "TextField":
        """See Fields."""
        there = set(places) if self.has_all else {
            place for place, piece in zip(places, self.found, strict=True) if piece}
        wrong = {place for place in there if decide(place, self.lead, "string") != "string"}
        if wrong:
            bad.update([index for index, (place, piece) in enumerate(zip(places, self.found, strict=True))
                        if piece and place in wrong])
        return self


class PlainFields(NamedTuple):
    """The plain fields of one table."""

    writer: RowWriter
    rows: Rows
    #: Of each point the index in `rows`; None where there is one point for each.
    owner: Sequence[int] | None = None

    @property
    def leads(self) -> list[str]:
        """See Fields."""
        return [column.lead for column in self.rows.kinds]

    @property
    def size(self) -> int:
        """See Fields."""
        if self.owner is None:
            return self.writer.size_of(self.rows.text)
        sizes = list(map(self.writer.size_of, self.rows.text.split("\n")))
        return sum([sizes[index] for index in self.owner])

    @property
    def has_all(self) -> bool:
        """See Fields."""
        return not self.rows.has_empty

    def pieces(self, before: str) -> list[str]:
        """See Fields."""
        lines = self.writer.lines(self.rows, before)
        return lines if self.owner is None else [lines[index] for index in self.owner]

    def kinds(self) -> dict[str, FieldType]:
        """See Fields."""
        if self.rows.mixed:
            raise Unfit(self.rows.mixed)
        return {column.lead: kind for column, kind in self.rows.kinds.items()}

    def of_types(self, known: Mapping[str, FieldType], bad: set[int]) -> "PlainFields":
        """See Fields."""
        wrong = [column for column, kind in self.rows.kinds.items() if known[column.lead] != kind]
        if wrong:
            raise Unfit(wrong)
        return self

    def of_places(self, places: Sequence[Place], decide: Decide, bad: set[int]) -> "PlainFields":
        """See Fields."""
        self.kinds()
        if self.writer.alike:
            raise Unfit(self.writer.alike)
        skeletons = self.rows.skeletons
        if self.owner is not None:
            skeletons = [skeletons[index] for index in self.owner]
        wrong: list[Column] = []
        for place, skeleton in dict.fromkeys(zip(places, skeletons, strict=True)):
            wrong += [column for column, kind in self.writer.kinds_of(skeleton).items()
                      if decide(place, column.lead, kind) != kind]
        if wrong:
            raise Unfit(wrong)
        return self


class Taken(NamedTuple):
    """What the Structs of many points hold."""

    points: int
    #: Of each point the index of its message; None where each message is one.
    owner: list[int] | None
    #: The values of each column, by its id: of each point, or of each message.
    raws: Mapping[int, Sequence[Any]]
    of_messages: Mapping[int, Sequence[Any]] = {}
    #: Tables whose plain fields are left in these Structs: one for each point, or one for each message.
    plain: Sequence[tuple[Table, Sequence[Any]]] = ()
    plain_of_messages: Sequence[tuple[Table, Sequence[Any]]] = ()

    def values(self, column: Column) -> Sequence[Any]:
        """The values of a column, of each point."""
        found = self.of_messages.get(id(column))
        if found is None or self.owner is None:
            return self.raws[id(column)]
        return [found[index] for index in self.owner]

    def only(self, rows: Sequence[int]) -> "Taken":
        """What some of the points hold."""
        owner = self.owner
        return self._replace(
            points=len(rows), owner=list(rows) if owner is None else [owner[row] for row in rows],
            raws={key: [column[row] for row in rows] for key, column in self.raws.items()},
            plain=[(table, [structs[row] for row in rows]) for table, structs in self.plain])


def taken(table: Table, structs: Sequence[Any]) -> tuple[dict[int, list[Any]], list[tuple[Table, Sequence[Any]]]]:
    """The texts of each column by its id, and the tables that keep fields together with what is left of the Structs."""
    parts = list(table.parts(structs))
    raws = {id(column): texts for one, some in parts for column, texts in one.texts(some)}
    plain = [(one, some) for one, some in parts if one.plain]
    for one, some in plain:
        one.clear(some)
    return raws, plain
