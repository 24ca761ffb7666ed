"""What the broker stores: streams, topics, and partition logs, whose batches are kept as the bytes they came in.

Batch and message layout: Iggy's binary protocol 0.11.0, `batch.rs`.
"""

import bisect
import struct
from array import array

import xxhash
from msgspec import Struct

from pipeline.testbed.sandbox.iggy import protocol
from pipeline.testbed.sandbox.iggy.groups import Group
from pipeline.testbed.sandbox.iggy.protocol import Buffer, Parts, TopicOptions

BATCH_HEADER = 256
MESSAGE_HEADER = 48
#: batch header: partition, base offset, base timestamp, origin timestamp, length.
_FIELDS = struct.Struct("<QQQQQ")
_STAMP = struct.Struct("<QQQ")
#: message header: checksum, then the lengths of user headers and payload.
_MESSAGE = struct.Struct("<8s24xII")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_LENGTH_AT, _CHECKSUM_AT, _COUNT_AT = 32, 40, 48


def _checksum(header: Buffer, message_checksums: bytes) -> int:
    """A batch's checksum: XXH3-64 of its header's fields, then of each message's own checksum."""
    return xxhash.xxh3_64_intdigest(bytes(header[:40]) + bytes(header[48:52]) + message_checksums)


class Batch:
    """One sent batch, stamped with its partition, base offset and time."""

    __slots__ = ("base", "count", "data", "ends", "timestamp")

    def __init__(self, data: bytearray, partition: int, base: int, timestamp: int) -> None:
        """`data` is the batch as sent, header and frames, and is the batch's from now on.

        `timestamp` in microseconds since 1970. Raises struct.error or ValueError for what isn't one whole batch.
        """
        self.data = data
        self.base = base
        self.timestamp = timestamp
        self.count: int = _U32.unpack_from(data, _COUNT_AT)[0]
        #: Position in `data` after each message, with that of the first message before them.
        self.ends, checksums = _walk(data, self.count)
        if self.count == 0 or _U64.unpack_from(data, _LENGTH_AT)[0] != len(data):
            raise ValueError("not a whole batch")
        _STAMP.pack_into(data, 0, partition, base, timestamp)
        _U64.pack_into(data, _CHECKSUM_AT, _checksum(data, checksums))

    def slice(self, first: int, count: int) -> Parts:
        """Messages `first` to `first + count` (exclusive; within the batch) as a batch of their own, in parts.

        Its base offset stays: a message's offset is the base and the message's delta.
        """
        if first == 0 and count == self.count:
            return [self.data]
        starts = self.ends[first:first + count]
        start, end = starts[0], self.ends[first + count]
        header = self.data[:BATCH_HEADER]
        _U64.pack_into(header, _LENGTH_AT, BATCH_HEADER + end - start)
        _U32.pack_into(header, _COUNT_AT, count)
        data = self.data
        _U64.pack_into(header, _CHECKSUM_AT, _checksum(header, b"".join([data[at:at + 8] for at in starts])))
        return [header, memoryview(data)[start:end]]

    def head(self, count: int) -> "Batch":
        """A batch of the first `count` messages only."""
        partition = _U64.unpack_from(self.data, 0)[0]
        return Batch(bytearray(b"".join(self.slice(0, count))), partition, self.base, self.timestamp)


def _walk(data: bytearray, count: int) -> tuple["array[int]", bytes]:
    """Where messages end, and their checksums. Raises struct.error or ValueError unless they fill `data`."""
    even = _walk_even(data, count)
    if even is not None:
        return even
    position = BATCH_HEADER
    ends, checksums, unpack = [position], [], _MESSAGE.unpack_from
    for _ in range(count):
        checksum, headers, payload = unpack(data, position)
        position += MESSAGE_HEADER + headers + payload
        ends.append(position)
        checksums.append(checksum)
    if position != len(data):
        raise ValueError("messages don't fill the batch")
    return array("I", ends), b"".join(checksums)


