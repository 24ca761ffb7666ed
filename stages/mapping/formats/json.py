"""`format = "json"`: an object, or an array of objects that are a point each."""

from collections.abc import Iterator

from stages.mapping.record import elements, is_array


def objects(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """The payload itself, or the elements of the array that it is. Raises Reject."""
    if not is_array(payload):
        yield "", payload
        return
    for number, element in enumerate(elements(payload), 1):
        yield f"element {number}: ", element
