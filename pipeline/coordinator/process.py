"""The coordinator: keeps the ledger, grants ingest its window, stores offsets in Iggy, tells the status.

It alone decides what is stored: an offset whose whole prefix is settled, and never more.
"""

import asyncio
import contextlib
import logging
import os
import time

import zmq
import zmq.asyncio
from msgspec import Struct

from pipeline.config.digest import config_digest
from pipeline.config.plan import Plan
from pipeline.coordinator.admission import Admission
from pipeline.coordinator.assignments import Assignments
from pipeline.coordinator.coalescing import ReportCoalescer
from pipeline.coordinator.cornering import Cornering
from pipeline.coordinator.field_registry import FieldRegistry
from pipeline.coordinator.ledger import Ledger
from pipeline.coordinator.offset_store import OffsetStore
from pipeline.coordinator.reject_log import RejectLog
from pipeline.logs import RepeatFilter
from pipeline.overwriting import overwriting_advice
from pipeline.sockets.control_socket import ControlSocket, sender_of
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.intake import Dropped
from pipeline.sockets.sink_rules import WireRules, kind_of
from pipeline.wire import common
from pipeline.wire import sink as wire

#: Seconds between two Status messages.
STATUS_SECONDS = 0.25
#: An encoder of another machine that is silent for so long has left.
REMOTE_SILENCE_SECONDS = 10.0


def run_coordinator(plan: Plan, logger: logging.Logger) -> None:
    """Runs the coordinator until the process is killed."""
    asyncio.run(Coordinator(plan, logger).run())


def _router() -> "zmq.Socket[bytes]":
    """A process that takes the place of another takes its name, too."""
    router: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    router.setsockopt(zmq.ROUTER_HANDOVER, 1)
    return router


