"""One message costs itself: whatever it holds, and whatever goes wrong on it, its batch is written."""

import time
from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.config.schema import MappingConfig
from pipeline.points.field_type import FieldType
from stages.mapping.batch import TooMuch
from stages.mapping.encoder import BatchOrigin, Encoded, Encoder
from stages.mapping.records.type_guard import TypeGuard

GOOD = b'{"site":"a","v":%d,"ts":%d}'
README: dict[str, Any] = {"tag_fields": ("site", "device"), "timestamp_from": "field", "timestamp_field": "ts"}


def encode(encoder: Encoder, payloads: list[bytes]) -> Encoded:
    """The payloads as one batch, by the way that the encoder process goes."""
    return encoder.encode(payloads, BatchOrigin(timestamps=[1_700_000_000_000_000] * len(payloads)))


def among_good_ones(mapping: MappingConfig, poison: bytes, good: bytes = GOOD) -> Encoded:
    """What becomes of a message in the middle of 40 good ones, by an encoder that has met such before."""
    encoder = Encoder(mapping, "ns", "stream", "topic")
    payloads = [good % (number, number + 1) for number in range(40)]
    encode(encoder, payloads)
    return encode(encoder, [*payloads[:20], poison, *payloads[20:]])


@pytest.mark.parametrize("value", [b"True", b"hello", b"None", b"1e5x", b"tru", b"-", b"1e", b".5", b"0x1", b"nul"])
def test_a_word_that_is_no_json_is_rejected_alone(value: bytes) -> None:
    for poison in (b'{"site":%b,"temperature":1,"ts":1}', b'{"site":"a","v":%b,"ts":1}', b'{"site":"a","v":1,"ts":%b}'):
        encoded = among_good_ones(MappingConfig(**README), poison % value)
        assert encoded.points == 40
        assert [(reject.at, reject.reason) for reject in encoded.rejects] == [(20, "not_json")]


@pytest.mark.parametrize("poison", [b'{"a":' * 1_000 + b"1" + b"}" * 1_000, b'{"a":' * 1_000,
                                    b'{"a":' + b"[" * 950 + b"]" * 950 + b"}"])
@pytest.mark.parametrize("mapping", [MappingConfig(), MappingConfig(arrays="index"), MappingConfig(nested="json"),
                                     MappingConfig(arrays="join", nested="drop"), MappingConfig(explode="a")])
def test_what_is_nested_too_deep_is_rejected_alone(mapping: MappingConfig, poison: bytes) -> None:
    encoded = among_good_ones(mapping, poison)
    assert encoded.points == 40
    assert [reject.at for reject in encoded.rejects] == [20]


def test_an_exploded_element_that_stays_text_is_not_nested_deeper_than_allowed() -> None:
    encoder = Encoder(MappingConfig(explode="a", max_depth=4), "ns", "stream", "topic")
    encoded = encode(encoder, [b'{"a":[[["x"]]]}', b'{"a":[[[["x"]]]]}'])
    assert encoded.groups[0].body == b'topic a="[[\\"x\\"]]" 1700000000000000000\n'
    assert [(reject.at, reject.reason) for reject in encoded.rejects] == [(1, "too_deep")]


def test_what_fails_on_one_message_is_its_reject_and_tells_where() -> None:
    def ask(measurement: str, kinds: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        if "boom" in kinds:
            raise KeyError("boom")
        return kinds

    encoder = Encoder(MappingConfig(), "ns", "stream", "topic", lambda bucket: TypeGuard(ask))
    encoded = encode(encoder, [b'{"v":1}', b'{"v":2,"boom":3}', b'{"v":4,"w":[1]}'])
    assert encoded.points == 2
    [reject] = encoded.rejects
    assert (reject.at, reject.reason) == (1, "internal_error")
    assert reject.detail.startswith("KeyError at test_bad_messages.py:") and "boom" in reject.detail


def test_messages_of_a_batch_that_takes_too_much_memory_are_written_singly() -> None:
    mapping = MappingConfig(explode="e", metadata_tags=("offset",), max_payload_bytes=10_000, max_expanded_bytes=30_000,
                            merge_duplicates=False)
    payloads = [b'{"s":"%b","e":[%b]}' % (b"x" * 100, b",".join([b"%d"] * 100) % (*range(100),))] * 20
    encoder = Encoder(mapping, "ns", "stream", "topic")
    assert encode(encoder, payloads).points == 2_000
    encoder.refuses_much = True
    with pytest.raises(TooMuch):
        encode(encoder, payloads)
    assert encode(encoder, payloads[:1]).points == 100


@pytest.mark.parametrize("poison", [b'{"v":1,"ts":1}'.ljust(5_000_000), b'{"%b":1,"v":1}' % (b"k" * 60_000)])
def test_what_stands_between_values_is_never_made_a_pattern_of_any_length(poison: bytes) -> None:
    began = time.process_time()
    assert encode(Encoder(MappingConfig(), "ns", "stream", "topic"), [poison]).points == 1
    assert time.process_time() - began < 2
