"""A line as InfluxDB 3 reads it, with its error messages. Pure.

It differs from InfluxDB 1 and 2 in much: in names and tags two backslashes are one, and a tab ends them; `f=.5` and
`f=5.` are no numbers; `f=1,` is a line. Source: influxdata/influxdb, `core/influxdb_line_protocol/src/lib.rs`;
`tests/data/influxdb3-lines.ndjson` has what that code read, and
tests/servers/test_sandbox_answers_against_influxdb3.py compares with the server. Independent of what the pipeline's own
encoder does: this is what judges it.

Left out: names longer than 64 KiB are taken, and a number too large for a float is refused (InfluxDB 3 takes it for
infinite, and shows it as null).
"""

import math
import re
from decimal import Decimal
from typing import Final

from msgspec import Struct

from pipeline.testbed.sandbox.influxdb import lines
from pipeline.testbed.sandbox.influxdb.lines import LineError, Point

#: How much of the rest of a line its messages show: all of it up to so many bytes, else so many characters.
SHOWN = 10
_MEASUREMENT: Final = re.compile(r"(?:\\(?:.|$)|[^, \t\n\0\\])+", re.DOTALL)
_BEFORE_EQUALS: Final = re.compile(r"(?:\\(?:.|$)|[^= \t\n\\])+", re.DOTALL)
_TAG_VALUE: Final = re.compile(r"(?:\\(?:.|$)|[^, \t\n\\])+", re.DOTALL)
#: The first that fits counts, whatever comes after it.
_FIELD_VALUE: Final = re.compile(
    r'-?[0-9]+i|[0-9]+u|-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|"(?:[^"\\]|\\.)*"'
    r"|true|True|TRUE|t|T|false|False|FALSE|f|F", re.DOTALL)
_TIME: Final = re.compile(r" +(-?[0-9]+) *")
_IN_MEASUREMENT: Final = re.compile(r"\\([, \\])")
_IN_NAME: Final = re.compile(r"\\([,= \\])")
_UNITS: Final = {1: "Nanosecond", 1_000: "Microsecond", 1_000_000: "Millisecond", 1_000_000_000: "Second"}


class Line(Struct, frozen=True):
    """A line's parts in the order in which they are written; names and tags without their escapes."""

    measurement: str
    tags: list[tuple[str, str]]
    #: Values as they are written.
    fields: list[tuple[str, str]]
    #: In the line's own unit.
    time: int | None

    def printed(self) -> str:
        """The line as InfluxDB 3 prints it in messages: strings without quotes, floats without exponents."""
        head = ",".join([re.sub(r"([, ])", r"\\\1", self.measurement), *(
            f"{_escaped(key)}={_escaped(value)}" for key, value in self.tags)])
        fields = ",".join([f"{_escaped(key)}={_printed(*lines.typed(raw))}" for key, raw in self.fields])
        return f"{head} {fields}" + ("" if self.time is None else f" {self.time}")


def _escaped(name: str) -> str:
    return re.sub(r"([,= ])", r"\\\1", name)


def _printed(value: lines.FieldValue, kind: lines.FieldType) -> str:
    if kind == "string":
        return str(value).replace('"', '\\"')
    if kind == "boolean":
        return str(value).lower()
    if kind == "float":
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    return f"{value}{kind[0]}"


def parse_line(line: str, unit: int = 1, unsigned: bool = True) -> Point:
    """The point in `line`, which is neither blank nor a comment. Raises LineError."""
    found = read(line)
    time = None if found.time is None else found.time * unit
    if time is not None and not -(2**63) <= time < 2**63:
        raise LineError(f"timestamp, {found.time}, out of range for precision: {_UNITS[unit]}")
    values, types = lines.typed_values(found.fields)
    return Point(found.measurement, tuple(sorted(dict(found.tags).items())), values, types, time)


def read(line: str) -> Line:
    """The parts of `line`. Raises LineError."""
    measurement, at = _name(line, 0, _MEASUREMENT, _IN_MEASUREMENT, "Invalid measurement was provided")
    tags: list[tuple[str, str]] = []
    tags_at = at + 1
    while line[at:at + 1] == ",":
        key, at = _name(line, at + 1, _BEFORE_EQUALS, _IN_NAME, "Expected tag key, got {}")
        if line[at:at + 1] != "=":
            raise LineError(f"Tag set malformed: could not find equals sign in `{_shown(line[tags_at:])}`")
        value, at = _name(line, at + 1, _TAG_VALUE, _IN_NAME, "Expected tag value, got {}")
        tags.append((key, value))
    if line[at:at + 1] != " ":
        got = f"`{line[at:]}`" if line[at:] else "end of input"
        raise LineError(f"Expected at least one space character, got {got}")
    fields, at = _fields(line, len(line) - len(line[at:].lstrip(" ")))
    time = _TIME.match(line, at)
    if time is not None:
        at = time.end()
        if not -(2**63) <= int(time[1]) < 2**63:
            raise LineError(f"Unable to parse timestamp value `{time[1]}`")
    if at < len(line):
        raise LineError(f"Could not parse entire line. Found trailing content: `{_shown(line[at:])}`")
    return Line(measurement, tags, fields, None if time is None else int(time[1]))


def _shown(text: str) -> str:
    return text if len(text.encode("utf-8", "surrogateescape")) <= SHOWN else text[:SHOWN] + "..."


def _name(line: str, at: int, name: re.Pattern[str], escaped: re.Pattern[str], missing: str) -> tuple[str, int]:
    """The name that begins at `at`, without its escapes, and where it ends.

    Raises LineError: `missing`, with what is there in the place of `{}`.
    """
    match = name.match(line, at)
    if match is None:
        raise LineError(missing.format(f"`{_shown(line[at:])}`" if line[at:] else "end of input"))
    text = escaped.sub(r"\1", match.group())
    if text.endswith("\\"):
        raise LineError("Measurements, tag keys and values, and field keys may not end with a backslash")
    return text, match.end()


def _fields(line: str, at: int) -> tuple[list[tuple[str, str]], int]:
    """The fields that begin at `at`: their keys, and their values as they are written; and where they end.

    After the first one only, a comma without a field behind it belongs to them. Raises LineError.
    """
    fields: list[tuple[str, str]] = []
    end = start = at
    while True:
        if _BEFORE_EQUALS.match(line, start) is None:
            break
        key, start = _name(line, start, _BEFORE_EQUALS, _IN_NAME, "")
        value = _FIELD_VALUE.match(line, start + 1) if line[start:start + 1] == "=" else None
        if value is None or value.group()[0] in "-0123456789" and not _is_number(value.group()):
            break
        fields.append((key, value.group()))
        end = start = value.end()
        if line[end:end + 1] != ",":
            break
        start += 1
        end = start if len(fields) == 1 else end
    if not fields:
        raise LineError("No fields were provided")
    return fields, end


def _is_number(raw: str) -> bool:
    """Whether a number is finite; raises LineError for an integer out of range."""
    if raw[-1] == "i" and not -(2**63) <= int(raw[:-1]) < 2**63:
        raise LineError(f"Unable to parse integer value `{raw[:-1]}`")
    if raw[-1] == "u" and int(raw[:-1]) >= 2**64:
        raise LineError(f"Unable to parse unsigned integer value `{raw[:-1]}`")
    return raw[-1] in "iu" or math.isfinite(float(raw))
