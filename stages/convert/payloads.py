"""Encodes points as messages: JSON, line protocol or MessagePack, one for each point or each field. Pure.

JSON: `{"measurement":"m","tags":{"t":"x"},"fields":{"f":20.0,"i":20},"time":1700000000000000000}`; floats always have
a point or an exponent, integers never. Only line protocol distinguishes unsigned (`20u`) from integer (`20i`). Tags and
fields are sorted; missing ones are omitted.
"""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec
import xxhash
from msgspec import Struct

from pipeline.config.source_names import constant_tags, measurement_of
from pipeline.config.source_schema import Format, SourceConfig
from pipeline.points import escape
from pipeline.points.fingerprints import Fingerprint
from pipeline.points.table import BadRow, Column, Row, Table, Value
from pipeline.printable import excerpt
from stages.convert.batches import ROWS_AT_ONCE, SeriesHead, rows_encoder

NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})
#: Series whose message prefix is cached, for one measurement and set of columns.
MAX_SERIES = 200_000


class PageMessages(Struct):
    """The messages of one page, in the order of its rows."""

    payloads: list[bytes] = []
    #: For each message, the hash of its series (measurement and tags), which chooses the partition.
    series: list[int] = []
    points: int = 0
    bad: list[BadRow] = []
    #: Points omitted because they were sent before, unchanged.
    repeated: int = 0
    #: Of the points that later rounds will read again.
    fingerprints: list[Fingerprint] = []
    #: Rows, in an overlap only those that will not be read again.
    settled: int = 0


class Dedupe(Struct, frozen=True):
    """What earlier rounds sent of a page: rows before `seen_until` may have been sent, those in `known` were."""

    #: Nanoseconds since 1970.
    seen_until: int
    #: Point hash -> content hash; see `pipeline.points.fingerprints`.
    known: dict[int, int]
    #: Rows from this time on will be read again in the next round.
    remember_from: int

    def concerns_none_of(self, rows: list[Row]) -> bool:
        """Whether all rows are of a time that was never read and will not be read again."""
        times: list[int] = [row[0] for row in rows]  # type: ignore[misc]
        return min(times) >= self.seen_until and max(times) < self.remember_from


def encoder_of(config: SourceConfig, kept: str, columns: tuple[Column, ...]) -> "PointEncoder":
    """The encoder for the measurement that a source keeps as `kept`, with these columns."""
    output = config.output
    return PointEncoder(measurement_of(config, kept).name, columns, output.format, output.shape == "long",
                        output.max_message_bytes, constant_tags(config, kept))


