"""Messages that once stopped, stalled or swelled a pipeline, by the format that they are sent in."""

import io
import json
from typing import Any

import fastavro
import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.support.sinks import message


def _json() -> dict[str, bytes]:
    wide = {f"k{number}": number for number in range(30_000)}
    return {
        "True": b'{"device":True,"temperature":1,"ts":1}',
        "hello": b'{"device":hello,"temperature":1,"ts":1}',
        "None": b'{"device":None,"temperature":1,"ts":1}',
        "1e5x": b'{"device":1e5x,"temperature":1,"ts":1}',
        "deep objects": b'{"a":' * 1_000 + b"1" + b"}" * 1_000,
        "deep objects, open": b'{"a":' * 1_000,
        "deep arrays": b'{"a":' + b"[" * 950 + b"]" * 950 + b"}",
        "control characters": b"\x01" * 11_000_000,
        "NaN and quotes": b"NaN" + b'"\\' * 22_000,
        "NaN and quotes in an object": b'{"v":NaN,' + b'"\\' * 22_000,
        "30,000 keys": json.dumps({**wide, "ts": 1}).encode(),
        "a long key over members": json.dumps({"k" * 1_000_000: {f"m{n}": n for n in range(6_000)}, "ts": 1}).encode(),
        "a long string beside elements": json.dumps(
            {"s": "x" * 1_000_000, "e": [{"v": n} for n in range(5_000)], "ts": 1}).encode(),
        "braces and lines": b"{\n" * 3_000_000,
        "commas": b"[" + b"0," * 4_000_000 + b"0]",
        "no text": b"\xff" * 1_000,
    }


def _wide_table() -> bytes:
    names = ",".join(f"n{number}_" + "x" * 1_000 for number in range(500))
    return (names + "\n" + (",".join(["1"] * 500) + "\n") * 500).encode()


def avro(schema: Any, records: list[Any], codec: str = "null") -> bytes:
    """A container file."""
    file = io.BytesIO()
    fastavro.writer(file, fastavro.parse_schema(schema), records, codec=codec)
    return file.getvalue()


READING = {"type": "record", "name": "Reading", "fields": [
    {"name": "device", "type": "string"}, {"name": "value", "type": "double"}, {"name": "ok", "type": "boolean"},
    {"name": "ts", "type": "long"}, {"name": "note", "type": "string", "default": ""}]}
LIST = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}


def _nested_list(depth: int) -> bytes:
    short = avro(LIST, [{"next": None}])
    marker = short[-16:]
    header = short[:short.index(marker) + 16]
    data = b"\x02" * depth + b"\0"
    return header + b"\x02" + _zigzag(len(data)) + data + marker


