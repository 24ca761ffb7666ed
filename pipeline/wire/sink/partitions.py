"""Control messages between the coordinator and ingest: who reads which partition, from where, and how far."""

from msgspec import Struct

from pipeline.wire.common import Count, CountOrNone
from pipeline.wire.sink.ranges import FoundTopic, Partition, Range, Suspect


class Position(Struct, frozen=True, array_like=True):
    """Where ingest has to continue in one partition."""

    partition: Partition
    #: Generation of the partition's log. It grows when the log is truncated or made again, and when the partition is
    #: assigned to another member of the group. Ranges of an earlier one that the ledger does not hold are ignored.
    generation: Count
    #: Next offset to read.
    offset: Count
    #: Iggy's time of the newest message dispatched, microseconds since 1970; 0 where it is not known.
    time: int = 0
    #: Whether that is the message just before `offset`.
    exact: bool = False
    #: First offset that is not read; None: no limit.
    limit: Count | None = None
    #: In the order of their offsets.
    suspects: list[Suspect] = []


class Assign(Struct, frozen=True, tag=True):
    """Coordinator -> ingest, answers its first heartbeat: where to continue, and its totals of this epoch."""

    epoch: Count
    #: Partitions without a position start after the stored offset, or at `start_from`.
    positions: list[Position]
    dispatched_messages: Count
    dispatched_bytes: Count
    #: The topics that patterns have found so far; None where no ingest process has reported any partitions yet.
    topics: list[FoundTopic] | None = None


class PartitionStart(Struct, frozen=True, array_like=True):
    """Where ingest wants to start reading a partition."""

    partition: Partition
    #: Next offset to read.
    offset: Count
    #: Offset stored in Iggy, or -1.
    stored: CountOrNone
    #: End of the log: the offset after its last message; in an empty log, the next offset to read.
    end: Count


class Started(Struct, frozen=True, tag=True):
    """Ingest -> coordinator, after an Assign and whenever it gets partitions: those that it has no position for."""

    epoch: Count
    partitions: list[PartitionStart]
    #: Those of their topics that a pattern has found.
    topics: list[FoundTopic] = []


class Seek(Struct, frozen=True, tag=True):
    """Coordinator -> ingest, answers Started and Truncated: where to read these partitions."""

    epoch: Count
    positions: list[Position]


class Truncated(Struct, frozen=True, tag=True):
    """Ingest -> coordinator: the log ended before the position, or was made again. Ingest waits for Seek."""

    epoch: Count
    partition: Partition
    #: Next offset to read: messages below it are unchanged.
    offset: Count
    #: Offset stored in Iggy now, or -1.
    stored: CountOrNone
    #: End of the log: the next offset that it will assign.
    end: Count


class Gap(Struct, frozen=True, tag=True):
    """Ingest -> coordinator: these offsets were deleted from the log before they were read."""

    epoch: Count
    partition: Partition
    first: Count
    last: Count


class Revoked(Struct, frozen=True, tag=True):
    """Ingest -> coordinator: the group has assigned these partitions to another member, and ingest has stopped reading.

    With `at_once` the membership itself is lost; otherwise what is in flight is finished and its offset stored first.
    """

    epoch: Count
    partitions: list[Partition]
    at_once: bool = False


class Unassigned(Struct, frozen=True, tag=True):
    """Coordinator -> ingest: it reads these partitions, but they are assigned to another ingest process, or to none.

    Ingest stops reading them. Those that its next refresh finds to be its own are reported with Started again.
    """

    epoch: Count
    partitions: list[Partition]


class Store(Struct, frozen=True, tag=True):
    """Coordinator -> ingest, in a consumer group: store this offset. Only the member that owns the partition may."""

    epoch: Count
    partition: Partition
    generation: Count
    offset: Count


class Stored(Struct, frozen=True, tag=True):
    """Ingest -> coordinator, answers Store. `problem` is "" when it worked."""

    epoch: Count
    partition: Partition
    generation: Count
    offset: Count
    problem: str


class Credit(Struct, frozen=True, tag=True):
    """Coordinator -> ingest: the totals up to which it may dispatch, counted from the start of the epoch."""

    epoch: Count
    messages: Count
    bytes: Count


class Dispatched(Struct, frozen=True, tag=True):
    """Ingest -> coordinator, before the batch is sent."""

    range: Range
    #: Iggy's time of the last message, microseconds since 1970.
    time: int = 0


class Unread(Struct, frozen=True, array_like=True):
    """A partition that nobody reads."""

    partition: Partition
    #: As in `UnreadStatus`.
    why: str
    lag: Count = 0


class Progress(Struct, frozen=True, tag=True):
    """Ingest -> coordinator, after each refresh: where the logs of its partitions end, for the lag."""

    #: (partition, last offset in the log; -1 when it is empty).
    ends: list[tuple[Partition, CountOrNone]]
    #: Partitions of its topics that nobody reads.
    unread: list[Unread] = []


class Redeliver(Struct, frozen=True, tag=True):
    """Coordinator -> ingest: these ranges may be lost; read and send them again, unchanged."""

    ranges: list[Range]


class Stopped(Struct, frozen=True, tag=True):
    """Ingest -> coordinator, every second once it drains or has reached its limits: it dispatches nothing more."""
