"""Points as rows: the output of answer readers, and the input of message encoders. Pure."""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from pipeline.points.field_type import FieldType

#: Value of a tag or field; None if the point does not have it.
Value = float | int | bool | str | None
#: Time in nanoseconds since 1970, then a value for each of the table's columns.
Row = tuple[Value, ...]


class Column(Struct, frozen=True, array_like=True):
    """A tag or a field. A field key with two types, in different shards or series, has one column for each type."""

    name: str
    kind: Literal["tag", "field"]
    #: Tags are strings.
    type: FieldType


class BadRow(Struct, frozen=True, array_like=True):
    """A row of an answer that is not a valid point."""

    #: bad_value or too_large.
    reason: str
    detail: str
    #: The row as received, truncated.
    row: str


class Table(Struct, frozen=True):
    """Points of one measurement; in `columns` tags come before fields."""

    measurement: str
    columns: tuple[Column, ...]
    rows: list[Row]
    bad: list[BadRow] = []

    @property
    def tags(self) -> int:
        """Number of columns that are tags; they come first."""
        return sum(column.kind == "tag" for column in self.columns)

    def pieces(self, rows: int) -> "Iterator[Table]":
        """The table in pieces of so many rows, at least one piece; bad rows are in the first."""
        if len(self.rows) <= rows:
            yield self
            return
        for at in range(0, len(self.rows), rows):
            yield Table(self.measurement, self.columns, self.rows[at:at + rows], [] if at else self.bad)


def sort_columns(columns: list[Column]) -> tuple[Column, ...]:
    """Tags by name, then fields by name and type: so that equal points have equal messages."""
    return tuple(sorted(columns, key=lambda column: (column.kind != "tag", column.name, column.type)))
