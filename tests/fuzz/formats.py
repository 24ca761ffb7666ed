"""The quick ways of the formats against their transcoders: payloads that are usual, odd, and broken."""

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from pipeline.config.schema import MappingConfig
from pipeline.wire.sink import Notice
from stages.mapping.encoder import BatchOrigin, Encoder
from stages.mapping.formats import quick, transcoder
from stages.mapping.reject import Reject
from tests.fuzz.documents import mapping
from tests.support.points import normal

_ODD: Final[tuple[Any, ...]] = (
    float("nan"), float("inf"), -float("inf"), None, 2**64 - 1, -(2**63), 1e300, b"\x00\xff", "", "é", "a\nb", 0.1, [],
    {}, [1, {"x": None}], {"deep": {"er": {"still": {"x": {"y": 1}}}}}, "null", 'say "hi"', "a\\b", "\0", True,
    msgspec.msgpack.Ext(5, b"x"))
_CELLS: Final = (
    "1", "1.5", "-0", "01", "1e5", "true", "false", "NaN", "-Infinity", "", " x ", "a b", '"q"', '"q,r"', '"a""b"',
    'a"b', "é", "\u2028", "null", "+1", "1.", ".5", "\x0b", "\\n", "%s", "{}")
#: Floats of 32 bits.
_SINGLE: Final = (b"\xca\x3f\x80\x00\x00", b"\xca\x7f\xc0\x00\x00")
_AVRO: Final[dict[str, Any]] = {"type": "record", "name": "R", "fields": [
    {"name": "site", "type": "string"}, {"name": "a", "type": "double"}, {"name": "b", "type": ["null", "long"]},
    {"name": "list", "type": {"type": "array", "items": "float"}}, {"name": "raw", "type": "bytes"},
    {"name": "inner", "type": {"type": "record", "name": "I", "fields": [{"name": "x", "type": "int"}]}},
    {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}}]}


def try_formats(seed: int) -> list[str]:
    """What is wrong with the payloads that a seed makes of one format; empty where nothing is."""
    random = Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        config, make = _format(random, replace(mapping(random), max_payload_bytes=2_000), Path(folder))
        payloads = [_mutated(random, make()) for _ in range(random.choice((1, 3, 20)))]
        return [*_texts(config, payloads), *_batches(config, payloads)]


def _texts(config: MappingConfig, payloads: list[bytes]) -> list[str]:
    """Texts that the transcoder does not make."""
    way, slow = quick(config), transcoder(config)
    wrong: list[str] = []
    if way is None:
        return []
    for payload, text in zip(payloads, way.texts(payloads), strict=True):
        try:
            expected: Any = list(slow(payload))
        except Reject as reject:
            expected = reject.args
        if text is not None and expected != [(way.name, text)]:
            wrong.append(f"{payload!r}: {text!r} instead of {expected} by {config}")
    return wrong


def _batches(config: MappingConfig, payloads: list[bytes]) -> list[str]:
    """Batches that come out otherwise where there is no quick way."""
    outcomes: list[tuple[Any, list[Notice]]] = []
    for is_quick in (True, False):
        encoder = Encoder(config, "ns", "stream", "topic")
        if not is_quick:
            encoder.leave_out_quick_formats()
        if encoder.by_column is not None:
            encoder.by_column.least_payloads = 1
        for _ in range(2):
            found = encoder.encode(payloads, BatchOrigin(2, 7, None, [1_700_000_000_000_000] * len(payloads), 5, None))
        groups = [lines._replace(sources=lines.sources or [(line,) for line in range(lines.points)])
                  for lines in found.groups]
        outcomes.append((normal(replace(found, groups=groups)), encoder.rules.notices.take()))
    return [] if outcomes[0] == outcomes[1] else [f"{payloads}: {outcomes[0]} instead of {outcomes[1]} by {config}"]


def _format(random: Random, config: MappingConfig, folder: Path) -> tuple[MappingConfig, Callable[[], bytes]]:
    """The mapping with a format, and what makes its payloads."""
    config = replace(config, header_tags={}, timestamp_format="epoch_ms")
    kind = random.choice(("msgpack", "msgpack", "csv", "csv", "text", "avro", "avro"))
    if kind == "msgpack":
        return replace(config, format="msgpack"), lambda: _msgpack(random)
    if kind == "text":
        return replace(config, format="text", text_field="site"), lambda: _cell(random).encode("utf-8", "surrogatepass")
    if kind == "csv":
        header = tuple(random.sample(("site", "a", "v", "ts", "name", "é%s"), random.randrange(1, 6)))
        return replace(config, format="csv", csv_header=header, csv_delimiter=random.choice((",", ";", "\t")),
                       csv_trim=random.random() < 0.5), lambda: _csv(random, len(header))
    import fastavro

    definition = _AVRO if random.random() < 0.3 else _flat_schema(random)
    schema: Any = fastavro.parse_schema(json.loads(json.dumps(definition)))
    path = folder / "schema.avsc"
    path.write_text(json.dumps(definition))
    make = _avro if definition is _AVRO else _flat_avro
    way = random.choice(("none", "none", "file", "folder"))
    if way == "none":
        return replace(config, format="avro", avro_schema=str(path)), lambda: make(random, schema)
    config = replace(config, format="avro", schema_header="confluent")
    if way == "file":
        config = replace(config, avro_schema=str(path))
    else:
        for number in (7, 8):
            path.with_name(f"{number}.avsc").write_text(path.read_text())
        config = replace(config, schema_folder=str(folder))
    return config, lambda: b"\0\0\0\0" + bytes([random.choice((7, 7, 7, 8, 9))]) + make(random, schema)


