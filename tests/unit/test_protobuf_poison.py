"""Protobuf payloads that are small and mean much: they are rejects, and what costs grows with the payload's size."""

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, struct_pb2

from pipeline.config.schema import MappingConfig
from stages.mapping.encoder import BatchOrigin, Encoded, Encoder


@pytest.fixture
def mapping(tmp_path: Path) -> MappingConfig:
    """Payloads are google.protobuf.Struct: objects as JSON has them, nested as deep as they are."""
    file = tmp_path / "struct.desc"
    described = descriptor_pb2.FileDescriptorProto.FromString(struct_pb2.DESCRIPTOR.serialized_pb)
    file.write_bytes(descriptor_pb2.FileDescriptorSet(file=[described]).SerializeToString())
    return MappingConfig(format="protobuf", protobuf_descriptor=str(file), protobuf_message="google.protobuf.Struct")


def encode(mapping: MappingConfig, *payloads: bytes) -> Encoded:
    """The payloads as one batch."""
    return Encoder(mapping, "ns", "s", "t").encode(payloads, BatchOrigin(timestamps=[1] * len(payloads)))


def varint(number: int) -> bytes:
    """A length."""
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def part(field: int, content: bytes) -> bytes:
    """A field with a length."""
    return bytes([field << 3 | 2]) + varint(len(content)) + content


def a_field(value: bytes) -> bytes:
    """A Struct with the key a."""
    return part(1, part(1, b"a") + part(2, value))


def test_a_value_is_written(mapping: MappingConfig) -> None:
    good = struct_pb2.Struct()
    good.update({"a": 1.5, "b": "x"})
    encoded = encode(mapping, good.SerializeToString())
    assert encoded.points == 1 and not encoded.rejects, encoded


@pytest.mark.parametrize(("name", "payload", "reason"), [
    ("deep", None, ("too_deep", "not_protobuf")),
    ("no message", b"\xff" * 1_000, ("not_protobuf",)),
    ("a length beyond the end", b"\x0a\xff\xff\xff\xff\x0f", ("not_protobuf",)),
    ("empty values", a_field(part(6, part(1, b"") * 2_000_000)), ("too_many_values",)),
    ("keys", b"".join(part(1, part(1, b"k%d" % number) + part(2, b"\x11" + b"\0" * 8)) for number in range(30_000)),
     ("too_many_keys",)),
])
def test_what_is_too_much_is_rejected(mapping: MappingConfig, name: str, payload: bytes | None,
                                      reason: tuple[str, ...]) -> None:
    if payload is None:
        value = b"\x11" + b"\0" * 8
        for _ in range(95):
            value = part(6, part(1, value))
        payload = a_field(value)
    good = struct_pb2.Struct()
    good.update({"v": 1})
    encoded = encode(mapping, good.SerializeToString(), payload, good.SerializeToString())
    assert [(reject.at, reject.reason in reason) for reject in encoded.rejects] == [(1, True)], encoded.rejects
