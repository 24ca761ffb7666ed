"""A line as InfluxDB 3 reads it. It differs from InfluxDB 1 and 2 in names and tags: two backslashes are one, and a tab
ends them. Pure.

Source: influxdata/influxdb, `core/influxdb_line_protocol/src/lib.rs`; `tests/data/influxdb3-lines.ndjson` has what that
code read. Independent of what the pipeline's own encoder does: this is what judges it.
"""

import re
from typing import Final

from pipeline.sandbox import lines
from pipeline.sandbox.lines import LineError, Point

_MEASUREMENT: Final = re.compile(r"(?:\\.|[^, \t\n\0\\])+", re.DOTALL)
_BEFORE_EQUALS: Final = re.compile(r"(?:\\.|[^= \t\n\\])+", re.DOTALL)
_TAG_VALUE: Final = re.compile(r"(?:\\.|[^, \t\n\\])+", re.DOTALL)
_FIELD_VALUE: Final = re.compile(r'"(?:\\.|[^"\\])*"|[^, "][^, ]*', re.DOTALL)
_IN_MEASUREMENT: Final = re.compile(r"\\([, \\])")
_IN_NAME: Final = re.compile(r"\\([,= \\])")


def parse_line(line: str, unit: int = 1, unsigned: bool = True) -> Point:
    """The same as `lines.parse_line`, which does it where there is nothing that the two read in different ways."""
    if "\\" not in line and "\t" not in line:
        return lines.parse_line(line, unit, unsigned)
    measurement, at = _name(line, 0, _MEASUREMENT, _IN_MEASUREMENT, "missing measurement")
    tags: dict[str, str] = {}
    while line[at:at + 1] == ",":
        key, at = _name(line, at + 1, _BEFORE_EQUALS, _IN_NAME, "missing tag key")
        if line[at:at + 1] != "=":
            raise LineError("missing tag value")
        value, at = _name(line, at + 1, _TAG_VALUE, _IN_NAME, "missing tag value")
        if key in tags:
            raise LineError("duplicate tags")
        tags[key] = value
    if line[at:at + 1] != " ":
        raise LineError("missing fields")
    fields, at = _fields(line, len(line) - len(line[at:].lstrip(" ")), unsigned)
    values, types = lines.typed_values(fields)
    return Point(measurement, tuple(sorted(tags.items())), values, types, lines.parse_time(line, at, unit))


def _name(line: str, at: int, name: re.Pattern[str], escaped: re.Pattern[str], missing: str) -> tuple[str, int]:
    """The name that begins at `at`, without its escapes, and where it ends. Raises LineError: `missing`."""
    match = name.match(line, at)
    if match is None:
        raise LineError(missing)
    text = escaped.sub(r"\1", match.group())
    if text.endswith("\\"):
        raise LineError(missing)
    return text, match.end()


def _fields(line: str, at: int, unsigned: bool) -> tuple[list[tuple[str, str]], int]:
    """The fields that begin at `at`: their keys, and their values as they are written; and where they end."""
    fields = []
    while True:
        key, at = _name(line, at, _BEFORE_EQUALS, _IN_NAME, "missing field key")
        value = _FIELD_VALUE.match(line, at + 1) if line[at:at + 1] == "=" else None
        if value is None:
            raise LineError("missing field value")
        lines.check_value(value.group(), unsigned)
        fields.append((key, value.group()))
        at = value.end()
        if line[at:at + 1] != ",":
            return fields, at
        at += 1
