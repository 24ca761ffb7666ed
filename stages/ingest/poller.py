"""Polls the partitions in turn, and cuts what it reads into batches."""

import asyncio
import logging
import time
from collections.abc import Callable

from apache_iggy import ReceiveMessage
from msgspec import Struct

from pipeline.config.plan import Plan
from pipeline.iggy.connection import IggyConnection
from pipeline.wire import sink as wire
from stages.ingest.batch_sender import BatchSender
from stages.ingest.credit import Credit
from stages.ingest.partition_reader import PartitionReader


class Poller:
    """The partitions of one ingest process. Another task may change `readers` only after `finish_poll`."""

    def __init__(self, index: int, plan: Plan, iggy: IggyConnection, sender: BatchSender,
                 send: Callable[[Struct], None], logger: logging.Logger) -> None:
        """`index` is the number of the ingest process; `send` sends a message to the coordinator."""
        self.readers: dict[wire.Partition, PartitionReader] = {}
        self.epoch = 0
        self.credit = Credit(plan.config.pipeline.window_messages // plan.ingests)
        self.draining = False
        self._index = index
        self._topics = plan.config.subscriptions()
        self._once = plan.until == "once"
        self._options = plan.config.pipeline
        self._flush_seconds = plan.config.pipeline.flush_interval_ms / 1000
        self._iggy = iggy
        self._sender = sender
        self._send = send
        self._logger = logger
        self._pending: tuple[PartitionReader, asyncio.Task[list[ReceiveMessage]]] | None = None
        #: Index of the reader to poll next.
        self._next = 0

    async def step(self) -> float | None:
        """Processes one poll, starts the next one, and dispatches the batches that are due. Raises IggyError.

        Returns None while a poll is running or due, else the time at which something is due (seconds, monotonic;
        infinity where nothing is).
        """
        if self._pending is None:
            self._start_poll()
        if self._pending is not None:
            reader, task = self._pending
            self._pending = None
            messages = await task
            if len(self.readers) > 1:
                self._start_poll(after=reader)
            self._add(reader, messages)
        now = time.monotonic()
        for ready in self.readers.values():
            while ready.messages and self.credit.available and not self.draining and self._is_due(ready, now):
                await self._dispatch(ready)
        if self._pending is not None or self._start_poll():
            return None
        due = [r.due_at for r in self.readers.values() if r.readable]
        due += [r.oldest_at + self._flush_seconds for r in self.readers.values() if r.messages]
        return min(due, default=float("inf"))

    def _is_due(self, reader: PartitionReader, now: float) -> bool:
        """Whether the buffered messages are to be dispatched. To wait for more only pays while others are in flight."""
        return (self._is_full(reader) or self.credit.nothing_in_flight or reader.at_limit
                or now - reader.oldest_at >= self._flush_seconds)

    def _is_full(self, reader: PartitionReader) -> bool:
        return reader.is_full(self._options.batch_size, self._options.max_batch_bytes)

    async def flush(self, reader: PartitionReader) -> None:
        """Dispatches everything in the buffer of a reader, at most a batch, without regard to credit."""
        while reader.messages:
            await self._dispatch(reader)

    async def finish_poll(self) -> None:
        """Waits for the running poll and adds its messages. A cancelled call would cost the connection."""
        if self._pending is not None:
            reader, task = self._pending
            self._pending = None
            self._add(reader, await task)

    def _add(self, reader: PartitionReader, messages: list[ReceiveMessage]) -> None:
        gap = reader.add(messages, time.monotonic())
        if gap is not None:
            topic = self._topics[reader.partition.topic]
            self._logger.error("%s: offsets %d to %d have expired in Iggy before they were read; "
                               "they are lost. Give the topic a longer message_expiry, or the pipeline more encoders",
                               topic.label(reader.partition.number), *gap)
            self._send(wire.Gap(self.epoch, reader.partition, *gap))

    def _start_poll(self, after: PartitionReader | None = None) -> bool:
        """Polls the next partition in turn that is due and has room. False when there is none."""
        now = time.monotonic()
        readers = list(self.readers.values())
        for step in range(len(readers)):
            reader = readers[(self._next + step) % len(readers)]
            if reader is after or reader.due_at > now or self._is_full(reader) or not reader.readable:
                continue
            self._next = (self._next + step + 1) % len(readers)
            reader.requested = reader.poll_size(self._options.batch_size, self._options.max_batch_bytes)
            self._pending = reader, asyncio.ensure_future(self._iggy.poll(
                self._topics[reader.partition.topic], reader.partition.number, reader.position, reader.requested))
            return True
        return False

    async def _dispatch(self, reader: PartitionReader) -> None:
        size = reader.bytes
        quarantined = bool(reader.suspects) and reader.is_quarantined(reader.messages[0].offset())
        messages, payloads = reader.take_batch(self._options.batch_size, self._options.max_batch_bytes)
        range_ = wire.Range(self.epoch, reader.partition, messages[0].offset(), messages[-1].offset(), len(messages),
                            size - reader.bytes, reader.generation, self._index)
        if self._once:
            reader.stop_at(range_.last + 1)
        self.credit.spend(range_)
        self._send(wire.Dispatched(range_, messages[-1].timestamp()))
        if not quarantined:
            await self._sender.send(range_, messages, payloads)
