"""Process `encode`: turns batches of payloads into compressed bodies of write requests. CPU-bound: one for each
core."""

import logging
import signal
import time
from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from typing import Any

import zmq

from pipeline.config.plan import Plan
from pipeline.config.schema import SinkConfig, Subscription
from pipeline.fields.types import namespace_of
from pipeline.plan_updates import PlanUpdates, newest_plan
from pipeline.sockets.control_link import ControlLink
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.sink_rules import WireRules
from pipeline.subscriptions import Subscriptions
from pipeline.wire import payload_frame
from pipeline.wire import sink as wire
from pipeline.wire.measures import SECONDS, Histogram
from pipeline.work_file import WorkFile
from stages.encode.registry_client import RegistryClient
from stages.encode.shared_lines import SharedLines
from stages.mapping.batch import TooMuch
from stages.mapping.budget import Budget
from stages.mapping.cpu_limit import TooSlow
from stages.mapping.encoder import BatchOrigin, Encoder
from stages.mapping.records.overwrites import RecentPoints
from stages.mapping.records.type_guard import TypeGuard
from stages.mapping.steps.functions import forget_modules

#: Longest wait for a socket, milliseconds; heartbeats are sent between two.
POLL_MILLISECONDS = 1_000
#: Seconds between two reports of how much was encoded, under load.
COUNT_SECONDS = 0.2
#: Seconds between two checks of the CPU time of the current message.
TICK_SECONDS = 0.5
#: Most batches queued on either side.
HIGH_WATER_MARK = 1


def run(name: str, index: int, plan: Plan, logger: logging.Logger, updates: PlanUpdates) -> None:
    """Runs an encoder until the process is killed."""
    endpoints = Endpoints(plan.folder, plan.config.network)
    link = ControlLink(zmq.Context.instance(), endpoints, endpoints.control, name)
    EncodeStage(plan, endpoints, link, logger, index).run(updates=updates)


