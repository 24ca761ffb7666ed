"""Ingest: polls Iggy, cuts batches, tells the coordinator of each before it sends it to the encoders.

One task polls (the next poll is under way while the last one's messages are packed); another listens to the
coordinator. Ingest keeps nothing that it couldn't read again.
"""

import asyncio
import logging
import os
import time

import zmq
import zmq.asyncio
from apache_iggy import ReceiveMessage, UserHeaders
from msgspec import Struct

from pipeline import bulk, wire
from pipeline.child import HELLO_SECONDS, Plan
from pipeline.config import start_position
from pipeline.endpoints import Endpoints
from pipeline.iggy import IggyConnection, IggyError
from pipeline.logs import Muffler

#: Pause after an empty poll, seconds: from the first to the longest, growing by the factor.
EMPTY_PAUSE_SECONDS = 0.005
EMPTY_PAUSE_MAX_SECONDS = 0.25
EMPTY_PAUSE_FACTOR = 1.5
#: Seconds between two looks at where the logs end.
PROGRESS_SECONDS = 2.0
#: Pause after an error, seconds.
ERROR_PAUSE_SECONDS = 0.5
#: Messages asked for in the first poll of a partition, while their size isn't known.
FIRST_POLL_MESSAGES = 500
#: Batches queued for an encoder, at most.
SEND_HIGH_WATER_MARK = 1


def run_ingest(name: str, index: int, plan: Plan, logger: logging.Logger) -> None:
    """Runs ingest until the process is killed."""
    asyncio.run(IngestStage(plan, logger).run())


class PartitionReader:
    """Where ingest stands in one partition, and the messages polled that aren't a batch yet."""

    def __init__(self, where: wire.Partition, position: int) -> None:
        self.where = where
        #: Next offset to poll.
        self.position = position
        self.messages: list[ReceiveMessage] = []
        self.payloads: list[bytes] = []
        self.bytes = 0
        #: When the oldest message in the buffer came; seconds, monotonic.
        self.since = 0.0
        #: Not polled before this; seconds, monotonic.
        self.due_at = 0.0
        self.pause = EMPTY_PAUSE_SECONDS
        #: Mean payload size, bytes, 0 when unknown.
        self.mean_bytes = 0.0

    def add(self, messages: list[ReceiveMessage], now: float) -> None:
        """Takes the answer of a poll."""
        if not messages:
            self.due_at = now + self.pause
            self.pause = min(self.pause * EMPTY_PAUSE_FACTOR, EMPTY_PAUSE_MAX_SECONDS)
            return
        self.pause = EMPTY_PAUSE_SECONDS
        if not self.messages:
            self.since = now
        payloads = [message.payload() for message in messages]
        size = sum(map(len, payloads))
        self.mean_bytes = size / len(payloads)
        self.messages += messages
        self.payloads += payloads
        self.bytes += size
        self.position = messages[-1].offset() + 1

    def wanted(self, batch_size: int, max_bytes: int) -> int:
        """How many messages to ask for: what the batch lacks, within its bytes."""
        room = batch_size - len(self.messages)
        if not self.mean_bytes:
            return min(room, FIRST_POLL_MESSAGES)
        return max(1, min(room, int((max_bytes - self.bytes) / max(self.mean_bytes, 1.0))))

    def cut(self, batch_size: int, max_bytes: int) -> tuple[list[ReceiveMessage], list[bytes]]:
        """Takes the next batch out of the buffer: at most `batch_size` messages and `max_bytes`, but at least one."""
        count = min(batch_size, len(self.payloads))
        if self.bytes > max_bytes:
            size = 0
            for index in range(count):
                size += len(self.payloads[index])
                if size > max_bytes and index:
                    count = index
                    break
        if count == len(self.payloads):
            whole = self.messages, self.payloads
            self.messages, self.payloads, self.bytes = [], [], 0
            return whole
        messages, payloads = self.messages[:count], self.payloads[:count]
        self.messages, self.payloads = self.messages[count:], self.payloads[count:]
        self.bytes -= sum(map(len, payloads))
        return messages, payloads


