"""The source direction's coordinator: says what is read, and moves each mark once Iggy has all before it.

It alone writes the state. A new one begins a new epoch at the stored marks: what the old one had on its way is read
again.
"""

import asyncio
import logging
import os
import time

import zmq
import zmq.asyncio
from msgspec import Struct

from pipeline.config.plan import Plan
from pipeline.config.source_schema import SourceConfig
from pipeline.errors import PipelineError
from pipeline.iggy.errors import IggyError
from pipeline.logs import RepeatFilter
from pipeline.points.fingerprints import unpack
from pipeline.points.times import SECOND, format_time
from pipeline.sockets.control_socket import sender_of
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.intake import Dropped
from pipeline.sockets.source_rules import SourceRules
from pipeline.source_coordinator.clock import BACK, FORWARD, ClockWatch
from pipeline.source_coordinator.ledger import WatermarkLedger
from pipeline.source_coordinator.source import Source
from pipeline.source_coordinator.state import StateError
from pipeline.source_coordinator.state_store import StateStore, store_of, writer_of
from pipeline.source_coordinator.state_topic import StateTaken
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire
from pipeline.wire.frames import cut

#: Seconds between two looks at what is due, and between two Status messages.
TICK_SECONDS = 0.05
STATUS_SECONDS = 0.25
#: Pause before a state is asked for again, seconds.
AGAIN_SECONDS = 0.5


def run_source_coordinator(plan: Plan, logger: logging.Logger) -> None:
    """Runs the coordinator until the process is killed. Its Status says when a state can't be used."""
    asyncio.run(SourceCoordinator(plan, logger).run())


