"""The coordinator process of the source direction: orders pages, and moves each watermark once Iggy has all before it.

It alone writes the state. A new coordinator starts a new epoch at the stored watermarks: pages in flight are read
again.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pipeline.config.plan import Plan
from pipeline.log_formats import facts
from pipeline.logs import RepeatFilter
from pipeline.plan_updates import PlanUpdates, newest_plan
from pipeline.points.fingerprints import unpack
from pipeline.points.times import SECOND
from pipeline.sockets.control_socket import ControlSocket, router, sender_of
from pipeline.sockets.dropped import DroppedMessages
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.peers import Peers
from pipeline.sockets.source_rules import SourceRules
from pipeline.sockets.status_socket import StatusPublisher
from pipeline.source_coordinator.clock import BACK, FORWARD, ClockWatch
from pipeline.source_coordinator.late_warning import late_warning
from pipeline.source_coordinator.ledger import WatermarkLedger
from pipeline.source_coordinator.source import Source
from pipeline.source_coordinator.state import StateError
from pipeline.source_coordinator.state_keeper import StateKeeper
from pipeline.source_coordinator.status import SourceCounters
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire

#: Seconds between two checks of what is due.
TICK_SECONDS = 0.05
QUIET_TICK_SECONDS = 0.5

#: Seconds between two warnings of late points of a source.
LATE_SECONDS = 300.0

_Handler = Callable[[str, Any], None]


def run(name: str, index: int, plan: Plan, logger: logging.Logger, updates: PlanUpdates) -> None:
    """Runs the coordinator until the process is killed. A state that cannot be used is reported in its Status."""
    asyncio.run(SourceCoordinator(plan, logger, updates).run())


class SourceCoordinator:
    """One per pipeline that has sources."""

    def __init__(self, plan: Plan, logger: logging.Logger, updates: PlanUpdates | None = None) -> None:
        self.plan = plan
        self._updates = updates
        self.logger = logger
        self.epoch = plan.epoch
        #: Empty until the states of all of them are loaded.
        self.sources: list[Source] = []
        #: Why the pipeline must stop, or "".
        self.fatal = ""
        self.draining = False
        endpoints = Endpoints(plan.folder)
        self.router = ControlSocket(router())
        endpoints.bind(self.router.socket, endpoints.source_control)
        self.publisher = StatusPublisher(endpoints, endpoints.source_status)
        self.dropped = DroppedMessages(logger)
        self.rules = SourceRules(plan)
        self.peers = Peers("source-coordinator")
        self.states = StateKeeper(plan, self.peers, logger)
        self.counters = SourceCounters()
        self._warnings = RepeatFilter()
        self._late_warnings = RepeatFilter(LATE_SECONDS)
        self._clock = ClockWatch(time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        self._handlers: dict[type[Struct], _Handler] = {
            source_wire.PageRead: self._page_read,
            source_wire.PageConfirmed: self._page_confirmed,
            source_wire.PageOverflow: self._page_overflow,
            source_wire.Refused: self._refused,
            source_wire.Discovered: self._discovered,
            source_wire.Probed: self._probed,
            source_wire.Recounted: self._recounted,
            common.Heartbeat: self._heartbeat,
            common.Retrying: self.peers.retrying,
            common.Drain: self._drain,
            wire.ProcessDied: self._process_died,
        }

    async def run(self) -> None:
        """Receives, orders, stores and publishes until cancelled."""
        await asyncio.gather(self._receive(), self._start(), self.publisher.run(self._status))

    async def _start(self) -> None:
        """Loads the states; then orders pages and stores watermarks."""
        try:
            self.sources = await self.states.load(self.epoch)
        except StateError as error:
            self.fatal = str(error)
            self.publisher.changed()
            return
        self._apply_pauses()
        await asyncio.gather(self._tick(), self._store())

    async def _receive(self) -> None:
        while True:
            for identity, _, frames in await self.router.receive_from():
                self.take(sender_of(identity), frames)
            self.publisher.changed()

    def take(self, sender: str, frames: list[bytes]) -> None:
        """Handles one message. What is malformed, or does not fit, is dropped."""
        try:
            message = source_wire.read_control(frames)
            problem = self.rules.sender(sender, message) or self.rules.control(message)
        except wire.Malformed as error:
            problem = str(error)
        if not problem:
            self.peers.last_heard[sender] = time.monotonic()
            handler = self._handlers.get(type(message))
            if handler is not None:
                handler(sender, message)
        elif sender:  # messages of a process that has been replaced are stale
            self.dropped.drop(sender, problem)

    def _page_read(self, _sender: str, message: source_wire.PageRead) -> None:
        page, ledger = message.id, self._ledger(message.id)
        ordered = ledger.pages.get(page.seq) if ledger is not None else None
        if ledger is None or ordered is None:
            return
        window = ordered.window
        if ledger.page_read(page.seq, page.attempt, message.end, message.rows, message.first, time.monotonic(),
                            message.size):
            self.sources[page.measurement.source].page_read(message, ordered, window)
            self.sources[page.measurement.source].refused.pop(page.measurement.name, None)
            self.counters.rows += message.rows
            self.counters.count(page.measurement.source, rows=message.rows)
            if message.future is not None:
                self.sources[page.measurement.source].future[page.measurement.name] = message.future
            self.sources[page.measurement.source].want(page.measurement.name)
            self._order(self.sources[page.measurement.source])

    def _page_overflow(self, _sender: str, message: source_wire.PageOverflow) -> None:
        page, ledger = message.id, self._ledger(message.id)
        narrower = ledger.overflow(page.seq, page.attempt, message.one_time, message.first,
                                   time.monotonic(), message.slow) if ledger else None
        if narrower is not None:
            self.counters.count(page.measurement.source, narrowed=1)
            source = self.sources[page.measurement.source]
            self._send("query", source.order(page.measurement.name, narrower))
            source.want(page.measurement.name)
            self._order(source)

    def _refused(self, _sender: str, message: source_wire.Refused) -> None:
        if self._ledger(message.id) is not None:
            measurement = message.id.measurement
            self.sources[measurement.source].refused[measurement.name] = message.message

    def _page_confirmed(self, _sender: str, message: source_wire.PageConfirmed) -> None:
        page, ledger = message.id, self._ledger(message.id)
        if ledger is None or not ledger.confirm(page.seq, page.attempt, unpack(message.fingerprints),
                                                time.monotonic()):
            return
        self.sources[page.measurement.source].page_confirmed(message)
        self.counters.confirmed(message, time.monotonic())
        source, name = self.sources[page.measurement.source], page.measurement.name
        source.changed(time.monotonic(), quiet=not message.points and not message.rejected)
        source.want(name)
        if ledger.fingerprints.evicted and self._warnings.allows(name, time.monotonic()):
            self.logger.warning("source %s: %s has more than max_fingerprints = %d points within overlap_ms; points "
                                "of it will be sent more than once. Raise max_fingerprints, or lower overlap_ms",
                                source.config.name, name, source.config.max_fingerprints,
                                extra=facts(source=source.config.name, measurement=name))
        self._order(source)

    def _discovered(self, _sender: str, message: source_wire.Discovered) -> None:
        if message.epoch != self.epoch or not self.sources:
            return
        source = self.sources[message.source]
        now = time.monotonic()
        if source.config.windows_by_shard and not message.shard_widths and not source.discovered:
            self.logger.warning("source %s: windows_by_shard has no effect: the server does not tell how wide shards "
                                "are, as in Flux", source.config.name)
        source.shard_widths = message.shard_widths
        new = [id_ for name in message.measurements if (id_ := source.add_measurement(name, message.ordered, now))]
        source.probes = message.probes
        if new:
            self.logger.info("source %s: reading %d measurements%s", source.config.name, len(source.ledgers),
                             f", {len(new)} of them new" if source.discovered else "",
                             extra=facts(source=source.config.name))
            self._send("produce", source_wire.StartPages(
                self.epoch, [(id_, source.ledgers[id_.name].position) for id_ in new]))
        elif not source.ledgers and not source.discovered:
            self.logger.warning("source %s: no measurement matches `measurements`; checking again every %g s",
                                source.config.name, source.config.discovery_interval_ms / 1000,
                                extra=facts(source=source.config.name))
        source.discovered = True
        self._order(source)

    def _probed(self, _sender: str, message: source_wire.Probed) -> None:
        if message.epoch == self.epoch and self.sources:
            source = self.sources[message.source]
            source.probed(message, time.monotonic())
            self._order(source)

    def _recounted(self, _sender: str, message: source_wire.Recounted) -> None:
        if message.epoch != self.epoch or not self.sources:
            return
        source = self.sources[message.source]
        found = source.recounted(message)
        if found:
            self.counters.count(source.index, late=sum(late for late, _ in found.values()))
            if self._late_warnings.allows(source.config.name, time.monotonic()):
                self.logger.warning("%s%s", late_warning(source.config, found, self.plan.files),
                                    self._late_warnings.times, extra=facts(source=source.config.name))

    def _heartbeat(self, _sender: str, message: common.Heartbeat) -> None:
        arrival = self.peers.heartbeat(message, time.monotonic())
        if arrival == "known":
            return
        if message.name == "produce":
            starts = [(source_wire.MeasurementId(source.index, name), ledger.position)
                      for source in self.sources for name, ledger in source.ledgers.items()]
            self._send("produce", source_wire.StartPages(self.epoch, starts))
        if message.name == "query":
            for source in self.sources:
                source.discovery_at = 0.0
                source.end_probes()
                self._order(source)
        if arrival == "replacement":
            self._reread(f"{message.name} was restarted", read_only=message.name != "query")

    def _process_died(self, _sender: str, message: wire.ProcessDied) -> None:
        self.peers.died(message.name)

    def _drain(self, _sender: str, _message: common.Drain) -> None:
        self.draining = True

    def _ledger(self, page: source_wire.PageId) -> WatermarkLedger | None:
        """The ledger that a page of this epoch belongs to."""
        if page.epoch != self.epoch or not self.sources:
            return None
        return self.sources[page.measurement.source].ledgers.get(page.measurement.name)

    def _reread(self, reason: str, read_only: bool = True, before: float = float("inf")) -> None:
        """Orders the pages that may be lost again: those of measurements whose oldest page was ordered `before`."""
        orders = []
        for source in self.sources:
            for name, ledger in source.busy():
                oldest = ledger.oldest_unconfirmed()
                if before == float("inf") or (oldest is not None and oldest < before):
                    orders += [source.order(name, page) for page in ledger.to_reread(time.monotonic(), read_only)]
        if orders:
            self.counters.redelivered += len(orders)
            self.logger.warning("%s: reading %d pages in flight again", reason, len(orders))
        for order in orders:
            self._send("query", order)

    def _order(self, source: Source) -> None:
        """Orders as many pages as there is room for."""
        if "query" in self.peers.pids and not self.draining and not source.paused:
            for order in source.orders(time.monotonic()):
                self.counters.first_at = self.counters.first_at or time.monotonic()
                self._send("query", order)

    def _send(self, name: str, message: Struct) -> None:
        if name in self.peers.pids:
            self.router.send(name.encode(), common.encode(message))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._pause())
            if self._restart_after_clock_step():
                continue
            if (plan := newest_plan(self._updates)) is not None:
                self.plan = replace(self.plan, controls=plan.controls)
                self._apply_pauses()
            now = time.monotonic()
            for source in self.sources:
                if source.paused:
                    continue
                if now >= source.discovery_at and "query" in self.peers.pids:
                    source.discovery_at = now + source.config.discovery_interval_ms / 1000
                    self._send("query", source_wire.Discover(self.epoch, source.index))
                if now >= source.round_at and not self.draining:
                    source.round_at = now + source.config.poll_interval_ms / 1000
                    probes = source.start_round(now, time.time_ns())
                    for order in (*probes, *source.recounts(time.time_ns())):
                        self._send("query", order)
                    self._order(source)
            if not self.peers.is_retrying():
                seconds = self.plan.config.pipeline.redelivery_timeout_ms / 1000
                self._reread(f"not confirmed for {seconds:g} s", before=now - seconds)
            if self._is_complete():
                self.draining = True

    def _apply_pauses(self) -> None:
        for source in self.sources:
            source.paused = self.plan.controls.is_source_paused(source.config.name)

    def _pause(self) -> float:
        """Seconds until the next tick: few while there is something to read."""
        if not all(source.caught_up for source in self.sources):
            return TICK_SECONDS
        due = min((min(source.round_at, source.discovery_at) for source in self.sources), default=0.0)
        return min(max(TICK_SECONDS, due - time.monotonic()), QUIET_TICK_SECONDS)

    def _restart_after_clock_step(self) -> bool:
        """Checks whether the clock was set. True if it was set back, and all sources were started again."""
        now = time.time_ns()
        jump = self._clock.jump(now, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        if jump > FORWARD:
            self.logger.warning("the clock was set forward by %.0f s", jump / SECOND)
            for source in self.sources:
                source.trusted = source.target if source.trusted is None else min(source.trusted, source.target)
        behind = max((source.target - source.target_at(now) for source in self.sources), default=0)
        if behind <= BACK:
            return False
        self.logger.warning("the clock was set back by %.0f s; everything in flight is read again", behind / SECOND)
        self.epoch += 1
        self.sources = [Source(old.index, old.config, self.epoch, now, old.store, old.snapshot(), old.trusted)
                        for old in self.sources]
        self._apply_pauses()
        for source in self.sources:
            source.changed(time.monotonic())  # so that it is stored
            self.states.log_moved_back(source)
        return True

    def _is_complete(self) -> bool:
        """Whether all is done: every source has an end, or the pipeline was started to catch up, and has."""
        return (bool(self.plan.until) or all(source.config.to for source in self.sources)) \
            and all(source.caught_up or source.given_up for source in self.sources)

    async def _store(self) -> None:
        while True:
            await asyncio.sleep(self.plan.config.pipeline.commit_interval_ms / 1000)
            for source in self.sources:
                if source.is_store_due(time.monotonic(), self.draining):
                    problem = await self.states.store(source)
                    self.fatal = self.fatal or problem
                    self.publisher.changed()

    def _status(self) -> source_wire.SourceStatus:
        return self.counters.status(self.epoch, self.sources, self.peers, len(self.plan.source_stages()), self.draining,
                                    self.fatal, self.dropped.count, time.monotonic())
