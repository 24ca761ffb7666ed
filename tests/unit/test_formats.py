"""Payload formats that need files or packages, compression with its cap, and what is said when something is missing."""

import io
import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import cramjam
import fastavro
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import MappingConfig
from stages.mapping.check import mapping_problems
from stages.mapping.encoder import BatchOrigin, Encoded, Encoder
from stages.mapping.formats.compression import decompressor
from stages.mapping.formats.json_values import to_json
from stages.mapping.limits import Limits
from stages.mapping.reject import Reject

AVRO = {"type": "record", "name": "Reading", "fields": [
    {"name": "site", "type": "string"},
    {"name": "v", "type": "double"},
    {"name": "n", "type": "long"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}},
    {"name": "note", "type": ["null", "string"]},
]}
RECORD: dict[str, Any] = {"site": "a", "v": 0.1, "n": 2**62 + 1, "at": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
                          "price": Decimal("12.50"), "note": None}


def encode(encoder: Encoder, *payloads: bytes) -> Encoded:
    """The payloads as one batch."""
    return encoder.encode(payloads, BatchOrigin(timestamps=[1_700_000_000_000_000] * len(payloads)))


def lines_of(mapping: MappingConfig, *payloads: bytes) -> list[str]:
    """The lines of the payloads; none of them may be rejected."""
    encoded = encode(Encoder(mapping, "ms", "s", "t"), *payloads)
    assert not encoded.rejects
    return encoded.body.decode().splitlines()


def test_avro_records_by_the_schema_of_a_file_keep_exact_numbers(tmp_path: Path) -> None:
    schema = tmp_path / "reading.avsc"
    schema.write_text(json.dumps(AVRO))
    payload = io.BytesIO()
    fastavro.schemaless_writer(payload, fastavro.parse_schema(AVRO), RECORD)
    mapping = MappingConfig(format="avro", avro_schema=str(schema), tag_fields=("site",), types={"n": "integer"},
                            timestamp_from="field", timestamp_field="at")
    assert lines_of(mapping, payload.getvalue()) == [
        "t,site=a v=0.1,n=4611686018427387905i,price=12.50 1700000000000"]
    encoded = encode(Encoder(mapping, "ms", "s", "t"), payload.getvalue() + b"x", b"\xff", b"")
    assert [reject.reason for reject in encoded.rejects] == ["not_avro"] * 3


def test_avro_container_files_bring_their_schema() -> None:
    payload = io.BytesIO()
    fastavro.writer(payload, fastavro.parse_schema(AVRO), [RECORD, {**RECORD, "site": "b"}], codec="deflate")
    mapping = MappingConfig(format="avro", tag_fields=("site",), field_strategy="explicit", field_names=("v",),
                            timestamp_from="field", timestamp_field="at", timestamp_format="rfc3339")
    assert lines_of(mapping, payload.getvalue()) == ["t,site=a v=0.1 1700000000000", "t,site=b v=0.1 1700000000000"]


