"""Recognises lines like earlier ones: the same series, and the same fields with values of the same types. Pure.

One pattern validates such a line from its first field to its end, and it passes unchanged. Anything unusual, such as an
escape in the series or a number with an exponent, has no pattern and is parsed in full, which gives the same line.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from pipeline.config.schema import Precision
from pipeline.points.field_type import FieldType
from stages.mapping.budget import Budget, cost_of
from stages.mapping.records.series import SHORT_CHARS
from stages.mapping.records.type_guard import kind_of

#: Approximate bytes of a measurement's entry beside its texts, and of the pattern of a field.
_MEASUREMENT_BYTES: Final = 500
_PATTERN_BYTES: Final = 1_500
#: Compiling a pattern takes about a hundred times as long as parsing its line. Except for the first ones, a pattern is
#: compiled only after about that many fields were parsed for each of its fields, so that lines that are all different
#: cost at most twice as much.
_READ_PER_FIELD: Final = 100
_FIRST_FIELDS: Final = 500
#: Sets of fields cached for each measurement; lines with further ones are parsed in full.
_MAX_SHAPES: Final = 32
#: Values that are certainly in range, and written unchanged.
_VALUES: Final[dict[FieldType, str]] = {
    "float": r"-?[0-9]{1,17}+(?:\.[0-9]{1,17}+)?+", "integer": r"-?[0-9]{1,18}+i", "unsigned": "[0-9]{1,18}+u",
    "boolean": "(?:true|false)", "string": r'"[^"\\\x00]*+"'}
#: Digits of a time that is in range whatever they are, by its unit; with one more digit, the first is at most 8.
_DIGITS: Final[dict[Precision, int]] = {"ns": 18, "us": 15, "ms": 12, "s": 9}

_Match = Callable[[str, int], re.Match[str] | None]


class KnownLine(NamedTuple):
    """A line that passes unchanged."""

    #: Measurement and tags, sorted; escaped.
    head: str
    time: str
    #: All of it, with its line break.
    text: str
    #: Start of the next line.
    end: int


class KnownLines:
    """The patterns learned from the lines of one topic. Not thread-safe."""

    def __init__(self, given: Precision, written: Precision, budget: Budget | None = None) -> None:
        """Learns nothing if times have to be converted from `given` to another precision."""
        self._learns = given == written
        #: The number of fields for which a pattern may be compiled now.
        self._credit = float(_FIRST_FIELDS)
        digits = _DIGITS[given]
        self._time = f" (0|-?[1-9][0-9]{{0,{digits - 1}}}+|-?[1-8][0-9]{{{digits}}})(?:\\n|\\Z)"
        #: Series as received -> with sorted tags, and the patterns of its measurement.
        self._heads: dict[str, tuple[str, list[_Match]]] = {}
        #: Measurement -> its patterns, and the sets of fields that they match.
        self._measurements: dict[str, tuple[list[_Match], set[tuple[tuple[str, FieldType], ...]]]] = {}
        self._share = (budget or Budget()).share(self._forget)

    def _forget(self) -> None:
        self._heads.clear()
        self._measurements.clear()

    def find(self, text: str, at: int) -> KnownLine | None:
        """The line that starts at `at`; None if no pattern matches it."""
        space = text.find(" ", at, at + SHORT_CHARS)
        known = self._heads.get(text[at:space]) if space > at else None
        if known is None:
            return None
        head, patterns = known
        for match in patterns:
            found = match(text, space + 1)
            if found is not None:
                end = found.end()
                if end - at > SHORT_CHARS:
                    return None
                return KnownLine(head, found[1], f"{head}{text[space:found.end(1)]}\n", end)
        return None

    def learn(self, came: str, measurement: str, head: str, fields: dict[str, str]) -> None:
        """Learns from a line that was valid and written with unchanged fields.

        `came` is its series as received, `fields` are `key=` -> value.
        """
        if not self._learns or "\\" in came:
            return
        new = measurement not in self._measurements
        if came in self._heads and not new:
            cost = 0
        else:
            cost = cost_of(came, head) + (_MEASUREMENT_BYTES + cost_of(measurement) if new else 0)
        if not self._share.takes(cost):
            return
        patterns, shapes = self._measurements.setdefault(measurement, ([], set()))
        self._heads[came] = head, patterns
        self._credit = min(self._credit + len(fields) / _READ_PER_FIELD, _FIRST_FIELDS)
        if len(shapes) >= _MAX_SHAPES or len(fields) > self._credit:
            return
        shape = tuple([(lead, kind_of(value)) for lead, value in fields.items()])
        if shape not in shapes:
            if not self._share.takes(_PATTERN_BYTES * len(fields) + cost_of(*fields)):
                return
            self._credit -= len(fields)
            shapes.add(shape)
            source = ",".join([re.escape(lead) + _VALUES[kind] for lead, kind in shape])
            patterns.append(re.compile(source + self._time).match)
