"""Confluent's header before Avro, Protobuf and JSON: skipped, or followed to a schema; and said if it is not wanted."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import MappingConfig
from stages.mapping.check import mapping_problems
from stages.mapping.encoder import BatchOrigin, Encoded, Encoder
from stages.mapping.formats.confluent import message_indexes
from stages.mapping.reject import Reject

OLD: dict[str, Any] = {"type": "record", "name": "R", "fields": [{"name": "v", "type": "long"}]}
NEW: dict[str, Any] = {"type": "record", "name": "R", "fields": [
    {"name": "site", "type": "string", "default": "none"}, {"name": "v", "type": "double"}]}


def header(number: int) -> bytes:
    """What a serializer writes for a schema."""
    return b"\0" + number.to_bytes(4, "big")


def avro(schema: dict[str, Any], value: dict[str, Any]) -> bytes:
    """A record."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def encode(mapping: MappingConfig, *payloads: bytes) -> Encoded:
    """The payloads as one batch."""
    origin = BatchOrigin(timestamps=[1_700_000_000_000_000] * len(payloads))
    return Encoder(mapping, "ns", "s", "t").encode(payloads, origin)


def values(encoded: Encoded) -> list[str]:
    """Series and fields of the lines, the fields in order."""
    out = []
    for line in encoded.body.decode().splitlines():
        series, fields, _ = line.split(" ")
        out.append(f"{series} {','.join(sorted(fields.split(',')))}")
    return out


def test_the_id_is_skipped_where_one_schema_is_given(tmp_path: Path) -> None:
    (tmp_path / "r.avsc").write_text(json.dumps(NEW))
    mapping = MappingConfig(format="avro", avro_schema=str(tmp_path / "r.avsc"), schema_header="confluent")
    encoded = encode(mapping, header(7) + avro(NEW, {"site": "a", "v": 1.5}), avro(NEW, {"site": "a", "v": 1.5}), b"")
    assert values(encoded) == ['t site="a",v=1.5']
    assert [reject.reason for reject in encoded.rejects] == ["not_avro"] * 2
    assert encoded.rejects[0].detail.startswith("it has no header of Confluent's: it begins with 02 61 00")


def test_schemas_are_found_by_id_also_later_and_read_as_the_one_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "1.avsc").write_text(json.dumps(OLD))
    (tmp_path / "2.avsc").write_text(json.dumps({"schema": json.dumps(NEW)}))  # as the registry answers
    (tmp_path / "r.avsc").write_text(json.dumps(NEW))
    mapping = MappingConfig(format="avro", schema_folder=str(tmp_path), schema_header="confluent")
    encoder = Encoder(mapping, "ns", "s", "t")
    payloads = [header(1) + avro(OLD, {"v": 5}), header(2) + avro(NEW, {"site": "a", "v": 1.5}),
                header(3) + avro(OLD, {"v": 6})]
    origin = BatchOrigin(timestamps=[1_700_000_000_000_000] * 3)
    encoded = encoder.encode(payloads, origin)
    assert values(encoded) == ["t v=5", 't site="a",v=1.5']
    assert encoded.rejects[0].detail == f"schema 3 is not known: put it into {tmp_path}/3.avsc"
    (tmp_path / "3.avsc").write_text("{")
    assert "cannot be used" in encoder.encode(payloads, origin).rejects[0].detail
    (tmp_path / "3.avsc").write_text(json.dumps(OLD))
    assert values(encoder.encode(payloads, origin)) == ["t v=5", 't site="a",v=1.5', "t v=6"]
    both = MappingConfig(format="avro", schema_folder=str(tmp_path), schema_header="confluent",
                         avro_schema=str(tmp_path / "r.avsc"))
    assert values(encode(both, *payloads)) == ['t site="none",v=5.0', 't site="a",v=1.5', 't site="none",v=6.0']


