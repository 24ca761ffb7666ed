"""Decodes messages. What is decoded is not trusted yet: `pipeline.sockets` checks whether it fits the pipeline."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from pipeline.wire import frames

M = TypeVar("M")


class Malformed(ValueError):
    """The frames are no message of this pipeline. The text says why, and quotes nothing of them."""


def read(decoder: "msgspec.msgpack.Decoder[M]", frames_: Sequence[Any], parts: int | None = 1) -> tuple[M, list[Any]]:
    """The message in these frames, and the parts after it. Raises Malformed for anything else.

    `parts`: how many parts there have to be, the message included; None: any number.
    """
    try:
        head, *bulk = frames.joined(frames_)
        message = decoder.decode(buffer_of(head))
    except (msgspec.MsgspecError, ValueError, MemoryError, RecursionError) as error:
        raise Malformed(f"no message of this pipeline: {type(error).__name__}") from None
    if parts is not None and len(bulk) + 1 != parts:
        raise Malformed(f"{len(bulk) + 1} parts instead of {parts}")
    return message, bulk


def buffer_of(part: Any) -> Any:
    """The content of a part, which may be a `zmq.Frame`."""
    return part if isinstance(part, bytes | memoryview) else part.buffer
