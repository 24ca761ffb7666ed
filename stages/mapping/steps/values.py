"""Verbs that change single values: parse, scale, lookup."""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from decimal import Context as DecimalContext
from decimal import Decimal, DecimalException
from typing import Any, Final

import msgspec

from pipeline.config.steps_schema import LookupStep, ParseFormat, ParseStep, Policy, ScaleStep, ValuePolicy, listed
from stages.mapping.limits import Limits
from stages.mapping.records.values import BadValue, written_number
from stages.mapping.steps.context import Context, described, path_of, target, text_of
from stages.mapping.steps.errors import BadStep, NothingThere, StepFailed
from stages.mapping.steps.paths import Document, Path, Place, put, remove

#: Does a step on a message, and gives it back, or another one; None where it is dropped.
Apply = Callable[[Document, Context], Document | None]
#: A value -> what it becomes. Raises StepFailed.
Change = Callable[[Any], Any]

#: Digits that the results of arithmetic have at most: more than any number that a database keeps.
_CONTEXT: Final = DecimalContext(prec=60)
#: Characters of a text that is read as a number, at most.
_MAX_CHARS: Final = 400
#: Integers beyond so many digits stay in the form with an exponent.
_MAX_DIGITS: Final = 40
_SPACES: Final = "' \u2019\u00a0\u202f\u2009"
_NUMERAL: Final = re.compile(rf"([+\-\u2212]?)\s*+([0-9][0-9.,{_SPACES}]*+|[.,][0-9]++)([eE][+-]?[0-9]++(?!\w))?"
                             r"\s*+(.*)", re.DOTALL)
#: The same number by its decimal sign: without groups, or with groups of three digits.
_BODIES: Final = {
    ".": re.compile(rf"([0-9]*+|[0-9]{{1,3}}(?:([,{_SPACES}])[0-9]{{3}}(?:\2[0-9]{{3}})*+))(?:\.([0-9]*+))?"),
    ",": re.compile(rf"([0-9]*+|[0-9]{{1,3}}(?:([.{_SPACES}])[0-9]{{3}}(?:\2[0-9]{{3}})*+))(?:,([0-9]*+))?"),
}
_POINT: Final = re.compile(r"([0-9]++)()\.([0-9]++)")
_UNIT: Final = re.compile(r"[^\W\d_]|[%\u2030\u00b0\u2032\u2033\"$\u20ac\u00a3\u00a5/\u00b2\u00b3\u00b5]")
_any: Final = msgspec.json.Decoder(Any, float_hook=Decimal)
_URL_SAFE: Final = str.maketrans("-_", "+/", " \t\r\n")


def changed(paths: Sequence[str], to: str, change: Change, on_error: ValuePolicy, on_missing: Policy,
            longest: int = 0) -> Apply:
    """The step that changes each of the values at some paths. Raises BadStep.

    `longest` is the length of the longest text that a value may become, if it does not depend on the value.
    """
    compiled = [path_of(path) for path in paths]
    keys = target(to)
    if keys and (len(compiled) > 1 or not compiled[0].is_exact):
        raise BadStep("to", "only with a path of one value")
    skips = on_error == "skip"

    if not keys and all(path.is_flat for path in compiled):
        return _flat([path.keys[0] for path in compiled], change, on_error, on_missing)

    def apply(document: Document, context: Context) -> Document:
        found, gone = False, []
        for path in compiled:
            places = path.places(document)
            context.limits.check_bytes(longest * len(places))
            for place in places:
                value = place.value
                if value is None:
                    continue
                found = True
                try:
                    result = change(value)
                    if keys:
                        put(document, keys, result, replace=True)
                    else:
                        place.holder[place.key] = result
                except StepFailed as error:
                    if skips:
                        continue
                    if on_error != "exclude":
                        raise StepFailed(f"{path.text}: {error}") from None
                    gone.append(place)
        if gone:
            remove(gone)
        if not found and on_missing != "skip":
            raise NothingThere(", ".join(paths))
        return document

    return apply


