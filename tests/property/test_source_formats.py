"""What a server answers becomes messages with every value, type and time as it was stored; in all languages."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.points.field_type import FieldType
from pipeline.points.table import Column, Table, Value, sort_columns
from pipeline.points.times import MAX_TIME, MIN_TIME, format_time
from pipeline.testbed.sandbox.influxdb import lines
from stages.convert.payloads import Dedupe, PageMessages, PointEncoder
from stages.languages.annotated_csv import PointAssembler
from stages.languages.arrow import ArrowDialect
from stages.languages.flux import FluxAnswerReader, FluxDialect
from stages.languages.influxql import InfluxqlAnswerReader, InfluxqlDialect
from stages.languages.language import QueryAnswerReader, QueryError
from stages.languages.v3 import JsonDialect
from stages.produce.batching import BatchOptions, make_sends

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0\t\\"), min_size=1, max_size=8).filter(
    lambda name: not name.startswith(("_", "#")) and name != "time")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12)
VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    "float": st.floats(allow_nan=False, allow_infinity=False), "integer": st.integers(-(2**63), 2**63 - 1),
    "unsigned": st.integers(0, 2**64 - 1), "boolean": st.booleans(), "string": TEXTS}


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Points of one measurement; no two of a series have the same time, and each has a field."""
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    tags = draw(st.integers(0, len(names) - 1))
    columns = sort_columns([Column(name, "tag", "string") for name in names[:tags]]
                      + [Column(name, "field", draw(st.sampled_from(sorted(VALUES)))) for name in names[tags:]])
    rows: dict[tuple[Value, ...], tuple[Value, ...]] = {}
    for _ in range(draw(st.integers(0, 12))):
        time = draw(st.one_of(st.integers(0, 5), st.integers(MIN_TIME, MAX_TIME - 1)))
        own = tuple(draw(st.one_of(st.none(), NAMES if column.kind == "tag" else VALUES[column.type]))
                    for column in columns)
        if any(value is not None for value in own[tags:]):
            rows[time, *own[:tags]] = (time, *own)
    return Table(draw(NAMES), columns, sorted(rows.values(), key=lambda row: (row[0], str(row))))


def as_points(table: Table) -> list[tuple[Any, ...]]:
    """Rows as (time, tags, fields with types), in one order."""
    return sorted(((row[0], sorted((c.name, v) for c, v in zip(table.columns, row[1:], strict=True)
                                   if c.kind == "tag" and v is not None),
                    sorted((c.name, c.type, repr(v)) for c, v in zip(table.columns, row[1:], strict=True)
                           if c.kind == "field" and v is not None)) for row in table.rows), key=repr)


def go_number(value: float) -> str:
    """As Go's encoding/json prints a float: 20 for 20.0, no exponent below 1e21."""
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e21 else repr(value)


def chunked_json(table: Table, chunk: int) -> bytes:
    """As InfluxDB 1 answers."""
    def text(value: Value) -> str:
        return go_number(value) if isinstance(value, float) else json.dumps(value)

    values = ["[" + ",".join(map(text, row)) + "]" for row in table.rows]
    parts = [values[at:at + chunk] for at in range(0, len(values), chunk)]
    if not parts:
        return b'{"results":[{"statement_id":0}]}\n'
    columns = json.dumps(["time", *(c.name for c in table.columns)])
    out = []
    for index, part in enumerate(parts):
        partial = ',"partial":true' if index < len(parts) - 1 else ""
        out.append(f'{{"results":[{{"statement_id":0,"series":[{{"name":{json.dumps(table.measurement)},"columns":'
                   f'{columns},"values":[{",".join(part)}]{partial}}}]{partial}}}]}}\n')
    return "".join(out).encode()


def go_csv(rows: Iterable[list[str]]) -> bytes:
    """As Go's encoding/csv writes rows with UseCRLF (its source: `fieldNeedsQuotes` and `Writer.Write`)."""
    def cell(text: str) -> str:
        if not text or not (text == r"\." or set(text) & set(',"\r\n') or text[0].isspace()):
            return text
        return '"' + "".join({'"': '""', "\r": "", "\n": "\r\n"}.get(letter, letter) for letter in text) + '"'

    return "".join(",".join(map(cell, row)) + "\r\n" for row in rows).encode()


