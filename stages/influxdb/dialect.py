"""Converts lines, which the encoder writes for InfluxDB 1 and 2, to the dialects of other servers. Pure.

Sources: recorded answers of QuestDB 9.3.4 and of VictoriaMetrics 1.79 and 1.151; questdb/questdb,
`cutlass/line/tcp/LineTcpParser.java`; VictoriaMetrics, `lib/protoparser/influx/parser.go`.
"""

import re
from typing import Literal

from stages.influxdb.body import FIELD, LINE, doubled

#: How a server parses lines. "influxdb3": two backslashes in a name or tag are one. "victoria_metrics": the same, and
#: no line break in a string. "questdb": every backslash escapes the next character, and a line break must be escaped.
Dialect = Literal["influxdb", "influxdb3", "victoria_metrics", "questdb"]

#: Backslashes in a name or tag, and the next character.
_RUN = re.compile(rb"\\++(.)", re.DOTALL)
#: In a string: an escape that every server knows, a literal backslash, or a line break.
_IN_STRING = re.compile(rb'\\["\\]|\\|\n', re.DOTALL)
#: Names of a line without backslashes and quotes.
_NAMES = re.compile(rb"[ ,]([^ ,=]+)=")
_TAG_NAME = re.compile(rb",((?:[^,= \\]|\\.)+)=(?:[^,= \\]|\\.)*")
#: QuestDB stores a LONG of this value as NULL.
_LEAST_LONG = b"-9223372036854775808i"


def adapt(body: bytes, dialect: Dialect) -> bytes:
    """The same points in that dialect; the same object if nothing differs."""
    if dialect == "questdb":
        return LINE.sub(_for_questdb, body) if b"\\" in body or b'"' in body else body
    if dialect == "victoria_metrics":
        body = LINE.sub(_without_breaks, body) if b'"' in body else body
    return doubled(body) if dialect != "influxdb" and b"\\\\" in body else body


def _for_questdb(match: re.Match[bytes]) -> bytes:
    head, fields, time = match.groups()
    line = match.group()
    if b"\\" not in line and b"\n" not in fields:
        return line
    return _escaped(head) + FIELD.sub(lambda field: _escaped(field[1]) + _string(field[2], b"\\\n"), fields) + time


def _escaped(text: bytes) -> bytes:
    """A name or tag with every backslash doubled, except the one before a comma, space or equals sign."""
    if b"\\" not in text:
        return text

    def more(run: re.Match[bytes]) -> bytes:
        count = len(run[0]) - 1
        return b"\\" * (2 * count - 1 if run[1] in b",= " else 2 * count) + run[1]

    return _RUN.sub(more, text)


def _string(value: bytes, line_break: bytes) -> bytes:
    """A field's value and what follows it, with line breaks replaced and literal backslashes doubled."""
    if not value.startswith(b'"'):
        return value
    replaced = {b"\n": line_break, b"\\": b"\\\\"}
    return _IN_STRING.sub(lambda part: replaced.get(part[0], part[0]), value)


def _without_breaks(match: re.Match[bytes]) -> bytes:
    """A line whose line breaks in strings are replaced by `\\n`: VictoriaMetrics stores a string as 0 anyway."""
    head, fields, time = match.groups()
    if b"\n" not in fields:
        return match.group()
    return head + FIELD.sub(lambda field: field[1] + _string(field[2], b"\\\\n"), fields) + time


class ColumnCheck:
    """Finds lines of which QuestDB would silently lose a part. Caches the sets of names that were found good."""

    #: Most sets of names in the cache.
    MAX_CACHED = 10_000

    def __init__(self) -> None:
        self._good: set[tuple[bytes, ...]] = set()

    def problem(self, line: bytes) -> str:
        """What QuestDB would lose of a line; "" if nothing.

        Tags and fields are columns of one table, whose names are case-insensitive: of two of the same name QuestDB
        ignores the second. The least integer becomes NULL.
        """
        names = self._names(line)
        if _LEAST_LONG in line and any(field[2].startswith(_LEAST_LONG) for field in _fields(line)):
            return "QuestDB stores the integer -9223372036854775808 as NULL"
        if names in self._good:
            return ""
        columns: dict[str, str] = {}
        for text in [name.decode("utf-8", "replace") for name in names]:
            other = columns.get(folded := _folded(text))
            if other == text:
                return f"QuestDB has one column for the tag and the field {text}: it would ignore the field"
            if other is not None:
                return f"QuestDB has one column for {other} and {text}: it would ignore one of them"
            columns[folded] = text
        if len(self._good) >= self.MAX_CACHED:
            self._good.clear()
        self._good.add(names)
        return ""

    def _names(self, line: bytes) -> tuple[bytes, ...]:
        if b'"' not in line and b"\\" not in line:
            return tuple(_NAMES.findall(line))
        match = LINE.match(line + b"\n")
        if match is None:
            return ()
        return (*_TAG_NAME.findall(match[1].rstrip(b" ")), *[field[1].removesuffix(b"=") for field in _fields(line)])


def _folded(name: str) -> str:
    """A name as QuestDB compares it: each character of the Basic Multilingual Plane in lower case."""
    return name.lower() if name.isascii() else "".join([one.lower()[0] if one <= "\uffff" else one for one in name])


def _fields(line: bytes) -> list[re.Match[bytes]]:
    match = LINE.match(line + b"\n")
    return list(FIELD.finditer(match[2])) if match else []
