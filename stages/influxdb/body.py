"""Splits a write body into lines, and finds those that the server has refused. Pure."""

import re
from collections.abc import Sequence

_KEY = rb"[^=\n]++(?:(?<=\\)=[^=\n]*+)*+="
_VALUE = rb'(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^, \n"]++),?'
FIELD = re.compile(b"(" + _KEY + b")(" + _VALUE + b")", re.DOTALL)
#: A line as our encoders write it: a space or equals sign is a separator unless a backslash is before it; a string
#: field may contain line breaks.
LINE = re.compile(rb"([^ \n]++(?:(?<=\\) [^ \n]*+)*+ )((?:" + _KEY + _VALUE + rb")+)((?: -?[0-9]+)?\n)", re.DOTALL)
#: Around each line that InfluxDB 1 and 2 quote.
_QUOTE_BEGINS, _QUOTE_ENDS = b"unable to parse '", b"': "
_BACKSLASHES = re.compile(rb"\\\\+(?=(.))", re.DOTALL)


def doubled(body: bytes) -> bytes:
    """The same lines for InfluxDB 3 and VictoriaMetrics, which parse two backslashes in a name or tag as one.

    Source: influxdata/influxdb, `core/influxdb_line_protocol/src/lib.rs`, `escaped_value`.
    """
    return LINE.sub(_doubled_line, body)


def _doubled_line(match: re.Match[bytes]) -> bytes:
    if b"\\\\" not in match.group():
        return match.group()
    head, fields, time = match.groups()
    return _doubled_name(head) + FIELD.sub(lambda field: _doubled_name(field[1]) + field[2], fields) + time


def _doubled_name(text: bytes) -> bytes:
    """Doubles backslashes, except for one before a comma or equals sign, which is an escape."""
    return _BACKSLASHES.sub(lambda some: some[0] * 2 if some[1] not in b",=" else some[0][1:] * 2 + b"\\", text)


def split_lines(body: bytes, count: int) -> list[bytes]:
    """The `count` lines of a body, without their last line break. Raises ValueError if it has another number."""
    lines = body.removesuffix(b"\n").split(b"\n")
    if len(lines) != count:
        lines = [match.group()[:-1] for match in LINE.finditer(body)]
        if len(lines) != count or sum(map(len, lines)) + count != len(body):
            raise ValueError(f"a body of {count} lines has {len(lines)}")
    return lines


def quoted_lines(lines: Sequence[bytes], message: str) -> dict[int, str] | None:
    """Index and reason of the lines that a message quotes as `unable to parse '<line>': <why>`, one after the other.

    None if the message is not such a list of these lines, in their order; and if several lines were sent of which one
    contains what ends or begins a quote: quotes have no escapes, so the message is ambiguous then.
    """
    if len(lines) > 1 and any(_QUOTE_ENDS in line or _QUOTE_BEGINS in line for line in lines):
        return None
    quote, ends = _QUOTE_BEGINS.decode(), _QUOTE_ENDS.decode()
    if message.startswith("partial write: "):
        message = message.removeprefix("partial write: ").rpartition(" dropped=")[0]
    found: dict[int, str] = {}
    at, index = 0, -1
    while message.startswith(quote, at):
        at += len(quote)
        end = message.find(ends, at) if len(lines) > 1 else message.rfind(ends, at)
        # Spaces before a line are not quoted. Source: influxdata/influxdb 1.x, `models.skipWhitespace`.
        index = next((i for i in range(index + 1, len(lines))
                      if lines[i].lstrip(b" \t\0").decode("utf-8", "replace") == message[at:end]), -1)
        if end < 0 or index < 0:
            return None
        at = message.find(f"\n{quote}", end) + 1 or len(message)
        found[index] = message[end + len(ends):at].strip()
    return found if found and at == len(message) else None


def listed_lines(lines: Sequence[bytes], listed: Sequence[tuple[int, str, str]]) -> dict[int, str] | None:
    """Index and reason of the lines that an answer lists by number, from 1, and text. None if one is not found.

    InfluxDB 3 truncates the text, formats the line again, or quotes another line after a string with line breaks: so
    the text is used only if there is no line of that number.
    """
    by_number: dict[int, str] = {}
    by_text: dict[bytes, str] = {}
    for number, text, why in listed:
        if 1 <= number <= len(lines):
            by_number[number - 1] = why
        else:
            by_text[text.encode()] = why
    same = {index: by_text[line] for index, line in enumerate(lines) if line in by_text} if by_text else {}
    if len({lines[index] for index in same}) < len(by_text):
        return None
    return by_number | same
