"""How ingest cuts what it polls into batches."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pipeline.wire.sink import Partition, Position
from stages.ingest.partition_reader import FIRST_POLL_MESSAGES, PartitionReader


@dataclass
class Message:
    """As much of the client's message as the reader looks at (the client's own class can't be made by hand)."""

    number: int
    size: int

    def offset(self) -> int:
        return self.number

    def timestamp(self) -> int:
        return 1_000 + self.number

    def payload(self) -> bytes:
        return b"x" * self.size


def a_reader(sizes: list[int]) -> PartitionReader:
    """A reader that has polled messages of these sizes."""
    reader = PartitionReader(Partition(0, 0), 0)
    reader.add([Message(number, size) for number, size in enumerate(sizes)], now=1.0)  # type: ignore[misc]
    return reader


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 100))
def test_batches_keep_order_and_both_limits(sizes: list[int], batch_size: int, max_bytes: int) -> None:
    reader = a_reader(sizes)
    offsets: list[int] = []
    while reader.messages:
        messages, payloads = reader.take_batch(batch_size, max_bytes)
        assert 1 <= len(messages) == len(payloads) <= batch_size
        assert len(messages) == 1 or sum(map(len, payloads)) <= max_bytes
        offsets += [message.offset() for message in messages]
    assert offsets == list(range(len(sizes)))
    assert reader.bytes == 0
    assert reader.position == len(sizes)


def test_the_first_poll_is_small_and_later_ones_fit_the_bytes() -> None:
    assert PartitionReader(Partition(0, 0), 0).poll_size(5_000, 1_000) == FIRST_POLL_MESSAGES
    reader = a_reader([100] * 5)
    assert reader.poll_size(5_000, 1_000) == 5
    assert reader.poll_size(8, 1_000_000) == 3


def test_at_the_end_of_a_log_the_next_poll_waits_until_a_batch_may_be_full() -> None:
    reader = PartitionReader(Partition(0, 0), 0)
    reader.requested = 5_000
    reader.add([], now=1.0)
    assert reader.at_end
    reader.wait(1.0, 1_000, 1_000_000)
    assert reader.due_at == float("inf")
    reader.add([Message(number, 1) for number in range(500)], now=2.0)  # type: ignore[misc]
    reader.wait(2.0, 1_000, 1_000_000)
    assert 3.0 <= reader.due_at < 3.2 and reader.oldest_at == 1.0
    reader.add([], now=3.1)
    reader.wait(3.1, 1_000, 1_000_000)
    assert reader.due_at == float("inf")


def test_a_poll_that_gives_what_it_requests_is_followed_by_another() -> None:
    reader = PartitionReader(Partition(0, 0), 0)
    reader.requested = 5
    reader.add([Message(number, 1) for number in range(5)], now=1.0)  # type: ignore[misc]
    assert not reader.at_end and reader.due_at == 0.0 and reader.oldest_at == 1.0


def test_what_the_log_lacks_is_a_gap_unless_nothing_was_read_before() -> None:
    reader = PartitionReader(Partition(0, 0), 5)
    assert reader.add([Message(5, 1)], now=0.0) is None  # type: ignore[list-item]
    assert reader.add([Message(9, 1)], now=0.0) == (6, 8)  # type: ignore[list-item]
    fresh = PartitionReader(Partition(0, 0), 5)
    fresh.fresh = True
    assert fresh.add([Message(9, 1)], now=0.0) is None  # type: ignore[list-item]
    assert fresh.add([Message(12, 1)], now=0.0) == (10, 11)  # type: ignore[list-item]


def test_a_reader_waits_for_the_coordinators_word_and_stops_at_its_limit() -> None:
    reader = a_reader([1] * 5)
    assert not reader.readable
    reader.seek(Position(Partition(0, 0), 2, 3, time=900, exact=False, limit=7))
    assert reader.readable and (reader.position, reader.messages) == (3, [])
    assert (reader.last_time, reader.newest_time) == (0, 1_004)
    assert reader.poll_size(5_000, 1_000) == 4
    reader.add([Message(number, 1) for number in range(3, 7)], now=0.0)
    assert reader.at_limit and not reader.readable
