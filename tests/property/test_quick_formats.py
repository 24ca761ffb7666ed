"""The quick ways of MessagePack, CSV, text and Avro read what their transcoders read, and nothing else.

Some seeds of `scripts/fuzz`, which tries others for as long as it is told to.
"""

from pathlib import Path

import msgspec
import pytest
from google.protobuf import descriptor_pb2

from pipeline.config.schema import MappingConfig
from stages.mapping.formats import Quick, quick, transcoder
from stages.mapping.formats.protobuf import message_class
from tests.fuzz.formats import try_formats

SEEDS = 400
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_random_payloads(part: int) -> None:
    assert not [f"seed {seed}: {words}" for seed in range(part, SEEDS, PARTS) for words in try_formats(seed)]


def way(config: MappingConfig) -> Quick:
    found = quick(config)
    assert found is not None
    return found


def test_usual_payloads_are_read_quickly_also_beside_bad_ones() -> None:
    encode = msgspec.msgpack.encode
    found = way(MappingConfig(format="msgpack")).texts(
        [encode({"a": 1, "b": {"c": [1.5, None]}}), b"\xc1", encode({"a": float("nan")}), b"\x82\xa1a\x01\xa1a\x02",
         encode({"a": None, "b": "x"})])
    assert found == [b'{"a":1,"b":{"c":[1.5,null]}}', None, None, None, b'{"a":null,"b":"x"}']


def test_lines_of_csv_are_read_by_column() -> None:
    found = way(MappingConfig(format="csv", csv_header=("a", "b%"))).texts(
        [b"1,x", b"2.5,\n", b'"3",y', b"4,\xff", b"true,5"])
    assert found == [b'{"a":1,"b%":"x"}', b'{"a":2.5,"b%":null}', None, None, b'{"a":true,"b%":5}']


def test_flat_messages_of_protobuf_are_read_quickly(tmp_path: Path) -> None:
    file = descriptor_pb2.FileDescriptorProto(name="flat.proto", package="demo", syntax="proto3")
    kind = file.enum_type.add(name="Kind")
    kind.value.add(name="IDLE", number=0)
    kind.value.add(name="BUSY", number=1)
    message = file.message_type.add(name="Flat")
    for number, (name, type_, type_name) in enumerate((
            ("site", 9, ""), ("v", 1, ""), ("big", 4, ""), ("on", 8, ""), ("raw", 12, ""),
            ("kind", 14, ".demo.Kind")), 1):
        message.field.add(name=name, number=number, type=type_, type_name=type_name or None, label=1)
    message.field.add(name="maybe", number=7, type=5, label=1, proto3_optional=True, oneof_index=0)
    message.oneof_decl.add(name="_maybe")
    path = tmp_path / "flat.desc"
    path.write_bytes(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString())
    config = MappingConfig(format="protobuf", protobuf_descriptor=str(path), protobuf_message="demo.Flat")
    flat = message_class(str(path), "demo.Flat")
    payloads = [one.SerializeToString() for one in (
        flat(), flat(site="a", v=1.5, big=2**64 - 1, on=True, raw=b"\x00", kind=1, maybe=0), flat(kind=7),
        flat(v=float("nan")), flat(v=float("-inf"), maybe=-5))] + [b"\xff", b""]
    texts, slow = way(config).texts(payloads), transcoder(config)
    assert [text is not None for text in texts] == [True, True, True, False, False, False, True]
    assert [[("", text)] for text in texts if text is not None] == [
        list(slow(payload)) for payload, text in zip(payloads, texts, strict=True) if text is not None]
