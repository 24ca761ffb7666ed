"""Produce: sends messages to Iggy, the pages of each measurement in order, and confirms each page to the coordinator.

A page that is received again, because a process died, is confirmed without sending it again, unless it has changed.
"""

import asyncio
import logging
import time

import msgspec
import zmq
import zmq.asyncio

from pipeline.config.plan import Plan
from pipeline.config.source_schema import SourceConfig
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyAuthenticationFailed, IggyError
from pipeline.plan_updates import PlanUpdates
from pipeline.points.table import BadRow
from pipeline.reject_log import RejectLog
from pipeline.sockets.control_link import AsyncControlLink
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.source_rules import SourceRules
from pipeline.sockets.tap_socket import TapPublisher
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire
from stages.produce.pages import Page, PageQueue
from stages.produce.sender import Delivery, IggyLink, PageSender

#: Pages queued for each converter beyond those that wait for their turn.
HIGH_WATER_MARK = 1
#: Bytes of messages that wait; beyond that, nothing more is received while something is being sent.
MAX_QUEUED_BYTES = 64_000_000
#: Measurements that may have pages before the coordinator has announced them.
MAX_UNKNOWN = 100_000
#: Seconds between two checks whether a summary of rejected rows is due.
SUMMARY_CHECK_SECONDS = 1.0
#: Characters of a rejected row that are logged.
ROW_CHARACTERS = 200


class _Measurement:
    """One measurement: its pages, and the task that sends them while there are any."""

    def __init__(self, id_: source_wire.MeasurementId, config: SourceConfig) -> None:
        self.id = id_
        self.config = config
        self.queue = PageQueue(config.keep_order)
        self.sender: PageSender
        self.task: asyncio.Task[None] | None = None
        #: What Iggy has confirmed of pages of which it does not have the last part yet, by their number.
        self.parts: dict[int, source_wire.PageConfirmed] = {}


