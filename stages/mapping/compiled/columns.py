"""The values of one field of many messages, from their JSON texts to pieces of lines, all at once.

A test of all texts together proves what they are: numbers, strings without escapes, booleans. Such texts stand in lines
as they came. Everything else is converted value by value, by the mapping's own converter.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from pipeline.config.mapping_schema import DeclaredType
from pipeline.points.field_type import FieldType
from stages.mapping.budget import cost_of
from stages.mapping.compiled.tables import Column
from stages.mapping.limits import TooComplex
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.type_guard import converted, kind_of
from stages.mapping.reject import Reject

#: Texts of a number that are shorter, and have no exponent, are within a float's range.
SAFE_CHARS: Final = 300
#: Digits of an integer that are within 64 bits, whatever they are.
_SAFE_DIGITS: Final = 18
#: Texts whose conversion is remembered are no longer.
_REMEMBERED_CHARS: Final = 40
_NUMBER_CHARS: Final = b"0123456789.-\n\0"
#: All bytes but brackets that open, and line breaks.
_NO_BRACKETS: Final = bytes([byte for byte in range(256) if byte not in b"{[\n"])
_BOOLEAN_CHARS: Final = b"truefals\n\0"
#: Numbers in strings, as JSON has them: they are written as they are.
_DECIMALS: Final = re.compile(r"(?:(?:-?(?:0|[1-9][0-9]{0,100}+)(?:\.[0-9]{1,100}+)?+|\x00)\n)*+")
_INTEGERS: Final = re.compile(r"(?:(?:0|-?[1-9][0-9]{0,17}+|\x00)\n)*+")
_UNSIGNED: Final = re.compile(r"(?:(?:0|[1-9][0-9]{0,17}+|\x00)\n)*+")
_STRINGS: Final = msgspec.json.Decoder(list[str | None])


class JoinedTexts(Sequence[Raw]):
    """JSON texts of one column, none of which has a line break in it, as one text."""

    __slots__ = ("_count", "_parts", "joined")

    def __init__(self, joined: bytes, count: int) -> None:
        self.joined = joined
        self._count = count
        self._parts: list[Any] = []

    @property
    def parts(self) -> list[Any]:
        """The texts."""
        if not self._parts:
            self._parts = self.joined.split(b"\n")
        return self._parts

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self.parts[index]

    def rows(self, indices: Sequence[int]) -> "JoinedTexts":
        """Some of them."""
        parts = self.parts
        return JoinedTexts(b"\n".join([parts[index] for index in indices]), len(indices))


class Uniform(NamedTuple):
    """Values of one type, as texts that stand in lines as they are, but for a suffix."""

    #: Joined by `separator`; one that is not there is a NUL.
    joined: str
    separator: str
    suffix: str
    kind: FieldType
    #: How many are not there.
    absent: int


#: Values as they stand in lines; "" where there is none.
Listed = list[str]


def joined_of(raws: Sequence[Raw]) -> bytes:
    """The JSON texts of values, joined by line breaks."""
    return raws.joined if isinstance(raws, JoinedTexts) else b"\n".join(raws)


def texts_of(raws: Sequence[Raw]) -> list[str]:
    """The JSON texts of values; "\\0" for one that is not there."""
    joined = joined_of(raws)
    if joined.count(b"\n") == len(raws) - 1:
        return str(joined, "utf-8").split("\n")
    return [str(raw, "utf-8") for raw in raws]


class FieldColumn:
    """Converts the values of one field. Not thread-safe."""

    def __init__(self, rules: RecordMapper, column: Column) -> None:
        self.lead = column.lead
        self._column = column
        self._flattener = rules.flattener
        self._limits = rules.flattener.limits
        declared = rules.types.of(column.path)
        #: Texts that look like numbers are numbers; other values are as undeclared.
        self._from_texts = declared == "number"
        self._declared: DeclaredType | None = None if self._from_texts else declared
        self._convert = rules.converter(column.path)
        self._as_written = rules.config.integers == "as_written"
        #: What short texts become.
        self._known: dict[str, str] = {}
        self._share = rules.budget.share(self._known.clear)

    def values(self, raws: Sequence[Raw], is_long: bool, bad: set[int]) -> Uniform | Listed | None:
        """The values of many messages; None where none of them has one.

        `is_long` says that a message may be longer than any number that is surely in range. Indices of values that
        need the exact rules are added to `bad`.
        """
        joined = joined_of(raws)
        if not joined.translate(None, _NUMBER_CHARS):
            # Most fields are numbers; nothing but the values is between these line breaks.
            absent = joined.count(b"\0") if b"\0" in joined else 0
            if absent == len(raws):
                return None
            numbers = self._numbers(joined, len(raws) - absent, absent, is_long)
            return numbers if numbers is not None else self._listed(str(joined, "utf-8").split("\n"), bad)
        if joined.count(b"\n") != len(raws) - 1:
            return self._listed([str(raw, "utf-8") for raw in raws], bad)
        if b"null" in joined:
            texts = ["\0" if text == "null" else text for text in str(joined, "utf-8").split("\n")]
            joined = "\n".join(texts).encode()
        absent = joined.count(b"\0") if b"\0" in joined else 0
        if absent == len(raws):
            return None
        found = self._uniform(joined, len(raws), absent, is_long)
        return found if found is not None else self._listed(str(joined, "utf-8").split("\n"), bad)

    def _uniform(self, joined: bytes, count: int, absent: int, is_long: bool) -> Uniform | None:
        declared = self._declared
        if not joined.translate(None, _NUMBER_CHARS):
            return self._numbers(joined, count - absent, absent, is_long)
        quotes = joined.count(b'"')
        if quotes and quotes == 2 * (joined.count(b'\n"') + (joined[:1] == b'"')) == 2 * (count - absent) \
                and b"\\" not in joined:
            if self._from_texts:
                return None if self._as_written else self._from_strings(joined, absent, "float")
            if declared in (None, "string"):
                return Uniform(str(joined, "utf-8"), "\n", "", "string", absent)
            return self._from_strings(joined, absent, declared)
        if declared in (None, "boolean") and not joined.translate(None, _BOOLEAN_CHARS):
            return Uniform(str(joined, "utf-8"), "\n", "", "boolean", absent)
        if declared in (None, "string") and not self._from_texts and b"\\" in joined:
            return self._escaped(joined, absent)
        return None

    def _numbers(self, joined: bytes, count: int, absent: int, is_long: bool) -> Uniform | None:
        """Numbers without exponents."""
        declared = self._declared
        if declared == "float" or declared is None and not self._as_written:
            if is_long and max(map(len, joined.split(b"\n"))) >= SAFE_CHARS:
                return None
            return Uniform(str(joined, "utf-8"), "\n", "", "float", absent)
        points = joined.count(b".")
        if declared is None and points == count:
            # Each has one: JSON's numbers have no more.
            if is_long and max(map(len, joined.split(b"\n"))) >= SAFE_CHARS:
                return None
            return Uniform(str(joined, "utf-8"), "\n", "", "float", absent)
        if points or declared not in (None, "integer", "unsigned"):
            return None
        if b"-" in joined and (declared == "unsigned" or b"-0" in joined):
            return None
        if max(map(len, joined.split(b"\n"))) > _SAFE_DIGITS:
            return None
        kind: FieldType = "unsigned" if declared == "unsigned" else "integer"
        return Uniform(str(joined, "utf-8"), "\n", kind[0], kind, absent)

    def _from_strings(self, joined: bytes, absent: int, declared: DeclaredType) -> Uniform | None:
        """Strings that hold numbers, in their simplest form."""
        if declared not in ("float", "integer", "unsigned"):
            return None
        text = str(joined.translate(None, b'"'), "utf-8")
        pattern = _DECIMALS if declared == "float" else _INTEGERS if declared == "integer" else _UNSIGNED
        if pattern.fullmatch(text + "\n") is None:
            return None
        kind: FieldType = declared
        return Uniform(text, "\n", "" if kind == "float" else kind[0], kind, absent)

    def _escaped(self, joined: bytes, absent: int) -> Uniform | None:
        """Strings, some of them with escapes."""
        if b"\\u0000" in joined:
            return None
        try:
            texts = _STRINGS.decode(b"[" + joined.replace(b"\n", b",").replace(b"\0", b"null") + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if absent:
            quoted = ["\0" if text is None else f'"{_in_quotes(text)}"' for text in texts]
            return Uniform("\1".join(quoted), "\1", "", "string", absent) if "\1" not in "".join(quoted) else None
        inner = _in_quotes("\0".join(texts))  # type: ignore[arg-type]
        return Uniform('"' + inner.replace("\0", '"\0"') + '"', "\0", "", "string", 0)

    def _listed(self, texts: list[str], bad: set[int]) -> Listed:
        """Value by value."""
        out, known = [], self._known
        for index, text in enumerate(texts):
            value = known.get(text)
            if value is None:
                try:
                    value = self._converted(text)
                except Exception:  # whatever it is, the exact rules say it
                    value = ""
                    bad.add(index)
                else:
                    if len(text) <= _REMEMBERED_CHARS and self._share.takes(cost_of(text, value)):
                        known[text] = value
            out.append(value)
        return out

    def _converted(self, text: str) -> str:
        """Raises Reject where a value needs the exact rules."""
        if text in ("\0", "null"):
            return ""
        if text[0] in "{[":
            treatment = self._flattener.treatment(self._column.path, text[0])
            if treatment not in ("keep", "drop") or self._column.is_before_operand:
                raise Reject("bad_field", "")
            self._limits.check_depth(self._column.depth)
            if treatment == "drop":
                return ""
            self._limits.check_kept(text, self._column.depth)
        return self._convert(text)


def _in_quotes(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def first_type(values: Uniform | Listed) -> FieldType:
    """The type of the first of the values that are there."""
    if isinstance(values, Uniform):
        return values.kind
    return next((kind_of(value) for value in values if value), "float")


def of_type(values: Uniform | Listed, lead: str, kind: FieldType, bad: set[int]) -> Uniform | Listed:
    """The values as the type that was decided for their field; indices of those that it cannot hold go to `bad`."""
    if isinstance(values, Uniform):
        if values.kind == kind:
            return values
        if kind == "float" and values.kind in ("integer", "unsigned"):
            return values._replace(suffix="", kind=kind)
        values = ["" if text == "\0" else text + values.suffix for text in values.joined.split(values.separator)]
    out = []
    for index, value in enumerate(values):
        if value and kind_of(value) != kind:
            try:
                value = converted(lead, value, kind)
            except Reject:
                value = ""
                bad.add(index)
        out.append(value)
    return out


def pieces(values: Uniform | Listed, lead: str, before: str) -> list[str]:
    """`before`, `key=` and value of each message; "" where there is none."""
    start = before + lead
    if not isinstance(values, Uniform):
        return [start + value if value else "" for value in values]
    joined, separator, suffix, _, absent = values
    if absent:
        # Each NUL stands between separators of its own: nothing else becomes "".
        made = start + joined.replace(separator, suffix + separator + start) + suffix
        return made.replace(f"{start}\0{suffix}", "").split(separator)
    return (start + joined.replace(separator, suffix + separator + start) + suffix).split(separator)


def size_of(values: Uniform | Listed, lead: str) -> int:
    """Characters of all of them in lines, about."""
    if isinstance(values, Uniform):
        count = values.joined.count(values.separator) + 1
        return len(values.joined) + (len(lead) + 2) * (count - values.absent)
    return sum(map(len, values)) + (len(lead) + 2) * len(values)


def has_all(values: Uniform | Listed) -> bool:
    """Whether each message has a value."""
    return not values.absent if isinstance(values, Uniform) else all(values)


def check_unused(rules: RecordMapper, column: Column, raws: Sequence[Raw], bad: set[int]) -> None:
    """Values that nothing is made of, and that may be arrays or objects: adds those to `bad` that the exact rules open,
    or that are too deep.
    """
    joined = b"\n" + b"\n".join(raws)
    if b"\n{" not in joined and b"\n[" not in joined:
        return
    limits = rules.flattener.limits
    treatments = {rules.flattener.treatment(column.path, first) for first in "{[" if f"\n{first}".encode() in joined}
    if treatments <= {"keep", "drop"} and not column.is_before_operand and column.depth <= limits.depth:
        # What has no more brackets than levels are allowed is not nested too deep.
        most = limits.depth - column.depth + 1
        brackets = joined.translate(None, _NO_BRACKETS).split(b"\n")
        if "keep" not in treatments or len(brackets) == len(raws) + 1 and max(map(len, brackets)) <= most:
            return
    for index, raw in enumerate(raws):
        text = str(raw, "utf-8")
        if text[0] not in "{[":
            continue
        treatment = rules.flattener.treatment(column.path, text[0])
        try:
            limits.check_depth(column.depth)
            if treatment == "keep" and column.path != rules.config.explode:
                limits.check_kept(text, column.depth)
            if treatment not in ("keep", "drop") or column.is_before_operand:
                bad.add(index)
        except TooComplex:
            bad.add(index)