def _walk_even(data: bytearray, count: int) -> tuple["array[int]", bytes] | None:
    """`_walk` for messages that are all as long as the first: a few strided copies instead of a loop."""
    step, rest = divmod(len(data) - BATCH_HEADER, count or 1)
    if rest or step < MESSAGE_HEADER:
        return None
    lengths = data[BATCH_HEADER + 32:BATCH_HEADER + 40]
    if MESSAGE_HEADER + sum(struct.unpack("<II", lengths)) != step:
        return None
    for byte in range(8):
        if data[BATCH_HEADER + 32 + byte::step].count(lengths[byte:byte + 1]) != count:
            return None
    checksums = bytearray(8 * count)
    for byte in range(8):
        checksums[byte::8] = data[BATCH_HEADER + byte:len(data):step]
    return array("I", range(BATCH_HEADER, len(data) + 1, step)), bytes(checksums)


class Found(Struct, frozen=True):
    """What a read gives: how many messages, the offset of the last, the bytes of their batches in parts."""

    count: int
    last: int
    parts: Parts


class PartitionLog:
    """All batches of one partition, in memory. It begins at `start_offset`, which retention moves."""

    def __init__(self, partition: int, created_at: int) -> None:
        self.partition = partition
        self.created_at = created_at
        self.batches: list[Batch] = []
        self._bases: list[int] = []
        self._times: list[int] = []
        self.start_offset = 0
        self.next_offset = 0
        #: Bytes of the stored batches.
        self.size = 0
        #: Number of the last operation that this partition has committed.
        self.op = 0

    @property
    def current_offset(self) -> int:
        """Offset of the last message; 0 also when there is none, as the server has it."""
        return max(0, self.next_offset - 1)

    @property
    def messages(self) -> int:
        """Number of stored messages."""
        return self.next_offset - self.start_offset

    def append(self, data: Buffer, now: int) -> Batch:
        """Adds a batch as sent, at time `now` (microseconds) or just after the last. Raises as `Batch` does."""
        timestamp = max(now, self._times[-1] + 1) if self._times else now
        batch = Batch(bytearray(data), self.partition, self.next_offset, timestamp)
        self._add(batch)
        return batch

    def _add(self, batch: Batch) -> None:
        self.batches.append(batch)
        self._bases.append(batch.base)
        self._times.append(batch.timestamp)
        self.next_offset = batch.base + batch.count
        self.size += len(batch.data)

    def first_since(self, timestamp: int) -> int:
        """Offset of the first message stored at or after `timestamp` (microseconds); the log's end if none.

        A batch's messages all have the batch's time: the delta of a message is to the producer's time of origin.
        """
        index = bisect.bisect_left(self._times, timestamp)
        return max(self.start_offset, self._bases[index]) if index < len(self._bases) else self.next_offset

    def read(self, offset: int, count: int) -> Found:
        """Up to `count` messages from `offset` on, or from the log's beginning when that is later."""
        parts: Parts = []
        found = 0
        offset = max(offset, self.start_offset)
        index = max(0, bisect.bisect_right(self._bases, offset) - 1)
        while found < count and index < len(self.batches) and offset < self.next_offset:
            batch = self.batches[index]
            skip = max(0, offset - batch.base)
            take = min(batch.count - skip, count - found)
            parts += batch.slice(skip, take)
            found += take
            index += 1
        return Found(found, offset + found - 1, parts)

    def lose(self, count: int) -> None:
        """Cuts the last `count` messages off: the next ones take their offsets."""
        end = max(self.start_offset, self.next_offset - count)
        kept = self.batches[:bisect.bisect_left(self._bases, end)]
        if kept and kept[-1].base + kept[-1].count > end:
            kept[-1] = kept[-1].head(end - kept[-1].base)
        self._replace(kept)
        self.next_offset = end

    def expire(self, before: int) -> None:
        """Removes all messages below offset `before`: the log begins there."""
        self.start_offset = max(self.start_offset, min(before, self.next_offset))
        end = self.next_offset
        self._replace([batch for batch in self.batches if batch.base + batch.count > self.start_offset])
        self.next_offset = end

    def purge(self) -> None:
        """Removes all messages; the next one takes offset 0, as the real server was seen to do."""
        self.start_offset = 0
        self.lose(self.next_offset)

    def _replace(self, batches: list[Batch]) -> None:
        self.batches, self._bases, self._times, self.size = [], [], [], 0
        for batch in batches:
            self._add(batch)

    def details(self, segments: int) -> bytes:
        """The partition as in a topic's details."""
        return struct.pack("<IQIQQQ", self.partition, self.created_at, segments, self.current_offset, self.size,
                           self.messages)


