"""Produce: sends messages to Iggy, the pages of each measurement in their order, and confirms a page when Iggy has.

A page that comes again, because a process died, is confirmed and not sent again, unless it is another one by now.
"""

import asyncio
import logging
import os
import time
from collections import OrderedDict
from datetime import UTC, datetime

import msgspec
import zmq
import zmq.asyncio
from msgspec import Struct

from pipeline.backoff import Backoff
from pipeline.config.plan import Plan
from pipeline.config.source_schema import OutputConfig, SourceConfig
from pipeline.coordinator.reject_log import RejectLog
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyAuthenticationFailed, IggyError
from pipeline.logs import RepeatFilter
from pipeline.points.table import BadRow
from pipeline.sockets.control_link import HEARTBEAT_SECONDS
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.intake import Dropped
from pipeline.sockets.source_rules import SourceRules
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire
from pipeline.wire.frames import cut
from stages.produce.batching import SEND_BYTES, BatchOptions, Send, make_sends, parts_of

#: Pages taken in from each converter beyond those that wait for their turn.
HIGH_WATER_MARK = 1
#: Pauses between tries while Iggy is away, seconds.
RETRY_SECONDS, RETRY_MAX_SECONDS = 0.2, 10.0
#: Pages of a lane that wait for their turn, and lanes whose first page comes before the coordinator has told of them,
#: at most.
MAX_WAITING, MAX_UNKNOWN = 2_000, 100_000
#: Pages of a lane whose end is remembered after they were sent.
REMEMBERED_PAGES = 1_000
#: Of a row that could not be converted, so many characters are logged.
ROW_CHARACTERS = 200


class BadRowLetter(Struct, frozen=True, kw_only=True):
    """A row that no message can be made of, as it goes to `dead_letter_topic`."""

    #: When it was given up, RFC 3339.
    time: str
    source: str
    measurement: str
    reason: str
    detail: str
    row: str


class _Page(Struct):
    """A page that waits to be sent, or is being sent."""

    head: source_wire.Messages
    bulk: bytes


class _Lane:
    """One measurement's pages, in order."""

    def __init__(self, lane: source_wire.MeasurementId, config: SourceConfig) -> None:
        self.lane = lane
        self.config = config
        names = {"measurement": lane.measurement, "source": config.name}
        self.stream, self.topic = filled(config.output.stream, names), filled(config.output.topic, names)
        self.headers = {key: filled(text, names) for key, text in config.output.headers.items()} or None
        #: Number of the next page; None until the coordinator has told it.
        self.next: int | None = None
        self.waiting: dict[int, _Page] = {}
        #: Number -> end of the pages that Iggy has.
        self.sent: OrderedDict[int, int] = OrderedDict()
        self.task: asyncio.Task[None] | None = None
        self.partitions = 0


def filled(template: str, names: dict[str, str]) -> str:
    """A template with {measurement} and {source} replaced; braces in what replaces them mean nothing."""
    parts = template.split("{measurement}")
    return names["measurement"].join(part.replace("{source}", names["source"]) for part in parts)


def packing_of(output: OutputConfig) -> BatchOptions:
    """How the messages of an output are put into sends."""
    return BatchOptions(partitioning=output.partitioning, partition=output.partition, batch_points=output.batch_points,
                   format=output.format, gzip=output.compression == "gzip", send_messages=output.send_messages,
                   max_bytes=output.max_message_bytes)