def annotated(table: Table) -> bytes:
    """As InfluxDB 2 answers: a block for each series and field."""
    types = {"float": "double", "integer": "long", "unsigned": "unsignedLong", "boolean": "boolean", "string": "string"}
    rows: list[list[str]] = []
    for row in table.rows:
        own = [(c, v) for c, v in zip(table.columns, row[1:], strict=True) if v is not None]
        tags = [(c.name, v) for c, v in own if c.kind == "tag"]
        for column, value in own:
            if column.kind == "field":
                shown = json.dumps(value) if column.type == "boolean" else \
                    repr(value) if column.type == "float" else str(value)
                rows.append(["#datatype", "string", "long", "dateTime:RFC3339", types[column.type], "string",
                                 "string", *["string"] * len(tags)])
                rows.append(["#group", "false", "false", "false", "false", "true", "true", *["true"] * len(tags)])
                rows.append(["#default", "_result", "", "", "", "", "", *[""] * len(tags)])
                rows.append(["", "result", "table", "_time", "_value", "_field", "_measurement",
                                 *(name for name, _ in tags)])
                rows.append(["", "", "0", format_time(int(row[0] or 0)), shown, column.name, table.measurement,
                                 *(str(value) for _, value in tags)])
                rows.append([])
    return go_csv(rows) or b"\r\n"


def json_array(table: Table) -> bytes:
    """As InfluxDB 3 answers: what is null is left out."""
    return json.dumps([{"time": format_time(int(row[0] or 0)).rstrip("Z"),
                        **{c.name: v for c, v in zip(table.columns, row[1:], strict=True) if v is not None}}
                       for row in table.rows], separators=(",", ":")).encode()


def counted(table: Table, count_first: bool) -> bytes:
    """As InfluxDB 2 answers a page query: the points, and their number, in any order."""
    values = sum(value is not None for row in table.rows for column, value in zip(table.columns, row[1:], strict=True)
                 if column.kind == "field")
    number = go_csv([["#datatype", "string", "long", "long"], ["#group", "false", "false", "false"],
                     ["#default", "row_count", "", ""], ["", "result", "table", "_value"],
                     ["", "", "0", str(values)]]) if values else b""
    # Each result ends with an empty line; `annotated` has one behind each of its tables, and so behind the last.
    results = [annotated(table), number + b"\r\n"]
    return b"".join(reversed(results) if count_first else results)


def whole(like: Table, parts: Iterable[Table]) -> Table:
    """The parts of a table, put together."""
    found = list(parts)
    return Table(like.measurement, found[0].columns if found else like.columns,
                 [row for part in found for row in part.rows], [bad for part in found for bad in part.bad])


def encoded(encoder: PointEncoder, table: Table, dedupe: Dedupe | None = None) -> PageMessages:
    """What an encoder makes of a table."""
    out = PageMessages()
    encoder.encode(table, dedupe, out)
    return out


@given(tables(), st.integers(1, 4), st.integers(1, 50))
def test_chunked_json_is_taken_in_and_read_exactly(table: Table, chunk: int, piece: int) -> None:
    answer = chunked_json(table, chunk)
    answer_reader = InfluxqlAnswerReader()
    for at in range(0, len(answer), piece):
        answer_reader.feed(answer[at:at + piece])
    taken = answer_reader.finish(complete=True)
    assert taken.rows == len(table.rows)
    if table.rows:
        assert (taken.first, taken.last) == (table.rows[0][0], table.rows[-1][0])
    read = whole(table, InfluxqlDialect("db").tables(table.measurement, table.columns, taken.body, MAX_TIME))
    assert as_points(read) == as_points(table) and not read.bad


@given(tables())
def test_annotated_csv_is_read_exactly_and_fields_of_a_point_come_together(table: Table) -> None:
    points = PointAssembler()
    points.read(annotated(table))
    read = points.table(table.measurement, MAX_TIME)
    assert as_points(read) == as_points(table) and not read.bad