def _msgpack(random: Random) -> bytes:
    message: dict[Any, Any] = {"site": "s1", "a": random.uniform(0, 9), "ts": 1_700_000_000_000,
                               "v": random.randrange(300)}
    for _ in range(random.choice((0, 0, 0, 1, 2))):
        message[random.choice(("a", "b", "list", 1, 1.5, None, "x"))] = random.choice(_ODD)
    found = msgspec.msgpack.encode(message)
    if random.random() < 0.1:  # a key twice, in what has room for fifteen
        return bytes([found[0] + 1]) + found[1:] + b"\xa1a" + random.choice((b"\x01", *_SINGLE))
    if random.random() < 0.1:  # a 32-bit float
        return bytes([found[0] + 1]) + found[1:] + b"\xa1w" + random.choice(_SINGLE)
    return found if random.random() < 0.95 else msgspec.msgpack.encode([message, message])


def _cell(random: Random) -> str:
    return random.choice(_CELLS) if random.random() < 0.2 else str(round(random.uniform(-9, 99), random.randrange(3)))


def _csv(random: Random, count: int) -> bytes:
    if random.random() < 0.1:
        count += random.choice((-1, 1))
    return (random.choice((",", ",", ";", "\t")).join([_cell(random) for _ in range(count)])
            + random.choice(("", "", "\n", "\r\n", "\nx,y\n"))).encode()


def _avro(random: Random, schema: Any) -> bytes:
    import decimal

    import fastavro

    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, {
        "site": "s1", "a": random.choice((1.5, float("nan"))) if random.random() < 0.2 else 2.25,
        "b": random.choice((None, 5)), "list": [float("inf")] if random.random() < 0.1 else [1.0], "raw": b"\x00x",
        "inner": {"x": 3}, "d": decimal.Decimal("1.25")})
    return out.getvalue()


def _flat_schema(random: Random) -> dict[str, Any]:
    """A record of single values, some of which may be null, and perhaps with a record in it."""
    def fields(names: tuple[str, ...], depth: int) -> list[dict[str, Any]]:
        found = []
        for name in random.sample(names, random.randrange(1, len(names) + 1)):
            kind: Any = random.choice(("boolean", "int", "long", "float", "double", "double", "string", "string",
                                       "null"))
            if name == "e":
                kind = {"type": "enum", "name": f"E{depth}", "symbols": ["IDLE", "BUSY"]}
            if name == "data" and depth < 2:
                kind = {"type": "record", "name": f"R{depth}", "fields": fields(("a", "b", "x", "data"), depth + 1)}
            elif kind != "null" and random.random() < 0.3:
                kind = random.choice((["null", kind], [kind, "null"]))
            found.append({"name": name, "type": kind})
        return found

    return {"type": "record", "name": "Flat", "namespace": "n", "fields": [
        *fields(("site", "a", "b", "v", "e", "name", "x", "data"), 0), {"name": "ts", "type": "long"}]}


def _flat_avro(random: Random, schema: Any) -> bytes:
    import fastavro

    def value(kind: Any) -> Any:
        if isinstance(kind, list):
            kind = random.choice(kind)
        if isinstance(kind, dict):
            return random.choice(kind["symbols"]) if kind["type"] == "enum" else {
                field["name"]: value(field["type"]) for field in kind["fields"]}
        if kind in ("float", "double"):
            return random.choice((0.0, -0.0, 1e300 if kind == "double" else 1e30, float("nan"), -float("inf"))
                                 if random.random() < 0.1 else (21.5, random.uniform(-9, 99), 3.0))
        if kind in ("int", "long"):
            is_small = kind == "int" or random.random() < 0.7
            return random.choice((0, -1, 63, 64, -65, 8191, 2**31 - 1, -(2**31)) if is_small
                                 else (2**62, 2**63 - 1, -(2**63), -(2**55), 2**55 - 1))
        if kind == "string":
            return random.choice(("", "s1", "t2", "é", "a\nb", 'say "hi"', "C:\\", "x" * 70, "😀", "\0"))
        return random.random() < 0.5 if kind == "boolean" else None

    record = value(schema)
    record["ts"] = 1_700_000_000_000 + random.randrange(5)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def _mutated(random: Random, payload: bytes) -> bytes:
    if random.random() < 0.85 or not payload:
        return payload
    at = random.randrange(len(payload))
    other = random.choice((b"", b"\xff", b"\x00", b'"', b"\n", b"\xc1", b"\xca", payload[:3]))
    return payload[:at] + other + payload[at + 1:]
