"""Points as rows: what every reader of answers makes, and every maker of messages takes. Pure."""

from typing import Literal

from msgspec import Struct

FieldType = Literal["float", "integer", "unsigned", "boolean", "string"]
#: A tag's or a field's value; None where the point does not have it.
Value = float | int | bool | str | None
#: Time in nanoseconds since 1970, then the tags' values, then the fields', as the table's columns say.
Row = tuple[Value, ...]


class Column(Struct, frozen=True, array_like=True):
    """A tag or a field. A field key that has two types, in different shards or series, has a column for each."""

    name: str
    kind: Literal["tag", "field"]
    #: Tags are strings.
    type: FieldType


class BadRow(Struct, frozen=True, array_like=True):
    """A row of an answer that no point can be made of."""

    #: Short class of the reason: bad_value, bad_time, too_large.
    reason: str
    detail: str
    #: The row as it came, cut to what a person needs.
    row: str


class Table(Struct, frozen=True):
    """Points of one measurement. Rows have their time first, then a value for each column; tags before fields."""

    measurement: str
    columns: tuple[Column, ...]
    rows: list[Row]
    bad: list[BadRow] = []

    @property
    def tags(self) -> int:
        """How many of the columns are tags; they come first."""
        return sum(column.kind == "tag" for column in self.columns)


def ordered(columns: list[Column]) -> tuple[Column, ...]:
    """Tags first, by name; then fields by name and type: so that a point always looks the same."""
    return tuple(sorted(columns, key=lambda column: (column.kind != "tag", column.name, column.type)))