def test_an_answer_that_ends_in_the_middle_is_no_answer() -> None:
    whole = annotated(Table("m", (Column("f", "field", "integer"),), [(1, 2), (3, 4)]))
    for end in (b"\r\n", whole):
        answer_reader = FluxAnswerReader()
        answer_reader.feed(end)
        answer_reader.finish(complete=True)
    for torn in (b"", b"\r", whole[:-2], whole[:-2] + b'{"code":"internal error","message":"panic: x"}', whole[:-9]):
        answer_reader = FluxAnswerReader()
        answer_reader.feed(torn)
        with pytest.raises(QueryError, match="incomplete") as caught:
            answer_reader.finish(complete=True)
        assert caught.value.retryable


@given(st.lists(st.text(st.sampled_from('\r\n", \\.x#\t\u00a0'), max_size=8), min_size=1, max_size=6))
def test_line_breaks_in_annotated_csv_are_read_as_they_were(
        texts: list[str]) -> None:
    columns = (Column("s", "field", "string"),)
    points = PointAssembler()
    points.read(annotated(Table("m", columns, list(enumerate(texts)))))
    read = points.table("m", MAX_TIME)
    assert read.rows == [(time, text.replace("\r", "")) for time, text in enumerate(texts)] and not read.bad


@given(tables(), st.integers(1, 50))
def test_rows_of_annotated_csv_are_counted_however_it_is_cut(table: Table, piece: int) -> None:
    flat = Table(table.measurement, table.columns, [tuple(
        value.replace("\n", "") if isinstance(value, str) else value for value in row) for row in table.rows])
    answer, answer_reader = annotated(flat), FluxAnswerReader()
    for at in range(0, len(answer), piece):
        answer_reader.feed(answer[at:at + piece])
    values = [value for row in flat.rows for column, value in zip(flat.columns, row[1:], strict=True)
              if column.kind == "field" and value is not None]
    assert answer_reader.finish(complete=True).rows == len(values)


@given(tables(), st.booleans())
def test_points_and_their_number_are_read_in_either_order(table: Table, count_first: bool) -> None:
    dialect, answer = FluxDialect("b"), counted(table, count_first)
    reader = dialect.answer_reader()
    reader.feed(answer)
    taken = reader.finish(complete=True)
    read = whole(table, dialect.tables(table.measurement, (), taken.body, MAX_TIME))
    assert as_points(read) == as_points(table) and not read.bad


def readers(table: Table) -> Iterator[tuple[QueryAnswerReader, bytes]]:
    """For each form of an answer that has no end of the transport's: a new reader, and the answer."""
    yield InfluxqlDialect("b").answer_reader(), chunked_json(table, 2)
    yield JsonDialect("b", "sql").answer_reader(), json_array(table)
    yield FluxDialect("b").answer_reader(), counted(table, count_first=False)
    yield FluxDialect("b").answer_reader(), counted(table, count_first=True)


@given(tables(), st.integers(0, 10_000))
def test_an_answer_that_is_cut_anywhere_is_whole_or_read_again(table: Table, place: int) -> None:
    for reader, answer in readers(table):
        cut = answer[:place % (len(answer) + 1)]
        try:
            reader.feed(cut)
            taken = reader.finish(complete=True)
        except QueryError as error:
            assert error.retryable
        else:
            assert taken.rows == sum(1 for _ in expected_rows(reader, table)), cut


def expected_rows(reader: QueryAnswerReader, table: Table) -> Iterator[object]:
    """What an answer counts as rows: points, or values in Flux."""
    for row in table.rows:
        values = [value for column, value in zip(table.columns, row[1:], strict=True)
                  if column.kind == "field" and value is not None]
        yield from values if isinstance(reader, FluxAnswerReader) else [row]


