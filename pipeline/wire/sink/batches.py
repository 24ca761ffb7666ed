"""A batch: data messages from ingest to encoder to writer (PUSH -> PULL), and the reports of what became of it."""

from msgspec import Struct

from pipeline.wire.common import Count, Index
from pipeline.wire.sink.measures import EncodedTopic, EncodeMeasures
from pipeline.wire.sink.ranges import FoundTopic, Overwritten, Range, Reject


class Batch(Struct, frozen=True, array_like=True):
    """Messages of one partition."""

    range: Range
    #: Offset of the first message; larger than the range's when the log has lost some since.
    first: Count
    #: Offset of each message when they are not contiguous; None when it is `first + index`.
    offsets: list[Count] | None
    #: Iggy's timestamp of each message, microseconds since 1970; None where the mapping does not use it.
    timestamps: list[int] | None
    #: For each message the values of the headers in `header_tags`, "" for one that is missing; None where the mapping
    #: has none.
    headers: list[tuple[str, ...]] | None = None
    #: The batch was read again: later batches of its partition may have been written before it.
    redelivered: bool = False
    #: Its topic, where a pattern has found it.
    found: FoundTopic | None = None
    #: When it was sent: seconds, CLOCK_MONOTONIC.
    sent_at: float = 0.0


class Batches(Struct, frozen=True, tag=True):
    """Ingest -> encoder: one batch, or small ones of several partitions.

    For each batch: the payloads as `pipeline.wire.payload_frame` joins them, and their lengths; in further parts, or,
    where they are small, in `payloads`.
    """

    batches: list[Batch]
    payloads: list[tuple[bytes, bytes]] = []


class BucketLines(Struct, frozen=True, array_like=True):
    """Lines for one bucket or database; "" is the configured one."""

    bucket: str
    points: Count
    #: For each line, the indices of the messages that it comes from, counted through all parts of the Lines; None
    #: where line i comes from message i.
    messages: list[tuple[Index, ...]] | None
    #: The lines contain two backslashes in a row.
    escapes: bool = False

    def messages_of(self, line: int) -> tuple[int, ...]:
        """The indices of the messages that a line comes from."""
        return self.messages[line] if self.messages else (line,)


class LinesPart(Struct, frozen=True, array_like=True):
    """One batch among the Lines."""

    range: Range
    #: Messages of the batch, and lines made of them.
    messages: Count
    points: Count
    #: As in Batch.
    first: Count
    offsets: list[Count] | None
    rejects: list[Reject]
    redelivered: bool = False
    overwritten: Overwritten = Overwritten()
    found: FoundTopic | None = None

    def offset(self, index: int) -> int:
        """The offset of one of its messages."""
        return self.offsets[index] if self.offsets else self.first + index


class Lines(Struct, frozen=True, tag=True):
    """Encoder -> writer: the lines of one batch, or of small ones of several partitions of a sink.

    Further parts: the body of each bucket's request, gzip'd if the configuration says so.
    """

    parts: list[LinesPart]
    buckets: list[BucketLines]


class Notice(Struct, frozen=True, array_like=True):
    """A warning about messages that were written, but perhaps not as their owner intends."""

    #: One of `stages.mapping.records.notices`.
    kind: str
    #: How many messages, as far as they were counted.
    count: Count
    #: Where the first one was, such as "partition 0 offset 17", and what was found.
    place: str
    detail: str


class Ways(Struct, frozen=True, array_like=True):
    """How many messages went each way through the mapping (docs/explanation/mapping-ways), and what its code cost.

    Where a message holds several objects, each counts.
    """

    uniform: Count = 0
    general: Count = 0
    #: One by one, by the rules: the slow way.
    exact: Count = 0
    #: How often code was made for messages of new shapes, and forgotten because its messages came no more.
    compiled: Count = 0
    forgotten: Count = 0

    def __add__(self, more: "Ways") -> "Ways":
        return Ways(self.uniform + more.uniform, self.general + more.general, self.exact + more.exact,
                    self.compiled + more.compiled, self.forgotten + more.forgotten)

    @property
    def slow_share(self) -> float:
        """Share of the messages that went the slow way, from 0 to 1."""
        return self.exact / ((self.uniform + self.general + self.exact) or 1)


class Encoded(Struct, frozen=True, tag=True):
    """Encoder -> coordinator: batches were encoded. For counters and warnings only."""

    points: Count
    #: Messages left out on purpose: by a rule, or because a field is missing.
    dropped: Count = 0
    #: (topic as in `Partition`, notice) of each kind and topic.
    notices: list[tuple[Count, Notice]] = []
    ways: Ways = Ways()
    #: The same points and dropped messages by topic.
    topics: list[EncodedTopic] = []
    measures: EncodeMeasures | None = None


class Settled(Struct, frozen=True, tag=True):
    """Writer, or encoder or ingest when nothing is left to write -> coordinator: all messages are written or
    rejected."""

    range: Range
    points: Count
    #: Bytes sent to InfluxDB, after compression.
    sent_bytes: Count
    rejects: list[Reject]
    overwritten: Overwritten = Overwritten()


class StoreDeadLetters(Struct, frozen=True, tag=True):
    """Coordinator -> dead-letter: store these messages with the reasons why they cannot be written."""

    range: Range
    rejects: list[Reject]
    #: Its topic, where a pattern has found it.
    found: FoundTopic | None = None


class DeadLettersStored(Struct, frozen=True, tag=True):
    """Dead-letter -> coordinator: the dead letters of the range are stored."""

    range: Range
