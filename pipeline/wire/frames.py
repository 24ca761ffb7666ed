"""Messages as ZeroMQ frames of a bounded size. Pure.

A socket refuses a larger frame before it has read it, and before it knows who the sender is: so what a stranger can
make it hold is one such frame a connection. A part of a message that is larger is cut; a frame of exactly the full size
goes on in the next one.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

#: Largest frame, bytes: most parts of messages are smaller.
FRAME_BYTES: Final = 1 << 20


def cut(parts: Sequence[Any]) -> list[Any]:
    """The frames of a message, whose parts are bytes or the like. Copies nothing."""
    frames = []
    for part in parts:
        if len(part) < FRAME_BYTES:
            frames.append(part)
            continue
        view = memoryview(part)
        frames += [view[at:at + FRAME_BYTES] for at in range(0, len(view) + 1, FRAME_BYTES)]
    return frames


def joined(frames: Iterable[Any]) -> list[Any]:
    """The parts of a message again: as they are, bytes or `zmq.Frame`, or as bytes where one was cut.

    Raises ValueError when the last part goes on in a frame that is not there.
    """
    parts: list[Any] = []
    open_: list[Any] = []
    for frame in frames:
        if len(frame) == FRAME_BYTES:
            open_.append(_buffer(frame))
        elif open_:
            parts.append(b"".join([*open_, _buffer(frame)]))
            open_ = []
        else:
            parts.append(frame)
    if open_:
        raise ValueError("its last frame is missing")
    return parts


def _buffer(frame: Any) -> Any:
    return frame if isinstance(frame, bytes | memoryview) else frame.buffer
