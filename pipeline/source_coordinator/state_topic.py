"""A source's state in an Iggy topic of its own: each state is written behind the last one, and the newest counts.

The topic has one partition, and messages of no one else. Another pipeline that writes to it is noticed, before each
write and after it: the one that started first stops. What it still sends while it can't know of the other is no reason
for the other to stop, too: that lasts from the other's `load` to its second `save`.
"""

import asyncio
import logging
import uuid

from apache_iggy import IggyExpiry, MaxTopicSize, Partition, ReceiveMessage, TopicDetails

from pipeline.config.schema import IggyConfig, Subscription
from pipeline.config.source_schema import SourceConfig
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError, IggyNotFound
from pipeline.iggy.headers import headers_of
from pipeline.source_coordinator.state import SourceState, StateError, decode_state, encode_state, identity_of, place_of
from pipeline.source_coordinator.state_parts import Part, Writer, cut, joined, part_of

#: Of a topic that is made. Each message is on the disk when it is confirmed (by default Iggy keeps a thousand of them
#: in memory, and loses them with its process), and the oldest states go, a segment at a time, when there are too many.
TOPIC_OPTIONS = {"messages_required_to_save": "1", "enforce_fsync": "true", "segment_size": str(16 << 20),
                 "max_topic_size": str(1 << 30)}
#: A topic's greatest size must be so many times a state's. Iggy deletes whole segments, and may keep but half of that
#: size: that has room for the newest whole state, and for one behind it that is being written.
STATES_KEPT = 5
#: Parts asked for at once: with `PART_BYTES` far below what Iggy sends in one answer.
PARTS_AT_ONCE = 16
PARTITION = 0


class StateTaken(StateError):
    """Another pipeline has written this source's state: this one must not go on."""


