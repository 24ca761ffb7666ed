"""Flux as the sandbox understands it, answered in annotated CSV as InfluxDB 2 answers `/api/v2/query`.

    import "influxdata/influxdb/schema"
    schema.tagValues(bucket: "b", tag: "_measurement", predicate: (r) => true, start: time(v: 1))

    from(bucket: "b")
      |> range(start: time(v: 1), stop: time(v: 2))
      |> filter(fn: (r) => r._measurement == "m")
      |> drop(columns: ["_start", "_stop"])
"""

import csv
import io
import json
from itertools import groupby

from pipeline.sandbox import answers
from pipeline.sandbox.lines import FieldType, FieldValue
from pipeline.sandbox.query import ONLY, NotUnderstood, Reader, Selection, select
from pipeline.sandbox.store import Bucket

_DATATYPES: dict[FieldType, str] = {"float": "double", "integer": "long", "unsigned": "unsignedLong",
                                    "boolean": "boolean", "string": "string"}
_STRING = r'"(?:[^"\\]|\\.)*"'


class NoBucket(Exception):
    """The query names a bucket that is not there; its name is the text."""


def run(buckets: dict[str, Bucket], text: str) -> bytes:
    """The answer to a query. Raises NotUnderstood, and NoBucket."""
    reader = Reader(text)
    if reader.take('import "influxdata/influxdb/schema"'):
        reader.need(r"schema\.tagValues\(bucket:")
        bucket = _bucket(buckets, reader)
        reader.need(r', tag: "_measurement", predicate: \(r\) => true, start: time\(v: -?\d+\)\)')
        _end(reader)
        return _csv(["#datatype", "string", "long", "string"], ["#group", "false", "false", "false"],
                    ["#default", "_result", "", ""], ["", "result", "table", "_value"],
                    [["", "", "0", name] for name in bucket.measurements()])
    reader.need(r"from\(bucket:")
    bucket = _bucket(buckets, reader)
    reader.need(r"\)\s*\|> range\(start: time\(v:")
    start = int(reader.need(r"-?\d+"))
    reader.need(r"\), stop: time\(v:")
    end = int(reader.need(r"-?\d+"))
    reader.need(r"\)\)\s*\|> filter\(fn: \(r\) => r\._measurement ==")
    measurement = _literal(reader)
    reader.need(r'\)\s*\|> drop\(columns: \["_start", "_stop"\]\)')
    _end(reader)
    return _points(bucket, Selection(measurement, start, end))


def _literal(reader: Reader) -> str:
    text = reader.need(_STRING).replace("\\$", "$")
    return str(json.loads(text, strict=False))


def _bucket(buckets: dict[str, Bucket], reader: Reader) -> Bucket:
    name = _literal(reader)
    if name not in buckets:
        raise NoBucket(name)
    return buckets[name]


def _end(reader: Reader) -> None:
    if not reader.done():
        raise NotUnderstood(f"{reader.text[:60]!r} is not understood; {ONLY}")


def _points(bucket: Bucket, wanted: Selection) -> bytes:
    """A table for each series and field; a block of annotations for each set of columns."""
    cells: list[tuple[tuple[tuple[str, str], ...], str, FieldType, int, FieldValue]] = []
    for point in select(bucket, wanted):
        tags = tuple(sorted(point.tags.items()))
        cells += [(tags, field, point.types[field], point.time, value) for field, value in point.fields.items()]
    cells.sort(key=lambda cell: (tuple(key for key, _ in cell[0]), cell[2], cell[0], cell[1], cell[3]))
    out, table = [], 0
    for (keys, kind), block in groupby(cells, key=lambda cell: (tuple(key for key, _ in cell[0]), cell[2])):
        rows = []
        for (tags, field), series in groupby(block, key=lambda cell: (cell[0], cell[1])):
            rows += [["", "", str(table), answers.go_time(time), _shown(value), field, wanted.measurement,
                      *(tag for _, tag in tags)] for _, _, _, time, value in series]
            table += 1
        count = len(keys)
        out.append(_csv(
            ["#datatype", "string", "long", "dateTime:RFC3339", _DATATYPES[kind], "string", "string",
             *["string"] * count],
            ["#group", "false", "false", "false", "false", "true", "true", *["true"] * count],
            ["#default", "_result", *[""] * (5 + count)],
            ["", "result", "table", "_time", "_value", "_field", "_measurement", *keys], rows))
    return b"".join(out) or b"\r\n"


def _shown(value: FieldValue) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _csv(datatype: list[str], group: list[str], default: list[str], names: list[str], rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([datatype, group, default, names, *rows, []])
    return text.getvalue().encode("utf-8", "surrogateescape")
