"""A line as QuestDB reads it, with its error messages. Pure.

It differs from InfluxDB in much: a backslash escapes whatever stands behind it, also in tags and strings; a line break
in a string needs one; a slash, or two backslashes, may not stand in a name; several spaces are an error; a `#` begins
no comment; a line may have no fields. Source: questdb/questdb, `cutlass/line/tcp/LineTcpParser.java`;
tests/servers/test_sandbox_answers_against_questdb.py compares with the server. Independent of what the pipeline's own
encoder does: this is what judges it.

Left out: arrays, decimals and 256-bit integers, which are no valid field values here.
"""

import re
from typing import Literal, NamedTuple

#: Types of a value, as the server's messages name them.
Kind = Literal["TAG", "FLOAT", "INTEGER", "STRING", "BOOLEAN", "TIMESTAMP", "NULL"]
Value = str | float | int | bool | None

_STOP = re.compile(rb'[\\,= \n\r"\0/]')
_IN_STRING = re.compile(rb'[\\"\n]')
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?[0-9]+")
_LONGS = range(-(2**63), 2**63)
_UNITS = {"n": 1, "t": 1_000, "m": 1_000_000}


class Entity(NamedTuple):
    """A tag or field."""

    name: str
    kind: Kind
    value: Value
    #: Without its escapes.
    text: str


class Row(NamedTuple):
    """A line."""

    table: str
    entities: list[Entity]
    #: Its number and nanoseconds of one, where the line itself has the unit; None where it has no time.
    time: tuple[int, int | None] | None


class RowError(ValueError):
    """What is wrong with a line: the server's message after `error in line 1`."""


class _Reader:
    """Reads one line from a position of a body."""

    def __init__(self, body: bytes, position: int) -> None:
        self.body = body
        self.position = position
        self.table = ""
        self.entities: list[Entity] = []
        self.time: tuple[int, int | None] | None = None
        #: What is being read.
        self.part: Literal["table", "name", "value", "time"] = "table"
        self.tags_over = False
        self.name = ""
        self.text = bytearray()
        self.quoted = False

    def read(self) -> bool:
        """Reads to the line's end, and behind it. False where there is no line. Raises RowError."""
        while True:
            stop = _STOP.search(self.body, self.position)
            if stop is None:
                raise AssertionError("a body ends in a line break")
            self.text += self.body[self.position:stop.start()]
            self.position = stop.end()
            byte = stop.group()
            if byte == b"\\":
                self._escape()
            elif byte in b'"\0/':
                self._odd(byte)
            else:
                ended = self._end(b"\n" if byte == b"\r" else byte)
                if ended is not None:
                    return ended

    def _escape(self) -> None:
        escaped = self.body[self.position:self.position + 1]
        if escaped == b"\\" and self.part != "value":
            self._refuse(escaped)
        self.text += escaped
        self.position += 1

    def _odd(self, byte: bytes) -> None:
        if byte == b"\0" or byte == b"/" and self.part != "value" or byte == b'"' and self.quoted:
            self._refuse(byte)
        self.text += byte

    def _refuse(self, byte: bytes) -> None:
        if self.part == "table":
            raise RowError(": INVALID_TABLE_NAME")
        if self.part == "name":
            name = _shown(bytes(self.text) + byte)
            raise RowError(f": table: {self.table}; invalid column name: {name}")
        if self.part == "value":
            raise _invalid(self.name, "")
        raise RowError(": NONE")

    def _end(self, byte: bytes) -> bool | None:
        """At a comma, equals sign, space or line break. Not None at the line's end."""
        text, self.text = bytes(self.text), bytearray()
        if self.part == "table":
            if byte == b"\n" and not text:
                return False
            if byte not in b", ":
                raise RowError(": No fields were provided")
            self.table, self.part, self.tags_over = _shown(text), "name", byte == b" "
        elif self.part == "name":
            self._end_name(text, byte)
        elif self.part == "value":
            self._end_value(text, byte)
        else:
            self._end_time(text, byte)
        if byte != b"\n":
            return None
        if not self.entities:
            raise RowError(": No fields were provided")
        return True

    def _end_name(self, text: bytes, byte: bytes) -> None:
        if byte == b"=":
            if not text:
                raise RowError(f": INCOMPLETE_{'FIELD' if self.tags_over else 'TAG'}")
            self.name, self.part, self.quoted = _shown(text), "value", False
            if self.tags_over and self.body[self.position:self.position + 1] == b'"':
                self._string()
        elif not text and byte == b" ":
            if self.tags_over:
                self.part = "time"
            self.tags_over = True
        elif not text and byte == b"\n":
            pass
        elif self.tags_over and byte == b"\n" and self.entities and self.entities[-1].kind == "TAG":
            self._end_time(text, byte)
        else:
            kind = "Field" if self.tags_over else "Symbol"
            name = _shown(text) if text else self.name
            raise RowError(f": Could not parse entire line. {kind} value is missing: {name}")

    def _string(self) -> None:
        self.position += 1
        self.text += b'"'
        while True:
            stop = _IN_STRING.search(self.body, self.position)
            if stop is None or stop.group() == b"\n":
                raise _invalid(self.name, "")
            self.text += self.body[self.position:stop.start()]
            self.position = stop.end()
            if stop.group() == b'"':
                break
            self.text += self.body[self.position:self.position + 1]
            self.position += 1
        self.text += b'"'
        self.quoted = True

    def _end_value(self, text: bytes, byte: bytes) -> None:
        if byte == b"=":
            if not text and self.tags_over:
                raise RowError(": UNSUPPORTED_BINARY_FORMAT")
            raise RowError(": INVALID_FIELD_SEPARATOR")
        self.entities.append(_field(self.name, text) if self.tags_over else
                             Entity(self.name, "TAG", _shown(text), _shown(text)))
        self.part = "name"
        if byte == b" ":
            self.part = "time" if self.tags_over else "name"
            self.tags_over = True

    def _end_time(self, text: bytes, byte: bytes) -> None:
        if byte != b"\n":
            raise RowError(": INVALID_FIELD_SEPARATOR")
        if text:
            shown = _shown(text)
            unit = _UNITS.get(shown[-1])
            number = shown[:-1] if unit else shown
            if not _INTEGER.fullmatch(number) or int(number) not in _LONGS:
                raise RowError(f": Could not parse timestamp: {shown}")
            self.time = int(number), unit


