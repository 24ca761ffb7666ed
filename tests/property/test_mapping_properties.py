"""The mapping under any input: nothing raises, every line reads back as what it was made from."""

import json
import math
import re
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st
from line_protocol_parser import LineFormatError, parse_line

from pipeline.config.schema import MappingConfig
from pipeline.points import escape
from pipeline.testbed.sandbox.influxdb import lines_v3
from pipeline.testbed.sandbox.influxdb.lines import LineError, parse_lines
from stages.influxdb.body import doubled, split_lines
from stages.mapping.encoder import BatchOrigin, Encoder
from tests.support import escapes
from tests.support.points import normal

keys = st.one_of(st.sampled_from(["a", "b", "site", "ts", "v", "a.b", "", "time", "_field", "#k", "a b", 'q"', "k\\"]),
                 st.text(max_size=8))
numbers = st.one_of(st.integers(), st.integers(-(2**70), 2**70),
                    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False))
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20))
values = st.recursive(scalars, lambda inner: st.one_of(st.lists(inner, max_size=3),
                                                       st.dictionaries(keys, inner, max_size=3)), max_leaves=8)
objects = st.dictionaries(keys, values, max_size=6)
mappings = st.builds(
    MappingConfig,
    measurement_from=st.sampled_from(["topic", "stream"]),
    tag_fields=st.sampled_from([(), ("site",), ("site", "a"), ("a.b",)]),
    tag_map_field=st.sampled_from(["", "v"]),
    metadata_tags=st.sampled_from([(), ("stream", "topic"), ("offset",)]),
    nested=st.sampled_from(["flatten", "json", "drop"]),
    flatten_separator=st.sampled_from(["_", ".", " "]),
    arrays=st.sampled_from(["json", "index", "join", "drop"]),
    explode=st.sampled_from(["", "b"]),
    types=st.dictionaries(st.sampled_from(["a", "b", "v"]),
                          st.sampled_from(["float", "integer", "unsigned", "string", "boolean", "json"])),
    integers=st.sampled_from(["float", "as_written"]),
    on_bad_value=st.sampled_from(["reject", "drop_field", "string"]),
    timestamp_from=st.sampled_from(["field", "iggy_timestamp", "arrival"]),
    timestamp_field=st.just("ts"),
    timestamp_format=st.sampled_from(["epoch_ns", "epoch_ms", "epoch_s", "rfc3339", "%Y-%m-%d"]),
    on_missing_timestamp=st.sampled_from(["reject", "iggy_timestamp", "arrival"]),
    merge_duplicates=st.booleans())
precisions = st.sampled_from(["ns", "us", "ms", "s"])


def an_origin(count: int) -> BatchOrigin:
    """Where so many messages were."""
    return BatchOrigin(first=100, timestamps=[1_700_000_000_000_000] * count, arrival=1_700_000_000_000_000)


def an_encoder(mapping: MappingConfig, precision: Any = "ns") -> Encoder:
    """An encoder for a topic with an awkward name."""
    return Encoder(mapping, precision, "str eam", "to,pic")


@given(mappings, precisions, st.lists(st.one_of(objects.map(lambda o: json.dumps(o).encode()), st.binary(max_size=30),
                                                values.map(lambda v: json.dumps(v, ensure_ascii=False).encode(
                                                    "utf-8", "surrogatepass"))), max_size=5))
def test_no_input_raises_and_every_message_is_a_line_or_a_reject(
        mapping: MappingConfig, precision: str, payloads: list[bytes]) -> None:
    encoded = an_encoder(mapping, precision).encode(payloads, an_origin(len(payloads)))
    sources = [s for g in encoded.groups for s in g.sources or [(index,) for index in range(g.points)]]
    seen = {index for line in sources for index in line} | {reject.at for reject in encoded.rejects}
    assert len(seen) + encoded.dropped == len(payloads)
    assert len(sources) == encoded.points
    encoded.body.decode()


