"""Ingest: polls Iggy, cuts batches, and reports each to the coordinator before it sends it to the encoders.

One task polls, one receives the coordinator's orders, and one stores the offsets of a consumer group, which only the
connection of a member may do. Ingest keeps nothing that it could not read again. It reads a partition only after the
coordinator has sent the position: see `wire.Seek`.
"""

import asyncio
import logging
import time

from pipeline.config.plan import Plan
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError
from pipeline.plan_updates import PlanUpdates, newest_plan
from pipeline.sockets.control_link import HEARTBEAT_SECONDS, AsyncControlLink
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.sink_rules import WireRules
from pipeline.subscriptions import Subscriptions
from pipeline.wire import common
from pipeline.wire import sink as wire
from stages.ingest.batch_sender import BatchSender
from stages.ingest.outage import Outage
from stages.ingest.partition_reader import PartitionReader
from stages.ingest.poller import Poller
from stages.ingest.rereads import Rereads
from stages.ingest.topic_monitor import TopicChanges, TopicMonitor

#: Seconds between two refreshes of the topics; and with a consumer group, whose assignments change.
REFRESH_SECONDS = 2.0
GROUP_REFRESH_SECONDS = 0.5
#: With many topics the pause until the next refresh is so many times as long as the last one took, up to so many
#: seconds.
REFRESH_FACTOR = 10
MAX_REFRESH_SECONDS = 5.0
#: Pause after an error, seconds.
ERROR_PAUSE_SECONDS = 0.5
#: The ends of the logs are reported when they have changed, and after so many seconds.
PROGRESS_SECONDS = 2.0


def run(name: str, index: int, plan: Plan, logger: logging.Logger, updates: PlanUpdates) -> None:
    """Runs ingest until the process is killed."""
    asyncio.run(IngestStage(name, index, plan, logger, updates).run())