class Topic:
    """A topic: partitions, stored offsets, groups."""

    def __init__(self, id_: int, name: str, partitions: int, now: int, options: TopicOptions) -> None:
        """`now` in microseconds since 1970."""
        self.id = id_
        self.name = name
        self.created_at = now
        self.options = options
        self.logs: list[PartitionLog] = []
        self.add_partitions(partitions, now)
        #: Offsets of individual consumers: (consumer, partition) -> offset.
        self.offsets: dict[tuple[int | str, int], int] = {}
        #: By name.
        self.groups: dict[str, Group] = {}
        self._next_group = 0

    def log(self, partition: int) -> PartitionLog:
        """One partition's log. Raises Refused when there is none."""
        if partition >= len(self.logs):
            raise protocol.Refused(protocol.PARTITION_NOT_FOUND)
        return self.logs[partition]

    def group(self, name: int | str) -> Group:
        """A group by name or id. Raises Refused when there is none."""
        for group in self.groups.values():
            if name in (group.name, group.id):
                return group
        raise protocol.Refused(protocol.GROUP_NOT_FOUND)

    def add_group(self, name: str) -> Group:
        """Makes a group; ids are never used again."""
        group = self.groups[name] = Group(self._next_group, name)
        self._next_group += 1
        return group

    def add_partitions(self, count: int, now: int) -> None:
        """Adds partitions at the end; the caller rebalances the groups."""
        first = len(self.logs)
        self.logs += [PartitionLog(number, now) for number in range(first, first + count)]

    def remove_partitions(self, count: int) -> None:
        """Removes the last partitions, and every offset of theirs; the caller rebalances the groups."""
        del self.logs[len(self.logs) - count:]
        left = len(self.logs)
        self.offsets = {key: offset for key, offset in self.offsets.items() if key[1] < left}
        for group in self.groups.values():
            group.offsets = {number: offset for number, offset in group.offsets.items() if number < left}
            group.polled = {number: offset for number, offset in group.polled.items() if number < left}

    def purge(self) -> None:
        """Removes all messages of all partitions, and the stored offsets."""
        for log in self.logs:
            log.purge()
        self.offsets.clear()

    def lose(self, partition: int, count: int) -> None:
        """Cuts a partition's last messages off, and stored offsets down to what is left. Raises Refused."""
        log = self.log(partition)
        log.lose(count)
        for key, offset in self.offsets.items():
            if key[1] == partition:
                self.offsets[key] = min(offset, log.current_offset)
        for group in self.groups.values():
            if partition in group.offsets:
                group.offsets[partition] = min(group.offsets[partition], log.current_offset)

    def forget_polls(self) -> None:
        """What was served to groups is known only as long as the broker runs."""
        for group in self.groups.values():
            group.polled.clear()

    @property
    def partition_numbers(self) -> list[int]:
        """0 to the last."""
        return list(range(len(self.logs)))

    def summary(self) -> bytes:
        """The topic as in a list of topics."""
        return struct.pack("<IQIQBQQQ", self.id, self.created_at, len(self.logs),
                           self.options.number("message_expiry"), self.options.compression(),
                           self.options.number("max_topic_size"), sum(log.size for log in self.logs),
                           sum(log.messages for log in self.logs)) + protocol.text(self.name) + self.options.encoded()

    def details(self, segments: int = 1) -> bytes:
        """The topic with its partitions. `segments` a partition: 0 only in the reply to its creation."""
        return self.summary() + b"".join(log.details(segments) for log in self.logs)


class Stream:
    """A stream and its topics, by name."""

    def __init__(self, id_: int, name: str, now: int) -> None:
        """`now` in microseconds since 1970."""
        self.id = id_
        self.name = name
        self.created_at = now
        self.topics: dict[str, Topic] = {}

    def logs(self) -> list[PartitionLog]:
        """Of all topics."""
        return [log for topic in self.topics.values() for log in topic.logs]

    def summary(self) -> bytes:
        """The stream as in a list of streams."""
        logs = self.logs()
        return struct.pack("<IQIQQ", self.id, self.created_at, len(self.topics), sum(log.size for log in logs),
                           sum(log.messages for log in logs)) + protocol.text(self.name) + bytes(4)
