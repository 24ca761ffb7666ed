"""InfluxQL at `/query`: InfluxDB 1.x, and InfluxDB 2.x through its 1.x API. Pure.

Sources: "InfluxDB API reference" 1.x, `/query` with chunked and epoch; "InfluxQL reference", identifiers, casts
(`"key"::float`); answers of InfluxDB 1.6.7 (tests/servers/test_source_influxdb1.py).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import Any
from urllib.parse import urlencode

import msgspec
from msgspec import Raw, Struct

from pipeline.config.regexes import regex_of
from pipeline.config.source_names import qualified, quoted
from pipeline.points.field_type import FieldType
from pipeline.points.shards import parse_duration
from pipeline.points.table import BadRow, Column, Row, Table, Value, sort_columns
from pipeline.points.times import MAX_TIME, MIN_TIME
from pipeline.points.windows import TimeWindow
from pipeline.printable import excerpt
from stages.languages.custom_rows import CustomColumns, CustomRows
from stages.languages.filters import EVERYTHING, Choice, influxql_conditions
from stages.languages.language import (
    CHUNK_ROWS,
    PointCount,
    QueryAnswer,
    QueryError,
    QueryRequest,
    RetentionPolicy,
    non_empty_lines,
    substitute,
)

#: Series of which one is to have points, to know the tags of a measurement.
SERIES_WITH_KEYS = 10
#: Statements in the queries for measurements, and for columns.
MEASUREMENT_STATEMENTS, COLUMN_STATEMENTS = 3, 2
#: In the errors of a server that is busy or is being stopped, or has stopped a query: it may answer later.
_BUSY = ("timeout", "shutting down", "engine", "max-concurrent-queries", "query interrupted", "query killed")
_CAST: dict[str, str] = {"float": "float", "integer": "integer", "unsigned": "unsigned", "boolean": "boolean",
                         "string": "string"}
_PYTHON: dict[FieldType, Any] = {"float": float | None, "integer": int | None, "unsigned": int | None,
                                 "boolean": bool | None, "string": str | None}


class _Series(Struct):
    name: str = ""
    tags: dict[str, str] = {}
    columns: list[str] = []
    values: list[Raw] = []


class _Result(Struct):
    statement_id: int = -1
    series: list[_Series] = []
    error: str = ""
    #: More chunks follow.
    partial: bool = False


class _Chunk(Struct):
    results: list[_Result] = []
    error: str = ""


#: -0.0 as Go prints it, without a point; or text inside a string that looks like it.
_NEGATIVE_ZERO = re.compile(rb"[\[,]-0[,\]]")
_raws = msgspec.json.Decoder(list[Raw])
_chunk = msgspec.json.Decoder(_Chunk)
_row = msgspec.json.Decoder(list[Value])
_head = msgspec.json.Decoder(list[Any])


class InfluxqlDialect:
    """InfluxQL; answers are `ordered` for discovered measurements, while a custom query has any order."""

    def __init__(self, database: str, retention_policy: str = "", types: dict[str, FieldType] | None = None,
                 tags: tuple[str, ...] = (), custom: bool = False, by_policy: bool = False,
                 choice: Choice = EVERYTHING) -> None:
        """`types` and `tags` describe the columns of a custom query; a number without a type is a float. `by_policy`:
        measurements have the names of `source_names.qualified`. `choice`: what is read of a measurement."""
        self.ordered = not custom
        self._retention_policy = retention_policy
        self._by_policy = by_policy
        self._names_policy = by_policy or bool(retention_policy)
        self._measurement_statements = 1 if self._names_policy else MEASUREMENT_STATEMENTS
        self._choice = choice
        self._conditions = influxql_conditions(choice, quoted)
        self._database = database
        self._columns = CustomColumns(types or {}, frozenset(tags), integers=False)
        self._decoders: dict[tuple[Column, ...], Callable[[bytes], Any]] = {}

    def _ask(self, query: str, chunk_rows: int = CHUNK_ROWS) -> QueryRequest:
        path = "/query?" + urlencode(
            {"db": self._database, "epoch": "ns", "chunked": "true", "chunk_size": chunk_rows})
        return QueryRequest(path, urlencode({"q": query}).encode(), "application/x-www-form-urlencoded",
                            "application/json")

    def _from(self, measurement: str) -> str:
        if self._by_policy:
            return measurement
        policy = f"{quoted(self._retention_policy)}." if self._retention_policy else ""
        return policy + quoted(measurement)

    def _where(self, window: TimeWindow) -> str:
        conditions = " AND ".join(filter(None, (_bounds(window), *self._conditions)))
        return f" WHERE {conditions}" if conditions else ""

    def measurements(self) -> QueryRequest:
        if self._names_policy:  # a database need not have a default policy, which a SELECT without one wants
            return self._ask(f"SHOW RETENTION POLICIES ON {quoted(self._database)}")
        # For a missing database the list is empty; only a SELECT is an error, in 2.7 only as the last statement.
        return self._ask(f"SHOW MEASUREMENTS; SHOW RETENTION POLICIES ON {quoted(self._database)}; "  # nosec B608  # quoted
                         'SELECT "x" FROM "x" WHERE time = 0 LIMIT 1')

    def read_measurements(self, body: bytes) -> list[str]:
        chunks = _all_chunks(body, self._measurement_statements)
        return [str(_row.decode(value)[0]) for chunk in chunks for series in _series(chunk)
                for value in series.values if series.columns == ["name"]]

    def policies(self, body: bytes) -> list[RetentionPolicy]:
        return [RetentionPolicy(str(policy["name"]), policy["default"] is True,
                                parse_duration(str(policy.get("shardGroupDuration"))))
                for chunk in _all_chunks(body, self._measurement_statements) for series in _series(chunk)
                if "default" in series.columns for raw in series.values
                for policy in [dict(zip(series.columns, _head.decode(raw), strict=False))]]

    def measurements_of(self, policies: Sequence[str]) -> QueryRequest:
        """The query for the measurements of some retention policies: of one field of each, since InfluxDB 1 tells only
        fields apart by policy."""
        return self._ask("; ".join(f"SHOW FIELD KEYS FROM {quoted(policy)}./.*/ LIMIT 1" for policy in policies))

    def read_measurements_of(self, policies: Sequence[str], body: bytes) -> list[str]:
        """Reads the answer to `measurements_of`: names as of `source_names.qualified`. Raises QueryError."""
        found: dict[str, None] = {}
        for chunk in _all_chunks(body, len(policies)):
            for result in chunk.results:
                if 0 <= result.statement_id < len(policies):
                    found.update(dict.fromkeys(qualified(policies[result.statement_id], series.name)
                                               for series in result.series))
        return list(found)

    def columns(self, measurement: str) -> QueryRequest:
        """Where a retention policy is named, the tag keys come from the groups of a few series, which have all keys of
        the policy: SHOW TAG KEYS of InfluxDB 2.7.12 answers for the default policy, whatever it is asked for."""
        where = self._from(measurement)
        keys = f"SHOW TAG KEYS FROM {where}"
        if self._names_policy:
            keys = f"SELECT * FROM {where} GROUP BY * LIMIT 1 SLIMIT {SERIES_WITH_KEYS}"  # nosec B608  # quoted
        return self._ask(f"{keys}; SHOW FIELD KEYS FROM {where}")

    def read_columns(self, body: bytes) -> tuple[Column, ...]:
        tags, types = _keys(body, self._names_policy)
        columns = [Column(name, "tag", "string") for name in tags]
        for name, found in types.items():
            # A cast returns values of its type and converts other numbers, so a cast to float returns every number.
            if "float" in found:
                found -= {"integer", "unsigned"}
            columns += [Column(name, "field", kind) for kind in found]
        return sort_columns(columns)

    def rounded_fields(self, body: bytes) -> list[str]:
        return sorted(name for name, found in _keys(body, self._names_policy)[1].items()
                      if "float" in found and found & {"integer", "unsigned"})

    def page(self, measurement: str, columns: tuple[Column, ...], window: TimeWindow, limit: int,
             chunk_rows: int = CHUNK_ROWS) -> QueryRequest:
        selected = ", ".join(f"{quoted(column.name)}::{'tag' if column.kind == 'tag' else _CAST[column.type]}"
                             for column in columns)
        return self._ask(f"SELECT {selected} FROM {self._from(measurement)}{self._where(window)} ORDER BY time ASC"  # nosec B608  # quoted
                         + (f" LIMIT {limit}" if limit else ""), chunk_rows)

    def reachable(self, window: TimeWindow) -> TimeWindow:
        return window

    def before_first(self, first: int) -> int:
        return first

    def custom_query(self, query: str, window: TimeWindow) -> QueryRequest:
        """The custom query; times are integers, nanoseconds."""
        return self._ask(substitute(query, str(window.start), str(window.end)))

    def probe(self, windows: Sequence[tuple[str, TimeWindow]]) -> QueryRequest | None:
        """One statement for each measurement. `*` is each field in one of its types: see PROBE_WITHIN."""
        if not self.ordered:
            return None
        return self._ask(";".join(f"SELECT * FROM {self._from(name)} WHERE {_bounds(window)} LIMIT 1"  # nosec B608  # quoted
                                  for name, window in windows))

    def read_probe(self, windows: Sequence[tuple[str, TimeWindow]], body: bytes) -> set[str]:
        """Certain is only what has one result, without an error: an answer may be cut anywhere."""
        results: dict[int, list[_Result]] = {}
        for line in non_empty_lines(body):
            chunk = _parsed(line)
            if chunk.error:
                raise QueryError(chunk.error, retryable=any(text in chunk.error for text in _BUSY))
            for result in chunk.results:
                results.setdefault(result.statement_id, []).append(result)
        return {name for number, (name, _) in enumerate(windows)
                if results.get(number) == [_Result(statement_id=number)]}

    def count(self, measurement: str, window: TimeWindow, every: int = 0) -> QueryRequest | None:
        """How many values each field has."""
        if not self.ordered:
            return None
        fields = "*" if self._choice.fields == EVERYTHING.fields else f"/{regex_of(self._choice.fields)}/"
        return self._ask(f"SELECT COUNT({fields}) FROM {self._from(measurement)}{self._where(window)}"  # nosec B608  # quoted
                         + (f" GROUP BY time({every}ns) fill(none)" if every else ""))

    def read_count(self, body: bytes) -> dict[int, PointCount]:
        found = {}
        for chunk in _all_chunks(body, 1):
            for series in _series(chunk):
                # Those of `exclude_fields` are counted, too, since no expression leaves them out.
                chosen = [self._choice.has_field(name.removeprefix("count_")) for name in series.columns[1:]]
                for raw in series.values:
                    time, *counts = _head.decode(raw)
                    values = [int(count or 0) for count in compress(counts, chosen)]
                    if most := max(values, default=0):
                        # With the same number for each field, all points have all fields, most probably.
                        found[int(time)] = PointCount(most, most, min(values) == most)
        return found

    def series(self, measurement: str, window: TimeWindow) -> QueryRequest | None:
        """All series, whatever their times. SHOW SERIES EXACT CARDINALITY of 1.6.7 counts those of each shard."""
        return self._ask(f"SHOW SERIES FROM {self._from(measurement)}") if self.ordered else None

    def read_series(self, body: bytes) -> int:
        return sum(len(series.values) for chunk in _all_chunks(body, 1) for series in _series(chunk))

    def first_time(self, measurement: str, window: TimeWindow) -> QueryRequest | None:
        return None

    def read_first_time(self, body: bytes) -> int | None:
        return None

    def answer_reader(self) -> "InfluxqlAnswerReader":
        return InfluxqlAnswerReader()

    def tables(self, measurement: str, columns: tuple[Column, ...], body: bytes, before: int) -> Iterator[Table]:
        """One table for each chunk of the answer."""
        if not columns:
            yield self._custom_table(measurement, body, before)
            return
        decode = self._decoders.get(columns)
        if decode is None:
            decode = self._decoders[columns] = _typed_decoder(columns)
        for line in non_empty_lines(body):
            rows, bad = _rows(line, columns, decode)
            if before < MAX_TIME and rows and rows[-1][0] >= before:  # type: ignore[operator]
                rows = [row for row in rows if row[0] < before]  # type: ignore[operator]
            yield Table(measurement, columns, rows, bad)

    def _custom_table(self, measurement: str, body: bytes, before: int) -> Table:
        """The answer to a custom query: tags from GROUP BY and from the configuration, all other columns are fields."""
        rows = CustomRows(before)
        for chunk in _chunks(body):
            for series in _series(chunk):
                grouped: dict[Column, Value] = {
                    Column(name, "tag", "string"): value for name, value in series.tags.items() if value}
                for raw in series.values:
                    try:
                        time, *values = _head.decode(_with_negative_zeros(raw))
                        names = series.columns[1:]
                        rows.add(time, {**grouped, **self._columns.point(zip(names, values, strict=True))})
                    except (ValueError, TypeError) as error:
                        rows.reject(bytes(raw), error)
        return rows.table(measurement)


class InfluxqlAnswerReader:
    """Collects a chunked answer: each line is one chunk, a complete JSON object."""

    def __init__(self) -> None:
        self.rows = 0
        self.size = 0
        self._lines: list[bytes] = []
        self._rest: list[bytes] = []
        self._first: Raw | None = None
        self._last: Raw | None = None
        self._more = True

    def feed(self, piece: bytes) -> None:
        self.size += len(piece)
        *ends, rest = piece.split(b"\n")
        for end in ends:
            self._line(b"".join((*self._rest, end)))
            self._rest = []
        if rest:
            self._rest.append(rest)

    def _line(self, line: bytes) -> None:
        if not line.strip():
            return
        chunk = _decoded(line)
        self._lines.append(line)
        self._more = any(result.partial for result in chunk.results)
        for series in _series(chunk):
            if series.values:
                self.rows += len(series.values)
                self._first = self._first or series.values[0]
                self._last = series.values[-1]

    def finish(self, complete: bool) -> QueryAnswer:
        if complete:
            rest = b"".join(self._rest)
            if rest:
                self._line(rest)
            if self._more:
                raise QueryError("the answer is incomplete", retryable=True)
        body = b"\n".join(self._lines)
        if self._first is None or self._last is None:
            return QueryAnswer(body, 0)
        return QueryAnswer(body, self.rows, _head.decode(self._first)[0], _head.decode(self._last)[0])


def _bounds(window: TimeWindow) -> str:
    bounds = []
    if window.start > MIN_TIME:
        bounds.append(f"time >= {window.start}")
    if window.end < MAX_TIME:
        bounds.append(f"time < {window.end}")
    return " AND ".join(bounds)


def _decoded(line: bytes) -> _Chunk:
    """One chunk. Raises QueryError for an error in it, or if it is not one."""
    chunk = _parsed(line)
    error = chunk.error or next((result.error for result in chunk.results if result.error), "")
    if error:
        raise QueryError(error, retryable=any(text in error for text in _BUSY))
    return chunk


def _parsed(line: bytes) -> _Chunk:
    """One chunk, whatever errors are in it. Raises QueryError if it is not one."""
    try:
        return _chunk.decode(line)
    except msgspec.DecodeError:
        raise QueryError(f"the answer is not JSON: {excerpt(line)}", retryable=True) from None


def _keys(body: bytes, grouped: bool) -> tuple[list[str], dict[str, set[FieldType]]]:
    """The tag keys, and the field keys with their types in all shards, of an answer to `columns`. Raises QueryError."""
    tags: dict[str, None] | None = None
    types: dict[str, set[FieldType]] = {}
    for chunk in _all_chunks(body, COLUMN_STATEMENTS):
        for series in _series(chunk):
            if series.columns[0] == "time":
                tags = {**(tags or {}), **dict.fromkeys(series.tags)}
                continue
            for value in series.values:
                row = _row.decode(value)
                if series.columns[0] == "tagKey":
                    tags = {**(tags or {}), str(row[0]): None}
                else:
                    types.setdefault(str(row[0]), set()).add(_field_type(str(row[1])))
    if grouped and types and tags is None:
        raise QueryError(f"its first {SERIES_WITH_KEYS} series have no points, so that its tags are not known")
    return list(tags or {}), types


def _chunks(body: bytes) -> list[_Chunk]:
    return [_decoded(line) for line in body.split(b"\n") if line.strip()]


def _all_chunks(body: bytes, statements: int) -> list[_Chunk]:
    """The chunks of a whole answer. Raises QueryError if the end of one of its `statements` is missing."""
    chunks = _chunks(body)
    ends = sum(not result.partial for chunk in chunks for result in chunk.results)
    if ends < statements:
        raise QueryError(f"the answer is incomplete: it has the results of {ends} of {statements} statements",
                         retryable=True)
    return chunks


def _series(chunk: _Chunk) -> list[_Series]:
    return [series for result in chunk.results for series in result.series]


def _field_type(text: str) -> FieldType:
    if text not in _CAST:
        raise QueryError(f"a field has the type {text}, which is not one of " + ", ".join(_CAST))
    return text  # type: ignore[return-value]


def _row_type(columns: tuple[Column, ...]) -> Any:
    """The type of a row: a time, and a value for each column."""
    values: tuple[Any, ...] = tuple(_PYTHON[column.type] for column in columns)
    return tuple.__class_getitem__((int, *values))


def _typed_decoder(columns: tuple[Column, ...]) -> Callable[[bytes], Any]:
    """A decoder of chunks whose rows are of `_row_type`."""
    rows: Any = list.__class_getitem__(_row_type(columns))
    series: Any = msgspec.defstruct("Series", [("values", rows, [])])
    result: Any = msgspec.defstruct("Result", [("series", list.__class_getitem__(series), [])])
    chunk: Any = msgspec.defstruct("Chunk", [("results", list.__class_getitem__(result), [])])
    return msgspec.json.Decoder(chunk).decode


def _rows(line: bytes, columns: tuple[Column, ...], decode: Callable[[bytes], Any]) -> tuple[list[Row], list[BadRow]]:
    """The rows of a chunk. Falls back to decoding them one by one when `decode` rejects the chunk."""
    # The two searches for bytes take a third of the time of the expression's.
    if not ((b"-0," in line or b"-0]" in line) and _NEGATIVE_ZERO.search(line)):
        try:
            return [row for result in decode(line).results for series in result.series for row in series.values], []
        except msgspec.ValidationError:
            pass
    return _one_by_one(line, columns)


def _one_by_one(line: bytes, columns: tuple[Column, ...]) -> tuple[list[Row], list[BadRow]]:
    """The rows of a chunk in which a value has a wrong type, or may be a negative zero."""
    rows: list[Row] = []
    bad: list[BadRow] = []
    decode = msgspec.json.Decoder(_row_type(columns)).decode
    for series in _series(_chunk.decode(line)):
        for raw in series.values:
            try:
                rows.append(decode(_with_negative_zeros(raw)))
            except msgspec.ValidationError as error:
                bad.append(BadRow("bad_value", str(error), excerpt(bytes(raw))))
    return rows, bad


def _with_negative_zeros(raw: Raw) -> bytes | Raw:
    """A row with -0 written as -0.0, because as an integer it would lose its sign."""
    if not _NEGATIVE_ZERO.search(bytes(raw)):
        return raw
    values = [bytes(value) for value in _raws.decode(raw)]
    return b"[" + b",".join(b"-0.0" if value == b"-0" else value for value in values) + b"]"
