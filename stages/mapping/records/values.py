"""Converts the JSON text of one value to a line protocol field value of its declared type, or of the type that it has.

Source of the forms: InfluxDB line protocol reference, "Data types and format".
"""

import re
from collections.abc import Callable
from typing import Final

from pipeline.config.mapping_schema import DeclaredType
from pipeline.config.schema import MappingConfig
from pipeline.points import escape
from stages.mapping.records.record import NOT_NUMBERS, compact, loads
from stages.mapping.reject import Reject, shown

#: JSON text -> line protocol value; "" leaves the field out.
Converter = Callable[[str], str]

I64: Final = range(-(2**63), 2**63)
U64: Final = range(2**64)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
#: A number in a string, as people and programs write them: sign, leading zeros, a point at either end.
_WRITTEN = re.compile(r"([+-]?)(?:(?=[0-9])0*+([0-9]*+)(?:\.([0-9]*+))?|\.([0-9]++))([eE][+-]?[0-9]++)?")
_BASED = re.compile(r"[+-]?0(?:[xX][0-9a-fA-F]++|[oO][0-7]++|[bB][01]++)")
_DIGITS: Final = "-0123456789"
_TRUE: Final = frozenset(("true", "t", "yes", "y", "on", "1"))
_FALSE: Final = frozenset(("false", "f", "no", "n", "off", "0"))
#: Longest text of a number that is parsed.
_MAX_NUMBER_CHARS: Final = 400
#: A number that is shorter than this, and has no exponent, is within a float's range.
_SAFE_NUMBER_CHARS: Final = 300


class BadValue(ValueError):
    """The type cannot hold the value without losing something."""


def is_infinite(number: str) -> bool:
    """Whether a JSON number is outside the range of a 64-bit float."""
    return abs(float(number)) == float("inf")


def exact_integer(number: str) -> int:
    """The integer of a JSON number. Raises BadValue if it has a fraction, or is too large to be computed."""
    if _INTEGER.fullmatch(number) and len(number) < 40:
        return int(number)
    mantissa, _, exponent = number.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    if len(number) > _MAX_NUMBER_CHARS or len(exponent) > 4:
        raise BadValue("out of range")
    shift = int(exponent or 0) - len(fraction)
    digits: int = int(whole.removeprefix("-") + fraction)
    if digits == 0:
        return 0
    if shift < 0:
        digits, rest = divmod(digits, 10 ** min(-shift, _MAX_NUMBER_CHARS + 1))
        if rest:
            raise BadValue("it has a fraction")
    elif shift > 40:
        raise BadValue("out of range")
    else:
        digits *= int(10**shift)
    return -digits if whole.startswith("-") else digits


def _as_number(text: str) -> str:
    """The JSON number of a number, of a string with a number, or 1 and 0 of true and false. Raises BadValue."""
    if text[0] == '"':
        word = str(loads(text)).strip()
        if word.lower() in ("true", "false"):
            return "1" if word.lower() == "true" else "0"
        return written_number(word)
    if text in ("true", "false"):
        return "1" if text == "true" else "0"
    if not _NUMBER.fullmatch(text):
        raise BadValue("not a number")
    return text


def written_number(text: str) -> str:
    """The JSON number in a text such as " +21.5 ", "007", ".5", "5." or "0x1F". Raises BadValue.

    An ambiguous text, such as one with a comma between digits, is not a number, and neither is an empty one.
    """
    text = text.strip()
    if len(text) > _MAX_NUMBER_CHARS:
        raise BadValue("too long for a number")
    match = _WRITTEN.fullmatch(text)
    if match is not None:
        sign, whole, fraction, only_fraction, exponent = match.groups()
        fraction = fraction or only_fraction
        return (sign.removeprefix("+") + (whole or "0") + (f".{fraction}" if fraction else "") + (exponent or ""))
    if _BASED.fullmatch(text):
        return str(int(text, 0))
    raise BadValue("not a number")


def to_float(text: str) -> str:
    """Line protocol float: the number's own text. The database stores a number too small for a float as zero."""
    number = text if text[0] in _DIGITS else _as_number(text)
    if (len(number) >= _SAFE_NUMBER_CHARS or "e" in number or "E" in number) and is_infinite(number):
        raise BadValue("out of a float's range")
    return number


