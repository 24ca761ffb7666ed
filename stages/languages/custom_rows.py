"""The rows of a custom query whose answers do not tell tags from fields: points with inferred columns. Pure."""

from collections.abc import Iterable
from math import isfinite
from typing import Any

from pipeline.points.field_type import FieldType
from pipeline.points.table import BadRow, Column, Row, Table, Value, sort_columns
from pipeline.printable import excerpt


class CustomColumns:
    """What the columns of a custom query are: tags and types by configuration, all else by the values."""

    def __init__(self, types: dict[str, FieldType], tags: frozenset[str], integers: bool) -> None:
        """`integers`: a number without a point is an integer; otherwise a float, unless `types` has its column."""
        self._types = types
        self._tags = tags
        self._integers = integers

    def point(self, values: Iterable[tuple[str, Any]]) -> dict[Column, Value]:
        """The tags and fields of a row's names and values. Raises ValueError for a value that no field can hold."""
        return {(column := self._column(name, value)): _converted(column, value)
                for name, value in values if value is not None}

    def _column(self, name: str, value: Any) -> Column:
        if name in self._tags:
            return Column(name, "tag", "string")
        found: FieldType = ("boolean" if isinstance(value, bool) else "string" if isinstance(value, str)
                            else "integer" if isinstance(value, int) and self._integers else "float")
        declared = self._types.get(name, found)
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if found != declared and not (is_integer and declared in ("float", "integer", "unsigned")):
            raise ValueError(f"{name} is {value!r}, and not {declared}")
        if isinstance(value, float) and not isfinite(value) or isinstance(value, list | dict):
            raise ValueError(f"{name} is {value!r}, which no field can hold")
        return Column(name, "field", declared)


def _converted(column: Column, value: Any) -> Value:
    if column.type == "float":
        return float(value)
    return str(value) if column.kind == "tag" else value


class CustomRows:
    """Collects the points before the time `before` of one answer into a table."""

    def __init__(self, before: int) -> None:
        self._before = before
        self._points: list[tuple[int, dict[Column, Value]]] = []
        self._bad: list[BadRow] = []

    def add(self, time: int, point: dict[Column, Value]) -> None:
        """Adds a point."""
        if time < self._before:
            self._points.append((time, point))

    def reject(self, row: bytes, error: Exception) -> None:
        """Adds a row that is not a point."""
        self._bad.append(BadRow("bad_value", str(error), excerpt(row)))

    def table(self, measurement: str) -> Table:
        """All points; a column that a point does not have is None in its row."""
        columns = sort_columns(list({column for _, point in self._points for column in point}))
        rows: list[Row] = [(time, *map(point.get, columns)) for time, point in self._points]
        return Table(measurement, columns, rows, self._bad)