def descriptor_set() -> bytes:
    """Two messages, one of them within the other."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="demo.proto", package="demo", syntax="proto3")
    for name in ("First", "Second"):
        file.message_type.add(name=name).field.add(name=name.lower(), number=1, type=field.TYPE_INT64,
                                                   label=field.LABEL_OPTIONAL)
    file.message_type[1].nested_type.add(name="Inner").field.add(name="inner", number=1, type=field.TYPE_INT64,
                                                                 label=field.LABEL_OPTIONAL)
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def test_a_protobuf_message_is_found_by_its_indexes(tmp_path: Path) -> None:
    (tmp_path / "9.desc").write_bytes(descriptor_set())
    one = b"\x08\x05"
    payloads = [header(9) + indexes + one for indexes in (b"\0", b"\x02\x00", b"\x02\x02", b"\x04\x02\x00")]
    bad = [header(9) + indexes + one for indexes in (b"\x02\x04", b"\x01", b"\xff\xff\xff\xff\xff", b"\x40")]
    wanted = ["t first=5", "t first=5", "t second=5", "t inner=5"]
    for mapping in (MappingConfig(format="protobuf", schema_folder=str(tmp_path), schema_header="confluent"),
                    MappingConfig(format="protobuf", protobuf_descriptor=str(tmp_path / "9.desc"),
                                  schema_header="confluent")):
        encoded = encode(mapping, *payloads, *bad, header(9))
        assert values(encoded) == wanted
        assert [reject.reason for reject in encoded.rejects] == ["not_protobuf"] * 5
    named = MappingConfig(format="protobuf", protobuf_descriptor=str(tmp_path / "9.desc"), schema_header="confluent",
                          protobuf_message="demo.Second")
    assert values(encode(named, *payloads)) == ["t second=5"] * 4


def test_json_has_the_header_too() -> None:
    mapping = MappingConfig(schema_header="confluent", tag_fields=("n",))
    encoded = encode(mapping, header(1) + b'{"v":1}', header(1) + b'[{"n":1,"v":2},{"n":2,"v":3}]', b'{"v":1}')
    assert values(encoded) == ["t v=1", "t,n=1 v=2", "t,n=2 v=3"]
    assert [reject.reason for reject in encoded.rejects] == ["not_json"]


@pytest.mark.parametrize("form", ["avro", "protobuf", "json"])
def test_a_header_that_is_not_asked_for_is_said_in_the_reject(form: str, tmp_path: Path) -> None:
    (tmp_path / "r.avsc").write_text(json.dumps(NEW))
    (tmp_path / "r.desc").write_bytes(descriptor_set())
    mapping = {"avro": MappingConfig(format="avro", avro_schema=str(tmp_path / "r.avsc")), "json": MappingConfig(),
               "protobuf": MappingConfig(format="protobuf", protobuf_descriptor=str(tmp_path / "r.desc"),
                                         protobuf_message="demo.First")}[form]
    payload = {"avro": avro(NEW, {"site": "a", "v": 1.5}), "protobuf": b"\0\x08\x05", "json": b'{"v":1}'}[form]
    (reject,) = encode(mapping, header(17) + payload).rejects
    assert reject.reason == f"not_{form}"
    assert 'header of Confluent\'s' in reject.detail and 'set schema_header = "confluent"' in reject.detail


@pytest.mark.parametrize(("options", "key"), [
    ({"format": "csv", "schema_header": "confluent"}, "schema_header"),
    ({"format": "avro", "schema_folder": "."}, "schema_folder"), ({"schema_header": "confluent", "schema_folder": "."},
                                                                  "schema_folder"),
    ({"format": "avro", "schema_header": "confluent"}, "avro_schema"),
    ({"format": "avro", "schema_header": "confluent", "schema_folder": "/nowhere"}, "schema_folder"),
    ({"format": "protobuf", "schema_header": "confluent"}, "protobuf_descriptor"),
    ({"format": "protobuf", "protobuf_descriptor": "x.desc"}, "protobuf_message"),
    ({"format": "protobuf", "schema_header": "confluent", "schema_folder": ".", "protobuf_descriptor": "x.desc"},
     "protobuf_descriptor"),
])
def test_options_that_contradict_are_refused_at_the_start(options: dict[str, Any], key: str) -> None:
    (problem, *_) = mapping_problems(MappingConfig(**options), "mapping", [("s", "t")])
    assert problem.startswith(f"mapping.{key}: ")


def test_a_schema_that_is_none_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "5.avsc").write_text('{"type": "nothing"}')
    (problem,) = mapping_problems(MappingConfig(format="avro", schema_header="confluent", schema_folder=str(tmp_path)),
                                  "mapping", [("s", "t")])
    assert problem.startswith(f'mapping.schema_folder: "{tmp_path}/5.avsc": ')


@given(st.binary(max_size=40))
def test_any_bytes_are_indexes_or_none(payload: bytes) -> None:
    try:
        indexes, rest = message_indexes(payload)
    except Reject as reject:
        assert reject.reason == "not_protobuf"
        return
    assert indexes and payload.endswith(rest)
