"""The quick way for batches of one shape writes what the rules write, and steps aside for everything else."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config.schema import MappingConfig, Precision
from pipeline.wire import payload_frame
from stages.mapping.encoder import BatchOrigin, Encoded, Encoder
from tests.support.points import normal

TIME = 1_700_000_000_000
ORIGIN = BatchOrigin(first=7, arrival=TIME * 1_000)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "number": st.one_of(st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False)),
    "integer": st.integers(-1_000, 1_000),
    "boolean": st.booleans(),
    "text": st.one_of(st.sampled_from([
        "", "a", "a,b", "x y=z", "é", 'say "hi"', "C:\\x", "l\n2\t", "\r", '",":"', "😀/", '\\"', "\x7f", "\u2028"]),
        st.text(max_size=5)),
    "null": st.none(),
}
NAMES = ["site", "dev", "a", "b", "c d", "e.f", "i", "g=h"]
MAPPINGS = st.builds(
    MappingConfig,
    tag_fields=st.sampled_from([(), ("site",), ("site", "dev"), ("dev", "b")]),
    field_strategy=st.just("remaining"),
    field_renames=st.sampled_from([{}, {"a": "b2"}, {"a": "b"}]),
    types=st.sampled_from([{}, {"i": "integer"}, {"i": "unsigned"}, {"a": "float"}]),
    integers=st.sampled_from(["float", "as_written"]),
    timestamp_from=st.sampled_from(["field", "iggy_timestamp", "arrival"]),
    timestamp_field=st.just("ts"),
    timestamp_format=st.sampled_from(["epoch_ms", "epoch_us", "rfc3339"]),
    on_bad_value=st.sampled_from(["reject", "drop_field"]),
    merge_duplicates=st.booleans())


@st.composite
def batches(draw: st.DrawFn) -> list[bytes]:
    """Messages with the same keys in the same order and values of the same kinds, as a producer writes them."""
    names = draw(st.permutations(NAMES))[:draw(st.integers(1, len(NAMES)))]
    kinds = [draw(st.sampled_from(list(KINDS))) for _ in names]
    compact = draw(st.booleans())
    count = draw(st.integers(1, 6))
    messages: list[dict[str, Any]] = [
        {name: draw(KINDS[kind]) for name, kind in zip(names, kinds, strict=True)} | {"ts": TIME + draw(
            st.integers(0, 3))} for _ in range(count)]
    return [json.dumps(message, separators=(",", ":") if compact else None, ensure_ascii=draw(st.booleans())).encode()
            for message in messages]


def encoders(mapping: MappingConfig, precision: Precision = "ms") -> tuple[Encoder, Encoder]:
    """An encoder as it is, and one that knows only the rules."""
    quick, by_rules = (Encoder(mapping, precision, "stream", "topic") for _ in range(2))
    by_rules.is_compiled = False
    return quick, by_rules


@given(MAPPINGS, st.sampled_from(["ns", "ms", "s"]), batches(), batches())
def test_a_batch_of_one_shape_is_written_as_by_the_rules(
        mapping: MappingConfig, precision: Precision, batch: list[bytes], other: list[bytes]) -> None:
    quick, by_rules = encoders(mapping, precision)
    for payloads in (batch, batch, batch, other, other, batch + other, batch, batch):
        times = [TIME * 1_000 + 60 * n for n in range(len(payloads))]
        origin = msgspec.structs.replace(ORIGIN, timestamps=times)
        assert normal(quick.encode(payloads, origin)) == normal(by_rules.encode(payloads, origin))


GOOD = b'{"site":"s1","a":1.5,"b":2,"ok":true,"ts":1700000000000}'
TEXT = b'{"site":"s1","note":"x","ts":1700000000000}'
MAPPING = MappingConfig(tag_fields=("site",), timestamp_from="field", timestamp_field="ts")


@given(st.lists(st.sampled_from([GOOD, GOOD[:-1], GOOD + b",\n" + GOOD, b"5", b"", b"{}", b"\n" + GOOD, GOOD + b"\n",
                                 GOOD.replace(b"1.5", b"01"), GOOD.replace(b"1.5", b"1e3"), GOOD.replace(b"1.5", b"-"),
                                 GOOD.replace(b"s1", b"s\\u0031"), GOOD.replace(b"s1", b"s\xff"), b"," + GOOD,
                                 GOOD.replace(b"true", b"null"), GOOD.replace(b"s1", b"s\x01"),
                                 TEXT, TEXT.replace(b"x", rb"\\\""), TEXT.replace(b"x", rb"\ud800"),
                                 TEXT.replace(b"x", rb"\u0000\\"), TEXT.replace(b"x", rb"\u0041\n\/")]), max_size=6))
@example([GOOD + b",\n" + GOOD, b"5"])
@example([GOOD[:20], GOOD[20:]])
def test_what_only_looks_like_one_shape_is_written_as_by_the_rules(payloads: list[bytes]) -> None:
    quick, by_rules = encoders(MAPPING)
    for _ in range(2):
        quick.encode([GOOD, GOOD.replace(b"s1", b"s2")], ORIGIN)
    assert quick.uniform is not None
    assert normal(quick.encode(payloads, ORIGIN)) == normal(by_rules.encode(payloads, ORIGIN))


@pytest.mark.parametrize(("text", "written"), [
    (rb"C:\\logs\\", r"C:\\logs\\"),
    (rb"say \"hi\\\"", r"say \"hi\\\""),
    (rb"1\n2\t3\r\b\f", "1\n2\t3\r\b\f"),
    (rb"a\/b \u00e9\u0022\u005c", 'a/b é\\"\\\\'),
    (rb"\ud83d\ude00\u2028", "😀\u2028"),
    (b"x" * 65_536, "x" * 65_536),
])
def test_texts_with_escapes_are_cut_by_a_template(text: bytes, written: str) -> None:
    quick, by_rules = encoders(MAPPING)
    quick.encode([TEXT], ORIGIN)
    payloads = [TEXT.replace(b"x", text), TEXT.replace(b"s1", rb"s\u0032"),
                TEXT.replace(b"x", text * 2).replace(b"0}", b"1}")]
    encoded = quick.encode_array(payload_frame.joined(payloads), 3, ORIGIN)
    assert encoded is not None
    assert normal(encoded) == normal(by_rules.encode(payloads, ORIGIN))
    assert encoded.body.decode().startswith(f'topic,site=s1 note="{written}" 1700000000000\n')


@pytest.mark.parametrize("text", [rb"\u0000", rb"\ud800", rb"\ude00\ud83d", rb"\u001f"])
def test_escapes_that_a_template_does_not_take_are_written_by_the_rules(text: bytes) -> None:
    quick, by_rules = encoders(MAPPING)
    quick.encode([TEXT], ORIGIN)
    payloads = [TEXT, TEXT.replace(b"x", text).replace(b"0}", b"1}")]
    assert quick.encode_array(payload_frame.joined(payloads), 2, ORIGIN) is None
    assert normal(quick.encode(payloads, ORIGIN)) == normal(by_rules.encode(payloads, ORIGIN))


@pytest.mark.parametrize(("mapping", "line"), [
    (MAPPING, "topic,site=s1 a=1.5,b=2,ok=true 1700000000000"),
    (MappingConfig(tag_fields=("ok", "site"), timestamp_from="field", timestamp_field="ts"),
     "topic,ok=true,site=s1 a=1.5,b=2 1700000000000"),
    (msgspec.structs.replace(MAPPING, tag_fields=(), types={"b": "integer"}),
     'topic site="s1",a=1.5,b=2i,ok=true 1700000000000'),
    (msgspec.structs.replace(MAPPING, field_renames={"b": "b c"}),
     "topic,site=s1 a=1.5,b\\ c=2,ok=true 1700000000000"),
    (MappingConfig(tag_fields=("site", "a", "b", "ok"), timestamp_from="arrival"),
     "topic,a=1.5,b=2,ok=true,site=s1 ts=1700000000000 1700000000000"),
])
def test_the_quick_way_is_taken(mapping: MappingConfig, line: str) -> None:
    quick, _ = encoders(mapping)
    quick.encode([GOOD], ORIGIN)
    array = b"[" + GOOD + b"]"
    encoded = quick.encode_array(array, 1, ORIGIN)
    assert isinstance(encoded, Encoded)
    assert encoded.body.decode() == line + "\n"
