"""Flux at `/api/v2/query`, answered as annotated CSV: InfluxDB 2.x and Cloud. Pure.

Answers are not ordered by time: sorting all series would take the server's memory. They are grouped by field, since a
table for each series costs the server most of the time where there are many.

A field has one type in a shard, and may have another one in the next. InfluxDB OSS 2.7.12 leaves out, without a word,
the points of a query's range whose field has another type than in the first shard that the range meets. Therefore each
part of a query stays within a shard; see `PART`.
Sources: "Execute a query", InfluxDB 2 API reference; Flux language specification, string literals.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

import msgspec
from msgspec.structs import replace

from pipeline.points.table import Column, Table
from pipeline.points.times import MAX_TIME, MIN_TIME, SECOND, format_time, parse_time
from pipeline.points.windows import TimeWindow
from stages.languages.annotated_csv import COUNT_RESULT, PointAssembler, find_error, text_of
from stages.languages.filters import EVERYTHING, Choice, flux_filter
from stages.languages.language import (
    CHUNK_ROWS,
    PointCount,
    QueryAnswer,
    QueryError,
    QueryRequest,
    RetentionPolicy,
    substitute,
)

_ANNOTATIONS = ["datatype", "group", "default"]
_DIALECT = {"header": True, "delimiter": ",", "annotations": _ANNOTATIONS}
#: The beginning of a table's header; its lines: annotations, column names, and the empty line before them.
_HEAD = b"\n#datatype"
_HEAD_LINES = len(_ANNOTATIONS) + 2
#: Bytes in which the time of the first row is searched.
FIRST_BYTES = 10_000
_RFC3339 = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z"
#: A row's time, after `_start` and `_stop` where it has them.
_TIME = re.compile(rb",(?:" + _RFC3339 + rb"," + _RFC3339 + rb",)?(" + _RFC3339 + rb"),")
#: Shards begin at multiples of this, counted from the year 1 (`ZERO`), unless their duration was set to less: 1, 7 or
#: more days where points are kept for 2 days or longer. Nanoseconds. Source: "InfluxDB shards and shard groups".
PART = 86_400 * SECOND
#: The beginning of the year 1, nanoseconds since 1970.
ZERO = -62_135_596_800 * SECOND
#: Parts in one query.
MAX_PARTS = 16
#: Measurements that a probe names.
MAX_PROBED_NAMES = 50
_BY_FIELD = '  |> group(columns: ["_field"])\n'
#: Name of the result with the points, and of the one with their number.
RESULT = "_result"
_COUNT = re.compile(rb"(?:^|\n)#default," + COUNT_RESULT.encode() + rb",[^\r\n]*\r\n,result,table,_value\r\n"
                    rb",[^,\r\n]*,\d*,(\d+)\r\n")
#: Flux accepts "\\$" only before "{", and no NUL; both are written as byte escapes.
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "$": "\\x24", "\0": "\\x00"}


def literal(text: str) -> str:
    """A string literal. `$` is escaped because `${}` would be interpolated. Verified with InfluxDB 2.7.12."""
    return '"' + "".join(_ESCAPES.get(character, character) for character in text) + '"'


def start_of_part(time: int, part: int) -> int:
    """The beginning of the part of the time line, `part` nanoseconds long, that a time is in."""
    return time - (time - ZERO) % part


def parts_of(window: TimeWindow, part: int) -> list[TimeWindow]:
    """A window, divided where shards may begin; undivided if there were more than MAX_PARTS."""
    if window.end > start_of_part(window.start, part) + MAX_PARTS * part:
        return [window]
    edges = range(start_of_part(window.start, part) + part, window.end, part)
    return [TimeWindow(start, end) for start, end in zip([window.start, *edges], [*edges, window.end], strict=True)]


class FluxDialect:
    """Flux: every window is read without a limit, since answers are not ordered by time."""

    ordered = False

    def __init__(self, bucket: str, org: str = "", org_id: str = "", tags: tuple[str, ...] = (),
                 custom: bool = False, choice: Choice = EVERYTHING) -> None:
        """`tags`: columns of a custom query that are tags although they are not in the group key. `choice`: what is
        read of a measurement."""
        self._bucket = bucket
        self._custom = custom
        self._filter = flux_filter(choice, literal)
        self._part = PART
        self._tags = frozenset(tags)
        owner = {"orgID": org_id} if org_id else {"org": org} if org else {}
        self._path = "/api/v2/query" + (f"?{urlencode(owner)}" if owner else "")

    def _ask(self, query: str) -> QueryRequest:
        body = msgspec.json.encode({"query": query, "type": "flux", "dialect": _DIALECT})
        return QueryRequest(self._path, body, "application/json", "application/csv")

    def measurements(self) -> QueryRequest:
        return self._ask(f'import "influxdata/influxdb/schema"\nschema.tagValues(bucket: {literal(self._bucket)}, '
                         f'tag: "_measurement", predicate: (r) => true, start: time(v: {MIN_TIME}))')

    def read_measurements(self, body: bytes) -> list[str]:
        _raise_error(body)
        _raise_unless_whole(body)
        return values_of(body)

    def policies(self, body: bytes) -> list[RetentionPolicy]:
        return []

    def columns(self, measurement: str) -> None:
        """None: answers are annotated with their columns."""

    def read_columns(self, body: bytes) -> tuple[Column, ...]:
        return ()

    def rounded_fields(self, body: bytes) -> list[str]:
        return []

    def page(self, measurement: str, columns: tuple[Column, ...], window: TimeWindow, limit: int,
             chunk_rows: int = CHUNK_ROWS) -> QueryRequest:
        """The points, a result for each shard, and their number as another result: an answer has no other end that a
        proxy could not cut off.

        The server sends the results in any order. A window that is not `reachable` is one part: its rows may be
        counted, and not be relied on.
        """
        parts = [self._points(measurement, part) + _BY_FIELD for part in parts_of(window, self._part)]
        results = "".join(f'{points}  |> drop(columns: ["_start", "_stop"]) |> yield(name: "{RESULT}{number or ""}")\n'
                          for number, points in enumerate(parts))
        counts = [f"{points}  |> count() |> group()" for points in parts]
        together = counts[0] if len(counts) == 1 else f"union(tables: [{', '.join(counts)}])"
        return self._ask(f'{results}{together} |> sum() |> yield(name: "{COUNT_RESULT}")')

    def reachable(self, window: TimeWindow) -> TimeWindow:
        """As far as MAX_PARTS of a query reach, to the beginning of a shard. From there on, the first shard with a
        field has the type of the first points."""
        if self._custom:
            return window
        end = start_of_part(window.start, self._part) + MAX_PARTS * self._part
        return TimeWindow(window.start, min(window.end, end))

    def before_first(self, first: int) -> int:
        """The beginning of its shard."""
        return start_of_part(first, self._part)

    def custom_query(self, query: str, window: TimeWindow) -> QueryRequest:
        """The custom query; times are RFC 3339 literals. Its rows cannot be counted as a second result, since it may be
        anything."""
        request = self._ask(substitute(query, format_time(window.start), format_time(window.end)))
        return replace(request, compressed=True)

    def probe(self, windows: Sequence[tuple[str, TimeWindow]]) -> QueryRequest | None:
        """The measurements that have points in the widest of the windows; one table, whose end is that of the answer.

        A long list of names would take the server longer than the points of the other measurements.
        """
        if self._custom:
            return None
        start, end = min(window.start for _, window in windows), max(window.end for _, window in windows)
        names = " or ".join(f"r._measurement == {literal(name)}" for name, _ in windows)
        return self._ask(f"from(bucket: {literal(self._bucket)})\n"
                         f"  |> range(start: time(v: {start}), stop: time(v: {end}))\n"
                         + (f"  |> filter(fn: (r) => {names})\n" if len(windows) <= MAX_PROBED_NAMES else "")
                         + '  |> count() |> keep(columns: ["_measurement"]) |> group()\n'
                         f'  |> distinct(column: "_measurement") |> yield(name: "{RESULT}")')

    def read_probe(self, windows: Sequence[tuple[str, TimeWindow]], body: bytes) -> set[str]:
        _raise_error(body)
        _raise_unless_whole(body)
        found = set(values_of(body))
        # The server leaves out the CR in names.
        return {name for name, _ in windows if name not in found and "\r" not in name}

    def _points(self, measurement: str, window: TimeWindow) -> str:
        return (f"from(bucket: {literal(self._bucket)})\n"
                f"  |> range(start: time(v: {window.start}), stop: time(v: {window.end}))\n"
                f"  |> filter(fn: (r) => r._measurement == {literal(measurement)})\n{self._filter}")

    def count(self, measurement: str, window: TimeWindow, every: int = 0) -> QueryRequest | None:
        """How many values each field has."""
        if self._custom:
            return None
        counted = f'aggregateWindow(every: {every}ns, fn: count, createEmpty: false, timeSrc: "_start")' if every \
            else "count()"
        time = ', "_time"' if every else ""
        return self._ask(f'{self._points(measurement, window)}  |> {counted}\n'
                         f'  |> group(columns: ["_field"{time}]) |> sum() |> group() |> yield(name: "{RESULT}")')

    def read_count(self, body: bytes) -> dict[int, PointCount]:
        _raise_error(body)
        _raise_unless_whole(body)
        found: dict[int, PointCount] = {}
        for row in rows_of(body):
            start = parse_time(row["_time"]) if "_time" in row else 0
            values, before = int(row["_value"]), found.get(start, PointCount(0, 0))
            found[start] = PointCount(max(before.points, values), before.rows + values)
        return {start: count for start, count in found.items() if count.rows}

    def series(self, measurement: str, window: TimeWindow) -> QueryRequest | None:
        if self._custom:
            return None
        return self._ask(f'{self._points(measurement, window)}  |> first()\n'
                         '  |> drop(columns: ["_field", "_value", "_time", "_start", "_stop"]) |> limit(n: 1)\n'
                         f'  |> group() |> count(column: "_measurement") |> yield(name: "{RESULT}")')

    def read_series(self, body: bytes) -> int:
        _raise_error(body)
        _raise_unless_whole(body)
        return sum(int(row["_measurement"]) for row in rows_of(body))

    def first_time(self, measurement: str, window: TimeWindow) -> QueryRequest | None:
        if self._custom:
            return None
        return self._ask(f'{self._points(measurement, window)}  |> first() |> keep(columns: ["_time"]) |> group()\n'
                         f'  |> min(column: "_time") |> yield(name: "{RESULT}")')

    def read_first_time(self, body: bytes) -> int | None:
        _raise_error(body)
        _raise_unless_whole(body)
        return min((parse_time(row["_time"]) for row in rows_of(body)), default=None)

    def answer_reader(self) -> "FluxAnswerReader":
        return FluxAnswerReader(counted=not self._custom)

    def tables(self, measurement: str, columns: tuple[Column, ...], body: bytes, before: int) -> Iterator[Table]:
        points = PointAssembler(self._tags, all_tags=not self._custom)
        points.read(body)
        yield points.table(measurement, before)


class FluxAnswerReader:
    """Collects annotated CSV. Rows are lines outside of headers; a line break in a string counts as one more.

    The server repeats the header wherever types or tags change. In a narrow window of many series most lines are
    headers, so pages that counted them would hold almost no rows.
    """

    def __init__(self, counted: bool = False) -> None:
        """`counted`: a second result has the number of rows; see `FluxDialect.page`."""
        self.rows = 0
        self.size = 0
        self._counted = counted
        self._pieces: list[bytes] = []
        #: The end of the last piece, which may be the beginning of a header.
        self._tail = b"\n"

    def feed(self, piece: bytes) -> None:
        self.size += len(piece)
        joined = self._tail + piece
        self.rows += piece.count(b"\n") - _HEAD_LINES * joined.count(_HEAD)
        self._tail = joined[1 - len(_HEAD):]
        self._pieces.append(piece)

    def finish(self, complete: bool) -> QueryAnswer:
        body = b"".join(self._pieces)
        _raise_error(body)
        if complete:
            _raise_unless_whole(body)
            if self._counted:
                self.rows = _verified_rows(body)
                return QueryAnswer(body if self.rows else b"", self.rows, _some_time(body))
        return QueryAnswer(body, max(1, self.rows) if body.strip() else 0, _some_time(body))


def _some_time(body: bytes) -> int:
    """The time of the first row, or of a string that looks like a time; 0 if there is none."""
    found = _TIME.search(body, 0, FIRST_BYTES)
    try:
        time = parse_time(found[1].decode()) if found else 0
    except ValueError:
        return 0
    return time if MIN_TIME <= time <= MAX_TIME else 0


def values_of(body: bytes) -> list[str]:
    """The values of the column `_value`."""
    found: list[str] = []
    at = -1
    for line in _csv_rows(body):
        if line[0].startswith("#"):
            at = -1
        elif at < 0:
            at = line.index("_value") if "_value" in line else len(line)
        elif at < len(line):
            found.append(line[at])
    return found


def rows_of(body: bytes) -> list[dict[str, str]]:
    """The rows of all tables, by their columns."""
    found: list[dict[str, str]] = []
    header: list[str] | None = None
    for line in _csv_rows(body):
        if line[0].startswith("#"):
            header = None
        elif header is None:
            header = line
        else:
            found.append(dict(zip(header, line, strict=False)))
    return found


def _csv_rows(body: bytes) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text_of(body), newline="")) if len(row) > 1]


def _raise_unless_whole(body: bytes) -> None:
    """A complete answer ends with an empty line; after a failure it ends anywhere, or with a JSON error.

    So do the tables inside an answer: see `_verified_rows`.

    Source: Flux's `DelimitedMultiResultEncoder`, which writes CR and LF after each result.
    """
    if not body.endswith(b"\n") or body.strip() and not body.endswith(b"\n\r\n"):
        last = body.rstrip().rpartition(b"\n")[2].decode("utf-8", "replace")
        raise QueryError(f"the answer is incomplete; its last line: {last[:200]}", retryable=True)


def _verified_rows(body: bytes) -> int:
    """The number of rows of an answer with a count. Raises QueryError if rows are missing."""
    rows, counted = _count_lines(body) if b'"' not in body else _count_csv_rows(body)
    if rows != counted:
        raise QueryError(f"the answer is incomplete: it has {rows} of {counted} rows", retryable=True)
    return rows


def _count_lines(body: bytes) -> tuple[int, int]:
    """The rows in an answer without quoted cells, whose lines are its rows, and their number as the server has it."""
    count = _COUNT.search(body)
    headers = (b"\n" + body).count(_HEAD)
    return body.count(b"\n,") - headers - (1 if count else 0), int(count[1]) if count else 0


def _count_csv_rows(body: bytes) -> tuple[int, int]:
    """As `_count_lines`, for any answer, and slower."""
    rows = counted = 0
    result = ""
    header: list[str] | None = None
    for row in _csv_rows(body):
        if row[0].startswith("#"):
            result = row[1] if row[0] == "#default" else result
            header = None
        elif header is None:
            header = row
        elif result == COUNT_RESULT:
            counted += int(row[header.index("_value")])
        else:
            rows += 1
    return rows, counted


def _raise_error(body: bytes) -> None:
    message = find_error(body)
    if message:
        raise QueryError(message, retryable="timeout" in message or "canceled" in message or "queue" in message)
