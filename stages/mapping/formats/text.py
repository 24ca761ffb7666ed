"""`format = "text"`: the whole payload is one string."""

from collections.abc import Iterator

from stages.mapping.formats import Transcoder
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
