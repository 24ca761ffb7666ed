"""Whatever stands in a dead-letter store is read or refused; whatever is printed of it is harmless."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.commands.dlq import Filter
from pipeline.dead_letters.letters import DeadLetter, Tombstone, decode_record, encode_letter, is_sha256_of, json_size
from pipeline.printable import printable, printable_bytes, printable_json

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
                    max_leaves=6)
MEMBERS = {"time": "2026-01-31T10:00:00+00:00", "stream": "s", "topic": "t", "partition": 0, "offset": 1,
           "stage": "encode", "reason": "r", "detail": "d", "pipeline_version": "1", "payload": "p",
           "payload_base64": "", "headers": {}, "ids": [], "mark": "purged", "payload_omitted": True}
TIMES = st.datetimes().map(str) | st.text(max_size=30) | st.just("0001-01-01T00:00:00+14:00")


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_record_is_read_or_refused(content: bytes) -> None:
    try:
        assert isinstance(decode_record(content), DeadLetter | Tombstone)
    except ValueError as error:
        assert printable(str(error)).isprintable()


@given(st.dictionaries(st.sampled_from(sorted(MEMBERS)), JSON, max_size=4), st.sets(st.sampled_from(sorted(MEMBERS))),
       TIMES | st.none())
def test_a_letter_with_any_members_is_refused_or_can_be_filtered(replaced: dict[str, Any], without: set[str],
                                                                 time: str | None) -> None:
    members = {name: value for name, value in {**MEMBERS, **replaced}.items() if name not in without}
    if time is not None:
        members["time"] = time
    try:
        letter = decode_record(json.dumps(members).encode())
    except ValueError:
        return
    if isinstance(letter, DeadLetter):
        Filter(since="2026-01-31T10:00:00Z", until="2026-02-01T10:00:00-05:00", reason="r", topic="t")(letter)
        assert letter.payload_bytes() is None or isinstance(letter.payload_bytes(), bytes)


@given(st.binary(max_size=30_000) | st.text(max_size=8_000).map(str.encode), st.text(max_size=3_000),
       st.integers(10_000, 60_000))
@example(b"\x01" * 30_000, "", 10_000)
def test_a_letter_fits_its_store_and_keeps_its_payload_or_the_digest(payload: bytes, line: str, most: int) -> None:
    letter = DeadLetter(time="2026-01-31T10:00:00+00:00", stream="s", topic="t", partition=1, offset=2, stage="write",
                        reason="parse_error", detail=line[::-1], line=line, pipeline_version="1")
    content = encode_letter(letter, payload, most)
    assert len(content) <= most
    found = decode_record(content)
    assert isinstance(found, DeadLetter) and found.id == letter.id
    if found.payload_omitted:
        assert found.payload_bytes() is None and is_sha256_of(found, payload)
        assert min(json_size(payload), len(payload) // 3 * 4) > most - 9_000
    else:
        assert found.payload_bytes() == payload


@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Cs"])))
@example("\x1b[31mred\x1b[0m\r\nnew line\u202egnp.exe\u2066\ud800\U000e0001")
def test_what_is_printed_is_visible_and_one_line(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text, 10).isprintable() and len(printable(text[:10], 10)) >= min(len(text), 10)
    encoded = text.encode("utf-8", "surrogatepass")
    assert printable_bytes(encoded, 20).isprintable()
    shown = printable_json(json.dumps({"a": text}, indent=2, ensure_ascii=False))
    assert shown.replace("\n", "").isprintable()
    # Two halves of a pair, written as escapes, are the whole character.
    assert json.loads(shown)["a"] == text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
