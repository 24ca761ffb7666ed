"""Verbs of texts: split, match, pairs, replace, unpack."""

import re
import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final
from urllib.parse import unquote_plus

from pipeline.config.steps_schema import MatchStep, PairsStep, ReplaceStep, SplitStep, UnpackStep, listed
from stages.mapping.limits import Limits
from stages.mapping.records.text_patterns import BadPattern, Pattern, regular_expression
from stages.mapping.reject import shown
from stages.mapping.steps.context import Context, described, exact_path, source, target, text_of
from stages.mapping.steps.errors import BadStep, NothingThere, StepFailed
from stages.mapping.steps.paths import MISSING, Document, put
from stages.mapping.steps.values import Apply, bytes_of, changed

#: In `to`: any number of parts.
REST: Final = "..."
#: A group in a replacement.
_REFERENCE: Final = re.compile(r"\\(?:([0-9]{1,2})|g<([^>]*)>)")
#: Texts of which the groups are remembered, and their length, at most: topics and devices come again and again.
_KNOWN_TEXTS, _KNOWN_CHARS = 2_000, 200

def _text_at(name: str) -> Callable[[Document, Context], str]:
    get = source(name)

    def text(document: Document, context: Context) -> str:
        value = get(document, context)
        if value is MISSING or value is None:
            raise NothingThere(name)
        found = text_of(value)
        if found is None:
            raise StepFailed(f"{name}: {described(value)}, not a text")
        return found

    return text


def _pattern(text: str) -> Pattern:
    try:
        return regular_expression(text)
    except BadPattern as error:
        raise BadStep("pattern", str(error)) from None


def split(step: SplitStep) -> Apply:
    """`do = "split"`."""
    if step.to.count(REST) > 1:
        raise BadStep("to", f'has "{REST}" twice')
    if not any(name not in ("", REST) for name in step.to):
        raise BadStep("to", "names no part")
    text = _text_at(step.from_)
    names = list(step.to)
    at = names.index(REST) if REST in names else -1
    keys = [() if name == REST else target(name) for name in names]
    if len({key for key in keys if key}) < sum(map(bool, keys)):
        raise BadStep("to", "has a path twice")
    count = len(keys) - (at >= 0)

    def apply(document: Document, context: Context) -> Document:
        whole = text(document, context)
        parts = whole.split(step.separator)
        if len(parts) != count and (at < 0 or len(parts) < count):
            raise StepFailed(f'{step.from_}: {described(whole)} has {len(parts)} parts by "{step.separator}", and '
                             f"`to` takes {count}" + (" or more" if at >= 0 else ""))
        rest = len(parts) - count
        for index, key in enumerate(keys):
            if key:
                put(document, key, parts[index if at < 0 or index < at else index + rest - 1])
        return document

    return apply


def match(step: MatchStep) -> Apply:
    """`do = "match"`."""
    pattern = _pattern(step.pattern)
    groups: Sequence[str] = list(pattern.groupindex)
    if not groups:
        raise BadStep("pattern", "has no named group, such as (?P<site>[^/]+)")
    text = _text_at(step.from_)
    prefix = target(step.to)

    known: dict[str, list[tuple[tuple[str, ...], str]] | None] = {}

    def parts_of(whole: str) -> list[tuple[tuple[str, ...], str]] | None:
        if whole in known:
            return known[whole]
        found = pattern.search(whole)
        parts = None if found is None else [((*prefix, name), part) for name in groups
                                            if (part := found.group(name)) is not None]
        if len(whole) <= _KNOWN_CHARS:
            if len(known) >= _KNOWN_TEXTS:
                known.clear()
            known[whole] = parts
        return parts

    def apply(document: Document, context: Context) -> Document:
        whole = text(document, context)
        parts = parts_of(whole)
        if parts is None:
            raise StepFailed(f"{step.from_}: {described(whole)} does not match {shown(step.pattern)}")
        for keys, part in parts:
            put(document, keys, part)
        return document

    return apply


