"""`format = "json"`: an object, or an array of objects that are a point each."""

from collections.abc import Iterator

import msgspec

from stages.mapping.record import quote_not_numbers
from stages.mapping.reject import Reject

_array = msgspec.json.Decoder(list[msgspec.Raw])


def objects(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """The payload itself, or the elements of the array that it is. Raises Reject."""
    if payload.lstrip()[:1] != b"[":
        yield "", payload
        return
    try:
        payload.decode()
        elements = _array.decode(quote_not_numbers(payload))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Reject("not_json", str(error)) from None
    for number, element in enumerate(elements, 1):
        yield f"element {number}: ", bytes(element)
