"""Formats that are read by column: what is read, what is left to the transcoder, and that nothing is lost between."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import MappingConfig
from stages.mapping.encoder import BatchOrigin, Encoder
from stages.mapping.formats.avro_columns import AvroColumns, longs
from stages.mapping.formats.column_texts import Columns, value_texts
from stages.mapping.formats.csv import QuickCsv
from stages.mapping.formats.msgpack_columns import MsgpackColumns
from stages.mapping.limits import Limits
from tests.support.points import normal

LIMITS = Limits.of(MappingConfig())
TIMED = MappingConfig(tag_fields=("site",), timestamp_from="field", timestamp_field="ts")
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(),
                    st.floats(allow_nan=False, allow_infinity=False))


def rows_of(columns: Columns) -> list[dict[str, Any]]:
    """The objects that columns were read from, but for what is null."""
    texts = [text.split(b"\n") if columns.rows else [] for text in columns.texts]
    rows: list[dict[str, Any]] = [{} for _ in range(columns.rows)]
    for path, column in zip(columns.paths, texts, strict=True):
        for row, text in zip(rows, column, strict=True):
            if text != b"null":
                row[".".join(path)] = msgspec.json.decode(text)
    return rows


@given(st.lists(SCALARS, min_size=1, max_size=5))
def test_values_are_written_as_their_own_texts(values: list[Any]) -> None:
    assert value_texts(values) == b"\n".join(map(msgspec.json.encode, values))


@given(st.lists(st.integers(-(2**62), 2**62 - 1), min_size=1, max_size=6))
def test_longs_are_read_all_at_once(values: list[int]) -> None:
    written = []
    for value in values:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema("long"), value)
        written.append(out.getvalue())
    assert list(longs(written)) == values


def test_maps_of_messagepack_are_read_by_their_keys() -> None:
    encode = msgspec.msgpack.encode
    read = MsgpackColumns().columns
    good: list[dict[str, Any]] = [
        {"a": 1, "b": "x"}, {"b": 'say "hi"\n', "a": -1.5}, {"a": None, "c": True}, {"b": "null"}]
    odd = [b"\x82\xa1a\x01\xa1a\x02", encode({"a": [1]}), encode({"a": float("nan")}), b"\xc1", encode([1]),
           encode({1: 2}), encode({"a": b"x"}), b"\x81\xa1a", encode({"a": 1}) + b"\x00"]
    columns, found = read([*map(encode, good), *odd, b"\xde\x00\x01\xa1a\xca\x3f\x80\x00\x00"])
    assert found == [0, 1, 2, 3, len(good) + len(odd)]
    assert rows_of(columns) == [*[{key: value for key, value in row.items() if value is not None} for row in good],
                                {"a": 1.0}]


def test_lines_of_csv_are_read_but_for_what_has_no_json() -> None:
    read = QuickCsv(("a", "b"), ",", True, LIMITS).columns
    columns, found = read([b"1, x", b"NaN,y", b'"2",z', b"-0.5,", b"01,true"])
    assert found == [0, 3, 4]
    assert rows_of(columns) == [{"a": 1, "b": "x"}, {"a": -0.5}, {"a": "01", "b": True}]


AVRO = {"type": "record", "name": "R", "fields": [
    {"name": "site", "type": "string"}, {"name": "x", "type": "double"}, {"name": "y", "type": "double"},
    {"name": "n", "type": ["null", "long"]}, {"name": "on", "type": ["boolean", "null"]},
    {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["IDLE", "BUSY"]}},
    {"name": "in", "type": {"type": "record", "name": "I", "fields": [{"name": "f", "type": "float"}]}},
    {"name": "ts", "type": "long"}]}


def avro(**values: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(AVRO))), {
        "site": "s1", "x": 1.5, "y": -2.0, "n": None, "on": None, "kind": "IDLE", "in": {"f": 0.5},
        "ts": 1_700_000_000_000} | values)
    return out.getvalue()


def test_records_of_avro_are_read_by_one_pattern() -> None:
    named: dict[str, Any] = {}
    reader = AvroColumns.of(fastavro.parse_schema(json.loads(json.dumps(AVRO)), named), named)
    assert reader is not None
    payloads = [avro(), avro(site="é" * 40, n=-(2**62), on=True, kind="BUSY"), avro(x=float("inf")),
                avro()[:-1], avro() + b"\0", avro(site='"\\\n'), b"", avro(n=2**63 - 1)]
    for _ in range(2):
        columns, found = reader.columns(payloads)
        assert found == [0, 1, 5]
        common = {"x": 1.5, "y": -2.0, "in.f": 0.5, "ts": 1_700_000_000_000, "kind": "IDLE"}
        assert rows_of(columns) == [
            {"site": "s1", **common}, {"site": "é" * 40, **common, "n": -(2**62), "on": True, "kind": "BUSY"},
            {"site": '"\\\n', **common}]


def test_schemas_with_more_than_single_values_are_not_read_by_column() -> None:
    for kind in ({"type": "array", "items": "int"}, {"type": "map", "values": "int"}, "bytes", ["int", "string"], "R",
                 {"type": "fixed", "name": "F", "size": 4}, {"type": "string", "logicalType": "uuid"}):
        named: dict[str, Any] = {}
        schema = fastavro.parse_schema({"type": "record", "name": "R", "fields": [{"name": "a", "type": kind}]}, named)
        assert AvroColumns.of(schema, named) is None


@pytest.mark.parametrize("way", ["schema", "header and schema", "header and folder"])
@pytest.mark.parametrize("more", [{}, {"nested": "json"}, {"nested": "drop"}, {"exclude_fields": ("in",)}])
def test_records_become_what_their_transcoder_makes_of_them(way: str, more: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "7.avsc").write_text(json.dumps(AVRO))
    options: dict[str, Any] = {"schema": {"avro_schema": str(tmp_path / "7.avsc")}, "header and schema": {
        "avro_schema": str(tmp_path / "7.avsc"), "schema_header": "confluent"}, "header and folder": {
        "schema_folder": str(tmp_path), "schema_header": "confluent"}}[way]
    mapping = msgspec.structs.replace(TIMED, format="avro", **options, **more)
    header = b"" if way == "schema" else b"\0\0\0\0\x07"
    payloads = [header + avro(ts=1_700_000_000_000 + number // 2, x=number + 0.5) for number in range(16)]
    if header:
        payloads += [b"\0\0\0\0\x08" + avro(), b"\x01" + avro(), b""]
    outcomes = []
    for is_quick in (True, False):
        encoder = Encoder(mapping, "ms", "stream", "topic")
        if not is_quick:
            encoder.leave_out_quick_formats()
        outcomes.append(encoder.encode(payloads, BatchOrigin(first=5)))
        is_by_column = encoder.by_column is not None and encoder.by_column.written >= 16
        assert is_by_column == (is_quick and "nested" not in more)
    assert normal(outcomes[0]) == normal(outcomes[1])


def test_bad_payloads_beside_good_ones_are_rejected_in_their_places(tmp_path: Path) -> None:
    path = tmp_path / "r.avsc"
    path.write_text(json.dumps(AVRO))
    mapping = msgspec.structs.replace(TIMED, format="avro", avro_schema=str(path), types={"n": "integer"})
    payloads = [avro(ts=1_700_000_000_000 + number, n=number) for number in range(20)]
    payloads[3], payloads[7], payloads[9] = b"\x00", avro(x=float("nan")), avro(n=2**63 - 1)
    outcomes = []
    for is_quick in (True, False):
        encoder = Encoder(mapping, "ms", "stream", "topic")
        if not is_quick:
            encoder.leave_out_quick_formats()
        outcomes.append(encoder.encode(payloads, BatchOrigin(first=5)))
        assert (encoder.by_column.written if encoder.by_column is not None else 0) == 17 * is_quick
    assert normal(outcomes[0]) == normal(outcomes[1])
    assert [reject.at for reject in outcomes[0].rejects] == [3, 7]
