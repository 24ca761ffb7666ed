"""Ingest: polls Iggy, cuts batches, tells the coordinator of each before it sends it to the encoders.

One task polls (the next poll is under way while the last one's messages are packed); another listens to the
coordinator; a third stores offsets in Iggy, where only this process may. Ingest keeps nothing that it couldn't read
again. Whatever it does with a partition, it does when the coordinator has said where: see `wire.Seek`.
"""

import asyncio
import logging
import os
import time

import zmq
import zmq.asyncio
from apache_iggy import ReceiveMessage
from msgspec import Struct

from pipeline.config.plan import Plan
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyAuthenticationFailed, IggyError, IggyNotFound
from pipeline.iggy.headers import header_values
from pipeline.logs import RepeatFilter
from pipeline.sockets.control_link import HEARTBEAT_SECONDS
from pipeline.sockets.control_socket import ControlSocket
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.intake import Dropped
from pipeline.sockets.sink_rules import WireRules
from pipeline.wire import common, payload_frame
from pipeline.wire import sink as wire
from pipeline.wire.frames import cut
from stages.ingest.message_times import times_of
from stages.ingest.partition_reader import PartitionReader
from stages.ingest.topic_monitor import TopicChanges, TopicMonitor

#: Seconds between two looks at the topics, and at our part of a consumer group.
LOOK_SECONDS = 2.0
GROUP_LOOK_SECONDS = 0.5
#: Pause after an error, seconds.
ERROR_PAUSE_SECONDS = 0.5
#: Batches queued for an encoder, at most.
SEND_HIGH_WATER_MARK = 1


def run_ingest(name: str, index: int, plan: Plan, logger: logging.Logger) -> None:
    """Runs ingest until the process is killed."""
    asyncio.run(IngestStage(name, index, plan, logger).run())