class ProduceStage:
    """One per pipeline; a task for each measurement that has something to send."""

    def __init__(self, name: str, plan: Plan, logger: logging.Logger) -> None:
        self.name = name
        self.logger = logger
        self.rules = SourceRules(plan)
        self.sources = plan.config.source
        self.iggy = IggyConnection(plan.config.iggy)
        endpoints = Endpoints(plan.folder)
        context = zmq.asyncio.Context.instance()
        self.control = context.socket(zmq.DEALER)
        self.control.setsockopt(zmq.IDENTITY, name.encode())
        self.control.setsockopt(zmq.SNDHWM, 0)
        endpoints.connect(self.control, endpoints.source_control)
        self.dropped = Dropped(logger)
        self.pull = context.socket(zmq.PULL)
        self.pull.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        endpoints.bind(self.pull, endpoints.messages)
        #: Set to what ends this process.
        self._failure: asyncio.Future[None]
        self.epoch = 0
        self.lanes: dict[source_wire.MeasurementId, _Lane] = {}
        self._packings = [packing_of(source.output) for source in self.sources]
        self._bulk = msgspec.msgpack.Decoder(tuple[list[bytes], list[int]])
        #: Lanes whose sends fail.
        self._failing: set[source_wire.MeasurementId] = set()
        self._errors = RepeatFilter()
        self._rejects = RejectLog(logger, "rows")
        #: Several lanes see a connection lost at once; one of them makes the new one.
        self._connecting = asyncio.Lock()

    async def run(self) -> None:
        """Sends until the process is killed."""
        self._failure = asyncio.get_running_loop().create_future()
        await asyncio.gather(self._beat(), self._listen(), self._receive(), self._failure)

    async def _beat(self) -> None:
        startup_cpu = time.process_time()
        while True:
            self._rejects.tell(time.monotonic())
            await self._send(common.Heartbeat(self.name, os.getpid(), startup_cpu, self.dropped.count))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _send(self, message: Struct) -> None:
        await self.control.send_multipart(cut([common.encode(message)]))

    async def _listen(self) -> None:
        while True:
            frames = await self.control.recv_multipart()
            try:
                message = source_wire.read_control(frames)
                wrong = self.rules.control(message)
            except wire.Malformed as error:
                wrong = str(error)
            if wrong:
                self.dropped.drop("source-coordinator", wrong)
            elif isinstance(message, source_wire.StartPages):
                self._begin_epoch(message.epoch)
                for where, seq in message.lanes if message.epoch == self.epoch else []:
                    lane = self._lane(where)
                    if lane.next is None:
                        lane.next = seq
                    self._pump(lane)

    def _begin_epoch(self, epoch: int) -> None:
        """A new coordinator begins anew; what an older one ordered is dropped."""
        if epoch > self.epoch:
            self.epoch = epoch
            for lane in self.lanes.values():
                if lane.task is not None:
                    lane.task.cancel()
            self.lanes.clear()
            self._failing.clear()

    def _lane(self, where: source_wire.MeasurementId) -> _Lane:
        lane = self.lanes.get(where)
        if lane is None:
            lane = self.lanes[where] = _Lane(where, self.sources[where.source])
        return lane

    async def _receive(self) -> None:
        while True:
            frames = await self.pull.recv_multipart()
            try:
                messages, bulk = source_wire.read_messages(frames)
                wrong = self.rules.messages(messages)
            except wire.Malformed as error:
                wrong = str(error)
            if wrong:
                self.dropped.drop("convert", wrong)
                continue
            self._begin_epoch(messages.id.epoch)
            if messages.id.epoch == self.epoch:
                lane = self._lane(messages.id.lane)
                if len(lane.waiting) > MAX_WAITING or len(self.lanes) > MAX_UNKNOWN and lane.next is None:
                    self.dropped.drop("convert", "pages that nobody has ordered")
                    continue
                earlier = lane.waiting.get(messages.id.seq)
                # Of an older try, read before a process was replaced, nobody waits for the confirmation.
                if earlier is None or earlier.head.id.attempt <= messages.id.attempt:
                    lane.waiting[messages.id.seq] = _Page(messages, bulk)
                self._pump(lane)

    def _pump(self, lane: _Lane) -> None:
        if lane.task is None or lane.task.done():
            lane.task = asyncio.get_running_loop().create_task(self._send_waiting(lane))
            lane.task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A lane's task is over; what it failed from ends the process."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def _send_waiting(self, lane: _Lane) -> None:
        """Sends what has its turn."""
        while lane.next is not None:
            seq = next((seq for seq in sorted(lane.waiting) if seq <= lane.next), None)
            if seq is None:
                return
            page = lane.waiting.pop(seq)
            head = page.head
            if lane.sent.get(seq) == head.end:
                messages = size = 0
            else:
                try:
                    payloads, series = self._bulk.decode(page.bulk)
                    if len(payloads) != len(series):
                        raise ValueError("not as many series as messages")
                except (msgspec.MsgspecError, ValueError) as error:
                    # It is not confirmed, so it is read again.
                    self.dropped.drop("convert", f"no messages: {error}")
                    return
                page.bulk = b""
                messages, size = await self._send_page(lane, head, payloads, series)
            lane.sent[seq] = head.end
            if len(lane.sent) > REMEMBERED_PAGES:
                lane.sent.popitem(last=False)
            lane.next = max(lane.next, seq + 1)
            await self._send(source_wire.PageConfirmed(head.id, head.points - head.repeated, messages, size,
                                                       len(head.bad),
                                              head.repeated, head.prints))

    async def _send_page(self, lane: _Lane, head: source_wire.Messages, payloads: list[bytes],
                         series: list[int]) -> tuple[int, int]:
        """All messages of a page, however long that takes. Returns their number and bytes."""
        output = lane.config.output
        sends: list[Send] = []
        backoff = Backoff(RETRY_SECONDS, 2.0, RETRY_MAX_SECONDS, lambda: 1.0)
        letters = [self._letter(lane, bad) for bad in head.bad] if output.dead_letter_topic else []
        packed, messages, size = False, 0, 0
        while True:
            try:
                async with self._connecting:
                    await self.iggy.ensure_connected()
                if payloads and not packed:
                    sends = make_sends(payloads, series, await self._partitions(lane), self._packings[lane.lane.source])
                    packed = True
                    messages = sum(len(send.payloads) for send in sends)
                    size = sum(len(payload) for send in sends for payload in send.payloads)
                await self._send_all(lane, sends)
                if letters:
                    await self.iggy.make_topic(lane.stream, output.dead_letter_topic)
                    for part in parts_of(letters, output.send_messages, SEND_BYTES):
                        await self.iggy.send(lane.stream, output.dead_letter_topic, part)
                        del letters[:len(part)]
                break
            except IggyError as error:
                lane.partitions = 0
                sends = [send for send in sends if send.payloads]
                await self._wait(lane, error, backoff)
        if lane.lane in self._failing:
            self._failing.discard(lane.lane)
            if not self._failing:
                await self._send(common.Retrying(""))
        self._log_bad(lane, head.bad)
        return messages, size

    async def _partitions(self, lane: _Lane) -> int:
        """How many partitions the lane's topic has; it is made if it is missing. Raises IggyError."""
        if not lane.partitions:
            await self.iggy.make_topic(lane.stream, lane.topic, lane.config.output.partitions)
            lane.partitions = await self.iggy.partitions(lane.stream, lane.topic)
            if not lane.partitions:
                raise IggyError(f"topic {lane.stream}/{lane.topic} is gone")
        return lane.partitions

    async def _send_all(self, lane: _Lane, sends: list[Send]) -> None:
        """The partitions side by side, each in order. What is sent is emptied. Raises IggyError."""
        queues: dict[int | None, list[Send]] = {}
        for send in sends:
            queues.setdefault(send.partition, []).append(send)

        async def one_partition(queue: list[Send]) -> None:
            for send in queue:
                if send.payloads:
                    await self.iggy.send(lane.stream, lane.topic, send.payloads, send.partition, lane.headers)
                    send.payloads.clear()

        results = await asyncio.gather(*map(one_partition, queues.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _wait(self, lane: _Lane, error: IggyError, backoff: Backoff) -> None:
        pause = backoff.next()
        self._failing.add(lane.lane)
        await self._send(common.Retrying(f"messages can't be sent: {error}",
                                         paused=isinstance(error, IggyAuthenticationFailed)))
        if self._errors.allows(str(error), time.monotonic()):
            self.logger.error("source %s: messages to %s/%s can't be sent, nothing is lost, next try in %.1f s: %s",
                              lane.config.name, lane.stream, lane.topic, pause, error)
        await asyncio.sleep(pause)

    def _letter(self, lane: _Lane, bad: BadRow) -> bytes:
        return msgspec.json.encode(BadRowLetter(
            time=datetime.now(UTC).isoformat(), source=lane.config.name, measurement=lane.lane.measurement,
            reason=bad.reason, detail=bad.detail, row=bad.row))

    def _log_bad(self, lane: _Lane, bad: list[BadRow]) -> None:
        for row in bad:
            self._rejects.add(f"{lane.config.name}/{lane.lane.measurement}", f"row {row.row[:ROW_CHARACTERS]}",
                              row.reason, row.detail, time.monotonic())


def run_produce(name: str, plan: Plan, logger: logging.Logger) -> None:
    """Runs the stage until the process is killed."""
    asyncio.run(ProduceStage(name, plan, logger).run())
