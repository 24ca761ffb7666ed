"""Polls the partitions in turn, and cuts what it reads into batches."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from apache_iggy import ReceiveMessage
from msgspec import Struct

from pipeline.config.controls import Controls
from pipeline.config.plan import Plan
from pipeline.iggy.connection import IggyConnection, Poll
from pipeline.iggy.errors import IggyError
from pipeline.log_formats import facts
from pipeline.subscriptions import Subscriptions
from pipeline.wire import sink as wire
from stages.ingest.batch_sender import BatchSender, PolledBatch
from stages.ingest.bundle import Bundle
from stages.ingest.credit import Credit
from stages.ingest.new_messages import NewMessages
from stages.ingest.partition_reader import MIN_PAUSE_SECONDS, PartitionReader

#: The pause between two rounds, seconds, is the flush interval, but no longer than this: a batch may become full.
MAX_PAUSE_SECONDS = 1.0
#: While rounds find nothing, a shorter pause grows by the factor, up to so many seconds.
QUIET_PAUSE_SECONDS = 0.1
PAUSE_FACTOR = 1.5
#: Polls in flight at the same time in a round. A partition with more messages waiting has one, and no other then.
ROUND_POLLS = 8
#: A batch waits for the end of the round until its first message has waited for so many flush intervals.
ROUND_FACTOR = 1.5


class Poller:
    """The partitions of one ingest process. Another task may change `readers` only after `finish_poll`.

    A partition with more messages waiting is polled until its batch is full, and then dispatched. The others, which
    have reached the end of their logs, are polled in rounds. At the end of the round that the flush interval ends with,
    what they have is dispatched, all at once. So no message waits longer than the interval, and a quiet partition costs
    one poll an interval, or less: see `NewMessages`.
    """

    def __init__(self, index: int, plan: Plan, topics: Subscriptions, iggy: IggyConnection, sender: BatchSender,
                 send: Callable[[Struct], None], logger: logging.Logger) -> None:
        """`index` is the number of the ingest process; `send` sends a message to the coordinator."""
        self.readers: dict[wire.Partition, PartitionReader] = {}
        self.epoch = 0
        self.credit = Credit(plan.config.pipeline.window_messages // plan.ingests)
        self.draining = False
        self._index = index
        self._topics = topics
        self._once = plan.until == "once"
        self._options = options = plan.config.pipeline
        self._flush_seconds = options.flush_interval_ms / 1000
        #: A batch is dispatched as soon as nothing is in flight.
        self._low_latency = options.delivery == "low_latency"
        self._iggy = iggy
        self._sender = sender
        self._send = send
        self._logger = logger
        #: Polls in flight, the oldest first.
        self._pending: list[tuple[PartitionReader, Poll]] = []
        #: Readers to poll next, in turn, as far as they are still due then.
        self._queue: deque[PartitionReader] = deque()
        self._controls = plan.controls
        self._sinks = [sink.name for sink in plan.config.all_sinks()]
        self._new_messages = NewMessages(self._topics, iggy)
        self._min_pause = MIN_PAUSE_SECONDS if self._low_latency else min(self._flush_seconds, MAX_PAUSE_SECONDS)
        self._pause = self._min_pause
        #: When the next round begins, and the next one that ends a flush interval; seconds, monotonic.
        self._round_at = self._flush_at = 0.0
        #: Whether this round does, and what it has still to poll.
        self._flushes = False
        self._round: set[wire.Partition] = set()
        #: Whether a message was polled since the last round began.
        self._found = False
        #: No batch is due before this; seconds, monotonic.
        self._dispatch_at = 0.0

    def pause(self, controls: Controls | None = None) -> None:
        """Polls nothing that is paused; new `controls` replace the last ones. To be called for new readers, too."""
        self._controls = controls or self._controls
        for reader in self.readers.values():
            topic = self._topics[reader.partition.topic]
            reader.is_paused = self._controls.is_paused(self._sinks[topic.sink], topic.stream, topic.topic,
                                                        reader.partition.number)
            if not reader.is_paused:
                reader.due_at = min(reader.due_at, self._round_at)

    @property
    def waits_for_credit(self) -> bool:
        """Whether new credit may let a batch go."""
        return self._low_latency or not self.credit.available

    async def step(self) -> float | None:
        """Processes the polls in flight, starts the next ones, and dispatches the batches that are due.

        Returns None while a poll is running or due, else the time at which something is due (seconds, monotonic;
        infinity where nothing is). Raises IggyError.
        """
        if time.monotonic() >= self._round_at:
            if self._round:
                self._continue_round()
            else:
                await self._begin_round()
        self._start_polls()
        finished = await self._finish_polls()
        self._start_polls(after=[reader for reader, _ in finished])
        for reader, messages in finished:
            self._add(reader, messages)
        self._start_polls()
        if not self._pending and self._round:  # the others cannot be polled now
            self._round.clear()
            self._end_round()
        await self._dispatch_due()
        self._start_polls()
        if self._pending:
            return None
        due = [r.due_at for r in self.readers.values() if r.readable]
        due += [r.oldest_at + self._flush_seconds for r in self.readers.values() if r.messages]
        return min([self._round_at, *due])

    async def _begin_round(self) -> None:
        """Has the quiet partitions polled that have new messages."""
        now = time.monotonic()
        longest = max(self._min_pause, QUIET_PAUSE_SECONDS)
        self._pause = self._min_pause if self._found else min(self._pause * PAUSE_FACTOR, longest)
        self._found = False
        self._round_at = now + self._pause
        quiet = [reader for reader in self.readers.values() if reader.readable and reader.at_end]
        self._round = {reader.partition for reader in await self._new_messages.find(quiet, now)}
        for reader in quiet:
            if reader.partition in self._round:
                reader.due_at = 0.0
            else:
                self._wait(reader, now)
        self._flushes = not self._low_latency and now >= self._flush_at
        if self._flushes:
            # The last round before the interval has passed flushes.
            self._flush_at = now + self._flush_seconds - (self._pause if self._pause < self._flush_seconds else 0.0)
        if not self._round:
            self._end_round()

    def _continue_round(self) -> None:
        """The round lasts longer than the pause between two: those that cannot be polled any more are left out."""
        self._round_at = time.monotonic() + self._pause
        readers = [reader for partition in self._round if (reader := self.readers.get(partition)) is not None]
        self._round = {reader.partition for reader in readers if reader.readable and not self._is_full(reader)}
        if not self._round:
            self._end_round()

    def _end_round(self) -> None:
        """Has everything dispatched that the quiet partitions have, if the flush interval ends with this round."""
        self._dispatch_at = 0.0
        if self._flushes:
            for reader in self.readers.values():
                reader.flush |= reader.at_end and bool(reader.messages)

    async def _dispatch_due(self) -> None:
        """Dispatches the batches that are due: small ones together, as many as make a full one."""
        now = time.monotonic()
        if now < self._dispatch_at:
            return
        self._dispatch_at = float("inf")
        bundle = Bundle(self._options.batch_size, self._options.max_batch_bytes)
        # Asked once: all partitions use the moment, not only the first of them.
        at_once = self._low_latency and self.credit.nothing_in_flight
        for reader in self.readers.values():
            while (reader.messages and self.credit.available and not self.draining
                   and (at_once or self._is_due(reader, now))):
                alone, quarantined = bool(reader.suspects), reader.is_quarantined
                batch = self._take(reader)
                if alone or not bundle.has_room(batch.range):
                    await self._dispatch(bundle)
                bundle.add(batch, quarantined)
                if alone:  # what processes have died of is looked for batch by batch
                    await self._dispatch(bundle)
            self._look_again(reader)
        await self._dispatch(bundle)

    def _is_due(self, reader: PartitionReader, now: float) -> bool:
        """Whether the buffered messages are to be dispatched."""
        return now >= self._due_at(reader)

    def _due_at(self, reader: PartitionReader) -> float:
        """When they are; seconds, monotonic; 0: now."""
        if self._is_full(reader) or reader.at_limit or reader.flush:
            return 0.0
        return reader.oldest_at + self._flush_seconds * (ROUND_FACTOR if self._round else 1.0)

    def _look_again(self, reader: PartitionReader) -> None:
        """Sees to it that a reader's messages are dispatched when they are due, or may be."""
        if reader.messages:
            self._dispatch_at = 0.0 if self._low_latency else min(self._dispatch_at, self._due_at(reader))

    def _is_full(self, reader: PartitionReader) -> bool:
        return reader.is_full(self._options.batch_size, self._options.max_batch_bytes)

    def _wait(self, reader: PartitionReader, now: float) -> None:
        reader.wait(now, self._options.batch_size, self._options.max_batch_bytes)

    async def flush(self, reader: PartitionReader) -> None:
        """Dispatches everything in the buffer of a reader, at most a batch, without regard to credit."""
        while reader.messages:
            bundle = Bundle(self._options.batch_size, self._options.max_batch_bytes)
            quarantined = reader.is_quarantined
            bundle.add(self._take(reader), quarantined)
            await self._dispatch(bundle)

    async def finish_poll(self) -> None:
        """Waits for the running polls and adds their messages. A cancelled call would cost the connection."""
        for reader, messages in await self._finish_polls():
            self._add(reader, messages)

    async def _finish_polls(self) -> list[tuple[PartitionReader, list[ReceiveMessage]]]:
        """Waits for the polls in flight, in their order. After an error all are repeated. Raises IggyError.

        The newest is awaited first: by then the others are done, and cost no wake-up of their own.
        """
        pending, self._pending = self._pending, []
        finished = []
        while pending:
            reader, poll = pending.pop()
            try:
                finished.append((reader, await poll))
            except IggyError:
                await asyncio.gather(*[other for _, other in pending], return_exceptions=True)
                raise
        finished.reverse()
        return finished

    def _add(self, reader: PartitionReader, messages: list[ReceiveMessage]) -> None:
        now = time.monotonic()
        gap = reader.add(messages, now)
        self._found |= bool(messages)
        if reader.at_end:
            self._wait(reader, now)
        self._look_again(reader)
        if reader.partition in self._round and (reader.at_end or not reader.readable or self._is_full(reader)):
            self._round.discard(reader.partition)
            if not self._round:
                self._end_round()
        if gap is not None:
            topic = self._topics[reader.partition.topic]
            self._logger.error("%s: offsets %d to %d have expired in Iggy before they were read; "
                               "they are lost. Give the topic a longer message_expiry, or the pipeline more encoders",
                               topic.label(reader.partition.number), *gap, extra=facts(
                                   stream=topic.stream, topic=topic.topic, partition=reader.partition.number,
                                   offset=gap[0], last_offset=gap[1]))
            self._send(wire.Gap(self.epoch, reader.partition, *gap))

    def _start_polls(self, after: Sequence[PartitionReader] = ()) -> None:
        """Polls partitions that are due. `after`: those whose last polls are not processed yet."""
        busy = {reader.partition for reader, _ in self._pending} | {reader.partition for reader in after}
        while len(self._pending) < (ROUND_POLLS if self._round else 1) and self._start_poll(busy):
            busy.add(self._pending[-1][0].partition)

    def _start_poll(self, busy: set[wire.Partition]) -> bool:
        """Polls the next partition in turn that is due, has room and is not `busy`. False when there is none."""
        now = time.monotonic()
        reader = self._next_in_queue(busy, now)
        if reader is None:
            self._queue.extend(self.readers.values())
            reader = self._next_in_queue(busy, now)
        if reader is None:
            return False
        reader.polled_at = now
        reader.requested = reader.poll_size(self._options.batch_size, self._options.max_batch_bytes)
        self._pending.append((reader, self._iggy.poll(
            self._topics[reader.partition.topic], reader.partition.number, reader.position, reader.requested)))
        return True

    def _next_in_queue(self, busy: set[wire.Partition], now: float) -> PartitionReader | None:
        while self._queue:
            reader = self._queue.popleft()
            if (reader.due_at <= now and reader.partition not in busy and not self._is_full(reader) and reader.readable
                    and self.readers.get(reader.partition) is reader):
                return reader
        return None

    def _take(self, reader: PartitionReader) -> PolledBatch:
        """Removes the next batch from a buffer."""
        size = reader.bytes
        messages, payloads = reader.take_batch(self._options.batch_size, self._options.max_batch_bytes)
        range_ = wire.Range(self.epoch, reader.partition, messages[0].offset(), messages[-1].offset(), len(messages),
                            size - reader.bytes, reader.generation, self._index)
        if self._once:
            reader.stop_at(range_.last + 1)
        self.credit.spend(range_)
        return PolledBatch(range_, messages, payloads)

    async def _dispatch(self, bundle: Bundle) -> None:
        """Reports the batches of a bundle to the coordinator, and sends them to an encoder."""
        if bundle.reports:
            self._send(wire.Reports(dispatched=bundle.reports))
        if bundle.batches:
            await self._sender.send(bundle.batches)
        bundle.clear()