class IngestStage:
    """One per pipeline; reads all partitions of all configured topics in turn."""

    def __init__(self, plan: Plan, logger: logging.Logger) -> None:
        self.plan = plan
        self.logger = logger
        self.iggy = IggyConnection(plan.config.iggy)
        self.options = plan.config.pipeline
        self.topics = plan.config.subscriptions()
        mappings = [sink.mapping for sink in plan.config.all_sinks()]
        #: By topic: whether the mapping asks for the messages' own times, and for which.
        self.needs_timestamps = [mappings[topic.sink].needs_timestamps() for topic in self.topics]
        self.needs_origin = [mappings[topic.sink].timestamp_from == "origin_timestamp" for topic in self.topics]
        #: By topic: the user headers that become tags.
        self.needs_headers = [tuple(mappings[topic.sink].header_tags) for topic in self.topics]
        endpoints = Endpoints(plan.folder)
        context = zmq.asyncio.Context.instance()
        self.control = context.socket(zmq.DEALER)
        self.control.setsockopt(zmq.IDENTITY, b"ingest")
        self.control.setsockopt(zmq.SNDHWM, 0)
        self.control.connect(endpoints.control)
        self.push = context.socket(zmq.PUSH)
        self.push.setsockopt(zmq.SNDHWM, SEND_HIGH_WATER_MARK)
        self.push.bind(endpoints.batches)
        self.readers: list[PartitionReader] = []
        self.epoch = 0
        self.dispatched_messages = self.dispatched_bytes = 0
        self.window_messages = self.window_bytes = 0
        self.rereads: list[wire.Range] = []
        self.assignment: wire.Assign | None = None
        self.draining = False
        #: Where partitions without a stored offset began, so that "latest" means one moment for this process.
        self.starts: dict[wire.Partition, int] = {}
        self._pending: tuple[PartitionReader, asyncio.Task[list[ReceiveMessage]]] | None = None
        self._next = 0
        self._wake = asyncio.Event()
        self._errors = Muffler()

    async def run(self) -> None:
        """Reads until cancelled."""
        await asyncio.gather(self._listen(), self._beat(), self._tell_progress(), self._read())

    async def _beat(self) -> None:
        startup_cpu = time.process_time()
        while True:
            await self._send(wire.Hello("ingest", os.getpid(), startup_cpu))
            await asyncio.sleep(HELLO_SECONDS)

    async def _tell_progress(self) -> None:
        """Tells the coordinator where the logs end. An error here is one that polling meets, and reports, too."""
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            if not self.epoch:
                continue
            try:
                ends = [(wire.Partition(index, p.id), p.current_offset if p.messages_count else -1)
                        for index, source in enumerate(self.topics)
                        for p in (await self.iggy.topic(source)).partitions]
            except IggyError:
                continue
            await self._send(wire.Progress(ends))

    async def _send(self, message: Struct) -> None:
        await self.control.send(wire.encode(message))

    async def _listen(self) -> None:
        while True:
            match wire.decode_control(await self.control.recv()):
                case wire.Assign() as assignment:
                    self.assignment = assignment
                case wire.Window(epoch=epoch, messages=messages, bytes=size):
                    if epoch >= self.epoch:
                        self.window_messages, self.window_bytes = messages, size
                case wire.Reread(ranges=ranges):
                    known = {(r.epoch, r.where, r.first) for r in self.rereads}
                    self.rereads += [r for r in ranges if (r.epoch, r.where, r.first) not in known]
                case wire.Drain():
                    self.draining = True
            self._wake.set()

    async def _read(self) -> None:
        while True:
            try:
                await self._step()
            except IggyError as error:
                self._drop_pending()
                if self._errors.allows(str(error), time.monotonic()):
                    self.logger.warning("reading is interrupted, trying again: %s", error)
                await self._pause(ERROR_PAUSE_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Waits until the coordinator says something, or `seconds` have passed."""
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass

    async def _step(self) -> None:
        """Does the one thing that is most urgent."""
        if self.assignment is not None:
            await self._take(self.assignment)
        elif self.rereads and self.epoch:
            await self._read_again(self.rereads[0])
            del self.rereads[:1]
        elif self.draining:
            self._drop_pending()
            await self._send(wire.Stopped())
            await self._pause(HELLO_SECONDS)
        elif not self.readers or not self._window_open():
            await self._pause(HELLO_SECONDS)
        else:
            await self._read_on()

    def _window_open(self) -> bool:
        return self.dispatched_messages < self.window_messages and self.dispatched_bytes < self.window_bytes

    async def _take(self, assignment: wire.Assign) -> None:
        """Begins (again) where the coordinator says, or else after the stored offset, or at `start_from`."""
        self._drop_pending()
        try:
            self.iggy.client  # noqa: B018  raises when not connected yet
        except IggyError:
            await self.iggy.connect()
        known = dict(assignment.positions)
        readers, started = [], []
        for index, source in enumerate(self.topics):
            for partition in (await self.iggy.topic(source)).partitions:
                where = wire.Partition(index, partition.id)
                if where not in known:
                    stored = await self.iggy.stored_offset(source, partition.id)
                    known[where] = stored + 1 if stored >= 0 else await self._first_position(where)
                    started.append((where, known[where], stored))
                readers.append(PartitionReader(where, known[where]))
        self.readers = sorted(readers, key=lambda reader: (reader.where.topic, reader.where.partition))
        self.epoch = assignment.epoch
        self.dispatched_messages, self.dispatched_bytes = assignment.dispatched_messages, assignment.dispatched_bytes
        self.rereads = [r for r in self.rereads if r.epoch == self.epoch]
        if self.assignment is assignment:
            self.assignment = None
        await self._send(wire.Started(self.epoch, started))

    async def _first_position(self, where: wire.Partition) -> int:
        if where not in self.starts:
            self.starts[where] = await self._resolve_start(where)
        return self.starts[where]

    async def _resolve_start(self, where: wire.Partition) -> int:
        source = self.topics[where.topic]
        kind, value = start_position(source.start_from)
        if kind == "earliest":
            return 0
        if kind == "offset":
            return value
        if kind == "timestamp":
            found = await self.iggy.first_since(source, where.partition, value)
            if found is not None:
                return found.offset()
        details = next(p for p in (await self.iggy.topic(source)).partitions if p.id == where.partition)
        return details.current_offset + 1 if details.messages_count else 0

    async def _read_on(self) -> None:
        """Takes one poll's answer, starts the next poll, and sends what has become a batch."""
        if self._pending is None:
            self._start_poll()
        now = time.monotonic()
        if self._pending is not None:
            reader, task = self._pending
            self._pending = None
            messages = await task
            now = time.monotonic()
            reader.position = messages[-1].offset() + 1 if messages else reader.position
            if len(self.readers) > 1:
                self._start_poll(after=reader)
            reader.add(messages, now)
        flush = self.options.flush_interval_ms / 1000
        for ready in self.readers:
            while ready.messages and self._window_open() and not self.draining and (
                    len(ready.messages) >= self.options.batch_size or ready.bytes >= self.options.max_batch_bytes
                    or now - ready.since >= flush):
                await self._dispatch(ready)
        if self._pending is None and not self._start_poll():
            due = [r.due_at for r in self.readers] + [r.since + flush for r in self.readers if r.messages]
            await self._pause(max(0.001, min(due) - now))

    def _start_poll(self, after: PartitionReader | None = None) -> bool:
        """Polls the next partition in turn that is due and has room. False when there is none."""
        now = time.monotonic()
        for step in range(len(self.readers)):
            reader = self.readers[(self._next + step) % len(self.readers)]
            full = len(reader.messages) >= self.options.batch_size or reader.bytes >= self.options.max_batch_bytes
            if reader is after or reader.due_at > now or full:
                continue
            self._next = (self._next + step + 1) % len(self.readers)
            count = reader.wanted(self.options.batch_size, self.options.max_batch_bytes)
            source = self.topics[reader.where.topic]
            self._pending = reader, asyncio.ensure_future(
                self.iggy.poll(source, reader.where.partition, reader.position, count))
            return True
        return False

    def _drop_pending(self) -> None:
        if self._pending is not None:
            self._pending[1].cancel()
            self._pending = None

    async def _dispatch(self, reader: PartitionReader) -> None:
        messages, payloads = reader.cut(self.options.batch_size, self.options.max_batch_bytes)
        range_ = wire.Range(self.epoch, reader.where, messages[0].offset(), messages[-1].offset(), len(messages),
                            sum(map(len, payloads)))
        self.dispatched_messages += range_.messages
        self.dispatched_bytes += range_.bytes
        await self._send(wire.Dispatched(range_))
        await self._send_batch(range_, messages, payloads)

    async def _send_batch(self, range_: wire.Range, messages: list[ReceiveMessage], payloads: list[bytes]) -> None:
        contiguous = messages[-1].offset() - messages[0].offset() + 1 == len(messages)
        timestamps = None
        if self.needs_timestamps[range_.where.topic]:
            origin = self.needs_origin[range_.where.topic]
            timestamps = [m.origin_timestamp() if origin else m.timestamp() for m in messages]
        names = self.needs_headers[range_.where.topic]
        batch = wire.Batch(
            range_, first=messages[0].offset(),
            offsets=None if contiguous else [message.offset() for message in messages], timestamps=timestamps,
            headers=[header_values(message, names) for message in messages] if names else None)
        await self.push.send_multipart([wire.encode(batch), bulk.joined(payloads), bulk.lengths(payloads)], copy=False)

    async def _read_again(self, range_: wire.Range) -> None:
        """Sends the range's messages once more, all that the log still has, as the same range."""
        if range_.epoch != self.epoch:
            return
        source = self.topics[range_.where.topic]
        messages: list[ReceiveMessage] = []
        position = range_.first
        while position <= range_.last:
            polled = await self.iggy.poll(source, range_.where.partition, position, range_.last - position + 1)
            messages += [message for message in polled if message.offset() <= range_.last]
            if not polled:
                break
            position = polled[-1].offset() + 1
        if len(messages) < range_.messages:
            self.logger.error("%s/%s partition %d: of offsets %d to %d the log now has only %d messages; the rest is "
                              "gone from Iggy", source.stream, source.topic, range_.where.partition, range_.first,
                              range_.last, len(messages))
        if messages:
            await self._send_batch(range_, messages, [message.payload() for message in messages])
        else:
            await self._send(wire.Settled(range_, 0, 0, []))


def header_values(message: ReceiveMessage, names: tuple[str, ...]) -> tuple[str, ...]:
    """The values of a message's user headers as texts; "" for one that is missing, or cannot be read."""
    try:
        headers = (message.user_headers() or UserHeaders()).to_scalar_dict()
    except ValueError:
        headers = {}
    return tuple([header_text(headers.get(name, "")) for name in names])


def header_text(value: str | bytes | bool | int | float) -> str:
    """A header's value as a tag has it: true and false in lower case, bytes as the UTF-8 that they may be."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
