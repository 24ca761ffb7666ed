"""`format = "text"`: the whole payload is one string."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from stages.mapping.formats import Transcoder, each
from stages.mapping.formats.json_values import to_json
from stages.mapping.limits import Limits
from stages.mapping.reject import Reject


def text_transcoder(field: str, limits: Limits) -> Transcoder:
    """The transcoder: yields an object with the payload's text at the key `field`."""
    def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
        try:
            yield "", to_json({field: payload.decode("utf-8-sig")}, limits)
        except UnicodeDecodeError as error:
            raise Reject("not_text", str(error)) from None

    return objects


def quick_text(field: str) -> Callable[[Sequence[bytes]], list[bytes | None]]:
    """The same for many payloads; None for those that are no text (`formats.Quick`)."""
    encode = msgspec.json.Encoder().encode
    begin = b"{" + encode(field) + b":"

    def text(payload: bytes) -> bytes:
        return begin + encode(payload.decode("utf-8-sig")) + b"}"

    return lambda payloads: each(text, payloads, (UnicodeDecodeError,))
