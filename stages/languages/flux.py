"""Flux at `/api/v2/query`, answered as annotated CSV: InfluxDB 2.x and Cloud. Pure.

Answers come series by series, not in the order of time: a sort over all series would be the server's to hold in memory.
Sources: "Execute a query", InfluxDB 2 API reference; Flux language specification, string literals.
"""

import csv
import io
import re
from collections.abc import Iterator
from urllib.parse import urlencode

import msgspec

from pipeline.points.table import Column, Table
from pipeline.points.times import MAX_TIME, MIN_TIME, format_time, parse_time
from pipeline.points.windows import TimeWindow
from stages.languages.annotated_csv import Points, error_in, text_of
from stages.languages.language import QueryAnswer, QueryError, QueryRequest, fill

_ANNOTATIONS = ["datatype", "group", "default"]
_DIALECT = {"header": True, "delimiter": ",", "annotations": _ANNOTATIONS}
#: How a table's head begins; its lines: the annotations, the names of the columns, and an empty one before the next.
_HEAD = b"\n#datatype"
_HEAD_LINES = len(_ANNOTATIONS) + 2
#: The first time within so many bytes is taken for a row's.
FIRST_BYTES = 10_000
_TIME = re.compile(rb",(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z),")
#: Flux takes "\\$" only before "{", and no NUL: those two as bytes.
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "$": "\\x24", "\0": "\\x00"}


def literal(text: str) -> str:
    """A string literal; `$` is escaped, since `${}` would be interpolated. Tried with InfluxDB 2.7.12."""
    return '"' + "".join(_ESCAPES.get(character, character) for character in text) + '"'


class Flux:
    """Every window is read whole."""

    ordered = False

    def __init__(self, bucket: str, org: str = "", org_id: str = "", tags: tuple[str, ...] = ()) -> None:
        """`tags`: columns of a user's query that are tags though they are not in the group key."""
        self._bucket = bucket
        self._tags = frozenset(tags)
        owner = {"orgID": org_id} if org_id else {"org": org} if org else {}
        self._path = "/api/v2/query" + (f"?{urlencode(owner)}" if owner else "")

    def _ask(self, query: str) -> QueryRequest:
        body = msgspec.json.encode({"query": query, "type": "flux", "dialect": _DIALECT})
        return QueryRequest(self._path, body, "application/json", "application/csv")

    def measurements(self) -> QueryRequest:
        """See `Dialect`."""
        return self._ask(f'import "influxdata/influxdb/schema"\nschema.tagValues(bucket: {literal(self._bucket)}, '
                         f'tag: "_measurement", predicate: (r) => true, start: time(v: {MIN_TIME}))')

    def read_measurements(self, body: bytes) -> list[str]:
        """See `Dialect`."""
        _raise_error(body)
        _raise_unless_whole(body)
        return values_of(body)

    def columns(self, measurement: str) -> None:
        """None: the answers say themselves what their columns are."""

    def read_columns(self, body: bytes) -> tuple[Column, ...]:
        """See `Dialect`."""
        return ()

    def page(self, measurement: str, columns: tuple[Column, ...], window: TimeWindow, limit: int) -> QueryRequest:
        """See `Dialect`."""
        return self._ask(f"from(bucket: {literal(self._bucket)})\n"
                         f"  |> range(start: time(v: {window.start}), stop: time(v: {window.end}))\n"
                         f"  |> filter(fn: (r) => r._measurement == {literal(measurement)})\n"
                         '  |> drop(columns: ["_start", "_stop"])')

    def custom(self, query: str, window: TimeWindow) -> QueryRequest:
        """See `Dialect`. Times are RFC 3339 literals."""
        return self._ask(fill(query, format_time(window.start), format_time(window.end)))

    def taker(self) -> "FluxTaker":
        """See `Dialect`."""
        return FluxTaker()

    def tables(self, measurement: str, columns: tuple[Column, ...], body: bytes, before: int) -> Iterator[Table]:
        """See `Dialect`."""
        points = Points(self._tags)
        points.read(body)
        yield points.table(measurement, before)


class FluxTaker:
    """Counts lines, but for those that a table's head costs; strings with line breaks in them count as more.

    A server that answers series by series says the head again wherever types or tags change: in a narrow window of many
    series most lines are heads, and pages that counted them would hold next to nothing.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.size = 0
        self._pieces: list[bytes] = []
        #: What may be the begin of a head that the next piece goes on with.
        self._tail = b"\n"

    def take(self, piece: bytes) -> None:
        """See `Taker`."""
        self.size += len(piece)
        joined = self._tail + piece
        self.rows += piece.count(b"\n") - _HEAD_LINES * joined.count(_HEAD)
        self._tail = joined[1 - len(_HEAD):]
        self._pieces.append(piece)

    def finish(self, complete: bool) -> QueryAnswer:
        """See `Taker`."""
        body = b"".join(self._pieces)
        _raise_error(body)
        if complete:
            _raise_unless_whole(body)
        return QueryAnswer(body, max(1, self.rows) if body.strip() else 0, _some_time(body))


def _some_time(body: bytes) -> int:
    """The time of the first row, or of a string that looks like one; 0 when there is none."""
    found = _TIME.search(body, 0, FIRST_BYTES)
    try:
        time = parse_time(found[1].decode()) if found else 0
    except ValueError:
        return 0
    return time if MIN_TIME <= time <= MAX_TIME else 0


def values_of(body: bytes) -> list[str]:
    """The column `_value` of an answer that lists something."""
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


def _csv_rows(body: bytes) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text_of(body), newline="")) if len(row) > 1]


def _raise_unless_whole(body: bytes) -> None:
    """An answer ends with an empty line; one whose server has failed in the middle does not, or with JSON of the error.

    Source: Flux's `DelimitedMultiResultEncoder`, which writes CR and LF behind each result.
    """
    if body.strip() and not body.endswith(b"\n\r\n"):
        last = body.rstrip().rpartition(b"\n")[2].decode("utf-8", "replace")
        raise QueryError(f"the answer broke off: {last[:200]}", again=True)


def _raise_error(body: bytes) -> None:
    words = error_in(body)
    if words:
        raise QueryError(words, again="timeout" in words or "canceled" in words or "queue" in words)
