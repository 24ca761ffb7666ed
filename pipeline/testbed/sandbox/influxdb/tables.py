"""The tables of a sandbox that poses as QuestDB: rows in memory. What is written twice is there twice.

A table with DEDUP UPSERT KEYS keeps the last row of each key. Tags and fields are columns of one table; names are told
apart without regard to case. A boolean that a row does not have is false. Source: what QuestDB 9.3.4 does.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from pipeline.testbed.sandbox.influxdb.lines import FieldType, FieldValue
from pipeline.testbed.sandbox.influxdb.lines_questdb import Kind, Row, RowError, Value
from pipeline.testbed.sandbox.influxdb.store import Bucket, StoredPoint

#: The type of a new column.
_TYPES: Final[dict[Kind, str]] = {"TAG": "SYMBOL", "FLOAT": "DOUBLE", "INTEGER": "LONG", "STRING": "VARCHAR",
                                  "BOOLEAN": "BOOLEAN", "TIMESTAMP": "TIMESTAMP"}
#: The types of column that a value of each kind can be kept in, beside SYMBOL.
_KEPT_IN: Final[dict[Kind, tuple[str, ...]]] = {
    "TAG": ("VARCHAR",), "FLOAT": ("DOUBLE",), "INTEGER": ("LONG", "DOUBLE", "TIMESTAMP"), "STRING": ("VARCHAR",),
    "BOOLEAN": ("BOOLEAN", "LONG", "DOUBLE"), "TIMESTAMP": ("TIMESTAMP",)}
_FIELD_TYPES: Final[dict[str, FieldType]] = {"DOUBLE": "float", "LONG": "integer", "VARCHAR": "string",
                                             "BOOLEAN": "boolean", "TIMESTAMP": "integer"}
#: What the names of tables and columns may not hold. Source: `cairo/TableUtils.java`.
_NOT_IN_TABLE = re.compile("[?,'\"\\\\/:)(+*%~\0-\x0f\x7f\ufeff]|\\A\\.|\\.\\Z|\\.\\.|\\A *\\Z")
_NOT_IN_COLUMN = re.compile("[?.,'\"\\\\/:)(+\\-*%~\0-\x0f\x7f\ufeff]|\\A *\\Z")
#: Longest name, UTF-16 units.
_MAX_NAME: Final = 127
#: The column of the time.
TIME: Final = "timestamp"


class Column(NamedTuple):
    """A column: its name as it was first written, and its type."""

    name: str
    type: str


class Table:
    """A table and its rows: each the values by folded column name, the time among them in microseconds since 1970."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.columns: dict[str, Column] = {TIME: Column(TIME, "TIMESTAMP")}
        self.rows: list[dict[str, Value]] = []
        #: Folded names; empty: every row is kept.
        self.keys: tuple[str, ...] = ()

    def keep(self, rows: Iterable[dict[str, Value]]) -> None:
        """Adds rows."""
        self.rows.extend(rows)
        if self.keys:
            self.rows = list({tuple(row.get(key) for key in self.keys): row for row in self.rows}.values())


def folded(name: str) -> str:
    """A name as it is compared: each character of the first plane in lower case."""
    return "".join([one.lower()[0] if one <= "\uffff" else one for one in name])


class Tables(Bucket):
    """All tables: QuestDB has neither databases nor buckets."""

    def clear(self) -> None:
        """Forgets all tables."""
        super().clear()
        self.tables: dict[str, Table] = {}
        self._new: list[tuple[Table, dict[str, Value]]] = []

    def begin(self) -> None:
        """Begins a request: nothing is kept before `commit`, but tables and columns are made at once."""
        self._new = []

    def add(self, row: Row, unit: int, now: int) -> None:
        """A row of the request; times count in `unit` nanoseconds, `now` in nanoseconds. Raises RowError."""
        table = self._table(row)
        time = now if row.time is None else row.time[0] * (row.time[1] or unit)
        columns = [(self._column(table, entity.name, entity.kind), entity) for entity in row.entities]
        values: dict[str, Value] = {}
        for (key, column), entity in columns:
            if key in values or entity.kind == "NULL":
                continue
            if column.type != "SYMBOL" and column.type not in _KEPT_IN[entity.kind]:
                raise RowError(f": table: {table.name}, column: {entity.name}; cast error from protocol type: "
                               f"{entity.kind} to column type: {column.type}")
            values[key] = _kept(entity.text if column.type in ("SYMBOL", "VARCHAR") else entity.value, column.type)
        if time < 0:
            raise RowError(f": table: {table.name}, timestamp: {time // 1_000 if row.time is None else row.time[0]}; "
                           "designated timestamp before 1970-01-01 is not allowed")
        values[TIME] = time // 1_000
        self._new.append((table, values))

    def commit(self) -> None:
        """Keeps the rows of the request."""
        for table in {id(table): table for table, _ in self._new}.values():
            self.count -= len(table.rows)
            table.keep(values for of, values in self._new if of is table)
            self.count += len(table.rows)
        self._new = []

    def _table(self, row: Row) -> Table:
        found = self.tables.get(folded(row.table))
        if found is not None:
            return found
        if not _good_name(row.table, _NOT_IN_TABLE):
            raise RowError(f": table: {row.table}; invalid table name")
        for entity in row.entities:
            if not _good_name(entity.name, _NOT_IN_COLUMN):
                raise RowError(f": table: {row.table}; invalid column name: {entity.name}")
            if entity.kind == "NULL":
                raise RowError(f": table: {row.table}; invalid column type: {entity.name}")
        return self.tables.setdefault(folded(row.table), Table(row.table))

    def _column(self, table: Table, name: str, kind: Kind) -> tuple[str, Column]:
        key = folded(name)
        if key not in table.columns:
            if not _good_name(name, _NOT_IN_COLUMN):
                raise RowError(f": table: {table.name}; invalid column name: {name}")
            table.columns[key] = Column(name, _TYPES.get(kind, "NULL"))
        elif key == TIME:
            raise TimeColumnWritten(table.name)
        return key, table.columns[key]

    def points(self, measurement: str = "") -> Iterator[StoredPoint]:
        """All rows as points, sorted by table, tags and time; columns that are SYMBOL are tags."""
        for key in sorted(self.tables):
            table = self.tables[key]
            if measurement in ("", table.name):
                yield from sorted((_point(table, row) for row in table.rows), key=lambda one: (one.tags, one.time))


class TimeColumnWritten(Exception):
    """A line writes the column of the time: an error of the server's own. The text is the table's name."""


def _good_name(name: str, wrong: re.Pattern[str]) -> bool:
    return len(name.encode("utf-16-le", "surrogatepass")) <= 2 * _MAX_NAME and not wrong.search(name)


def _kept(value: Value, type_: str) -> Value:
    if type_ == "DOUBLE" and value is not None:
        return float(value)
    if type_ == "LONG":
        return None if value == -(2**63) else int(value or 0)
    return value


def _point(table: Table, row: dict[str, Value]) -> StoredPoint:
    tags: list[tuple[str, str]] = []
    fields: dict[str, FieldValue] = {}
    types: dict[str, FieldType] = {}
    for key, (name, type_) in table.columns.items():
        value = row.get(key, False if type_ == "BOOLEAN" else None)
        if key == TIME or value is None:
            continue
        if type_ == "SYMBOL":
            tags.append((name, str(value)))
        else:
            fields[name], types[name] = value, _FIELD_TYPES[type_]
    return StoredPoint(table.name, sorted(tags), fields, types, int(row[TIME] or 0) * 1_000)
