"""The coordinator process of the sink direction: keeps the ledger, grants credit, commits offsets, publishes the
Status.

It alone decides which offset is committed: the end of a prefix that is settled completely.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from pipeline.config.plan import Plan
from pipeline.coordinator.assignments import Assignments
from pipeline.coordinator.coalescing import ReportCoalescer
from pipeline.coordinator.deliveries import Deliveries
from pipeline.coordinator.field_registry import FieldRegistry
from pipeline.coordinator.ledger import Ledger
from pipeline.coordinator.measures import Measures
from pipeline.coordinator.message_ages import MessageAges
from pipeline.coordinator.offset_store import OffsetStore
from pipeline.coordinator.poison_tracker import PoisonTracker
from pipeline.coordinator.retention_watch import RetentionWatch
from pipeline.coordinator.router import Router
from pipeline.coordinator.status import Counters, Logs, Observed, make_status
from pipeline.logs import RepeatFilter
from pipeline.plan_updates import PlanUpdates, newest_plan
from pipeline.reject_log import RejectLog
from pipeline.sockets.control_link import seconds_to_heartbeats
from pipeline.sockets.control_socket import ControlSocket
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.peers import Peers
from pipeline.sockets.sink_rules import kind_of
from pipeline.sockets.status_socket import StatusPublisher
from pipeline.subscriptions import Subscriptions
from pipeline.wire import common
from pipeline.wire import sink as wire

#: An encoder of another machine without a heartbeat for so long, seconds, has left.
REMOTE_SILENCE_SECONDS = 10.0
#: The name under which the coordinator's own failures are reported as being retried.
NAME = "coordinator"

_Handler = Callable[[str, Any], None]


def run(name: str, index: int, plan: Plan, logger: logging.Logger, updates: PlanUpdates) -> None:
    """Runs the coordinator until the process is killed."""
    asyncio.run(Coordinator(plan, logger, updates).run())
#: Messages that come all the time, and change nothing that has to be known at once.
_UNCHANGED: Final = (common.Heartbeat, wire.Progress)


class Coordinator:
    """One per pipeline. A new one starts a new epoch: what is in flight is read again."""

    def __init__(self, plan: Plan, logger: logging.Logger, updates: PlanUpdates | None = None) -> None:
        self.plan = plan
        self._updates = updates
        self.logger = logger
        self.topics = Subscriptions(plan.config)
        self.ingest_names = plan.ingest_names()
        self.endpoints = Endpoints(plan.folder, plan.config.network)
        self.peers = Peers(NAME)
        self.router = Router(plan, self.topics, self.endpoints, self.peers, logger)
        self.publisher = StatusPublisher(self.endpoints, self.endpoints.status)
        self.ledger = Ledger(plan.epoch)
        self.registry = FieldRegistry(plan.config, plan.folder, plan.run, logger)
        self.coalescer = ReportCoalescer(plan.config.pipeline.window_messages)
        self.poison = PoisonTracker(self.ledger, self.topics, plan.folder, plan.run, logger)
        self.assignments = Assignments(self.ledger, self.topics, plan.until, self.poison.suspects)
        self.offsets = OffsetStore(plan.config, self.topics, self.ledger, self.assignments, self.router.send, logger,
                                   self.publisher.changed)
        self.counters = Counters()
        self.ages = MessageAges()
        self.measures = Measures(plan.config, self.topics)
        self.deliveries = Deliveries(plan, self.topics, self.ledger, self.poison, self.peers, self.counters,
                                     self.router.send, logger, self._finished)
        #: Last offset of each log at the last refresh.
        self.ends: dict[wire.Partition, int] = {}
        #: By ingest process, the partitions that nobody reads.
        self.unread: dict[str, list[wire.Unread]] = {}
        self.retention = RetentionWatch(plan.config, self.topics, self.ledger, self.ends, self.ages, logger)
        self.draining = False
        #: Ingest processes that have sent Started, and Stopped.
        self.started: set[str] = set()
        self.stopped: set[str] = set()
        #: Why the pipeline must stop, or "".
        self.fatal = ""
        #: By process: the pid of the last one that died, and how many deaths were excused then.
        self._excused: dict[str, tuple[int, int]] = {}
        self._notices = RejectLog(logger, verb="warning for")
        self._failures = RepeatFilter()
        self._handlers: dict[type[Struct], _Handler] = {
            common.Heartbeat: self._heartbeat,
            common.Retrying: self.peers.retrying,
            common.Drain: self._drain,
            wire.Dispatched: self._dispatched,
            wire.Encoded: self._encoded,
            wire.Settled: self._settled,
            wire.Writing: self.measures.wrote,
            wire.DeadLettersStored: self._dead_letters_stored,
            wire.Started: self._partitions_started,
            wire.Truncated: self._truncated,
            wire.Gap: self._gap,
            wire.Revoked: self._revoked,
            wire.Stored: self._offset_stored,
            wire.Progress: self._progress,
            wire.Stopped: self._ingest_stopped,
            wire.Failed: self._failed,
            wire.ProcessDied: self._process_died,
            wire.GaveUp: self._gave_up,
            wire.Restarted: self._remote_restarted,
            wire.Join: self._joined,
            wire.Leave: self._left,
            wire.Allowed: self.router.allowed,
            wire.FieldTypesRequest: self._answer_encoder,
            wire.TagCardinalities: self._answer_encoder,
        }

    async def run(self) -> None:
        """Receives, commits and publishes until cancelled."""
        await asyncio.gather(*map(self._receive, self.router.sockets), self.offsets.run(),
                             self.publisher.run(self.status), self._every_second(), self.retention.run())

    async def _receive(self, socket: ControlSocket) -> None:
        while True:
            messages = await self.router.receive(socket)
            for sender, message in messages:
                self.handle(sender, message)
            if not all(isinstance(message, _UNCHANGED) for _, message in messages):
                self.publisher.changed()
                self.offsets.wake()
            self.deliveries.grant_due()
            if all(isinstance(message, wire.BatchReport | common.Heartbeat) for _, message in messages):
                in_flight = self.ledger.in_flight_messages
                await asyncio.sleep(self.coalescer.pause(self.ledger.dispatched_messages - in_flight, in_flight,
                                                         time.monotonic()))

    def handle(self, sender: str, message: wire.Control) -> None:
        """Handles one message that the router has checked."""
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(sender, message)

    # Processes: heartbeats, deaths, encoders of other machines

    def _heartbeat(self, _sender: str, message: common.Heartbeat) -> None:
        name = message.name
        arrival = self.peers.heartbeat(message, time.monotonic())
        if arrival == "known":
            return
        self.publisher.changed()
        self.router.started(name)
        if self.peers.have_all_started(self.plan.stages()):
            self.deliveries.open()
        if name in self.ingest_names:
            self._assign(name)
        if kind_of(name) == "encode":
            self._send_to_encoders(name, self.registry.initial_messages())
        if name == "dead-letter":
            self.deliveries.send_dead_letters_again()
        elif arrival == "replacement":
            # Batches sent to the process that died may have been lost even after its death was noticed.
            self.deliveries.redeliver(self.deliveries.held_by(name), f"{name} was restarted", suspects=False)

    def _assign(self, ingest: str) -> None:
        """Sends a new ingest process its positions and its credit."""
        self.stopped.discard(ingest)
        index = self.ingest_names.index(ingest)
        found = self.topics.definitions() if ingest in self.started else None
        self.router.send(ingest, replace(self.assignments.assign(ingest, index), topics=found))
        self.deliveries.grant(index)
        if self.draining:
            self.router.send(ingest, common.Drain())

    def _process_died(self, sender: str, message: wire.ProcessDied) -> None:
        if message.work:
            pid, excused = self._excused.get(message.name, (0, 0))
            if pid != message.pid or not pid:
                excused = self.poison.died(message.name, self._without_verdict(message.work), message.how)
            self._excused[message.name] = message.pid, excused
            self.router.reply(sender, wire.Excused(message.name, message.work, excused))
        self._remove(message.name, f"{message.name} died")

    def _remove(self, name: str, reason: str) -> None:
        """Removes a process that has ended, and has the ranges that it held read again."""
        self.measures.died(name)
        if self.peers.died(name):
            if name not in self.plan.stages():
                self.peers.forget(name)
            if name != "dead-letter":
                self.deliveries.redeliver(self.deliveries.held_by(name), reason)

    def _without_verdict(self, ranges: list[wire.Range]) -> list[wire.Range]:
        """The ranges without those that are settled except for their dead letters."""
        return [range_ for range_ in ranges if not self.deliveries.awaits_dead_letters(range_)]

    def _gave_up(self, sender: str, message: wire.GaveUp) -> None:
        if not self.deliveries.awaits_dead_letters(message.range):
            self.deliveries.redeliver(self.poison.gave_up(sender, message.range, message.why), f"{sender} gave up")

    def _remote_restarted(self, sender: str, message: wire.Restarted) -> None:
        self.poison.died(sender, self._without_verdict(message.work), message.how)
        self.deliveries.redeliver(self.deliveries.held_by(sender), f"{sender} died")

    def _joined(self, sender: str, message: wire.Join) -> None:
        heartbeat = self.router.joined(message)
        if heartbeat is not None:
            self._heartbeat(sender, heartbeat)

    def _left(self, _sender: str, message: wire.Leave) -> None:
        self.router.left(message.name)
        self._remove(message.name, f"{message.name} has left")

    def _failed(self, _sender: str, message: wire.Failed) -> None:
        self.fatal = self.fatal or message.reason

    def _drain(self, _sender: str, message: common.Drain) -> None:
        self.draining = self.offsets.draining = True
        self.offsets.hurry()
        for name in self.ingest_names:
            self.router.send(name, message)

    # Batches

    def _dispatched(self, sender: str, message: wire.Dispatched) -> None:
        range_, now = message.range, time.monotonic()
        if self._is_foreign(sender, range_):
            self.router.dropped.drop(sender, "it dispatches a partition that was not assigned to it")
            return
        self.counters.first_dispatched_at = self.counters.first_dispatched_at or now
        load = self.ledger.load(range_.ingest)
        messages, size = load.dispatched_messages, load.dispatched_bytes
        self.ledger.dispatch(range_, now)
        if self.ledger.is_settled(range_):  # the writer's report has come before, or it is an old range
            self.deliveries.owe_credit(range_.ingest)
        self.measures.dispatched(range_.partition.topic, load.dispatched_messages - messages,
                                 load.dispatched_bytes - size)
        self.assignments.dispatched(message)
        if range_.epoch == self.ledger.epoch:
            self.ages.dispatched(message)
        self.deliveries.settle_quarantined([range_])

    def _is_foreign(self, sender: str, range_: wire.Range) -> bool:
        """Whether an ingest process dispatches for another, or in a partition that was never started."""
        return self.ingest_names[range_.ingest] != sender or (
            range_.epoch == self.ledger.epoch and not self.ledger.knows(range_.partition)
            and range_.generation == self.ledger.generation(range_.partition))

    def _encoded(self, _sender: str, message: wire.Encoded) -> None:
        self.measures.encoded(message)
        self.counters.encoded += message.points
        self.counters.filtered += message.dropped
        self.counters.ways += message.ways
        for topic, notice in message.notices:
            if topic in self.topics:
                self._notices.add(self.topics[topic].label(), notice.place, notice.kind, notice.detail,
                                  time.monotonic(), notice.count)

    def _finished(self, message: wire.Settled, stored: bool) -> None:
        """A batch was settled for the first time; `stored`: its dead letters, too."""
        self.measures.settled(message, self.ages.age(message.range, time.time()), stored)

    def _settled(self, _sender: str, message: wire.Settled) -> None:
        self.deliveries.settled(message)

    def _dead_letters_stored(self, _sender: str, message: wire.DeadLettersStored) -> None:
        self.deliveries.dead_letters_stored(message.range)

    # Partitions

    def _partitions_started(self, sender: str, message: wire.Started) -> None:
        if message.epoch == self.ledger.epoch:
            self.router.send(sender, self.assignments.start(sender, message))
            self.started.add(sender)
            self._partitions_changed()

    def _truncated(self, sender: str, message: wire.Truncated) -> None:
        if message.epoch == self.ledger.epoch:
            self.poison.truncated(message.partition, message.offset)
            self.router.send(sender, self.assignments.truncate(sender, message))
            self._partitions_changed()

    def _gap(self, _sender: str, message: wire.Gap) -> None:
        if message.epoch == self.ledger.epoch:
            self.assignments.gap(message)
            self._partitions_changed()

    def _revoked(self, sender: str, message: wire.Revoked) -> None:
        if message.epoch == self.ledger.epoch:
            for partition in message.partitions:
                self.poison.truncated(partition, 0)
            self.assignments.revoke(sender, message, time.monotonic())
            self._partitions_changed()
            self.offsets.hurry()

    def _partitions_changed(self) -> None:
        self.deliveries.forget_obsolete()
        self.ages.keep(self.ledger.knows)
        self.deliveries.grant_all()

    def _offset_stored(self, sender: str, message: wire.Stored) -> None:
        if self.assignments.owners.get(message.partition) == sender:
            self.offsets.confirmed(message)

    def _progress(self, sender: str, message: wire.Progress) -> None:
        self.ends.update((partition, end) for partition, end in message.ends if self.ledger.knows(partition))
        self.unread[sender] = message.unread
        if sender not in self.started or self.draining:
            return
        foreign = self.assignments.not_owned(sender, [partition for partition, _ in message.ends])
        if foreign:
            self.logger.warning("%s is reading %s, which is assigned to another ingest process; restarting it there "
                                "from the committed offset", sender,
                                ", ".join(self.topics[one.topic].label(one.number) for one in foreign))
            self.router.send(sender, wire.Unassigned(self.ledger.epoch, foreign))

    def _ingest_stopped(self, sender: str, _message: wire.Stopped) -> None:
        self.stopped.add(sender)
        self.offsets.hurry()

    # The field registry

    def _answer_encoder(self, sender: str, message: wire.FieldTypesRequest | wire.TagCardinalities) -> None:
        """Answers an encoder; but not while the decision cannot be written to the disk: the encoder waits for it."""
        try:
            answers = self.registry.answer(message)
        except OSError as error:
            reason = f"field types cannot be written to {self.endpoints.folder}: {error.strerror}"
            self.peers.retrying(NAME, common.Retrying(reason, paused=True))
            if self._failures.allows(reason, time.monotonic()):
                self.logger.error("%s; free space there. Encoders with new fields wait, nothing is lost", reason)
            return
        self._send_to_encoders(sender, answers)

    def _send_to_encoders(self, encoder: str, messages: list[Struct]) -> None:
        """Sends an encoder its messages, and OverLimit to all encoders."""
        for message in messages:
            all_encoders = [name for name in self.peers.pids if kind_of(name) == "encode"]
            for name in all_encoders if isinstance(message, wire.OverLimit) else [encoder]:
                self.router.send(name, message)

    def _retry_field_types(self) -> None:
        """Writes the field types that could not be written before."""
        if self.peers.is_retrying(NAME):
            with contextlib.suppress(OSError):
                self.registry.write()
                self.peers.retrying(NAME, common.Retrying(""))
                self.logger.info("field types are written again")

    # Time

    async def _every_second(self) -> None:
        while True:
            await asyncio.sleep(seconds_to_heartbeats(time.monotonic()))
            if (plan := newest_plan(self._updates)) is not None:
                self.registry.reconfigure(plan.config)
            self._retry_field_types()
            self.offsets.retry()
            self.poison.forget_committed()
            now = time.monotonic()
            for log in (self.deliveries.rejects, self._notices):
                log.summarize(now, everything=self.draining)
            self._remove_silent(now)
            if not self.peers.is_retrying():
                seconds = self.plan.config.pipeline.redelivery_timeout_ms / 1000
                self.deliveries.redeliver(self.ledger.overdue(now, seconds), f"not settled for {seconds:g} s")
                self.deliveries.redeliver(self.poison.unanswered(now), "suspect")

    def _remove_silent(self, now: float) -> None:
        """Removes encoders of other machines that send no heartbeats. The supervisor watches the processes here."""
        own = {NAME, *self.router.local_names}
        for name in [name for name in self.peers.pids if name not in own
                     and now - self.peers.last_heard[name] > REMOTE_SILENCE_SECONDS]:
            self.logger.warning("no heartbeat from worker %s for %g s", name, REMOTE_SILENCE_SECONDS)
            self._remove(name, f"{name} is silent")

    def status(self) -> wire.Status:
        """The Status now."""
        ready = len(self.started) == len(self.ingest_names) and self.peers.pids.keys() >= {*self.plan.stages()}
        stopped = (self.draining or bool(self.plan.until)) and self.stopped >= set(self.ingest_names)
        observed = Observed(self.measures.sinks, list(self.deliveries.last_rejects), self.measures.topics(),
                            self.measures.status(), self.registry.tags())
        # Each member of a group reports the same ones.
        unread = {one.partition: one for some in self.unread.values() for one in some
                  if not self.ledger.knows(one.partition)}
        logs = Logs(self.ends, self.ages, self.retention, list(unread.values()))
        return make_status(self.counters, self.ledger, self.assignments, self.topics, logs, observed,
                           self.peers, ready, stopped, self.fatal, self.router.dropped.count, time.monotonic())