@pytest.mark.parametrize("end", range(0, 200, 3))
def test_a_list_that_is_cut_anywhere_is_read_again(end: int) -> None:
    names = (b'{"results":[{"statement_id":0,"series":[{"name":"measurements","columns":["name"],'
             b'"values":[["a"]]}]}]}\n{"results":[{"statement_id":1}]}\n{"results":[{"statement_id":2}]}\n')
    keys = (b'{"results":[{"statement_id":0,"series":[{"name":"m","columns":["tagKey"],"values":[["t"]]}]}]}\n'
            b'{"results":[{"statement_id":1,"series":[{"name":"m","columns":["fieldKey","fieldType"],'
            b'"values":[["f","float"]]}]}]}\n')
    tables = b'[{"table_name":"a"},{"table_name":"b"}]'
    columns = b'[{"column_name":"time","data_type":"Timestamp(ns)"},{"column_name":"f","data_type":"Float64"}]'
    listed = (b"#datatype,string,long,string\r\n#group,false,false,false\r\n#default,_result,0,\r\n"
              b",result,table,_value\r\n,,0,a\r\n,,0,b\r\n\r\n")
    v1, v2, v3 = InfluxqlDialect("b"), FluxDialect("b"), JsonDialect("b", "sql")
    lists: list[tuple[Callable[[bytes], Sequence[object]], bytes]] = [
        (v1.read_measurements, names), (v1.read_columns, keys), (v2.read_measurements, listed),
        (v3.read_measurements, tables), (v3.read_columns, columns)]
    for read, answer in lists:
        if end < len(answer.strip()):
            with pytest.raises(QueryError) as caught:
                read(answer[:end])
            assert caught.value.retryable
        assert read(answer)


@given(tables(), st.integers(0, 10_000))
def test_an_array_is_cut_behind_a_whole_row(table: Table, place: int) -> None:
    reader, answer = JsonDialect("db", "sql").answer_reader(), json_array(table)
    reader.feed(answer[:place % (len(answer) + 1)])
    taken = reader.finish(complete=False)
    rows = json.loads(answer)
    assert json.loads(taken.body or b"[]") == rows[:taken.rows]


@given(tables(), st.integers(1, 50))
def test_json_arrays_are_read_exactly(table: Table, piece: int) -> None:
    dialect = JsonDialect("db", "sql")
    answer, answer_reader = json_array(table), dialect.answer_reader()
    for at in range(0, len(answer), piece):
        answer_reader.feed(answer[at:at + piece])
    taken = answer_reader.finish(complete=True)
    assert taken.rows == len(table.rows)
    read = whole(table, dialect.tables(table.measurement, table.columns, taken.body, MAX_TIME))
    assert as_points(read) == as_points(table) and not read.bad


ARROW_TYPES: dict[FieldType, pa.DataType] = {"float": pa.float64(), "integer": pa.int64(), "unsigned": pa.uint64(),
                                             "boolean": pa.bool_(), "string": pa.string()}


def record_batches(table: Table, rows: int, dictionaries: bool) -> list[pa.RecordBatch]:
    """As the Flight service of InfluxDB 3 answers, `rows` in a batch: an empty one first, that tells the schema.

    Tags are plain strings, and their metadata says that they are tags; or they are dictionaries, of each batch its own.
    """
    fields = [pa.field("time", pa.timestamp("ns"))]
    for column in table.columns:
        kind, metadata = ARROW_TYPES[column.type], {}
        if column.kind == "tag" and dictionaries:
            kind = pa.dictionary(pa.int32(), pa.string())
        elif column.kind == "tag":
            metadata = {"iox::column::type": "iox::column_type::tag"}
        fields.append(pa.field(column.name, kind, metadata=metadata))
    schema = pa.schema(fields)
    return [pa.RecordBatch.from_arrays(
        [pa.array([row[at] for row in table.rows[start:start + rows]], field.type) for at, field in enumerate(schema)],
        schema=schema) for start in range(-rows, len(table.rows), rows)]


