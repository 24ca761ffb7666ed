"""Avro payloads that are small and mean much: they are rejects, and the process lives."""

import io
import json
from pathlib import Path
from typing import Any

import cramjam
import fastavro
import pytest

from pipeline.config.schema import MappingConfig
from stages.mapping.encoder import BatchOrigin, Encoded, Encoder

LIST = {"type": "record", "name": "Node", "fields": [{"name": "v", "type": "double"},
                                                     {"name": "next", "type": ["null", "Node"]}]}


def encode(mapping: MappingConfig, *payloads: bytes) -> Encoded:
    """The payloads as one batch."""
    return Encoder(mapping, "ns", "s", "t").encode(payloads, BatchOrigin(timestamps=[1] * len(payloads)))


def number(value: int) -> bytes:
    """Avro's long."""
    value <<= 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def container(schema: Any, *contents: tuple[int, bytes], codec: str = "null") -> bytes:
    """A container file with blocks of so many records and such data."""
    text = json.dumps(schema).encode()
    name = codec.encode()
    out = b"Obj\x01\x04\x16avro.schema" + number(len(text)) + text
    out += b"\x14avro.codec" + number(len(name)) + name + b"\0" + b"m" * 16
    for count, data in contents:
        out += number(count) + number(len(data)) + data + b"m" * 16
    return out


def a_record(kind: Any) -> dict[str, Any]:
    """The schema of a record with one field."""
    return {"type": "record", "name": "Reading", "fields": [{"name": "v", "type": kind}]}


@pytest.mark.parametrize("depth", [70, 20_000, 1_000_000])
def test_a_list_that_is_nested_without_end_is_too_deep(tmp_path: Path, depth: int) -> None:
    data = (b"\0" * 8 + b"\x02") * depth + b"\0" * 9
    schema = tmp_path / "node.avsc"
    schema.write_text(json.dumps(LIST))
    for mapping, payload in ((MappingConfig(format="avro", avro_schema=str(schema)), data),
                             (MappingConfig(format="avro"), container(LIST, (1, data)))):
        assert [reject.reason for reject in encode(mapping, payload).rejects] == ["too_deep"]


def test_a_short_list_is_written() -> None:
    data = (b"\0" * 8 + b"\x02") * 3 + b"\0" * 9
    assert encode(MappingConfig(format="avro"), container(LIST, (1, data))).body.startswith(
        b"t v=0.0,next_v=0.0,next_next_v=0.0,")


@pytest.mark.parametrize("kind", [
    {"type": "array", "items": "null"},
    {"type": "array", "items": {"type": "record", "name": "Nothing", "fields": []}},
    {"type": "array", "items": {"type": "fixed", "name": "None", "size": 0}},
    {"type": "array", "items": {"type": "array", "items": "null"}},
])
def test_elements_without_bytes_are_counted(kind: Any) -> None:
    billions = number(1 << 40)
    rejects = encode(MappingConfig(format="avro"), container(a_record(kind), (1, billions * 2 + b"\0" * 3))).rejects
    assert [reject.reason for reject in rejects] == ["too_many_values"]


def test_records_without_bytes_are_counted() -> None:
    rejects = encode(MappingConfig(format="avro"), container(a_record("null"), (1 << 50, b""))).rejects
    assert [reject.reason for reject in rejects] == ["too_many_points"]


def test_types_that_double_and_double_again_are_counted() -> None:
    fields: list[dict[str, Any]] = [{"name": "f0", "type": {"type": "record", "name": "R0", "fields": [
        {"name": "v", "type": "null"}]}}]
    for level in range(1, 40):
        fields.append({"name": f"f{level}", "type": {"type": "record", "name": f"R{level}", "fields": [
            {"name": "a", "type": f"R{level - 1}"}, {"name": "b", "type": f"R{level - 1}"}]}})
    rejects = encode(MappingConfig(format="avro"), container(
        {"type": "record", "name": "All", "fields": fields}, (1, b""))).rejects
    assert [reject.reason for reject in rejects] == ["too_many_values"]


@pytest.mark.parametrize("codec", ["deflate", "bzip2", "xz", "zstandard", "snappy"])
def test_what_inflates_is_too_large_and_what_does_not_is_written(codec: str) -> None:
    schema = fastavro.parse_schema(a_record("string"))
    mapping = MappingConfig(format="avro", max_payload_bytes=1_000_000)
    for size, reasons in ((100, []), (50_000_000, ["too_large"])):
        data = number(size) + b"a" * size
        if codec == "zstandard":
            content = container(a_record("string"), (1, bytes(cramjam.zstd.compress(data))), codec=codec)
        elif codec == "snappy":
            block = bytes(cramjam.snappy.compress_raw(data)) + b"crc4"
            content = container(a_record("string"), (1, block), codec=codec)
        else:
            payload = io.BytesIO()
            fastavro.writer(payload, schema, [{"v": "a" * size}], codec=codec)
            content = payload.getvalue()
        encoded = encode(mapping, content)
        assert ([reject.reason for reject in encoded.rejects], encoded.points) == (reasons, 1 - len(reasons))


def test_a_decimal_of_a_megabyte_is_not_made() -> None:
    kind = {"type": "bytes", "logicalType": "decimal", "precision": 10_000_000, "scale": 2}
    mapping = MappingConfig(format="avro")
    long, short = number(1_000_000) + b"\x11" * 1_000_000, number(2) + b"\x11\x11"
    assert [reject.reason for reject in encode(mapping, container(a_record(kind), (1, long))).rejects] == ["bad_field"]
    assert encode(mapping, container(a_record(kind), (1, short))).body.startswith(b"t v=43.69 ")


@pytest.mark.parametrize("payload", [
    b"", b"Obj\x01", b"Obj\x01\x02\x02a", container("nothing", (1, b"")), container({"type": "record"}, (1, b"")),
    container(a_record("long"), (1, b"\xff" * 20)), container(a_record("long"), (2, b"\x02")),
    container(a_record("long"), (1, b"\x02\x02")), container(a_record("long"), (1, b"\x02"))[:-1],
    container(a_record("string"), (1, b"\x01")), container(a_record("long"), (1, b"\x02"), codec="lzo"),
    container(a_record("long"), (1, b"no deflate"), codec="deflate"),
    container(a_record(["null", "long"]), (1, b"\x08")),
])
def test_what_is_no_container_file_is_rejected(payload: bytes) -> None:
    good = container(a_record("long"), (1, b"\x02"))
    encoded = encode(MappingConfig(format="avro"), good, payload)
    assert encoded.points == 1
    assert [(reject.at, reject.reason) for reject in encoded.rejects] == [(1, "not_avro")]
