"""Converts fields to the types that `types` of a source gives them, with the rules of `mapping.types`. Pure."""

from collections.abc import Callable
from decimal import Decimal
from typing import Final

import msgspec

from pipeline.config.patterns import compiled
from pipeline.points.field_type import FieldType
from pipeline.points.table import BadRow, Column, Row, Table, Value, sort_columns
from pipeline.printable import excerpt
from stages.mapping.records.values import BadValue, to_boolean, to_float, to_integer, to_unsigned

_CONVERTERS: Final[dict[FieldType, Callable[[str], Value]]] = {
    "float": lambda text: float(to_float(text)), "integer": lambda text: int(to_integer(text)[:-1]),
    "unsigned": lambda text: int(to_unsigned(text)[:-1]), "boolean": lambda text: to_boolean(text) == "true"}


class FieldTypes:
    """The declared types by name or pattern; the first that matches counts."""

    #: Most names of fields that are remembered.
    MAX_NAMES = 10_000

    def __init__(self, declared: dict[str, FieldType]) -> None:
        self._patterns = [(compiled(pattern), kind) for pattern, kind in declared.items()]
        self._known: dict[str, FieldType | None] = {}

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def of(self, name: str) -> FieldType | None:
        """The type of a field; None if none is declared."""
        if name not in self._known:
            if len(self._known) >= self.MAX_NAMES:
                self._known.clear()
            self._known[name] = next((kind for fits, kind in self._patterns if fits(name)), None)
        return self._known[name]


def converted(value: float | int | bool | str | Decimal, kind: FieldType) -> Value:
    """A value as another type. Raises BadValue if that cannot hold it without losing something."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = msgspec.json.encode(value).decode()
    else:
        text = repr(value) if isinstance(value, float) else str(value)
    if kind == "string":
        return value if isinstance(value, str) else text
    result = _CONVERTERS[kind](text)
    if kind == "float" and isinstance(value, int) and result != value:
        raise BadValue("a float would lose its last digits")
    return result


class TableConversion:
    """Converts the fields of tables with the same columns."""

    def __init__(self, columns: tuple[Column, ...], types: FieldTypes) -> None:
        self._before = columns
        new = [column if column.kind == "tag" or (kind := types.of(column.name)) is None else
               Column(column.name, column.kind, kind) for column in columns]
        self.columns = sort_columns(list(dict.fromkeys(new)))
        #: For each new column, the places in a row that it is made of: a field may have had several types.
        self._places = [[at for at, one in enumerate(new, 1) if one == column] for column in self.columns]

    def apply(self, table: Table) -> Table:
        """The same points with converted fields. A row with a value that does not fit its type is bad."""
        if self.columns == self._before:
            return table
        rows: list[Row] = []
        bad = list(table.bad)
        for row in table.rows:
            try:
                rows.append((row[0], *[self._value(row, column, places) for column, places in
                                       zip(self.columns, self._places, strict=True)]))
            except BadValue as error:
                bad.append(BadRow("bad_value", str(error), excerpt(str(row))))
        return Table(table.measurement, self.columns, rows, bad)

    def _value(self, row: Row, column: Column, places: list[int]) -> Value:
        """The value of a column. Raises BadValue."""
        for at in places:
            value = row[at]
            if value is None:
                continue
            if self._before[at - 1] == column:
                return value
            try:
                return converted(value, column.type)
            except BadValue as error:
                raise BadValue(f"{column.name}: {excerpt(str(value))} as {column.type}: {error}") from None
        return None
