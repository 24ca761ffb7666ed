"""`format = "msgpack"`: a map, or an array of maps that are a point each. Keys become texts, `bin` Base64."""

from collections.abc import Iterator
from typing import Any

import msgspec

from stages.mapping.formats.plain import to_json
from stages.mapping.reject import Reject

_decoder = msgspec.msgpack.Decoder(Any)


def objects(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """The map or maps. Raises Reject."""
    try:
        value = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, ValueError) as error:
        raise Reject("not_msgpack", str(error)) from None
    if isinstance(value, list):
        for number, element in enumerate(value, 1):
            yield f"element {number}: ", to_json(element)
    else:
        yield "", to_json(value)
