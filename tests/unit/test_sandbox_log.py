"""A partition's log: what is served is what was sent, whichever way a batch is cut."""

import struct

import pytest
import xxhash

from pipeline.testbed.sandbox.iggy.log import Batch, PartitionLog

SIZES = {"all of one size": [9] * 50, "of all sizes": list(range(50)), "one longer at the end": [9] * 49 + [10],
         "as long on average as the first": [9, 8, 10] * 20, "single": [5], "empty": [0, 0, 0]}


def frame(number: int, size: int) -> bytes:
    """A message as the client sends it."""
    rest = struct.pack("<16xIIIIQ", number, number, 0, size, 0) + bytes([number % 251]) * size
    return struct.pack("<Q", xxhash.xxh3_64_intdigest(rest)) + rest


def batch(sizes: list[int]) -> bytes:
    """A batch as the client sends it."""
    blob = b"".join(frame(number, size) for number, size in enumerate(sizes))
    return struct.pack("<24xQQQI", 1_000, 256 + len(blob), 0, len(sizes)).ljust(256, b"\0") + blob


def checksum(data: bytes, sizes: list[int]) -> int:
    """What the server would stamp on `data`, which has messages of these sizes."""
    at, sums = 256, b""
    for size in sizes:
        sums += data[at:at + 8]
        at += 48 + size
    assert at == len(data)
    return xxhash.xxh3_64_intdigest(data[:40] + data[48:52] + sums)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_every_slice_is_a_batch_with_the_right_length_count_and_checksum(sizes: list[int]) -> None:
    log = PartitionLog(3, 0)
    log.append(batch(sizes), 77)
    for first in range(len(sizes)):
        for count in range(1, len(sizes) - first + 1):
            found = log.read(first, count)
            data = b"".join(found.parts)
            assert (found.count, found.last) == (count, first + count - 1)
            partition, base, time, _, length, stamp, messages = struct.unpack_from("<QQQQQQI", data)
            assert (partition, base, time, length, messages) == (3, 0, 77, len(data), count)
            assert stamp == checksum(data, sizes[first:first + count])
            assert data[256:] == b"".join(frame(n, sizes[n]) for n in range(first, first + count))


@pytest.mark.parametrize("spoil", [
    lambda data: data[:-1], lambda data: data + b"\0", lambda data: data[:100],
    lambda data: data[:48] + struct.pack("<I", 0) + data[52:],
    lambda data: data[:48] + struct.pack("<I", 4) + data[52:],
    lambda data: data[:32] + struct.pack("<Q", 1) + data[40:]])
@pytest.mark.parametrize("sizes", [[9] * 3, [9, 7, 11]])
def test_what_is_not_one_whole_batch_is_refused_and_leaves_no_trace(sizes: list[int], spoil: object) -> None:
    assert callable(spoil)
    log = PartitionLog(0, 0)
    with pytest.raises((struct.error, ValueError)):
        log.append(spoil(batch(sizes)), 1)
    assert (log.next_offset, log.size, log.batches) == (0, 0, [])


def test_time_never_stands_still_nor_goes_back_within_a_partition() -> None:
    log = PartitionLog(0, 0)
    times = [log.append(batch([1]), now).timestamp for now in (50, 50, 20, 60)]
    assert times == [50, 51, 52, 60]
    assert [log.first_since(time) for time in (0, 51, 53, 61)] == [0, 1, 3, 4]


def test_the_head_of_a_batch_keeps_place_and_time() -> None:
    head = Batch(bytearray(batch([1, 2, 3])), 4, 100, 77).head(2)
    assert (head.base, head.count, head.timestamp) == (100, 2, 77)
    assert bytes(head.data[256:]) == frame(0, 1) + frame(1, 2)
