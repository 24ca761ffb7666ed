"""Messages as Python values, with exact numbers, and back: JSON in, the same JSON out where nothing is changed.

A number with a point or exponent is a Decimal, which keeps its digits; any other is an int. NaN and the infinities are
texts with a NUL before them (`records.record.NOT_NUMBERS`), as they have no text in JSON.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from stages.mapping.limits import Limits
from stages.mapping.records.record import decode_object, keys_in
from stages.mapping.reject import Reject
from stages.mapping.steps.paths import Document

_decoder: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_encoder: Final = msgspec.json.Encoder(decimal_format="number")
#: What no int holds.
_NEGATIVE_ZERO: Final = re.compile(rb"-0[\s,\]}]")
#: Digits of the longest int; more of them cost too much.
_MAX_DIGITS: Final = 400


def decoded_quickly(payload: bytes) -> Document:
    """The same of a payload without a -0. Raises what the decoder raises."""
    document: Document = _decoder.decode(payload)
    return document


def has_negative_zero(payload: bytes) -> bool:
    """Whether -0 may be in the payload, which is no int."""
    return b"-0" in payload and _NEGATIVE_ZERO.search(payload) is not None


def decoded(payload: bytes, limits: Limits) -> Document:
    """The object that a payload is. Raises Reject."""
    if not limits.may_be_over(payload) and not has_negative_zero(payload):
        try:
            return decoded_quickly(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, ArithmeticError):
            pass  # it is no JSON object, or one that only the exact way reads
    return {key: value_of(text) for key, text in decode_object(payload, limits).items()}


def value_of(text: str) -> Any:
    """The value of a JSON text, which is valid. Raises Reject."""
    try:
        return json.loads(text, parse_float=_decimal, parse_int=_integer)
    except (ValueError, ArithmeticError) as error:
        raise Reject("not_json", str(error)) from None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise Reject("bad_field", "a number is out of any range") from None


def _integer(text: str) -> int | Decimal:
    return Decimal(text) if text == "-0" or len(text) > _MAX_DIGITS else int(text)


def repeated_key(payload: bytes, document: Document) -> str:
    """A key that an object in the payload has twice, of which the document has the last value; or ""."""
    braces = payload.count(b"{")
    keys = len(document) if braces == 1 else _keys_of(document, braces)
    if payload.count(b":") == keys or keys_in(payload) == keys:
        return ""
    found: list[list[str]] = []
    try:
        json.loads(payload, object_pairs_hook=lambda pairs: found.append([key for key, _ in pairs]))
    except (ValueError, RecursionError):
        return ""
    return next((key for names in found if len(set(names)) < len(names)
                 for index, key in enumerate(names) if key in names[:index]), "")


def _keys_of(document: Document, braces: int) -> int:
    """How many members the objects in a document have, whose text has so many opening braces."""
    count, left = len(document), braces - 1
    todo: list[Any] = [document]
    while todo and left:
        value = todo.pop()
        for member in value.values() if type(value) is dict else value:
            kind = type(member)
            if kind is dict:
                count += len(member)
                left -= 1
                todo.append(member)
            elif kind is list:
                todo.append(member)
    return count


def encoded(document: Document) -> bytes:
    """The JSON text of a message. Raises Reject."""
    try:
        return _encoder.encode(document)
    except OverflowError:  # an integer beyond 64 bits
        pass
    except (UnicodeEncodeError, TypeError) as error:
        raise Reject("bad_field", f"a value cannot be represented in JSON: {error}") from None
    return _encoder.encode(_with_raw_integers(document))


def _with_raw_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_raw_integers(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_with_raw_integers(element) for element in value]
    if type(value) is int and not -(2**63) <= value < 2**64:
        return msgspec.Raw(str(value).encode())
    return value
