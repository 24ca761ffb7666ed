"""Partitions and ranges of offsets, and what is known of single messages in them."""

from typing import Annotated

from msgspec import Meta, Struct

from pipeline.wire.common import Count, Index

#: Number of a partition, as Iggy has them.
PartitionNumber = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class FoundTopic(Struct, frozen=True, array_like=True):
    """A topic that matches a pattern of the configuration."""

    #: Index of the pattern in `Config.subscriptions()`.
    pattern: Index
    stream: str
    topic: str


class Partition(Struct, frozen=True, array_like=True):
    """One partition of one topic."""

    #: Index into `Config.subscriptions()`; of a topic that a pattern has found, its id: `pipeline.subscriptions`.
    topic: Count
    number: PartitionNumber


class Range(Struct, frozen=True, array_like=True):
    """Messages of one partition that travel as one batch: offsets `first` to `last`, both included."""

    #: The coordinator's epoch. A range of another epoch is stale and ignored.
    epoch: Count
    partition: Partition
    first: Count
    last: Count
    messages: Count
    #: Payload bytes.
    bytes: Count
    #: Generation of the partition's log that the offsets belong to; see `Position`.
    generation: Count = 0
    #: Index of the ingest process that dispatched it.
    ingest: Index = 0


class Reject(Struct, frozen=True, array_like=True):
    """A message that cannot be written, whole or in part."""

    offset: Count
    #: Class of the reason, e.g. "not_json", "no_fields", "bad_timestamp", "parse_error", "type_conflict".
    reason: str
    #: What was wrong, for people; never the whole payload.
    detail: str
    #: "encode" or "write".
    stage: str = "encode"
    #: HTTP status of the database's answer; 0 where none was received.
    status: Count = 0
    attempts: Count = 0
    #: The line that was refused; "" where there was none.
    line: str = ""


class Overwritten(Struct, frozen=True, array_like=True):
    """Points that replaced others of the same measurement, tags and time, with a field in common."""

    points: Count = 0
    #: One of them, for people: the offsets of both messages, and the point.
    example: str = ""

    def and_also(self, other: "Overwritten") -> "Overwritten":
        """The sum of both; the example is the first one's."""
        return Overwritten(self.points + other.points, self.example or other.example) if other.points else self


class Suspect(Struct, frozen=True, array_like=True):
    """Offsets of a partition that a process died of. Batches are cut at the edges."""

    first: Count
    last: Count
    #: Processes that have died while they worked on these messages, or on a range that holds them.
    deaths: Count = 1
    #: How the last one ended, for people.
    how: str = ""
    #: A single message that is quarantined: it is sent to no encoder.
    quarantined: bool = False
