"""What messages cost grows with their size, whatever they hold: twice as much takes at most 2.5 times the CPU time.

Each input is made for one of the loops and patterns that it goes through: were that one quadratic, its factor would be
4. Times are this process's own CPU time, the least of several, and grown inputs, so that a busy machine changes little.
"""

import gc
import json
import math
import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from pipeline.config.schema import MappingConfig, RuleConfig
from stages.mapping.encoder import BatchOrigin, Encoder

#: What twice the input may cost at most.
MOST_GROWTH: Final = 2.5
#: Rounds until it is believed to cost more: of so many samples each, of which the least counts.
SAMPLES: Final = (1, 3, 3, 3, 3, 3)
#: An input is grown until it takes so long, seconds, or is so large, bytes.
LONG_ENOUGH: Final = 0.006
LARGE_ENOUGH: Final = 400_000

Make = Callable[[int], bytes | list[bytes]]
GOOD: Final[dict[str, bytes]] = {"ndjson": b'{"a":1}', "csv": b"a,b\n1,2\n", "line_protocol": b"m v=1 1", "text": b"x",
                                 "msgpack": b"\x81\xa1a\x01"}


def times(encode: Callable[[], object]) -> float:
    """CPU seconds. Without the garbage collector, which looks at all that is alive when it wants to."""
    gc.disable()
    try:
        began = time.process_time()
        encode()
        return time.process_time() - began
    finally:
        gc.enable()


def cost(mapping: MappingConfig, made: bytes | list[bytes]) -> float:
    """CPU seconds of a batch with the payloads among good ones, by an encoder that has met good ones before."""
    payloads = made if isinstance(made, list) else [made]
    good = GOOD.get(mapping.format, b'{"site":"s","a":1,"ts":1}')
    encoder = Encoder(mapping, "ns", "stream", "topic")
    encoder.encode([good] * 3, origin(3))
    batch = [good, *payloads, good]
    return times(lambda: encoder.encode(batch, origin(len(batch))))


def origin(count: int) -> BatchOrigin:
    """Where so many messages were."""
    return BatchOrigin(timestamps=[1_700_000_000_000_000] * count)


def check_growth(measure: Callable[[int], tuple[float, int]]) -> None:
    """Asserts that twice the size is not much more than twice the cost; `measure` gives seconds and bytes of a size."""
    size = 64
    while True:
        took, length = measure(size)
        if took >= LONG_ENOUGH or length >= LARGE_ENOUGH:
            break
        size *= 2 if took > LONG_ENOUGH / 8 or length > LARGE_ENOUGH // 8 else 8
    grown: list[tuple[float, float]] = []
    for samples in SAMPLES:
        once, twice = (min(measure(size * factor)[0] for _ in range(samples)) for factor in (1, 2))
        grown.append((once, twice))
        if twice <= MOST_GROWTH * max(once, LONG_ENOUGH / 2):
            return
    raise AssertionError(f"size {size}: {grown}")


def varint(number: int) -> bytes:
    """Avro's long."""
    number = (number << 1) ^ (number >> 63)
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def container(kind: str, count: int, data: bytes) -> bytes:
    """An Avro container file with a block of so many records of one field."""
    schema = b'{"type":"record","name":"Reading","fields":[{"name":"a","type":%b}]}' % kind.encode()
    return (b"Obj\x01\x02\x16avro.schema" + varint(len(schema)) + schema + b"\0" + b"m" * 16
            + varint(count) + varint(len(data)) + data + b"m" * 16)


