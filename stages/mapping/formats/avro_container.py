"""Reads the blocks of Avro object container files and decompresses them within a limit. Pure.

Source: Avro 1.12 specification, "Object Container Files". Libraries decompress a block as a whole, which can turn
kilobytes into gigabytes; here no block becomes larger than what is left of the limit.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from stages.mapping.formats.avro_measure import read_bytes, read_long
from stages.mapping.reject import Reject

_MAGIC: Final = b"Obj\x01"
_SYNC_BYTES: Final = 16
#: zlib's window bits for data without a header.
_RAW_DEFLATE: Final = -15
_CHECKSUM_BYTES: Final = 4


def header(payload: bytes) -> tuple[dict[str, bytes], int]:
    """The file's metadata, and the position of its sync marker. Raises ValueError and EOFError."""
    if not payload.startswith(_MAGIC):
        raise ValueError("it does not start with the magic bytes of a container file")
    found: dict[str, bytes] = {}
    at = len(_MAGIC)
    while True:
        count, at = read_long(payload, at)
        if count == 0:
            return found, at
        if count < 0:
            _, at = read_long(payload, at)
        for _ in range(abs(count)):
            key, at = read_bytes(payload, at)
            found[key.decode()], at = read_bytes(payload, at)


def blocks(payload: bytes, at: int, codec: str, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yields the number of records and the content of each block; `at` is the position of the sync marker.

    Raises Reject if the content of all blocks exceeds `max_bytes`, and ValueError and EOFError.
    """
    marker = payload[at:at + _SYNC_BYTES]
    at += _SYNC_BYTES
    left = max_bytes
    while at < len(payload):
        count, at = read_long(payload, at)
        data, at = read_bytes(payload, at)
        if count < 0 or len(marker) != _SYNC_BYTES or payload[at:at + _SYNC_BYTES] != marker:
            raise ValueError("a block does not end with the sync marker")
        at += _SYNC_BYTES
        content = _inflated(codec, data, left)
        if len(content) > left:
            raise Reject("too_large", f"larger than {max_bytes} bytes after decompression")
        left -= len(content)
        yield count, content


def _inflated(codec: str, data: bytes, most: int) -> bytes:
    """A block's content, at most the first `most` + 1 bytes."""
    if codec == "null":
        return data
    if codec == "deflate":
        return zlib.decompressobj(_RAW_DEFLATE).decompress(data, most + 1)
    if codec == "bzip2":
        return bz2.BZ2Decompressor().decompress(data, most + 1)
    if codec == "xz":
        return lzma.LZMADecompressor().decompress(data, most + 1)
    if codec == "snappy":
        return _into_buffer("snappy", "decompress_raw_into", data[:-_CHECKSUM_BYTES], most)
    if codec == "zstandard":
        return _into_buffer("zstd", "decompress_into", data, most)
    raise ValueError(f"unknown codec {codec}; supported are null, deflate, bzip2, xz, snappy and zstandard")


def _into_buffer(module: str, function: str, data: bytes, most: int) -> bytes:
    try:
        import cramjam
    except ImportError:
        raise ValueError(f"the codec {module} needs the extra compression") from None
    buffer = bytearray(most + 1)
    decompress: Callable[[Any, Any], int] = getattr(getattr(cramjam, module), function)
    try:
        return bytes(memoryview(buffer)[:decompress(data, buffer)])
    except cramjam.DecompressionError as error:
        if any(words in str(error) for words in ("failed to write whole buffer", "is smaller than required")):
            return bytes(most + 1)
        raise ValueError(f"not a {module} block: {error}") from None
