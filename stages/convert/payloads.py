"""Messages made of points: JSON, line protocol or MessagePack, one for each point (or each field). Pure.

JSON: `{"measurement":"m","tags":{"t":"x"},"fields":{"f":20.0,"i":20},"time":1700000000000000000}`; floats always have
a point or an exponent, integers never. Only line protocol tells unsigned (`20u`) from integer (`20i`). Tags and fields
are sorted; what a point does not have is left out.
"""

import json
from collections.abc import Callable

import msgspec
import xxhash
from msgspec import Struct

from pipeline.config.source_schema import Format
from pipeline.points import escape
from pipeline.points.fingerprints import Print
from pipeline.points.table import BadRow, Column, Row, Table, Value
from pipeline.printable import excerpt

#: Series whose beginnings are remembered for one set of columns.
MAX_SERIES = 200_000


class Payloads(Struct):
    """The messages of one page, in the order of its rows."""

    payloads: list[bytes] = []
    #: Of each, a hash of its series: measurement and tags.
    series: list[int] = []
    points: int = 0
    bad: list[BadRow] = []
    #: Points that were sent already, as they are.
    repeated: int = 0
    #: Of what is to be remembered.
    prints: list[Print] = []


class Dedupe(Struct, frozen=True):
    """What a page has in common with the past: rows before `seen_until` may have been sent, those in `known` were."""

    #: Nanoseconds since 1970.
    seen_until: int
    #: point -> content; see `fingerprints`.
    known: dict[int, int]
    #: Rows from this time on will be read again.
    remember_from: int


class Encoder:
    """Makes messages of one measurement's rows of one set of columns."""

    def __init__(self, measurement: str, columns: tuple[Column, ...], format_: Format, long: bool,
                 max_bytes: int) -> None:
        """`long`: a message for each field. A message of more than `max_bytes` is rejected."""
        self._max_bytes = max_bytes
        self._tags = sum(column.kind == "tag" for column in columns)
        tag_names = [column.name for column in columns[:self._tags]]
        fields = columns[self._tags:]
        self._heads: dict[Row, tuple[str, int]] = {}
        self._field_hashes = [xxhash.xxh64_intdigest(f"{field.name}\0{field.type}".encode()) for field in fields]
        make = {"json": _json, "line_protocol": _line, "msgpack": _msgpack}[format_]
        self._head, encode = make(measurement, tag_names, fields)
        self._encode = _each_field(encode, len(fields)) if long else _one(encode)
        self._long = long

    def encode(self, table: Table, dedupe: Dedupe | None, out: Payloads) -> None:
        """Adds the messages of a table's rows to `out`."""
        out.bad += table.bad
        tags_end, heads = self._tags + 1, self._heads
        for row in table.rows:
            tags = row[1:tags_end]
            try:
                head = heads.get(tags) or self._new_series(tags)
                made = self._encode(head[0], row[tags_end:], row[0])
            except Exception as error:  # whatever a row is, it costs itself
                out.bad.append(BadRow("bad_value", str(error), excerpt(str(row))))
                continue
            if made:
                out.points += 1
                if dedupe is None and max(map(len, made)) <= self._max_bytes:
                    out.payloads += made
                    out.series += [head[1]] * len(made)
                else:
                    self._add(out, made, head, row, dedupe)

    def _new_series(self, tags: Row) -> tuple[str, int]:
        """The beginning of a series' messages, and the hash that tells its partition."""
        if len(self._heads) >= MAX_SERIES:
            self._heads.clear()
        text = self._head(tags)
        head = self._heads[tags] = text, xxhash.xxh32_intdigest(text.encode())
        return head

    def _add(self, out: Payloads, made: list[bytes], head: tuple[str, int], row: Row, dedupe: Dedupe | None) -> None:
        """The long way: sizes are checked, and the past."""
        time = row[0]
        assert isinstance(time, int)
        values = row[self._tags + 1:]
        places = [index for index, value in enumerate(values) if value is not None] if self._long else [0]
        fresh = False
        for place, payload in zip(places, made, strict=True):
            if len(payload) > self._max_bytes:
                out.bad.append(BadRow("too_large", f"{len(payload)} bytes are more than max_message_bytes",
                                      excerpt(payload)))
                continue
            if dedupe is not None and (time < dedupe.seen_until or time >= dedupe.remember_from):
                which = f"{head[0]}\0{time}\0{self._field_hashes[place] if self._long else ''}"
                point, content = xxhash.xxh64_intdigest(which.encode()), \
                    xxhash.xxh64_intdigest(payload)
                if time < dedupe.seen_until and dedupe.known.get(point) == content:
                    continue
                if time >= dedupe.remember_from:
                    out.prints.append(Print(time, point, content))
            fresh = True
            out.payloads.append(payload)
            out.series.append(head[1])
        out.repeated += not fresh