def protobuf_files(folder: Path) -> tuple[Path, Any]:
    """A descriptor set with `demo.Reading`, and the class of that message."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="demo.proto", package="demo", syntax="proto3",
                                              dependency=["google/protobuf/timestamp.proto"])
    file.enum_type.add(name="Kind").value.add(name="COLD", number=0)
    file.enum_type[0].value.add(name="WARM", number=1)
    message = file.message_type.add(name="Reading")
    for number, (name, kind, type_name) in enumerate([
            ("site", field.TYPE_STRING, ""), ("v", field.TYPE_DOUBLE, ""), ("n", field.TYPE_UINT64, ""),
            ("kind", field.TYPE_ENUM, ".demo.Kind"), ("at", field.TYPE_MESSAGE, ".google.protobuf.Timestamp")], 1):
        message.field.add(name=name, number=number, type=kind, type_name=type_name or None, label=field.LABEL_OPTIONAL)
    message.oneof_decl.add(name="_extra")
    message.field.add(name="extra", number=6, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL, proto3_optional=True,
                      oneof_index=0)
    message.field.add(name="parts", number=7, type=field.TYPE_INT64, label=field.LABEL_REPEATED)
    timestamp = descriptor_pb2.FileDescriptorProto.FromString(timestamp_pb2.DESCRIPTOR.serialized_pb)
    path = folder / "demo.desc"
    path.write_bytes(descriptor_pb2.FileDescriptorSet(file=[timestamp, file]).SerializeToString())
    pool = descriptor_pool.DescriptorPool()
    for part in (timestamp, file):
        pool.Add(part)
    return path, message_factory.GetMessageClass(pool.FindMessageTypeByName("demo.Reading"))


def test_protobuf_messages_keep_defaults_exact_integers_and_nanoseconds(tmp_path: Path) -> None:
    path, reading = protobuf_files(tmp_path)
    mapping = MappingConfig(format="protobuf", protobuf_descriptor=str(path), protobuf_message="demo.Reading",
                            tag_fields=("site", "kind"), types={"n": "unsigned"}, timestamp_from="field",
                            timestamp_field="at", timestamp_format="rfc3339")
    message = reading(site="a", v=0.0, n=2**64 - 1, kind=1, parts=[1, 2])
    message.at.seconds, message.at.nanos = 1_700_000_000, 123_456_789
    encoder = Encoder(mapping, "ns", "s", "t")
    encoded = encode(encoder, message.SerializeToString(), b"\xff\xff")
    assert encoded.body.decode() == (
        't,kind=WARM,site=a v=0.0,n=18446744073709551615u,parts="[1,2]" 1700000000123456789\n')
    assert [reject.reason for reject in encoded.rejects] == ["not_protobuf"]


@pytest.mark.parametrize("name", ["gzip", "zstd", "lz4", "snappy"])
@pytest.mark.parametrize("how", ["named", "auto"])
def test_a_payload_is_decompressed_up_to_the_cap(name: str, how: str) -> None:
    content = b'{"v":1}' + b" " * 93
    payload = bytes(getattr(cramjam, name).compress(content))
    decompress = decompressor(name if how == "named" else "auto", 100)
    assert decompress(payload) == content
    with pytest.raises(Reject) as caught:
        decompress(bytes(getattr(cramjam, name).compress(b" " * 50_000_000)))
    assert caught.value.reason == "too_large"
    with pytest.raises(Reject) as caught:
        decompress(payload[:-3])
    assert caught.value.reason == "not_compressed"


def test_snappy_also_comes_without_frames() -> None:
    assert decompressor("snappy", 100)(bytes(cramjam.snappy.compress_raw(b"abc" * 9))) == b"abc" * 9


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
                    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(
                        st.one_of(st.text(), st.integers(), st.binary()), inner, max_size=3)), max_leaves=10))
def test_any_value_has_json_text_with_exact_numbers(value: Any) -> None:
    read = json.loads(to_json(value, Limits.of(MappingConfig())))
    if isinstance(value, int | str | None):
        assert read == value and type(read) is type(value)
    elif isinstance(value, float):
        assert read == value or value != value


@given(st.sampled_from(["json", "ndjson", "msgpack", "csv", "text", "line_protocol"]),
       st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda text: text.encode()),
                          st.sampled_from([b"a,b\n1,2", b"[1,{}]", b"m f=1 1\nm f=", b'm,a=b f="x', b"{}\n{}"])),
                max_size=4))
def test_no_payload_raises_in_any_format(name: Any, payloads: list[bytes]) -> None:
    encoded = encode(Encoder(MappingConfig(format=name), "ns", "s", "t"), *payloads)
    told = {index for lines in encoded.groups for source in lines.sources or [(i,) for i in range(lines.points)]
            for index in source} | {reject.at for reject in encoded.rejects}
    assert told == set(range(len(payloads)))


def problems_of(**options: Any) -> str:
    """What is wrong with a mapping."""
    return "\n".join(mapping_problems(MappingConfig(**options), "mapping", [("s", "t")]))


@pytest.mark.parametrize(("options", "said"), [
    ({"csv_header": ("a",)}, 'mapping.csv_header: only with format = "csv"'),
    ({"format": "protobuf"}, 'mapping.protobuf_descriptor: required with format = "protobuf"'),
    ({"format": "avro", "avro_schema": "/no/file"}, 'mapping.avro_schema: "/no/file" can\'t be read: No such file'),
    ({"format": "avro", "avro_schema": __file__}, "is not an Avro schema"),
    ({"format": "protobuf", "protobuf_descriptor": "/no/file", "protobuf_message": "m"}, "can't be read"),
    ({"format": "line_protocol", "bucket_template": "{topic}", "allowed_buckets": ("a",)}, "whose lines pass through"),
    ({"constant_tags": {"time": "x"}}, "tag key is time"),
    ({"measurement_from": "static", "measurement_name": "#x"}, "starts with #"),
    ({"field_renames": {"a": "time"}}, "field key is time"),
    ({"bucket_template": "{a!r}", "allowed_buckets": ("a",)}, "give a path in each pair of braces"),
    ({"bucket_template": "{a}"}, "mapping.allowed_buckets: required with"),
])
def test_a_mistake_in_the_options_is_named(options: dict[str, Any], said: str) -> None:
    assert said in problems_of(**options)


@pytest.mark.parametrize(("options", "package", "extra"), [
    ({"format": "avro"}, "fastavro", "avro"), ({"compression": "zstd"}, "cramjam", "compression"),
    ({"format": "protobuf", "protobuf_descriptor": "d", "protobuf_message": "m"}, "google.protobuf", "protobuf")])
def test_a_package_that_is_missing_is_named_with_its_extra(
        options: dict[str, Any], package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert f"pip install 'iggy-influxdb-pipeline[{extra}]'" in problems_of(**options)


@pytest.mark.parametrize(("mapping", "words"), [
    (MappingConfig(exclude_fields=("a",), tag_fields=("a.b",)), 'leaves out "a.b", which mapping.tag_fields needs'),
    (MappingConfig(exclude_fields=("t",), timestamp_from="field", timestamp_field="t"), "timestamp_field needs"),
    (MappingConfig(csv_trim=True), 'mapping.csv_trim: only with format = "csv"')])
def test_options_belong_to_their_format(
        mapping: MappingConfig, words: str) -> None:
    assert any(words in problem for problem in mapping_problems(mapping, "mapping", [("s", "t")]))
