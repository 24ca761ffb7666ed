"""A source's state in its own Iggy topic: each state is appended, and the newest one is valid.

The topic has one partition and no other messages. Before and after each write it is checked for another pipeline that
writes there: the one that started first stops. Its last writes, before it can know of the other, do not stop the other:
they are accepted from the other's `load` to its second `save`.
"""

import asyncio
import logging
import uuid

from apache_iggy import IggyExpiry, MaxTopicSize, Partition, ReceiveMessage, TopicDetails

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import Subscription
from pipeline.config.source_schema import SourceConfig
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError, IggyNotFound
from pipeline.iggy.headers import headers_of
from pipeline.log_formats import facts
from pipeline.source_coordinator.state import (
    SourceState,
    StateError,
    decode_state,
    encode_state,
    identity_of,
    state_name,
)
from pipeline.source_coordinator.state_parts import Part, Writer, cut, joined, part_of

#: Options of a topic that is created here. Each message is on the disk when it is confirmed (by default Iggy holds a
#: thousand of them in memory, and loses them with its process). The oldest states are deleted, a segment at a time.
TOPIC_OPTIONS = {"messages_required_to_save": "1", "enforce_fsync": "true", "segment_size": str(16 << 20),
                 "max_topic_size": str(1 << 30)}
#: `max_topic_size` must be at least this many times the size of a state. Iggy deletes whole segments, and may keep only
#: half of that size, which has room for the newest state and for the next one while it is written.
STATES_KEPT = 5
#: Parts polled at once: with `PART_BYTES` far below the largest answer of Iggy.
PARTS_AT_ONCE = 16
PARTITION = 0


class StateTaken(StateError):
    """Another pipeline has written this source's state: this one must stop."""