#: (head, values, time) -> the message.
_Encode = Callable[[str, Row, Value], bytes | None]
_Made = tuple[Callable[[Row], str], _Encode]


def _one(encode: _Encode) -> Callable[[str, Row, Value], list[bytes]]:
    def one(head: str, values: Row, time: Value) -> list[bytes]:
        made = encode(head, values, time)
        return [made] if made is not None else []

    return one


def _each_field(encode: _Encode, fields: int) -> Callable[[str, Row, Value], list[bytes]]:
    def each(head: str, values: Row, time: Value) -> list[bytes]:
        out = []
        for index, value in enumerate(values):
            if value is not None:
                alone: list[Value] = [None] * fields
                alone[index] = value
                made = encode(head, tuple(alone), time)
                if made is not None:
                    out.append(made)
        return out

    return each


def _string(text: object) -> str:
    return json.dumps(text, ensure_ascii=False)


def _percent(text: str) -> str:
    """A text as part of a `%` template."""
    return text.replace("%", "%%")


def _one_of(true: str, false: str) -> Callable[[Value], str]:
    texts: dict[Value, str] = {True: true, False: false}
    return texts.__getitem__


def _json(measurement: str, tags: list[str], fields: tuple[Column, ...]) -> _Made:
    keys = [_string(name) + ":" for name in tags]
    start = f'{{"measurement":{_string(measurement)},"tags":{{'

    def head(values: Row) -> str:
        pairs = ",".join(key + _string(value) for key, value in zip(keys, values, strict=True) if value)
        return f'{start}{pairs}}},"fields":{{'

    formats = [_json_field(field) for field in fields]

    def encode(head: str, values: Row, time: Value) -> bytes | None:
        parts = ",".join([form(value) for form, value in zip(formats, values, strict=True) if value is not None])
        return f'{head}{parts}}},"time":{time}}}'.encode() if parts else None

    return head, encode


def _json_field(field: Column) -> Callable[[Value], str]:
    key = _percent(_string(field.name))
    if field.type == "float":
        return f"{key}:%r".__mod__
    if field.type == "boolean":
        return _one_of(f"{_string(field.name)}:true", f"{_string(field.name)}:false")
    if field.type == "string":
        name = _string(field.name)
        return lambda value: f"{name}:{_string(value)}"
    return f"{key}:%d".__mod__


def _line(measurement: str, tags: list[str], fields: tuple[Column, ...]) -> _Made:
    def head(values: Row) -> str:
        pairs = [f",{escape.tag_key(key)}={escape.tag_value(str(value))}"
                 for key, value in zip(tags, values, strict=True) if value]
        return f"{escape.measurement(measurement)}{''.join(pairs)} "

    formats = [_line_field(field) for field in fields]

    def encode(head: str, values: Row, time: Value) -> bytes | None:
        parts = ",".join([form(value) for form, value in zip(formats, values, strict=True) if value is not None])
        return f"{head}{parts} {time}".encode() if parts else None

    return head, encode


def _line_field(field: Column) -> Callable[[Value], str]:
    try:
        plain = escape.field_key(field.name)
    except escape.Unwritable as error:
        return _refusing(str(error))
    key = _percent(plain)
    if field.type == "float":
        return f"{key}=%r".__mod__
    if field.type == "boolean":
        return _one_of(f"{plain}=true", f"{plain}=false")
    if field.type == "string":
        return lambda value: f"{plain}={escape.string_field(str(value))}"
    return f"{key}=%d{'u' if field.type == 'unsigned' else 'i'}".__mod__


def _refusing(why: str) -> Callable[[Value], str]:
    def refuse(value: Value) -> str:
        raise ValueError(why)

    return refuse


def _msgpack(measurement: str, tags: list[str], fields: tuple[Column, ...]) -> _Made:
    """The head is JSON, and made MessagePack once for a series."""
    json_head, _ = _json(measurement, tags, fields)
    names = [field.name for field in fields]
    begun: dict[str, dict[str, object]] = {}
    pack = msgspec.msgpack.Encoder().encode

    def encode(head: str, values: Row, time: Value) -> bytes | None:
        present = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        if not present:
            return None
        start = begun.get(head)
        if start is None:
            if len(begun) >= MAX_SERIES:
                begun.clear()
            start = begun[head] = json.loads(head + "}}")
        return pack({**start, "fields": present, "time": time})

    return json_head, encode
