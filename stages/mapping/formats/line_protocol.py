"""`format = "line_protocol"`: checks lines, sorts their tags and converts their times; the rest passes through.

Source: InfluxDB line protocol reference. Stricter than some servers: a line that only some of them accept is rejected.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from pipeline.config.schema import Precision
from pipeline.points import escape
from stages.mapping.formats.line_cache import KnownLine, KnownLines
from stages.mapping.limits import Limits
from stages.mapping.records import timestamps
from stages.mapping.records.series import SHORT_CHARS
from stages.mapping.records.values import I64, U64, is_infinite
from stages.mapping.reject import Reject, shown


def _name(first: str, plain: str, escapes: str) -> str:
    """Pattern of a name: its first character, characters without a backslash, and sequences with backslashes."""
    return rf"(?:{first}|{escapes}){plain}*+(?:(?:{escapes}){plain}*+)*+"


# With several backslashes before a comma, space or equals sign, InfluxDB 1 and 2 disagree on whether the last one is an
# escape. In a tag it is, unless a space follows; elsewhere such a name is rejected.
_MEASUREMENT: Final = _name(r"[^#, \t\n\r\x00\\]", r"[^, \n\r\x00\\]", r'\\[, ]|\\++[^,= "\n\r\x00\\]')
_TAG_PART: Final = _name(r"[^,= \t\n\r\x00\\]", r"[^,= \n\r\x00\\]", r"\\ |\\++[^ \n\r\x00\\]")
_FIELD_KEY: Final = _name(r"[^,= \t\n\r\x00\\]", r"[^,= \n\r\x00\\]", r'\\[,= ]|\\++[^,= "\n\r\x00\\]')
_STRING: Final = r'"[^"\\\x00]*+(?:\\[^\x00][^"\\\x00]*+)*+"'
_VALUE: Final = rf'(?:{_STRING}|[^," \n\r\x00]++)'
_LINE: Final = re.compile(
    rf"[ \t]*(?P<head>{_MEASUREMENT}(?:,{_TAG_PART}={_TAG_PART})*+)[ ]++"
    rf"(?P<fields>{_FIELD_KEY}={_VALUE}(?:,{_FIELD_KEY}={_VALUE})*+)(?:[ ]++(?P<time>-?[0-9]++))?[ \t]*\r?(?:\n|\Z)",
    re.DOTALL)
_HEAD: Final = re.compile(rf"({_MEASUREMENT})((?:,{_TAG_PART}={_TAG_PART})*)", re.DOTALL)
_TAG: Final = re.compile(rf",({_TAG_PART})=({_TAG_PART})", re.DOTALL)
_FIELD: Final = re.compile(rf"({_FIELD_KEY}=)({_VALUE}),?", re.DOTALL)
#: The end of a field that is followed by another.
_COMMA: Final = re.compile(rf'=(?:{_STRING}|[^," \n\r\x00]++),', re.DOTALL)
_FLOAT: Final = re.compile(r"-?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?+")
_INTEGER: Final = re.compile(r"(-?[0-9]++)([iu])")
_BOOLEANS: Final = {**dict.fromkeys(("t", "T", "true", "True", "TRUE"), "true"),
                    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), "false")}


#: Longest text of a time or an integer that is parsed.
_MAX_TIME_CHARS: Final = 25
#: Longest series of a line that is cached: all of them take at most 20 MB.
_REMEMBERED_CHARS: Final = 500
#: Longest text of a float that is certainly in range without an exponent.
_SAFE_NUMBER_CHARS: Final = 300


class PassedHead(NamedTuple):
    """Measurement and tags of a line, still escaped."""

    #: As received.
    came: str
    measurement: str
    #: key, without its escapes -> `,key=value`.
    tags: dict[str, str]
    #: Both, the tags sorted by key.
    text: str


class PassedLine(NamedTuple):
    """A line of a payload, still escaped."""

    head: PassedHead
    #: `key=` -> value.
    fields: dict[str, str]
    #: In the precision written; None where the line has none.
    time: int | None
    #: A field key that occurs twice with different values, or "".
    twice: str = ""


def lines(payload: bytes, given: Precision, written: Precision, limits: Limits,
          known: KnownLines | None = None) -> Iterator[tuple[int, PassedLine | KnownLine | Reject]]:
    """Yields the start of each line of a payload and the line, or its Reject; converts times from `given` to `written`.

    Lines that match a pattern in `known` are yielded as KnownLine. Raises Reject if the payload is not UTF-8 text.
    """
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Reject("not_line_protocol", str(error)) from None
    at = 0
    while at < len(text):
        begin = at
        if known is not None and (found := known.find(text, at)) is not None:
            at = found.end
            yield begin, found
            continue
        match = _LINE.match(text, at)
        if match is not None:
            at = match.end()
            try:
                yield begin, _passed(match, given, written, limits)
            except (Reject, escape.Unwritable, timestamps.BadTimestamp) as error:
                yield begin, error if isinstance(error, Reject) else Reject(_reason(error), str(error))
            continue
        at = text.find("\n", at) + 1 or len(text)
        line = text[begin:at].strip()
        if line and not line.startswith("#"):
            yield begin, Reject("not_line_protocol", f"cannot be parsed: {shown(line)}")


def _reason(error: Exception) -> str:
    return "bad_timestamp" if isinstance(error, timestamps.BadTimestamp) else "unwritable"


def _head(text: str) -> PassedHead:
    """The series of a line, cached if it is short, since series repeat. Raises Reject and Unwritable."""
    return _short_head(text) if len(text) <= _REMEMBERED_CHARS else _any_head(text)


@lru_cache(maxsize=5_000)
def _short_head(text: str) -> PassedHead:
    return _any_head(text)


def _any_head(text: str) -> PassedHead:
    match = _HEAD.fullmatch(text)
    if match is None:
        raise Reject("not_line_protocol", f"cannot be parsed: {shown(text)}")
    pairs: list[tuple[str, str]] = _TAG.findall(match[2])
    tags = {escape.unescaped(key): f",{key}={value}" for key, value in pairs}
    if len(tags) < len(pairs):
        raise Reject("unwritable", "a tag key occurs twice")
    if "time" in tags:
        raise Reject("unwritable", "a tag key is time, which InfluxDB reserves")
    return PassedHead(text, match[1], tags, match[1] + "".join([tags[key] for key in sorted(tags)]))


def _passed(match: re.Match[str], given: Precision, written: Precision, limits: Limits) -> PassedLine:
    text, field_set, time = match.groups()
    if len(text) > SHORT_CHARS:
        escape.check_key(text, "f=")
    head = _head(text)
    if field_set.count(",") >= limits.keys:
        limits.check_keys(len(_COMMA.findall(field_set)) + 1)
    pairs = [(lead, _value(lead, value)) for lead, value in _FIELD.findall(field_set)]
    fields = dict(pairs)
    twice = "" if len(fields) == len(pairs) else next((lead[:-1] for lead, value in pairs if fields[lead] != value), "")
    if "time=" in fields:
        raise Reject("unwritable", "a field key is time, which InfluxDB reserves")
    if len(text) + len(field_set) > SHORT_CHARS:
        escape.check_key(text, max(fields, key=lambda lead: len(lead.encode())))
    if time is None:
        return PassedLine(head, fields, None, twice)
    if len(time) > _MAX_TIME_CHARS:
        raise Reject("bad_timestamp", "time out of range")
    ns = timestamps.check_range(int(time) * timestamps.UNIT_NS[given])
    return PassedLine(head, fields, timestamps.to_precision(ns, written), twice)


def _value(lead: str, value: str) -> str:
    """A field's value; booleans in their long form. Raises Reject."""
    if value[0] == '"':
        return value
    if _FLOAT.fullmatch(value):
        if (len(value) > _SAFE_NUMBER_CHARS or "e" in value or "E" in value) and is_infinite(value):
            raise Reject("bad_field", f"{lead}{shown(value)}: out of a float's range")
        return value
    if value in _BOOLEANS:
        return _BOOLEANS[value]
    integer = _INTEGER.fullmatch(value)
    if integer is None:
        raise Reject("bad_field", f"{lead}{shown(value)}: not a number, boolean or quoted string")
    if len(value) < _MAX_TIME_CHARS and int(integer[1]) in (I64 if integer[2] == "i" else U64):
        return value
    raise Reject("bad_field", f"{lead}{shown(value)}: out of a 64-bit integer's range")
