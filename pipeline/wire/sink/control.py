"""All control messages of the sink direction, and how each kind of message is decoded."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
from msgspec import Struct

from pipeline.wire.common import Drain, Heartbeat, Retrying, encode
from pipeline.wire.decode import Malformed, buffer_of, read
from pipeline.wire.sink.batches import Batch, Batches, DeadLettersStored, Encoded, Lines, Settled, StoreDeadLetters
from pipeline.wire.sink.field_registry import FieldTypes, FieldTypesRequest, OverLimit, TagCardinalities
from pipeline.wire.sink.measures import Writing
from pipeline.wire.sink.partitions import (
    Assign,
    Credit,
    Dispatched,
    Gap,
    Progress,
    Redeliver,
    Revoked,
    Seek,
    Started,
    Stopped,
    Store,
    Stored,
    Truncated,
    Unassigned,
)
from pipeline.wire.sink.remote_encoders import Admit, Allow, Allowed, Join, Leave
from pipeline.wire.sink.status import Status
from pipeline.wire.sink.supervision import Excused, Failed, GaveUp, ProcessDied, Restarted


class Reports(Struct, frozen=True, tag=True):
    """Ingest, encoder or writer -> coordinator: several reports, each as if it had been sent alone."""

    dispatched: list[Dispatched] = []
    settled: list[Settled] = []


Control = (
    Heartbeat | Retrying | Drain
    | Assign | Started | Seek | Truncated | Gap | Revoked | Unassigned | Store | Stored | Credit | Dispatched | Progress
    | Redeliver | Stopped
    | Encoded | Settled | Writing | Reports | StoreDeadLetters | DeadLettersStored
    | FieldTypesRequest | FieldTypes | TagCardinalities | OverLimit
    | Failed | ProcessDied | Excused | GaveUp | Restarted
    | Join | Admit | Allow | Allowed | Leave
)

#: The reports that every batch causes. No process waits for an answer to them.
BatchReport = Dispatched | Encoded | Settled

#: Several batches with fewer bytes are sent in one part: a part for each costs more than another copy of all.
ONE_PART_BYTES = 256 << 10

_control: "msgspec.msgpack.Decoder[Control]" = msgspec.msgpack.Decoder(Control)
_batches = msgspec.msgpack.Decoder(Batches)
_lines = msgspec.msgpack.Decoder(Lines)
_status = msgspec.msgpack.Decoder(Status)


def read_control(frames: Sequence[Any]) -> Control:
    """The control message in frames. Raises Malformed for anything else."""
    return read(_control, frames)[0]


def read_reports(frames: Sequence[Any]) -> list[Control]:
    """The control message in frames; several reports one by one. Raises Malformed for anything else."""
    message = read_control(frames)
    return [*message.dispatched, *message.settled] if isinstance(message, Reports) else [message]


def batches_parts(batches: list[Batch], payloads: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The parts of a message with batches, each with its joined payloads and their lengths: one for small ones."""
    if len(batches) > 1 and sum([len(joined) for joined, _ in payloads]) < ONE_PART_BYTES:
        return [encode(Batches(batches, payloads))]
    return [encode(Batches(batches)), *chain.from_iterable(payloads)]


def read_batches(frames: Sequence[Any]) -> list[tuple[Batch, Any, Any]]:
    """Batches, each with its joined payloads and their lengths. Raises Malformed for anything else."""
    message, bulk = read(_batches, frames, None)
    bulk = [*chain.from_iterable(message.payloads), *bulk]
    if len(bulk) != 2 * len(message.batches):
        raise Malformed(f"{len(bulk)} parts for the payloads of {len(message.batches)} batches")
    parts = map(buffer_of, bulk)
    return list(zip(message.batches, parts, parts, strict=True))


def read_lines(frames: Sequence[Any]) -> tuple[Lines, list[bytes]]:
    """Lines, and a body for each of its buckets. Raises Malformed for anything else."""
    lines, bodies = read(_lines, frames, None)
    if not lines.parts:
        raise Malformed("lines of no batch")
    if len(bodies) != len(lines.buckets):
        raise Malformed(f"{len(bodies)} bodies for {len(lines.buckets)} buckets")
    return lines, [bytes(buffer_of(body)) for body in bodies]


def decode_control(frame: Any) -> Control:
    """The control message in one frame. Raises msgspec.DecodeError or ValidationError for anything else."""
    return _control.decode(frame)


def decode_status(frame: Any) -> Status:
    """A Status, which is one frame. Raises msgspec.DecodeError or ValidationError for anything else."""
    return _status.decode(frame)
