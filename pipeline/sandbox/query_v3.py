"""SQL and InfluxQL as the sandbox understands them, for InfluxDB 3's `/api/v3/query_*` and its Flight service.

    SELECT table_name FROM information_schema.tables WHERE table_schema = 'iox'
    SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'iox' AND table_name = 'm'
    SELECT time, "a", "f" FROM "m" [WHERE time >= TIMESTAMP '...' AND time < TIMESTAMP '...'] ORDER BY time ASC
    [LIMIT 3]

The last one in InfluxQL, too, with integers for the times.
"""

import json
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from pipeline.sandbox import answers
from pipeline.sandbox.lines import MAX_TIME, MIN_TIME, FieldType
from pipeline.sandbox.query import ONLY, NotUnderstood, Reader, Selection, select
from pipeline.sandbox.store import Bucket

#: Arrow types as information_schema spells them.
TAG, TIME, TEXT = "Dictionary(Int32, Utf8)", "Timestamp(Nanosecond, None)", "Utf8"
_ARROW: dict[FieldType, str] = {"float": "Float64", "integer": "Int64", "unsigned": "UInt64", "string": TEXT,
                                "boolean": "Boolean"}
_TIMESTAMP = r"TIMESTAMP '(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z'"


class Answer(Struct, frozen=True):
    """Rows in their order; what is null is left out of a row. Times are nanoseconds since 1970."""

    #: Columns with their Arrow types, as information_schema spells them.
    columns: dict[str, str]
    rows: list[dict[str, Any]]

    def json_lines(self) -> bytes:
        """As `/api/v3/query_*` answers with the format jsonl."""
        times = [name for name, kind in self.columns.items() if kind == TIME]
        shown = [{**row, **{name: answers.go_time(row[name]).rstrip("Z") for name in times}} for row in self.rows]
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in shown).encode("utf-8", "replace")


class NoTable(Exception):
    """The query names a table that is not there; its name is the text."""


def run(bucket: Bucket, text: str, language: str) -> Answer:
    """The answer to a query. Raises NotUnderstood, and NoTable."""
    reader = Reader(text)
    if language == "sql" and reader.take(r"SELECT table_name FROM information_schema\.tables "
                                         r"WHERE table_schema = 'iox'"):
        _end(reader)
        return Answer({"table_name": TEXT}, [{"table_name": name} for name in bucket.measurements()])
    if language == "sql" and reader.take(r"SELECT column_name, data_type FROM information_schema\.columns WHERE "
                                         r"table_schema = 'iox' AND table_name ="):
        name = reader.need(r"'(?:[^']|'')*'")[1:-1].replace("''", "'")
        _end(reader)
        return Answer({"column_name": TEXT, "data_type": TEXT},
                      [{"column_name": column, "data_type": kind} for column, kind in _columns(bucket, name).items()])
    reader.need("SELECT time,")
    columns = list(reader.listed())
    reader.need("FROM")
    measurement = reader.name()
    wanted = _bounds(reader, measurement, language)
    _end(reader)
    known = _columns(bucket, measurement)
    if not known:
        raise NoTable(measurement)
    head = {"iox::measurement": measurement} if language == "influxql" else {}
    rows = []
    for point in select(bucket, wanted):
        values: dict[str, Any] = {**head, "time": point.time}
        for column in columns:
            value = point.tags.get(column) if known.get(column) == TAG else point.fields.get(column)
            if value is not None:
                values[column] = value
        rows.append(values)
    kinds = {name: known.get(name, TEXT) for name in columns}
    return Answer({**dict.fromkeys(head, TEXT), "time": TIME, **kinds}, rows)


def _columns(bucket: Bucket, measurement: str) -> dict[str, str]:
    """Columns with their Arrow types, as information_schema has them."""
    tags = dict.fromkeys(bucket.tag_keys(measurement), TAG)
    fields = {field: _ARROW[kind] for field, kind in bucket.field_keys(measurement).items()}
    return dict(sorted({**tags, **fields, "time": TIME}.items())) if fields else {}


def _bounds(reader: Reader, measurement: str, language: str) -> Selection:
    start, end, limit = MIN_TIME, MAX_TIME + 1, 0
    if reader.take("WHERE"):
        while True:
            reader.need("time")
            operator = reader.need(">=|<")
            if language == "sql":
                text = reader.need(_TIMESTAMP)
                time = _nanoseconds(text.removeprefix("TIMESTAMP '").removesuffix("Z'"))
            else:
                time = int(reader.need(r"-?\d+"))
            start, end = (time, end) if operator == ">=" else (start, time)
            if not reader.take("AND"):
                break
    reader.need("ORDER BY time ASC")
    if reader.take("LIMIT"):
        limit = int(reader.need(r"\d+"))
    return Selection(measurement, start, end, limit)


def _nanoseconds(text: str) -> int:
    whole, _, fraction = text.partition(".")
    since = datetime.fromisoformat(whole).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + int(fraction.ljust(9, "0") or "0")


def _end(reader: Reader) -> None:
    if not reader.done():
        raise NotUnderstood(f"{reader.text[:60]!r} is not understood; {ONLY}")
