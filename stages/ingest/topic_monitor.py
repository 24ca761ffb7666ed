"""Looks at the topics every few seconds: new partitions, logs that were cut off, what the group has given us."""

import logging
import time

from apache_iggy import TopicDetails
from msgspec import Struct, field

from pipeline.config.schema import Config, start_position
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyNotFound
from pipeline.wire import sink as wire
from stages.ingest import log_identity
from stages.ingest.log_identity import LogState
from stages.ingest.partition_reader import PartitionReader
from stages.ingest.stalled_partitions import StalledPartitions

#: A group's partition that nobody reads is told after so many heartbeat timeouts: a dead member is replaced sooner.
UNREAD_TIMEOUTS = 4
#: Seconds between two looks at the partitions that other members own.
UNREAD_SECONDS = 5.0


class New(Struct, frozen=True):
    """A partition that is ours now."""

    beginning: wire.PartitionStart
    #: Nothing was stored for it.
    fresh: bool
    created_at: int


class TopicChanges(Struct):
    """What one look has found, for ingest to act on."""

    new: list[New] = field(default_factory=list)
    #: Logs that were cut off or made again: where to go on, and what is stored.
    truncated: list[wire.PartitionStart] = field(default_factory=list)
    #: Partitions that aren't ours any more; with our membership lost; and gone with it at once.
    revoked: list[wire.Partition] = field(default_factory=list)
    revoked_at_once: list[wire.Partition] = field(default_factory=list)
    #: (partition, last offset of its log or -1).
    ends: list[tuple[wire.Partition, int]] = field(default_factory=list)
    #: Why the pipeline must stop, or "".
    fatal: str = ""