class ProduceStage:
    """One per pipeline; a task for each measurement that has something to send."""

    def __init__(self, name: str, plan: Plan, logger: logging.Logger) -> None:
        self.rules = SourceRules(plan)
        self.sources = plan.config.sources
        endpoints = Endpoints(plan.folder)
        self._iggy = IggyLink(IggyConnection(plan.config.iggy), logger,
                              TapPublisher(endpoints, endpoints.source_tap))
        self.link = AsyncControlLink(endpoints, endpoints.source_control, name, source_wire.read_control,
                                     self.rules.control)
        self.pull = zmq.asyncio.Context.instance().socket(zmq.PULL)
        self.pull.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        endpoints.bind(self.pull, endpoints.messages)
        #: Completed with the exception that ends this process.
        self._failure: asyncio.Future[None]
        self.epoch = 0
        self.measurements: dict[source_wire.MeasurementId, _Measurement] = {}
        self._bulk = msgspec.msgpack.Decoder(tuple[list[bytes], list[int]])
        #: Measurements whose last attempt to send has failed.
        self._failing: set[source_wire.MeasurementId] = set()
        self._rejects = RejectLog(logger, "rows")
        #: Set when something was sent.
        self._progress = asyncio.Event()

    async def run(self) -> None:
        """Sends until the process is killed."""
        self._failure = asyncio.get_running_loop().create_future()
        await asyncio.gather(self.link.send_heartbeats(), self._summarize_rejects(), self._listen(), self._receive(),
                             self._failure)

    async def _summarize_rejects(self) -> None:
        while True:
            self._rejects.summarize(time.monotonic())
            await asyncio.sleep(SUMMARY_CHECK_SECONDS)

    async def _listen(self) -> None:
        """Receives from the coordinator where the pages of each measurement start."""
        while True:
            for message in await self.link.receive():
                if isinstance(message, source_wire.StartPages):
                    self._begin_epoch(message.epoch)
                    for id_, position in message.measurements if message.epoch == self.epoch else []:
                        measurement = self._measurement(id_)
                        if measurement.queue.position is None:
                            measurement.queue.position = position
                        self._start_sending(measurement)

    def _begin_epoch(self, epoch: int) -> None:
        """Drops the pages of an older coordinator."""
        if epoch > self.epoch:
            self.epoch = epoch
            for measurement in self.measurements.values():
                if measurement.task is not None:
                    measurement.task.cancel()
            self.measurements.clear()
            self._failing.clear()

    def _measurement(self, id_: source_wire.MeasurementId) -> _Measurement:
        measurement = self.measurements.get(id_)
        if measurement is None:
            measurement = self.measurements[id_] = _Measurement(id_, self.sources[id_.source])
            measurement.sender = PageSender(measurement.config, id_.name, self._iggy,
                                            lambda error: self._sending_failed(id_, error))
        return measurement

    async def _receive(self) -> None:
        """Receives pages from convert."""
        while True:
            await self._have_room()
            frames = await self.pull.recv_multipart()
            try:
                messages, bulk = source_wire.read_messages(frames)
                wrong = self.rules.messages(messages)
            except wire.Malformed as error:
                wrong = str(error)
            if wrong:
                self.link.dropped.drop("convert", wrong)
                continue
            self._begin_epoch(messages.id.epoch)
            if messages.id.epoch == self.epoch:
                self._accept(Page(messages, bulk))

    async def _have_room(self) -> None:
        """Waits while much is queued, as long as something is being sent, which will have to end. Where nothing is,
        what waits may be waiting for what is not received yet."""
        while self._queued() > MAX_QUEUED_BYTES and any(
                one.task is not None and not one.task.done() for one in self.measurements.values()):
            self._progress.clear()
            await self._progress.wait()

    def _queued(self) -> int:
        return sum(one.queue.size for one in self.measurements.values())

    def _accept(self, page: Page) -> None:
        """Queues a page, within limits."""
        measurement = self._measurement(page.head.id.measurement)
        queue = measurement.queue
        if queue.full or len(self.measurements) > MAX_UNKNOWN and queue.position is None:
            self.link.dropped.drop("convert", "pages that nobody has ordered")
            return
        queue.add(page)
        self._start_sending(measurement)

    def _start_sending(self, measurement: _Measurement) -> None:
        if measurement.task is None or measurement.task.done():
            measurement.task = asyncio.get_running_loop().create_task(self._send_pages(measurement))
            measurement.task.add_done_callback(self._task_done)

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        """An exception of a measurement's task ends the process."""
        self._progress.set()
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def _send_pages(self, measurement: _Measurement) -> None:
        """Sends and confirms pages until none is left whose turn it is."""
        queue = measurement.queue
        while (page := queue.pop()) is not None:
            head = page.head
            delivery = Delivery() if queue.was_sent(page) else await self._send_page(measurement, page)
            self._progress.set()
            if delivery is None:
                return
            queue.sent(page)
            confirmed = source_wire.PageConfirmed(
                head.id, head.points - head.repeated, delivery.messages, delivery.size, len(head.bad), head.repeated,
                head.fingerprints, head.settled)
            before = measurement.parts.pop(head.id.seq, None)
            if head.part and before is not None and before.id == head.id:
                confirmed = source_wire.joined(before, confirmed)
            if head.is_last:
                self.link.send(confirmed)
            else:
                measurement.parts[head.id.seq] = confirmed

    async def _send_page(self, measurement: _Measurement, page: Page) -> Delivery | None:
        """Sends one page. None if it is malformed: then it is not confirmed, and so read again."""
        try:
            payloads, series = self._bulk.decode(page.bulk)
            if len(payloads) != len(series):
                raise ValueError("the number of series differs from that of messages")
        except (msgspec.MsgspecError, ValueError) as error:
            self.link.dropped.drop("convert", f"malformed messages: {error}")
            return None
        page.bulk = b""
        delivery = await measurement.sender.send(payloads, series, page.head.bad)
        if measurement.id in self._failing:
            self._failing.discard(measurement.id)
            if not self._failing:
                self.link.send(common.Retrying(""))
        self._count_rejects(measurement, page.head.bad)
        return delivery

    async def _sending_failed(self, id_: source_wire.MeasurementId, error: IggyError) -> None:
        self._failing.add(id_)
        self.link.send(common.Retrying(f"messages cannot be sent: {error}",
                                           paused=isinstance(error, IggyAuthenticationFailed)))

    def _count_rejects(self, measurement: _Measurement, bad: list[BadRow]) -> None:
        for row in bad:
            self._rejects.add(f"{measurement.config.name}/{measurement.id.name}",
                              f"row {row.row[:ROW_CHARACTERS]}", row.reason, row.detail, time.monotonic(),
                              about={"source": measurement.config.name, "measurement": measurement.id.name})


def run(name: str, index: int, plan: Plan, logger: logging.Logger, _updates: PlanUpdates) -> None:
    """Runs the stage until the process is killed."""
    asyncio.run(ProduceStage(name, plan, logger).run())