def _field(name: str, text: bytes) -> Entity:
    shown = _shown(text)
    if not shown:
        return Entity(name, "NULL", None, "")
    last, rest = shown[-1], shown[:-1]
    if last == "i" and _INTEGER.fullmatch(rest) and int(rest) in _LONGS:
        return Entity(name, "INTEGER", int(rest), rest)
    if last in _UNITS and _INTEGER.fullmatch(rest) and int(rest) in _LONGS:
        return Entity(name, "TIMESTAMP", int(rest) * _UNITS[last] // 1_000, rest)
    if shown in ("t", "T", "f", "F") or shown.lower() in ("true", "false"):
        return Entity(name, "BOOLEAN", shown[0] in "tT", shown)
    if last == '"' and len(shown) > 1 and shown[0] == '"':
        return Entity(name, "STRING", shown[1:-1], shown[1:-1])
    if shown in ("NaN", "Infinity", "-Infinity", "+Infinity"):
        return Entity(name, "FLOAT", None, shown)
    if _FLOAT.fullmatch(shown) and abs(float(shown)) != float("inf"):
        return Entity(name, "FLOAT", float(shown), shown)
    raise _invalid(name, shown)


def _invalid(name: str, value: str) -> RowError:
    return RowError(f": Could not parse entire line, field value is invalid. Field: {name}; value: {value}")


def _shown(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def read_row(body: bytes, position: int) -> tuple[Row | None, int]:
    """The line of a body, which ends in a line break, that begins at `position`, and where the next one does.

    None for an empty line. Raises RowError.
    """
    reader = _Reader(body, position)
    found = reader.read()
    return Row(reader.table, reader.entities, reader.time) if found else None, reader.position
