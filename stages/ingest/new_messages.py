"""Which quiet partitions have new messages: one request for many, instead of a poll of each."""

import time
from itertools import groupby

from msgspec import Struct

from pipeline.iggy.connection import IggyConnection, TopicState
from pipeline.subscriptions import Subscriptions
from stages.ingest import log_identity
from stages.ingest.partition_reader import PartitionReader

#: Fewer partitions of a topic, or topics of a stream, are polled without asking first.
MANY = 4
#: A partition is polled at least this often, whatever the server reports of it, seconds.
POLL_SECONDS = 60.0


#: Where at least this share of a topic's partitions had new messages the last time, all are polled without asking: a
#: poll costs as much as what the server tells of some twenty partitions.
MOST = 0.9


class _Seen(Struct, frozen=True):
    """A topic's state, and when it was known: seconds, monotonic."""

    state: TopicState
    at: float


class NewMessages:
    """Asks Iggy. Knows what it was told about each topic before."""

    def __init__(self, topics: Subscriptions, iggy: IggyConnection) -> None:
        self._topics = topics
        self._iggy = iggy
        self._seen: dict[tuple[str, str], _Seen] = {}

    async def find(self, readers: list[PartitionReader], now: float) -> list[PartitionReader]:
        """Of readers at the end of their logs, those to poll. `now` in seconds, monotonic. Raises IggyError."""
        due = [reader for reader in readers if now - reader.polled_at >= POLL_SECONDS]
        quiet = [reader for reader in readers if now - reader.polled_at < POLL_SECONDS]
        for stream, group in groupby(sorted(quiet, key=self._stream), key=self._stream):
            due += await self._of_stream(stream, list(group))
        polled = {reader.partition for reader in due}
        for reader in readers:
            reader.had_news &= reader.partition in polled
        return due

    def _stream(self, reader: PartitionReader) -> str:
        return self._topics[reader.partition.topic].stream

    async def _of_stream(self, stream: str, readers: list[PartitionReader]) -> list[PartitionReader]:
        if len({reader.partition.topic for reader in readers}) >= MANY:
            readers = await self._of_changed_topics(stream, readers)
        due = []
        for topic, group in groupby(sorted(readers, key=lambda r: r.partition.topic), lambda r: r.partition.topic):
            quiet = list(group)
            if len(quiet) >= MANY and sum([reader.had_news for reader in quiet]) < MOST * len(quiet):
                details = await self._iggy.topic(self._topics[topic])
                ends = {partition.id: log_identity.log_state(partition).next for partition in details.partitions}
                quiet = [reader for reader in quiet if ends.get(reader.partition.number, 0) > reader.position]
            due += quiet
        return due

    async def _of_changed_topics(self, stream: str, readers: list[PartitionReader]) -> list[PartitionReader]:
        """The readers of topics that have changed since before the last poll of them."""
        due = []
        states = await self._iggy.topic_states(stream)
        now = time.monotonic()
        for reader in readers:
            name = self._topics[reader.partition.topic].topic
            seen, state = self._seen.get((stream, name)), states.get(name)
            if seen is None or seen.state != state or reader.polled_at < seen.at:
                due.append(reader)
        for name, state in states.items():
            if (seen := self._seen.get((stream, name))) is None or seen.state != state:
                self._seen[stream, name] = _Seen(state, now)
        return due
