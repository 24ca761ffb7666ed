"""Converts the Python values that libraries of binary formats return to JSON text with exact numbers."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from stages.mapping.formats import each
from stages.mapping.limits import Limits, TooComplex
from stages.mapping.reject import Reject

_encoder = msgspec.json.Encoder(decimal_format="number")


def to_json(value: Any, limits: Limits) -> bytes:
    """The JSON text of a value: bytes as Base64, times as RFC 3339, NaN and infinities as bare tokens. Raises
    Reject."""
    try:
        return _encoder.encode(_plain(value, 1, limits))
    except (TypeError, ValueError, OverflowError) as error:
        raise Reject("bad_field", f"a value cannot be represented in JSON: {error}") from None


def json_or_reject(value: Any, limits: Limits) -> bytes | Reject:
    """The same for one of several values of a payload: returns the Reject of a bad one. Raises TooComplex."""
    try:
        return to_json(value, limits)
    except TooComplex:
        raise
    except Reject as reject:
        return reject


def usual_texts(values: Sequence[Any], limits: Limits) -> list[bytes | None]:
    """What `to_json` makes of dicts whose keys are texts; None for those that it has to look at, and for None.

    The encoder alone does the same, but for numbers that are none, which it calls null, and for the depth.
    """
    texts = each(_encoder.encode, values, (TypeError, ValueError, OverflowError))
    joined = b"".join([text for text in texts if text is not None])
    if b"null" in joined or None in texts:
        texts = [None if text is None or b"null" in text and (value is None or not _is_usual(value)) else text
                 for text, value in zip(texts, values, strict=True)]
    if joined.count(b"{") + joined.count(b"[") > len(texts) - texts.count(None) or limits.depth < 1:
        texts = [text if text is not None and text.count(b"{") + text.count(b"[") <= limits.depth else None
                 for text in texts]
    return texts


def _is_usual(value: Any) -> bool:
    """Whether a null in the text of a value can only be a null."""
    if isinstance(value, dict):
        return all(map(_is_usual, value.values()))
    if isinstance(value, list):
        return all(map(_is_usual, value))
    return value is None or isinstance(value, str | int | bytes) or isinstance(value, float) and math.isfinite(value)


def _plain(value: Any, depth: int, limits: Limits) -> Any:
    if isinstance(value, dict):
        limits.check_depth(depth)
        pairs = [(key if isinstance(key, str) else _key(key), _plain(member, depth + 1, limits))
                 for key, member in value.items()]
        members = dict(pairs)
        if len(members) < len(pairs):  # 1 and "1": keep both, as in JSON that has a key twice
            return msgspec.Raw(b"{%b}" % b",".join([_encoder.encode(key) + b":" + _encoder.encode(member)
                                                     for key, member in pairs]))
        return members
    if isinstance(value, list | tuple):
        limits.check_depth(depth)
        return [_plain(element, depth + 1, limits) for element in value]
    if isinstance(value, float) and not math.isfinite(value):
        return msgspec.Raw(b"NaN" if math.isnan(value) else b"Infinity" if value > 0 else b"-Infinity")
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return msgspec.Raw(str(value).encode())
    return value


def _key(key: Any) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    return str(key).lower() if isinstance(key, bool) else str(key)
