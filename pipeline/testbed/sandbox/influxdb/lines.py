"""A line of line protocol taken apart, as strictly as the real servers do it, with their error messages. Pure.

Independent of what the pipeline's own encoder does: this is what judges it. Sources: "Line protocol", InfluxDB OSS v2
reference; where that is silent, what InfluxDB 1.6.7 does (tests/servers/test_sandbox_lines_against_influxdb1.py).

Lines are `str`, decoded from UTF-8 with `surrogateescape`, so that bytes that are no UTF-8 keep their identity.
"""

import math
import re
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

FieldValue = float | int | str | bool
FieldType = Literal["float", "integer", "unsigned", "string", "boolean"]

#: Nanoseconds since 1970: int64 without its two lowest values and its highest, which the storage keeps for itself.
MIN_TIME, MAX_TIME = -(2**63) + 2, 2**63 - 2
#: Longest measurement + tags + field key, bytes, with the 4 that the storage puts between them.
MAX_KEY_BYTES = 65_535
_FIELD_KEY_SEPARATOR_BYTES = 4

TIME_OUT_OF_RANGE = f"time outside range {MIN_TIME} - {MAX_TIME}"
#: What may stand before a measurement, the fields and the time, beside the one space that separates them.
_BLANKS = " \t\0"
_TRUE, _FALSE = ("t", "T", "true", "True", "TRUE"), ("f", "F", "false", "False", "FALSE")

_KEY_MARK = re.compile(r"(?<!\\)[, ]")
_TAG_MARK = re.compile(r"(?<!\\)[,= ]")
_FIELD_MARK = re.compile(r'[\\"=, ]')
_VALUE_END = re.compile(r"[, ]|$")
_EQUALS = re.compile(r"(?<!\\)=")
#: A field's value with all its quoted parts, up to the comma after it.
_VALUE = re.compile(r'(?:\\["\\]|"(?:\\["\\]|[^"])*(?:"|$)|[^",])*')
_TAG_ESCAPE = re.compile(r"\\([,= ])")
_NAME_ESCAPE = re.compile(r'\\([,"= ])')
_STRING_ESCAPE = re.compile(r'\\(["\\])')
_TIME = re.compile(r"-?[0-9]*")
_INTEGER, _UNSIGNED = re.compile(r"-?[0-9]+i"), re.compile(r"[0-9]+u")
_DECIMAL = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
#: What the servers take for an attempt at an exponent; anything else is no number at all.
_EXPONENT_LIKE = re.compile(r"-?(?:[0-9.]|[eE][+-]?)+")
_LINE_MARK = re.compile(rb'[\\ =,"\n]')


class LineError(ValueError):
    """What is wrong with a line: the servers' message without the line itself."""


class Point(Struct, frozen=True):
    """A line's content. `tags` are sorted by key; `types` has the type of each of `fields`."""

    measurement: str
    tags: tuple[tuple[str, str], ...]
    fields: dict[str, FieldValue]
    types: dict[str, FieldType]
    #: Nanoseconds since 1970; None when the line has none.
    time: int | None


def parse_line(line: str, unit: int = 1, unsigned: bool = True) -> Point:
    """The point in `line`, which is neither blank nor a comment. Raises LineError.

    `unit`: nanoseconds that the line's time counts in. `unsigned`: whether `1u` is a number; InfluxDB 1 has it not.
    """
    line = line.lstrip(_BLANKS)
    key_end, measurement, tags = _parse_key(line)
    start = _skip_blanks(line, key_end)
    fields_end = _check_fields(line, start, unsigned)
    parts = split_fields(line[start:fields_end])
    key_bytes = _size(line[:key_end]) + _FIELD_KEY_SEPARATOR_BYTES
    for key, _ in parts:
        if key_bytes + _size(key) > MAX_KEY_BYTES:
            raise LineError(f"max key length exceeded: {key_bytes + _size(key)} > {MAX_KEY_BYTES}")
    fields, types = typed_fields(parts)
    return Point(measurement, tags, fields, types, _parse_time(line, fields_end, unit))


def check_tags(point: Point, reserved: frozenset[str]) -> None:
    """Raises LineError for a point with one of these tags."""
    for key, _ in point.tags:
        if key in reserved:
            raise LineError(f'cannot use reserved tag key "{key}"')