JSON: Final[dict[str, Make]] = {
    "many keys": lambda n: json.dumps({f"key{i}": i for i in range(n)}).encode(),
    "the same key": lambda n: b"{" + b",".join([b'"a":1'] * n) + b"}",
    "many strings": lambda n: json.dumps({f"key{i}": "text" for i in range(n)}).encode(),
    "many objects": lambda n: json.dumps({f"key{i}": {"v": i} for i in range(n)}).encode(),
    "many arrays": lambda n: json.dumps({f"key{i}": [i] for i in range(n)}).encode(),
    "one long key": lambda n: json.dumps({"k" * n: 1}).encode(),
    "a long key over members": lambda n: json.dumps({"k" * 1_000: {f"m{i}": i for i in range(n)}}).encode(),
    "keys with escapes": lambda n: b'{"' + b'\\"' * n + b'":1}',
    "deep objects": lambda n: b'{"a":' * n + b"1" + b"}" * n,
    "deep objects, open": lambda n: b'{"a":' * n,
    "deep arrays": lambda n: b'{"a":' + b"[" * n + b"]" * n + b"}",
    "arrays in arrays": lambda n: b'{"a":[' + b",".join([b"[[1],[2]]"] * n) + b"]}",
    "a long string": lambda n: b'{"site":"s","a":"' + b"x" * n + b'","ts":1}',
    "a long string under depth": lambda n: b'{"a":' * 60 + b'"' + b"x" * n + b'"' + b"}" * 60,
    "a long string with escapes": lambda n: b'{"a":"' + b'\\"\\\\\\n' * n + b'"}',
    "a long string that is open": lambda n: b'{"a":"' + b'\\"' * n,
    "a long string that is not ASCII": lambda n: b'{"a":"' + "é".encode() * n + b'"}',
    "a long tag": lambda n: b'{"site":"' + b"x," * n + b'","a":1}',
    "a long tag with escapes": lambda n: b'{"site":"' + b"\\\\," * n + b'","a":1}',
    "a long number": lambda n: b'{"a":' + b"1" * n + b"}",
    "a long fraction": lambda n: b'{"a":1.' + b"1" * n + b"}",
    "a long number that is none": lambda n: b'{"a":' + b"1" * n + b"x}",
    "a long number as a text": lambda n: b'{"a":"' + b"1" * n + b'x"}',
    "a long number as a tag": lambda n: b'{"site":1' + b"0" * n + b'e5,"a":1}',
    "a long exponent": lambda n: b'{"a":1e' + b"1" * n + b"}",
    "a long time": lambda n: b'{"a":1,"ts":' + b"1" * n + b"}",
    "a long array of numbers": lambda n: b'{"a":[' + b",".join([b"1"] * n) + b"]}",
    "a long array of strings": lambda n: b'{"a":[' + b",".join([b'"x"'] * n) + b"]}",
    "a long array of objects": lambda n: b'{"a":[' + b",".join([b'{"v":1}'] * n) + b"]}",
    "a long array beside a string": lambda n: json.dumps(
        {"s": "x" * 1_000, "a": [{"v": i} for i in range(n)]}).encode(),
    "a long array beside many keys": lambda n: json.dumps(
        {**{f"k{i}": i for i in range(30)}, "a": list(range(n))}).encode(),
    "elements with other keys": lambda n: json.dumps({"a": [{f"k{i}": i} for i in range(n)]}).encode(),
    "an array of objects": lambda n: b"[" + b",".join([b'{"a":1,"site":"x"}'] * n) + b"]",
    "an array of numbers": lambda n: b"[" + b",".join([b"1"] * n) + b"]",
    "an array that is open": lambda n: b"[" * n,
    "an array of empty arrays": lambda n: b"[" + b",".join([b"[]"] * n) + b"]",
    "white space": lambda n: b"{" + b" \t\r\n" * n + b'"a":1}',
    "white space in an array": lambda n: b'{"a":[' + b" \t\r\n" * n + b"]}",
    "NaN and open quotes": lambda n: b'{"a":NaN,' + b'"\\' * n,
    "NaN and closed quotes": lambda n: b'{"a":NaN,' + b'"",' * n,
    "many NaN": lambda n: b'{"a":[' + b",".join([b"NaN"] * n) + b"]}",
    "minus signs before NaN": lambda n: b'{"a":' + b"-" * n + b"NaN}",
    "letters before NaN": lambda n: b'{"a":' + b"nanInfinity" * n + b"}",
    "spaces after NaN": lambda n: b'{"a":[' + b"NaN    " * n + b"]}",
    "backslashes": lambda n: b"\\" * n,
    "quotes": lambda n: b'"' * n,
    "zeros": lambda n: b"\0" * n,
    "braces": lambda n: b"{\n" * n,
    "no text": lambda n: b"\xff" * n,
    "pieces of a shape": lambda n: b'{"site":"s","a":' * n,
    "pieces of a shape in a string": lambda n: b'{"site":"' + b'{\\"site\\":\\"s\\",\\"a\\":1,' * n + b'","a":1}',
    "messages of one shape": lambda n: [b'{"site":"s%d","a":%d,"ts":%d}' % (i % 9, i, i) for i in range(n)],
    "messages of many shapes": lambda n: [b'{"site":"s","a%d":1,"b%d":2}' % (i % 50, i % 7) for i in range(n)],
    "messages that are one point": lambda n: [b'{"a":%d,"ts":1}' % i for i in range(n)],
    "messages that are one point of many fields": lambda n: [b'{"f%d":1,"ts":1}' % i for i in range(n)],
    "messages that are bad": lambda n: [b"{"] * n,
    "messages that are arrays": lambda n: [b'[{"a":1},{"a":2}]'] * n,
    "messages with a line break": lambda n: [b'{"site":"s",\n"a":1}'] * n,
    "messages that are not UTF-8": lambda n: [b'{"site":"\xff","a":1}'] * n,
}
TABLES: Final[dict[str, Make]] = {
    "long": lambda n: b"a,b,site\n" + b"1,2,s\n" * n,
    "wide": lambda n: b",".join([b"n%d" % i for i in range(n)]) + b"\n" + b",".join([b"1"] * n) + b"\n",
    "long and wide": lambda n: b",".join([b"name%d" % i for i in range(math.isqrt(n))]) + b"\n" + (
        b",".join([b"1"] * math.isqrt(n)) + b"\n") * math.isqrt(n),
    "wide names": lambda n: b",".join([b"x" * 1_000 + b"%d" % i for i in range(8)]) + b"\n" + b"1,2,3,4,5,6,7,8\n" * n,
    "ragged": lambda n: b"a,b\n" + b"1\n" * n,
    "empty lines": lambda n: b"a,b\n" + b"\n" * n,
    "quotes": lambda n: b"a,b\n" + b'"x""y",1\n' * n,
    # Longer than a cell may be (131,072 characters), each of its lines is one for itself.
    "a quote that is open": lambda n: b'a,b\n"' + (b"x" * 200 + b"\n") * n,
    "long numbers": lambda n: b"a,b\n" + (b"1" * 1_000 + b"x,2\n") * n,
    "returns": lambda n: b"a,b\n" + b"1,2\r" * n,
}
LINES: Final[dict[str, Make]] = {
    "many": lambda n: b"".join([b"m,t=a v=%d %d\n" % (i, i) for i in range(n)]),
    "many of many heads": lambda n: b"".join([b"m,t=a%d v=1 %d\n" % (i, i) for i in range(n)]),
    "many of many fields": lambda n: b"".join([b"m,t=a v%d=1 %d\n" % (i, i) for i in range(n)]),
    "many of many measurements and fields": lambda n: b"".join([b"m%d v%d=1 %d\n" % (i, i, i) for i in range(n)]),
    "bad": lambda n: b"bad line here,\n" * n,
    "bad without a space": lambda n: b"{\n" * n,
    "bad with open quotes": lambda n: b'm v="\n' * n,
    "bad with open quotes and commas": lambda n: b'm a=1,b="\n,c="x' * n,
    "bad strings that go on": lambda n: b'm a="' + b'\nm a=",b="!' * n,
    "bad times": lambda n: b"m v=1 x\n" * n,
    "comments": lambda n: b"# nothing\n" * n,
    "empty": lambda n: b"\n" * n,
    "one with many fields": lambda n: b"m " + b",".join([b"f%d=1" % i for i in range(n)]) + b" 1\n",
    "one with many fields, bad at its end": lambda n: b"m " + b",".join([b"f%d=1" % i for i in range(n)]) + b" x\n",
    "one with many tags": lambda n: b"m," + b",".join([b"t%d=1" % i for i in range(n)]) + b" v=1 1\n",
    "one with many tags and no field": lambda n: b"m," + b",".join([b"t%d=1" % i for i in range(n)]) + b"\n",
    "a long string": lambda n: b'm v="' + b"x" * n + b'" 1\n',
    "a long string with escapes": lambda n: b'm v="' + b'\\"\\\\' * n + b'" 1\n',
    "a long string that is open": lambda n: b'm v="' + b'\\"' * n,
    "strings with line breaks": lambda n: b'm v="a\nb" 1\n' * n,
    "a long measurement": lambda n: b"m" * n + b" v=1 1\n",
    "a long measurement of escapes": lambda n: b"m" + b"\\," * n + b" v=1 1\n",
    "backslashes": lambda n: b"m," + b"\\" * n + b"=1 v=1 1\n",
    "spaces": lambda n: b"m" + b" " * n + b"v=1" + b" " * n + b"1\n",
    "spaces and nothing": lambda n: b" " * n,
    "a long number": lambda n: b"m v=" + b"1" * n + b" 1\n",
    "a long number that is none": lambda n: b"m v=" + b"1" * n + b"x 1\n",
    "a long fraction that is none": lambda n: b"m v=1." + b"1" * n + b"x 1\n",
    "a long integer": lambda n: b"m v=" + b"1" * n + b"i 1\n",
    "a long time": lambda n: b"m v=1 " + b"1" * n + b"\n",
    "equals signs": lambda n: b"m " + b"=" * n + b" 1\n",
    "commas": lambda n: b"m" + b"," * n + b" v=1 1\n",
    "one point of many fields": lambda n: b"".join([b"m v%d=1 1\n" % i for i in range(n)]),
}
PACKED: Final[dict[str, Make]] = {
    "an array of integers": lambda n: b"\xdd" + n.to_bytes(4) + b"\x01" * n,
    "an array of maps": lambda n: b"\xdd" + n.to_bytes(4) + b"\x81\xa1a\x01" * n,
    "a map": lambda n: b"\xdf" + n.to_bytes(4) + b"".join([b"\xa5%05d\x01" % i for i in range(n)]),
    "a map of arrays": lambda n: b"\xdf" + n.to_bytes(4) + b"".join([b"\xa5%05d\x91\x01" % i for i in range(n)]),
    "deep": lambda n: b"\x81\xa1a" * n + b"\x01",
    "deep and open": lambda n: b"\x91" * n,
    "lengths of what is not there": lambda n: b"\xdd\x04\x00\x00\x00" * n,
    "a long binary": lambda n: b"\x81\xa1a\xc6" + n.to_bytes(4) + b"x" * n,
    "a long string": lambda n: b"\x81\xa1a\xdb" + n.to_bytes(4) + b'"' * n,
}
RECORDS: Final[dict[str, Make]] = {
    "many": lambda n: container('"long"', n, b"\x02" * n),
    "an array of numbers": lambda n: container('{"type":"array","items":"long"}', 1, varint(n) + b"\x02" * n + b"\0"),
    "an array of arrays": lambda n: container('{"type":"array","items":{"type":"array","items":"long"}}', 1,
                                              varint(n) + b"\x02\x02\0" * n + b"\0"),
    "an array in blocks": lambda n: container('{"type":"array","items":"long"}', 1, b"\x02\x02" * n + b"\0"),
    "a map": lambda n: container('{"type":"map","values":"long"}', 1, varint(n) + b"".join(
        [b"\x0a%05d\x02" % (i % 100_000) for i in range(n)]) + b"\0"),
    "a long string": lambda n: container('"string"', 1, varint(n) + b"x" * n),
    "deep": lambda n: container('["null","Reading"]', 1, b"\x02" * n),
    "a decimal": lambda n: container('{"type":"bytes","logicalType":"decimal","precision":9}', 1, varint(n) + b"x" * n),
    "metadata": lambda n: b"Obj\x01" + b"\x02\x02a\x02b" * n,
    "cut off": lambda n: container('"long"', n, b"\x02" * n)[:-1],
}
TEXTS: Final[dict[str, Make]] = {
    "long": lambda n: b"x" * n,
    "quotes": lambda n: b'"\\' * n,
    "control characters": lambda n: b"\x01" * n,
    "line breaks": lambda n: b"\n" * n,
    "no text": lambda n: b"\xff" * n,
}
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "by default": {},
    "with a time": {"tag_fields": ("site",), "timestamp_from": "field", "timestamp_field": "ts"},
    "opened": {"tag_fields": ("site",), "arrays": "index"},
    "joined": {"tag_fields": ("site",), "arrays": "join", "nested": "json", "integers": "as_written",
               "on_bad_value": "drop_field"},
    "exploded": {"tag_fields": ("site",), "explode": "a", "nested": "drop", "arrays": "drop"},
    "typed": {"tag_map_field": "a", "types": {"a": "integer", "site": "json", "ts": "boolean"},
              "on_bad_value": "string"},
    "rules": {"explode": "a", "rules": (RuleConfig(when="exists(s.x) or a == 'b'", then="drop"),)},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", JSON)
