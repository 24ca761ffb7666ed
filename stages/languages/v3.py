"""SQL and InfluxQL at `/api/v3/query_sql` and `/api/v3/query_influxql`, InfluxDB 3, answered as JSON. Pure.

The format is `json`, an array, and not `jsonl`, because an array has an end: lines that a proxy cuts off look complete.

Sources: "Query data with the HTTP API", InfluxDB 3 Core reference; information_schema, where tags are the columns of
the type `Dictionary(Int32, Utf8)`. Equal times come in no stable order.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw

from pipeline.points.field_type import FieldType
from pipeline.points.table import BadRow, Column, Row, Table, sort_columns
from pipeline.points.times import MAX_TIME, MIN_TIME, TimeReader, format_time
from pipeline.points.windows import TimeWindow
from pipeline.printable import excerpt
from stages.languages.custom_rows import CustomColumns, CustomRows
from stages.languages.filters import EVERYTHING, Choice, sql_conditions
from stages.languages.language import (
    CHUNK_ROWS,
    PointCount,
    QueryAnswer,
    QueryError,
    QueryRequest,
    RetentionPolicy,
    substitute,
)

#: Rows of a table.
TABLE_ROWS = 10_000
#: Columns of an InfluxQL answer that are neither tags nor fields.
NO_DATA = frozenset({"iox::measurement", "time"})
_PYTHON: dict[FieldType, Any] = {"float": float | None, "integer": int | None, "unsigned": int | None,
                                 "boolean": bool | None, "string": str | None}
_NO_FIELD_NAME = re.compile(r'[\\"\x00-\x1f]')
#: Between two rows; or in a string that looks like it.
_BETWEEN_ROWS = b"},{"
_object = msgspec.json.Decoder(dict[str, Any])
_objects = msgspec.json.Decoder(list[dict[str, Any]])
_raws = msgspec.json.Decoder(list[Raw])


def _where(window: TimeWindow, conditions: Sequence[str] = ()) -> str:
    bounds = [f"time {operator} TIMESTAMP '{format_time(edge)}'" for edge, operator, open_end in (
        (window.start, ">=", MIN_TIME), (window.end, "<", MAX_TIME)) if edge != open_end]
    bounds += conditions
    return f" WHERE {' AND '.join(bounds)}" if bounds else ""


def identifier(name: str) -> str:
    """A quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"


def column_of(name: str, data_type: str) -> Column | None:
    """A column of information_schema; None for the time. Raises QueryError for an unknown type."""
    if name == "time":
        return None
    if data_type.startswith("Dictionary("):
        return Column(name, "tag", "string")
    types: dict[str, FieldType] = {"Float64": "float", "Int64": "integer", "UInt64": "unsigned", "Utf8": "string",
                                   "LargeUtf8": "string", "Utf8View": "string", "Boolean": "boolean"}
    if data_type not in types:
        raise QueryError(f"column {name} has the type {data_type}, which is not one of " + ", ".join(types))
    return Column(name, "field", types[data_type])