def parse_lines(body: bytes, unit: int = 1, unsigned: bool = True) -> Iterator[tuple[str, Point | LineError]]:
    """Each line of `body`, without leading blanks, and its point or error. Blank lines and comments are left out."""
    position = 0
    while position < len(body):
        end = line_end(body, position)
        line = content(body[position:end])
        position = end + 1
        if line is not None:
            try:
                yield line, parse_line(line, unit, unsigned)
            except LineError as error:
                yield line, error


def content(raw: bytes) -> str | None:
    """A line as text without leading blanks, or None when it is blank or a comment.

    A newline at its end, which only an open quote or a backslash can leave there, isn't part of it.
    """
    line = raw.removesuffix(b"\n").decode("utf-8", "surrogateescape").lstrip(_BLANKS)
    return line if line and line[0] != "#" else None


def line_end(body: bytes, start: int) -> int:
    """Where the line that begins at `start` ends: at its newline, or at the body's end.

    A newline inside a quoted string, or after a backslash, belongs to the line.
    """
    position, in_fields, quoted, equals, commas = start, False, False, 0, 0
    while (mark := _LINE_MARK.search(body, position)) is not None:
        position, byte = mark.start(), mark.group()
        if byte == b"\\":
            position += 2
            continue
        if byte == b"\n":
            if not quoted:
                return position
        elif byte == b" ":
            in_fields = True
        elif in_fields and byte == b'"':
            quoted ^= equals > commas
        elif in_fields and not quoted:
            equals += byte == b"="
            commas += byte == b","
        position += 1
    return len(body)


def split_fields(text: str) -> list[tuple[str, str]]:
    """The fields of a line: keys and values as they are written, in their order.

    Raises LineError for `f\\\\=1`: the servers' check takes the backslash for escaped, their reading doesn't.
    """
    parts = []
    position = 0
    while position < len(text):
        equals = _EQUALS.search(text, position)
        if equals is None or equals.end() == len(text):
            raise LineError(f"invalid value: field-key={text[position:equals.start() if equals else None]}")
        value = _VALUE.match(text, equals.end())
        assert value is not None
        if value.group():
            parts.append((text[position:equals.start()], value.group()))
        position = value.end() + 1
    return parts


def typed_fields(parts: list[tuple[str, str]]) -> tuple[dict[str, FieldValue], dict[str, FieldType]]:
    """Values and types of `split_fields`; of a key that is there twice, the last."""
    return typed_values([(_NAME_ESCAPE.sub(r"\1", key) if "\\" in key else key, raw) for key, raw in parts])


def typed_values(parts: list[tuple[str, str]]) -> tuple[dict[str, FieldValue], dict[str, FieldType]]:
    """The same for keys without their escapes."""
    fields: dict[str, FieldValue] = {}
    types: dict[str, FieldType] = {}
    for key, raw in parts:
        fields[key], types[key] = typed(raw)
    return fields, types


def escaped_key(measurement: str, tags: tuple[tuple[str, str], ...]) -> str:
    """Measurement and tags as the servers print a series in their messages."""
    return ",".join([re.sub(r"([, ])", r"\\\1", measurement),
                     *("=".join(re.sub(r"([,= ])", r"\\\1", part) for part in tag) for tag in tags)])


def _parse_key(line: str) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    """Where measurement and tags end, and what they are."""
    if not line or line[0] == ",":
        raise LineError("missing measurement")
    mark = _KEY_MARK.search(line, 1)
    if mark is None:
        raise LineError("missing fields")
    measurement = _NAME_ESCAPE.sub(r"\1", line[:mark.start()])
    tags: dict[str, str] = {}
    while mark.group() == ",":
        start = mark.end()
        if start >= len(line) or line[start] in " ,=":
            raise LineError("missing tag key")
        equals = _TAG_MARK.search(line, start + 1)
        if equals is None or equals.group() != "=":
            raise LineError("missing tag value")
        value = equals.end()
        if value >= len(line) or line[value] in " ,":
            raise LineError("missing tag value")
        mark = _TAG_MARK.search(line, value + 1)
        if mark is None:
            raise LineError("missing fields")
        if mark.group() == "=":
            raise LineError("invalid tag format")
        key = line[start:equals.start()]
        if key in tags:
            tags[""] = key
        else:
            tags[key] = line[value:mark.start()]
    if "" in tags:
        raise LineError("duplicate tags")
    if _size(line[:mark.start()]) > MAX_KEY_BYTES:
        raise LineError(f"max key length exceeded: {_size(line[:mark.start()])} > {MAX_KEY_BYTES}")
    unescaped = ((_TAG_ESCAPE.sub(r"\1", key), _TAG_ESCAPE.sub(r"\1", text)) for key, text in tags.items())
    return mark.start(), measurement, tuple(sorted(unescaped))