class PointEncoder:
    """Encodes rows of one measurement with one set of columns."""

    def __init__(self, measurement: str, columns: tuple[Column, ...], format_: Format, long: bool,
                 max_bytes: int, constant_tags: Mapping[str, str] = NO_TAGS) -> None:
        """`long`: a message for each field. A message of more than `max_bytes` is rejected. `constant_tags` are those
        of points that have no such tag."""
        self._max_bytes = max_bytes
        self._tags = sum(column.kind == "tag" for column in columns)
        self._own_tags = [column.name for column in columns[:self._tags]]
        self._constant_tags = constant_tags
        self._tag_names = sorted({*self._own_tags, *constant_tags}) if constant_tags else self._own_tags
        fields = columns[self._tags:]
        self._heads: dict[Row, SeriesHead] = {}
        self._field_hashes = [xxhash.xxh64_intdigest(f"{field.name}\0{field.type}".encode()) for field in fields]
        make = {"json": _json, "line_protocol": _line, "msgpack": _msgpack}[format_]
        self._format = format_
        self._make_prefix, encode = make(measurement, self._tag_names, fields)
        self._encode = _each_field(encode, len(fields)) if long else _one(encode)
        self._encode_rows = rows_encoder(measurement, self._tags, fields, format_, long, self._head_of)
        self._long = long

    def encode(self, table: Table, dedupe: Dedupe | None, out: PageMessages) -> None:
        """Adds the messages of a table's rows to `out`."""
        out.bad += table.bad
        for at in range(0, len(table.rows), ROWS_AT_ONCE):
            rows = table.rows[at:at + ROWS_AT_ONCE]
            if not (dedupe is None or dedupe.concerns_none_of(rows)) or not self._add_all(rows, out):
                self._add_each(rows, dedupe, out)

    def _add_all(self, rows: list[Row], out: PageMessages) -> bool:
        """Adds the messages of rows at once. False if they need care, and none was added."""
        if self._encode_rows is None:
            return False
        try:
            payloads, hashes = self._encode_rows(rows)
        except Exception:  # of one of the rows, which `_add_each` finds
            return False
        if max(map(len, payloads), default=0) > self._max_bytes:
            return False
        out.points += len(rows)
        out.payloads += payloads
        out.series += hashes
        return True

    def _add_each(self, rows: list[Row], dedupe: Dedupe | None, out: PageMessages) -> None:
        """Adds the messages of rows one by one. A bad row does not fail the others."""
        tags_end = self._tags + 1
        for row in rows:
            try:
                head = self._head_of(row[1:tags_end])
                messages = self._encode(head.prefix, row[tags_end:], row[0])
            except Exception as error:
                out.bad.append(BadRow("bad_value", str(error), excerpt(str(row))))
                continue
            if messages:
                out.points += 1
                if dedupe is None and max(map(len, messages)) <= self._max_bytes:
                    out.payloads += messages
                    out.series += [head.hash] * len(messages)
                else:
                    self._add_checked(out, messages, head, row, dedupe)

    def _head_of(self, tags: Row) -> SeriesHead:
        """What the messages of a series have in common."""
        head = self._heads.get(tags)
        if head is None:
            if len(self._heads) >= MAX_SERIES:
                self._heads.clear()
            head = self._heads[tags] = self._new_head(tags)
        return head

    def _new_head(self, tags: Row) -> SeriesHead:
        values = tags
        if self._constant_tags:
            own = dict(zip(self._own_tags, tags, strict=True))
            values = tuple([own.get(name) or self._constant_tags.get(name) for name in self._tag_names])
        prefix = self._make_prefix(values)
        present = {name: value for name, value in zip(self._tag_names, values, strict=True) if value}
        encode = msgspec.msgpack.encode if self._format == "msgpack" else msgspec.json.encode
        return SeriesHead(prefix, xxhash.xxh32_intdigest(prefix.encode()), msgspec.Raw(encode(present)))

    def _add_checked(self, out: PageMessages, messages: list[bytes], head: SeriesHead, row: Row,
                     dedupe: Dedupe | None) -> None:
        """Adds a row's messages unless they are too large, or were sent before."""
        time = row[0]
        assert isinstance(time, int)
        values = row[self._tags + 1:]
        columns = [index for index, value in enumerate(values) if value is not None] if self._long else [0]
        fresh = False
        for column, payload in zip(columns, messages, strict=True):
            if len(payload) > self._max_bytes:
                out.bad.append(BadRow("too_large", f"{len(payload)} bytes are more than max_message_bytes",
                                      excerpt(payload)))
                continue
            if dedupe is not None and (time < dedupe.seen_until or time >= dedupe.remember_from):
                which = f"{head.prefix}\0{time}\0{self._field_hashes[column] if self._long else ''}"
                point, content = xxhash.xxh64_intdigest(which.encode()), \
                    xxhash.xxh64_intdigest(payload)
                if time < dedupe.seen_until and dedupe.known.get(point) == content:
                    continue
                if time >= dedupe.remember_from:
                    out.fingerprints.append(Fingerprint(time, point, content))
            fresh = True
            out.payloads.append(payload)
            out.series.append(head.hash)
        out.repeated += not fresh


#: (series prefix, field values, time) -> the message; None without fields.
_EncodeRow = Callable[[str, Row, Value], bytes | None]
_Codec = tuple[Callable[[Row], str], _EncodeRow]


def _one(encode: _EncodeRow) -> Callable[[str, Row, Value], list[bytes]]:
    def one(prefix: str, values: Row, time: Value) -> list[bytes]:
        messages = encode(prefix, values, time)
        return [messages] if messages is not None else []

    return one


