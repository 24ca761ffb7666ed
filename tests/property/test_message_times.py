"""Points made of Iggy's times: distinct, in order, close to what Iggy said, and the same however batches are cut."""

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config.schema import MappingConfig
from stages.mapping.encoder import BatchOrigin, Encoder
from stages.mapping.records.message_times import CYCLE, MAX_TIE_BREAKER, message_time, message_times

TIME = 1_700_000_000_000_000
SEND = 50_000
offsets = st.one_of(st.integers(0, 2**40), st.integers(1, 1_000).map(lambda cycles: cycles * CYCLE - 1))
partitions = st.integers(0, 1_000)


def payload(number: int) -> bytes:
    """A message of the one device there is."""
    return json.dumps({"device": "d1", "v": number}).encode()


def lines_of(mapping: MappingConfig, times: list[int], first: int, cuts: list[int]) -> list[bytes]:
    """The lines of messages with these times, in batches that end at `cuts`."""
    encoder, lines = Encoder(mapping, "ns", "telemetry", "sensors"), []
    for begin, end in itertools.pairwise([0, *sorted(cuts), len(times)]):
        origin = BatchOrigin(2, first + begin, timestamps=times[begin:end], arrival=TIME)
        lines += encoder.encode([payload(number) for number in range(begin, end)], origin).body.splitlines()
    return lines


@pytest.mark.parametrize("source", ["iggy_timestamp", "origin_timestamp", "arrival"])
@pytest.mark.parametrize("first", [0, 12_345, CYCLE - 20_000, 7 * CYCLE - 1])
def test_fifty_thousand_messages_of_one_send_and_series_are_as_many_points(source: str, first: int) -> None:
    mapping = MappingConfig(tag_fields=("device",), timestamp_from=source)  # type: ignore[arg-type]
    lines = lines_of(mapping, [TIME] * SEND, first, [])
    assert len({line.rpartition(b" ")[2] for line in lines}) == len(lines) == SEND


@given(st.lists(st.integers(0, 60), max_size=6), st.lists(st.integers(0, 3), min_size=60, max_size=60), offsets)
def test_the_lines_are_the_same_however_batches_are_cut(cuts: list[int], steps: list[int], first: int) -> None:
    mapping = MappingConfig(tag_fields=("device",), merge_duplicates=False)
    times = [TIME + after for after in itertools.accumulate(steps)]
    assert lines_of(mapping, times, first, cuts) == lines_of(mapping, times, first, [])


@given(partitions, offsets, st.lists(st.tuples(st.integers(0, 2_000), st.integers(1, 3_000)), min_size=2, max_size=30))
def test_messages_of_a_partition_whose_times_do_not_go_back_are_distinct(
        partition: int, offset: int, steps: list[tuple[int, int]]) -> None:
    seen: dict[int, tuple[int, int]] = {}
    micros = TIME
    for after, messages in steps:
        micros, offset = micros + after, offset + messages
        seen[message_time(micros, partition, offset, "ns")] = micros, offset
    assert len(seen) == len(steps)
    inside = [(at, place) for at, place in seen.items() if place[1] // CYCLE == offset // CYCLE]
    assert inside == sorted(inside), "in the order of the offsets"


@given(offsets, st.integers(1, 2 * CYCLE - 1), partitions)
def test_no_two_of_two_hundred_thousand_messages_with_one_time_are_the_same(
        first: int, apart: int, partition: int) -> None:
    assert message_time(TIME, partition, first, "ns") != message_time(TIME, partition, first + apart, "ns")


@given(st.integers(0, 1_000), st.integers(0, 1_000), st.integers(0, 2**40), st.integers(0, 2**40), partitions,
       partitions.filter(lambda number: number % 5))
def test_partitions_have_no_time_in_common_unless_five_apart(
        after: int, later: int, offset: int, other: int, partition: int, apart: int) -> None:
    assert (message_time(TIME + after, partition, offset, "ns")
            != message_time(TIME + later, partition + apart, other, "ns"))


@given(st.integers(0, 2**53), partitions, offsets)
def test_a_time_is_moved_by_less_than_a_millisecond(
        micros: int, partition: int, offset: int) -> None:
    assert 0 <= message_time(micros, partition, offset, "ns") - micros * 1_000 <= MAX_TIE_BREAKER < 1_000_000
    for precision, unit in (("us", 1), ("ms", 1_000), ("s", 1_000_000)):
        assert message_time(micros, partition, offset, precision) == micros // unit


@given(st.lists(st.integers(0, 2**53), min_size=1, max_size=20), partitions, offsets, st.booleans(),
       st.sampled_from(["ns", "us", "ms", "s"]))
@example([TIME] * 5, 3, CYCLE - 2, False, "ns")
def test_a_batch_has_the_times_that_its_messages_have_one_by_one(
        micros: list[int], partition: int, first: int, listed: bool, precision: str) -> None:
    expected = [message_time(time, partition, first + index, precision) for index, time in enumerate(micros)]
    given_offsets = list(range(first, first + len(micros))) if listed else first
    assert list(message_times(micros, partition, given_offsets, precision)) == expected


@pytest.mark.parametrize(("policy", "expected"), [
    ("reject", ["rejected missing_timestamp"]), ("arrival", [f"sensors v=1 {TIME + 5}070"])])
def test_a_message_whose_producer_gave_no_time_of_origin_is_not_of_1970(policy: str, expected: list[str]) -> None:
    mapping = MappingConfig(timestamp_from="origin_timestamp", on_missing_timestamp=policy)  # type: ignore[arg-type]
    encoded = Encoder(mapping, "ns", "telemetry", "sensors").encode(
        [b'{"v":1}'], BatchOrigin(first=7, timestamps=[0], arrival=TIME + 5))
    assert encoded.body.decode().splitlines() + [f"rejected {r.reason}" for r in encoded.rejects] == expected