def _check_fields(line: str, start: int, unsigned: bool) -> int:
    """Where the fields that begin at `start` end. Raises LineError when they are malformed."""
    position, quoted, equals, commas = start, False, 0, 0
    while True:
        mark = _FIELD_MARK.search(line, position)
        if mark is None:
            position = len(line)
            break
        position, character = mark.start(), mark.group()
        if character == "\\":
            position += 2
        elif character == '"':
            quoted ^= equals > commas
            position += 1
        elif quoted:
            position += 1
        elif character == "=":
            equals += 1
            position = _check_value(line, position, unsigned)
        elif character == ",":
            commas += 1
            position += 1
        else:
            break
    if quoted:
        raise LineError("unbalanced quotes")
    if equals == 0 or commas != equals - 1:
        raise LineError("invalid field format")
    return min(position, len(line))


def _check_value(line: str, equals: int, unsigned: bool) -> int:
    """Checks the value after the `=` at `equals`; returns its end, or where it begins when it is a string."""
    if line[equals - 1] in " ," and line[equals - 2] != "\\":
        raise LineError("missing field key")
    start = equals + 1
    if start >= len(line) or line[start] in " ,":
        raise LineError("missing field value")
    if line[start] == '"':
        return start
    end = _VALUE_END.search(line, start)
    assert end is not None
    raw = line[start:end.start()]
    if raw[0] in "0123456789.-Nn":
        _check_number(raw, unsigned)
    elif raw not in _TRUE and raw not in _FALSE:
        raise LineError("invalid boolean")
    return end.start()


def _check_number(raw: str, unsigned: bool) -> None:
    """Raises LineError unless `raw` is a number that its type can hold."""
    if _INTEGER.fullmatch(raw):
        if not -(2**63) <= int(raw[:-1]) < 2**63:
            raise LineError(f'unable to parse integer {raw[:-1]}: strconv.ParseInt: parsing "{raw[:-1]}": '
                            "value out of range")
    elif unsigned and _UNSIGNED.fullmatch(raw):
        if int(raw[:-1]) >= 2**64:
            raise LineError(f'unable to parse unsigned {raw[:-1]}: strconv.ParseUint: parsing "{raw[:-1]}": '
                            "value out of range")
    elif _DECIMAL.fullmatch(raw):
        if math.isinf(float(raw)):
            raise LineError("invalid float")
    elif "e" in raw.lower() and raw.count(".") <= 1 and _EXPONENT_LIKE.fullmatch(raw):
        raise LineError("invalid float")
    else:
        raise LineError("invalid number")


def typed(raw: str) -> tuple[FieldValue, FieldType]:
    """The value and type of a field's value that was found good."""
    if raw[0] == '"':
        if raw[-1] == '"' and "\\" not in raw:
            return raw[1:-1], "string"
        inside = raw.encode("utf-8", "surrogateescape")[1:-1]  # one byte off each end, whatever the last one is
        return _STRING_ESCAPE.sub(r"\1", inside.decode("utf-8", "surrogateescape")), "string"
    if raw[0] in "0123456789.-":
        if raw[-1] == "i":
            return int(raw[:-1]), "integer"
        if raw[-1] == "u":
            return int(raw[:-1]), "unsigned"
        return float(raw), "float"
    return raw in _TRUE, "boolean"


def _parse_time(line: str, start: int, unit: int) -> int | None:
    start = _skip_blanks(line, start)
    match = _TIME.match(line, start)
    assert match is not None
    raw, end = match.group(), match.end()
    if end < len(line) and line[end] not in "\n ":
        raise LineError("bad timestamp")
    if not raw:
        return None
    if raw == "-":
        raise LineError('strconv.ParseInt: parsing "-": invalid syntax')
    if not -(2**63) <= int(raw) < 2**63:
        raise LineError(f'strconv.ParseInt: parsing "{raw}": value out of range')
    time = int(raw) * unit
    if not MIN_TIME <= time <= MAX_TIME:
        raise LineError(TIME_OUT_OF_RANGE)
    if line[end:].strip(" "):
        raise LineError("point is invalid")
    return time


def _skip_blanks(line: str, start: int) -> int:
    return len(line) - len(line[start:].lstrip(_BLANKS))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