class IngestStage:
    """Its part of the partitions of all configured topics: membership, and the coordinator's orders."""

    def __init__(self, name: str, index: int, plan: Plan, logger: logging.Logger,
                 updates: PlanUpdates | None = None) -> None:
        self.logger = logger
        self._updates = updates
        self.iggy = IggyConnection(plan.config.iggy)
        self.topics = Subscriptions(plan.config)
        self.until = plan.until
        self.monitor = TopicMonitor(index, plan.ingests, plan.config, self.topics, self.iggy, logger)
        self.refresh_seconds = GROUP_REFRESH_SECONDS if plan.config.iggy.consumer_group else REFRESH_SECONDS
        self.endpoints = Endpoints(plan.folder, plan.config.network)
        self.link = AsyncControlLink(self.endpoints, self.endpoints.control, name, wire.read_control,
                                     WireRules(plan.config, plan.ingests, self.topics).control)
        sender = BatchSender(index, plan.config, self.topics, self.endpoints, plan.encoders)
        self.poller = Poller(index, plan, self.topics, self.iggy, sender, self.link.send, logger)
        self.rereads = Rereads(self.topics, self.iggy, sender, self.link.send, logger)
        self.outage = Outage(logger, self.link.send)
        #: Orders that the reading task has not carried out yet.
        self.assignment: wire.Assign | None = None
        self.seeks: list[wire.Position] = []
        self.unassigned: list[wire.Partition] = []
        self._stores: asyncio.Queue[wire.Store] = asyncio.Queue()
        #: Whether the coordinator knows our partitions, since the epoch began.
        self.announced = False
        #: Held while our partitions change, and while an offset is stored: an earlier one must not be stored later.
        self._changing = asyncio.Lock()
        #: When the topics are refreshed next; seconds, monotonic.
        self._refresh_at = 0.0
        #: What the coordinator was told last of the logs, and when; seconds, monotonic.
        self._progress: wire.Progress | None = None
        self._progress_at = 0.0
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Reads until cancelled."""
        await asyncio.gather(self._receive_orders(), self.link.send_heartbeats(), self._read(),
                             self._carry_out_stores())

    async def _receive_orders(self) -> None:
        while True:
            wakes = False
            for message in await self.link.receive():
                # New credit matters at once only where reading waits for it.
                wakes |= not isinstance(message, wire.Credit) or self.poller.waits_for_credit
                self._take_order(message)
            if wakes:
                self._wake.set()

    def _take_order(self, message: wire.Control) -> None:
        match message:
            case wire.Assign() as assignment:
                self.assignment = assignment
                self.seeks.clear()
            case wire.Seek(epoch=epoch, positions=positions):
                if epoch == self.poller.epoch and self.assignment is None:
                    self.seeks += positions
            case wire.Unassigned(epoch=epoch, partitions=partitions):
                if epoch == self.poller.epoch:
                    self.unassigned += partitions
            case wire.Credit() as credit:
                if credit.epoch >= self.poller.epoch:
                    self.poller.credit.grant(credit)
            case wire.Redeliver(ranges=ranges):
                self.rereads.add(ranges)
            case wire.Store() as store:
                self._stores.put_nowait(store)
            case common.Drain():
                self.poller.draining = True
            case wire.Allow(keys=keys):
                self.endpoints.admit(keys)
                self.link.send(wire.Allowed(keys))

    async def _carry_out_stores(self) -> None:
        """Stores offsets of the group as ordered: only a connection that has joined may."""
        while True:
            store = await self._stores.get()
            async with self._changing:
                problem = await self._carry_out(store)
            self.link.send(wire.Stored(store.epoch, store.partition, store.generation, store.offset, problem))

    async def _carry_out(self, store: wire.Store) -> str:
        """Stores an offset. Returns what was wrong, or ""."""
        reader = self.poller.readers.get(store.partition)
        if store.epoch != self.poller.epoch or (reader is not None and reader.generation != store.generation):
            # Another member may have had the partition meanwhile, and stored a higher offset.
            return "the partition was revoked and assigned again after the order was sent"
        try:
            await self.iggy.store_offset(self.topics[store.partition.topic], store.partition.number, store.offset)
        except IggyError as error:
            return str(error)
        return ""

    async def _read(self) -> None:
        while True:
            try:
                await self._step()
            except IggyError as error:
                self.outage.failed(error, time.monotonic())
                self._refresh_at = 0.0
                await self._pause(ERROR_PAUSE_SECONDS)
            else:
                if self._refresh_at:  # the topics were refreshed since the last error
                    self.outage.ended(time.monotonic())

    async def _pause(self, seconds: float) -> None:
        """Waits until the coordinator sends something, or `seconds` have passed."""
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass

    async def _step(self) -> None:
        """Does the one thing that is most urgent. Raises IggyError."""
        if self.assignment is None and not self.rereads and (self.poller.draining or self._is_complete()):
            self.link.send(wire.Stopped())
            await self._pause(HEARTBEAT_SECONDS)
            return
        connection = self.iggy.connections
        await self.iggy.ensure_connected()
        if self.iggy.connections != connection:
            self._refresh_at = 0.0
        await self._carry_out_orders()
        if (plan := newest_plan(self._updates)) is not None:
            self.poller.pause(plan.controls)
        if self.poller.epoch and time.monotonic() >= self._refresh_at:
            await self._refresh()
        elif self.rereads and self.poller.epoch:
            await self.rereads.read_first(self.poller.epoch, self.poller.readers)
        elif not self.poller.draining and self.poller.readers and self.poller.credit.available:
            due = await self.poller.step()
            if due is not None:
                await self._pause(min(max(0.001, due - time.monotonic()), HEARTBEAT_SECONDS))
        else:
            await self._pause(min(HEARTBEAT_SECONDS, self.refresh_seconds))

    def _is_complete(self) -> bool:
        """Whether every partition was read up to its limit, where there are limits."""
        return bool(self.until) and self.announced and self.monitor.all_present and all(
            reader.generation >= 0 and reader.at_limit and not reader.messages
            for reader in self.poller.readers.values())

    async def _carry_out_orders(self) -> None:
        if self.assignment is not None:
            await self._assign(self.assignment)
        if self.unassigned:
            await self._unassign()
        for position in self.seeks:
            self._seek(position)
        self.seeks.clear()

    async def _assign(self, assignment: wire.Assign) -> None:
        """Starts (again) at the assigned positions. Other partitions are found by the next refresh."""
        await self.poller.finish_poll()
        self.monitor.assigned(assignment)
        self.monitor.newest_times |= {where: reader.newest_time for where, reader in self.poller.readers.items()}
        self.poller.readers = {position.partition: PartitionReader(position.partition, position.offset)
                               for position in assignment.positions}
        for position in assignment.positions:
            self.poller.readers[position.partition].seek(position)
        self.poller.pause()
        self.poller.epoch = assignment.epoch
        self.poller.credit.assign(assignment)
        self.rereads.keep_epoch(assignment.epoch)
        self.announced = False
        self._progress = None
        self._refresh_at = 0.0
        if self.assignment is assignment:
            self.assignment = None

    async def _unassign(self) -> None:
        """Stops reading partitions that the coordinator has assigned to another, until a refresh finds them again."""
        await self.poller.finish_poll()
        for where in self.unassigned:
            self.poller.readers.pop(where, None)
        self.unassigned.clear()
        self.announced = False  # with limits, a refresh takes partitions only until they are announced
        self._refresh_at = 0.0

    def _seek(self, position: wire.Position) -> None:
        reader = self.poller.readers.get(position.partition)
        if reader is not None:
            reader.seek(position)
            self.rereads.seek(position)

    async def _refresh(self) -> None:
        """Compares the topics with what is read, and applies and reports the changes. Raises IggyError."""
        began = time.monotonic()
        await self.poller.finish_poll()
        async with self._changing:
            changes = await self.monitor.refresh(self.poller.readers)
            replaced = self._apply(changes)
        await self._report(changes, replaced)
        # At half seconds of the clock: an idle process wakes up for this and for its heartbeat at the same time.
        now = time.monotonic()
        pause = min(max(self.refresh_seconds, REFRESH_FACTOR * (now - began)), MAX_REFRESH_SECONDS)
        self._refresh_at = now + pause - now % GROUP_REFRESH_SECONDS

    def _apply(self, changes: TopicChanges) -> list[PartitionReader]:
        """Drops revoked partitions and adds new ones. Returns the readers whose buffers are still to be sent."""
        readers = self.poller.readers
        if self.until and self.announced:
            changes.new.clear()  # with limits, only the partitions of the start are read
        for where in changes.revoked_at_once:
            del readers[where]
        replaced = [readers.pop(where) for where in changes.revoked]
        for start in changes.truncated:
            replaced.append(readers[start.partition])
            readers[start.partition] = replaced[-1].successor(start.offset)
        for new in changes.new:
            where = new.start.partition
            reader = readers[where] = PartitionReader(where, new.start.offset)
            reader.fresh, reader.created_at = new.fresh, new.created_at
            reader.newest_time = self.monitor.newest_times.get(where, 0)
        if changes.new or changes.truncated:
            self.poller.pause()
        return replaced

    async def _report(self, changes: TopicChanges, replaced: list[PartitionReader]) -> None:
        """Sends the buffers of the replaced readers, and reports the changes to the coordinator."""
        epoch = self.poller.epoch
        if changes.fatal:
            self.link.send(wire.Failed(changes.fatal))
        for reader in replaced:
            await self.poller.flush(reader)
        if changes.revoked_at_once:
            self.link.send(wire.Revoked(epoch, changes.revoked_at_once, at_once=True))
        if changes.revoked:
            self.link.send(wire.Revoked(epoch, changes.revoked))
        for start in changes.truncated:
            self.link.send(wire.Truncated(epoch, start.partition, start.offset, start.stored, start.end))
        if changes.new or not self.announced:
            topics = dict.fromkeys(new.start.partition.topic for new in changes.new)
            found = [found for topic in topics if (found := self.topics.definition(topic)) is not None]
            self.link.send(wire.Started(epoch, [new.start for new in changes.new], found))
            self.announced = True
        progress = wire.Progress([end for end in changes.ends if end[0] in self.poller.readers], changes.unread)
        if progress != self._progress or time.monotonic() - self._progress_at >= PROGRESS_SECONDS:
            self._progress, self._progress_at = progress, time.monotonic()
            self.link.send(progress)
