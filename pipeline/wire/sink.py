"""Everything that crosses from one process to another: tagged MessagePack Structs, all declared here.

A message on a control socket is one Struct; one on a data socket is the Struct and its bulk in further parts (so that
payloads are sent without being encoded again). Parts travel as `pipeline.wire.frames` has them. What is decoded is
not yet believed: numbers are within the ranges declared here, and `sink_rules` decides whether they fit a pipeline.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from pipeline.points.field_type import FieldType
from pipeline.wire import frames
from pipeline.wire.common import Count, Drain, Heartbeat, Pid, Retrying

CountOrNone = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
#: Numbers of topics, sinks and processes; of a partition, as Iggy has them; of a process, as Linux has them.
Index = Annotated[int, Meta(ge=0, le=2**31 - 1)]
PartitionNumber = Annotated[int, Meta(ge=0, le=2**32 - 1)]
M = TypeVar("M")


class Malformed(ValueError):
    """What came in is no message of ours; the text says why, and nothing of what is in it."""


class Partition(Struct, frozen=True, array_like=True):
    """Names one partition of one topic. `topic` is the index into the configuration's `[[topics]]`."""

    topic: Index
    number: PartitionNumber


class Range(Struct, frozen=True, array_like=True):
    """A run of messages of one partition that travels as one batch: offsets `first` to `last`, both included."""

    #: The coordinator's incarnation; what carries another one is stale and ignored.
    epoch: Count
    partition: Partition
    first: Count
    last: Count
    messages: Count
    #: Payload bytes.
    bytes: Count
    #: Which incarnation of the partition's log the offsets are of; see `Seek`.
    generation: Count = 0
    #: Number of the ingest process that dispatched it.
    ingest: Index = 0


class Reject(Struct, frozen=True, array_like=True):
    """A message that cannot be written, whole or in part."""

    offset: Count
    #: Short class of the reason, e.g. "not_json", "no_fields", "bad_timestamp", "parse_error", "type_conflict".
    reason: str
    #: What was wrong, for a person; never the whole payload.
    detail: str
    #: "encode" or "write".
    stage: str = "encode"
    #: HTTP status of the database's answer; 0 where it wasn't asked.
    status: Count = 0
    attempts: Count = 0
    #: The line that was refused; "" where there was none.
    line: str = ""


class Overwritten(Struct, frozen=True, array_like=True):
    """Points that took the place of others: of the same measurement, tags and time, with a field that these have."""

    points: Count = 0
    #: One of them, in words: where both messages are, and what the point is.
    example: str = ""

    def and_also(self, other: "Overwritten") -> "Overwritten":
        """Both together."""
        return Overwritten(self.points + other.points, self.example or other.example) if other.points else self


class Suspect(Struct, frozen=True, array_like=True):
    """Offsets of a partition that processes died of, or a part of those: batches are cut at its edges."""

    first: Count
    last: Count
    #: Processes that have died while they had these messages, or a range with them, in hand.
    deaths: Count = 1
    #: How the last one ended, for a person.
    how: str = ""
    #: A single message that is quarantined: it goes to no encoder any more.
    quarantined: bool = False


# Control: each process's DEALER <-> the coordinator's ROUTER


class Position(Struct, frozen=True, array_like=True):
    """Where ingest is to read on in one partition."""

    partition: Partition
    #: Incarnation of the partition's log: it grows when the log was cut off or made again, and when the partition went
    #: to another member of the group. What carries an earlier one, and isn't in the ledger any more, is ignored.
    generation: Count
    #: Next offset to read.
    offset: Count
    #: Iggy's time of the newest message dispatched, microseconds since 1970; 0 where it isn't known.
    time: int = 0
    #: Whether that is the message just before `offset`.
    exact: bool = False
    #: Stop before this offset; None: never.
    limit: Count | None = None
    #: In the order of their offsets.
    suspects: list[Suspect] = []


class Assign(Struct, frozen=True, tag=True):
    """Coordinator -> ingest, answers its Hello: where to read on, and what it has dispatched in this epoch."""

    epoch: Count
    #: Partitions that aren't named begin after the stored offset, or at `start_from`.
    positions: list[Position]
    dispatched_messages: Count
    dispatched_bytes: Count


class PartitionStart(Struct, frozen=True, array_like=True):
    """Where ingest wants to begin with one partition."""

    partition: Partition
    #: Next offset to read.
    offset: Count
    #: Offset stored in Iggy, or -1.
    stored: CountOrNone
    #: Where the log ends now: offset after its last message; the one to read next where it has none.
    end: Count


class Started(Struct, frozen=True, tag=True):
    """Ingest -> coordinator, after an Assign, and whenever it gets partitions: those that it has no position for."""

    epoch: Count
    partitions: list[PartitionStart]


