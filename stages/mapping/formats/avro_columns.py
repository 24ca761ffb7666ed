"""Avro records of one schema, read many at once, column by column. Pure.

From the schema comes one pattern of bytes for a whole record: a number is its bytes, a text one of the lengths that
were met. Records lie one behind the other, and one search finds the parts of all of them.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from stages.mapping.formats import each
from stages.mapping.formats.avro_measure import read_long
from stages.mapping.formats.column_texts import Columns, not_finite, number_texts, value_texts
from stages.mapping.reject import Reject

#: Columns of a schema, at most.
_MOST_COLUMNS: Final = 256
#: Lengths of the texts of one column that the pattern has, at most, and how often it is made anew.
_MOST_LENGTHS: Final = 64
_MOST_PATTERNS: Final = 40
#: Records that are looked at to learn the lengths of their texts.
_LEARNED_FROM: Final = 50
#: Bytes of a number, at most: one with more is read by the usual reader.
_LONG_BYTES: Final = 9
_INTEGER: Final = rb"[\x80-\xff]{0,%d}[\x00-\x7f]" % (_LONG_BYTES - 1)
_SINGLE: Final = frozenset(("null", "boolean", "int", "long", "float", "double", "string"))
#: What is escaped in JSON.
_ESCAPED: Final = bytes(range(0x20)) + b'"\\'
_FIXED: Final = {"float": (4, "f"), "double": (8, "d")}


class _Column(NamedTuple):
    """A column of the schema."""

    path: tuple[str, ...]
    #: "null", "boolean", "int", "long", "float", "double", "string" or "enum".
    kind: str
    #: Where it may be null: which of the two branches that is.
    null: int | None = None
    symbols: tuple[str, ...] = ()


class AvroColumns:
    """Reads the records of one schema. Not thread-safe: it learns the lengths of texts."""

    def __init__(self, columns: Sequence[_Column]) -> None:
        self._columns = columns
        self._lengths: list[set[int]] = [set() for _ in columns]
        self._patterns_left = _MOST_PATTERNS
        self._paths = tuple([column.path for column in columns])
        #: Neighbours that are floats of one size are one part of the pattern: the columns of each part.
        self._parts: list[list[int]] = []
        for number, column in enumerate(columns):
            if self._parts and column.kind in _FIXED and column.null is None and (
                    (last := columns[self._parts[-1][0]]).kind == column.kind and last.null is None):
                self._parts[-1].append(number)
            else:
                self._parts.append([number])
        self._pattern: re.Pattern[bytes] | None = None
        if not any([column.kind == "string" for column in columns]):
            self._pattern = self._compiled()

    @classmethod
    def of(cls, schema: Any, named: Mapping[str, Any]) -> "AvroColumns | None":
        """The reader of a schema as fastavro has parsed it, with its named types; None where it has other values than
        single ones.
        """
        columns: list[_Column] = []
        if not isinstance(schema, dict) or schema.get("type") != "record" or not _add(
                schema, named, (), frozenset(), columns) or not columns:
            return None
        return cls(columns)

    def columns(self, payloads: Sequence[bytes]) -> tuple[Columns, list[int] | None]:
        """See `column_texts.ReadColumns`."""
        rows = self._rows(payloads)
        found: list[int] | None = None
        if rows is None:
            self._learn(payloads)
            rows, found = self._rows_alone(payloads)
        texts, bad = self._texts(rows)
        if bad:
            keep = [row for row in range(len(rows)) if row not in bad]
            found = keep if found is None else [found[row] for row in keep]
            texts, _ = self._texts([rows[row] for row in keep])
        return Columns(self._paths, texts, len(payloads) if found is None else len(found)), found

    def _rows(self, payloads: Sequence[bytes]) -> list[tuple[bytes, ...]] | None:
        """The parts of each record, after the whole of it; None where not all of them are found at once."""
        if self._pattern is None:
            return None
        rows = self._pattern.findall(b"".join(payloads))
        if len(rows) != len(payloads) or [len(row[0]) for row in rows] != list(map(len, payloads)):
            return None
        return rows

    def _rows_alone(self, payloads: Sequence[bytes]) -> tuple[list[tuple[bytes, ...]], list[int]]:
        """The same of those that fit, and their indices."""
        if self._pattern is None:
            return [], []
        matches = list(map(self._pattern.fullmatch, payloads))
        return ([match.groups(b"") for match in matches if match is not None],
                [index for index, match in enumerate(matches) if match is not None])

    def _compiled(self) -> re.Pattern[bytes] | None:
        whole = b""
        for numbers in self._parts:
            column = self._columns[numbers[0]]
            if column.kind == "string":
                if not self._lengths[numbers[0]]:
                    return None
                found = b"|".join([re.escape(_long(length)) + b".{%d}" % length
                                   for length in sorted(self._lengths[numbers[0]])])
            elif column.kind in _FIXED:
                found = b".{%d}" % (_FIXED[column.kind][0] * len(numbers))
            elif column.kind == "boolean":
                found = rb"[\x00\x01]"
            else:
                found = b"" if column.kind == "null" else _INTEGER
            if column.null is None:
                whole += b"(%b)" % found
            else:
                null, other = (re.escape(_long(branch)) for branch in (column.null, 1 - column.null))
                whole += b"(?:%b(%b)|%b)" % (other, found, null)
        return re.compile(b"(%b)" % whole, re.DOTALL)

    def _learn(self, payloads: Sequence[bytes]) -> None:
        """Adds the lengths of the texts of some records that the pattern does not know."""
        if self._patterns_left <= 0:
            return
        before = sum(map(len, self._lengths))
        for payload in payloads if self._pattern is None else [
                payload for payload in payloads if self._pattern.fullmatch(payload) is None][:_LEARNED_FROM]:
            try:
                self._learn_from(payload)
            except (EOFError, ValueError, Reject):
                continue
        if sum(map(len, self._lengths)) > before:
            self._patterns_left -= 1
            self._pattern = self._compiled()

    def _learn_from(self, payload: bytes) -> None:
        at = 0
        found: list[tuple[int, int]] = []
        for number, column in enumerate(self._columns):
            if column.null is not None:
                branch, at = read_long(payload, at)
                if branch == column.null:
                    continue
            if column.kind == "string":
                length, at = read_long(payload, at)
                found.append((number, length))
                at += length
                if not 0 <= length <= len(payload):
                    return
            elif column.kind in _FIXED:
                at += _FIXED[column.kind][0]
            elif column.kind == "boolean":
                at += 1
            elif column.kind != "null":
                at = read_long(payload, at)[1]
        if at == len(payload):
            for number, length in found:
                if len(self._lengths[number]) < _MOST_LENGTHS:
                    self._lengths[number].add(length)

    def _texts(self, rows: Sequence[tuple[bytes, ...]]) -> tuple[list[bytes], set[int]]:
        """The JSON texts of each column, and the rows with values that have none."""
        out: list[bytes] = []
        bad: set[int] = set()
        parts: Sequence[Sequence[bytes]] = list(zip(*rows, strict=True))[1:] if rows else [()] * len(self._parts)
        for numbers, part in zip(self._parts, parts, strict=True):
            if len(numbers) > 1:
                values = _floats(self._columns[numbers[0]].kind, part)
                out += [_float_texts(values[place::len(numbers)], bad) for place in range(len(numbers))]
                continue
            column = self._columns[numbers[0]]
            if column.kind == "null" or column.null is None or b"" not in part:
                out.append(_value_texts(column, part, bad))
                continue
            present = [row for row, value in enumerate(part) if value]  # null has no bytes; a text has its length
            wrong: set[int] = set()
            texts = iter(_value_texts(column, [part[row] for row in present], wrong).split(b"\n"))
            bad.update([present[index] for index in wrong])
            out.append(b"\n".join([next(texts) if value else b"null" for value in part]))
        return out, bad


def _value_texts(column: _Column, values: Sequence[bytes], bad: set[int]) -> bytes:
    """The JSON texts of a column's values; adds the indices of those that have none to `bad`."""
    if not values:
        return b""
    match column.kind:
        case "null":
            return b"\n".join([b"null"] * len(values))
        case "boolean":
            return b"\n".join([b"true" if value == b"\x01" else b"false" for value in values])
        case "float" | "double":
            return _float_texts(_floats(column.kind, values), bad)
        case "string":
            return _string_texts(values, bad)
        case "enum":
            texts = [f'"{symbol}"'.encode() for symbol in column.symbols]
            indices = longs(values)
            bad.update([row for row, index in enumerate(indices) if not 0 <= index < len(texts)])
            return b"\n".join([b"null" if row in bad else texts[index] for row, index in enumerate(indices)])
        case _:
            return number_texts(longs(values))


