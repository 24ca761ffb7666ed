"""Cuts messages into ZeroMQ frames of a bounded size. Pure.

A socket refuses a larger frame before it has read it or knows the sender, so an unknown peer can make it allocate one
such frame for each connection. A larger part of a message is cut; a frame of exactly the full size is continued in the
next one.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

#: Largest frame, bytes. Most parts of messages are smaller.
FRAME_BYTES: Final = 1 << 20


def cut(parts: Sequence[Any]) -> list[Any]:
    """The frames of a message whose parts are bytes-like. Copies nothing."""
    frames = []
    for part in parts:
        if len(part) < FRAME_BYTES:
            frames.append(part)
            continue
        view = memoryview(part)
        frames += [view[at:at + FRAME_BYTES] for at in range(0, len(view) + 1, FRAME_BYTES)]
    return frames


def joined(frames: Iterable[Any]) -> list[Any]:
    """The parts of a message: unchanged, bytes or `zmq.Frame`, or as bytes where one was cut.

    Raises ValueError when the last part is not complete.
    """
    parts: list[Any] = []
    incomplete: list[Any] = []
    for frame in frames:
        if len(frame) == FRAME_BYTES:
            incomplete.append(_buffer(frame))
        elif incomplete:
            parts.append(b"".join([*incomplete, _buffer(frame)]))
            incomplete = []
        else:
            parts.append(frame)
    if incomplete:
        raise ValueError("its last frame is missing")
    return parts


def _buffer(frame: Any) -> Any:
    return frame if isinstance(frame, bytes | memoryview) else frame.buffer