class Seek(Struct, frozen=True, tag=True):
    """Coordinator -> ingest, answers Started and Truncated: read these partitions from there on."""

    epoch: Count
    positions: list[Position]


class Truncated(Struct, frozen=True, tag=True):
    """Ingest -> coordinator: the log ended before our position, or was made again. Ingest waits for Seek."""

    epoch: Count
    partition: Partition
    #: Next offset to read: everything below it is as it was.
    offset: Count
    #: Offset stored in Iggy now, or -1.
    stored: CountOrNone
    #: Next offset of the log: where it ends now.
    end: Count


class Gap(Struct, frozen=True, tag=True):
    """Ingest -> coordinator: these offsets are gone from the log unread."""

    epoch: Count
    partition: Partition
    first: Count
    last: Count


class Revoked(Struct, frozen=True, tag=True):
    """Ingest -> coordinator: partitions that the group has given to another member; ingest reads them no more.

    Without `at_once` what is in flight is finished and stored first; else the membership itself is lost.
    """

    epoch: Count
    partitions: list[Partition]
    at_once: bool = False


class Unassigned(Struct, frozen=True, tag=True):
    """Coordinator -> ingest: it reads these, and the coordinator knows another owner or none. Ingest forgets them; what
    its next look finds to be its own begins anew with Started."""

    epoch: Count
    partitions: list[Partition]


class Store(Struct, frozen=True, tag=True):
    """Coordinator -> ingest, in a consumer group: store this offset, as only the member that owns the partition may."""

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


class Failed(Struct, frozen=True, tag=True):
    """Any process -> coordinator: the pipeline must not go on, and why."""

    reason: str


class Credit(Struct, frozen=True, tag=True):
    """Coordinator -> ingest: the totals up to which it may dispatch, counted since the epoch began."""

    epoch: Count
    messages: Count
    bytes: Count


class Dispatched(Struct, frozen=True, tag=True):
    """Ingest -> coordinator, before the batch is sent."""

    range: Range
    #: Iggy's time of the last message, microseconds since 1970.
    time: int = 0


class Progress(Struct, frozen=True, tag=True):
    """Ingest -> coordinator, after each look: the end of the log of each partition that it reads, for the lag."""

    #: (partition, last offset in the log; -1 when empty).
    ends: list[tuple[Partition, CountOrNone]]


class Redeliver(Struct, frozen=True, tag=True):
    """Coordinator -> ingest: these ranges may be lost; read and send them again, exactly as they were."""

    ranges: list[Range]


class Settled(Struct, frozen=True, tag=True):
    """Writer (or encoder, when nothing is left to write) -> coordinator: every message of the range is dealt with."""

    range: Range
    points: Count
    #: Bytes sent to InfluxDB, after compression.
    sent_bytes: Count
    rejects: list[Reject]
    overwritten: Overwritten = Overwritten()


class Notice(Struct, frozen=True, array_like=True):
    """Messages that were written, and may not be what their owner means."""

    #: See `stages.mapping.notices`.
    kind: str
    #: How many, as far as they were counted.
    count: Count
    #: Where the first one was, such as "partition 0 offset 17", and what it is.
    place: str
    detail: str


class Encoded(Struct, frozen=True, tag=True):
    """Encoder -> coordinator: batches have become lines (for the counters only)."""

    points: Count
    #: Messages left out on purpose: by a rule, or for want of a field.
    dropped: Count = 0
    #: (index into `Config.subscriptions()`, notice) of each kind and topic.
    notices: list[tuple[Index, Notice]] = []


class FieldTypesRequest(Struct, frozen=True, tag=True):
    """Encoder -> coordinator, before it sends the first line with these fields: may they have these types?"""

    #: Where the lines go, as `pipeline.fields.types.namespace_of` names it.
    namespace: str
    measurement: str
    types: dict[str, FieldType]


class FieldTypes(Struct, frozen=True, tag=True):
    """Coordinator -> encoder, answers AskTypes: the types that the fields have."""

    namespace: str
    measurement: str
    types: dict[str, FieldType]


class TagCardinalities(Struct, frozen=True, tag=True):
    """Encoder -> coordinator, about every 5 s when they have changed: the sketches of the tags' distinct values."""

    #: Index into `Config.all_sinks()`.
    sink: Index
    #: tag key -> registers, as `pipeline.fields.hyperloglog` has them.
    registers: dict[str, bytes]


class OverLimit(Struct, frozen=True, tag=True):
    """Coordinator -> every encoder: tags with more values than allowed, for which the mapping has a consequence."""

    sink: Index
    tags: list[str]


class StoreDeadLetters(Struct, frozen=True, tag=True):
    """Coordinator -> dead-letter: keep these messages, and why they can't be written."""

    range: Range
    rejects: list[Reject]