class StateTopic:
    """The state of one source, in its `state_topic`. See `source_state_store.StateStore`."""

    def __init__(self, iggy: IggyConfig, config: SourceConfig, writer: Writer, logger: logging.Logger) -> None:
        self._config = config
        self._writer = writer
        self._logger = logger
        self._iggy = IggyConnection(iggy)
        stream, _, name = config.state_topic.partition("/")
        self._topic = Subscription(0, stream, place_of(config, name), 0, iggy.consumer)
        self.where = f"topic {stream}/{self._topic.topic} of Iggy at {iggy.address}"
        self.warnings: tuple[str, ...] = ()
        #: Where the next message goes, as far as we know.
        self._next = 0
        #: The run that wrote before us, up to our second write: it may not know of us yet. And whether we have written.
        self._before = ""
        self._written = False
        #: Greatest size of the topic, bytes; None: it has none, or isn't there yet.
        self._room: int | None = None

    async def load(self, now: int) -> SourceState:
        """The newest whole state; a new one, begun at `now`, when the topic is missing or empty.

        Raises StateError, and IggyError while Iggy can't be asked.
        """
        await self._iggy.ensure_connected()
        details = await self._iggy.details(self._topic.stream, self._topic.topic)
        self._next, self._room, self.warnings = 0, None, ()
        self._before, self._written = "", False
        if details is not None:
            partition = self._check(details)
            last = await self._iggy.last(self._topic, PARTITION)
            if last is None:
                self._check_empty(partition)
            else:
                self._next, self._before = last.offset() + 1, self._part(last).writer.run
                found = await self._newest(last)
                if found is not None:
                    end, content = found
                    return await asyncio.to_thread(decode_state, content, self._config, f"{self.where}, offset {end},",
                                                   "state_topic", "delete the topic")
                self._logger.warning("source %s: %s has no whole state: the first one was never written to its end",
                                     self._config.name, self.where)
        return SourceState(identity_of(self._config), now)

    async def save(self, state: SourceState) -> None:
        """Writes a state behind the others, and returns when Iggy has confirmed it. Call `load` before.

        Raises IggyError, StateError, and StateTaken when somebody else has written meanwhile; after the first two the
        state before it counts, and it may be tried again.
        """
        content = await asyncio.to_thread(encode_state, state)
        await self._iggy.ensure_connected()
        await self._look_for_others()
        if self._room is not None and len(content) * STATES_KEPT > self._room:
            raise StateError(f"source {self._config.name}: a state of {len(content):,} bytes needs a topic whose "
                             f"max_topic_size is {len(content) * STATES_KEPT:,} or more; that of {self.where} is "
                             f"{self._room:,}: raise it, or lower max_fingerprints")
        if self._written:
            self._before = ""
        if await self._append(content) == 0:
            # A partition that had one message, and has lost it, can't be told from one that never had any.
            await self._append(content)
        self._written = True

    async def _append(self, content: bytes) -> int:
        """Writes a state's content. Gives the offset of its first part, as far as we know. Raises as `save` does."""
        torn = False
        first = -1
        for part in cut(content, uuid.uuid4().hex, self._writer):
            offset = await self._iggy.send(self._topic.stream, self._topic.topic, [part.content], PARTITION,
                                           part.headers())
            torn |= await self._landed(offset) and part.number > 1
            first = self._next - 1 if part.number == 1 else first
        if torn:
            raise IggyError(f"a state was torn apart in {self.where}")
        return first

    async def _look_for_others(self) -> None:
        """Reads what has come since our last message. Raises StateTaken when it isn't ours. Makes a missing topic."""
        try:
            while found := await self._iggy.poll(self._topic, PARTITION, self._next, PARTS_AT_ONCE):
                self._refuse_others(found)
                self._next = found[-1].offset() + 1
        except IggyNotFound:
            if self._next:
                self._logger.warning("source %s: %s is gone; making it again, and writing the state to it",
                                     self._config.name, self.where)
            await self._iggy.make_topic(self._topic.stream, self._topic.topic, 1, TOPIC_OPTIONS)
            self._next, self._room, self.warnings = 0, None, ()
            details = await self._iggy.details(self._topic.stream, self._topic.topic)
            if details is not None:
                self._check(details)

    async def _landed(self, offset: int | None) -> bool:
        """A message was confirmed at an offset. True when it isn't right behind the last one. Raises StateTaken."""
        expected, self._next = self._next, (self._next if offset is None else offset) + 1
        if offset is None or offset == expected:
            return False
        if offset < expected:
            self._logger.warning("source %s: %s has lost its last %d messages; the state is written again",
                                 self._config.name, self.where, expected - offset)
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
            if writer.run not in (self._writer.run, self._before):
                raise StateTaken(
                    f"source {self._config.name}: somebody else ({writer.name}) has written to {self.where} since this "
                    "pipeline did; this one stops. If it is another pipeline, let only one of the two run, or give the "
                    "other's source a name and a state_topic of its own")

    async def _newest(self, message: ReceiveMessage) -> tuple[int, bytes] | None:
        """The last state, up to this message, that is whole: its last offset, and its content.

        None when there is none since offset 0. Raises StateError when what was there before is gone, and IggyError.
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
                raise self._unread()
            if found[0].offset() != before:
                raise self._expired()
            message = found[0]

    async def _whole(self, end: int, last: Part) -> bytes | None:
        """The content of the state whose last part is at offset `end`; None unless all of it is there.

        Raises IggyError.
        """
        position = end + 1 - last.of
        parts: list[Part] = []
        while 0 <= position < end:
            found = await self._iggy.poll(self._topic, PARTITION, position, min(PARTS_AT_ONCE, end - position))
            if not found:
                raise self._unread()
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
        """The topic's partition. Raises StateError for a topic that doesn't do."""
        here = f"source {self._config.name}: {self.where}"
        if details.partitions_count != 1:
            raise StateError(f"{here} has {details.partitions_count} partitions; give a state_topic that has one, or "
                             "that isn't there: it will be made")
        if isinstance(details.message_expiry, IggyExpiry.ExpireDuration):
            raise StateError(f"{here} deletes messages after {details.message_expiry.duration}, the newest state among "
                             "them; remove its message_expiry, or give another state_topic")
        if isinstance(details.max_topic_size, MaxTopicSize.Custom):
            self._room = details.max_topic_size.bytes
        else:
            self.warnings += (f"{here} has no max_topic_size: it grows with every state. Set one of "
                              f"{STATES_KEPT} times a state or more",)
        options = {**details.derived_options.to_scalar_dict(), **details.options.to_scalar_dict()}
        in_memory = options.get("messages_required_to_save", 1)
        if in_memory != 1:
            self.warnings += (f"{here} has messages_required_to_save = {in_memory!r}: Iggy keeps so many messages in "
                              "memory, and loses them when it is killed; make a topic with 1",)
        return details.partitions[0]

    def _check_empty(self, partition: Partition) -> None:
        """Of a partition that gives no last message. Raises StateError when it had one, IggyError when it has one."""
        if partition.messages_count:
            raise self._unread()
        if partition.current_offset:
            raise self._expired()
        self.warnings += (f"source {self._config.name}: {self.where} is there, but empty: the source begins at `from`. "
                          "If there was a state, the topic was purged, or Iggy has lost what was not on its disk",)

    def _unread(self) -> IggyError:
        """Iggy answers a read that has failed with no messages."""
        return IggyError(f"source {self._config.name}: {self.where} has messages, but Iggy doesn't give them; see "
                         "Iggy's log")

    def _expired(self) -> StateError:
        return StateError(f"source {self._config.name}: {self.where} had a state, and has deleted it; restore it, or "
                          "give another state_topic to begin again at `from`")