@given(mappings, st.lists(objects, min_size=1, max_size=6))
@example(MappingConfig(), [{"": {"a": 1, "": {"b": 2}}, "a": 3}])
def test_what_is_compiled_writes_what_the_rules_write(mapping: MappingConfig, messages: list[dict[str, Any]]) -> None:
    payloads = [json.dumps(message).encode() for message in messages for _ in range(2)]
    by_rules = an_encoder(mapping)
    by_rules.is_compiled = False
    compiled = an_encoder(mapping)
    expected = by_rules.encode(payloads, an_origin(len(payloads)))
    compiled.encode(payloads, an_origin(len(payloads)))
    assert normal(compiled.encode(payloads, an_origin(len(payloads)))) == normal(expected)
    for payload in payloads:
        assert normal(compiled.encode([payload], an_origin(1))) == normal(by_rules.encode([payload], an_origin(1)))


oracle_text = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), min_size=1, max_size=12).filter(
    lambda text: not text.endswith("\\") and "\\ " not in text and text != "time")


@given(st.dictionaries(oracle_text, st.text(max_size=12), max_size=4),
       st.dictionaries(oracle_text, st.one_of(st.booleans(), numbers, st.text(max_size=12)), min_size=1, max_size=4),
       st.integers(-(2**62), 2**62))
@example({"a": "x y"}, {"f": 'q"u\\ote\n'}, 0)
def test_an_independent_parser_reads_back_what_was_sent(
        tags: dict[str, str], fields: dict[str, Any], time: int) -> None:
    mapping = MappingConfig(tag_map_field="tags", timestamp_from="field", timestamp_field="at",
                            timestamp_format="epoch_ns", flatten_separator=".", on_bad_value="drop_field")
    message = {"tags": tags, "at": time, "values": fields}
    encoded = an_encoder(mapping).encode([json.dumps(message).encode()], an_origin(1))
    if encoded.rejects:
        assert encoded.rejects[0].reason in ("unwritable", "no_fields"), encoded.rejects
        return
    line = encoded.body.decode().removesuffix("\n")
    try:
        read = parse_line(line)
    except LineFormatError as error:
        raise AssertionError(f"{line!r}: {error}") from None
    assert read["measurement"] == "to,pic"
    assert read["tags"] == {key: value for key, value in tags.items() if value}
    assert read["time"] == time
    expected = {f"values.{key}": float(value) if isinstance(value, int) and not isinstance(value, bool) else value
                for key, value in fields.items()
                if isinstance(value, bool | str) or math.isfinite(float(value))}
    assert read["fields"] == expected


@given(oracle_text)
def test_escapes_read_back_in_every_place(text: str) -> None:
    name = re.sub(r'\\([,= "])', r"\1", text.lstrip("#\t")) or "m"
    assume(not re.search(r'^[#\t]|\\([,= "])', name))
    head = f"{escape.measurement(name)},{escape.tag_key(text)}={escape.tag_value(text)}"
    read = parse_line(f"{head} {escape.field_key(name)}=1 1")
    assert read == {"measurement": name, "tags": {text: text}, "fields": {name: 1.0}, "time": 1}


@given(mappings, st.lists(objects, min_size=1, max_size=6))
def test_our_own_lines_pass_through_as_line_protocol_unchanged(
        mapping: MappingConfig, messages: list[dict[str, Any]]) -> None:
    encoded = an_encoder(mapping).encode([json.dumps(message).encode() for message in messages],
                                         an_origin(len(messages)))
    passed = an_encoder(MappingConfig(format="line_protocol", merge_duplicates=False)).encode(
        [encoded.body], an_origin(1))
    assert (passed.body, passed.points) == (encoded.body, encoded.points)
    assert not passed.rejects or not encoded.body


@given(st.lists(escapes.POINTS, min_size=1, max_size=10))
def test_influxdb_3_reads_its_lines_as_the_others_read_theirs(
        batch: list[tuple[str, dict[str, str], str, str]]) -> None:
    payloads = [json.dumps({**escapes.message(*point), "n": 1}).encode() for point in batch]
    encoded = an_encoder(escapes.MAPPING).encode(payloads, an_origin(len(payloads)))
    read = list(parse_lines(encoded.body))
    assert not any(isinstance(point, LineError) for _, point in read)
    lines = split_lines(doubled(encoded.body), len(read)) if read else []
    assert [lines_v3.parse_line(line.decode()) for line in lines] == [point for _, point in read]