class StateTopic:
    """A `StateStore`: the state of one source in its `state_topic`."""

    def __init__(self, iggy: IggyConfig, config: SourceConfig, writer: Writer, logger: logging.Logger,
                 name: str = "") -> None:
        """`name`: "stream/topic" of another state of this source; that of the configuration by default."""
        self._config = config
        self._writer = writer
        self._logger = logger
        self._iggy = IggyConnection(iggy)
        stream, _, topic = (name or state_name(config, config.state_topic)).partition("/")
        self._topic = Subscription(0, stream, topic, 0, iggy.consumer)
        self.where = f"topic {stream}/{self._topic.topic} of Iggy at {iggy.label()}"
        self.warnings: tuple[str, ...] = ()
        #: Expected offset of the next message.
        self._next = 0
        #: The run that wrote before this one, until our second write: it may not know of this one yet.
        self._previous_run = ""
        self._has_written = False
        #: Maximum size of the topic, bytes; None: it has none, or does not exist yet.
        self._max_bytes: int | None = None

    async def load(self, now: int) -> SourceState:
        """The newest complete state; when the topic is missing or empty, a new one that begins at `now`.

        Raises StateError, and IggyError while Iggy is unavailable.
        """
        found = await self._newest_state()
        if found is None:
            return SourceState(identity_of(self._config), now)
        end, content = found
        return await asyncio.to_thread(decode_state, content, self._config, f"{self.where}, offset {end},",
                                       "state_topic", "delete the topic")

    async def read(self) -> bytes | None:
        """The content of the newest complete state; None when there is none. Raises as `load` does."""
        found = await self._newest_state()
        return None if found is None else found[1]

    async def _newest_state(self) -> tuple[int, bytes] | None:
        """As `_newest`, of the topic; None when it is missing or empty, too."""
        await self._iggy.ensure_connected()
        details = await self._iggy.full_details(self._topic.stream, self._topic.topic)
        self._next, self._max_bytes, self.warnings = 0, None, ()
        self._previous_run, self._has_written = "", False
        if details is not None:
            partition = self._check(details)
            last = await self._iggy.last(self._topic, PARTITION)
            if last is None:
                self._check_empty(partition)
            else:
                self._next, self._previous_run = last.offset() + 1, self._part(last).writer.run
                found = await self._newest(last)
                if found is None:
                    self._logger.warning("source %s: %s has no complete state: the first one was not written "
                                         "completely", self._config.name, self.where,
                                         extra=facts(source=self._config.name))
                return found
        return None

    async def save(self, state: SourceState) -> None:
        """Appends a state, and returns when Iggy has confirmed it. `load` has to be called before.

        Raises IggyError, StateError, and StateTaken when another pipeline has written; after the first two the previous
        state is valid, and the call may be repeated.
        """
        content = await asyncio.to_thread(encode_state, state)
        await self._iggy.ensure_connected()
        await self._check_for_others()
        if self._max_bytes is not None and len(content) * STATES_KEPT > self._max_bytes:
            raise StateError(f"source {self._config.name}: a state of {len(content):,} bytes needs a topic whose "
                             f"max_topic_size is {len(content) * STATES_KEPT:,} or more; that of {self.where} is "
                             f"{self._max_bytes:,}: raise it, or lower max_fingerprints")
        if self._has_written:
            self._previous_run = ""
        if await self._append(content) == 0:
            # A partition that lost its only message looks like one that never had any.
            await self._append(content)
        self._has_written = True

    async def _append(self, content: bytes) -> int:
        """Appends a state's content. Returns the expected offset of its first part. Raises as `save` does."""
        torn = False
        first = -1
        for part in cut(content, uuid.uuid4().hex, self._writer):
            offset = await self._iggy.send(self._topic.stream, self._topic.topic, [part.content], PARTITION,
                                           part.headers())
            torn |= await self._landed(offset) and part.number > 1
            first = self._next - 1 if part.number == 1 else first
        if torn:
            raise IggyError(f"another writer's message is interleaved with this state in {self.where}")
        return first

    async def _check_for_others(self) -> None:
        """Polls the messages after our last one. Raises StateTaken when there are any. Creates a missing topic."""
        try:
            while found := await self._iggy.poll(self._topic, PARTITION, self._next, PARTS_AT_ONCE):
                self._refuse_others(found)
                self._next = found[-1].offset() + 1
        except IggyNotFound:
            if self._next:
                self._logger.warning("source %s: %s was deleted; creating it again, and storing the state in it",
                                     self._config.name, self.where, extra=facts(source=self._config.name))
            await self._iggy.make_topic(self._topic.stream, self._topic.topic, 1, TOPIC_OPTIONS)
            self._next, self._max_bytes, self.warnings = 0, None, ()
            details = await self._iggy.full_details(self._topic.stream, self._topic.topic)
            if details is not None:
                self._check(details)

    async def _landed(self, offset: int | None) -> bool:
        """Checks the offset at which a message was confirmed. True unless it follows the last one. Raises
        StateTaken."""
        expected, self._next = self._next, (self._next if offset is None else offset) + 1
        if offset is None or offset == expected:
            return False
        if offset < expected:
            self._logger.warning("source %s: %s has lost its last %d messages; the state is stored again",
                                 self._config.name, self.where, expected - offset,
                                 extra=facts(source=self._config.name))
        while expected < offset:
            between = await self._iggy.poll(self._topic, PARTITION, expected, min(PARTS_AT_ONCE, offset - expected))
            if not between:
                break
            self._refuse_others(between)
            expected = between[-1].offset() + 1
        return True

    def _refuse_others(self, messages: list[ReceiveMessage]) -> None:
        for message in messages:
            writer = self._part(message).writer
            if writer.run not in (self._writer.run, self._previous_run):
                raise StateTaken(
                    f"source {self._config.name}: another writer ({writer.name}) has written to {self.where} after "
                    "this pipeline; this one stops. If it is another pipeline, run only one of the two, or give the "
                    "source of one of them another name and another state_topic")

    async def _newest(self, message: ReceiveMessage) -> tuple[int, bytes] | None:
        """The last complete state up to this message: its last offset, and its content.

        None when there is none since offset 0. Raises StateError when earlier messages were deleted, and IggyError.
        """
        while True:
            part = self._part(message)
            content = await self._whole(message.offset(), part) if part.number == part.of else None
            if content is not None:
                return message.offset(), content
            if message.offset() == 0:
                return None
            before = message.offset() - 1
            found = await self._iggy.poll(self._topic, PARTITION, before, 1)
            if not found:
                raise self._poll_failed()
            if found[0].offset() != before:
                raise self._state_deleted()
            message = found[0]

    async def _whole(self, end: int, last: Part) -> bytes | None:
        """The content of the state whose last part is at offset `end`; None unless it is complete. Raises IggyError."""
        position = end + 1 - last.of
        parts: list[Part] = []
        while 0 <= position < end:
            found = await self._iggy.poll(self._topic, PARTITION, position, min(PARTS_AT_ONCE, end - position))
            if not found:
                raise self._poll_failed()
            if found[0].offset() != position:
                return None
            parts += map(self._part, found)
            position = found[-1].offset() + 1
        return joined([*parts, last])

    def _part(self, message: ReceiveMessage) -> Part:
        try:
            return part_of(headers_of(message), message.payload())
        except ValueError as error:
            raise StateError(
                f"source {self._config.name}: {self.where} has a message that is {error}, at offset "
                f"{message.offset()}; give this source a state_topic that nothing else is sent to") from None

    def _check(self, details: TopicDetails) -> Partition:
        """The topic's partition. Raises StateError for a topic that is not suitable."""
        here = f"source {self._config.name}: {self.where}"
        if details.partitions_count != 1:
            raise StateError(f"{here} has {details.partitions_count} partitions; give a state_topic that has one, or "
                             "that does not exist: it will be created")
        if isinstance(details.message_expiry, IggyExpiry.ExpireDuration):
            raise StateError(f"{here} deletes messages after {details.message_expiry.duration}, the newest state among "
                             "them; remove its message_expiry, or give another state_topic")
        if isinstance(details.max_topic_size, MaxTopicSize.Custom):
            self._max_bytes = details.max_topic_size.bytes
        else:
            self.warnings += (f"{here} has no max_topic_size: it grows with every state. Set one of "
                              f"{STATES_KEPT} times a state or more",)
        options = {**details.derived_options.to_scalar_dict(), **details.options.to_scalar_dict()}
        in_memory = options.get("messages_required_to_save", 1)
        if in_memory != 1:
            self.warnings += (f"{here} has messages_required_to_save = {in_memory!r}: Iggy holds that many messages in "
                              "memory, and loses them when it is killed; create a topic with 1",)
        return details.partitions[0]

    def _check_empty(self, partition: Partition) -> None:
        """For a partition without a last message. Raises StateError when it had one, IggyError when it has one."""
        if partition.messages_count:
            raise self._poll_failed()
        if partition.current_offset:
            raise self._state_deleted()
        self.warnings += (f"source {self._config.name}: {self.where} is empty: the source starts at `from`. "
                          "If there was a state, the topic was purged, or Iggy lost what was not on its disk",)

    def _poll_failed(self) -> IggyError:
        """The error for a poll without messages, which is how Iggy answers when reading fails."""
        return IggyError(f"source {self._config.name}: {self.where} has messages, but Iggy does not return them; see "
                         "Iggy's log")

    def _state_deleted(self) -> StateError:
        return StateError(f"source {self._config.name}: {self.where} had a state that was deleted; restore it, or give "
                          "another state_topic to start again at `from`")