def _flat(keys: Sequence[str], change: Change, on_error: ValuePolicy, on_missing: Policy) -> Apply:
    """The same for keys of the message itself, which are most."""
    def apply(document: Document, context: Context) -> Document:
        found = False
        for key in keys:
            value = document.get(key)
            if value is None:
                continue
            found = True
            try:
                document[key] = change(value)
            except StepFailed as error:
                if on_error == "exclude":
                    del document[key]
                elif on_error != "skip":
                    raise StepFailed(f"{key}: {error}") from None
        if not found and on_missing != "skip":
            raise NothingThere(", ".join(keys))
        return document

    return apply


def parse(step: ParseStep, limits: Limits) -> Apply:
    """`do = "parse"`."""
    formats: tuple[ParseFormat, ...] = (step.as_,) if isinstance(step.as_, str) else step.as_
    if not formats:
        raise BadStep("as", "is empty")
    if "number" not in formats:
        for option in ("decimal", "unit_to"):
            if getattr(step, option) not in ("", "."):
                raise BadStep(option, 'only with as = "number"')
    if step.unit_to:
        return _with_unit(step)

    def change(value: Any) -> Any:
        if not isinstance(value, str):
            if isinstance(value, dict | list):
                raise StepFailed(f"{described(value)}, not a text")
            return value
        problems = []
        for form in formats:
            try:
                return _read(form, value, step.decimal, limits)
            except StepFailed as error:
                problems.append(str(error))
        raise StepFailed("; ".join(problems))

    return changed(listed(step.path), step.to, change, step.on_error, step.on_missing)


