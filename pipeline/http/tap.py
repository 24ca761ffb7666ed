"""The answer of `/tap`: samples of the lines, messages and rejects that pass, as NDJSON, until the client goes."""

from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec

from pipeline.config.plan import Plan
from pipeline.http.feeds import Feeds
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.tap_socket import TapListener
from pipeline.wire.sink import LineSamples
from pipeline.wire.source import MessageSamples

#: Clients at a time, at most.
MOST_TAPS: Final = 4
#: Longest time without a line of the answer, seconds: an empty one tells that nothing passes.
QUIET_SECONDS: Final = 1.0
_decoder: "msgspec.msgpack.Decoder[LineSamples | MessageSamples]" = msgspec.msgpack.Decoder(
    LineSamples | MessageSamples)


async def tapped(plan: Plan, feeds: Feeds) -> AsyncGenerator[bytes, None]:
    """The lines of the answer."""
    endpoints = Endpoints(plan.folder)
    listener = TapListener([*(endpoints.tap(index) for index in range(plan.writers if plan.stages() else 0)),
                            *([endpoints.source_tap] if plan.source_stages() else [])])
    try:
        seen = {_key(one) for one in _rejects(feeds)}
        while True:
            frame = await listener.receive(QUIET_SECONDS)
            rejects = [one for one in _rejects(feeds) if _key(one) not in seen]
            seen = {_key(one) for one in _rejects(feeds)}
            yield b"".join([*(_json("reject", one) for one in rejects), *_samples(frame)]) or b"\n"
    finally:
        listener.close()


def _rejects(feeds: Feeds) -> list[Any]:
    status = feeds.read().sink
    return [] if status is None else list(status.rejects)


def _key(reject: Any) -> tuple[object, ...]:
    return reject.time, reject.sink, reject.stream, reject.topic, reject.partition, reject.offset


def _samples(frame: bytes | None) -> list[bytes]:
    if frame is None:
        return []
    try:
        found = _decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []
    if isinstance(found, LineSamples):
        return [_json("line", one) for one in found.lines]
    return [*(_json("message", one) for one in found.messages), *(_json("row", one) for one in found.rejects)]


def _json(kind: str, one: msgspec.Struct) -> bytes:
    return msgspec.json.encode({"kind": kind, **msgspec.to_builtins(one)}) + b"\n"