class Coordinator:
    """One per pipeline. A new one begins a new epoch: what the old one had in flight is read again."""

    def __init__(self, plan: Plan, logger: logging.Logger) -> None:
        self.plan = plan
        self.logger = logger
        self.ledger = Ledger(plan.epoch)
        self.topics = plan.config.subscriptions()
        self.counsel = FieldRegistry(plan.config, plan.folder, plan.run, logger)
        self.gathering = ReportCoalescer(plan.config.pipeline.window_messages)
        self.ingest_names = plan.ingest_names()
        self.cornering = Cornering(self.ledger, self.topics, plan.folder, plan.run, logger)
        self.assignments = Assignments(self.ledger, self.topics, plan.until, self.cornering.suspects)
        self.store = OffsetStore(plan.config, self.ledger, self.assignments, self._send, logger)
        context = zmq.asyncio.Context.instance()
        self.endpoints = Endpoints(plan.folder, plan.config.network)
        self.router = ControlSocket(_router())
        self.endpoints.bind_control(self.router.socket)
        #: For encoders of other machines, where there may be some.
        self.remote: ControlSocket | None = None
        if self.endpoints.has_remote:
            self.remote = ControlSocket(_router(), with_keys=True)
            self.endpoints.bind_remote_control(self.remote.socket)
        self.admission = Admission(config_digest(plan.config), [
            name for name in plan.stages() if kind_of(name) in ("ingest", "write")])
        self.rules = WireRules(plan.config, plan.ingests)
        self.dropped = Dropped(logger)
        self._dropped_by: dict[str, int] = {}
        #: The processes of this machine that may speak.
        self._own = frozenset({"supervisor", *plan.stages()})
        self.status = context.socket(zmq.PUB)
        self.endpoints.bind(self.status, self.endpoints.status)
        self.pids: dict[str, int] = {"coordinator": os.getpid()}
        self.startup_cpu: dict[str, float] = {"coordinator": time.process_time()}
        #: When each process was last heard of, seconds, monotonic.
        self.heard: dict[str, float] = {}
        self.ends: dict[wire.Partition, int] = {}
        self.retrying: dict[str, common.Retrying] = {}
        #: Settled but for their dead letters.
        self.burying: dict[wire.Range, wire.Settled] = {}
        self.draining = False
        #: Ingest processes that have said Started, and Stopped.
        self.started: set[str] = set()
        self.stopped: set[str] = set()
        self.fatal = ""
        self.overwritten = 0
        #: Topics whose points were said to overwrite others.
        self._said_overwriting: set[int] = set()
        self.encoded = self.filtered = self.written = self.rejected = self.batches = self.sent_bytes = self.reread = 0
        self.first_dispatched_at = self.last_settled_at = 0.0
        #: Of which ingest processes something was settled since their last Window.
        self._owed: set[int] = set()
        self._seen: set[str] = set()
        #: All processes of the pipeline have been heard of: nothing is read before there is somewhere to put it.
        self.opened = False
        self._rejects = RejectLog(logger)
        self._notices = RejectLog(logger, verb="warning for")
        self._failures = RepeatFilter()

    async def run(self) -> None:
        """Receives, stores and publishes until cancelled."""
        sockets = [self.router, *([self.remote] if self.remote is not None else [])]
        await asyncio.gather(*map(self._receive, sockets), self.store.run(), self._publish())

    async def _receive(self, socket: ControlSocket) -> None:
        while True:
            # What can't be understood, or doesn't fit, is left out. Of what a replaced process has left, only what
            # stays true counts: its successor was told already where to go on, and a late Dispatched contradicts it.
            messages = [found for came in await socket.receive_from() if (found := self._understood(*came)) is not None]
            for sender, message in messages:
                await self._handle(sender, message)
            while self._owed:
                await self._grant(self._owed.pop())
            if all(isinstance(message, wire.BatchReport) for _, message in messages):
                in_flight = self.ledger.in_flight_messages
                await asyncio.sleep(self.gathering.pause(self.ledger.dispatched_messages - in_flight, in_flight,
                                                         time.monotonic()))

    def _understood(self, identity: bytes, key: str | None, frames: list[bytes]) -> tuple[str, wire.Control] | None:
        """Sender and message, where they are what they should be; `key` is that of another machine's encoder."""
        sender = sender_of(identity)
        try:
            message = wire.read_control(frames)
        except wire.Malformed as error:
            self.dropped.drop(sender, str(error))
            return None
        wrong = self.rules.sender(sender, message) or self.rules.control(message)
        if key is None and not wrong and sender and sender not in self._own:
            wrong = "there is no process of this name"
        elif key is not None and not wrong:
            wrong = self._wrong_in_remote(sender, key, message)
        if wrong:
            self.dropped.drop(sender, wrong)
            return None
        return sender, message

    def _wrong_in_remote(self, sender: str, key: str, message: wire.Control) -> str:
        """What is wrong in a message of another machine's encoder, or "". Whether it may take part is decided here."""
        if isinstance(message, wire.Join) and sender not in self._own:
            self._join(message, key)
            return ""
        if isinstance(message, wire.Join | common.Heartbeat) or not self.admission.admits(sender, key):
            return "its worker was not admitted"
        return ""

    async def _handle(self, sender: str, message: wire.Control) -> None:
        match message:
            case wire.Settled():
                await self._settled(message)
            case wire.Dispatched(range=range_):
                if self._is_foreign(sender, range_):
                    self.dropped.drop(sender, "it dispatches what it was not given")
                    return
                now = time.monotonic()
                self.first_dispatched_at = self.first_dispatched_at or now
                self.ledger.dispatch(range_, now)
                self.assignments.dispatched(message)
                await self._settle_quarantined([range_])
            case wire.Encoded(points=points, dropped=dropped):
                self.encoded += points
                self.filtered += dropped
                for topic, notice in message.notices:
                    if not 0 <= topic < len(self.topics):
                        continue
                    source = self.topics[topic]
                    self._notices.add(f"{source.stream}/{source.topic}", notice.place, notice.kind, notice.detail,
                                      time.monotonic(), notice.count)
            case common.Heartbeat():
                await self._hello(message)
            case wire.Join(name=name, pid=pid, startup_cpu=startup_cpu):
                if self.admission.knows(name):
                    await self._hello(common.Heartbeat(name, pid, startup_cpu))
            case wire.Allowed(keys=keys):
                self.admission.confirmed(sender, keys)
            case wire.Started() | wire.Truncated() | wire.Gap() | wire.Revoked():
                if message.epoch == self.ledger.epoch:
                    await self._partitions_changed(sender, message)
            case wire.Stored():
                if self.assignments.owners.get(message.partition) == sender:
                    self.store.confirmed(message)
            case wire.Failed(reason=reason):
                self.fatal = self.fatal or reason
            case wire.Progress(ends=ends):
                self.ends.update((partition, end) for partition, end in ends if self.ledger.knows(partition))
                await self._check_owner(sender, [partition for partition, _ in ends])
            case common.Retrying(reason=reason):
                self.retrying.pop(sender, None)
                if reason:
                    self.retrying[sender] = message
            case wire.DeadLettersStored(range=range_):
                settled = self.burying.pop(range_, None)
                if settled is not None and range_.epoch == self.ledger.epoch:
                    await self._finish(settled)
            case wire.ProcessDied(name=name, work=work, how=how):
                if work is not None:
                    deaths = 0 if work in self.burying else self.cornering.died(name, work, how)
                    self.router.send(sender.encode(), common.encode(wire.Excused(name, work, deaths)))
                await self._lost(name, f"{name} died")
            case wire.GaveUp(range=range_, why=why):
                if range_ not in self.burying:
                    await self._read_again(self.cornering.gave_up(sender, range_, why), f"{sender} gave up")
            case wire.Restarted(work=work, how=how):
                if work is not None and work not in self.burying:
                    self.cornering.died(sender, work, how)
                await self._read_again(self._held_by(sender), f"{sender} died")
            case wire.Leave(name=name):
                self.logger.info("worker %s leaves", name)
                self.admission.remove(name)
                await self._lost(name, f"{name} has left")
            case wire.FieldTypesRequest() | wire.TagCardinalities():
                await self._advise(sender, self._counsel(message))
            case common.Drain():
                self.draining = self.store.draining = True
                for name in self.ingest_names:
                    await self._send(name, message)
            case wire.Stopped():
                self.stopped.add(sender)

    def _is_foreign(self, sender: str, range_: wire.Range) -> bool:
        """Whether an ingest process dispatches for another, or in a partition that nobody has begun to read."""
        return self.ingest_names[range_.ingest] != sender or (
            range_.epoch == self.ledger.epoch and not self.ledger.knows(range_.partition)
            and range_.generation == self.ledger.generation(range_.partition))

    async def _lost(self, name: str, why: str) -> None:
        """A process is gone; what it held is read again."""
        self.retrying.pop(name, None)
        self.heard.pop(name, None)
        if self.pids.pop(name, None) is not None or name in self._seen:
            if name not in self.plan.stages():
                self._seen.discard(name)
            if name != "dead-letter":
                await self._read_again(self._held_by(name), why)

    def _join(self, message: wire.Join, key: str) -> None:
        """Answers an encoder of another machine, once ingest and the writers take its key."""
        assert self.remote is not None
        reason = self.admission.refusal(message, self.pids.get(message.name))
        if reason:
            self.admission.remove(message.name, key)
            if self._failures.allows(f"{message.name} {reason}", time.monotonic()):
                self.logger.error("worker %s is not admitted: %s", message.name, reason)
        else:
            if not self.admission.knows(message.name):
                self.logger.info("worker %s joins", message.name)
            self.admission.admit(message.name, key)
            for door in (unconfirmed := self.admission.unconfirmed(key)):
                self.router.send(door.encode(), common.encode(self.admission.allow))
            if unconfirmed:
                return  # it asks again within a second
        answer = wire.Admit(reason, len(self.ingest_names), self.plan.writers)
        self.remote.send(message.name.encode(), common.encode(answer))

    async def _hello(self, message: common.Heartbeat) -> None:
        self.heard[message.name] = time.monotonic()
        self._dropped_by[message.name] = message.dropped
        if self.pids.get(message.name) == message.pid:
            return
        self.pids[message.name] = message.pid
        self.startup_cpu[message.name] = message.startup_cpu
        self.admission.restarted(message.name)
        if self.admission.allow.keys and kind_of(message.name) in ("ingest", "write"):
            await self._send(message.name, self.admission.allow)
        replaces = message.name in self._seen
        self._seen.add(message.name)
        if not self.opened and self._seen.issuperset(self.plan.stages()):
            self.opened = True
            self._owed.update(range(len(self.ingest_names)))
        if message.name in self.ingest_names:
            self.stopped.discard(message.name)
            ingest = self.ingest_names.index(message.name)
            await self._send(message.name, self.assignments.assign(message.name, ingest))
            await self._grant(ingest)
            if self.draining:
                await self._send(message.name, common.Drain())
        if message.name.startswith("encode"):
            await self._advise(message.name, self.counsel.initial_messages())
        if message.name == "dead-letter":
            for settled in self.burying.values():
                await self._send("dead-letter", wire.StoreDeadLetters(settled.range, settled.rejects))
        elif replaces:
            # What was on its way to the process that died may have been lost even after its death was noticed.
            await self._read_again(self._held_by(message.name), f"{message.name} is new", suspects=False)

    def _held_by(self, name: str) -> list[wire.Range]:
        """The ranges that may be lost with a process: all that are unsettled, or those that an ingest dispatched."""
        unsettled = self.ledger.unsettled()
        if name not in self.ingest_names:
            return unsettled
        return [r for r in unsettled if r.ingest == self.ingest_names.index(name)]

    async def _partitions_changed(self, sender: str,
                                  message: wire.Started | wire.Truncated | wire.Gap | wire.Revoked) -> None:
        """Ingest has got, lost, or found something in its partitions."""
        match message:
            case wire.Started():
                await self._send(sender, self.assignments.start(sender, message))
                self.started.add(sender)
            case wire.Truncated():
                self.cornering.cut_off(message.partition, message.offset)
                await self._send(sender, self.assignments.truncate(sender, message))
            case wire.Gap():
                self.assignments.gap(message)
            case wire.Revoked():
                for partition in message.partitions:
                    self.cornering.cut_off(partition, 0)
                self.assignments.revoke(sender, message, time.monotonic())
        self.burying = {range_: settled for range_, settled in self.burying.items()
                        if not self.ledger.is_settled(range_)}
        for ingest in range(len(self.ingest_names)):
            await self._grant(ingest)

    async def _check_owner(self, ingest: str, read: list[wire.Partition]) -> None:
        """Has ingest begin anew with what it reads and nobody would store."""
        disowned = self.assignments.disowned(ingest, read) if ingest in self.started and not self.draining else []
        if disowned:
            names = ", ".join(f"{self.topics[w.topic].stream}/{self.topics[w.topic].topic} partition {w.number}"
                              for w in disowned)
            self.logger.warning("%s reads %s, which another has told of as its own; it begins anew there", ingest,
                                names)
            await self._send(ingest, wire.Unassigned(self.ledger.epoch, disowned))

    def _counsel(self, message: wire.FieldTypesRequest | wire.TagCardinalities) -> list[Struct]:
        """The answer to an encoder's question; none while it can't be written down, which the encoder waits for."""
        try:
            return self.counsel.answer(message)
        except OSError as error:
            reason = f"types can't be written to {self.endpoints.folder}: {error.strerror}"
            self.retrying["coordinator"] = common.Retrying(reason, paused=True)
            if self._failures.allows(reason, time.monotonic()):
                self.logger.error("%s; make room there. Encoders that meet new fields wait, nothing is lost", reason)
            return []

    def _write_types(self) -> None:
        """Tries to write down again what could not be written."""
        if "coordinator" in self.retrying:
            with contextlib.suppress(OSError):
                self.counsel.write()
                del self.retrying["coordinator"]
                self.logger.info("types are written again")

    async def _advise(self, encoder: str, advice: list[Struct]) -> None:
        """Tells an encoder what it asked for, and all of them what concerns all."""
        for message in advice:
            names = [name for name in self.pids if name.startswith("encode")]
            for name in names if isinstance(message, wire.OverLimit) else [encoder]:
                await self._send(name, message)

    async def _settled(self, message: wire.Settled) -> None:
        """A range is dealt with, but for its dead letters: those are kept first."""
        if message.range in self.burying or message.range.epoch != self.ledger.epoch:
            return
        if not self.ledger.knows(message.range.partition):
            return  # another reads the partition now
        if message.rejects and self.plan.config.dead_letters.stores and not self.ledger.was_settled(message.range):
            self.burying[message.range] = message
            await self._send("dead-letter", wire.StoreDeadLetters(message.range, message.rejects))
        else:
            await self._finish(message)

    async def _finish(self, message: wire.Settled) -> None:
        new = self.ledger.settle(message.range)
        self._owed.add(message.range.ingest)
        if not new:
            return
        self.last_settled_at = time.monotonic()
        if self.cornering.quarantined(message.range) is None:
            self.cornering.settled()
        self.batches += 1
        self.written += message.points
        self.sent_bytes += message.sent_bytes
        self.rejected += len(message.rejects)
        self._count_overwritten(message.range.partition, message.overwritten)
        for reject in message.rejects:
            self._log_reject(message.range.partition, reject)

    def _count_overwritten(self, partition: wire.Partition, found: wire.Overwritten) -> None:
        """Counts points that took the place of others; the first time that a topic has some it is said why."""
        self.overwritten += found.points
        if found.points and partition.topic not in self._said_overwriting:
            self._said_overwriting.add(partition.topic)
            self.logger.warning("points overwrite others: %s; %s. From now on they are only counted", found.example,
                                overwriting_advice(self.plan.config.all_sinks()[self.topics[partition.topic].sink]))

    def _log_reject(self, partition: wire.Partition, reject: wire.Reject) -> None:
        source = self.topics[partition.topic]
        self._rejects.add(f"{source.stream}/{source.topic}", f"partition {partition.number} offset {reject.offset}",
                          reject.reason, reject.detail, time.monotonic())

    async def _grant(self, ingest: int) -> None:
        """Tells an ingest process how far it may go: what it has in flight, within its share of the window."""
        if not self.opened:
            return
        pipeline, load = self.plan.config.pipeline, self.ledger.load(ingest)
        await self._send(self.ingest_names[ingest], wire.Credit(
            self.ledger.epoch,
            load.dispatched_messages - load.in_flight_messages + pipeline.window_messages // len(self.ingest_names),
            load.dispatched_bytes - load.in_flight_bytes + pipeline.window_bytes // len(self.ingest_names)))

    async def _read_again(self, ranges: list[wire.Range], why: str, suspects: bool = True) -> None:
        """Has ranges that may be lost read again; without `suspects`, only those that no process has died of."""
        ranges = [r for r in ranges if r not in self.burying and self.ingest_names[r.ingest] in self.pids]
        ranges = await self._settle_quarantined([r for r in self.ledger.reopen(ranges) if r not in self.burying])
        ranges = self.cornering.to_send(ranges, self.pids, suspects)
        if not ranges:
            return
        self.ledger.resent(ranges, time.monotonic())
        self.reread += len(ranges)
        self.logger.warning("%s: reading %d batches in flight again", why, len(ranges))
        for ingest, name in enumerate(self.ingest_names):
            if theirs := [r for r in ranges if r.ingest == ingest]:
                await self._send(name, wire.Redeliver(theirs))

    async def _settle_quarantined(self, ranges: list[wire.Range]) -> list[wire.Range]:
        """Makes dead letters of the quarantined messages among ranges. Returns the others."""
        others = []
        for range_ in ranges:
            settled = self.cornering.quarantined(range_)
            if settled is None:
                others.append(range_)
            else:
                await self._settled(settled)
        return others

    async def _send(self, name: str, message: Struct) -> None:
        if name in self.pids:
            socket = self.remote if self.remote is not None and self.admission.knows(name) else self.router
            socket.send(name.encode(), common.encode(message))

    async def _publish(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            ticks += 1
            await self.status.send(common.encode(self._status()))
            if ticks % round(1 / STATUS_SECONDS) == 0:
                await self._every_second()

    async def _every_second(self) -> None:
        self._write_types()
        self.cornering.forget_stored()
        for log in (self._rejects, self._notices):
            log.tell(time.monotonic(), everything=self.draining)
        now, own = time.monotonic(), {"coordinator", *self._own}
        for name in [name for name in self.pids if name not in own and now - self.heard[name] > REMOTE_SILENCE_SECONDS]:
            self.logger.warning("worker %s was not heard of for %g s", name, REMOTE_SILENCE_SECONDS)
            await self._lost(name, f"{name} is silent")
        if not self.retrying:
            seconds = self.plan.config.pipeline.redelivery_timeout_ms / 1000
            await self._read_again(self.ledger.overdue(time.monotonic(), seconds), f"not settled for {seconds:g} s")
            await self._read_again(self.cornering.unanswered(time.monotonic()), "suspect")

    def _status(self) -> wire.Status:
        ledger, topics = self.ledger, self.topics
        paused = any(retrying.paused for retrying in self.retrying.values())
        return wire.Status(
            epoch=ledger.epoch,
            ready=len(self.started) == len(self.ingest_names) and self.pids.keys() >= {*self.plan.stages()}
            and not paused,
            drained=(self.draining or bool(self.plan.until)) and self.stopped >= set(self.ingest_names) and ledger.idle,
            read=ledger.dispatched_messages, encoded=self.encoded, written=self.written, rejected=self.rejected,
            batches=self.batches, sent_bytes=self.sent_bytes, in_flight=ledger.in_flight_messages,
            in_flight_bytes=ledger.in_flight_bytes, reread=self.reread,
            first_dispatched_at=self.first_dispatched_at, last_settled_at=self.last_settled_at,
            pids=dict(self.pids), startup_cpu=dict(self.startup_cpu),
            retrying={name: retrying.reason for name, retrying in self.retrying.items()}, paused=paused,
            partitions=[
                wire.PartitionStatus(topics[partition.topic].stream, topics[partition.topic].topic, partition.number,
                                     ledger.committed(partition), position - 1,
                                     # A look is older than what has been dispatched since.
                                     max(self.ends.get(partition, -1), position - 1))
                for partition, position in sorted(ledger.positions(), key=lambda p: (p[0].topic, p[0].number))],
            filtered=self.filtered, overwritten=self.overwritten, now=time.monotonic(), heard=dict(self.heard),
            fatal=self.fatal,
            missed=self.assignments.missed, gaps=list(self.assignments.gaps), truncations=self.assignments.truncations,
            dropped=self.dropped.count + sum(self._dropped_by.values()))
