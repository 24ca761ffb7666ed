"""Compares the topics with what is read, every few seconds: new partitions, truncated logs, assignments of a group."""

import logging
import time

from msgspec import Struct, field

from pipeline.config.schema import Config, Subscription, start_position
from pipeline.iggy.connection import IggyConnection, TopicState
from pipeline.iggy.errors import IggyError, IggyForbidden, IggyNotFound
from pipeline.iggy.topic_details import Details
from pipeline.log_formats import facts
from pipeline.subscriptions import Subscriptions
from pipeline.wire import sink as wire
from stages.ingest import log_identity
from stages.ingest.group_shares import UNEVEN_SECONDS, GroupShares
from stages.ingest.log_identity import LogState
from stages.ingest.partition_reader import PartitionReader
from stages.ingest.stalled_partitions import StalledPartitions
from stages.ingest.topic_finder import Listing, TopicFinder, UnchangedTopics

#: A group's partition that nobody reads is logged after this many heartbeat timeouts: a dead member is replaced sooner.
STALLED_TIMEOUTS = 4
#: Seconds between two checks of the partitions that other members own; and for each of these, which costs a request.
STALLED_CHECK_SECONDS = 5.0
#: In a group the assignment is asked for at each refresh, and the whole topic after so many seconds, or when the
#: assignment has changed: what the server tells of a thousand partitions costs some 50 ms.
GROUP_LOOK_SECONDS = 2.0
STALLED_REQUEST_SECONDS = 0.05
#: A refresh, during which nothing is read, spends so long on it; the next one goes on. Seconds.
STALLED_AT_ONCE_SECONDS = 0.1


class NewPartition(Struct, frozen=True):
    """A partition that this process reads from now on."""

    start: wire.PartitionStart
    #: No offset was stored for it.
    fresh: bool
    created_at: int


class TopicChanges(Struct):
    """What one refresh has found, for ingest to apply."""

    new: list[NewPartition] = field(default_factory=list)
    #: Logs that were truncated or created again: where to continue, and the stored offset.
    truncated: list[wire.PartitionStart] = field(default_factory=list)
    #: Partitions that this process does not own any more; those lost at once, with the membership or the topic.
    revoked: list[wire.Partition] = field(default_factory=list)
    revoked_at_once: list[wire.Partition] = field(default_factory=list)
    #: (partition, last offset of its log or -1).
    ends: list[tuple[wire.Partition, int]] = field(default_factory=list)
    #: Partitions that nobody reads.
    unread: list[wire.Unread] = field(default_factory=list)
    #: Why the pipeline must stop, or "".
    fatal: str = ""


