"""Points that take the place of others are counted: all within a batch, and between the batches of one encoder."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.config.schema import MappingConfig
from pipeline.wire.sink import Overwritten
from stages.mapping.encoder import BatchOrigin, Encoder
from stages.mapping.records.overwrites import RecentPoints

TIME = 1_700_000_000_000
MAPPING = MappingConfig(tag_fields=("device",), timestamp_from="field", timestamp_field="ts")
messages = st.lists(st.builds(lambda device, after, fields: {"device": device, "ts": TIME + after, **fields},
                              st.sampled_from("ab"), st.integers(0, 3),
                              st.sampled_from([{"v": 1}, {"v": 2}, {"w": 1}, {"v": 1, "w": 2}])), max_size=8)


def expected(batch: list[dict[str, Any]]) -> int:
    """How many of the messages have a field that one before them with the same device and time has."""
    seen: dict[tuple[str, int], set[str]] = {}
    count = 0
    for message in batch:
        fields = seen.setdefault((message["device"], message["ts"]), set())
        new = message.keys() - {"device", "ts"}
        count += not fields.isdisjoint(new)
        fields |= new
    return count


def payloads(batch: list[dict[str, Any]]) -> list[bytes]:
    """As they are sent."""
    return [json.dumps(message).encode() for message in batch]


@given(messages, st.booleans(), st.booleans(), st.booleans())
def test_all_of_a_batch_are_counted_whichever_way_it_goes_and_merged_or_not(
        batch: list[dict[str, Any]], merge: bool, compiled: bool, exploded: bool) -> None:
    mapping = replace(MAPPING, merge_duplicates=merge)
    sent = payloads(batch)
    if exploded:
        mapping = replace(mapping, explode="all")
        sent = [json.dumps({"all": batch}).encode()] if batch else []
    encoder = Encoder(mapping, "ms", "telemetry", "sensors")
    encoder.is_compiled = encoder.is_compiled and compiled
    for _ in range(2):  # the second time it has learned from them
        encoded = encoder.encode(sent, BatchOrigin(1, 10))
        assert encoded.overwritten.points == expected(batch), encoded.body
        assert bool(encoded.overwritten.example) == bool(expected(batch))


@given(st.lists(messages.map(lambda batch: [message for message in batch if set(message) == {"device", "ts", "v"}]),
                min_size=1, max_size=6), st.booleans())
def test_between_batches_they_are_counted_too(batches: list[list[dict[str, Any]]], merge: bool) -> None:
    encoder, recent = Encoder(replace(MAPPING, merge_duplicates=merge), "ms", "telemetry", "sensors"), RecentPoints()
    found, first = 0, 0
    for batch in batches:
        origin = BatchOrigin(0, first)
        found += recent.add(0, encoder.topic, origin, len(batch), encoder.encode(payloads(batch), origin)).points
        first += len(batch)
    assert found == expected(list(itertools.chain(*batches)))


def a_batch(first: int, *values: dict[str, Any], partition: int = 0) -> tuple[BatchOrigin, list[bytes]]:
    """Messages with one device and time, from this offset on."""
    return BatchOrigin(partition, first), payloads([{"device": "a", "ts": TIME, **fields} for fields in values])


def added(recent: RecentPoints, batch: tuple[BatchOrigin, list[bytes]], again: bool = False, sink: int = 0,
          topic: str = "sensors") -> Overwritten:
    """What a batch overwrites."""
    encoder = Encoder(replace(MAPPING, measurement_from="static", measurement_name="m"), "ms", "telemetry", topic)
    return recent.add(sink, encoder.topic, batch[0], len(batch[1]), encoder.encode(batch[1], batch[0]), again)


def test_an_example_tells_both_messages_and_the_point() -> None:
    recent = RecentPoints()
    point = f"the point m,device=a at {TIME}"
    assert added(recent, a_batch(5, {"v": 1}, {"w": 1}, {"w": 2}, {"w": 3})) == Overwritten(
        2, f"telemetry/sensors partition 0 offset 6 and offset 7 both make {point}")
    assert added(recent, a_batch(9, {"w": 1})) == Overwritten(
        1, f"telemetry/sensors partition 0 offset 8 and offset 9 both make {point}")
    assert added(recent, a_batch(3, {"w": 1}, partition=1)).example == (
        f"telemetry/sensors partition 0 offset 9 and telemetry/sensors partition 1 offset 3 both make {point}")
    assert added(recent, a_batch(0, {"w": 1}), topic="meters").example == (
        f"telemetry/sensors partition 1 offset 3 and telemetry/meters partition 0 offset 0 both make {point}")


@pytest.mark.parametrize("source", [
    MappingConfig(explode="all"), MappingConfig(), MappingConfig(format="ndjson"),
    MappingConfig(format="line_protocol"), MappingConfig(format="csv")],
    ids=["explode", "array", "ndjson", "lines", "csv"])
def test_points_of_one_message_with_equal_tags_are_counted(source: MappingConfig) -> None:
    sent = {"line_protocol": b"sensors v=1\nsensors v=2\nsensors,a=b v=1\n", "csv": b"v\n1\n2\n",
            "ndjson": b'{"v":1}\n{"v":2}\n{"w":1}'}.get(source.format, b'[{"v":1},{"v":2}]')
    sent = b'{"all":' + sent + b"}" if source.explode else sent
    encoded = Encoder(source, "ns", "telemetry", "sensors").encode([sent], BatchOrigin(0, 7, timestamps=[1_000]))
    assert encoded.overwritten == Overwritten(
        1, "telemetry/sensors partition 0 offset 7 makes the point sensors at 1000070 more than once")


@pytest.mark.parametrize("again", [False, True])
def test_what_is_read_again_overwrites_nothing(again: bool) -> None:
    recent = RecentPoints()
    first, second = a_batch(5, {"v": 1}), a_batch(6, {"v": 2})
    assert [added(recent, first).points, added(recent, second).points] == [0, 1]
    assert [added(recent, first, again).points, added(recent, second, again).points] == [0, 0]
    assert added(recent, a_batch(7, {"v": 3})).points == 1


def test_fields_that_are_not_the_same_and_other_sinks_are_no_overwriting() -> None:
    recent = RecentPoints()
    assert added(recent, a_batch(0, {"v": 1})).points == 0
    assert added(recent, a_batch(1, {"w": 1})).points == 0
    assert added(recent, a_batch(2, {"w": 1}), sink=1).points == 0


def test_points_in_two_buckets_are_two_points() -> None:
    mapping = replace(MAPPING, bucket_template="b-{bucket}", allowed_buckets=("b-x", "b-y"), field_strategy="explicit",
                      field_names=("v",))
    encoder, recent = Encoder(mapping, "ms", "telemetry", "sensors"), RecentPoints()
    found = []
    for first, buckets in ((0, "xy"), (2, "x"), (3, "yxx")):
        origin, sent = a_batch(first, *({"v": 1, "bucket": bucket} for bucket in buckets))
        found.append(recent.add(0, encoder.topic, origin, len(sent), encoder.encode(sent, origin)).points)
    assert found == [0, 1, 3]


def test_what_is_remembered_is_bounded() -> None:
    recent = RecentPoints()
    for first in range(300):
        assert added(recent, a_batch(first, {"ts": first, "v": 1})).points == 0
    large = [{"ts": 1_000 + number, "v": 1} for number in range(30_000)]
    assert added(recent, a_batch(1_000, *large)).points == 0
    assert added(recent, a_batch(31_000, {"ts": 0, "v": 1}, {"ts": 299, "v": 1}, large[0], large[-1])).points == 2
    for first in range(32_000, 34_000, 500):
        assert added(recent, a_batch(first, *[{"ts": first + number, "v": 1} for number in range(500)])).points == 0
    assert added(recent, a_batch(60_000, {"ts": 299, "v": 1})).points == 0


def test_long_lines_are_not_all_remembered() -> None:
    recent = RecentPoints()
    long = [a_batch(number, {"ts": number, "v": "x" * 1_000_000}) for number in range(8)]
    assert [added(recent, batch).points for batch in long] == [0] * 8
    assert added(recent, a_batch(8, *[{"ts": number, "v": "y"} for number in range(8)])).points == 3


def test_once_some_are_overwritten_all_of_large_batches_are_looked_at() -> None:
    recent = RecentPoints()
    batch = [{"ts": 1_000 + number // 2, "v": 1} for number in range(6_000)]
    found = [added(recent, a_batch(first, *batch)).points for first in (0, 6_000, 12_000)]
    assert found == [3_000, 6_000, 6_000]
