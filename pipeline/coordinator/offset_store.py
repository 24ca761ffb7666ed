"""Stores offsets in Iggy: those of a single consumer itself, those of a group through the ingest that owns them."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from msgspec import Struct

from pipeline.config.schema import Config
from pipeline.coordinator.assignments import Assignments
from pipeline.coordinator.ledger import Ledger
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError
from pipeline.logs import RepeatFilter
from pipeline.wire import sink as wire

#: A store that ingest hasn't confirmed after so long is asked for again, seconds.
ASK_AGAIN_SECONDS = 2.0
#: A partition that goes to another member is let go after so long, seconds: the server's rebalancing timeout is 30.
LET_GO_SECONDS = 40.0


class OffsetStore:
    """Part of the coordinator. What can't be stored is tried again; the ledger never moves back because of it."""

    def __init__(self, config: Config, ledger: Ledger, assignments: Assignments,
                 send: Callable[[str, Struct], Awaitable[None]], logger: logging.Logger) -> None:
        """`send` sends a message to a process by its name."""
        self._topics = config.subscriptions()
        self._interval = config.pipeline.commit_interval_ms / 1000
        self._ledger = ledger
        self._assignments = assignments
        self._send = send
        self._logger = logger
        self._iggy = IggyConnection(config.iggy)
        self._asked: dict[wire.Partition, tuple[int, float]] = {}
        self._problems = RepeatFilter()
        #: The pipeline stops: a partition whose offset can't be stored any more is another member's business.
        self.draining = False

    async def run(self) -> None:
        """Stores what may be stored, every commit interval, until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            # What was read since takes the place of a rewind: that must not come after it.
            for partition, offset in {**self._assignments.rewinds, **dict(self._ledger.storable())}.items():
                if self._topics[partition.topic].group:
                    await self._ask(partition, offset)
                elif not await self._try(partition, offset):
                    break
            self._let_go()

    async def _try(self, partition: wire.Partition, offset: int) -> bool:
        """Stores an offset of a single consumer. False when Iggy can't be reached."""
        connected = False
        try:
            await self._iggy.ensure_connected()
            connected = True
            await self._store(partition, offset)
        except IggyError as error:
            self._complain(partition, offset, str(error))
        return connected

    async def _store(self, partition: wire.Partition, offset: int) -> None:
        source, generation = self._topics[partition.topic], self._ledger.generation(partition)
        if offset < 0:
            await self._iggy.delete_offset(source, partition.number)
        else:
            await self._iggy.store_offset(source, partition.number, offset)
        if self._ledger.generation(partition) == generation:
            self._is_stored(partition, offset)

    def _is_stored(self, partition: wire.Partition, offset: int) -> None:
        rewind = self._assignments.rewinds.get(partition)
        if rewind is not None and rewind <= offset:
            del self._assignments.rewinds[partition]
        self._ledger.stored(partition, offset)

    async def _ask(self, partition: wire.Partition, offset: int) -> None:
        """Has ingest store an offset of the group."""
        now = time.monotonic()
        asked, at = self._asked.get(partition, (-2, 0.0))
        if offset < 0 or (asked == offset and now - at < ASK_AGAIN_SECONDS):
            return
        self._asked[partition] = offset, now
        await self._send(self._assignments.owners[partition],
                         wire.Store(self._ledger.epoch, partition, self._ledger.generation(partition), offset))

    def confirmed(self, message: wire.Stored) -> None:
        """Ingest has stored an offset of the group, or could not."""
        partition = message.partition
        if message.epoch != self._ledger.epoch or message.generation != self._ledger.generation(partition):
            return
        asked, _ = self._asked.get(partition, (-1, 0.0))
        if message.offset > asked:
            return
        if not message.problem:
            if message.offset == asked:
                del self._asked[partition]
            self._is_stored(partition, message.offset)
        elif partition in self._assignments.revoking or self.draining:
            self._assignments.drop(partition)
        else:
            self._complain(partition, message.offset, message.problem)

    def _complain(self, partition: wire.Partition, offset: int, problem: str) -> None:
        if self._problems.allows(problem, time.monotonic()):
            source = self._topics[partition.topic]
            self._logger.warning("%s/%s partition %d: offset %d can't be stored, trying again: %s", source.stream,
                                 source.topic, partition.number, offset, problem)

    def _let_go(self) -> None:
        """Forgets partitions that another member takes, when all of theirs is stored."""
        now = time.monotonic()
        for partition, since in list(self._assignments.revoking.items()):
            if self._ledger.idle_in(partition) or now - since > LET_GO_SECONDS:
                self._assignments.drop(partition)
