"""What InfluxDB 3 lets into a table: a column is a tag or a field of one type, whichever came first.

A line's columns are looked at in the order in which they are written, tags first. Those that are new stay, also when a
later one of the same line is refused. Source: influxdata/influxdb, `influxdb3_write/src/write_buffer/validator.rs`.

Left out: the limits on databases, tables and columns.
"""

from collections.abc import Iterator

from msgspec import Struct

from pipeline.testbed.sandbox.influxdb import lines, lines_v3
from pipeline.testbed.sandbox.influxdb.lines import FieldType
from pipeline.testbed.sandbox.influxdb.store import Batch, Bucket, Columns, Entry

#: Of a refused line, so much is shown, less what is left of a character there.
LINE_BYTES = 20
_FIELDS: dict[FieldType, str] = {
    "float": "field::float", "integer": "field::integer", "unsigned": "field::uinteger", "string": "field::string",
    "boolean": "field::boolean"}


class RefusedLine(Struct, frozen=True, order=True):
    """A line that isn't stored."""

    #: Among the lines of the body, from 1; blank ones and comments don't count.
    number: int
    #: The beginning of it. A malformed one as it came: of all lines of the body, blank ones and comments and the parts
    #: of a string with line breaks included, the one with this number. Another one printed anew.
    line: str
    reason: str


def admit(bucket: Bucket, body: bytes, batch: Batch, partial: bool) -> list[RefusedLine]:
    """The lines of a body that are refused, in their order; they are taken out of `batch`, which was read from it.

    Without `partial`, the first of them at most, and then no column is new.
    """
    columns, before = bucket.columns, {}
    if not partial:
        before = {table: dict(known) for table, known in bucket.columns.tables.items()}
    text = _Text(body)
    refused = []
    for bad in batch.bad:
        anew = bad.reason.startswith("timestamp, ")
        line = lines_v3.read(bad.line).printed() if anew else text.physical(bad.number)
        refused.append(RefusedLine(bad.number, _beginning(line), bad.reason))
    kept = []
    for entry in batch.entries:
        if (entry[0], entry[3]) not in columns.known:
            found = lines_v3.read(text.logical(entry[4]))
            if reason := _refusal(columns, entry, found):
                refused.append(RefusedLine(entry[4], _beginning(found.printed()), reason))
                continue
        kept.append(entry)
    if refused and not partial:
        columns.tables = before
        columns.known.clear()
    batch.entries = kept
    return sorted(refused) if partial else sorted(refused)[:1]


def _beginning(line: str) -> str:
    return line.encode()[:LINE_BYTES].decode(errors="ignore")


def _refusal(columns: Columns, entry: Entry, line: lines_v3.Line) -> str:
    """Why a line is refused: InfluxDB 3's message; "" when it isn't. Adds its columns to the table."""
    series, _, _, shape, _ = entry
    table = columns.tables.setdefault(line.measurement, {})
    seen = set()
    for name, _ in line.tags:
        if reason := _column(table, name, "tag"):
            return reason
    for name, raw in line.fields:
        if reason := _column(table, name, _FIELDS[lines.typed(raw)[1]]):
            return reason
        if name in seen:
            return f"invalid line protocol - multiple instances of '{name}' field found"
        seen.add(name)
    _column(table, "time", "timestamp")
    if shape.match is not None:
        columns.known.add((series, shape))
    return ""


def _column(table: dict[str, str], name: str, kind: str) -> str:
    if name not in table:
        if name == "time" and kind != "timestamp":
            return "'time' is a reserved column"
        table[name] = kind
    if table[name] != kind:
        return (f"invalid column type for column '{name}', expected iox::column_type::{table[name]}, "
                f"got iox::column_type::{kind}")
    return ""


class _Text:
    """A body's lines, taken apart when one is asked for."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._logical: list[str] | None = None
        self._physical: list[str] | None = None

    def logical(self, number: int) -> str:
        if self._logical is None:
            self._logical = list(_lines(self._body))
        return self._logical[number - 1]

    def physical(self, number: int) -> str:
        if self._physical is None:
            self._physical = [line.removesuffix("\r") for line in self._body.decode().split("\n")]
        return self._physical[number - 1]


def _lines(body: bytes) -> Iterator[str]:
    position = 0
    while position < len(body):
        end = lines.line_end(body, position)
        line = lines.content(body[position:end])
        if line is not None:
            yield line
        position = end + 1
