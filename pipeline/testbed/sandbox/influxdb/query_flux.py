"""Flux as the sandbox understands it, answered in annotated CSV as InfluxDB 2 answers `/api/v2/query`.

    import "influxdata/influxdb/schema"
    schema.tagValues(bucket: "b", tag: "_measurement", predicate: (r) => true, start: time(v: 1))

    from(bucket: "b")
      |> range(start: time(v: 1), stop: time(v: 2))
      |> filter(fn: (r) => r._measurement == "m")
      |> yield(name: "_result")
    from(bucket: "b")
      |> range(start: time(v: 1), stop: time(v: 2))
      |> filter(fn: (r) => r._measurement == "m")
      |> count() |> group() |> sum() |> yield(name: "row_count")

    from(bucket: "b")
      |> range(start: time(v: 1), stop: time(v: 2))
      [|> filter(fn: (r) => r._measurement == "m" or r._measurement == "n")]
      |> count() |> keep(columns: ["_measurement"]) |> group()
      |> distinct(column: "_measurement") |> yield(name: "_result")

The second result has the number of rows of the first one. InfluxDB sends the two in any order; so does the sandbox, by
the window's start. Further filters, on tags and `_field`, are those of `conditions`.
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain, groupby

from pipeline.testbed.sandbox.influxdb import answers
from pipeline.testbed.sandbox.influxdb.conditions import FIELD, Holds, read_condition
from pipeline.testbed.sandbox.influxdb.lines import FieldType, FieldValue
from pipeline.testbed.sandbox.influxdb.query import ONLY, NotUnderstood, Reader, Selection, typed
from pipeline.testbed.sandbox.influxdb.store import Bucket

_DATATYPES: dict[FieldType, str] = {"float": "double", "integer": "long", "unsigned": "unsignedLong",
                                    "boolean": "boolean", "string": "string"}
#: What Go's CSV writer puts into quotes.
_QUOTED = re.compile(r'[",\r\n]|^\s|^\\\.$')
_STRING = r'"(?:[^"\\]|\\.)*"'


class NoBucket(Exception):
    """The query names a bucket that is not there; its name is the text."""


def run(buckets: dict[str, Bucket], text: str) -> Iterator[bytes]:
    """The answer to a query, piece by piece. Raises NotUnderstood, and NoBucket, before it is given."""
    reader = Reader(text)
    if reader.take('import "influxdata/influxdb/schema"'):
        reader.need(r"schema\.tagValues\(bucket:")
        bucket = _bucket(buckets, reader)
        reader.need(r', tag: "_measurement", predicate: \(r\) => true, start: time\(v: -?\d+\)\)')
        _end(reader)
        return iter([_csv([["#datatype", "string", "long", "string"], ["#group", "false", "false", "false"],
                           ["#default", "_result", "", ""], ["", "result", "table", "_value"],
                           *(["", "", "0", name] for name in bucket.measurements()), []])])
    if (probed := _probed(buckets, reader)) is not None:
        return iter([probed])
    bucket, wanted = _selection(buckets, reader)
    reader.need(r'\|> yield\(name: "_result"\)')
    results = [_points(bucket, wanted)]
    if not reader.done():
        bucket, wanted = _selection(buckets, reader)
        reader.need(r'\|> count\(\) \|> group\(\) \|> sum\(\) \|> yield\(name: "row_count"\)')
        results.append(_count(bucket, wanted))
    _end(reader)
    return chain.from_iterable(results if wanted.start % 2 else reversed(results))


def _selection(buckets: dict[str, Bucket], reader: Reader) -> tuple[Bucket, Selection]:
    """The points that `from`, `range` and `filter` choose."""
    reader.need(r"from\(bucket:")
    bucket = _bucket(buckets, reader)
    reader.need(r"\)\s*\|> range\(start: time\(v:")
    start = int(reader.need(r"-?\d+"))
    reader.need(r"\), stop: time\(v:")
    end = int(reader.need(r"-?\d+"))
    reader.need(r"\)\)\s*\|> filter\(fn: \(r\) => r\._measurement ==")
    measurement = _literal(reader)
    reader.need(r"\)")
    conditions: list[Holds] = []
    while reader.take(r"\|> filter\(fn: \(r\) =>"):
        conditions.append(read_condition(reader, "flux"))
        reader.need(r"\)")
    return bucket, Selection(measurement, start, end, conditions=tuple(conditions))


def _probed(buckets: dict[str, Bucket], reader: Reader) -> bytes | None:
    """The measurements that have points in a range; None for another query."""
    end = '|> count() |> keep(columns: ["_measurement"]) |> group()\n  |> distinct(column: "_measurement")'
    if end not in reader.text:
        return None
    reader.need(r"from\(bucket:")
    bucket = _bucket(buckets, reader)
    reader.need(r"\)\s*\|> range\(start: time\(v:")
    start = int(reader.need(r"-?\d+"))
    reader.need(r"\), stop: time\(v:")
    stop = int(reader.need(r"-?\d+"))
    reader.need(r"\)\)")
    names = set()
    if reader.take(r"\|> filter\(fn: \(r\) =>"):
        while reader.take(r"(?:or )?r\._measurement =="):
            names.add(_literal(reader))
        reader.need(r"\)")
    reader.need(r"\|> count\(\).*")
    found = [name for name in bucket.measurements() if (not names or name in names)
             and next(iter(bucket.texts(name, start, stop)), None) is not None]
    return _csv([["#datatype", "string", "long", "string"], ["#group", "false", "false", "false"],
                 ["#default", "_result", "", ""], ["", "result", "table", "_value"],
                 *(["", "", "0", name] for name in found), []]) if found else b"\r\n"


def _literal(reader: Reader) -> str:
    text = re.sub(r"\\(\\|x(..))", lambda found: rf"\u00{found[2]}" if found[2] else found[0], reader.need(_STRING))
    return str(json.loads(text, strict=False))


def _bucket(buckets: dict[str, Bucket], reader: Reader) -> Bucket:
    name = _literal(reader)
    if name not in buckets:
        raise NoBucket(name)
    return buckets[name]


def _end(reader: Reader) -> None:
    if not reader.done():
        raise NotUnderstood(f"{reader.text[:60]!r} is not understood; {ONLY}")


def _count(bucket: Bucket, wanted: Selection) -> Iterator[bytes]:
    """The number of values as a result of its own; nothing where there are none."""
    count = sum(wanted.fits((*tags, (FIELD, field))) for tags, _, fields in
                bucket.texts(wanted.measurement, wanted.start, wanted.end) for field in typed(fields)[0])
    if count:
        yield _csv([["#datatype", "string", "long", "long"], ["#group", "false", "false", "false"],
                    ["#default", "row_count", "", ""], ["", "result", "table", "_value"], ["", "", "0", str(count)]])
    yield b"\r\n"


def _points(bucket: Bucket, wanted: Selection) -> Iterator[bytes]:
    """A table for each series and field, and annotations wherever the columns change."""
    number, before = 0, None
    bounds = f"{answers.go_time(wanted.start)},{answers.go_time(wanted.end)}"
    points = bucket.texts(wanted.measurement, wanted.start, wanted.end)
    for tags, series in groupby(points, key=lambda point: point[0]):
        fields: dict[tuple[FieldType, str], list[str]] = {}
        for _, time, text in series:
            values, types = typed(text)
            shown = answers.go_time(time)
            for field, value in values.items():
                if not wanted.fits((*tags, (FIELD, field))):
                    continue
                fields.setdefault((types[field], field), []).append(f"{shown},{_shown(value)}")
        keys = tuple(key for key, _ in tags)
        for (kind, field), cells in sorted(fields.items()):
            head = b""
            if before != (keys, kind):
                head = (b"\r\n" if before else b"") + _head(keys, kind)
                before = keys, kind
            end = _csv([["", field, wanted.measurement, *(tag for _, tag in tags)]]).decode("utf-8", "surrogateescape")
            text_of_all = "".join([f",,{number},{bounds},{cell}{end}" for cell in cells])
            yield head + text_of_all.encode("utf-8", "surrogateescape")
            number += 1
    yield b"\r\n"


def _head(keys: tuple[str, ...], kind: FieldType) -> bytes:
    """Annotations and names of a table's columns."""
    count = len(keys)
    return _csv([
        ["#datatype", "string", "long", *["dateTime:RFC3339"] * 3, _DATATYPES[kind], *["string"] * (2 + count)],
        ["#group", "false", "false", "true", "true", "false", "false", "true", "true", *["true"] * count],
        ["#default", "_result", *[""] * (7 + count)],
        ["", "result", "table", "_start", "_stop", "_time", "_value", "_field", "_measurement", *keys]])


def _shown(value: FieldValue) -> str:
    """A value as a cell: floats without an exponent, as Go's FormatFloat has them with 'f'."""
    if isinstance(value, str):
        return _cell(value)
    if isinstance(value, float):
        text = repr(value)
        return (format(Decimal(text), "f") if "e" in text else text).removesuffix(".0")
    return json.dumps(value)


def _cell(text: str) -> str:
    """A text as Go's CSV writer with UseCRLF has it: a line break becomes CR and LF, any other CR is left out."""
    if not _QUOTED.search(text):
        return text
    return '"' + text.replace('"', '""').replace("\r", "").replace("\n", "\r\n") + '"'


def _csv(rows: list[list[str]]) -> bytes:
    return "".join([",".join(map(_cell, row)) + "\r\n" for row in rows]).encode("utf-8", "surrogateescape")