def _zigzag(number: int) -> bytes:
    number <<= 1
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def protobuf_descriptor() -> bytes:
    """A FileDescriptorSet, as protoc writes it: `Reading` has a message that contains itself, a map, and an array."""
    field = descriptor_pb2.FieldDescriptorProto
    single, repeated = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    node = descriptor_pb2.DescriptorProto(name="Node", field=[
        field(name="next", number=1, label=single, type=field.TYPE_MESSAGE, type_name=".Node")])
    is_map = descriptor_pb2.MessageOptions(map_entry=True)
    entry = descriptor_pb2.DescriptorProto(name="MoreEntry", options=is_map, field=[
        field(name="key", number=1, label=single, type=field.TYPE_STRING),
        field(name="value", number=2, label=single, type=field.TYPE_DOUBLE)])
    reading = descriptor_pb2.DescriptorProto(name="Reading", nested_type=[entry], field=[
        field(name="device", number=1, label=single, type=field.TYPE_STRING),
        field(name="value", number=2, label=single, type=field.TYPE_DOUBLE),
        field(name="ok", number=3, label=single, type=field.TYPE_BOOL),
        field(name="ts", number=4, label=single, type=field.TYPE_INT64),
        field(name="node", number=5, label=single, type=field.TYPE_MESSAGE, type_name=".Node"),
        field(name="more", number=6, label=repeated, type=field.TYPE_MESSAGE, type_name=".Reading.MoreEntry"),
        field(name="list", number=7, label=repeated, type=field.TYPE_DOUBLE)])
    file = descriptor_pb2.FileDescriptorProto(name="reading.proto", syntax="proto3", message_type=[node, reading])
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def reading(**fields: Any) -> bytes:
    """A `Reading` in Protobuf."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(protobuf_descriptor()).file:
        pool.Add(file)
    made: bytes = message_factory.GetMessageClass(pool.FindMessageTypeByName("Reading"))(**fields).SerializeToString()
    return made


def _length(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def _nested_nodes(depth: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for level in range(depth):
        parts.append((b"\x2a" if level == depth - 1 else b"\x0a") + _length(size))
        size += len(parts[-1])
    return b"".join(reversed(parts))


def poisons(form: str) -> dict[str, bytes]:
    """What is sent among good messages of a format; each is to be one dead letter."""
    match form:
        case "json" | "ndjson":
            return _json()
        case "msgpack":
            return {
                "deep": b"\x81\xa1a" * 100_000 + b"\x01",
                "deep arrays": b"\x91" * 950 + b"\x01",
                "lengths": b"\xdd\x04\x00\x00\x00" * 10_000,
                "empty arrays": b"\xdd\x00\x90\x00\x00" + b"\x90" * 0x900000,
                "keys": msgspec.msgpack.encode({**{f"k{n}": n for n in range(30_000)}, "ts": 1}),
                "control characters": b"\x01" * 11_000_000,
            }
        case "line_protocol":
            return {
                "bad lines": b"bad line here,\n" * 100_000,
                "braces and lines": b"{\n" * 3_000_000,
                "a long number": b"m v=" + b"1" * 1_000_000 + b"x 1\n",
                "an open string": b'm v="' + b'\\"' * 500_000,
                "fields": b"m " + b",".join([b"f%d=1" % n for n in range(30_000)]) + b" 1\n",
                "control characters": b"\x01" * 11_000_000,
                "no text": b"\xff" * 1_000,
            }
        case "csv":
            return {
                "wide names": _wide_table(),
                "columns": ",".join(f"c{n}" for n in range(30_000)).encode() + b"\n" + b"1," * 29_999 + b"1\n",
                "an open quote": b'device,value,ok,ts\n"' + b"x\n" * 1_000_000,
                "lines": b"a\n" + b"1\n" * 2_000_000,
                "control characters": b"\x01" * 11_000_000,
                "no text": b"\xff" * 1_000,
            }
        case "text":
            return {"control characters": b"\x01" * 11_000_000, "no text": b"\xff" * 1_000, "a NUL": b"a\0b"}
        case "avro":
            return {
                "inflates": avro(READING, [{"device": "d", "value": 1.0, "ok": True, "ts": 1,
                                            "note": "a" * 200_000_000}], "deflate"),
                "deep": _nested_list(100_000),
                "control characters": b"\x01" * 11_000_000,
            }
        case "protobuf":
            return {
                "deep": _nested_nodes(95),
                "deeper": _nested_nodes(100_000),
                "groups": b"\x4b" * 1_000_000,
                "keys": reading(device="d", ts=1, more={f"k{n}": 1.0 for n in range(30_000)}),
                "values": reading(device="d", ts=1, list=[0.0] * 1_000_000),
                "a length beyond the end": b"\x0a\xff\xff\xff\xff\x0f",
                "control characters": b"\x01" * 11_000_000,
                "no text": b"\xff" * 1_000,
            }
    raise ValueError(form)


def good(form: str, number: int) -> bytes:
    """Message `number` in a format; its point is that of `message(number)`, where the format has more than a text."""
    fields = json.loads(message(number))
    device, ok, time = fields["device"], str(fields["ok"]).lower(), fields["ts"]
    match form:
        case "json" | "ndjson":
            return message(number)
        case "msgpack":
            return msgspec.msgpack.encode(fields)
        case "line_protocol":
            return f"readings,device={device} value={number},ok={ok} {time}".encode()
        case "csv":
            return f"device,value,ok,ts\n{device},{number},{ok},{time}\n".encode()
        case "text":
            return b"line %d" % number
        case "avro":
            return avro(READING, [{**fields, "value": float(number)}])
        case "protobuf":
            return reading(**fields)
    raise ValueError(form)
