"""`format = "cbor"`: a map, or an array of maps. Source: RFC 8949."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import missing_package as missing_package_words
from stages.mapping.formats import Transcoder
from stages.mapping.formats.errors import missing_package
from stages.mapping.formats.json_values import json_or_reject, to_json
from stages.mapping.limits import Limits
from stages.mapping.reject import Reject, shown


def cbor_transcoder(limits: Limits) -> Transcoder:
    """The transcoder: yields the map, or each map of an array. Raises BadFormat where the package is missing."""
    need_package("cbor")

    def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
        value = cbor_value(payload, "not_cbor", limits)
        if not isinstance(value, list):
            yield "", to_json(value, limits)
            return
        limits.check_points(len(value))
        for number, element in enumerate(value, 1):
            yield f"element {number}: ", json_or_reject(element, limits)

    return objects


def need_package(name: str) -> None:
    """Raises BadFormat where cbor2 is missing, which `format` needs."""
    try:
        import cbor2  # noqa: F401
    except ImportError:
        raise missing_package("format", name, "cbor2", "cbor") from None


def cbor_value(payload: bytes, reason: str, limits: Limits) -> Any:
    """The value of a payload. Raises Reject, with that reason."""
    try:
        import cbor2
    except ImportError:
        raise Reject(reason, f"it is CBOR, which {missing_package_words('cbor2', 'cbor')}") from None
    file = io.BytesIO(payload)
    try:
        value = cbor2.load(file)
    except RecursionError:
        raise
    except Exception as error:  # a payload can be anything, and so can what tags of it raise
        raise Reject(reason, f"{type(error).__name__}: {shown(str(error))}") from None
    if file.read(1):
        raise Reject(reason, "the payload is longer than one value")
    _check_size(value, limits)
    return value


def _check_size(value: Any, limits: Limits) -> None:
    """Raises TooComplex for a value that is larger than allowed, where it refers to parts of itself: a few bytes of
    CBOR can hold any number of values by such references.
    """
    count = size = 0
    todo = [(value, 1)]
    while todo:
        item, depth = todo.pop()
        count += 1
        if isinstance(item, str | bytes):
            size += len(item)
            limits.check_bytes(size)
        elif isinstance(item, Mapping):
            limits.check_depth(depth)
            limits.check_values(count + len(item))
            todo += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple):
            limits.check_depth(depth)
            limits.check_values(count + len(item))
            todo += [(part, depth + 1) for part in item]
    limits.check_values(count)
