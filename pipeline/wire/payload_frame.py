"""The payloads of a batch as one frame, so that nobody needs an object for each of them.

They stand as the elements of a JSON array do, each on a line of its own, whatever they are: where all are JSON the
frame is JSON too. Their lengths travel beside it and tell them apart where they are something else.
"""

from array import array
from collections.abc import Sequence, Sized
from typing import Any, Final

OPENING: Final = b"["
SEPARATOR: Final = b",\n"
CLOSING: Final = b"]"
#: `array` type of a payload's length: Iggy takes none of 4 GiB.
_LENGTH: Final = "I"
LENGTH_BYTES: Final = array(_LENGTH).itemsize


def joined(payloads: Sequence[bytes]) -> bytes:
    """The payloads in one frame."""
    return b"%b%b%b" % (OPENING, SEPARATOR.join(payloads), CLOSING)


def lengths(payloads: Sequence[bytes]) -> bytes:
    """The payloads' lengths in one frame."""
    return array(_LENGTH, map(len, payloads)).tobytes()


def count(lengths_frame: Any) -> int:
    """How many payloads there are."""
    return len(lengths_frame) // LENGTH_BYTES


def fits(frame: Sized, lengths_frame: Any) -> bool:
    """Whether a frame of `lengths` is one, and belongs to one of `joined`."""
    if len(lengths_frame) % LENGTH_BYTES:
        return False
    sizes = array(_LENGTH)
    sizes.frombytes(lengths_frame)
    between = len(SEPARATOR) * max(0, len(sizes) - 1)
    return len(frame) == len(OPENING) + sum(sizes) + between + len(CLOSING)


def split(frame: Any, lengths_frame: Any) -> list[bytes]:
    """The payloads again, from a frame of `joined` and one of `lengths`. Raises ValueError when they don't fit."""
    sizes = array(_LENGTH)
    sizes.frombytes(lengths_frame)
    content = bytes(frame)
    payloads = []
    at = len(OPENING)
    for size in sizes:
        payloads.append(content[at:at + size])
        at += size + len(SEPARATOR)
    if at - len(SEPARATOR) * bool(sizes) + len(CLOSING) != len(content):
        raise ValueError(f"a frame of {len(content)} bytes holds no payloads of {sum(sizes)} bytes")
    return payloads
