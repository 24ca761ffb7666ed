"""The payloads of a batch as one frame, so that no process needs an object for each of them.

They are written like the elements of a JSON array, one a line, whatever they are: where all are JSON the frame is JSON
too. Their lengths travel in a second frame, by which other payloads are told apart.
"""

from array import array
from collections.abc import Sequence, Sized
from typing import Any, Final

OPENING: Final = b"["
SEPARATOR: Final = b",\n"
CLOSING: Final = b"]"
#: `array` type of a payload's length: Iggy accepts no payload of 4 GiB.
_LENGTH: Final = "I"
LENGTH_BYTES: Final = array(_LENGTH).itemsize


def joined(payloads: Sequence[bytes]) -> bytes:
    """The payloads in one frame."""
    return b"%b%b%b" % (OPENING, SEPARATOR.join(payloads), CLOSING)


def lengths(payloads: Sequence[bytes]) -> bytes:
    """The payloads' lengths in one frame."""
    return array(_LENGTH, map(len, payloads)).tobytes()


def count(lengths_frame: Any) -> int:
    """The number of payloads."""
    return len(lengths_frame) // LENGTH_BYTES


def fits(frame: Sized, lengths_frame: Any) -> bool:
    """Whether a frame of lengths is valid and belongs to a frame of `joined` payloads."""
    if len(lengths_frame) % LENGTH_BYTES:
        return False
    sizes = array(_LENGTH)
    sizes.frombytes(lengths_frame)
    between = len(SEPARATOR) * max(0, len(sizes) - 1)
    return len(frame) == len(OPENING) + sum(sizes) + between + len(CLOSING)


def split(frame: Any, lengths_frame: Any) -> list[bytes]:
    """The payloads in a frame of `joined` and one of `lengths`. Raises ValueError when they do not fit each other."""
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
