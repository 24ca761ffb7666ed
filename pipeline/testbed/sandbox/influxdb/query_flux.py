"""Flux as the sandbox understands it, answered in annotated CSV as InfluxDB 2 answers `/api/v2/query`.

    import "influxdata/influxdb/schema"
    schema.tagValues(bucket: "b", tag: "_measurement", predicate: (r) => true, start: time(v: 1))

    from(bucket: "b")
      |> range(start: time(v: 1), stop: time(v: 2))
      |> filter(fn: (r) => r._measurement == "m")
      |> group(columns: ["_field"])
      |> drop(columns: ["_start", "_stop"]) |> yield(name: "_result")
    from(...) ...
      |> group(columns: ["_field"])
      |> count() |> group() |> sum() |> yield(name: "row_count")

the first once for each shard, as _result1, _result2, ...; the counts then as union(tables: [...]) |> sum() |> ...

    from(...) ... |> first() |> keep(columns: ["_time"]) |> group()
      |> min(column: "_time") |> yield(name: "_result")

    from(bucket: "b")
      |> range(start: time(v: 1), stop: time(v: 2))
      [|> filter(fn: (r) => r._measurement == "m" or r._measurement == "n")]
      |> count() |> keep(columns: ["_measurement"]) |> group()
      |> distinct(column: "_measurement") |> yield(name: "_result")

The result row_count has the number of rows of the others. InfluxDB sends results in any order; so does the sandbox.
Further filters, on tags and `_field`, are those of `conditions`. A custom query may end after them, and have times in
RFC 3339.
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain, groupby

from pipeline.points.times import parse_time
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
    if "yield" not in reader.text:
        bucket, wanted = _selection(buckets, reader)
        _end(reader)
        return _points(bucket, wanted, "_result")
    if "|> first()" in reader.text:
        return iter([_first_time(*_selection(buckets, reader), reader)])
    results: list[Iterator[bytes]] = []
    while reader.text.count("yield(") > 1:
        bucket, wanted = _selection(buckets, reader)
        reader.need(r'\|> group\(columns: \["_field"\]\)\s*\|> drop\(columns: \["_start", "_stop"\]\)')
        name = reader.need(r'\|> yield\(name: "_result\d*"\)').split('"')[1]
        results.append(_points(bucket, wanted, name))
    results.append(_count(list(_counted(buckets, reader))))
    _end(reader)
    return chain.from_iterable(results if wanted.start % 2 else reversed(results))


def _counted(buckets: dict[str, Bucket], reader: Reader) -> Iterator[tuple[Bucket, Selection]]:
    """The parts whose values are counted together."""
    several = reader.take(r"union\(tables: \[")
    while True:
        yield _selection(buckets, reader)
        reader.need(r'\|> group\(columns: \["_field"\]\)\s*\|> count\(\) \|> group\(\)')
        if not several or not reader.take(","):
            break
    if several:
        reader.need(r"\]\)")
    reader.need(r'\|> sum\(\) \|> yield\(name: "row_count"\)')


def _first_time(bucket: Bucket, wanted: Selection, reader: Reader) -> bytes:
    """The time of the first point; nothing where there is none."""
    reader.need(r'\|> first\(\) \|> keep\(columns: \["_time"\]\) \|> group\(\)\s*\|> min\(column: "_time"\)')
    reader.need(r'\|> yield\(name: "_result"\)')
    _end(reader)
    first = min((time for tags, time, fields in bucket.texts(wanted.measurement, wanted.start, wanted.end)
                 if any(wanted.fits((*tags, (FIELD, field))) for field in typed(fields)[0])), default=None)
    return b"\r\n" if first is None else _csv([
        ["#datatype", "string", "long", "dateTime:RFC3339"], ["#group", "false", "false", "false"],
        ["#default", "_result", "", ""], ["", "result", "table", "_time"], ["", "", "0", answers.go_time(first)], []])


def _selection(buckets: dict[str, Bucket], reader: Reader) -> tuple[Bucket, Selection]:
    """The points that `from`, `range` and `filter` choose."""
    reader.need(r"from\(bucket:")
    bucket = _bucket(buckets, reader)
    reader.need(r"\)\s*\|> range\(start: time\(v:")
    start = _time(reader)
    reader.need(r"\), stop: time\(v:")
    end = _time(reader)
    reader.need(r"\)\)\s*\|> filter\(fn: \(r\) => r\._measurement ==")
    measurement = _literal(reader)
    reader.need(r"\)")
    conditions: list[Holds] = []
    while reader.take(r"\|> filter\(fn: \(r\) =>"):
        conditions.append(read_condition(reader, "flux"))
        reader.need(r"\)")
    return bucket, Selection(measurement, start, end, conditions=tuple(conditions))


def _time(reader: Reader) -> int:
    """A time in nanoseconds since 1970, or in RFC 3339."""
    text = reader.need(r"\d{4}-[\d:.T-]+Z|-?\d+")
    return parse_time(text) if text.endswith("Z") else int(text)


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


def _count(parts: list[tuple[Bucket, Selection]]) -> Iterator[bytes]:
    """The number of values as a result of its own; nothing where there are none."""
    count = sum(wanted.fits((*tags, (FIELD, field))) for bucket, wanted in parts for tags, _, fields in
                bucket.texts(wanted.measurement, wanted.start, wanted.end) for field in typed(fields)[0])
    if count:
        yield _csv([["#datatype", "string", "long", "long"], ["#group", "false", "false", "false"],
                    ["#default", "row_count", "", ""], ["", "result", "table", "_value"], ["", "", "0", str(count)]])
    yield b"\r\n"


def _points(bucket: Bucket, wanted: Selection, result: str) -> Iterator[bytes]:
    """A table for each field, with all tags of its series; what a point does not have is empty."""
    #: Type and name of a field -> time and value of each of its points, and the tags of the series.
    fields: dict[tuple[str, FieldType], list[tuple[str, dict[str, str]]]] = {}
    for tags, series in groupby(bucket.texts(wanted.measurement, wanted.start, wanted.end), key=lambda point: point[0]):
        own = dict(tags)
        for _, time, text in series:
            values, types = typed(text)
            for field, value in values.items():
                if wanted.fits((*tags, (FIELD, field))):
                    fields.setdefault((field, types[field]), []).append(
                        (f"{answers.go_time(time)},{_shown(value)}", own))
    for number, ((field, kind), cells) in enumerate(sorted(fields.items(), key=lambda one: one[0])):
        keys = sorted({key for _, own in cells for key in own})
        yield (b"\r\n" if number else b"") + _head(keys, kind, result)
        middle = _csv([["", field, wanted.measurement]]).decode("utf-8", "surrogateescape")[:-2]
        ends = {id(own): "".join([f",{_cell(own.get(key, ''))}" for key in keys]) for _, own in cells}
        yield "".join([f",,{number},{cell}{middle}{ends[id(own)]}\r\n" for cell, own in cells]).encode(
            "utf-8", "surrogateescape")
    yield b"\r\n"


def _head(keys: list[str], kind: FieldType, result: str) -> bytes:
    """Annotations and names of a table's columns."""
    count = len(keys)
    return _csv([
        ["#datatype", "string", "long", "dateTime:RFC3339", _DATATYPES[kind], *["string"] * (2 + count)],
        ["#group", "false", "false", "false", "false", "true", "false", *["false"] * count],
        ["#default", result, *[""] * (5 + count)],
        ["", "result", "table", "_time", "_value", "_field", "_measurement", *keys]])


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
