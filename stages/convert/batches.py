"""Encodes many rows at once, at a third of the cost of one by one in `payloads`, and with equal messages. Pure.

Rows that need care raise an exception, and are then encoded one by one.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import msgspec
from msgspec import Raw, Struct

from pipeline.config.source_schema import Format
from pipeline.points import escape
from pipeline.points.table import Column, Row, Value

#: Rows that are encoded at once; their texts are in memory together.
ROWS_AT_ONCE = 5_000

#: Messages, and for each the hash of its series.
Messages = tuple[list[bytes], list[int]]
#: Encodes rows. Any exception: they have to be encoded one by one.
EncodeRows = Callable[[Sequence[Row]], Messages]


class NeedsCare(Exception):
    """There is a row without fields, or a number that the format cannot hold, among these rows."""


class SeriesHead(Struct, frozen=True):
    """What all messages of a series have in common."""

    #: Beginning of the message, as far as it is text.
    prefix: str
    #: Hash of the series, which chooses the partition.
    hash: int
    #: The tags as an object of MessagePack for messages in it; otherwise of JSON.
    tags: Raw


class _Message(Struct, frozen=True, gc=False):
    """The object that a message is."""

    measurement: Raw
    tags: Raw
    fields: Any
    time: Value


def rows_encoder(measurement: str, tags: int, fields: tuple[Column, ...], format_: Format, long: bool,
                 head_of: Callable[[Row], SeriesHead]) -> EncodeRows | None:
    """An encoder for rows with so many `tags`; None if a field's name needs care. `long`: a message for each field."""
    try:
        if format_ == "line_protocol":
            return _Lines(tags, fields, long, head_of).encode
        return _Objects(measurement, tags, fields, format_, long, head_of).encode
    except ValueError:  # names that occur twice or need escapes; escape.Unwritable
        return None


class _Objects:
    """JSON, and MessagePack: a Struct has the fields, of which those that are None are left out."""

    def __init__(self, measurement: str, tags: int, fields: tuple[Column, ...], format_: Format, long: bool,
                 head_of: Callable[[Row], SeriesHead]) -> None:
        """Raises ValueError for names that a Struct cannot have."""
        self._start = tags + 1
        self._head_of = head_of
        names = [field.name for field in fields]
        groups = [[name] for name in names] if long else [names]
        self._fields = [_fields_struct(group) for group in groups]
        self._long = long
        in_json = format_ == "json"
        self._pack = _json_objects if in_json else _msgpack_objects
        encode = msgspec.json.encode if in_json else msgspec.msgpack.encode
        self._measurement = Raw(encode(measurement))

    def encode(self, rows: Sequence[Row]) -> Messages:
        head_of, start, measurement = self._head_of, self._start, self._measurement
        objects: list[_Message] = []
        hashes: list[int] = []
        if self._long:
            for row in rows:
                if row[start:].count(None) == len(self._fields):
                    raise NeedsCare
                head = head_of(row[1:start])
                for make, value in zip(self._fields, row[start:], strict=True):
                    if value is not None:
                        objects.append(_Message(measurement, head.tags, make(value), row[0]))
                        hashes.append(head.hash)
        else:
            make, = self._fields
            for row in rows:
                head = head_of(row[1:start])
                objects.append(_Message(measurement, head.tags, make(*row[start:]), row[0]))
                hashes.append(head.hash)
        return self._pack(objects), hashes


def _fields_struct(names: list[str]) -> Callable[..., Any]:
    """Raises ValueError for names that occur twice, or have quotes, backslashes or control characters."""
    attributes = [f"field_{number}" for number in range(len(names))]
    return msgspec.defstruct("Fields", [(attribute, Any, None) for attribute in attributes], omit_defaults=True,
                             rename=dict(zip(attributes, names, strict=True)), gc=False)


def _json_objects(objects: list[_Message]) -> list[bytes]:
    """JSON has no line break outside of escapes. Infinite numbers would become null."""
    lines = msgspec.json.Encoder().encode_lines(objects)
    if b'":null' in lines or b'"fields":{}' in lines:
        raise NeedsCare
    return lines.split(b"\n")[:-1]


def _msgpack_objects(objects: list[_Message]) -> list[bytes]:
    encode = msgspec.msgpack.Encoder().encode
    payloads = [encode(one) for one in objects]
    if any(b"\xa6fields\x80" in payload for payload in payloads):
        raise NeedsCare
    return payloads


class _Lines:
    """Line protocol, column by column."""

    def __init__(self, tags: int, fields: tuple[Column, ...], long: bool, head_of: Callable[[Row], SeriesHead]) -> None:
        """Raises Unwritable for a key that line protocol cannot hold."""
        self._tags = tags
        self._head_of = head_of
        self._pairs = [_pairs_of(field) for field in fields]
        self._long = long

    def encode(self, rows: Sequence[Row]) -> Messages:
        times, *columns = zip(*rows, strict=True)
        tags = zip(*columns[:self._tags], strict=True) if self._tags else repeat((), len(rows))
        heads = list(map(self._head_of, tags))
        pairs = [make(column) for make, column in zip(self._pairs, columns[self._tags:], strict=True)]
        fields = list(map("".join, zip(*pairs, strict=True)))
        if "" in fields:
            raise NeedsCare
        if self._long:
            made = [(f"{head.prefix}{pair[1:]} {time}".encode(), head.hash)
                    for head, time, own in zip(heads, times, zip(*pairs, strict=True), strict=True)
                    for pair in own if pair]
            return [payload for payload, _ in made], [key for _, key in made]
        payloads = [f"{head.prefix}{own[1:]} {time}".encode()
                    for head, own, time in zip(heads, fields, times, strict=True)]
        return payloads, [head.hash for head in heads]


def _pairs_of(field: Column) -> Callable[[Sequence[Value]], list[str]]:
    """Makes `,key=value` of each value of a column, and "" of None."""
    start = f",{escape.field_key(field.name)}="
    ending = {"integer": "i", "unsigned": "u"}.get(field.type, "")
    text_of = escape.string_field

    def texts(column: Sequence[Value]) -> list[str]:
        return ["" if value is None else f"{start}{text_of(str(value))}" for value in column]

    def numbers(column: Sequence[Value]) -> list[str]:
        lines = msgspec.json.Encoder().encode_lines(column).decode().split("\n")[:-1]
        nulls = lines.count("null")
        if nulls != column.count(None):  # infinite
            raise NeedsCare
        if nulls:
            return ["" if line == "null" else f"{start}{line}{ending}" for line in lines]
        return [f"{start}{line}{ending}" for line in lines]

    return texts if field.type == "string" else numbers