def pairs(step: PairsStep) -> Apply:
    """`do = "pairs"`."""
    path = exact_path(step.path)
    prefix = target(step.to)
    between = r"\s" if step.separator == " " else re.escape(step.separator)
    pieces = re.compile(rf'(?:"(?:[^"\\]|\\.)*+"|(?!{between}).)++', re.DOTALL)

    def apply(document: Document, context: Context) -> Document:
        value = path.get(document)
        if value is MISSING or value is None:
            raise NothingThere(step.path)
        if not isinstance(value, str):
            raise StepFailed(f"{step.path}: {described(value)}, not a text")
        found = []
        for piece in pieces.findall(value):
            name, sign, text = piece.partition(step.equals)
            name, text = name.strip(), _unquoted(text.strip())
            if not piece.strip():
                continue
            if not sign or not name:
                raise StepFailed(f'{step.path}: {described(piece)} is no name and value with "{step.equals}" between')
            found.append((unquote_plus(name), unquote_plus(text)) if step.url else (name, text))
        path.take(document)
        for name, text in found:
            put(document, (*prefix, name), text)
        return document

    return apply


def _unquoted(text: str) -> str:
    is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if is_quoted else text


def replace(step: ReplaceStep, limits: Limits) -> Apply:
    """`do = "replace"`."""
    pattern = _pattern(step.pattern)
    references = _REFERENCE.findall(step.with_)
    for number, name in references:
        if name not in ("", *pattern.groupindex) or number and int(number) > pattern.groups:
            raise BadStep("with", f"there is no group {number or name} in the pattern")
    if _REFERENCE.sub("", step.with_).count("\\"):
        raise BadStep("with", 'has a backslash that begins no group, such as "\\1" or "\\g<name>"')
    groups = len(references)

    def change(value: Any) -> Any:
        if not isinstance(value, str) or value[:1] == "\0":
            if isinstance(value, dict | list):
                raise StepFailed(f"{described(value)}, not a text")
            return value
        if len(value) * (len(step.with_) + 1) > limits.expanded:
            matches = sum(1 for _ in pattern.finditer(value))
            limits.check_bytes(matches * len(step.with_) + groups * len(value))
        text = pattern.sub(step.with_, value)
        return text.lower() if step.case == "lower" else text.upper() if step.case == "upper" else text

    return changed(listed(step.path), step.to, change, step.on_error, step.on_missing)


def unpack(step: UnpackStep) -> Apply:
    """`do = "unpack"`."""
    path = exact_path(step.path)
    keys = [target(name) for name in step.to]
    try:
        size = struct.calcsize(step.format)
        count = len(struct.unpack(step.format, bytes(size)))
    except struct.error as error:
        raise BadStep("format", f"is no format of Python's module struct: {error}") from None
    if step.format[0] not in "<>!=":
        raise BadStep("format", 'begins with ">" (most significant byte first) or "<"')
    if count != len(keys):
        raise BadStep("to", f"has {len(keys)} paths for the {count} values of format")
    narrow = "f" in step.format

    def apply(document: Document, context: Context) -> Document:
        text = path.get(document)
        if text is MISSING or text is None:
            raise NothingThere(step.path)
        if not isinstance(text, str):
            raise StepFailed(f"{step.path}: {described(text)}, not a text")
        try:
            raw = bytes_of(step.as_, text)
        except StepFailed as error:
            raise StepFailed(f"{step.path}: {error}") from None
        if len(raw) != size:
            raise StepFailed(f"{step.path}: {len(raw)} bytes, and the format has {size}")
        path.take(document)
        for key, value in zip(keys, struct.unpack(step.format, raw), strict=True):
            if key:
                put(document, key, _unpacked(value, narrow))
        return document

    return apply


def _unpacked(value: Any, narrow: bool) -> Any:
    """A value of `struct`, as messages have it; floats with the fewest digits that give the same, also of 32 bits."""
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", "replace")
    if not isinstance(value, float):
        return value
    if value != value or value in (float("inf"), float("-inf")):
        return "\0NaN" if value != value else "\0Infinity" if value > 0 else "\0-Infinity"
    if narrow:
        packed = struct.pack("f", value) if abs(value) < 3.5e38 else b""
        for digits in range(6, 10):
            if packed and struct.pack("f", float(f"{value:.{digits}g}")) == packed \
                    and struct.unpack("f", packed)[0] == value:
                return Decimal(f"{value:.{digits}g}")
    return Decimal(repr(value))