class TopicMonitor:
    """One per ingest process. Changes of a reader only `created_at`, `away`, and the limit where all has expired."""

    def __init__(self, index: int, readers: int, config: Config, iggy: IggyConnection, logger: logging.Logger) -> None:
        """Ingest process `index` of `readers`, which share the partitions where no group does."""
        self.topics = config.subscriptions()
        self._index = index
        self._readers = readers
        self._iggy = iggy
        self._logger = logger
        #: Connection whose logs were compared with what we have read.
        self._compared = 0
        #: Iggy's time of the newest message read in partitions that are begun anew; microseconds since 1970.
        self.newest: dict[wire.Partition, int] = {}
        #: Where partitions without a stored offset began, so that "latest" means one moment for this process.
        self._starts: dict[wire.Partition, int] = {}
        self._away: set[int] = set()
        #: Topics that were missing once since this process began.
        self._were_away: set[int] = set()
        #: Topics that lack a partition that the configuration names.
        self._told_absent: set[int] = set()
        seconds = UNREAD_TIMEOUTS * config.pipeline.heartbeat_timeout_seconds
        self._unread = [StalledPartitions(seconds) for _ in self.topics]
        self._unread_seconds = seconds
        self._unread_at = 0.0
        self._unread_due = False

    async def look(self, readers: dict[wire.Partition, PartitionReader]) -> TopicChanges:
        """Compares the topics with what is being read. Raises IggyError."""
        generation, found, now = self._iggy.generation, TopicChanges(), time.monotonic()
        self._unread_due = now - self._unread_at >= UNREAD_SECONDS
        if self._unread_due:
            self._unread_at = now
        for index in range(len(self.topics)):
            await self._look_at(index, readers, generation != self._compared, found)
        if all(reader.log >= 0 for reader in readers.values()):  # else one wasn't compared yet
            self._compared = generation
        return found

    async def _look_at(self, index: int, readers: dict[wire.Partition, PartitionReader], compare: bool,
                       found: TopicChanges) -> None:
        source = self.topics[index]
        ours = [reader for where, reader in readers.items() if where.topic == index]
        try:
            details = await self._iggy.topic(source)
            mine = await self._mine(index, details, ours, found)
        except IggyNotFound as error:
            self._is_away(index, ours, error)
            return
        self._is_back(index, ours)
        lost = [reader.where for reader in ours if reader.where.partition not in mine]
        (found.revoked if source.group else found.revoked_at_once).extend(
            where for where in lost if where not in found.revoked_at_once)
        for partition in details.partitions:
            where = wire.Partition(index, partition.id)
            if partition.id not in mine:
                continue
            state = log_identity.log_state(partition)
            found.ends.append((where, state.next - 1))
            reader = readers.get(where)
            if reader is None or where in found.revoked_at_once:
                found.new.append(await self._new(where, state, found))
            elif reader.log >= 0:
                await self._examine(reader, state, compare, found)

    async def _mine(self, index: int, details: TopicDetails, ours: list[PartitionReader],
                    found: TopicChanges) -> set[int]:
        """The partitions of a topic that this process is to read."""
        source = self.topics[index]
        numbers = {partition.id for partition in details.partitions}
        if not source.group:
            if (absent := set(source.partitions) - numbers) and index not in self._told_absent:
                self._told_absent.add(index)
                self._logger.error("%s/%s has no partition %s, which [[topics]] partitions names; they are read once "
                                   "they are there", source.stream, source.topic, ", ".join(map(str, sorted(absent))))
            return {number for number in numbers if (not source.partitions or number in source.partitions)
                    and (index + number) % self._readers == self._index}
        assigned = await self._iggy.assignment(source)
        if assigned is None:
            found.revoked_at_once += [reader.where for reader in ours]
            await self._iggy.join(source)
            assigned = await self._iggy.assignment(source) or []
            self._logger.info("joined the group %s of %s/%s", source.consumer, source.stream, source.topic)
        if self._unread_due:
            await self._look_for_unread(index, details, set(assigned))
        return numbers & set(assigned)

    async def _look_for_unread(self, index: int, details: TopicDetails, assigned: set[int]) -> None:
        """Says which partitions belong to a member that does nothing; nobody can take them from it."""
        source = self.topics[index]
        lags = {partition.id: (await self._iggy.stored_offset(source, partition.id),
                               log_identity.log_state(partition).next)
                for partition in details.partitions if partition.id not in assigned}
        for partition in self._unread[index].look(lags, time.monotonic()):
            self._logger.error(
                "%s/%s partition %d belongs to another member of the group %s, and nobody has committed anything "
                "there for %g s, though messages wait. If no other pipeline has it, its owner is a connection from "
                "before a restart of Iggy, which Iggy keeps: stop the group's pipelines, run `pipeline offsets "
                "regroup`, and start them again", source.stream, source.topic, partition, source.consumer,
                self._unread_seconds)

    def _is_away(self, index: int, ours: list[PartitionReader], error: IggyNotFound) -> None:
        for reader in ours:
            reader.away = True
        if index not in self._away:
            self._away.add(index)
            self._were_away.add(index)
            self._logger.error("%s/%s is missing; it is read once it is there, and the other topics meanwhile: %s",
                               self.topics[index].stream, self.topics[index].topic, error)

    def _is_back(self, index: int, ours: list[PartitionReader]) -> None:
        for reader in ours:
            reader.away = False
        if index in self._away:
            self._away.discard(index)
            self._logger.info("%s/%s is there again", self.topics[index].stream, self.topics[index].topic)

    @property
    def all_there(self) -> bool:
        """Whether no topic was missing at the last look."""
        return not self._away

    async def _new(self, where: wire.Partition, state: LogState, found: TopicChanges) -> New:
        """Where to begin with a partition: after the stored offset, or at `start_from`."""
        source = self.topics[where.topic]
        stored = await self._iggy.stored_offset(source, where.partition)
        if stored < 0:
            position = await self._first_position(where, state)
            return New(_beginning(where, position, stored, state), True, state.created_at)
        position = log_identity.stored_position(stored)
        if log_identity.is_cut_off(position, state) and state.next:
            position = await self._resume(where, position, self.newest.get(where, 0), state, found,
                                          f"ends at offset {state.next - 1}, before the stored offset {stored}")
        elif log_identity.is_cut_off(position, state):
            position = 0
        return New(_beginning(where, position, stored, state), False, state.created_at)

    async def _first_position(self, where: wire.Partition, state: LogState) -> int:
        if where not in self._starts:
            kind, value = start_position(self.topics[where.topic].start_from)
            if kind == "timestamp":
                value = await self._first_since(where, value, state.next)
            # What was sent to a topic that was not there before came later than we did.
            if kind == "latest" and where.topic not in self._were_away:
                value = state.next
            self._starts[where] = value
        return self._starts[where]

    async def _first_since(self, where: wire.Partition, microseconds: int, otherwise: int) -> int:
        first = await self._iggy.first_since(self.topics[where.topic], where.partition, microseconds)
        return first.offset() if first is not None else otherwise

    async def _examine(self, reader: PartitionReader, state: LogState, compare: bool, found: TopicChanges) -> None:
        """Finds out whether the log is still the one that `reader` has read; `compare` it message by message."""
        where, position = reader.where, reader.position
        made_again = (log_identity.seems_made_again(reader.created_at, state)
                      and log_identity.was_made_again(state, await self._message(where, 0)))
        if made_again:
            words = "was made again"
        elif log_identity.is_cut_off(position, state) or (
                compare and position and reader.time
                and log_identity.is_another_log(position, reader.time, await self._message(where, position - 1))):
            words = (f"was cut off, and now ends at offset {state.next - 1}; offsets up to {position - 1} had been "
                     "read")
        else:
            reader.created_at = state.created_at
            if state.empty and reader.limit is not None:
                reader.limit = min(reader.limit, reader.position)
            return
        resumed = await self._resume(where, position, 1 if made_again else reader.newest, state, found, words)
        stored = await self._iggy.stored_offset(self.topics[where.topic], where.partition)
        found.truncated.append(_beginning(where, resumed, stored, state))
        reader.created_at = state.created_at

    async def _message(self, where: wire.Partition, offset: int) -> log_identity.Message | None:
        """The message at an offset, or the first after it, as the log has it now; None when there is none."""
        messages = await self._iggy.poll(self.topics[where.topic], where.partition, offset, 1)
        return log_identity.Message(messages[0].offset(), messages[0].timestamp()) if messages else None

    async def _resume(self, where: wire.Partition, position: int, newest: int, state: LogState, found: TopicChanges,
                      words: str) -> int:
        """Where reading goes on in a log that isn't what it was, as `on_truncation` has it; says so."""
        source = self.topics[where.topic]
        place = f"{source.stream}/{source.topic} partition {where.partition}: the log {words}"
        if source.on_truncation == "stop":
            found.fatal = (f"{place}. Iggy has lost messages, and uses their offsets again; stopped, as on_truncation "
                           "says. Look at the offsets with `pipeline offsets show`, set them if need be, and start "
                           "again with on_truncation = \"resume_from_end\" or \"reread\"")
            return position
        if source.on_truncation == "reread":
            position = 0
        elif newest:
            position = min(position, await self._first_since(where, newest + 1, state.next))
        else:
            position = min(position, state.next)
        self._logger.error("%s. Iggy has lost messages, and uses their offsets again; what was read of them is still "
                           "written. Reading goes on at offset %d (on_truncation = \"%s\")", place, position,
                           source.on_truncation)
        return position


def _beginning(where: wire.Partition, position: int, stored: int, state: LogState) -> wire.PartitionStart:
    return wire.PartitionStart(where, position, stored, position if state.empty else state.next)
