"""Ranges that the coordinator wants delivered again: they are read from Iggy once more, exactly as they were."""

import logging
from collections.abc import Callable, Container

from apache_iggy import ReceiveMessage
from msgspec import Struct

from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyNotFound
from pipeline.log_formats import facts
from pipeline.subscriptions import Subscriptions
from pipeline.wire import sink as wire
from stages.ingest.batch_sender import BatchSender, PolledBatch


class Rereads:
    """The queue of ranges to read again."""

    def __init__(self, topics: Subscriptions, iggy: IggyConnection, sender: BatchSender,
                 send: Callable[[Struct], None], logger: logging.Logger) -> None:
        """`send` sends a message to the coordinator."""
        self._topics = topics
        self._iggy = iggy
        self._sender = sender
        self._send = send
        self._logger = logger
        self._ranges: list[wire.Range] = []

    def __bool__(self) -> bool:
        """Whether there is a range to read again."""
        return bool(self._ranges)

    def add(self, ranges: list[wire.Range]) -> None:
        """Adds ranges to the queue. They replace queued ones of which they may be parts."""
        known = set(ranges)
        self._ranges = [r for r in self._ranges if r in known or not any(_overlap(r, new) for new in ranges)]
        known.difference_update(self._ranges)
        self._ranges += [r for r in ranges if r in known]

    def keep_epoch(self, epoch: int) -> None:
        """Discards the ranges of other epochs."""
        self._ranges = [r for r in self._ranges if r.epoch == epoch]

    def seek(self, position: wire.Position) -> None:
        """Discards the ranges of an earlier generation of a log that reach beyond the position."""
        self._ranges = [r for r in self._ranges if r.partition != position.partition
                        or r.generation == position.generation or r.last < position.offset]

    async def read_first(self, epoch: int, partitions: Container[wire.Partition]) -> None:
        """Sends the first range of the queue again, if it is of this epoch and these partitions. Raises IggyError."""
        range_ = self._ranges[0]
        if range_.epoch == epoch and range_.partition in partitions:
            await self._read(range_)
        if range_ in self._ranges:  # the queue may have changed meanwhile
            self._ranges.remove(range_)

    async def _read(self, range_: wire.Range) -> None:
        """Sends the messages of a range that the log still has."""
        topic = self._topics[range_.partition.topic]
        try:
            messages = await self._poll(range_)
        except IggyNotFound:
            return  # the topic is missing: the topic monitor logs that, and the coordinator repeats its order
        if len(messages) < range_.messages and topic.group \
                and range_.partition.number not in (await self._iggy.assignment(topic) or []):
            return  # another member has the partition now, and begins after the stored offset
        if len(messages) < range_.messages:
            self._logger.error("%s: offsets %d to %d had to be read again, but only %d of their "
                               "messages are left in Iggy; the others are lost. Give the topic a longer message_expiry",
                               topic.label(range_.partition.number), range_.first, range_.last, len(messages),
                               extra=facts(stream=topic.stream, topic=topic.topic, partition=range_.partition.number,
                                           offset=range_.first, last_offset=range_.last))
        if messages:
            batch = PolledBatch(range_, messages, [message.payload() for message in messages])
            await self._sender.send([batch], redelivered=True)
        else:
            self._send(wire.Settled(range_, 0, 0, []))

    async def _poll(self, range_: wire.Range) -> list[ReceiveMessage]:
        """The messages of a range that the log still has."""
        topic = self._topics[range_.partition.topic]
        messages: list[ReceiveMessage] = []
        position = range_.first
        while position <= range_.last:
            polled = await self._iggy.poll(topic, range_.partition.number, position, range_.last - position + 1)
            messages += [message for message in polled if message.offset() <= range_.last]
            if not polled:
                break
            position = polled[-1].offset() + 1
        return messages


def _overlap(one: wire.Range, other: wire.Range) -> bool:
    return (one.epoch, one.partition, one.generation) == (other.epoch, other.partition, other.generation) and (
        one.first <= other.last and other.first <= one.last)