def _each_field(encode: _EncodeRow, fields: int) -> Callable[[str, Row, Value], list[bytes]]:
    def each(prefix: str, values: Row, time: Value) -> list[bytes]:
        out = []
        for index, value in enumerate(values):
            if value is not None:
                alone: list[Value] = [None] * fields
                alone[index] = value
                messages = encode(prefix, tuple(alone), time)
                if messages is not None:
                    out.append(messages)
        return out

    return each


def _float(value: Value) -> str:
    """A float as JSON. Raises ValueError for one that is infinite, or not a number."""
    text = msgspec.json.encode(value).decode()
    if text == "null":
        raise ValueError(f"{value} is not a number that a message can hold")
    return text


def _string(text: object) -> str:
    return json.dumps(text, ensure_ascii=False)


def _percent(text: str) -> str:
    """Text escaped for a `%` template."""
    return text.replace("%", "%%")


def _one_of(true: str, false: str) -> Callable[[Value], str]:
    texts: dict[Value, str] = {True: true, False: false}
    return texts.__getitem__


def _json(measurement: str, tags: list[str], fields: tuple[Column, ...]) -> _Codec:
    keys = [_string(name) + ":" for name in tags]
    start = f'{{"measurement":{_string(measurement)},"tags":{{'

    def prefix(values: Row) -> str:
        pairs = ",".join(key + _string(value) for key, value in zip(keys, values, strict=True) if value)
        return f'{start}{pairs}}},"fields":{{'

    formats = [_json_field(field) for field in fields]

    def encode(prefix: str, values: Row, time: Value) -> bytes | None:
        parts = ",".join([form(value) for form, value in zip(formats, values, strict=True) if value is not None])
        return f'{prefix}{parts}}},"time":{time}}}'.encode() if parts else None

    return prefix, encode


def _json_field(field: Column) -> Callable[[Value], str]:
    key = _percent(_string(field.name))
    if field.type == "float":
        return lambda value: f"{_string(field.name)}:{_float(value)}"
    if field.type == "boolean":
        return _one_of(f"{_string(field.name)}:true", f"{_string(field.name)}:false")
    if field.type == "string":
        name = _string(field.name)
        return lambda value: f"{name}:{_string(value)}"
    return f"{key}:%d".__mod__


def _line(measurement: str, tags: list[str], fields: tuple[Column, ...]) -> _Codec:
    def prefix(values: Row) -> str:
        pairs = [f",{escape.tag_key(key)}={escape.tag_value(str(value))}"
                 for key, value in zip(tags, values, strict=True) if value]
        return f"{escape.measurement(measurement)}{''.join(pairs)} "

    formats = [_line_field(field) for field in fields]

    def encode(prefix: str, values: Row, time: Value) -> bytes | None:
        parts = ",".join([form(value) for form, value in zip(formats, values, strict=True) if value is not None])
        return f"{prefix}{parts} {time}".encode() if parts else None

    return prefix, encode


def _line_field(field: Column) -> Callable[[Value], str]:
    try:
        plain = escape.field_key(field.name)
    except escape.Unwritable as error:
        return _refusing(str(error))
    key = _percent(plain)
    if field.type == "float":
        return lambda value: f"{plain}={_float(value)}"
    if field.type == "boolean":
        return _one_of(f"{plain}=true", f"{plain}=false")
    if field.type == "string":
        return lambda value: f"{plain}={escape.string_field(str(value))}"
    return f"{key}=%d{'u' if field.type == 'unsigned' else 'i'}".__mod__


def _refusing(why: str) -> Callable[[Value], str]:
    def refuse(value: Value) -> str:
        raise ValueError(why)

    return refuse


def _msgpack(measurement: str, tags: list[str], fields: tuple[Column, ...]) -> _Codec:
    """MessagePack; the prefix is JSON, which is converted once for each series."""
    json_head, _ = _json(measurement, tags, fields)
    names = [field.name for field in fields]
    starts: dict[str, dict[str, object]] = {}
    pack = msgspec.msgpack.Encoder().encode

    def encode(prefix: str, values: Row, time: Value) -> bytes | None:
        present = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        if not present:
            return None
        start = starts.get(prefix)
        if start is None:
            if len(starts) >= MAX_SERIES:
                starts.clear()
            start = starts[prefix] = json.loads(prefix + "}}")
        return pack({**start, "fields": present, "time": time})

    return json_head, encode
