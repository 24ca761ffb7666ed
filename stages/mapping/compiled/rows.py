"""The plain fields of one object of each message, all at once: numbers and booleans.

All else is taken out of the object's Structs, and the rest is written as JSON again: a line a message, in the order of
the schema. A few replacements make fields of these lines; nothing is done value by value. What the lines are without
their digits tells what is in them: there are but few different ones, whose members are looked at.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Raw, Struct

from pipeline.points.field_type import FieldType
from stages.mapping.compiled.tables import ABSENT, Column, Table, field_of

#: Left out of what tells the kinds: all characters that numbers without exponents are made of.
_DIGITS: Final = b"0123456789.+-"
_ALL_ZEROS: Final = bytes.maketrans(_DIGITS, b"0" * len(_DIGITS))
#: A number of so many characters may be out of a float's range.
_LONG: Final = b"0" * 300
#: Rows of a part in which a field may be something else: they go by the rules. With more it becomes a column.
_MAX_ODD: Final = 2
_TO_FIELDS: Final = str.maketrans({"}": None, '"': None, ":": "="})
_encoder: Final = msgspec.json.Encoder()


class Unfit(Exception):
    """Fields that are not plain, or not of the type that was decided: each has to become a column of its own."""

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.columns = columns


class Rows(NamedTuple):
    """The plain fields of one table, of many messages."""

    #: JSON objects without nulls, one a line.
    text: str
    #: The types of those that have a value somewhere, and those that have values of several types.
    kinds: dict[Column, FieldType]
    mixed: list[Column]
    #: Whether a message has no field.
    has_empty: bool
    #: What tells the kinds, of each message.
    skeletons: list[bytes]


class _Alike(Struct, eq=False):
    """Fields whose names are the same without digits: mostly one."""

    #: With the numbers of their Struct's fields.
    columns: list[tuple[int, Column]]


class RowWriter:
    """Reads and writes the plain fields of one table. Not thread-safe: it learns what there is."""

    def __init__(self, table: Table, asks_types: bool) -> None:
        """`asks_types`: the types must be exactly those of the fields that have values."""
        self._asks_types = asks_types
        #: By their names without digits, with the quote before.
        self._alike: dict[bytes, _Alike] = {}
        for number, column in table.plain.items():
            name = f'"{column.name}'.encode().translate(None, _DIGITS)
            self._alike.setdefault(name, _Alike([])).columns.append((number, column))
        #: Fields that cannot be told from each other in what tells the kinds.
        self.alike = [column for some in self._alike.values() if len(some.columns) > 1 for _, column in some.columns]
        #: Member of a message without digits -> its fields, and their type; None is null.
        self._known: dict[bytes, tuple[_Alike, FieldType | None]] = {}
        columns = table.plain.values()
        #: What stands before the names in the keys of fields; where that is not all that there is to it, it is "" and
        #: these are the names and keys.
        self._prefix, self._renamed = table.prefix, list[tuple[str, str]]()
        if any([column.lead != f"{table.prefix}{column.name}=" for column in columns]):
            self._prefix, self._renamed = "", [(f'"{column.name}":', column.lead) for column in columns]
        #: Characters that a key in a line is longer than in JSON, at most.
        self._longer = max(0, *[len(column.lead) - len(column.name) - 3 for column in columns])

    def read(self, structs: Sequence[Any], is_long: bool, bad: set[int]) -> Rows:
        """What is left in Structs of which the rest was taken out. Indices of those that need the exact rules are
        added to `bad`. Raises Unfit.

        `is_long` says that a message may be longer than any number that is surely in range.
        """
        encoded = _encoder.encode_lines(structs)
        skeletons = encoded.translate(None, _DIGITS).split(b"\n")
        skeletons.pop()
        members = set(b",".join([one[1:-1] for one in set(skeletons)]).split(b",")) - {b""}
        known = self._known
        if (len(skeletons) != len(structs) or is_long and _LONG in encoded.translate(_ALL_ZEROS)
                or not all([member in known or self._learn(member) for member in members])):
            self._find(structs, bad)
            members &= known.keys()
        text = str(encoded, "utf-8")
        kinds: dict[Column, FieldType] = {}
        mixed: list[Column] = []
        for alike, kind in [known[member] for member in members]:
            for number, column in alike.columns:
                if kind is None:
                    text = _without(text, column.name)
                elif kinds.get(column, kind) != kind:
                    mixed.append(column)
                elif self._is_there(alike, number, structs):
                    kinds[column] = kind
        return Rows(text, kinds, mixed, "{}" in text, skeletons)

    def _is_there(self, alike: _Alike, number: int, structs: Sequence[Any]) -> bool:
        """Whether one of fields that are alike has a value somewhere; True where that is not asked for."""
        return len(alike.columns) == 1 or not self._asks_types or any(
            [raw is not ABSENT and bytes(raw) != b"null" for raw in field_of(number)(structs)])

    def kinds_of(self, skeleton: bytes) -> dict[Column, FieldType]:
        """The types of the fields of one message, where none of them are alike."""
        found = [self._known[member] for member in skeleton[1:-1].split(b",") if member]
        return {column: kind for alike, kind in found if kind is not None for _, column in alike.columns}

    def _learn(self, member: bytes) -> bool:
        """Whether a member is plain, and known now."""
        name, colon, rest = member.partition(b'":')
        alike = self._alike.get(name)
        if not colon or alike is None:
            return False
        kind = _kind_of(rest)
        if kind == "" or kind is not None and not all([kind in column.plain_kinds for _, column in alike.columns]):
            return False
        self._known[member] = alike, kind
        return True

    def _find(self, structs: Sequence[Any], bad: set[int]) -> None:
        """Finds the values that are not plain: adds their indices to `bad`, or raises Unfit where there are many."""
        unfit, rows = [], set[int]()
        for name, alike in self._alike.items():
            for number, column in alike.columns:
                odd = [row for row, raw in enumerate(field_of(number)(structs)) if self._is_odd(name, raw)]
                if len(odd) > _MAX_ODD:
                    unfit.append(column)
                rows.update(odd)
        if unfit or not rows:
            raise Unfit(unfit or [column for alike in self._alike.values() for _, column in alike.columns])
        bad |= rows

    def _is_odd(self, name: bytes, raw: Raw) -> bool:
        text = bytes(raw)
        member = b'%b":%b' % (name, text.translate(None, _DIGITS))
        return text != b"\0" and (
            len(text) >= len(_LONG) or b"\n" in text or member not in self._known and not self._learn(member))

    def size_of(self, text: str) -> int:
        """Characters of the text of some rows in lines, at most."""
        return len(text) + (self._longer * text.count('":') if self._longer else 0)

    def find_open(self, structs: Sequence[Any]) -> list[int]:
        """Indices of Structs in which an array or object may be left."""
        if not _has_open(_encoder.encode(structs)):
            return []
        return [index for index, struct in enumerate(structs) if _has_open(_encoder.encode(struct))]

    def lines(self, rows: Rows, before: str) -> list[str]:
        """The fields of each message as a line has them, after one character; "" where a message has none."""
        text = rows.text
        if rows.has_empty:
            text = text.replace("{}", "")
        for name, lead in self._renamed:
            text = text.replace(name, lead)
        if self._prefix:
            text = text.translate(_TO_FIELDS).replace(",", f",{self._prefix}").replace("{", f"{before}{self._prefix}")
        else:
            text = text.translate(_TO_FIELDS | {ord("{"): before})
        out = text.split("\n")
        out.pop()
        return out


def _has_open(encoded: bytes) -> bool:
    return b":{" in encoded or b":[" in encoded


def _kind_of(rest: bytes) -> FieldType | Literal[""] | None:
    """The type of a value without its digits; None of null, "" of what is not plain."""
    if not rest:
        return "float"
    if rest in (b"true", b"false"):
        return "boolean"
    if rest == b"null":
        return None
    return ""


def _without(text: str, name: str) -> str:
    """JSON objects without the members of one name, which are null."""
    member = f'"{name}":null'
    text = text.replace(f"{member},", "")
    return text.replace(f",{member}", "").replace(member, "") if member in text else text
