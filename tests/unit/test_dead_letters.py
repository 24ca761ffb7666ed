"""Dead letters as records: any record is read or refused, any letter fits its store, and any id is found again."""

import hashlib
import itertools
import json
from typing import Any

import msgspec
import pytest

from pipeline.dead_letters.letters import (
    DeadLetter,
    Tombstone,
    decode_record,
    encode_letter,
    is_sha256_of,
    json_size,
    matching_ids,
    short_id,
    tombstones,
)

LETTER = DeadLetter(time="2026-01-31T10:00:00+00:00", stream="telemetry", topic="sensors", partition=0, offset=17,
                    stage="encode", reason="not_json", detail="no JSON", pipeline_version="0.1.0")
MOST = 64_000_000


def record(**changes: Any) -> bytes:
    """A letter's record with some of its members replaced; None removes one."""
    members = {**json.loads(encode_letter(LETTER, b"payload", MOST)), **changes}
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


@pytest.mark.parametrize("content", [
    b"", b"\xff\xfe\x00", b"null", b"[]", b"17", b'"text"', b"{}", b"not json", b'{"time":"2026-01-31T10:00:00Z"',
    b"[" * 200_000, b'{"a":' * 200_000, record() + record(), record()[:-20],
    record(time=17), record(time="yesterday"), record(time="2026-01-31T10:00:00"), record(time="2" * 100),
    record(partition=-1), record(partition=10**30), record(offset="17"), record(offset=-1), record(stream=None),
    record(stream="s" * 300), record(headers=[1]), record(payload=17), record(payload=None, payload_base64="=rubbish="),
    record(payload=None, payload_base64=17), record(detail=None), record(line=["a"]),
    b'{"mark":"replayed"}', b'{"mark":1,"time":"t","ids":[]}', b'{"mark":"replayed","time":"t","ids":[1]}',
], ids=itertools.count())
def test_a_record_that_is_no_letter_is_refused_with_a_reason(content: bytes) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        decode_record(content)
    assert type(caught.value) is ValueError


def test_members_of_a_record_may_come_in_any_order() -> None:
    members = json.loads(record(of_a_later_version={"a": 1}))
    assert decode_record(json.dumps(members, sort_keys=True, indent=1).encode()) == msgspec.structs.replace(
        LETTER, payload="payload")
    (mark,) = tombstones("replayed", [LETTER.id], MOST)
    sorted_mark = json.dumps(json.loads(mark), sort_keys=True).encode()
    found = decode_record(sorted_mark)
    assert isinstance(found, Tombstone) and found.ids == (LETTER.id,)


def stored(payload: bytes | None, most: int, letter: DeadLetter = LETTER) -> DeadLetter:
    """What is read of a letter that was encoded for a store that takes so many bytes."""
    content = encode_letter(letter, payload, most)
    assert len(content) <= most
    found = decode_record(content)
    assert isinstance(found, DeadLetter)
    return found


def test_a_payload_is_text_where_it_is_utf8_and_base64_otherwise() -> None:
    assert stored("grün".encode(), MOST).payload == "grün"
    assert stored(b"\xff\x00", MOST).payload_base64 == "/wA="
    assert stored(None, MOST) == LETTER


def test_text_that_json_would_inflate_is_kept_in_base64() -> None:
    payload = b"\x01" * 11_000_000
    found = stored(payload, MOST)
    assert found.payload is None and found.payload_bytes() == payload and not found.payload_omitted


def test_a_payload_too_large_for_its_store_is_kept_by_length_and_digest() -> None:
    payload = b"x" * 20_000
    found = stored(payload, 10_000)
    assert (found.payload_omitted, found.payload_length) == (True, 20_000)
    assert found.payload_sha256 == hashlib.sha256(payload).hexdigest()
    assert found.payload_bytes() is None and is_sha256_of(found, payload) and not is_sha256_of(found, payload[1:])
    assert found.id == LETTER.id and found.detail == LETTER.detail and not found.shortened


def test_a_line_is_shortened_before_a_payload_is_left_out() -> None:
    long = msgspec.structs.replace(LETTER, line="m f=1" * 3_000, detail="d" * 9_000, headers={"a": "b" * 200})
    found = stored(b"y" * 5_000, 10_000, long)
    assert found.payload == "y" * 5_000 and found.shortened and not found.payload_omitted
    assert long.line.startswith(found.line) and found.line
    found = stored(b"y" * 50_000, 10_000, long)
    assert found.shortened and found.payload_omitted and found.payload_length == 50_000


def test_the_size_of_a_payload_as_json_is_known_without_writing_it() -> None:
    for text in ("plain", 'say "no"', "back\\slash", "\x00\x1f\x01", "\n\t", "grün ☃ 𝄞\x7f"):
        assert len(msgspec.json.encode(text)) - 2 <= json_size(text.encode()) <= 6 * len(text.encode())


def test_tombstones_are_cut_so_that_each_fits() -> None:
    ids = [f"telemetry/sensors/0/{offset}@2026-01-31T10:00:00+00:00" for offset in range(1_000)]
    marks = list(tombstones("purged", ids, 10_000))
    assert len(marks) > 5 and max(map(len, marks)) <= 10_000
    found = [decode_record(mark) for mark in marks]
    assert [id_ for mark in found if isinstance(mark, Tombstone) for id_ in mark.ids] == ids
    assert list(tombstones("purged", [], 10_000)) == []


@pytest.mark.parametrize(("given", "meant"), [
    ("s/t/0/17@2026-01-31T10:00:00+00:00", [1]), ("s/t/0/17", [1]), ("s/t/0/1", [0]), ("s/t/0/17@2026", [1]),
    ("s/t/0", [0, 1, 2]), ("s/t/0/170@2026-01-31…", [2]), ("", [0, 1, 2]), ("u", []), ("s/t/1", []),
])
def test_an_id_may_be_given_by_its_message_or_its_beginning(given: str, meant: list[int]) -> None:
    ids = [f"s/t/0/{offset}@2026-01-31T10:00:00+00:00" for offset in (1, 17, 170)]
    assert matching_ids(ids, given) == [ids[index] for index in meant]


def test_an_id_may_be_given_by_digits_of_its_digest() -> None:
    ids = [f"s/t/0/{offset}@2026-01-31T10:00:00+00:00" for offset in range(1_000)]
    assert len({short_id(id_) for id_ in ids}) == 1_000
    assert all(matching_ids(ids, short_id(id_)) == [id_] for id_ in ids[:50])
    assert matching_ids(ids, short_id(ids[3])[:8].upper()) == [ids[3]]
    assert matching_ids(ids, short_id(ids[3])[:3]) == []
