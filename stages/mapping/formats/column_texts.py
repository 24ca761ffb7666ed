"""Payloads that are one flat object each, column by column, as JSON texts. Pure."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

_encode: Final = msgspec.json.Encoder().encode


class Columns(NamedTuple):
    """What some payloads hold."""

    #: Keys of each column, from outside in.
    paths: tuple[tuple[str, ...], ...]
    #: JSON texts of each column, joined by line breaks; null where there is no value.
    texts: list[bytes]
    #: Number of the payloads.
    rows: int


#: Reads payloads; gives what it has read, and the indices of those, or None for all of them.
ReadColumns = Callable[[Sequence[bytes]], tuple[Columns, list[int] | None]]


def number_texts(values: Sequence[float | int | bool | None]) -> bytes:
    """The JSON texts of numbers, booleans and None, joined by line breaks; null for a number that has none.

    Raises OverflowError.
    """
    return _encode(values)[1:-1].replace(b",", b"\n")


def value_texts(values: Sequence[str | float | int | bool | None]) -> bytes:
    """The same, also of strings."""
    joined = _encode(values)
    if b'"' not in joined:
        return joined[1:-1].replace(b",", b"\n")
    # Quotes within strings have a backslash before them.
    if b"\\" not in joined and joined.count(b'"') == 2 * len(values) and joined.count(b'","') == len(values) - 1:
        return joined[1:-1].replace(b'","', b'"\n"')
    return b"\n".join(map(_encode, values))


def not_finite(values: Sequence[Any]) -> list[int]:
    """The indices of numbers that JSON has no text for."""
    return [index for index, value in enumerate(values) if isinstance(value, float) and not math.isfinite(value)]