def test_json_costs_by_its_size(name: str, options: str) -> None:
    check(MappingConfig(**OPTIONS[options]), JSON[name])


@pytest.mark.parametrize("name", JSON)
def test_ndjson_costs_by_its_size(name: str) -> None:
    check(MappingConfig(format="ndjson"), JSON[name])
    check(MappingConfig(format="ndjson"), lambda n: as_lines(JSON[name](n)))


def as_lines(made: bytes | list[bytes]) -> bytes:
    """Messages as lines of one."""
    return b"\n".join(made if isinstance(made, list) else [made])


def check(mapping: MappingConfig, make: Make) -> None:
    """Asserts how the cost of what is made grows."""
    def measure(size: int) -> tuple[float, int]:
        made = make(size)
        return cost(mapping, made), sum(map(len, made)) if isinstance(made, list) else len(made)

    check_growth(measure)


@pytest.mark.parametrize("name", TABLES)
def test_csv_costs_by_its_size(name: str) -> None:
    check(MappingConfig(format="csv", tag_fields=("site",)), TABLES[name])


@pytest.mark.parametrize("name", LINES)
def test_line_protocol_costs_by_its_size(name: str) -> None:
    check(MappingConfig(format="line_protocol"), LINES[name])


@pytest.mark.parametrize("name", PACKED)
def test_msgpack_costs_by_its_size(name: str) -> None:
    check(MappingConfig(format="msgpack"), PACKED[name])


@pytest.mark.parametrize("name", RECORDS)
def test_avro_costs_by_its_size(name: str) -> None:
    check(MappingConfig(format="avro"), RECORDS[name])


@pytest.mark.parametrize("name", TEXTS)
def test_text_costs_by_its_size(name: str) -> None:
    check(MappingConfig(format="text"), TEXTS[name])