class EncodeStage:
    """One encoder process: receives batches from ingest when it is free, and sends lines to the partitions' writers."""

    def __init__(self, plan: Plan, endpoints: Endpoints, link: ControlLink, logger: logging.Logger,
                 number: int | None = None) -> None:
        """`endpoints` are those of this machine, or with the `link` of an admitted remote encoder, of another one.

        `number` is that of an encoder of this machine.
        """
        self.logger = logger
        self.link = link
        self.topics = Subscriptions(plan.config)
        self.rules = WireRules(plan.config, plan.ingests, self.topics)
        self._config, self._controls, self._reload = plan.config, plan.controls, plan.reload
        self._endpoints = endpoints
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._registry = RegistryClient(self.link, logger)
        #: The memory that the caches of all encoders of this process share.
        self._budget = Budget(plan.config.pipeline.encoder_cache_bytes)
        #: By topic.
        self.encoders: dict[int, Encoder] = {}
        for topic in self.topics:
            self._encoder_of(topic)
        self.recent = RecentPoints()
        self._work = WorkFile(plan.folder, link.name, logger)
        self._points = self._dropped = self._untold = 0
        self._notices: list[tuple[int, wire.Notice]] = []
        self._ways = wire.Ways()
        #: By topic: points, and messages left out.
        self._by_topic: dict[int, tuple[int, int]] = {}
        self._measures = _measures()
        #: The clock of a remote encoder's machine is another one.
        self._knows_waits = bool(endpoints.folder)
        #: Results of the current message of batches: lines by sink and writer, and ranges without lines.
        self._lines: dict[tuple[int, int], SharedLines] = {}
        self._settled: list[wire.Settled] = []
        self._reported_at = float("-inf")
        self.pull = context.socket(zmq.PULL)
        self.pull.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        for index in range(plan.ingests):
            endpoints.connect(self.pull, endpoints.batches(index))
            if number is not None and any(sink.mapping.needs_order() for sink in self.sinks):
                endpoints.connect(self.pull, endpoints.batches_of(index, number))
        self.pushes = [self._connect(context, endpoints.writer(index)) for index in range(plan.writers)]

    @property
    def sinks(self) -> tuple[SinkConfig, ...]:
        """Those of the newest plan."""
        return self._config.all_sinks()

    def _encoder(self, topic: Subscription) -> Encoder:
        config, sink = self._config, self.sinks[topic.sink]

        def guard(bucket: str) -> TypeGuard:
            return TypeGuard(partial(self._registry.ask_types, namespace_of(config, topic.sink, bucket)),
                         self._budget)

        encoder = Encoder(sink.mapping, sink.influxdb.precision, topic.stream, topic.topic,
                          guard if sink.mapping.type_guard else None, self._budget)
        encoder.refuses_much = True
        # Nobody handles the signal, which ends the process.
        encoder.cpu.end_process_after = partial(signal.setitimer, signal.ITIMER_VIRTUAL)
        return encoder

    def _encoder_of(self, topic: int) -> Encoder:
        if topic not in self.encoders:  # at the start, or when a pattern has found it
            self.encoders[topic] = self._encoder(self.topics[topic])
            self._registry.add(self.topics[topic].sink, self.encoders[topic])
        return self.encoders[topic]

    def _connect(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> "zmq.Socket[bytes]":
        push = context.socket(zmq.PUSH)
        push.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        # Only to a writer that is there: what is queued for a dead one would wait for its successor.
        push.setsockopt(zmq.IMMEDIATE, 1)
        self._endpoints.connect(push, endpoint)
        return push

    def _update(self, updates: PlanUpdates | None) -> None:
        """Maps by a new plan from the next batch on."""
        plan = newest_plan(updates)
        if plan is None:
            return
        self._controls = plan.controls
        if plan.reload == self._reload:
            return
        self._reload = plan.reload
        self._report()
        forget_modules(sink.mapping for sink in (*self.sinks, *plan.config.all_sinks()))
        before = self._config, self._budget
        self._config, self._budget = plan.config, Budget(plan.config.pipeline.encoder_cache_bytes)
        try:
            encoders = {topic: self._encoder(self.topics[topic]) for topic in self.topics}
        except Exception as error:  # a module of the user that has changed since it was checked
            self._config, self._budget = before
            self.logger.error("the new mapping cannot be used, the old one goes on: %s", error)
            return
        self._registry.forget_encoders()
        for topic, encoder in encoders.items():
            self._registry.add(self.topics[topic].sink, encoder)
        self.encoders = encoders

    def run(self, stopping: Callable[[], bool] = lambda: False, updates: PlanUpdates | None = None) -> None:
        """Encodes until the process is killed, or until `stopping` between two batches.

        Call it in the main thread: a timer interrupts long work there, to send heartbeats and to stop a message that
        takes too long. Code in C is not interrupted; the supervisor kills a process that hangs in it.
        """
        signal.signal(signal.SIGALRM, self._tick)
        while not stopping():
            self.link.beat()
            self._registry.listen()
            self._update(updates)
            if not self.pull.poll(0):
                self._report()
            if self.pull.poll(self.link.milliseconds_to_beat()):
                # While nothing is at work the timer is off: it would only wake up an idle process.
                signal.setitimer(signal.ITIMER_REAL, TICK_SECONDS, TICK_SECONDS)
                self._update(updates)
                self._receive()
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _receive(self) -> None:
        """Encodes the batches of a message, if there is one. Drops invalid messages."""
        try:
            batches = wire.read_batches(self.pull.recv_multipart(zmq.NOBLOCK, copy=False))
        except zmq.Again:
            return
        except wire.Malformed as error:
            self.link.dropped.drop("ingest", str(error))
            return
        for batch, joined, lengths in batches:
            if wrong := self.rules.batch(batch, joined, lengths):
                self.link.dropped.drop("ingest", wrong)
            else:
                self._encode(batch, joined, lengths)
        self._hand_on()

    def _tick(self, _signal: int, _frame: object) -> None:
        """Raises TooSlow."""
        encoders = list(self.encoders.values())
        if not any(encoder.cpu.is_stuck for encoder in encoders):
            self.link.beat()
            self._work.beat()
        for encoder in encoders:
            encoder.cpu.tick()

    def _count(self, topic: int, points: int, dropped: int) -> None:
        """Counts a batch. Reports to the coordinator at intervals, and when there is nothing else to do."""
        self._points += points
        self._dropped += dropped
        before = self._by_topic.get(topic, (0, 0))
        self._by_topic[topic] = before[0] + points, before[1] + dropped
        self._untold += 1
        if time.monotonic() >= self._reported_at + COUNT_SECONDS:
            self._report()

    def _report(self) -> None:
        if self._untold:
            topics = [wire.EncodedTopic(topic, *counts) for topic, counts in self._by_topic.items()]
            self.link.send(wire.Encoded(self._points, self._dropped, self._notices, self._ways, topics,
                                        self._measures))
            self._by_topic, self._measures = {}, _measures()
        self._points = self._dropped = self._untold = 0
        self._notices, self._ways = [], wire.Ways()
        self._reported_at = time.monotonic()

    def _encode(self, batch: wire.Batch, joined: Any, lengths: Any) -> None:
        """Encodes a batch. A batch that fails as a whole is read again in parts."""
        self._work.begin((batch.range,))
        try:
            self._encoded(batch, joined, lengths)
        except TooMuch:
            self.link.send(wire.GaveUp(batch.range, "its lines would take too much memory"))
        except (Exception, TooSlow) as error:
            self.logger.exception("encoding failed; this is a fault in the pipeline, please report it")
            self.link.send(wire.GaveUp(batch.range, f"{type(error).__name__}: {error}"))
        self._work.end()

    def _encoded(self, batch: wire.Batch, joined: Any, lengths: Any) -> None:
        """Adds a batch's lines to those for the same writer. A range without lines is settled."""
        began = time.monotonic()
        if self._knows_waits and batch.sent_at:
            self._measures.wait.observe(max(0.0, began - batch.sent_at), SECONDS)
        partition = batch.range.partition
        origin = BatchOrigin(partition.number, batch.first, batch.offsets, batch.timestamps, time.time_ns() // 1_000,
                             batch.headers)
        encoder = self._encoder_of(partition.topic)
        count = payload_frame.count(lengths)
        rejects: list[wire.Reject] = []
        if self._controls.skips and (skipped := self._count_skipped(partition, origin, count)):
            rejects = [wire.Reject(origin.of(index).offset, "skipped", "") for index in range(skipped)]
            origin, count = origin.after(skipped), count - skipped
            encoded = encoder.encode(payload_frame.split(joined, lengths)[skipped:], origin)
        else:
            encoded = encoder.encode_array(joined, count, origin) or \
                encoder.encode(payload_frame.split(joined, lengths), origin)
        rejects += [wire.Reject(origin.of(index).offset, reason, detail) for index, reason, detail in encoded.rejects]
        sink = self.topics[partition.topic].sink
        overwritten = self.recent.add(sink, encoder.topic, origin, count, encoded, batch.redelivered)
        if encoder.rules.notices:
            self._notices += [(partition.topic, notice) for notice in encoder.rules.notices.take()]
        self._ways += encoder.take_ways()
        self._measures.encode.observe(time.monotonic() - began, SECONDS)
        self._count(partition.topic, encoded.points, encoded.dropped)
        if not encoded.groups:
            self._settled.append(wire.Settled(batch.range, 0, 0, rejects))
            return
        # The batches of one partition meet at one writer, which keeps their order where a write fails.
        writer = (partition.topic + partition.number) % len(self.pushes)
        part = wire.LinesPart(batch.range, count, encoded.points, batch.first, batch.offsets, rejects,
                              batch.redelivered, overwritten, batch.found)
        self._lines.setdefault((sink, writer), SharedLines()).add(part, encoded.groups)

    def _count_skipped(self, partition: wire.Partition, origin: BatchOrigin, count: int) -> int:
        """How many of the first messages of a batch an operator has given up."""
        topic = self.topics[partition.topic]
        first = self._controls.skipped(topic.stream, topic.topic, partition.number)
        return bisect_left(range(count), first, key=lambda index: origin.of(index).offset)

    def _hand_on(self) -> None:
        """Sends the lines to their writers, and reports the settled ranges."""
        if self._settled:
            self.link.send(wire.Reports(settled=self._settled))
            self._settled = []
        for (sink, writer), lines in self._lines.items():
            push = self.pushes[writer]
            frames = lines.frames(self.sinks[sink].influxdb.gzip)
            while not push.poll(POLL_MILLISECONDS, zmq.POLLOUT):
                self.link.beat()
            push.send_multipart(frames, copy=False)
        self._lines = {}


def _measures() -> wire.EncodeMeasures:
    return wire.EncodeMeasures(Histogram(), Histogram())
