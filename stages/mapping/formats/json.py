"""`format = "json"`: an object, or an array of objects, each a point."""

from collections.abc import Iterator

from stages.mapping.formats import Transcoder
from stages.mapping.formats.confluent import without_header
from stages.mapping.limits import Limits
from stages.mapping.records.record import elements, is_array
from stages.mapping.reject import Reject


def json_transcoder(limits: Limits, has_header: bool = False) -> Transcoder:
    """The transcoder: yields the payload itself, or its elements if it is an array; after Confluent's header, if it
    `has_header`."""
    def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
        if has_header:
            _, payload = without_header(payload, "not_json")
        if not is_array(payload):
            yield "", payload
            return
        for number, element in enumerate(elements(payload, limits), 1):
            yield f"element {number}: ", element

    return objects
