"""What the messages have at each path: how often, which kinds of values, which values. Pure.

The messages are the JSON objects that the mapping would get. Everything kept is bounded, whatever they hold.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from pipeline.config.schema import MappingConfig
from pipeline.points import escape
from stages.mapping.limits import Limits
from stages.mapping.records.record import NOT_NUMBERS, decode_object, items, loads
from stages.mapping.records.values import BadValue, exact_integer, written_number
from stages.mapping.reject import Reject

#: Most paths of one table; those met later are counted together.
MAX_PATHS: Final = 2_000
#: Most distinct values that are kept of one path, and the longest one, characters.
MAX_VALUES: Final = 1_000
_MAX_VALUE_CHARS: Final = 200
#: Records that are kept whole, to see which values come together, and elements of one array that are looked at.
MAX_ROWS: Final = 2_000
_MAX_ELEMENTS: Final = 1_000
#: Distinct values that are kept of all paths of a table, and values of its rows.
_MAX_KEPT: Final = 200_000
#: Tables of elements inside of each other.
_MAX_TABLES: Final = 4
#: Members of one object that are looked at; over this its keys are no names.
MAX_MEMBERS: Final = 1_000
#: How `{"`, `{ ` and `{` with a line break behind it begin in Base64.
_BASE64_OBJECT: Final = ("ey", "ew")
_LEADING_ZERO: Final = re.compile(r"[+-]?0[0-9]")
_SPACED: Final = re.compile(r"\S\s+\S")


class PathProfile:
    """The values at one path."""

    def __init__(self, path: str, room: list[int]) -> None:
        """`room` is the number of values that may still be kept, of all paths."""
        self.path = path
        self._room = room
        #: Records that have the path, also with null.
        self.count = 0
        #: Values by kind: "number", "text", "boolean", "null", "not_number", "object", "array".
        self.kinds: Counter[str] = Counter()
        #: JSON text of each distinct single value -> how often; those after MAX_VALUES are not kept.
        self.values: Counter[str] = Counter()
        #: Whether there are more distinct values than those kept.
        self.has_more = False
        #: Characters of the longest text, and most spaces between words in one.
        self.longest = self.spaces = 0
        #: Texts that hold a number, those with a leading zero, and empty ones.
        self.number_texts = self.zero_texts = self.empty_texts = 0
        #: Texts that no line can hold, with a NUL or not Unicode, and those that no tag can hold.
        self.bad_texts = self.bad_for_tag = 0
        #: Texts that hold an object of JSON, as it is or in Base64.
        self.json_texts = self.base64_texts = 0
        #: Numbers with a fraction or exponent; integers beyond 2^53, beyond 64 bits with a sign, and without one.
        self.fractions = self.beyond_53 = self.beyond_i64 = self.beyond_u64 = 0
        self.negative = 0
        #: Of arrays: lengths, kinds of the elements, and what elements that are objects have.
        self.lengths: Counter[int] = Counter()
        self.element_kinds: Counter[str] = Counter()
        self.elements: Table | None = None

    @property
    def singles(self) -> int:
        """How many values are neither null nor objects or arrays."""
        return self.kinds["number"] + self.kinds["text"] + self.kinds["boolean"] + self.kinds["not_number"]

    @property
    def distinct(self) -> int:
        """Number of distinct single values, as far as they are kept."""
        return len(self.values)

    def only(self, *kinds: str) -> bool:
        """Whether there are values of these kinds, and beside them only nulls."""
        found = {kind for kind in self.kinds if kind != "null"}
        return bool(found) and found <= set(kinds)

    def add(self, text: str, kind: str) -> None:
        """Counts one value, by its JSON text."""
        self.count += 1
        self.kinds[kind] += 1
        if kind in ("null", "object", "array"):
            return
        cut = text if len(text) <= _MAX_VALUE_CHARS else text[:_MAX_VALUE_CHARS]
        if cut in self.values:
            self.values[cut] += 1
        elif len(self.values) < MAX_VALUES and self._room[0]:
            self._room[0] -= 1
            self.values[cut] = 1
        else:
            self.has_more = True
        if kind == "text":
            self._add_text(text)
        elif kind == "number":
            self._add_number(text)

    def _add_text(self, text: str) -> None:
        if not (plain := text_of(text)):
            self.empty_texts += text == '""'
            self.bad_texts += text != '""'
            self.bad_for_tag += text != '""'
            return
        self.longest = max(self.longest, len(plain))
        self.spaces = max(self.spaces, len(_SPACED.findall(plain[:1_000])))
        self.bad_texts += "\0" in plain
        try:
            escape.tag_value(plain)
        except escape.Unwritable:
            self.bad_for_tag += 1
        if plain.lstrip()[:1] == "{":
            self.json_texts += _is_object(plain)
        elif plain[:2] in _BASE64_OBJECT:
            self.base64_texts += _is_object(_unbased(plain))
        if len(plain) < 50:
            try:
                written_number(plain)
            except BadValue:
                return
            self.number_texts += 1
            self.zero_texts += bool(_LEADING_ZERO.match(plain))

    def _add_number(self, text: str) -> None:
        self.negative += text[0] == "-"
        if not text.lstrip("-").isdigit():
            self.fractions += 1
            return
        if len(text) > 15:
            value = abs(int(text)) if len(text) < 40 else 2**70
            self.beyond_53 += value > 2**53
            self.beyond_i64 += value >= 2**63 + (text[0] == "-")
            self.beyond_u64 += value >= 2**64


class Table:
    """What records have: messages, or the elements of arrays at one path."""

    def __init__(self, depth: int = 0) -> None:
        self.records = 0
        self.paths: dict[str, PathProfile] = {}
        #: Paths that were met after MAX_PATHS: how many values.
        self.more = 0
        #: Single values by path, of the first MAX_ROWS records.
        self.rows: list[dict[str, str]] = []
        #: Names of the members of each object that has them, and the objects whose members are too many for names.
        self.members: dict[str, Counter[str]] = {}
        #: Paths whose values are different within every array; None until one is met. For elements of arrays.
        self.unique: set[str] | None = None
        self._depth = depth
        #: Values that may still be kept: of paths, and of rows.
        self._room, self._row_room = [_MAX_KEPT], _MAX_KEPT
        self._limits = Limits.of(MappingConfig())

    def add(self, payload: bytes) -> None:
        """Counts one record, the JSON text of an object. Raises Reject."""
        self._add_members(decode_object(payload, self._limits))

    def _add_members(self, members: dict[str, str]) -> dict[str, str]:
        self.records += 1
        row: dict[str, str] = {}
        todo = [(key, text, 1) for key, text in reversed(members.items())]
        while todo:
            path, text, depth = todo.pop()
            kind = kind_of(text)
            profile = self._at(path)
            if profile is None:
                self.more += 1
                continue
            profile.add(text, kind)
            if kind == "object":
                inner = decode_object(text.encode(), self._limits)
                seen = self.members.setdefault(path, Counter())
                if len(seen) < MAX_MEMBERS:
                    seen.update(list(inner)[:MAX_MEMBERS])
                self._limits.check_depth(depth + 1)
                todo += [(f"{path}.{key}", value, depth + 1) for key, value in reversed(inner.items())]
            elif kind == "array":
                self._add_elements(profile, items(text))
            elif kind != "null" and len(text) <= _MAX_VALUE_CHARS:
                row[path] = text
        if len(self.rows) < MAX_ROWS and self._row_room >= len(row):
            self._row_room -= len(row)
            self.rows.append(row)
        return row

    def _at(self, path: str) -> PathProfile | None:
        profile = self.paths.get(path)
        if profile is None and len(self.paths) < MAX_PATHS:
            profile = self.paths[path] = PathProfile(path, self._room)
        return profile

    def _add_elements(self, profile: PathProfile, texts: list[str]) -> None:
        profile.lengths[min(len(texts), 10_000)] += 1
        rows = []
        for text in texts[:_MAX_ELEMENTS]:
            kind = kind_of(text)
            profile.element_kinds[kind] += 1
            if kind != "object" or self._depth >= _MAX_TABLES:
                continue
            if profile.elements is None:
                profile.elements = Table(self._depth + 1)
            rows.append(profile.elements._add_members(decode_object(text.encode(), self._limits)))
        if len(rows) > 1 and profile.elements is not None:
            profile.elements.note_unique(rows)

    def note_unique(self, rows: list[dict[str, str]]) -> None:
        """Notes which values tell the elements of one array apart."""
        found = {path for path in rows[0] if len({row.get(path) for row in rows}) == len(rows)}
        self.unique = found if self.unique is None else self.unique & found

    def depends(self, path: str, on: Iterable[str]) -> bool:
        """Whether the value at `path` is always the same where those at `on` are: False if it changes."""
        keys = tuple(on)
        seen: dict[tuple[str | None, ...], str] = {}
        for row in self.rows:
            if path in row and seen.setdefault(tuple([row.get(key) for key in keys]), row[path]) != row[path]:
                return False
        return True


def _unbased(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""


def _is_object(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def kind_of(text: str) -> str:
    """The kind of a JSON text, as in `PathProfile.kinds`."""
    first = text[0]
    if first == '"':
        return "not_number" if text in NOT_NUMBERS else "text"
    return {"{": "object", "[": "array", "n": "null", "t": "boolean", "f": "boolean"}.get(first, "number")


def text_of(text: str) -> str:
    """The text in the JSON text of a string; "" where it has none or is not Unicode."""
    try:
        return str(msgspec.json.decode(text)) if "\\" in text else text[1:-1]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def plain(text: str) -> str:
    """A single value as people read it: a string without its quotes."""
    try:
        return str(loads(text)) if text[:1] == '"' else text
    except Reject:
        return text


def integer_of(text: str) -> int | None:
    """The integer of a JSON number; None where it has a fraction."""
    try:
        return exact_integer(text)
    except (BadValue, ValueError):
        return None
