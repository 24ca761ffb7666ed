"""How messages are put into sends: by partition, a few at a time, and several points in one message. Pure."""

from typing import Literal

import msgspec
from msgspec import Struct

from pipeline.compression import compress
from pipeline.config.source_schema import Format

#: One send to Iggy has at most so many bytes, unless one message alone is larger.
SEND_BYTES = 4_000_000


class Send(Struct, frozen=True):
    """Messages that go to Iggy in one request, in their order."""

    #: None: the broker chooses.
    partition: int | None
    payloads: list[bytes]


class BatchOptions(Struct, frozen=True, kw_only=True):
    """How it is to be done."""

    partitioning: Literal["series", "balanced", "fixed"]
    #: With "fixed".
    partition: int
    #: Points in a message; 1: each is one of its own.
    batch_points: int
    format: Format
    gzip: bool
    send_messages: int
    #: Largest message, bytes; one with several points is cut before it.
    max_bytes: int


def make_sends(payloads: list[bytes], series: list[int], partitions: int, how: BatchOptions) -> list[Send]:
    """The sends of one page. With "series", all points of a series go to one of the topic's `partitions`, in order."""
    lanes: dict[int | None, list[bytes]] = {}
    if how.partitioning == "series" and partitions > 1:
        for payload, key in zip(payloads, series, strict=True):
            lanes.setdefault(key % partitions, []).append(payload)
    elif payloads:
        lanes[{"series": 0, "fixed": how.partition, "balanced": None}[how.partitioning]] = payloads
    sends = []
    for partition, lane in lanes.items():
        messages = lane if how.batch_points == 1 else _joined(lane, how)
        sends += [Send(partition, part) for part in parts_of(messages, how.send_messages, SEND_BYTES)]
    return sends


def _joined(payloads: list[bytes], how: BatchOptions) -> list[bytes]:
    """Several points in a message: lines of JSON or line protocol, or a MessagePack array."""
    out = []
    for part in parts_of(payloads, how.batch_points, how.max_bytes):
        if how.format == "msgpack":
            message = msgspec.msgpack.encode([msgspec.Raw(payload) for payload in part])
        else:
            message = b"\n".join(part) + b"\n"
        out.append(compress(message) if how.gzip else message)
    return out


def parts_of(payloads: list[bytes], count: int, size: int) -> list[list[bytes]]:
    """Cut after `count` payloads or before `size` bytes, whichever is first; a part has at least one."""
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
