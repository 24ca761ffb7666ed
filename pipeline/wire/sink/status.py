"""What the coordinator of the sink direction publishes (PUB)."""

from msgspec import Struct

from pipeline.wire.common import CoordinatorStatus
from pipeline.wire.measures import Histogram
from pipeline.wire.sink.batches import Ways
from pipeline.wire.sink.measures import Outcome


class PartitionStatus(Struct, frozen=True):
    """Offsets of one partition; -1 where there is none yet."""

    stream: str
    topic: str
    partition: int
    #: Last offset stored in Iggy.
    committed: int
    #: Last offset dispatched.
    dispatched: int
    #: Last offset in the log, as far as it is known: from the last refresh, or because it was dispatched.
    end: int

    #: Iggy's time of the oldest message that is not committed, as far as it is known, microseconds since 1970; 0: not
    #: known.
    oldest: int = 0
    #: Name of the sink that reads it.
    sink: str = ""
    #: Offset of the oldest message that is left in the log, as far as it is known; -1: not known. Where it is larger
    #: than `committed` + 1, messages were deleted before they were written.
    first: int = -1
    #: Seconds until Iggy deletes messages that are not committed, if reading and the topic's retention (message_expiry,
    #: max_topic_size) go on as they do now; -1: that is not to be expected, or not known.
    overtaken_in: float = -1.0

    @property
    def lag(self) -> int:
        """Messages after the last one committed, at least those in flight."""
        return max(0, self.end - self.committed)

    def lag_seconds(self, now: float) -> float | None:
        """Age of the oldest message that is not committed at `now`, seconds since 1970. None: not known."""
        if not self.lag:
            return 0.0
        return max(0.0, now - self.oldest / 1e6) if self.oldest else None


class GapStatus(Struct, frozen=True):
    """Offsets `first` to `last` of a partition that were deleted from the log before they were read."""

    stream: str
    topic: str
    partition: int
    first: int
    last: int


class UnreadStatus(Struct, frozen=True):
    """A partition that nobody reads, as far as that can be seen."""

    stream: str
    topic: str
    partition: int
    #: "ghost": the consumer group has given it to a member that has committed nothing for four heartbeat timeouts
    #: although messages wait: a connection from before a restart of Iggy, which `pipeline offsets regroup` removes.
    #: "none": the group has given it to no member. "missing": `partitions` of [[topics]] names it, and it does not
    #: exist.
    why: str
    #: Messages after the last offset stored for the group; 0 where there are none, or it is not known.
    lag: int = 0


class RejectStatus(Struct, frozen=True):
    """A message that was rejected. `detail` and `line` are cut."""

    #: When it was settled, seconds since 1970.
    time: float
    sink: str
    stream: str
    topic: str
    partition: int
    offset: int
    #: As in `Reject`.
    reason: str
    detail: str
    stage: str
    status: int
    line: str


class TopicStatus(Struct, frozen=True):
    """Totals of one topic that a sink reads."""

    sink: str
    stream: str
    topic: str
    #: Messages that were dispatched, and their payload bytes.
    read: int
    read_bytes: int
    #: Points that were encoded, written, and that replaced others.
    encoded: int
    written: int
    overwritten: int
    #: Messages that the mapping left out on purpose, and those that were stored as dead letters.
    filtered: int
    dead_lettered: int
    #: Messages that were rejected, by reason.
    rejected: dict[str, int]
    #: Bytes sent to the database, after compression. Those of a body that several topics share count for the first.
    sent_bytes: int
    batches: int


class TargetStatus(Struct, frozen=True):
    """Totals of the requests to one database, of all writers."""

    sink: str
    url: str
    outcomes: list[Outcome]
    seconds: Histogram
    body_bytes: Histogram


class WriterStatus(Struct, frozen=True):
    """What one writer has to do now."""

    name: str
    #: Batches in hand, and how many may be.
    batches: int
    most_batches: int
    #: Requests in flight, and how many may be, to all its databases.
    in_flight: int
    limit: int


class TagStatus(Struct, frozen=True):
    """How many values a tag has."""

    sink: str
    tag: str
    #: Estimated.
    values: int


class SinkMeasures(Struct, frozen=True):
    """Distributions, and what the writers are doing."""

    #: As in `EncodeMeasures`, of all encoders.
    wait: Histogram
    encode: Histogram
    #: From Iggy's time of a batch's newest message to the acknowledgement of its last line; seconds.
    settled: Histogram
    #: Messages and payload bytes of the batches that were settled.
    batch_messages: Histogram
    batch_bytes: Histogram
    targets: list[TargetStatus]
    writers: list[WriterStatus]


class Status(CoordinatorStatus, frozen=True, kw_only=True, tag=True):
    """Coordinator -> supervisor, demo, bench: four times a second."""

    #: Messages dispatched.
    read: int
    #: Points.
    encoded: int
    written: int
    batches: int
    #: Payload bytes that are not settled.
    in_flight_bytes: int
    #: When the first batch was dispatched and the last one settled: seconds, CLOCK_MONOTONIC; 0 before.
    first_dispatched_at: float
    last_settled_at: float
    partitions: list[PartitionStatus]
    #: Messages that the mapping left out on purpose; they are neither written nor rejected.
    filtered: int = 0
    #: Points that replaced others (`Overwritten`): all within a batch, and between batches as far as they are
    #: remembered.
    overwritten: int = 0
    #: Messages that expired in Iggy before they were read; the newest of these gaps; logs that were truncated.
    missed: int = 0
    gaps: list[GapStatus] = []
    truncations: int = 0
    #: Partitions that nobody reads.
    unread: list[UnreadStatus] = []
    #: How the messages went through the mapping.
    ways: Ways = Ways()
    #: The last messages that were rejected, oldest first; of each batch the first few.
    rejects: list[RejectStatus] = []
    topics: list[TopicStatus] = []
    measures: SinkMeasures | None = None
    #: The tags with most values; of each sink the first few.
    tags: list[TagStatus] = []
