"""Commits offsets in Iggy: itself for a single consumer, in a consumer group through the ingest process that may."""

import asyncio
import logging
import time
from collections.abc import Callable

from msgspec import Struct

from pipeline.config.schema import Config
from pipeline.coordinator.assignments import Assignments
from pipeline.coordinator.ledger import Ledger
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError
from pipeline.log_formats import facts
from pipeline.logs import RepeatFilter
from pipeline.sockets.status_socket import wait_at_most
from pipeline.subscriptions import Subscriptions
from pipeline.wire import sink as wire

#: A Store that ingest has not confirmed after this time is sent again, seconds.
REPEAT_SECONDS = 2.0
#: A revoked partition is released after this time even if its offset is not stored, seconds: the server's rebalancing
#: timeout is 30.
RELEASE_SECONDS = 40.0
#: A commit costs Iggy a request for each partition. So many seconds pass for each of them until the next commit, and at
#: most so many in all.
REQUEST_SECONDS = 0.1
MAX_PAUSE_SECONDS = 10.0


class OffsetStore:
    """Part of the coordinator. A failed commit is retried; the ledger never moves back because of it."""

    def __init__(self, config: Config, topics: Subscriptions, ledger: Ledger, assignments: Assignments,
                 send: Callable[[str, Struct], None], logger: logging.Logger,
                 committed: Callable[[], None] = lambda: None) -> None:
        """`send` sends a message to a process by its name; `committed` is called when an offset was stored."""
        self._topics = topics
        self._interval = config.pipeline.commit_interval_ms / 1000
        self._ledger = ledger
        self._assignments = assignments
        self._send = send
        self._logger = logger
        self._iggy = IggyConnection(config.iggy)
        #: Offset and time, seconds, monotonic, of the last Store that was sent for a partition.
        self._requested: dict[wire.Partition, tuple[int, float]] = {}
        self._problems = RepeatFilter()
        self._committed = committed
        self._settled = asyncio.Event()
        self._urgent = asyncio.Event()
        #: The pipeline stops: a partition whose offset cannot be stored is left to the other members.
        self.draining = False

    def wake(self) -> None:
        """Something may have been settled, or changed otherwise."""
        self._settled.set()

    def retry(self) -> None:
        """To be called every second: what could not be committed, or released, is tried again."""
        if self._assignments.rewinds or self._assignments.revoking or self._ledger.storable():
            self._settled.set()

    def hurry(self) -> None:
        """What is settled is to be committed at the next commit interval, however many partitions there are."""
        self._settled.set()
        self._urgent.set()

    async def run(self) -> None:
        """Commits what is settled, every commit interval, until cancelled."""
        while True:
            await self._settled.wait()
            await asyncio.sleep(self._interval)
            self._settled.clear()
            self._urgent.clear()
            # An offset settled since replaces a rewind, which must not be stored after it.
            offsets = {**self._assignments.rewinds, **dict(self._ledger.storable())}
            for partition, offset in offsets.items():
                if self._topics[partition.topic].group:
                    self._request(partition, offset)
                elif not await self._try(partition, offset):
                    break
            self._release()
            if not self.draining and len(offsets) * REQUEST_SECONDS > self._interval:
                await wait_at_most(self._urgent, min(len(offsets) * REQUEST_SECONDS, MAX_PAUSE_SECONDS))

    async def _try(self, partition: wire.Partition, offset: int) -> bool:
        """Stores an offset of a single consumer. False when there is no connection to Iggy."""
        connected = False
        try:
            await self._iggy.ensure_connected()
            connected = True
            await self._store(partition, offset)
        except IggyError as error:
            self._log_failure(partition, offset, str(error))
        return connected

    async def _store(self, partition: wire.Partition, offset: int) -> None:
        subscription, generation = self._topics[partition.topic], self._ledger.generation(partition)
        if offset < 0:
            await self._iggy.delete_offset(subscription, partition.number)
        else:
            await self._iggy.store_offset(subscription, partition.number, offset)
        if self._ledger.generation(partition) == generation:
            self._is_stored(partition, offset)

    def _is_stored(self, partition: wire.Partition, offset: int) -> None:
        rewind = self._assignments.rewinds.get(partition)
        if rewind is not None and rewind <= offset:
            del self._assignments.rewinds[partition]
        self._ledger.stored(partition, offset)
        self._committed()
        if partition in self._assignments.revoking:
            self.wake()  # it may be released now

    def _request(self, partition: wire.Partition, offset: int) -> None:
        """Asks ingest to store an offset of the group."""
        now = time.monotonic()
        requested, at = self._requested.get(partition, (-2, 0.0))
        if offset < 0 or (requested == offset and now - at < REPEAT_SECONDS):
            return
        self._requested[partition] = offset, now
        self._send(self._assignments.owners[partition],
                   wire.Store(self._ledger.epoch, partition, self._ledger.generation(partition), offset))

    def confirmed(self, message: wire.Stored) -> None:
        """Ingest has stored an offset of the group, or failed to."""
        partition = message.partition
        if message.epoch != self._ledger.epoch or message.generation != self._ledger.generation(partition):
            return
        requested, _ = self._requested.get(partition, (-1, 0.0))
        if message.offset > requested:
            return
        if not message.problem:
            if message.offset == requested:
                del self._requested[partition]
            self._is_stored(partition, message.offset)
        elif partition in self._assignments.revoking or self.draining:
            self._assignments.drop(partition)
        else:
            self._log_failure(partition, message.offset, message.problem)

    def _log_failure(self, partition: wire.Partition, offset: int, problem: str) -> None:
        if self._problems.allows(problem, time.monotonic()):
            topic = self._topics[partition.topic]
            about = facts(stream=topic.stream, topic=topic.topic, partition=partition.number, offset=offset)
            self._logger.warning("%s: offset %d cannot be stored; retrying: %s%s", topic.label(partition.number),
                                 offset, problem, self._problems.times, extra=about)

    def _release(self) -> None:
        """Releases revoked partitions whose offsets are stored."""
        now = time.monotonic()
        for partition, since in list(self._assignments.revoking.items()):
            if self._ledger.idle_in(partition) or now - since > RELEASE_SECONDS:
                self._assignments.drop(partition)