class V3Dialect(ABC):
    """Queries for InfluxDB 3; subclasses read the answers of one API.

    Answers are `ordered` for discovered measurements, while a custom query has any order.
    """

    def __init__(self, database: str, language: Literal["sql", "influxql"],
                 types: dict[str, FieldType] | None = None, tags: tuple[str, ...] = (), custom: bool = False,
                 choice: Choice = EVERYTHING) -> None:
        """`types` and `tags` describe the columns of a custom query; without them, the answer's own types are used.
        `choice`: what is read of a measurement."""
        self.ordered = not custom
        self._database = database
        self._language = language
        self._types = types or {}
        self._tags = frozenset(tags)
        self._choice = choice

    @abstractmethod
    def _ask(self, query: str, language: str) -> QueryRequest:
        """The request for a query."""

    @abstractmethod
    def _listed(self, body: bytes) -> list[dict[str, Any]]:
        """The rows of an answer to a list query. Raises QueryError."""

    def rounded_fields(self, body: bytes) -> list[str]:
        """None: a field has one type."""
        return []

    def probe(self, windows: Sequence[tuple[str, TimeWindow]]) -> None:
        """None: each measurement has to be read."""
        return None

    def read_probe(self, windows: Sequence[tuple[str, TimeWindow]], body: bytes) -> set[str]:
        return set()

    def measurements(self) -> QueryRequest:
        return self._ask("SELECT table_name FROM information_schema.tables WHERE table_schema = 'iox'", "sql")

    def read_measurements(self, body: bytes) -> list[str]:
        return [str(row["table_name"]) for row in self._listed(body)]

    def policies(self, body: bytes) -> list[RetentionPolicy]:
        return []

    def columns(self, measurement: str) -> QueryRequest:
        return self._ask("SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'iox' "  # nosec B608  # quoted
                         f"AND table_name = {literal(measurement)}", "sql")

    def read_columns(self, body: bytes) -> tuple[Column, ...]:
        found = [column_of(str(row["column_name"]), str(row["data_type"])) for row in self._listed(body)]
        return sort_columns([column for column in found if column is not None])

    def page(self, measurement: str, columns: tuple[Column, ...], window: TimeWindow, limit: int,
             chunk_rows: int = CHUNK_ROWS) -> QueryRequest:
        """The page query, always in SQL: InfluxQL of 3.9.6 applies LIMIT to each field, which omits values."""
        conditions = sql_conditions(self._choice, {column.name for column in columns if column.kind == "tag"},
                                    identifier, literal)
        return self._ask(
            f"SELECT time, {', '.join(identifier(column.name) for column in columns)} FROM {identifier(measurement)}"  # nosec B608  # quoted
            + _where(window, conditions) + " ORDER BY time ASC"
            + (f" LIMIT {limit}" if limit else ""), "sql")

    def count(self, measurement: str, window: TimeWindow, every: int = 0) -> QueryRequest | None:
        """How many points there are; not known where some are chosen by tags, which only some tables have."""
        if not self.ordered or self._choice.tags:
            return None
        part = f"CAST(date_bin(INTERVAL '{every} nanoseconds', time) AS BIGINT)" if every else "0"
        return self._ask(f"SELECT {part} AS part, count(*) AS points FROM {identifier(measurement)}{_where(window)}"  # nosec B608  # quoted
                         + (" GROUP BY 1 ORDER BY 1" if every else ""), "sql")

    def read_count(self, body: bytes) -> dict[int, PointCount]:
        return {int(row["part"]): PointCount(int(row["points"]), int(row["points"]))
                for row in self._listed(body) if row["points"]}

    def series(self, measurement: str, window: TimeWindow) -> QueryRequest | None:
        """None: the tags of a table, whose values would be counted, are only known from another query."""
        return None

    def read_series(self, body: bytes) -> int:
        return 0

    def first_time(self, measurement: str, window: TimeWindow) -> QueryRequest | None:
        return None

    def read_first_time(self, body: bytes) -> int | None:
        return None

    def reachable(self, window: TimeWindow) -> TimeWindow:
        return window

    def before_first(self, first: int) -> int:
        return first

    def custom_query(self, query: str, window: TimeWindow) -> QueryRequest:
        """The custom query; times are RFC 3339 in SQL (without quotes), integers (nanoseconds) in InfluxQL."""
        shown = format_time if self._language == "sql" else str
        return self._ask(substitute(query, shown(window.start), shown(window.end)), self._language)


class JsonDialect(V3Dialect):
    """SQL and InfluxQL over HTTP; answers are JSON arrays of rows."""

    def __init__(self, database: str, language: Literal["sql", "influxql"],
                 types: dict[str, FieldType] | None = None, tags: tuple[str, ...] = (), custom: bool = False,
                 choice: Choice = EVERYTHING) -> None:
        super().__init__(database, language, types, tags, custom, choice)
        self._decoders: dict[tuple[Column, ...], Callable[[Raw], tuple[Any, ...]]] = {}

    def _ask(self, query: str, language: str) -> QueryRequest:
        body = msgspec.json.encode({"db": self._database, "q": query, "format": "json"})
        return QueryRequest(f"/api/v3/query_{language}", body, "application/json", "*/*")

    def _listed(self, body: bytes) -> list[dict[str, Any]]:
        try:
            return _objects.decode(body)
        except msgspec.DecodeError:
            raise QueryError(f"the answer is not a whole JSON array: {excerpt(body)}", retryable=True) from None

    def answer_reader(self) -> "JsonAnswerReader":
        return JsonAnswerReader(self.ordered)

    def tables(self, measurement: str, columns: tuple[Column, ...], body: bytes, before: int) -> Iterator[Table]:
        if not columns:
            yield self._custom_table(measurement, body, before)
            return
        decode = self._decoders.get(columns)
        if decode is None:
            decode = self._decoders[columns] = _typed_decoder(columns)
        times = TimeReader()
        raws = _raws.decode(body or b"[]")
        for at in range(0, len(raws), TABLE_ROWS):
            rows: list[Row] = []
            bad: list[BadRow] = []
            for line in raws[at:at + TABLE_ROWS]:
                try:
                    text, *values = decode(line)
                    time = times.read(text)
                    if time < before:
                        rows.append((time, *values))
                except ValueError as error:
                    bad.append(BadRow("bad_value", str(error), excerpt(bytes(line))))
            yield Table(measurement, columns, rows, bad)

    def _custom_table(self, measurement: str, body: bytes, before: int) -> Table:
        rows = CustomRows(before)
        times = TimeReader()
        columns = CustomColumns(self._types, self._tags, integers=True)
        for line in _raws.decode(body or b"[]"):
            try:
                row = _object.decode(line)
                if not isinstance(row.get("time"), str):
                    raise ValueError("no column time; keep it in the query")
                rows.add(times.read(row["time"]),
                         columns.point((name, value) for name, value in row.items() if name not in NO_DATA))
            except (ValueError, TypeError) as error:
                rows.reject(bytes(line), error)
        return rows.table(measurement)


