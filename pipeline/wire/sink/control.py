"""All control messages of the sink direction, and how each kind of message is decoded."""

from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.wire.common import Drain, Heartbeat, Retrying
from pipeline.wire.decode import Malformed, buffer_of, read
from pipeline.wire.sink.batches import Batch, DeadLettersStored, Encoded, Lines, Settled, StoreDeadLetters
from pipeline.wire.sink.field_registry import FieldTypes, FieldTypesRequest, OverLimit, TagCardinalities
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

Control = (
    Heartbeat | Retrying | Drain
    | Assign | Started | Seek | Truncated | Gap | Revoked | Unassigned | Store | Stored | Credit | Dispatched | Progress
    | Redeliver | Stopped
    | Encoded | Settled | StoreDeadLetters | DeadLettersStored
    | FieldTypesRequest | FieldTypes | TagCardinalities | OverLimit
    | Failed | ProcessDied | Excused | GaveUp | Restarted
    | Join | Admit | Allow | Allowed | Leave
)

#: The reports that every batch causes. No process waits for an answer to them.
BatchReport = Dispatched | Encoded | Settled

_control: "msgspec.msgpack.Decoder[Control]" = msgspec.msgpack.Decoder(Control)
_batch = msgspec.msgpack.Decoder(Batch)
_lines = msgspec.msgpack.Decoder(Lines)
_status = msgspec.msgpack.Decoder(Status)


def read_control(frames: Sequence[Any]) -> Control:
    """The control message in frames. Raises Malformed for anything else."""
    return read(_control, frames)[0]


def read_batch(frames: Sequence[Any]) -> tuple[Batch, Any, Any]:
    """A Batch, its joined payloads and their lengths. Raises Malformed for anything else."""
    batch, (joined, lengths) = read(_batch, frames, 3)
    return batch, buffer_of(joined), buffer_of(lengths)


def read_lines(frames: Sequence[Any]) -> tuple[Lines, list[bytes]]:
    """Lines, and a body for each of its buckets. Raises Malformed for anything else."""
    lines, bodies = read(_lines, frames, None)
    if len(bodies) != len(lines.buckets):
        raise Malformed(f"{len(bodies)} bodies for {len(lines.buckets)} buckets")
    return lines, [bytes(buffer_of(body)) for body in bodies]


def decode_control(frame: Any) -> Control:
    """The control message in one frame. Raises msgspec.DecodeError or ValidationError for anything else."""
    return _control.decode(frame)


def decode_status(frame: Any) -> Status:
    """A Status, which is one frame. Raises msgspec.DecodeError or ValidationError for anything else."""
    return _status.decode(frame)