def to_integer(text: str) -> str:
    """Line protocol integer, `i`: -2^63 to 2^63 - 1."""
    value = exact_integer(_as_number(text))
    if value not in I64:
        raise BadValue("out of a 64-bit integer's range")
    return f"{value}i"


def to_unsigned(text: str) -> str:
    """Line protocol unsigned integer, `u`: 0 to 2^64 - 1."""
    value = exact_integer(_as_number(text))
    if value not in U64:
        raise BadValue("out of a 64-bit unsigned integer's range")
    return f"{value}u"


def to_boolean(text: str) -> str:
    """Line protocol boolean of true, false, 1, 0, and "true", "t", "yes", "y", "on", "1" and their opposites."""
    word = str(loads(text)).strip().lower() if text[0] == '"' else text
    if word not in _TRUE and word not in _FALSE:
        try:
            word = str(exact_integer(_as_number(text)))  # 1.0, "001"
        except BadValue:
            word = ""
    if word in _TRUE or word in _FALSE:
        return "true" if word in _TRUE else "false"
    raise BadValue("not a boolean")


def to_string(text: str) -> str:
    """Line protocol string: a string's content, or the JSON text of anything else."""
    if text[0] == '"' and "\\" not in text:
        return text
    if text in NOT_NUMBERS:
        return f'"{NOT_NUMBERS[text]}"'
    return escape.string_field(loads(text) if text[0] == '"' else compact(text))


def to_json(text: str) -> str:
    """Line protocol string that holds the value's JSON text."""
    return escape.string_field(compact(text))


_CONVERTERS: dict[DeclaredType, Converter] = {
    "float": to_float, "integer": to_integer, "unsigned": to_unsigned, "boolean": to_boolean, "string": to_string,
    "json": to_json,
}


def undeclared(as_written: bool) -> Converter:
    """The converter of fields without a declared type. With `as_written`, a number without a point is an integer."""

    def convert(text: str) -> str:
        first = text[0]
        if first in _DIGITS:
            return to_integer(text) if as_written and _INTEGER.fullmatch(text) else to_float(text)
        if first in "tf":
            return text
        if text in NOT_NUMBERS:
            raise BadValue("not a number that a field can hold")
        return to_string(text)

    return convert


def number_or_text(as_written: bool) -> Converter:
    """The converter of type "number": a string that looks like a number is one; anything else is as undeclared."""
    convert = undeclared(as_written)

    def convert_texts(text: str) -> str:
        if text[0] == '"' and text not in NOT_NUMBERS:
            try:
                return convert(written_number(str(loads(text))))
            except BadValue:
                pass
        return convert(text)

    return convert_texts


def converter(config: MappingConfig, declared: DeclaredType | None, path: str) -> Converter:
    """The converter of the field at `path` with a declared type.

    It raises Reject for a value that the type cannot hold, or leaves it out, as `on_bad_value` says.
    """
    as_written = config.integers == "as_written"
    inner = number_or_text(as_written) if declared == "number" else (
        _CONVERTERS[declared] if declared else undeclared(as_written))
    policy = config.on_bad_value
    plain = declared == "float" or declared in (None, "number") and not as_written

    def convert(text: str) -> str:
        if plain and text[0] in _DIGITS and len(text) < _SAFE_NUMBER_CHARS and "e" not in text and "E" not in text:
            return text  # what `to_float` returns; most values are such numbers
        if text == "null":
            return ""
        try:
            return converted(text)
        except escape.Unwritable as error:
            reject = Reject("unwritable", f"{path}: {error}")
        except Reject as error:
            reject = error
        if policy == "drop_field":
            return ""
        raise reject

    def converted(text: str) -> str:
        try:
            return inner(text)
        except BadValue as error:
            written = NOT_NUMBERS.get(text)
            if policy == "string":
                return f'"{written}"' if written else to_string(text)
            raise Reject("bad_field", f"{path}: {written or shown(text)} as {declared or 'a number'}: "
                                      f"{error}") from None

    return convert
