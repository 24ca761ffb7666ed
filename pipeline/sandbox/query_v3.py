"""SQL and InfluxQL as the sandbox understands them, answered as InfluxDB 3 answers `/api/v3/query_*` in JSON lines.

    SELECT table_name FROM information_schema.tables WHERE table_schema = 'iox'
    SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'iox' AND table_name = 'm'
    SELECT time, "a", "f" FROM "m" [WHERE time >= TIMESTAMP '...' AND time < TIMESTAMP '...'] ORDER BY time ASC
    [LIMIT 3]

The last one in InfluxQL, too, with integers for the times.
"""

import json
from datetime import UTC, datetime
from typing import Any

from pipeline.sandbox import answers
from pipeline.sandbox.lines import MAX_TIME, MIN_TIME, FieldType
from pipeline.sandbox.query import ONLY, NotUnderstood, Reader, Selection, select
from pipeline.sandbox.store import Bucket

_ARROW: dict[FieldType, str] = {"float": "Float64", "integer": "Int64", "unsigned": "UInt64", "string": "Utf8",
                                "boolean": "Boolean"}
_TIMESTAMP = r"TIMESTAMP '(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z'"


class NoTable(Exception):
    """The query names a table that is not there; its name is the text."""


def run(bucket: Bucket, text: str, language: str) -> bytes:
    """The answer to a query, one JSON object a line. Raises NotUnderstood, and NoTable."""
    reader = Reader(text)
    if language == "sql" and reader.take(r"SELECT table_name FROM information_schema\.tables "
                                         r"WHERE table_schema = 'iox'"):
        _end(reader)
        return _lines([{"table_name": name} for name in bucket.measurements()])
    if language == "sql" and reader.take(r"SELECT column_name, data_type FROM information_schema\.columns WHERE "
                                         r"table_schema = 'iox' AND table_name ="):
        name = reader.need(r"'(?:[^']|'')*'")[1:-1].replace("''", "'")
        _end(reader)
        return _lines([{"column_name": column, "data_type": kind} for column, kind in _columns(bucket, name).items()])
    reader.need("SELECT time,")
    columns = list(reader.listed())
    reader.need("FROM")
    measurement = reader.name()
    wanted = _bounds(reader, measurement, language)
    _end(reader)
    known = _columns(bucket, measurement)
    if not known:
        raise NoTable(measurement)
    rows = []
    for point in select(bucket, wanted):
        values: dict[str, Any] = {**({"iox::measurement": measurement} if language == "influxql" else {}),
                                  "time": answers.go_time(point.time).rstrip("Z")}
        for column in columns:
            value = point.tags.get(column) if known.get(column, "").startswith("Dict") else point.fields.get(column)
            if value is not None:
                values[column] = value
        rows.append(values)
    return _lines(rows)


def _columns(bucket: Bucket, measurement: str) -> dict[str, str]:
    """Columns with their Arrow types, as information_schema has them."""
    tags = dict.fromkeys(bucket.tag_keys(measurement), "Dictionary(Int32, Utf8)")
    fields = {field: _ARROW[kind] for field, kind in bucket.field_keys(measurement).items()}
    return dict(sorted({**tags, **fields, "time": "Timestamp(Nanosecond, None)"}.items())) if fields else {}


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


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "replace")