class DeadLettersStored(Struct, frozen=True, tag=True):
    """Dead-letter -> coordinator: the dead letters of the range are stored."""

    range: Range


class ProcessDied(Struct, frozen=True, tag=True):
    """Supervisor -> coordinator: a worker died; what it held must be read again."""

    name: str
    #: What it had in hand, if that is known; and how it ended, for a person.
    work: Range | None = None
    how: str = ""


class Excused(Struct, frozen=True, tag=True):
    """Coordinator -> supervisor, answers a Lost with work; until then the supervisor repeats it."""

    name: str
    work: Range
    #: Deaths that messages are to blame for, not the processes: of this one, and perhaps of one before.
    deaths: Count


class GaveUp(Struct, frozen=True, tag=True):
    """Encoder or writer -> coordinator: it lives, and cannot deal with a range as a whole."""

    range: Range
    why: str


class Restarted(Struct, frozen=True, tag=True):
    """Encoder of another machine -> coordinator, once it is admitted: the one before it died, and what was on its way
    there is lost."""

    #: What that one had in hand, if anything; and how it ended, for a person.
    work: Range | None
    how: str


class Join(Struct, frozen=True, tag=True):
    """Encoder of another machine -> coordinator, every second instead of Hello: may it take part? So a coordinator that
    is new knows all of them soon."""

    name: str
    pid: Pid
    #: Of what has to be the same in both configurations.
    digest: str
    #: As in Hello.
    startup_cpu: float = 0.0


class Allow(Struct, frozen=True, tag=True):
    """Coordinator -> ingest and writers: the keys of the encoders that were admitted. No others may connect."""

    #: Public keys, as Z85.
    keys: list[str]


class Allowed(Struct, frozen=True, tag=True):
    """Ingest, or a writer -> coordinator, answers Allow."""

    keys: list[str]


class Admit(Struct, frozen=True, tag=True):
    """Coordinator -> encoder of another machine, answers each Join. It connects to the others only then."""

    #: Why not; "" when it may.
    refused: str
    ingests: Index
    writers: Index


class Leave(Struct, frozen=True, tag=True):
    """Encoder of another machine -> coordinator: it leaves; what was on its way to it must be read again."""

    name: str


class Stopped(Struct, frozen=True, tag=True):
    """Ingest -> coordinator: it has been told to drain, or has come to its limits, and dispatches nothing more."""


# Data: PUSH -> PULL


class Batch(Struct, frozen=True, tag=True):
    """Ingest -> encoder. Bulk: the payloads as `pipeline.wire.payload_frame` joins them, and their lengths."""

    range: Range
    #: Offset of the first message (the range's, unless the log has lost some since).
    first: Count
    #: Offset of each message when they are not contiguous; None when `first + index` is right.
    offsets: list[Count] | None
    #: Iggy's timestamp of each message, microseconds since 1970; None where the mapping does not ask.
    timestamps: list[int] | None
    #: Of each message, the values of the headers in `header_tags`, "" for one that is missing; None where the mapping
    #: has none.
    headers: list[tuple[str, ...]] | None = None
    #: It is read again: later batches of its partition may have been written before it.
    redelivered: bool = False


class BucketLines(Struct, frozen=True, array_like=True):
    """Lines that go to one bucket (or database); "" is the configured one."""

    bucket: str
    points: Count
    #: Of each line, the indices of the batch's messages that it comes from; None where line i comes from message i.
    messages: list[tuple[Index, ...]] | None
    #: Somewhere in the lines are two in a row.
    escapes: bool = False

    def messages_of(self, line: int) -> tuple[int, ...]:
        """The indices of the batch's messages that a line comes from."""
        return self.messages[line] if self.messages else (line,)


class Lines(Struct, frozen=True, tag=True):
    """Encoder -> writer. One bulk frame for each group: the request's body, gzip'd if the configuration says so."""

    range: Range
    #: Offset of the batch's first message, and of each one when they are not contiguous.
    first: Count
    offsets: list[Count] | None
    buckets: list[BucketLines]
    rejects: list[Reject]
    #: As in the Batch.
    redelivered: bool = False
    overwritten: Overwritten = Overwritten()


# Status: the coordinator's PUB


class PartitionStatus(Struct, frozen=True):
    """Where one partition stands; offsets are -1 where there is none yet."""

    stream: str
    topic: str
    partition: int
    #: Last offset stored in Iggy.
    committed: int
    #: Last offset dispatched.
    dispatched: int
    #: Last offset in the log, as far as it has been seen: by a look at the topic, or because it was dispatched.
    end: int

    @property
    def lag(self) -> int:
        """Messages after the last one committed, at least those in flight."""
        return max(0, self.end - self.committed)


class GapStatus(Struct, frozen=True):
    """Offsets `first` to `last` of a partition that were gone before they could be read."""

    stream: str
    topic: str
    partition: int
    first: int
    last: int


