"""A topic as far as a user can see it who may only poll it."""

import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from msgspec import Struct

from pipeline.iggy.errors import IggyNotFound

#: Most partitions of a topic. Source: `MAX_PARTITIONS_COUNT` of server 0.9.
MAX_PARTITIONS = 1_000


class PartitionDetails(Protocol):
    """What is used of the client's `Partition`."""

    @property
    def id(self) -> int:
        """Number of the partition."""

    @property
    def created_at(self) -> int:
        """Microseconds since 1970; 0: not known."""

    @property
    def current_offset(self) -> int:
        """Offset of the last message; 0 also before the first one."""

    @property
    def messages_count(self) -> int:
        """Messages in the log; where their number is not known, 1 if there are any."""


class Details(Protocol):
    """What is used of the client's `TopicDetails`: a topic as the server tells, or as polls show it."""

    @property
    def partitions(self) -> Sequence[PartitionDetails]:
        """All partitions."""

    @property
    def partitions_count(self) -> int:
        """Their number."""


class PolledPartition(Struct, frozen=True):
    """A partition as polls show it."""

    id: int
    current_offset: int
    messages_count: int
    created_at: int = 0


class PolledTopic(Struct, frozen=True):
    """A topic as polls of its partitions show it."""

    partitions: list[PolledPartition]

    @property
    def partitions_count(self) -> int:
        """Number of partitions."""
        return len(self.partitions)


async def polled_topic(poll: Callable[[int], Awaitable[bytes]]) -> PolledTopic:
    """The topic, from `poll`, which is given a partition and polls its last message.

    Its reply begins with `[partition u32][current offset u64][count u32]`. Raises IggyError.
    """
    found: list[PolledPartition] = []
    for number in range(MAX_PARTITIONS):
        try:
            reply = await poll(number)
        except IggyNotFound:
            if not number:
                raise
            break
        _, current, count = struct.unpack_from("<IQI", reply)
        found.append(PolledPartition(number, current, count))
    return PolledTopic(found)