class TopicMonitor:
    """One per ingest process.

    The only attributes of a reader that it changes are `created_at`, `is_missing`, and the limit of an expired log.
    """

    def __init__(self, index: int, readers: int, config: Config, topics: Subscriptions, iggy: IggyConnection,
                 logger: logging.Logger, uneven_seconds: float = UNEVEN_SECONDS,
                 check_seconds: float = STALLED_CHECK_SECONDS) -> None:
        """Ingest process `index` of `readers`, which share the partitions where no consumer group does.

        What the others of a group have is looked at every `check_seconds`; a group that is dealt out unevenly for
        `uneven_seconds` is made even.
        """
        self.topics = topics
        self._listing = Listing(iggy)
        self._finder = TopicFinder(index, config, topics, iggy, self._listing, logger)
        self._unchanged = UnchangedTopics(topics, self._listing)
        #: Whether topics were found by patterns before, in this run: those that are found from then on are new.
        self.found_before = False
        #: Of topics read in a group: our partitions when it was looked at, and when that was; seconds, monotonic.
        self._assigned: dict[int, tuple[list[int], float]] = {}
        #: The last offset of each log, of topics that have not changed since.
        self._ends: dict[int, list[tuple[wire.Partition, int]]] = {}
        self._index = index
        self._readers = readers
        self._iggy = iggy
        self._logger = logger
        #: Number of the connection on which the logs were last compared with what was read.
        self._compared = 0
        #: Iggy's time of the newest message read from partitions that are started again; microseconds since 1970.
        self.newest_times: dict[wire.Partition, int] = {}
        #: Where partitions without a stored offset started, so that "latest" is one moment for this process.
        self._starts: dict[wire.Partition, int] = {}
        self._missing: set[int] = set()
        #: Topics that were missing at least once since this process started.
        self._were_missing: set[int] = set()
        #: Topics of which it was logged that a configured partition does not exist.
        self._logged_absent: set[int] = set()
        seconds = STALLED_TIMEOUTS * config.pipeline.heartbeat_timeout_ms / 1000
        #: By topic.
        self._stalled: dict[int, StalledPartitions] = {}
        #: By topic: partitions that nobody reads; and those that no member of the group had at the last check.
        self._unread: dict[int, list[wire.Unread]] = {}
        self._unassigned: dict[int, set[int]] = {}
        self._stalled_seconds = seconds
        #: When the next check begins, and until when this refresh may ask for it; seconds, monotonic.
        self._stalled_at = self._stalled_until = 0.0
        self._stalled_due = False
        #: By topic, as far as a group reads it.
        self._shares: dict[int, GroupShares] = {}
        self._uneven_seconds = uneven_seconds
        self._check_seconds = check_seconds
        #: By topic: what was found so far, by partition: stored offset, next offset of the log.
        self._lags: dict[int, dict[int, tuple[int, int]]] = {}

    async def refresh(self, readers: dict[wire.Partition, PartitionReader]) -> TopicChanges:
        """Compares the topics with what is being read. Raises IggyError."""
        connection, changes, now = self._iggy.connections, TopicChanges(), time.monotonic()
        self._stalled_due, self._stalled_until = now >= self._stalled_at, 0.0
        if self._stalled_due:
            self._stalled_at = now + self._check_seconds
        if connection != self._compared:
            self._lags.clear()
        self._listing.clear()
        await self._find_topics()
        states = await self._unchanged.states()
        compare = connection != self._compared
        by_topic: dict[int, list[PartitionReader]] = {}
        for where, reader in readers.items():
            by_topic.setdefault(where.topic, []).append(reader)
        for index in self.topics:
            if not compare and self._reads_all(index, readers) and await self._is_unchanged(index, states, now):
                changes.ends += self._ends[index]
                continue
            self._unchanged.forget(index)
            self._assigned.pop(index, None)
            known = len(changes.ends)
            await self._refresh_topic(index, readers, by_topic.get(index, []), compare, changes)
            if index not in self._missing:
                self._ends[index] = changes.ends[known:]
                self._unchanged.looked_at(index, states, now)
        changes.unread = [one for unread in self._unread.values() for one in unread]
        if all(reader.generation >= 0 for reader in readers.values()):  # else one was not compared yet
            self._compared = connection
        return changes

    async def _is_unchanged(self, index: int, states: dict[int, TopicState], now: float) -> bool:
        """Whether a topic is as it was when it was looked at. In a group the assignment is asked for each time."""
        topic = self.topics[index]
        if not topic.group:
            return self._unchanged.is_unchanged(index, states, now)
        assigned, looked_at = self._assigned.get(index, (None, 0.0))
        if (assigned is None or self._stalled_due or index in self._lags
                or now - looked_at >= GROUP_LOOK_SECONDS):
            return False
        return await self._iggy.assignment(topic) == assigned

    async def _find_topics(self) -> None:
        new = await self._finder.find()
        if self.found_before:
            self._were_missing.update(new)
        self.found_before = True

    def assigned(self, assignment: wire.Assign) -> None:
        """A new epoch begins, or a new coordinator. Topics that were found since this process last reported its own
        did not exist at the start."""
        if assignment.topics is not None:
            self.found_before = True
            ids = {self.topics.learn(found) for found in assignment.topics}
            self._were_missing |= ids - {position.partition.topic for position in assignment.positions}

    def _reads_all(self, index: int, readers: dict[wire.Partition, PartitionReader]) -> bool:
        """Whether every partition that was our own at the last look at a topic is being read."""
        if index not in self._ends:
            return False
        ours = [readers.get(where) for where, _ in self._ends[index]]
        return all(reader is not None and reader.generation >= 0 and not reader.is_missing for reader in ours)

    async def _refresh_topic(self, index: int, readers: dict[wire.Partition, PartitionReader],
                             ours: list[PartitionReader], compare: bool, changes: TopicChanges) -> None:
        topic = self.topics[index]
        try:
            details = await self._iggy.topic(topic)
            numbers = await self._own_partitions(index, details, ours, changes)
        except (IggyNotFound, IggyForbidden) as error:
            self._topic_missing(index, ours, error)
            return
        self._topic_found(index, ours)
        lost = [reader.partition for reader in ours if reader.partition.number not in numbers]
        (changes.revoked if topic.group else changes.revoked_at_once).extend(
            where for where in lost if where not in changes.revoked_at_once)
        for partition in details.partitions:
            where = wire.Partition(index, partition.id)
            if partition.id not in numbers:
                continue
            state = log_identity.log_state(partition)
            changes.ends.append((where, state.next - 1))
            reader = readers.get(where)
            if reader is None or where in changes.revoked_at_once:
                changes.new.append(await self._new(where, state, changes))
            elif reader.generation >= 0:
                await self._examine(reader, state, compare, changes)

    async def _own_partitions(self, index: int, details: Details, ours: list[PartitionReader],
                              changes: TopicChanges) -> set[int]:
        """The partitions of a topic that this process has to read."""
        topic = self.topics[index]
        numbers = {partition.id for partition in details.partitions}
        if not topic.group:
            absent = set(topic.partitions) - numbers
            if self._index == 0:
                self._unread[index] = [wire.Unread(wire.Partition(index, one), "missing") for one in sorted(absent)]
            if absent and index not in self._logged_absent:
                self._logged_absent.add(index)
                self._logger.error("%s has no partition %s, which [[topics]] partitions names; it is read once it "
                                   "exists", topic.label(), ", ".join(map(str, sorted(absent))))
            return {number for number in numbers if (not topic.partitions or number in topic.partitions)
                    and (index + number) % self._readers == self._index}
        assigned = await self._iggy.assignment(topic)
        if assigned is None:
            assigned = await self._join(topic, ours, changes)
        if (self._stalled_due or index in self._lags) and await self._check_others(index, details, set(assigned)):
            await self._iggy.leave(topic)
            assigned = await self._join(topic, ours, changes)
        self._assigned[index] = assigned, time.monotonic()
        return numbers & set(assigned)

    async def _join(self, topic: Subscription, ours: list[PartitionReader], changes: TopicChanges) -> list[int]:
        """Joins the group of a topic, in which this process has nothing any more. Returns what it has there now."""
        changes.revoked_at_once += [reader.partition for reader in ours]
        await self._iggy.join(topic)
        self._logger.info("joined the consumer group %s of %s", topic.consumer, topic.label())
        return await self._iggy.assignment(topic) or []

    async def _check_others(self, index: int, details: Details, assigned: set[int]) -> bool:
        """Looks at what others have of a topic. Returns whether this process has to leave the group and join again."""
        topic = self.topics[index]
        foreign = [partition for partition in details.partitions if partition.id not in assigned]
        lags = await self._lags_of(index, {one.id: log_identity.log_state(one).next for one in foreign})
        if lags is None:
            return False
        shares = await self._iggy.members(topic) if lags else [[*assigned]]
        self._find_stalled(index, lags, shares)
        if not self._shares.setdefault(index, GroupShares(self._uneven_seconds)).should_rejoin(
                shares, assigned, time.monotonic()):
            return False
        sizes = ", ".join(str(len(share)) for share in sorted(shares, key=len))
        self._logger.warning("%s: the members of the consumer group %s have %s partitions, because some joined at the "
                             "same time; this one leaves and joins again, so that Iggy deals them out evenly. What is "
                             "in flight is read again", topic.label(), topic.consumer, sizes)
        return True

    def _find_stalled(self, index: int, lags: dict[int, tuple[int, int]], shares: list[list[int]]) -> None:
        """Finds partitions of a group that nobody reads, and logs those that belong to an inactive member: no other
        member can take them from it."""
        topic = self.topics[index]
        watch = self._stalled.setdefault(index, StalledPartitions(self._stalled_seconds))
        for partition in watch.update(lags, time.monotonic()):
            self._logger.error(
                "%s belongs to another member of the consumer group %s, and no offset was committed "
                "there for %g s although messages are waiting. If no other pipeline has it, its owner is a connection "
                "from before a restart of Iggy, which Iggy keeps: stop the group's pipelines, run `pipeline offsets "
                "regroup`, and start them again", topic.label(partition), topic.consumer,
                self._stalled_seconds)
        free = lags.keys() - {one for share in shares for one in share}
        # What is handed over from one member to another may be nobody's for a moment.
        why = dict.fromkeys(free & self._unassigned.get(index, set()), "none") | dict.fromkeys(watch.stalled, "ghost")
        self._unassigned[index] = free
        self._unread[index] = [
            wire.Unread(wire.Partition(index, one), why[one], max(0, lags[one][1] - 1 - lags[one][0]))
            for one in sorted(why)]

    async def _lags_of(self, index: int, ends: dict[int, int]) -> dict[int, tuple[int, int]] | None:
        """Stored offset and next offset of partitions, by what the log has next; None if it goes on in another refresh.

        Each costs a request, so the more there are, the longer is the pause until they are asked for again.
        """
        found = self._lags.setdefault(index, {})
        for partition in ends.keys() - found.keys():
            now = time.monotonic()
            self._stalled_until = self._stalled_until or now + STALLED_AT_ONCE_SECONDS
            if now > self._stalled_until:
                return None
            found[partition] = await self._iggy.stored_offset(self.topics[index], partition), ends[partition]
        del self._lags[index]
        self._stalled_at = max(self._stalled_at, time.monotonic() + STALLED_REQUEST_SECONDS * len(ends))
        return {partition: lag for partition, lag in found.items() if partition in ends}

    def _topic_missing(self, index: int, ours: list[PartitionReader], error: IggyError) -> None:
        for reader in ours:
            reader.is_missing = True
        if index not in self._missing:
            self._missing.add(index)
            label = self.topics[index].label()
            if isinstance(error, IggyForbidden):
                self._logger.error("%s may not be read; it is tried again, and the others are read: %s", label, error)
                return
            self._were_missing.add(index)
            self._logger.error("%s is missing; it is read once it exists, and the other topics meanwhile: %s", label,
                               error)

    def _topic_found(self, index: int, ours: list[PartitionReader]) -> None:
        for reader in ours:
            reader.is_missing = False
        if index in self._missing:
            self._missing.discard(index)
            self._logger.info("%s exists again", self.topics[index].label())

    @property
    def all_present(self) -> bool:
        """Whether no topic was missing at the last refresh."""
        return not self._missing

    async def _new(self, where: wire.Partition, state: LogState, changes: TopicChanges) -> NewPartition:
        """Where to start with a partition: after the stored offset, or at `start_from`."""
        topic = self.topics[where.topic]
        stored = await self._iggy.stored_offset(topic, where.number)
        if stored < 0:
            position = await self._first_position(where, state)
            return NewPartition(_partition_start(where, position, stored, state), True, state.created_at)
        position = log_identity.stored_position(stored)
        if log_identity.is_cut_off(position, state) and state.next:
            position = await self._resume(where, position, self.newest_times.get(where, 0), state, changes,
                                          f"ends at offset {state.next - 1}, before the stored offset {stored}")
        elif log_identity.is_cut_off(position, state):
            position = 0
        return NewPartition(_partition_start(where, position, stored, state), False, state.created_at)

    async def _first_position(self, where: wire.Partition, state: LogState) -> int:
        if where not in self._starts:
            kind, value = start_position(self.topics[where.topic].start_from)
            if kind == "timestamp":
                value = await self._first_since(where, value, state.next)
            # Messages of a topic that did not exist before were sent after this process had started.
            if kind == "latest" and where.topic not in self._were_missing:
                value = state.next
            self._starts[where] = value
        return self._starts[where]

    async def _first_since(self, where: wire.Partition, microseconds: int, otherwise: int) -> int:
        first = await self._iggy.first_since(self.topics[where.topic], where.number, microseconds)
        return first.offset() if first is not None else otherwise

    async def _examine(self, reader: PartitionReader, state: LogState, compare: bool, changes: TopicChanges) -> None:
        """Checks whether the log is still the one that `reader` has read; `compare`: also by its last message read."""
        where, position = reader.partition, reader.position
        recreated = (log_identity.seems_recreated(reader.created_at, state)
                     and log_identity.was_recreated(state, await self._message(where, 0)))
        if recreated:
            what = "was created again"
        elif log_identity.is_cut_off(position, state) or (
                compare and position and reader.last_time
                and log_identity.is_another_log(position, reader.last_time, await self._message(where, position - 1))):
            what = (f"was truncated and now ends at offset {state.next - 1}; offsets up to {position - 1} had been "
                    "read")
        else:
            reader.created_at = state.created_at
            if state.empty and reader.limit is not None:
                reader.limit = min(reader.limit, reader.position)
            return
        resumed = await self._resume(where, position, 1 if recreated else reader.newest_time, state, changes, what)
        stored = await self._iggy.stored_offset(self.topics[where.topic], where.number)
        changes.truncated.append(_partition_start(where, resumed, stored, state))
        reader.created_at = state.created_at

    async def _message(self, where: wire.Partition, offset: int) -> log_identity.Message | None:
        """The message at an offset, or the first after it, as the log has it now; None when there is none."""
        messages = await self._iggy.poll(self.topics[where.topic], where.number, offset, 1)
        return log_identity.Message(messages[0].offset(), messages[0].timestamp()) if messages else None

    async def _resume(self, where: wire.Partition, position: int, newest: int, state: LogState, changes: TopicChanges,
                      what: str) -> int:
        """Where to continue in a log that was truncated or created again, by `on_truncation`. Logs it."""
        topic = self.topics[where.topic]
        place = f"{topic.label(where.number)}: the log {what}"
        if topic.on_truncation == "stop":
            changes.fatal = (f"{place}. Iggy lost messages and is reusing their offsets; stopped because of "
                             "on_truncation = \"stop\". Check the offsets with `pipeline offsets show`, set them if "
                             "necessary, and start again with on_truncation = \"resume_from_end\" or \"reread\"")
            return position
        if topic.on_truncation == "reread":
            position = 0
        elif newest:
            position = min(position, await self._first_since(where, newest + 1, state.next))
        else:
            position = min(position, state.next)
        self._logger.error("%s. Iggy lost messages and is reusing their offsets; those already read will still be "
                           "written. Reading continues at offset %d (on_truncation = \"%s\")", place, position,
                           topic.on_truncation, extra=facts(stream=topic.stream, topic=topic.topic,
                                                            partition=where.number, offset=position))
        return position


def _partition_start(where: wire.Partition, position: int, stored: int, state: LogState) -> wire.PartitionStart:
    return wire.PartitionStart(where, position, stored, position if state.empty else state.next)
