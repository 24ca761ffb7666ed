"""A partition's log: batches kept as the bytes they came in, served in slices of those bytes.

Batch and message layout: Iggy's binary protocol 0.11.0, `batch.rs`.
"""

import bisect
import struct
from array import array

BATCH_HEADER = 256
MESSAGE_HEADER = 48
#: batch header: partition, base offset, base timestamp, origin timestamp, length, checksum, count.
_BATCH = struct.Struct("<QQQQQQI")
_STAMP = struct.Struct("<QQQ")
_LENGTHS = struct.Struct("<II")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Batch:
    """One sent batch, stamped with its partition, base offset and time. Frame ends are found when first needed."""

    __slots__ = ("_ends", "base", "count", "data", "timestamp")

    def __init__(self, data: bytes, partition: int, base: int, timestamp: int) -> None:
        """`data` is the batch as sent: header and frames. `timestamp` in microseconds since 1970."""
        stamped = bytearray(data)
        _STAMP.pack_into(stamped, 0, partition, base, timestamp)
        self.data = bytes(stamped)
        self.base = base
        self.timestamp = timestamp
        self.count: int = _U32.unpack_from(data, 48)[0]
        self._ends: array[int] | None = None

    def ends(self) -> "array[int]":
        """Position in `data` after each message, with that of the first message before them."""
        if self._ends is None:
            position = BATCH_HEADER
            ends = array("L", [position])
            for _ in range(self.count):
                headers, payload = _LENGTHS.unpack_from(self.data, position + 32)
                position += MESSAGE_HEADER + headers + payload
                ends.append(position)
            self._ends = ends
        return self._ends

    def slice(self, first: int, count: int) -> list[bytes | memoryview]:
        """Messages `first` to `first + count` (exclusive, within the batch) as a batch of their own, in parts."""
        if first == 0 and count == self.count:
            return [self.data]
        ends = self.ends()
        start, end = ends[first], ends[first + count]
        header = bytearray(self.data[:BATCH_HEADER])
        _U64.pack_into(header, 32, BATCH_HEADER + end - start)
        _U32.pack_into(header, 48, count)
        return [bytes(header), memoryview(self.data)[start:end]]


class PartitionLog:
    """All batches of one partition, in memory."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.batches: list[Batch] = []
        self._bases: list[int] = []
        self._times: list[int] = []
        self.next_offset = 0
        self.size = 0

    @property
    def current_offset(self) -> int:
        """Offset of the last message; 0 also when there is none, as the server has it."""
        return max(0, self.next_offset - 1)

    def append(self, data: bytes, timestamp: int) -> int:
        """Adds a batch as sent; returns its base offset. Raises struct.error for what isn't a batch."""
        base = self.next_offset
        batch = Batch(data, self.partition, base, timestamp)
        self.batches.append(batch)
        self._bases.append(base)
        self._times.append(timestamp)
        self.next_offset += batch.count
        self.size += len(data)
        return base

    def first_since(self, timestamp: int) -> int:
        """Offset of the first message appended at or after `timestamp` (microseconds); the log's end if none."""
        index = bisect.bisect_left(self._times, timestamp)
        return self._bases[index] if index < len(self._bases) else self.next_offset

    def read(self, offset: int, count: int) -> tuple[int, list[bytes | memoryview]]:
        """Up to `count` messages from `offset` on: how many, and the bytes of their batches in parts."""
        parts: list[bytes | memoryview] = []
        found = 0
        index = max(0, bisect.bisect_right(self._bases, offset) - 1)
        while found < count and index < len(self.batches):
            batch = self.batches[index]
            skip = max(0, offset - batch.base)
            take = min(batch.count - skip, count - found)
            if take > 0:
                parts += batch.slice(skip, take)
                found += take
            index += 1
        return found, parts
