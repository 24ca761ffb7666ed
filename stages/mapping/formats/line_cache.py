"""Recognises lines like earlier ones: the same series, and the same fields with values of the same types. Pure.

One pattern validates such a line from its first field to its end, and it passes unchanged. Anything unusual, such as an
escape in the series or a number with an exponent, has no pattern and is parsed in full, which gives the same line.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from pipeline.config.schema import Precision
from pipeline.points.field_type import FieldType
from stages.mapping.budget import Budget, cost_of
from stages.mapping.records.series import SHORT_CHARS
from stages.mapping.records.type_guard import kind_of

#: Approximate bytes of a measurement's entry beside its texts, and of the three patterns of a field.
_MEASUREMENT_BYTES: Final = 800
_PATTERN_BYTES: Final = 4_500
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

#: Fields in the pattern of lines of all measurements, at most; and the parts that it cuts a line into, with what is
#: before it.
_FIELDS_OF_ALL: Final = 500
_PARTS: Final = 4
_ONE_LINE_STRING: Final = r'"[^"\\\x00\n]*+"'
_LINE_END: Final = r"(?:\n|\Z)"

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


class _Measurement:
    """The patterns of one measurement's lines, from the first field on."""

    def __init__(self, time: str) -> None:
        self._time = time
        self.matches: list[_Match] = []
        #: The sets of fields that they match.
        self.shapes: set[tuple[tuple[str, FieldType], ...]] = set()
        #: Patterns of the sets of fields.
        self.sources: list[str] = []
        #: Of many lines from their first field on; made when it is asked for.
        self._all: re.Pattern[str] | None = None

    def add(self, shape: tuple[tuple[str, FieldType], ...]) -> None:
        """Makes the pattern of a set of fields."""
        self.shapes.add(shape)
        self.sources.append(",".join([re.escape(lead) + (_VALUES[kind] if kind != "string" else _ONE_LINE_STRING)
                                       for lead, kind in shape]))
        source = ",".join([re.escape(lead) + _VALUES[kind] for lead, kind in shape])
        self.matches.append(re.compile(source + self._time).match)
        self._all = None

    def fits(self, bodies: Sequence[str]) -> bool:
        """Whether all of these lines match one of the patterns."""
        if not self.sources:
            return False
        if self._all is None:
            time = self._time.removesuffix(_LINE_END)
            self._all = re.compile(f"(?:(?:{'|'.join(self.sources)}){time}\n)*+")
        return self._all.fullmatch("\n".join(bodies) + "\n") is not None


class ManyLines(NamedTuple):
    """Lines that pass unchanged."""

    heads: list[str]
    times: list[str]
    #: Each with its line break.
    lines: list[str]
    #: Indices of those that are not known; their entries above have no meaning.
    unknown: list[int]


class KnownLines:
    """The patterns learned from the lines of one topic. Not thread-safe."""

    def __init__(self, given: Precision, written: Precision, budget: Budget | None = None) -> None:
        """Learns nothing if times have to be converted from `given` to another precision."""
        self._learns = given == written
        #: The number of fields for which a pattern may be compiled now.
        self._credit = float(_FIRST_FIELDS)
        digits = _DIGITS[given]
        self._time = f" (0|-?[1-9][0-9]{{0,{digits - 1}}}+|-?[1-8][0-9]{{{digits}}}){_LINE_END}"
        #: Series as received -> with sorted tags, and the patterns of its measurement.
        self._heads: dict[str, tuple[str, _Measurement]] = {}
        #: Of lines of any measurement, with groups of a whole line, its series and its time; None: to be made.
        self._lines: re.Pattern[str] | None = None
        self._measurements: dict[str, _Measurement] = {}
        self._share = (budget or Budget()).share(self._forget)

    def _forget(self) -> None:
        self._lines = None
        self._heads.clear()
        self._measurements.clear()

    def find(self, text: str, at: int) -> KnownLine | None:
        """The line that starts at `at`; None if no pattern matches it."""
        space = text.find(" ", at, at + SHORT_CHARS)
        known = self._heads.get(text[at:space]) if space > at else None
        if known is None:
            return None
        head, measurement = known
        for match in measurement.matches:
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
        if new:
            self._measurements[measurement] = _Measurement(self._time)
        patterns = self._measurements[measurement]
        self._heads[came] = head, patterns
        self._credit = min(self._credit + len(fields) / _READ_PER_FIELD, _FIRST_FIELDS)
        if len(patterns.shapes) >= _MAX_SHAPES or len(fields) > self._credit:
            return
        shape = tuple([(lead, kind_of(value)) for lead, value in fields.items()])
        if shape not in patterns.shapes:
            if not self._share.takes(_PATTERN_BYTES * len(fields) + cost_of(*fields)):
                return
            self._credit -= len(fields)
            self._lines = None
            patterns.add(shape)

    def find_all(self, lines: str) -> ManyLines:
        """The lines, each with its line break, all at once."""
        alike = self._alike(lines)
        if alike is not None:
            return alike
        texts = lines.split("\n")[:-1]
        cut = [text.partition(" ") for text in texts]
        found = [self._heads.get(head) for head, _, _ in cut]
        by_measurement: dict[int, list[int]] = {}
        unknown: list[int] = []
        for index, known in enumerate(found):
            if known is None or len(texts[index]) >= SHORT_CHARS:
                unknown.append(index)
            elif (key := id(known[1])) in by_measurement:
                by_measurement[key].append(index)
            else:
                by_measurement[key] = [index]
        for indices in by_measurement.values():
            measurement = (found[indices[0]] or ("", _Measurement("")))[1]
            if not measurement.fits([cut[index][2] for index in indices]):
                unknown += [index for index in indices if not any([match(cut[index][2], 0)
                                                                   for match in measurement.matches])]
        heads = [known[0] if known is not None else "" for known in found]
        return ManyLines(heads, [text.rpartition(" ")[2] for text in texts],
                         [f"{head} {body}\n" for head, (_, _, body) in zip(heads, cut, strict=True)], unknown)

    def _alike(self, lines: str) -> ManyLines | None:
        """The same where all are known, and one search cuts them all; otherwise None."""
        if self._lines is None:
            self._lines = self._of_all()
        parts = self._lines.split(lines)
        came = parts[2::_PARTS]
        if not came or any(parts[::_PARTS]):
            return None
        known = list(map(self._heads.get, came))
        whole: list[str] = parts[1::_PARTS]
        if None in known or max(map(len, whole)) > SHORT_CHARS:
            return None
        heads = [head for head, _ in known]  # type: ignore[misc]
        times = parts[3::_PARTS]
        if heads != came:
            whole = [head + text[len(before):] for head, before, text in zip(heads, came, whole, strict=True)]
        return ManyLines(heads, times, whole, [])

    def _of_all(self) -> re.Pattern[str]:
        """The pattern of any line of the measurements that have few sets of fields together."""
        found, fields = [], 0
        for name, measurement in self._measurements.items():
            fields += sum([source.count("=") for source in measurement.sources])
            if measurement.sources and fields <= _FIELDS_OF_ALL:
                found.append(f"{re.escape(name)}(?=[, ])[^ \\n]*+ (?:{'|'.join(measurement.sources)})")
        time = self._time.removesuffix(_LINE_END)
        return re.compile(f"(?<![^\\n])((?=([^ \\n]++) )(?:{'|'.join(found) or '(?!)'}){time}\\n)")
