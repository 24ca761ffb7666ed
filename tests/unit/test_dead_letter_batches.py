"""The dead letters of one batch: bounded reading, messages that are gone, and stores of which one fails."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest
from apache_iggy import ReceiveMessage

from pipeline.dead_letters.letters import DeadLetter, decode_record
from pipeline.dead_letters.stores import Record, StoreError
from pipeline.wire import sink as wire
from stages.dead_letter.process import RejectedBatch, store_letters


class Message:
    """What a batch asks of a message of Iggy; those can't be made."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        """Its offset."""
        return self._offset


def polled(*offsets: int) -> list[ReceiveMessage]:
    """An answer of Iggy."""
    return [cast(ReceiveMessage, Message(offset)) for offset in offsets]


def batch(*rejected: int, messages: int = 1_000, size: int = 1_000_000) -> RejectedBatch:
    """Rejects of the offsets 0 to 999."""
    range_ = wire.Range(1, wire.Partition(0, 0), 0, 999, messages, size)
    return RejectedBatch(wire.StoreDeadLetters(range_, [wire.Reject(offset, "not_json", "") for offset in rejected]))


def taken(of: RejectedBatch, *offsets: int) -> list[tuple[int, bool]]:
    """What an answer decides: offsets, and whether the message is there."""
    return [(reject.offset, message is not None) for reject, message in of.take(polled(*offsets))]


def test_rejects_get_their_messages_in_order() -> None:
    one = batch(7, 3, 3, 9)
    assert one.count() == 1
    assert taken(one, 3) == [(3, True), (3, True)]
    assert one.count() == 3
    assert taken(one, 7, 8, 9) == [(7, True), (9, True)]
    assert one.rest == []


def test_missing_messages_are_known_without_reading_the_next_ones() -> None:
    one = batch(3, 7, 9)
    assert taken(one, 8) == [(3, False), (7, False)]
    assert one.count() == 1
    assert taken(one, 9) == [(9, True)]
    one = batch(3, 7)
    assert taken(one, 5_000) == [(3, False), (7, False)]
    one = batch(3, 7)
    assert taken(one) == [(3, False), (7, False)]
    assert one.rest == []


@pytest.mark.parametrize(("messages", "size", "most"), [(1_000, 1_000_000, 999), (1_000, 256_000_000, 31),
                                                        (10, 600_000_000, 1), (0, 0, 999)])
def test_what_is_asked_for_at_once_is_bounded_by_bytes(messages: int, size: int, most: int) -> None:
    one = batch(0, 1, 999, messages=messages, size=size)
    taken(one, 0)
    assert one.count() == most


class Shelf:
    """A store in memory that fails when it is told to."""

    def __init__(self, name: str, max_bytes: int = 1_000_000) -> None:
        self.name = name
        self.max_bytes = max_bytes
        self.failures = 0
        self.stored: list[bytes] = []
        #: Bytes of the largest append.
        self.largest = 0

    async def records(self) -> AsyncIterator[Record]:
        """Nothing asks."""
        for record in self.stored:
            yield Record("", record)

    async def append(self, records: Sequence[bytes]) -> None:
        """Stores, or fails."""
        if self.failures:
            self.failures -= 1
            raise StoreError("full")
        self.stored += records
        self.largest = max(self.largest, sum(map(len, records)))

    async def clear(self) -> None:
        """Nothing asks."""

    async def check(self) -> None:
        """Nothing asks."""


def test_a_store_that_fails_does_not_double_the_letters_of_another() -> None:
    one = batch()
    letter = DeadLetter(time="2026-01-31T10:00:00Z", stream="s", topic="t", partition=0, offset=0, stage="encode",
                        reason="not_json", detail="", pipeline_version="1")
    one.letters = [(letter, b"x" * 900_000) for _ in range(10)]
    good, bad = Shelf("good", 10_000_000), Shelf("bad", 500_000)

    async def all_of_them() -> None:
        bad.failures = 2
        for _ in range(20):
            try:
                for store in (good, bad):
                    await store_letters(one, store)
                return
            except StoreError:
                pass

    asyncio.run(all_of_them())
    assert len(good.stored) == len(bad.stored) == 10
    assert good.largest <= 1_000_000 and bad.largest <= 500_000
    for shelf, is_omitted in ((good, False), (bad, True)):
        found = decode_record(shelf.stored[0])
        assert isinstance(found, DeadLetter) and found.payload_omitted == is_omitted
