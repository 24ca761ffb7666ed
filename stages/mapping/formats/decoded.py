"""Reads JSON payloads of fixed formats: numbers stay exact, and what is wrong is a Reject."""

from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec

from stages.mapping.formats.json_values import to_json
from stages.mapping.limits import Limits
from stages.mapping.records.record import quote_not_numbers
from stages.mapping.reject import Reject

_encoder = msgspec.json.Encoder(decimal_format="number")
_any = msgspec.json.Decoder(float_hook=Decimal)


def json_value(payload: bytes, reason: str, limits: Limits) -> Any:
    """The value of a payload, fractions as Decimal. Raises Reject, with that reason."""
    try:
        payload = payload.removeprefix(b"\xef\xbb\xbf")
        limits.check_json(payload)
        return _any.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, ArithmeticError) as error:
        raise Reject(reason, str(error)) from None


def json_struct(payload: bytes | msgspec.Raw, decoder: Any, reason: str,
                limits: Limits) -> Any:
    """A payload, or a part of one, as what the decoder makes of it. Raises Reject, with that reason."""
    try:
        text = bytes(payload).removeprefix(b"\xef\xbb\xbf")
        limits.check_json(text)
        return decoder.decode(quote_not_numbers(text).replace(b'"\\u0000', b'"'))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, ArithmeticError) as error:
        raise Reject(reason, str(error)) from None


def object_text(members: dict[str, Any], limits: Limits) -> bytes:
    """The JSON text of an object of texts and numbers. Raises Reject."""
    if float not in map(type, members.values()):  # one may be NaN, for which JSON has no text
        with suppress(OverflowError, ValueError, TypeError):  # integers of more than 64 bits
            return _encoder.encode(members)
    return to_json(members, limits)
