"""The values of one object of many messages that something is made of: columns, and plain fields that stay together."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from msgspec import Raw, Struct

from pipeline.points.field_type import FieldType

#: The text of a key that is not there. No JSON text holds a NUL.
ABSENT: Final = Raw(b"\0")
#: Fields that are kept together, at least: to take out the rest costs as much as a column or two.
_LEAST_PLAIN: Final = 2
#: What is taken out for each of them, at most: that costs a fifth of a column.
_MOST_REMOVED: Final = 4
#: Names and keys of plain fields: nothing in them looks like what stands around them.
_PLAIN_NAME: Final = re.compile(r'[^"\\,:{}\x00-\x1f]+')
_PLAIN_LEAD: Final = re.compile(r'[^":{}\x00-\x1f]+')
_PARTS: Final = 512


class Column(Struct, eq=False):
    """A value of each message that something is made of."""

    path: str
    #: Its key in the object.
    name: str
    #: The field key before it is escaped.
    key: str
    #: Of an object or array that it would be.
    depth: int
    #: `key=` of the field, escaped; "" where it is none.
    lead: str
    in_head: bool
    is_time: bool
    #: Conditions of rules ask for it, or for what would be in it.
    is_operand: bool
    is_before_operand: bool
    is_excluded: bool = False
    #: Types whose JSON texts stand in lines as they are.
    plain_kinds: frozenset[FieldType] = frozenset()
    #: It is read as a text; otherwise its JSON text is kept.
    is_text: bool = False

    @property
    def may_be_plain(self) -> bool:
        """Whether it is a field that may stay together with others."""
        return bool(self.lead and self.plain_kinds and not self.is_before_operand and not self.is_text
                    and _PLAIN_NAME.fullmatch(self.name) and _PLAIN_LEAD.fullmatch(self.lead))

    @property
    def is_only_field(self) -> bool:
        """Whether nothing but a field is made of it."""
        return bool(self.lead) and not (self.in_head or self.is_time or self.is_operand)


class Table(Struct, eq=False):
    """The columns of one object of each message, and those of the objects in it."""

    #: What the keys of its fields begin with.
    prefix: str
    #: Number of the Struct's field -> column that is looked at by itself.
    columns: dict[int, Column] = {}
    #: The same of fields that are kept together.
    plain: dict[int, Column] = {}
    #: Number of the Struct's field, an empty Struct for objects that are not there, and the table.
    tables: list[tuple[int, Any, "Table"]] = []
    #: Number of each field of the Struct, and what it has where it is not there.
    defaults: dict[int, Any] = {}
    _clear: Callable[[Sequence[Any]], None] | None = None

    def keep_together(self) -> None:
        """Keeps the plain fields together, where that is worth it; once all columns are there."""
        plain = {number: column for number, column in self.columns.items() if column.may_be_plain}
        removed = {number: default for number, default in self.defaults.items() if number not in plain}
        if len(plain) < _LEAST_PLAIN or len(removed) > _MOST_REMOVED * len(plain):
            return
        self.plain = plain
        self.columns = {number: column for number, column in self.columns.items()
                        if number not in plain or not column.is_only_field}
        self._clear = _clearing(removed)

    def parts(self, structs: Sequence[Any]) -> Iterator[tuple["Table", Sequence[Any]]]:
        """This table with its Structs, and those in it with theirs."""
        yield self, structs
        for number, empty, table in self.tables:
            yield from table.parts(_objects(number)(structs, empty))

    def texts(self, structs: Sequence[Any]) -> Iterator[tuple[Column, list[Any]]]:
        """The texts of each column of this table."""
        for number, column in self.columns.items():
            yield column, field_of(number)(structs)

    def clear(self, structs: Sequence[Any]) -> None:
        """Takes all but the plain fields out of Structs. What is in their objects has to be there already."""
        if self._clear is not None:
            self._clear(structs)

    def all_columns(self) -> Iterator[Column]:
        """Those of the objects in it, too."""
        yield from {**self.columns, **self.plain}.values()
        for _, _, table in self.tables:
            yield from table.all_columns()

    def with_plain(self) -> Iterator["Table"]:
        """The tables that keep fields together, of this one and those in it."""
        if self.plain:
            yield self
        for _, _, table in self.tables:
            yield from table.with_plain()


@lru_cache(maxsize=_PARTS)
def field_of(number: int) -> Callable[[Sequence[Any]], list[Any]]:
    """Gives one field of each Struct; an expression of its own is three times as fast as `attrgetter`."""
    made: Callable[[Sequence[Any]], list[Any]] = eval(f"lambda structs: [one.f{number} for one in structs]")  # nosec B307  # a number
    return made


@lru_cache(maxsize=_PARTS)
def _objects(number: int) -> Callable[[Sequence[Any], Any], list[Any]]:
    """The same for a Struct within, and another one where that is null."""
    made: Callable[[Sequence[Any], Any], list[Any]] = eval(  # nosec B307  # a number
        f"lambda structs, empty: [one.f{number} or empty for one in structs]")
    return made


def _clearing(removed: dict[int, Any]) -> Callable[[Sequence[Any]], None] | None:
    """Gives the fields with these numbers what they have where they are not there."""
    if not removed:
        return None
    assignments = "; ".join([f"one.f{number} = d{number}" for number in removed])
    made: dict[str, Any] = {f"d{number}": default for number, default in removed.items()}
    parameters = ", ".join([f"d{number}=d{number}" for number in removed])
    exec(f"def clear(structs, {parameters}):\n    for one in structs:\n        {assignments}", made)  # nosec B102  # numbers
    clear: Callable[[Sequence[Any]], None] = made["clear"]
    return clear