@given(tables(), st.integers(1, 5), st.booleans(), st.booleans(), st.integers(MIN_TIME, MAX_TIME))
def test_record_batches_and_json_are_read_as_the_same_points(
        table: Table, rows: int, dictionaries: bool, own_query: bool, before: int) -> None:
    arrow, jsonl = ArrowDialect("db", "sql", custom=own_query), JsonDialect("db", "sql")
    arrow_taker, json_taker = arrow.answer_reader(), jsonl.answer_reader()
    for batch in record_batches(table, rows, dictionaries):
        arrow_taker.feed(batch)
    json_taker.feed(json_array(table))
    taken, expected = arrow_taker.finish(complete=True), json_taker.finish(complete=True)
    assert taken.rows == expected.rows
    if not own_query:
        assert (taken.first, taken.last) == (expected.first, expected.last)
    if taken.body:
        # With a query of one's own nothing is known of the columns but what the answer says.
        pieces = list(arrow.tables(table.measurement, () if own_query else table.columns, taken.body, before))
        assert all(piece.columns == table.columns for piece in pieces)
        read = whole(table, iter(pieces))
        lines = whole(table, jsonl.tables(table.measurement, table.columns, expected.body, before))
        assert as_points(read) == as_points(lines)
        assert not read.bad


@given(tables(), st.booleans())
def test_line_protocol_says_every_point_as_a_strict_parser_reads_it(table: Table, long: bool) -> None:
    made = encoded(PointEncoder(table.measurement, table.columns, "line_protocol", long, 10**6), table)
    assert made.points + len(made.bad) == len(table.rows)
    found: dict[tuple[Any, ...], list[Any]] = {}
    for payload in made.payloads:
        point = lines.parse_line(payload.decode(), 1)
        assert point.measurement == table.measurement
        found.setdefault((point.time, point.tags), []).extend(
            (name, point.types[name], repr(value)) for name, value in point.fields.items())
    read = sorted(((time, sorted(tags), sorted(fields)) for (time, tags), fields in found.items()), key=repr)
    if not made.bad:
        assert read == as_points(table)
    if not long:
        assert len(made.payloads) == made.points


@given(tables())
def test_json_and_messagepack_say_every_point_and_tell_floats_from_integers(table: Table) -> None:
    for form in ("json", "msgpack"):
        made = encoded(PointEncoder(table.measurement, table.columns, form, False, 10**6), table)
        decode: Any = msgspec.json.decode if form == "json" else msgspec.msgpack.decode
        kinds = {c.name: "integer" if c.type == "unsigned" else c.type for c in table.columns}
        read = []
        for payload in made.payloads:
            point = json.loads(payload) if form == "json" else decode(payload)
            assert point["measurement"] == table.measurement
            for name, value in point["fields"].items():
                assert type(value) is {"float": float, "integer": int, "boolean": bool, "string": str}[kinds[name]]
            read.append((point["time"], sorted(point["tags"].items()),
                         sorted((name, repr(value)) for name, value in point["fields"].items())))
        expected = [(time, tags, [(name, value) for name, _, value in fields])
                    for time, tags, fields in as_points(table)]
        assert sorted(read, key=repr) == sorted(expected, key=repr)


@given(tables(), st.integers(0, 6))
def test_what_was_sent_is_not_sent_again_unless_it_has_changed(table: Table, seen_until: int) -> None:
    encoder = PointEncoder(table.measurement, table.columns, "json", False, 10**6)
    first = encoded(encoder, table, Dedupe(MIN_TIME, {}, MIN_TIME))
    assert len(first.payloads) == len(first.fingerprints) == len(table.rows)
    known = {one.point: one.content for one in first.fingerprints}
    retryable = encoded(encoder, table, Dedupe(MAX_TIME, known, MAX_TIME))
    assert (retryable.payloads, retryable.repeated) == ([], len(table.rows))
    part = encoded(encoder, table, Dedupe(seen_until, known, MAX_TIME))
    assert part.repeated == sum(int(row[0] or 0) < seen_until for row in table.rows)
    if table.rows:
        at = table.columns.index(next(c for c in table.columns if c.kind == "field")) + 1
        row = table.rows[0]
        others: dict[str, Value] = {"string": str(row[at]) + "x", "boolean": not row[at],
                                    "float": 0.5 if row[at] != 0.5 else 1.5}
        other = others.get(table.columns[at - 1].type, 1 if row[at] == 0 else 0)
        table.rows[0] = (*row[:at], other, *row[at + 1:])
        changed = encoded(encoder, table, Dedupe(MAX_TIME, known, MAX_TIME))
        assert (len(changed.payloads), changed.repeated) == (1, len(table.rows) - 1)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=30), st.integers(0, 2**32 - 1)), max_size=60),
       st.integers(1, 4), st.integers(1, 5), st.sampled_from(["series", "balanced", "fixed"]))