class JsonAnswerReader:
    """Collects an array of rows. Until the end, rows are counted by what stands between them."""

    def __init__(self, ordered: bool) -> None:
        """`ordered`: the answer needs the times of its first and last row."""
        self.rows = 0
        self.size = 0
        self._ordered = ordered
        self._pieces: list[bytes] = []
        #: The end of the last piece, which may be the beginning of what stands between two rows.
        self._tail = b""

    def feed(self, piece: bytes) -> None:
        self.size += len(piece)
        self.rows += (self._tail + piece).count(_BETWEEN_ROWS)
        self._tail = piece[1 - len(_BETWEEN_ROWS):]
        self._pieces.append(piece)

    def finish(self, complete: bool) -> QueryAnswer:
        body = b"".join(self._pieces).strip()
        rows = _rows_of(body) if complete else None
        if rows is None:
            body, rows = _whole_rows(body)
        self.rows = len(rows)
        if not rows or not self._ordered:
            return QueryAnswer(body if rows else b"", len(rows))
        times = TimeReader()
        try:
            return QueryAnswer(body, len(rows), times.read(_object.decode(rows[0])["time"]),
                               times.read(_object.decode(rows[-1])["time"]))
        except (ValueError, KeyError):
            raise QueryError(f"the answer has no times: {excerpt(bytes(rows[-1]))}", retryable=True) from None


def _rows_of(body: bytes) -> list[Raw]:
    """The rows of a whole answer. Raises QueryError if it is an error, or not whole."""
    try:
        return _raws.decode(body)
    except msgspec.DecodeError:
        if body.startswith(b"{") and b'"error"' in body:
            raise QueryError(excerpt(body)) from None
        raise QueryError(f"the answer is incomplete; its end is: {excerpt(body[-200:])}", retryable=True) from None


def _whole_rows(body: bytes) -> tuple[bytes, list[Raw]]:
    """The array of those rows that are whole in the beginning of an answer.

    What looks like the end of a row may stand in a string: then the array that ends there is not valid JSON.
    """
    end = len(body)
    while (end := body.rfind(_BETWEEN_ROWS, 0, end)) >= 0:
        whole = body[:end + 1] + b"]"
        try:
            return whole, _raws.decode(whole)
        except msgspec.DecodeError:
            continue
    return b"[]", []


def _typed_decoder(columns: tuple[Column, ...]) -> Callable[[Raw], tuple[Any, ...]]:
    """A decoder of rows: the time as text, and a value for each column. It raises ValueError."""
    types = tuple(_PYTHON[column.type] for column in columns)
    if any(_NO_FIELD_NAME.search(column.name) for column in columns):
        # msgspec structs cannot have such keys.
        names = [column.name for column in columns]
        row_type: Any = tuple.__class_getitem__((str, *types))

        def decode_object(line: Raw) -> tuple[Any, ...]:
            row = _object.decode(line)
            return msgspec.convert((row.get("time"), *map(row.get, names)), row_type)  # type: ignore[no-any-return]

        return decode_object
    fields: list[Any] = [("time", str), *((f"c{index}", kind, None) for index, kind in enumerate(types))]
    row: Any = msgspec.defstruct("Row", fields, rename={f"c{i}": column.name for i, column in enumerate(columns)})
    decode, astuple = msgspec.json.Decoder(row).decode, msgspec.structs.astuple
    return lambda line: astuple(decode(line))
