"""`compression`: decompresses payloads, and compresses those of the load generator."""

from collections.abc import Callable
from typing import Any, Final

from stages.mapping.formats.errors import missing_package
from stages.mapping.reject import Reject

Decompressor = Callable[[bytes], bytes]
Compressor = Callable[[bytes], bytes]

#: First bytes of each frame format.
_MAGIC: Final = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18",
                 "snappy": b"\xff\x06\x00\x00sNaPpY"}
#: Parts of cramjam's error when the content is larger than the buffer.
_TOO_LARGE: Final = ("failed to write whole buffer", "is smaller than required")


def compressor(compression: str) -> Compressor:
    """The counterpart of `decompressor`. Raises BadFormat if cramjam is not installed."""
    if compression in ("none", "auto"):
        return bytes
    try:
        import cramjam
    except ImportError:
        raise missing_package("compression", compression, "cramjam", "compression") from None
    compress: Any = getattr(cramjam, compression).compress
    return lambda payload: bytes(compress(payload))


def decompressor(compression: str, max_bytes: int) -> Decompressor:
    """Returns a function that decompresses a payload to at most `max_bytes`. Raises BadFormat without cramjam.

    With "auto", a payload without known magic bytes is returned unchanged. "snappy" also accepts the raw format.
    """
    try:
        import cramjam
    except ImportError:
        raise missing_package("compression", compression, "cramjam", "compression") from None
    codecs: dict[str, Any] = {name: getattr(cramjam, name).decompress_into for name in _MAGIC}
    raw_snappy: Any = cramjam.snappy.decompress_raw_into
    buffer = bytearray(max_bytes)

    def decompress(payload: bytes) -> bytes:
        name = compression
        if name == "auto":
            name = next((name for name, magic in _MAGIC.items() if payload.startswith(magic)), "")
            if not name:
                return payload
        codec = codecs[name]
        if name == "snappy" and not payload.startswith(_MAGIC["snappy"]):
            codec = raw_snappy
        try:
            return bytes(memoryview(buffer)[:codec(payload, buffer)])
        except cramjam.DecompressionError as error:
            if any(words in str(error) for words in _TOO_LARGE):
                raise Reject("too_large", f"larger than {max_bytes} bytes after decompression") from None
            raise Reject("not_compressed", f"not a {name} payload: {error}") from None

    return decompress