class IngestStage:
    """Reads its part of the partitions of all configured topics, in turn."""

    def __init__(self, name: str, index: int, plan: Plan, logger: logging.Logger) -> None:
        self.plan = plan
        self.name = name
        self.index = index
        self.logger = logger
        self.iggy = IggyConnection(plan.config.iggy)
        self.options = plan.config.pipeline
        self.topics = plan.config.subscriptions()
        self.watch = TopicMonitor(index, plan.readers, plan.config, self.iggy, logger)
        self.look_seconds = GROUP_LOOK_SECONDS if any(topic.group for topic in self.topics) else LOOK_SECONDS
        self.mappings = mappings = [sink.mapping for sink in plan.config.all_sinks()]
        #: By topic: whether the mapping asks for the messages' own times.
        self.needs_timestamps = [mappings[topic.sink].needs_timestamps() for topic in self.topics]
        #: By topic: the user headers that become tags.
        self.needs_headers = [tuple(mappings[topic.sink].header_tags) for topic in self.topics]
        self.rules = WireRules(plan.config, plan.readers)
        self.dropped = Dropped(logger)
        self.endpoints = Endpoints(plan.folder, plan.config.network)
        context = zmq.asyncio.Context.instance()
        control: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        control.setsockopt(zmq.IDENTITY, name.encode())
        self.control = ControlSocket(control)
        self.endpoints.connect(control, self.endpoints.control)
        self.push = context.socket(zmq.PUSH)
        self.push.setsockopt(zmq.SNDHWM, SEND_HIGH_WATER_MARK)
        self.endpoints.bind_batches(self.push, index)
        self.readers: dict[wire.Partition, PartitionReader] = {}
        self.epoch = 0
        self.dispatched_messages = self.dispatched_bytes = 0
        self.window_messages = self.window_bytes = 0
        #: What the coordinator grants beyond what is settled.
        self.window_share = self.options.window_messages // plan.readers
        self.rereads: list[wire.Range] = []
        self.seeks: list[wire.Position] = []
        self.disowned: list[wire.Partition] = []
        self.assignment: wire.Assign | None = None
        self.draining = False
        #: Whether the coordinator knows our partitions, since the epoch began.
        self.announced = False
        self._stores: asyncio.Queue[wire.Store] = asyncio.Queue()
        #: Held while our partitions change, and while an offset is stored: one of before must not be stored after.
        self._changing = asyncio.Lock()
        self._pending: tuple[PartitionReader, asyncio.Task[list[ReceiveMessage]]] | None = None
        self._look_at = 0.0
        self._next = 0
        self._wake = asyncio.Event()
        self._errors = RepeatFilter()
        #: Since when Iggy fails; seconds, monotonic; 0 while it works.
        self._failing_since = 0.0
        #: Whether the log tells of it, and what the coordinator was told.
        self._said = False
        self._told = ""

    async def run(self) -> None:
        """Reads until cancelled."""
        await asyncio.gather(self._listen(), self._beat(), self._read(), self._carry_out_stores())

    async def _beat(self) -> None:
        startup_cpu = time.process_time()
        while True:
            await self._send(common.Heartbeat(self.name, os.getpid(), startup_cpu, self.dropped.count))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _send(self, message: Struct) -> None:
        self.control.send(common.encode(message))

    async def _listen(self) -> None:
        while True:
            for frames in await self.control.receive():
                try:
                    message = wire.read_control(frames)
                except wire.Malformed as error:
                    self.dropped.drop("coordinator", str(error))
                    continue
                if wrong := self.rules.control(message):
                    self.dropped.drop("coordinator", wrong)
                else:
                    self._take_order(message)
            self._wake.set()

    def _take_order(self, message: wire.Control) -> None:
        match message:
            case wire.Assign() as assignment:
                self.assignment = assignment
                self.seeks.clear()
            case wire.Seek(epoch=epoch, positions=positions):
                if epoch == self.epoch and self.assignment is None:
                    self.seeks += positions
            case wire.Unassigned(epoch=epoch, partitions=partitions):
                if epoch == self.epoch:
                    self.disowned += partitions
            case wire.Credit(epoch=epoch, messages=messages, bytes=size):
                if epoch >= self.epoch:
                    self.window_messages, self.window_bytes = messages, size
            case wire.Redeliver(ranges=ranges):
                # What is ordered now was cut, perhaps, from what was ordered before.
                known = set(ranges)
                self.rereads = [r for r in self.rereads if r in known or not any(_overlap(r, new) for new in ranges)]
                known.difference_update(self.rereads)
                self.rereads += [r for r in ranges if r in known]
            case wire.Store() as store:
                self._stores.put_nowait(store)
            case common.Drain():
                self.draining = True
            case wire.Allow(keys=keys):
                self.endpoints.admit(keys)
                self.control.send(common.encode(wire.Allowed(keys)))

    async def _carry_out_stores(self) -> None:
        """Stores offsets of the group as the coordinator says: only the connection that has joined may."""
        while True:
            store = await self._stores.get()
            async with self._changing:
                problem = await self._carry_out(store)
            await self._send(wire.Stored(store.epoch, store.where, store.log, store.offset, problem))

    async def _carry_out(self, store: wire.Store) -> str:
        """Stores an offset. Returns what was wrong, or ""."""
        reader = self.readers.get(store.where)
        if store.epoch != self.epoch or (reader is not None and reader.log != store.log):
            # The partition was with another member meanwhile, who may have stored a higher offset.
            return "the order is of before the partition was lost and came back"
        try:
            await self.iggy.store_offset(self.topics[store.where.topic], store.where.partition, store.offset)
        except IggyError as error:
            return str(error)
        return ""

    async def _read(self) -> None:
        while True:
            try:
                await self._step()
            except IggyError as error:
                await self._interrupted(error)
            else:
                await self._resumed()

    async def _interrupted(self, error: IggyError) -> None:
        """Says so, and waits a little."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if self._errors.allows(str(error), now):
            self._said = True
            self.logger.warning("reading is interrupted, trying again: %s", error)
        if self._told != str(error):
            self._told = str(error)
            await self._send(common.Retrying(self._told, paused=isinstance(error, IggyAuthenticationFailed)))
        self._look_at = 0.0
        await self._pause(ERROR_PAUSE_SECONDS)

    async def _resumed(self) -> None:
        """Says so, when a look at the topics has worked again."""
        if self._failing_since and self._look_at:
            if self._said:
                self.logger.info("reading goes on, after %.1f s", time.monotonic() - self._failing_since)
            await self._send(common.Retrying(""))
            self._failing_since, self._said, self._told = 0.0, False, ""

    async def _pause(self, seconds: float) -> None:
        """Waits until the coordinator says something, or `seconds` have passed."""
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass

    async def _step(self) -> None:
        """Does the one thing that is most urgent."""
        if self.assignment is None and not self.rereads and (self.draining or self._has_all()):
            await self._send(wire.Stopped())
            await self._pause(HEARTBEAT_SECONDS)
            return
        lost = self.iggy.generation
        await self.iggy.ensure_connected()
        if self.iggy.generation != lost:
            self._look_at = 0.0
        if self.assignment is not None:
            await self._take(self.assignment)
        if self.disowned:
            await self._forget_disowned()
        for position in self.seeks:
            self._seek(position)
        self.seeks.clear()
        if self.epoch and time.monotonic() >= self._look_at:
            await self._collect()
            async with self._changing:
                found = await self.watch.look(self.readers)
                over = self._change_partitions(found)
            await self._tell(found, over)
            self._look_at = time.monotonic() + self.look_seconds
        elif self.rereads and self.epoch:
            range_ = self.rereads[0]
            await self._read_again(range_)
            if range_ in self.rereads:  # it may have been cut meanwhile
                self.rereads.remove(range_)
        elif not self.draining and self.readers and self._window_open():
            await self._read_on()
        else:
            await self._pause(min(HEARTBEAT_SECONDS, self.look_seconds))

    def _has_all(self) -> bool:
        """Whether the limits of all partitions are reached, where there are limits."""
        return bool(self.plan.until) and self.announced and self.watch.all_there and all(
            reader.log >= 0 and reader.done and not reader.messages for reader in self.readers.values())

    def _window_open(self) -> bool:
        return self.dispatched_messages < self.window_messages and self.dispatched_bytes < self.window_bytes

    async def _take(self, assignment: wire.Assign) -> None:
        """Begins (again) where the coordinator says; what it doesn't name is found by the next look."""
        await self._collect()
        self.watch.newest |= {where: reader.newest for where, reader in self.readers.items()}
        self.readers = {position.where: PartitionReader(position.where, position.offset)
                        for position in assignment.positions}
        for position in assignment.positions:
            self.readers[position.where].seek(position)
        self.epoch = assignment.epoch
        self.dispatched_messages, self.dispatched_bytes = assignment.dispatched_messages, assignment.dispatched_bytes
        self.rereads = [r for r in self.rereads if r.epoch == self.epoch]
        self.announced = False
        self._look_at = 0.0
        if self.assignment is assignment:
            self.assignment = None

    async def _forget_disowned(self) -> None:
        """Reads on in what the coordinator counts to another only when a look has found it again."""
        await self._collect()
        for where in self.disowned:
            self.readers.pop(where, None)
        self.disowned.clear()
        self.announced = False  # so that it is found also where only what was there at the beginning counts
        self._look_at = 0.0

    def _seek(self, position: wire.Position) -> None:
        """Goes on in a partition; forgets what was to be read again of a log that is no more."""
        reader = self.readers.get(position.where)
        if reader is not None:
            reader.seek(position)
            self.rereads = [r for r in self.rereads if r.where != position.where or r.log == position.log
                            or r.last < position.offset]

    def _change_partitions(self, found: TopicChanges) -> list[PartitionReader]:
        """Gives up and takes partitions as a look has found. Returns the readers whose buffers are yet to be sent."""
        if self.plan.until and self.announced:
            found.new.clear()  # with limits, only what was there at the beginning counts
        for where in found.revoked_at_once:
            del self.readers[where]
        over = [self.readers.pop(where) for where in found.revoked]
        for beginning in found.truncated:
            over.append(self.readers[beginning.where])
            self.readers[beginning.where] = over[-1].successor(beginning.offset)
        for partition in found.new:
            where = partition.beginning.where
            reader = self.readers[where] = PartitionReader(where, partition.beginning.offset)
            reader.fresh, reader.created_at = partition.fresh, partition.created_at
            reader.newest = self.watch.newest.get(where, 0)
        return over

    async def _tell(self, found: TopicChanges, over: list[PartitionReader]) -> None:
        """Sends what is left of the readers that are given up, and tells the coordinator what a look has found."""
        if found.fatal:
            await self._send(wire.Failed(found.fatal))
        for reader in over:
            await self._flush(reader)
        if found.revoked_at_once:
            await self._send(wire.Revoked(self.epoch, found.revoked_at_once, at_once=True))
        if found.revoked:
            await self._send(wire.Revoked(self.epoch, found.revoked))
        for beginning in found.truncated:
            await self._send(wire.Truncated(self.epoch, beginning.where, beginning.offset, beginning.stored,
                                            beginning.end))
        if found.new or not self.announced:
            await self._send(wire.Started(self.epoch, [partition.beginning for partition in found.new]))
            self.announced = True
        await self._send(wire.Progress([end for end in found.ends if end[0] in self.readers]))

    async def _flush(self, reader: PartitionReader) -> None:
        """Dispatches what was polled, whatever the window says: there is at most a batch of it."""
        while reader.messages:
            await self._dispatch(reader)

    async def _collect(self) -> None:
        """Waits for the poll that is under way, and takes its answer. A call that is broken off would cost the
        connection."""
        if self._pending is not None:
            reader, task = self._pending
            self._pending = None
            await self._add(reader, await task)

    async def _add(self, reader: PartitionReader, messages: list[ReceiveMessage]) -> None:
        gap = reader.add(messages, time.monotonic())
        if gap is not None:
            source = self.topics[reader.where.topic]
            self.logger.error("%s/%s partition %d: offsets %d to %d have expired in Iggy before they were read; "
                              "they are lost. Give the topic a longer message_expiry, or the pipeline more workers",
                              source.stream, source.topic, reader.where.partition, *gap)
            await self._send(wire.Gap(self.epoch, reader.where, *gap))

    async def _read_on(self) -> None:
        """Takes one poll's answer, starts the next poll, and sends what has become a batch."""
        if self._pending is None:
            self._start_poll()
        if self._pending is not None:
            reader, task = self._pending
            self._pending = None
            messages = await task
            if len(self.readers) > 1:
                self._start_poll(after=reader)
            await self._add(reader, messages)
        now = time.monotonic()
        flush = self.options.flush_interval_ms / 1000
        # Waiting for a batch to fill pays while others are on their way; when none is, it is only a delay.
        idle = self.window_messages - self.window_share >= self.dispatched_messages
        for ready in self.readers.values():
            while ready.messages and self._window_open() and not self.draining and (
                    len(ready.messages) >= self.options.batch_size or ready.bytes >= self.options.max_batch_bytes
                    or idle or now - ready.since >= flush or ready.done):
                await self._dispatch(ready)
        if self._pending is None and not self._start_poll():
            due = [r.due_at for r in self.readers.values() if r.readable]
            due += [r.since + flush for r in self.readers.values() if r.messages]
            await self._pause(max(0.001, min([*due, now + HEARTBEAT_SECONDS]) - now))

    def _start_poll(self, after: PartitionReader | None = None) -> bool:
        """Polls the next partition in turn that is due and has room. False when there is none."""
        now = time.monotonic()
        readers = list(self.readers.values())
        for step in range(len(readers)):
            reader = readers[(self._next + step) % len(readers)]
            full = len(reader.messages) >= self.options.batch_size or reader.bytes >= self.options.max_batch_bytes
            if reader is after or reader.due_at > now or full or not reader.readable:
                continue
            self._next = (self._next + step + 1) % len(readers)
            count = reader.wanted(self.options.batch_size, self.options.max_batch_bytes)
            source = self.topics[reader.where.topic]
            reader.asked = count
            self._pending = reader, asyncio.ensure_future(
                self.iggy.poll(source, reader.where.partition, reader.position, count))
            return True
        return False

    async def _dispatch(self, reader: PartitionReader) -> None:
        size = reader.bytes
        quarantined = bool(reader.suspects) and reader.is_quarantined(reader.messages[0].offset())
        messages, payloads = reader.cut(self.options.batch_size, self.options.max_batch_bytes)
        range_ = wire.Range(self.epoch, reader.where, messages[0].offset(), messages[-1].offset(), len(messages),
                            size - reader.bytes, reader.log, self.index)
        if self.plan.until == "once":
            reader.stop_at(range_.last + 1)
        self.dispatched_messages += range_.messages
        self.dispatched_bytes += range_.bytes
        await self._send(wire.Dispatched(range_, messages[-1].timestamp()))
        if not quarantined:
            await self._send_batch(range_, messages, payloads)

    async def _send_batch(self, range_: wire.Range, messages: list[ReceiveMessage], payloads: list[bytes],
                          again: bool = False) -> None:
        contiguous = messages[-1].offset() - messages[0].offset() + 1 == len(messages)
        timestamps = None
        if self.needs_timestamps[range_.where.topic]:
            timestamps = times_of(messages, self.mappings[self.topics[range_.where.topic].sink])
        names = self.needs_headers[range_.where.topic]
        batch = wire.Batch(
            range_, first=messages[0].offset(),
            offsets=None if contiguous else [message.offset() for message in messages], timestamps=timestamps,
            headers=[header_values(message, names) for message in messages] if names else None, again=again)
        frames = cut([common.encode(batch), payload_frame.joined(payloads), payload_frame.lengths(payloads)])
        await self.push.send_multipart(frames, copy=False)

    async def _read_again(self, range_: wire.Range) -> None:
        """Sends the range's messages once more, all that the log still has, as the same range."""
        if range_.epoch != self.epoch or range_.where not in self.readers:
            return
        source = self.topics[range_.where.topic]
        try:
            messages = await self._poll_range(range_)
        except IggyNotFound:
            return  # the topic, for now: the look says so, and the coordinator asks again
        if len(messages) < range_.messages and source.group \
                and range_.where.partition not in (await self.iggy.assignment(source) or []):
            return  # it goes to another member, who begins at the stored offset
        if len(messages) < range_.messages:
            self.logger.error("%s/%s partition %d: of offsets %d to %d, which had to be read again, the log now has "
                              "only %d messages; the rest is gone from Iggy", source.stream, source.topic,
                              range_.where.partition, range_.first, range_.last, len(messages))
        if messages:
            await self._send_batch(range_, messages, [message.payload() for message in messages], again=True)
        else:
            await self._send(wire.Settled(range_, 0, 0, []))

    async def _poll_range(self, range_: wire.Range) -> list[ReceiveMessage]:
        """The messages of a range that the log has now."""
        source = self.topics[range_.where.topic]
        messages: list[ReceiveMessage] = []
        position = range_.first
        while position <= range_.last:
            polled = await self.iggy.poll(source, range_.where.partition, position, range_.last - position + 1)
            messages += [message for message in polled if message.offset() <= range_.last]
            if not polled:
                break
            position = polled[-1].offset() + 1
        return messages


def _overlap(one: wire.Range, other: wire.Range) -> bool:
    return (one.epoch, one.where, one.log) == (other.epoch, other.where, other.log) and (
        one.first <= other.last and other.first <= one.last)
