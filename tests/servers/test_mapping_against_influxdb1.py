"""What the mapping writes, a real InfluxDB 1.6.7 stores and reads back; what it could not hold, we reject."""

import itertools
import json
import math
import re
from typing import Any

import msgspec
import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from line_protocol_parser import parse_line

from pipeline.config.schema import MappingConfig
from pipeline.fields.types import FieldTypeRegistry
from pipeline.points.escape import unescaped
from stages.influxdb.body import split_lines
from stages.mapping.encoder import BatchOrigin, Encoded, Encoder
from stages.mapping.formats.line_protocol import PassedLine
from stages.mapping.formats.line_protocol import lines as lines_of_payload
from stages.mapping.limits import Limits
from stages.mapping.records.type_guard import TypeGuard, kind_of
from tests.support import escapes

#: Of the messages whose mapping asks for Iggy's time: microseconds since 1970. All in one shard of a week.
START = 1_700_000_000_000_000
LIMITS = Limits.of(MappingConfig())
names = itertools.count()
Point = tuple[str, tuple[tuple[str, str], ...], int]

keys = st.one_of(st.sampled_from(["a", "b", "m", "site", "v", "a.b", "", "time", "_field", "#k", "a b", 'q"', "k\\",
                                  "\\,", "x\\ y", "\tk", "k\t", "ключ", "\U0001f600", "a\nb", "nul\0"]),
                 st.text(max_size=8))
texts = st.one_of(st.text(max_size=20), st.sampled_from(["", " ", "\\", "\\\\", '"', "a\\,b", "\t", "\n", "\r\n", "#"]))
numbers = st.one_of(st.integers(-(2**70), 2**70), st.integers(-5, 5), st.integers(-(10**330), 10**330),
                    st.floats(allow_subnormal=False))
values = st.recursive(st.one_of(st.none(), st.booleans(), numbers, texts), lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)), max_leaves=8)
messages = st.dictionaries(keys, values, max_size=6)
mappings = st.builds(
    MappingConfig,
    measurement_from=st.sampled_from(["topic", "field", "template"]),
    measurement_field=st.just("m"),
    measurement_template=st.just("{topic} {a}"),
    tag_fields=st.sampled_from([(), ("site",), ("site", "a"), ("a.b", "b")]),
    tag_map_field=st.sampled_from(["", "v"]),
    constant_tags=st.sampled_from([{}, {"c,on st": "v=\\\\x \\,"}]),
    metadata_tags=st.sampled_from([(), ("stream", "topic", "partition")]),
    nested=st.sampled_from(["flatten", "json", "drop"]),
    flatten_separator=st.sampled_from(["_", ".", " "]),
    arrays=st.sampled_from(["json", "index", "join", "drop"]),
    explode=st.sampled_from(["", "b"]),
    types=st.dictionaries(st.sampled_from(["a", "b", "v"]),
                          st.sampled_from(["float", "integer", "string", "boolean", "json"])),
    integers=st.sampled_from(["float", "as_written"]),
    on_bad_value=st.sampled_from(["reject", "drop_field", "string"]))


def encoded_by(mapping: MappingConfig, batch: list[dict[str, Any]]) -> Encoded:
    """The batch as an encoder with a type guard writes it."""
    book = FieldTypeRegistry()
    guard = TypeGuard(lambda measurement, kinds: book.decide("", measurement, kinds)[0])
    encoder = Encoder(mapping, "ns", "str eam", "to,pic", lambda bucket: guard)
    payloads = [json.dumps(message).encode() for message in batch]
    return encoder.encode(payloads, BatchOrigin(timestamps=[START + index for index in range(len(batch))]))


def parsed(lines: list[bytes]) -> dict[Point, dict[str, Any]]:
    """The points as line-protocol-parser reads them."""
    points = {}
    for line in lines:
        read = parse_line(line.decode())
        points[read["measurement"], tuple(sorted(read["tags"].items())), read["time"]] = read["fields"]
    return points


def stored(url: str, body: bytes) -> dict[Point, dict[str, Any]]:
    """Writes a body to a new database, and gives back what it holds."""
    database = f"d{next(names)}"
    requests.post(f"{url}/query", data={"q": f"CREATE DATABASE {database}"}, timeout=60).raise_for_status()
    answer = requests.post(f"{url}/write", params={"db": database}, data=body, timeout=60)
    assert answer.status_code == 204, answer.text
    found = [name for series in query(url, database, "SHOW MEASUREMENTS") for (name,) in series["values"]]
    # Each by itself: of fields with one name a query over several measurements gives back those of one type.
    quoted = [name.replace("\\", "\\\\").replace('"', '\\"') for name in found]
    text = ";".join(f'SELECT * FROM "{name}" GROUP BY *' for name in quoted)
    points: dict[Point, dict[str, Any]] = {}
    for series in query(url, database, text) if text else []:
        tags = tuple(sorted((key, value) for key, value in series.get("tags", {}).items() if value))
        for time, *row in series["values"]:
            points[series["name"], tags, time] = {key: value for key, value in zip(
                series["columns"][1:], row, strict=True) if value is not None}
    requests.post(f"{url}/query", data={"q": f"DROP DATABASE {database}"}, timeout=60).raise_for_status()
    return points


