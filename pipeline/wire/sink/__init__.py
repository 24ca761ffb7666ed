"""The messages of the sink direction: tagged MessagePack Structs, by what they are about.

A message on a control socket is one Struct. On a data socket it is a Struct, and the payloads or bodies in further
parts, so that these are not encoded again. `pipeline.wire.frames` cuts the parts into frames.
"""

from pipeline.wire.decode import Malformed
from pipeline.wire.sink.batches import (
    Batch,
    Batches,
    BucketLines,
    DeadLettersStored,
    Encoded,
    Lines,
    LinesPart,
    Notice,
    Settled,
    StoreDeadLetters,
    Ways,
)
from pipeline.wire.sink.control import (
    BatchReport,
    Control,
    Reports,
    batches_parts,
    decode_control,
    decode_status,
    read_batches,
    read_control,
    read_lines,
    read_reports,
)
from pipeline.wire.sink.field_registry import FieldTypes, FieldTypesRequest, OverLimit, TagCardinalities
from pipeline.wire.sink.measures import EncodedTopic, EncodeMeasures, Outcome, TargetMeasures, Writing
from pipeline.wire.sink.partitions import (
    Assign,
    Credit,
    Dispatched,
    Gap,
    PartitionStart,
    Position,
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
    Unread,
)
from pipeline.wire.sink.ranges import FoundTopic, Overwritten, Partition, Range, Reject, Suspect
from pipeline.wire.sink.remote_encoders import Admit, Allow, Allowed, Join, Leave
from pipeline.wire.sink.samples import LineSample, LineSamples
from pipeline.wire.sink.status import (
    GapStatus,
    PartitionStatus,
    RejectStatus,
    SinkMeasures,
    Status,
    TagStatus,
    TargetStatus,
    TopicStatus,
    UnreadStatus,
    WriterStatus,
)
from pipeline.wire.sink.supervision import Excused, Failed, GaveUp, ProcessDied, Restarted

__all__ = [
    "Admit", "Allow", "Allowed", "Assign", "Batch", "BatchReport", "Batches", "BucketLines", "Control", "Credit",
    "DeadLettersStored", "Dispatched", "EncodeMeasures", "Encoded", "EncodedTopic", "Excused", "Failed", "FieldTypes",
    "FieldTypesRequest", "FoundTopic", "Gap", "GapStatus", "GaveUp", "Join", "Leave", "LineSample", "LineSamples",
    "Lines", "LinesPart", "Malformed", "Notice", "Outcome", "OverLimit", "Overwritten", "Partition", "PartitionStart",
    "PartitionStatus", "Position", "ProcessDied", "Progress", "Range", "Redeliver", "Reject", "RejectStatus", "Reports",
    "Restarted", "Revoked", "Seek", "Settled", "SinkMeasures", "Started", "Status", "Stopped", "Store",
    "StoreDeadLetters", "Stored", "Suspect", "TagCardinalities", "TagStatus", "TargetMeasures", "TargetStatus",
    "TopicStatus", "Truncated", "Unassigned", "Unread", "UnreadStatus", "Ways", "WriterStatus", "Writing",
    "batches_parts", "decode_control", "decode_status", "read_batches", "read_control", "read_lines",
    "read_reports",
]