class SourceCoordinator:
    """One per pipeline that has sources."""

    def __init__(self, plan: Plan, logger: logging.Logger) -> None:
        self.plan = plan
        self.logger = logger
        self.epoch = plan.epoch
        #: Empty before the states of all of them are known.
        self.sources: list[Source] = []
        #: Why all must stop, or "".
        self.fatal = ""
        context = zmq.asyncio.Context.instance()
        endpoints = Endpoints(plan.folder)
        self.router = context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.router.setsockopt(zmq.SNDHWM, 0)
        endpoints.bind(self.router, endpoints.source_control)
        self.status = context.socket(zmq.PUB)
        endpoints.bind(self.status, endpoints.source_status)
        self.dropped = Dropped(logger)
        self._dropped_by: dict[str, int] = {}
        self.rules = SourceRules(plan)
        self.pids: dict[str, int] = {"source-coordinator": os.getpid()}
        self.startup_cpu: dict[str, float] = {"source-coordinator": time.process_time()}
        self.heard: dict[str, float] = {}
        self.retrying: dict[str, common.Retrying] = {}
        self.draining = False
        self.rows = self.points = self.messages = self.sent_bytes = self.rejected = self.repeated = 0
        self.pages = self.reread = 0
        self.first_at = self.last_at = 0.0
        self._seen: set[str] = set()
        self._storing = RepeatFilter()
        self._clock = ClockWatch(time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    async def run(self) -> None:
        """Receives, orders, stores and publishes until cancelled."""
        await asyncio.gather(self._receive(), self._begin(), self._publish())

    async def _begin(self) -> None:
        """Gets the states, however long Iggy is away; then orders and stores."""
        writer = writer_of("pipeline start", os.getpid(), self.plan.run)
        try:
            sources = [await self._begun(index, config, store_of(self.plan.config, config, writer, self.logger))
                       for index, config in enumerate(self.plan.config.sources)]
        except StateError as error:
            self.fatal = str(error)
            return
        self.sources = sources
        await asyncio.gather(self._tick(), self._store())

    async def _begun(self, index: int, config: SourceConfig, store: StateStore) -> Source:
        """A source with its state, which is stored again: it exists from now on, "now" stays what it is, and in a topic
        another pipeline sees that we are there. Raises StateError."""
        while True:
            try:
                now = time.time_ns()
                source = Source(index, config, self.epoch, now, store, await store.load(now))
                await store.save(source.snapshot())
                break
            except IggyError as error:
                self._not_stored(error)
                await asyncio.sleep(AGAIN_SECONDS)
        self.retrying.pop("source-coordinator", None)
        self._say_set_back(source)
        if source.state.marks:
            self.logger.info("source %s: goes on with %d measurements where it stopped", config.name,
                             len(source.state.marks))
        else:
            self.logger.info("source %s: begins at %s; its state goes to %s", config.name, config.from_, store.where)
        return source

    def _say_set_back(self, source: Source) -> None:
        measurement, mark, back = source.set_back
        if measurement:
            self.logger.error("source %s: the watermark of %s is %s, which is in the future: a clock was ahead, or "
                              "this machine's is behind. Reading goes on at %s, and so for every watermark in the "
                              "future; points may be sent twice. Set the clock; docs/reference/source.rst has more",
                              source.config.name, measurement, format_time(mark), format_time(back))

    def _watch_clock(self) -> bool:
        """Looks whether the clock was set. True where all was begun anew, because it was set back."""
        now = time.time_ns()
        jump = self._clock.jump(now, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        if jump > FORWARD:
            self.logger.warning("the clock was set forward by %.0f s", jump / SECOND)
            for source in self.sources:
                source.trusted = source.target if source.trusted is None else min(source.trusted, source.target)
        if not any(source.target - source.target_at(now) > BACK for source in self.sources):
            return False
        self.logger.warning("the clock was set back by %.0f s; all that is being read is read anew",
                            max(source.target - source.target_at(now) for source in self.sources) / SECOND)
        self.epoch += 1
        self.sources = [Source(old.index, old.config, self.epoch, now, old.store, old.snapshot(), old.trusted)
                        for old in self.sources]
        for source in self.sources:
            source.changes = 1  # so that it is stored
            self._say_set_back(source)
        return True

    async def _receive(self) -> None:
        while True:
            identity, *frames = await self.router.recv_multipart()
            await self._take(identity, frames)

    async def _take(self, identity: bytes, frames: list[bytes]) -> None:
        """One message; what can't be understood, or doesn't fit, is dropped."""
        sender = sender_of(identity)
        try:
            message = source_wire.read_control(frames)
            wrong = self.rules.sender(sender, message) or self.rules.control(message)
        except wire.Malformed as error:
            wrong = str(error)
        if not wrong:
            self.heard[sender] = time.monotonic()
            await self._handle(sender, message)
        elif sender:  # what a replaced process has left is stale
            self.dropped.drop(sender, wrong)

    async def _handle(self, sender: str, message: source_wire.Control) -> None:
        match message:
            case source_wire.PageRead(id=page):
                lane = self._lane(page)
                if lane is not None and lane.answered(page.seq, page.attempt, message.end, message.rows,
                                                      message.first, time.monotonic()):
                    self.rows += message.rows
                    await self._order(self.sources[page.lane.source])
            case source_wire.PageConfirmed(id=page):
                await self._confirmed(page, message)
            case source_wire.PageOverflow(id=page):
                lane = self._lane(page)
                again = lane.too_full(page.seq, page.attempt, message.one_time, message.first,
                                      time.monotonic()) if lane else None
                if again is not None:
                    await self._send("query", self.sources[page.lane.source].order(page.lane.measurement, again))
            case source_wire.Discovered(epoch=epoch) if epoch == self.epoch and self.sources:
                await self._discovered(message)
            case common.Heartbeat():
                await self._hello(message)
            case common.Retrying(reason=reason):
                self.retrying.pop(sender, None)
                if reason:
                    self.retrying[sender] = message
            case wire.ProcessDied(name=name):
                self.retrying.pop(name, None)
                self.pids.pop(name, None)
            case common.Drain():
                self.draining = True

    def _lane(self, page: source_wire.PageId) -> WatermarkLedger | None:
        if page.epoch != self.epoch or not self.sources:
            return None
        return self.sources[page.lane.source].lanes.get(page.lane.measurement)

    async def _confirmed(self, page: source_wire.PageId, message: source_wire.PageConfirmed) -> None:
        lane = self._lane(page)
        if lane is None or not lane.confirmed(page.seq, page.attempt, unpack(message.prints)):
            return
        self.last_at = time.monotonic()
        self.pages += 1
        self.points += message.points
        self.messages += message.messages
        self.sent_bytes += message.size
        self.rejected += message.rejected
        self.repeated += message.repeated
        source = self.sources[page.lane.source]
        source.changes += 1
        if lane.prints.evicted and self._storing.allows(page.lane.measurement, time.monotonic()):
            self.logger.warning("source %s: %s has more than max_fingerprints = %d points within overlap_ms; points "
                                "of it will be sent more than once", source.config.name, page.lane.measurement,
                                source.config.max_fingerprints)
        await self._order(source)

    async def _discovered(self, message: source_wire.Discovered) -> None:
        source = self.sources[message.source]
        new = [lane for name in message.measurements if (lane := source.add_lane(name, message.ordered))]
        if new:
            self.logger.info("source %s: reading %d measurements%s", source.config.name, len(source.lanes),
                             f", {len(new)} of them new" if source.discovered else "")
            await self._send("produce", source_wire.StartPages(self.epoch, [(lane, 0) for lane in new]))
        elif not source.lanes and not source.discovered:
            self.logger.warning("source %s: no measurement there that its patterns fit; looking again every %g s",
                                source.config.name, source.config.discovery_interval_ms / 1000)
        source.discovered = True
        await self._order(source)

    async def _hello(self, message: common.Heartbeat) -> None:
        self._dropped_by[message.name] = message.dropped
        if self.pids.get(message.name) == message.pid:
            return
        self.pids[message.name] = message.pid
        self.startup_cpu[message.name] = message.startup_cpu
        replaces = message.name in self._seen
        self._seen.add(message.name)
        if message.name == "produce":
            lanes = [(source_wire.MeasurementId(source.index, name), lane.next_seq)
                     for source in self.sources for name, lane in source.lanes.items()]
            await self._send("produce", source_wire.StartPages(self.epoch, lanes))
        if message.name == "query":
            for source in self.sources:
                source.discovery_at = 0.0
                await self._order(source)
        if replaces:
            await self._read_again(f"{message.name} is new", answered_only=message.name != "query")

    async def _read_again(self, why: str, answered_only: bool = True, before: float = float("inf")) -> None:
        """Orders what may be lost once more: of the lanes whose oldest page was ordered `before` a time."""
        orders = []
        for source in self.sources:
            for name, lane in source.lanes.items():
                oldest = lane.oldest()
                if before == float("inf") or (oldest is not None and oldest < before):
                    orders += [source.order(name, page) for page in lane.again(time.monotonic(), answered_only)]
        if orders:
            self.reread += len(orders)
            self.logger.warning("%s: reading %d pages on their way again", why, len(orders))
        for order in orders:
            await self._send("query", order)

    async def _order(self, source: Source) -> None:
        """Orders what there is room for."""
        if "query" in self.pids and not self.draining:
            for order in source.orders(time.monotonic()):
                self.first_at = self.first_at or time.monotonic()
                await self._send("query", order)

    async def _send(self, name: str, message: Struct) -> None:
        if name in self.pids:
            await self.router.send_multipart([name.encode(), *cut([common.encode(message)])])

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._watch_clock():
                continue
            now = time.monotonic()
            for source in self.sources:
                if now >= source.discovery_at and "query" in self.pids:
                    source.discovery_at = now + source.config.discovery_interval_ms / 1000
                    await self._send("query", source_wire.Discover(self.epoch, source.index))
                if now >= source.round_at:
                    source.round_at = now + source.config.poll_interval_ms / 1000
                    source.target = max(source.target, source.target_at(time.time_ns()))
                    await self._order(source)
            if not self.retrying:
                seconds = self.plan.config.pipeline.redelivery_timeout_ms / 1000
                await self._read_again(f"not confirmed for {seconds:g} s", before=now - seconds)
            if self._all_done():
                self.draining = True

    def _all_done(self) -> bool:
        """Whether there is nothing left to do: all sources have an end, or the pipeline was started to catch up."""
        return (bool(self.plan.until) or all(source.config.to for source in self.sources)) \
            and all(source.caught_up for source in self.sources)

    async def _store(self) -> None:
        while True:
            await asyncio.sleep(self.plan.config.pipeline.commit_interval_ms / 1000)
            for source in self.sources:
                if source.changes != source.stored:
                    await self._store_one(source)

    async def _store_one(self, source: Source) -> None:
        changes, at_goal = source.changes, source.at_goal
        try:
            await source.store.save(source.snapshot())
        except StateTaken as error:
            self.fatal = str(error)
            return
        except (StateError, IggyError) as error:
            self._not_stored(error)
            return
        source.stored = changes
        source.goal_stored |= at_goal
        self.retrying.pop("source-coordinator", None)

    def _not_stored(self, error: PipelineError) -> None:
        """Says that a state can't be stored, or got, for now."""
        self.retrying["source-coordinator"] = common.Retrying(str(error), paused=isinstance(error, StateError))
        if self._storing.allows(str(error), time.monotonic()):
            self.logger.error("the state: %s; nothing is lost, trying again", error)

    async def _publish(self) -> None:
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            await self.status.send(common.encode(self._status()))

    def _status(self) -> source_wire.SourceStatus:
        paused = any(retrying.paused for retrying in self.retrying.values())
        stages = [name for name in self.pids if name != "supervisor"]
        in_flight = sum(source.in_flight for source in self.sources)
        clean = not self.fatal and all(source.changes == source.stored for source in self.sources)
        return source_wire.SourceStatus(
            epoch=self.epoch,
            ready=len(stages) > len(self.plan.source_stages()) and not paused
            and bool(self.sources) and all(source.discovered for source in self.sources),
            drained=self.draining and clean and not any(source.sending for source in self.sources),
            caught_up=bool(self.sources) and all(source.caught_up for source in self.sources),
            rows=self.rows, points=self.points, messages=self.messages, sent_bytes=self.sent_bytes,
            rejected=self.rejected, repeated=self.repeated, pages=self.pages, in_flight=in_flight, reread=self.reread,
            first_at=self.first_at, last_at=self.last_at, pids=dict(self.pids), startup_cpu=dict(self.startup_cpu),
            retrying={name: retrying.reason for name, retrying in self.retrying.items()}, paused=paused,
            lanes=[source_wire.LaneStatus(source.config.name, name, lane.mark, len(lane.pages))
                   for source in self.sources for name, lane in sorted(source.lanes.items())],
            now=time.monotonic(), heard=dict(self.heard), fatal=self.fatal,
            dropped=self.dropped.count + sum(self._dropped_by.values()))