def query(url: str, database: str, text: str) -> list[dict[str, Any]]:
    """The series of all results."""
    answer = requests.post(f"{url}/query", params={"db": database, "epoch": "ns"}, data={"q": text}, timeout=60)
    return [series for result in msgspec.json.decode(answer.content)["results"] for series in result.get("series", ())]


@settings(max_examples=80)
@given(mappings, st.lists(messages, min_size=1, max_size=30))
@example(MappingConfig(), [{"f": "a\nb"}, {"f": "\\"}, {"f": '"'}, {"f": 10**300}, {"f": math.nan}])
@example(MappingConfig(measurement_from="template", measurement_template="{topic} {a}"), [{"a": '\\\\"'}, {"a": '\\"'}])
@example(MappingConfig(integers="as_written"), [{"f": 20}, {"f": 20.5}, {"f": 2**63 - 1}])
def test_a_real_server_stores_every_line_and_reads_it_back(
        influxdb1: str, mapping: MappingConfig, batch: list[dict[str, Any]]) -> None:
    if mapping.measurement_from != "field":
        mapping = msgspec.structs.replace(mapping, measurement_field="")
    if mapping.measurement_from != "template":
        mapping = msgspec.structs.replace(mapping, measurement_template="")
    encoded = encoded_by(mapping, batch)
    if encoded.points:
        expected = parsed(split_lines(encoded.body, encoded.points))
        found = stored(influxdb1, encoded.body)
        # The server writes a whole float without its point, with as many digits as tell it from the next one.
        for point, fields in expected.items():
            for key, value in fields.items():
                if isinstance(value, float) and point in found and isinstance(found[point].get(key), int):
                    found[point][key] = float(found[point][key])
        assert found == expected
    assert {reject.reason for reject in encoded.rejects} <= {
        "unwritable", "bad_field", "bad_measurement", "bad_tag", "no_fields", "type_conflict", "not_object"}


TEXTS = ["_x", "_field", "_measurement", "_time", "#x", "\tx", "a\tb", "x\t", "a\\b", "a\\\\b", "a\\,b", "a\\ b",
         "a\\=b", 'a\\"b', '\\\\"', "a\\\\ b", "\\\\a",
         "x\\", "\\", '"', '"a"', '"a,b"', "'", " ", " x ", ",", "=", "a,b=c d", "\0", "a\0b", "a\nb", "a\rb", "\r\n",
         "\x0b", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "\uffff", "\U0001f600", "é", "%s", "time", "x" * 65_400,
         "é" * 32_700, "x" * 65_536, "\U0001f600" * 20_000, "a\\nb", "{}", "[]", "null", "true", "1"]
#: What no place but a string field takes.
NOT_IN_A_NAME = {"x\\", "\\", "\0", "a\0b", "a\nb", "a\rb", "\r\n", "x" * 65_536, "\U0001f600" * 20_000}
BACKSLASHES = {"a\\,b", "a\\ b", "a\\=b", 'a\\"b', '\\\\"', "a\\\\ b"}
PLACES = {
    "measurement": NOT_IN_A_NAME | BACKSLASHES | {"#x", "\tx"},
    "tag key": NOT_IN_A_NAME | {"a\\ b", "a\\\\ b", "time"},
    "tag value": NOT_IN_A_NAME | {"a\\ b", "a\\\\ b"},
    "field key": NOT_IN_A_NAME | BACKSLASHES | {"\tx", "time"},
    "string field": {"\0", "a\0b"},
}


@pytest.mark.parametrize("place", PLACES)
def test_every_text_in_every_place_is_read_back_or_rejected_as_unwritable(influxdb1: str, place: str) -> None:
    mapping = MappingConfig(measurement_from="field", measurement_field="measurement", tag_map_field="tags",
                            field_strategy="remaining", nested="flatten", flatten_separator="")
    batch: list[dict[str, Any]] = []
    for text in TEXTS:
        message: dict[str, Any] = {"measurement": "m", "tags": {}, "f": 1}
        match place:
            case "measurement":
                message["measurement"] = text
            case "tag key":
                message["tags"] = {text: "v"}
            case "tag value":
                message["tags"] = {"t": text}
            case "field key":
                message[text] = 2
            case _:
                message["s"] = text
        batch.append(message)
    encoded = encoded_by(mapping, batch)
    assert {TEXTS[reject.at] for reject in encoded.rejects} == PLACES[place]
    assert {reject.reason for reject in encoded.rejects} <= {"unwritable"}
    accepted = [message for index, message in enumerate(batch) if index not in {r.at for r in encoded.rejects}]
    points = stored(influxdb1, encoded.body)
    assert points == parsed(split_lines(encoded.body, encoded.points))
    found = sorted(points, key=lambda point: point[2])
    assert [(name, dict(tags)) for name, tags, _ in found] == [
        (message["measurement"], message["tags"]) for message in accepted]
    assert [points[point] for point in found] == [
        {key: value for key, value in message.items() if key not in ("measurement", "tags")} for message in accepted]


