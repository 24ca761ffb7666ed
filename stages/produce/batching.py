"""Groups messages into requests to Iggy: by partition, limited in count and bytes, several points a message. Pure."""

from typing import Literal

import msgspec
from msgspec import Struct

from pipeline.compression import compress
from pipeline.config.source_schema import Format

#: Largest request to Iggy, bytes; a single larger message goes alone.
SEND_BYTES = 4_000_000


class Send(Struct, frozen=True):
    """Messages of one request to Iggy, in order."""

    #: None: the broker chooses.
    partition: int | None
    payloads: list[bytes]


class BatchOptions(Struct, frozen=True, kw_only=True):
    """How messages are grouped: the options of `[sources.output]`."""

    partitioning: Literal["series", "balanced", "fixed"]
    #: The partition for "fixed".
    partition: int
    #: Points in a message.
    batch_points: int
    format: Format
    gzip: bool
    #: Messages in a request.
    messages_per_send: int
    #: Largest message, bytes; a message of several points is split to respect it.
    max_bytes: int


def make_sends(payloads: list[bytes], series: list[int], partitions: int, options: BatchOptions) -> list[Send]:
    """The requests of one page. With "series", all points of a series go to one of `partitions`, in order."""
    by_partition: dict[int | None, list[bytes]]
    if options.partitioning == "series" and partitions > 1:
        by_partition = {number: [] for number in range(partitions)}
        appends = [own.append for own in by_partition.values()]
        for payload, key in zip(payloads, series, strict=True):
            appends[key % partitions](payload)
    else:
        partition = {"series": 0, "fixed": options.partition, "balanced": None}[options.partitioning]
        by_partition = {partition: payloads}
    sends = []
    for number, own in by_partition.items():
        messages = own if options.batch_points == 1 else _joined(own, options)
        sends += [Send(number, part) for part in split_by_size(messages, options.messages_per_send, SEND_BYTES)]
    return sends


def _joined(payloads: list[bytes], options: BatchOptions) -> list[bytes]:
    """Messages of several points: lines of JSON or line protocol, or a MessagePack array."""
    out = []
    for part in split_by_size(payloads, options.batch_points, options.max_bytes):
        if options.format == "msgpack":
            message = msgspec.msgpack.encode([msgspec.Raw(payload) for payload in part])
        else:
            message = b"\n".join(part) + b"\n"
        out.append(compress(message) if options.gzip else message)
    return out


def split_by_size(payloads: list[bytes], count: int, size: int) -> list[list[bytes]]:
    """Parts of at most `count` payloads and `size` bytes, and of at least one payload."""
    parts = [payloads[at:at + count] for at in range(0, len(payloads), count)]
    if all(sum(map(len, part)) + len(part) <= size for part in parts):
        return parts
    return _split_each(payloads, count, size)


def _split_each(payloads: list[bytes], count: int, size: int) -> list[list[bytes]]:
    parts: list[list[bytes]] = []
    part: list[bytes] = []
    held = 0
    for payload in payloads:
        if part and (len(part) >= count or held + len(payload) > size):
            parts.append(part)
            part, held = [], 0
        part.append(payload)
        held += len(payload) + 1
    return [*parts, part] if part else parts