def _floats(kind: str, values: Sequence[bytes]) -> tuple[float, ...]:
    joined = b"".join(values)
    size, form = _FIXED[kind]
    return struct.unpack(f"<{len(joined) // size}{form}", joined)


def _float_texts(values: Sequence[float], bad: set[int]) -> bytes:
    texts = number_texts(values)
    if b"u" in texts:
        bad.update(not_finite(values))
    return texts


def _string_texts(values: Sequence[bytes], bad: set[int]) -> bytes:
    """The same of texts with their lengths before them."""
    cut = [value[1:] if value[0] < 0x80 else value[read_long(value, 0)[1]:] for value in values]
    joined = b"\n".join(cut)
    try:
        text = joined.decode()
    except UnicodeDecodeError:
        texts = each(bytes.decode, cut, (UnicodeDecodeError,))
        bad.update([row for row, found in enumerate(texts) if found is None])
        return value_texts(texts)
    if len(joined.translate(None, _ESCAPED)) != len(joined) - len(values) + 1:
        return value_texts(text.split("\n") if text.count("\n") == len(values) - 1 else list(map(bytes.decode, cut)))
    return b'"' + joined.replace(b"\n", b'"\n"') + b'"'


def longs(values: Sequence[bytes]) -> Sequence[int]:
    """Ints and longs (variable-length zigzag) of at most nine bytes, all at once."""
    width, count = max(map(len, values)), len(values)
    data = b"".join(values)
    if width == 1:
        return [(byte >> 1) ^ -(byte & 1) for byte in data]
    if len(data) != width * count:
        data = b"".join([value.ljust(width, b"\0") for value in values])
    # Each number gets a lane of its own within one integer, by which all of them are calculated at once.
    lane = 8 if width < _LONG_BYTES else 16
    spread = bytearray(lane * count)
    for place in range(width):
        spread[place::lane] = data[place::width]
    whole, ones, found = int.from_bytes(spread, "little"), _ones(lane, count), 0
    for place in range(width):
        found |= (whole & (ones * (0x7F << 8 * place))) >> place
    sign = found & ones
    found = ((found ^ sign) >> 1) ^ ((sign << 8 * lane) - sign)
    return struct.unpack(f"<{lane * count // 8}q", found.to_bytes(lane * count, "little"))[::lane // 8]


@lru_cache(maxsize=8)
def _ones(lane: int, count: int) -> int:
    """An integer of so many lanes, bytes each, with a 1 in each lane."""
    return int.from_bytes(b"\x01".ljust(lane, b"\0") * count, "little")


def _long(value: int) -> bytes:
    """A number that is not negative as Avro writes it."""
    value <<= 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _add(schema: Any, named: Mapping[str, Any], path: tuple[str, ...], within: frozenset[str],
         columns: list[_Column]) -> bool:
    """Adds the columns of a record; False where it has other values than single ones."""
    name = schema["name"]
    if name in within:
        return False
    for field in schema["fields"]:
        inner, null = field["type"], None
        if isinstance(inner, list):
            if len(inner) != 2 or inner.count("null") != 1:
                return False
            null = inner.index("null")
            inner = inner[1 - null]
        while isinstance(inner, dict) and isinstance(inner["type"], dict | list) and "logicalType" not in inner:
            inner = inner["type"]
        if isinstance(inner, str) and inner in named:
            inner = named[inner]
        own = (*path, field["name"])
        if isinstance(inner, dict) and "logicalType" not in inner:
            if inner["type"] in ("record", "error"):
                if null is not None or not _add(inner, named, own, within | {name}, columns):
                    return False
                continue
            if inner["type"] == "enum":
                columns.append(_Column(own, "enum", null, tuple(inner["symbols"])))
                continue
            inner = inner["type"]
        if not isinstance(inner, str) or inner not in _SINGLE or len(columns) >= _MOST_COLUMNS:
            return False
        columns.append(_Column(own, inner, null))
    return True
