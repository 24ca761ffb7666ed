"""Tags with too many values: counted over all encoders, and treated as configured, compiled or not."""

import json

import pytest

from pipeline.config.schema import Config, MappingConfig, SinkConfig
from pipeline.fields.cardinality import Cardinality, TagCardinality
from stages.mapping.encoder import BatchOrigin, Encoder

PAYLOADS = [json.dumps(message).encode() for message in [
    {"site": "a", "device": "d,1", "v": 1}, {"site": "a", "device": "d,2", "v": 2},
    {"site": "a", "device": 3, "v": 3}, {"site": "a", "device": 'quo"te', "v": 4}, {"site": "a", "v": 5}]]
ORIGIN = BatchOrigin(timestamps=[1_700_000_000_000_000 + index for index in range(5)])


def config_of(mapping: MappingConfig) -> Config:
    """A configuration with one sink."""
    return Config(sinks=(SinkConfig(name="one", topics=(), mapping=mapping),))


def test_the_values_of_all_encoders_count_once_and_a_tag_is_named_once() -> None:
    book = Cardinality(config_of(MappingConfig(max_tag_values=1_000)))
    encoders = [TagCardinality(), TagCardinality()]
    for number in range(900):
        for sketches in encoders:
            sketches.add("device", f"d{number}")
    for sketches in encoders:
        assert book.merge(0, sketches.changed()) == []
        assert sketches.changed() == {}
    for number in range(900, 1_500):
        encoders[number % 2].add("device", f"d{number}")
    found = [book.merge(0, sketches.changed()) for sketches in encoders]
    ((tag, count),) = found[0] + found[1]
    assert tag == "device"
    assert 1_000 < count < 1_700
    assert book.over == {0: {"device"}}


def test_zero_counts_nothing() -> None:
    book = Cardinality(config_of(MappingConfig(max_tag_values=0)))
    sketches = TagCardinality()
    for number in range(1_000):
        sketches.add("device", str(number))
    assert book.merge(0, sketches.changed()) == []


@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_tag_over_the_limit_becomes_a_string_field(is_compiled: bool) -> None:
    encoder = Encoder(MappingConfig(tag_fields=("site", "device"), on_high_cardinality="to_field"), "us", "s", "t")
    encoder.is_compiled = is_compiled
    encoder.encode(PAYLOADS, ORIGIN)
    encoder.over_limit(frozenset({"device"}))
    for _ in range(2):
        assert encoder.encode(PAYLOADS, ORIGIN).body.decode().splitlines() == [
            't,site=a v=1,device_value="d,1" 1700000000000000', 't,site=a v=2,device_value="d,2" 1700000000000001',
            't,site=a v=3,device_value="3" 1700000000000002',
            't,site=a v=4,device_value="quo\\"te" 1700000000000003', "t,site=a v=5 1700000000000004"]


@pytest.mark.parametrize("is_compiled", [False, True])
def test_messages_with_a_tag_over_the_limit_are_rejected_if_so_configured(is_compiled: bool) -> None:
    encoder = Encoder(MappingConfig(tag_fields=("site", "device"), on_high_cardinality="reject"), "us", "s", "t")
    encoder.is_compiled = is_compiled
    encoder.encode(PAYLOADS, ORIGIN)
    encoder.over_limit(frozenset({"device"}))
    encoded = encoder.encode(PAYLOADS, ORIGIN)
    assert encoded.points == 1
    assert [reject.reason for reject in encoded.rejects] == ["cardinality"] * 4


def test_only_values_not_met_before_are_counted_again() -> None:
    encoder = Encoder(MappingConfig(tag_fields=("device",)), "us", "s", "t")
    seen: list[tuple[str, str]] = []
    encoder.rules.heads.seen = lambda key, value: seen.append((key, value))
    for _ in range(3):
        encoder.encode(PAYLOADS, ORIGIN)
    assert sorted(seen) == [("device", "3"), ("device", "d,1"), ("device", "d,2"), ("device", 'quo"te')]