def _with_unit(step: ParseStep) -> Apply:
    """A number, and its unit at another path."""
    if step.as_ not in ("number", ("number",)):
        raise BadStep("unit_to", 'only with as = "number" alone')
    unit_keys = target(step.unit_to, "unit_to")
    units: list[str] = []

    def change(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        result, unit = number(value, step.decimal)
        units.append(unit)
        return result

    paths = listed(step.path)
    if len(paths) > 1 or not path_of(paths[0]).is_exact:
        raise BadStep("unit_to", "only with a path of one value")
    inner = changed(paths, step.to, change, step.on_error, step.on_missing)

    def apply(document: Document, context: Context) -> Document | None:
        units.clear()
        result = inner(document, context)
        if result is not None and units and units[0]:
            put(result, unit_keys, units[0])
        return result

    return apply


def _read(form: ParseFormat, text: str, decimal: str, limits: Limits) -> Any:
    if form == "json":
        return read_json(text, limits)
    if form == "number":
        return number(text, decimal)[0]
    raw = bytes_of(form, text)
    try:
        inner = raw.decode()
    except UnicodeDecodeError:
        raise StepFailed(f"the bytes in {described(text)} are not UTF-8 text") from None
    return read_json(inner, limits) if form == "base64_json" else inner


def read_json(text: str, limits: Limits) -> Any:
    """The value of a JSON text. Raises StepFailed, and Reject where it exceeds a limit."""
    try:
        raw = text.removeprefix("\ufeff").encode()
        if limits.may_be_over(raw):
            limits.check_json(raw)
        return _any.decode(raw)
    except (msgspec.DecodeError, UnicodeError, ArithmeticError) as error:
        raise StepFailed(f"{described(text)} is not JSON: {error}") from None


def bytes_of(form: str, text: str) -> bytes:
    """The bytes that a text holds as hexadecimal digits ("hex") or else Base64. Raises StepFailed."""
    return _hex(text) if form == "hex" else _base64(text)


def _base64(text: str) -> bytes:
    """Standard or URL-safe Base64, with or without padding."""
    plain = text.translate(_URL_SAFE).translate({32: None, 9: None, 13: None, 10: None}).rstrip("=")
    try:
        if not plain:
            raise binascii.Error
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise StepFailed(f"{described(text)} is not Base64") from None


def _hex(text: str) -> bytes:
    """Pairs of hexadecimal digits, also with 0x before them, and with spaces or colons between."""
    digits = text.strip().removeprefix("0x").replace(":", "")
    try:
        if not digits:
            raise ValueError
        return bytes.fromhex(digits)
    except ValueError:
        raise StepFailed(f"{described(text)} is not hexadecimal") from None


def number(text: str, decimal: str = ".") -> tuple[int | Decimal, str]:
    """The number that a text such as "21.5 °C" or "1 234,5" begins with, and its unit. Raises StepFailed."""
    inner = text.strip()
    match = _NUMERAL.fullmatch(inner) if len(inner) <= _MAX_CHARS else None
    if match is not None:
        sign, body, exponent, unit = match.groups()
        written = body.rstrip(_SPACES)
        parts = _BODIES[decimal].fullmatch(written) or (_POINT.fullmatch(written) if decimal == "," else None)
        whole, fraction = ("", "") if parts is None else (parts[1], parts[3])
        if parts is not None and (whole or fraction) and (not unit or _UNIT.match(unit)) and not _is_based(inner):
            digits = "".join([character for character in whole if character.isdigit()]) or "0"
            minus = "" if sign in ("", "+") else "-"
            result = minus + digits + (f".{fraction}" if fraction else "") + (exponent or "")
            return _as_number(result), unit
    try:
        return _as_number(written_number(inner)), ""
    except (BadValue, ValueError):
        raise StepFailed(f"{described(text)} is not a number") from None


def _is_based(text: str) -> bool:
    """Whether this is an integer in another base, such as 0x1F."""
    return text.lstrip("+-")[:2].lower() in ("0x", "0o", "0b")


def _as_number(text: str) -> int | Decimal:
    if text.lstrip("-").isdigit() and text != "-0":
        return int(text)
    try:
        return Decimal(text)
    except DecimalException:
        raise StepFailed(f"{text} is out of any range") from None


def scale(step: ScaleStep) -> Apply:
    """`do = "scale"`."""
    factor, offset = _constant(step.factor, "factor"), _constant(step.offset, "offset")
    if factor == 1 and offset == 0 and step.digits < 0:
        raise BadStep("factor", "nothing is changed; give factor, offset or digits")
    quantum = Decimal(1).scaleb(-step.digits) if step.digits >= 0 else None

    def change(value: Any) -> Any:
        if isinstance(value, str) and value[:1] != "\0":
            value = number(value)[0]
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise StepFailed(f"{described(value)} is not a number")
        try:
            result = _CONTEXT.add(_CONTEXT.multiply(Decimal(value), factor), offset)
            if quantum is not None:
                result = _CONTEXT.quantize(result, quantum)
            result = _CONTEXT.normalize(result)
        except DecimalException:
            raise StepFailed(f"{described(value)} is out of range") from None
        whole = result.as_tuple().exponent
        return int(result) if isinstance(whole, int) and whole >= 0 and result.adjusted() < _MAX_DIGITS else result

    return changed(listed(step.path), step.to, change, step.on_error, step.on_missing)


def _constant(value: int | float, option: str) -> Decimal:
    """A number of the configuration, with the digits that it was written with."""
    found = Decimal(repr(value))
    if not found.is_finite():
        raise BadStep(option, "is not a finite number")
    return found


def constant(value: Any, option: str) -> Any:
    """A value of the configuration, as messages have it. Raises BadStep."""
    return _constant(value, option) if isinstance(value, float) else value


def lookup(step: LookupStep, limits: Limits) -> Apply:
    """`do = "lookup"`."""
    fold = str.casefold if step.ignore_case else str
    table = {fold(key): constant(value, "values") for key, value in step.values.items()}
    if not table:
        raise BadStep("values", "is empty")
    if len(table) < len(step.values):
        raise BadStep("values", "has a key twice, as capital and small letters are the same")
    default = constant(step.default, "default")
    has_default = step.default is not None

    def change(value: Any) -> Any:
        text = text_of(value)
        if text is not None:
            key = fold(text)
            if key in table:
                return table[key]
            if isinstance(value, Decimal) and value.adjusted() < _MAX_DIGITS and value == value.to_integral_value() \
                    and (key := str(int(value))) in table:
                return table[key]
            if has_default:
                return default
        raise StepFailed(f"{described(value)} is not in the table")

    longest = max([len(value) for value in (*table.values(), default) if isinstance(value, str)], default=0)
    return changed(listed(step.path), step.to, change, step.on_error, step.on_missing, longest)


__all__ = ["Apply", "Change", "Path", "Place", "changed", "constant", "lookup", "number", "parse", "read_json", "scale"]