class Status(Struct, frozen=True, tag=True):
    """Coordinator -> whoever subscribes (supervisor, demo, bench), twice a second. Counters since its start."""

    epoch: int
    #: True while ingest has its partitions, every process has said Hello and none is paused.
    ready: bool
    drained: bool
    read: int
    encoded: int
    written: int
    rejected: int
    batches: int
    sent_bytes: int
    #: Dispatched and not settled.
    in_flight: int
    in_flight_bytes: int
    reread: int
    #: When the first batch was dispatched and the last one settled: seconds, CLOCK_MONOTONIC; 0 before.
    first_dispatched_at: float
    last_settled_at: float
    #: name -> pid, and CPU seconds its start-up cost, of every process that has said Hello.
    pids: dict[str, int]
    startup_cpu: dict[str, float]
    #: process -> what outside it fails, while it tries again.
    retrying: dict[str, str]
    #: Some of them wait for a person.
    paused: bool
    partitions: list[PartitionStatus]
    #: When this was sent, and when each process was last heard of: seconds, CLOCK_MONOTONIC.
    now: float = 0.0
    heard: dict[str, float] = {}
    #: Why the pipeline must stop; "" while it may go on.
    fatal: str = ""
    #: Messages that the mapping left out on purpose; they are neither written nor rejected.
    filtered: int = 0
    #: Points that took the place of others (`Overwritten`): all within a batch, and as far as they were seen between
    #: batches.
    overwritten: int = 0
    #: Messages that expired in Iggy before they were read; the newest of these gaps; and logs found cut off.
    missed: int = 0
    gaps: list[GapStatus] = []
    truncations: int = 0
    #: Messages of strangers, or of another version, that processes have dropped.
    dropped: int = 0


Control = (
    Heartbeat | Assign | Started | Credit | Dispatched | Progress | Redeliver | Settled | Encoded | Retrying
    | ProcessDied | Drain
    | Stopped | StoreDeadLetters | DeadLettersStored | FieldTypesRequest | FieldTypes | TagCardinalities | OverLimit
    | Seek | Truncated | Gap | Revoked | Store
    | Stored | Failed | Join | Admit | Leave | Unassigned | Allow | Allowed | Excused | GaveUp
    | Restarted
)

#: What every batch brings; nobody waits for an answer.
BatchReport = Dispatched | Encoded | Settled

_control: "msgspec.msgpack.Decoder[Control]" = msgspec.msgpack.Decoder(Control)
_batch = msgspec.msgpack.Decoder(Batch)
_lines = msgspec.msgpack.Decoder(Lines)
_status = msgspec.msgpack.Decoder(Status)


def read(decoder: "msgspec.msgpack.Decoder[M]", frames_: Sequence[Any], parts: int | None = 1) -> tuple[M, list[Any]]:
    """A message that came in these frames, and the parts behind it; `parts` are how many there have to be, the message
    among them, where that is known. Raises Malformed for anything else, whatever it is."""
    try:
        head, *bulk = frames.joined(frames_)
        message = decoder.decode(buffer_of(head))
    except (msgspec.MsgspecError, ValueError, MemoryError, RecursionError) as error:
        raise Malformed(f"no message of this pipeline: {type(error).__name__}") from None
    if parts is not None and len(bulk) + 1 != parts:
        raise Malformed(f"{len(bulk) + 1} parts instead of {parts}")
    return message, bulk


def buffer_of(part: Any) -> Any:
    """What is in a part of a message, which may be a `zmq.Frame`."""
    return part if isinstance(part, bytes | memoryview) else part.buffer


def read_control(frames_: Sequence[Any]) -> Control:
    """The control message in frames. Raises Malformed for anything else."""
    return read(_control, frames_)[0]


def read_batch(frames_: Sequence[Any]) -> tuple[Batch, Any, Any]:
    """A Batch, its joined payloads and their lengths. Raises Malformed for anything else."""
    batch, (joined, lengths) = read(_batch, frames_, 3)
    return batch, buffer_of(joined), buffer_of(lengths)


def read_lines(frames_: Sequence[Any]) -> tuple[Lines, list[bytes]]:
    """Lines, and a body for each of its groups. Raises Malformed for anything else."""
    lines, bodies = read(_lines, frames_, None)
    if len(bodies) != len(lines.buckets):
        raise Malformed(f"{len(bodies)} bodies for {len(lines.buckets)} buckets")
    return lines, [bytes(buffer_of(body)) for body in bodies]


def decode_control(frame: Any) -> Control:
    """The control message in one frame. Raises msgspec.DecodeError or ValidationError for anything else."""
    return _control.decode(frame)


def decode_status(frame: Any) -> Status:
    """A Status, which is one frame. Raises msgspec.DecodeError or ValidationError for anything else."""
    return _status.decode(frame)