@settings(max_examples=40)
@given(st.lists(escapes.POINTS, min_size=10, max_size=50))
@example([("m", {"k\\ x": '"v'}, "f", "1"), ("m", {"a": "x\\ y\\=z"}, "f", '"'), ("m", {"b": 'w"'}, "f", "2")])
def test_lines_full_of_escapes_do_not_change_their_neighbours(
        influxdb1: str, batch: list[tuple[str, dict[str, str], str, str]]) -> None:
    encoded = encoded_by(escapes.MAPPING, [escapes.message(*point) for point in batch])
    rejected = {reject.at for reject in encoded.rejects}
    if encoded.points:
        assert stored(influxdb1, encoded.body) == {
            (name, tuple(sorted(tags.items())), (START + index) * 1_000 + 10 * index): {f"f{key}": text}
            for index, (name, tags, key, text) in enumerate(batch) if index not in rejected}


pieces = st.one_of(st.sampled_from([
    "m", "m,t=v", "m,b=2,a=1", " ", " f=1", " f=1i", ",g=2", 'f="x"', 'f="a b,c=d"', " f=t", "f=-1.5e3", ",", "=", '"',
    "\\", "\\ ", "\\,", "\\=", "#", "\t", "\n", "\r\n", "\0", "é", " 1", " -5", " 1700000000000000000", "i", "u", "1.",
    ".5", "+1", "NaN", "time=1", "_", "1e400", "9223372036854775808i"]), st.text(max_size=3))


@settings(max_examples=60)
@given(st.lists(st.lists(pieces, min_size=2, max_size=7).map("".join), min_size=20, max_size=60))
@example(["m f=1 1", "m,t=a\\ b f=2 2", "#m f=1", 'm f="a\nb" 3', "m f=+1 4", "m f=1. 5", "m f=.5 6", "m f=1u 7"])
def test_passed_line_protocol_is_read_by_a_real_server_as_by_a_parser(
        influxdb1: str, texts: list[str]) -> None:
    mapping = MappingConfig(format="line_protocol", merge_duplicates=False)
    book = FieldTypeRegistry()
    guard = TypeGuard(lambda measurement, kinds: book.decide("", measurement, kinds)[0])
    payloads = [text.encode("utf-8", "surrogatepass") for text in texts]
    encoded = Encoder(mapping, "ns", "s", "t", lambda bucket: guard).encode(
        payloads, BatchOrigin(timestamps=[START + index for index in range(len(texts))]))
    lines = split_lines(encoded.body, encoded.points) if encoded.points else []
    lines = [line for line in lines if not _has_unsigned(line)]  # which this server does not know
    if lines:
        points = stored(influxdb1, b"\n".join(lines))
        assert set(points) == set(parsed(lines))


@pytest.mark.parametrize("form", ["{} f=0", "m,{} f=0", "m,k={} f=0", "m {}=0"])
def test_short_texts_of_a_passed_line_are_to_a_real_server_as_to_us(influxdb1: str, form: str) -> None:
    texts = ("".join(chars) for length in range(1, 6) for chars in itertools.product('a\\, ="', repeat=length))
    read = [item for time, text in enumerate(texts)
            for _, item in lines_of_payload(f"{form.format(text)} {time}".encode(), "ns", "ns", LIMITS)]
    passed = [item for item in read if isinstance(item, PassedLine)]
    assert len(passed) > 250
    body = "\n".join(f"{head.text} {','.join(map(''.join, fields.items()))} {time}" for head, fields, time, _ in passed)
    assert stored(influxdb1, body.encode()) == {
        (re.sub(r"\\([, ])", r"\1", head.measurement),
         tuple(sorted((key, unescaped(re.split(r"(?<!\\)=", pair, maxsplit=1)[1])) for key, pair in head.tags.items())),
         time): {unescaped(lead[:-1]): 0 for lead in fields} for head, fields, time, _ in passed}


def _has_unsigned(line: bytes) -> bool:
    return any(kind == "unsigned" for kind in _kinds(line))


def _kinds(line: bytes) -> list[str]:
    found = [item for _, item in lines_of_payload(line, "ns", "ns", LIMITS) if isinstance(item, PassedLine)]
    return [kind_of(value) for item in found for value in item.fields.values()]