def test_packing_keeps_every_message_and_the_order_within_a_series(
        messages: list[tuple[bytes, int]], partitions: int, at_once: int, partitioning: Any) -> None:
    how = BatchOptions(partitioning=partitioning, partition=1, batch_points=1, format="json", gzip=False,
                  messages_per_send=at_once, max_bytes=1_000)
    sends = make_sends([payload for payload, _ in messages], [key for _, key in messages], partitions, how)
    assert all(0 < len(send.payloads) <= at_once for send in sends)
    lanes: dict[int | None, list[bytes]] = {}
    for send in sends:
        lanes.setdefault(send.partition, []).extend(send.payloads)
    for partition, lane in lanes.items():
        if partitioning == "series":
            assert lane == [payload for payload, key in messages if key % partitions == partition]
        else:
            assert partition == {"fixed": 1, "balanced": None}[partitioning]
            assert lane == [payload for payload, _ in messages]
    assert sum(map(len, lanes.values())) == len(messages)


@pytest.mark.parametrize(("form", "expected"), [
    ("json", [b'{"a":1}\n{"b":2}\n', b'{"c":3}\n']), ("msgpack", [b"\x92\x01\x02", b"\x91\x03"])])
def test_several_points_in_a_message_are_lines_or_an_array(form: Any, expected: list[bytes]) -> None:
    payloads = [b'{"a":1}', b'{"b":2}', b'{"c":3}'] if form == "json" else [b"\x01", b"\x02", b"\x03"]
    how = BatchOptions(partitioning="fixed", partition=0, batch_points=2, format=form, gzip=False, messages_per_send=10,
                  max_bytes=1_000)
    assert [payload for send in make_sends(payloads, [0, 0, 0], 1, how) for payload in send.payloads] == expected


def test_a_value_of_another_type_costs_its_row_and_not_its_page() -> None:
    columns = (Column("f", "field", "integer"),)
    body = b'{"results":[{"series":[{"name":"m","columns":["time","f"],"values":[[1,2],[3,"x"],[4,5]]}]}]}'
    (table,) = InfluxqlDialect("db").tables("m", columns, body, MAX_TIME)
    assert table.rows == [(1, 2), (4, 5)]
    assert [(bad.reason, bad.row) for bad in table.bad] == [("bad_value", '[3,"x"]')]
    points = PointAssembler()
    points.read(annotated(Table("m", (Column("f", "field", "float"),), [(1, 2.0), (3, 4.0)])).replace(b"4.0", b"NaN"))
    table = points.table("m", MAX_TIME)
    assert (table.rows, len(table.bad)) == ([(1, 2.0)], 1)


def test_errors_inside_an_answer_of_status_200_are_found() -> None:
    answer_reader = InfluxqlAnswerReader()
    with pytest.raises(QueryError, match="database not found: zz"):
        answer_reader.feed(b'{"results":[{"statement_id":0,"error":"database not found: zz"}]}\n')
    flux = FluxAnswerReader()
    flux.feed(b"#datatype,string,string\r\n#group,true,true\r\n#default,,\r\n,error,reference\r\n"
              b",no such thing,897\r\n")
    with pytest.raises(QueryError, match="no such thing"):
        flux.finish(complete=True)
    broken = InfluxqlAnswerReader()
    broken.feed(b'{"results":[{"series":[{"name":"m","columns":["time"],"values":[[1]]}],"partial":true}]}\n')
    with pytest.raises(QueryError, match="incomplete") as raised:
        broken.finish(complete=True)
    assert raised.value.retryable
    with pytest.raises(QueryError, match="_time"):
        next(FluxDialect("b").tables("m", (), b"#datatype,string\r\n#group,false\r\n#default,\r\n,x\r\n,1\r\n",
                                     MAX_TIME))
