"""Reads points from annotated CSV, the answer format of `/api/v2/query`. Pure.

Source: "Annotated CSV", InfluxDB 2 reference: annotations `datatype`, `group`, `default`; a new block of them for every
schema; errors as a table with the columns `error` and `reference`. Lines end with CR LF. Go's encoding/csv with
`UseCRLF` also writes every LF inside a text as CR LF, and drops every other CR.
"""

import csv
import io
import re
from collections.abc import Callable
from math import isfinite
from operator import itemgetter

from pipeline.points.field_type import FieldType
from pipeline.points.table import BadRow, Column, Row, Table, Value, sort_columns
from pipeline.points.times import TimeReader
from stages.languages.language import QueryError

#: Longest value, characters.
MAX_VALUE = 100_000_000
#: Columns of Flux itself: neither tags nor fields.
_RESERVED = frozenset({"_start", "_stop", "_time", "_measurement", "_field"})
#: Names of the first columns: annotations, `result` and `table`. Elsewhere a tag may have these names.
_FIRST = frozenset({"", "result", "table"})
#: The result that has only the number of rows.
COUNT_RESULT = "row_count"
_ERROR = re.compile(rb"(?:^|\r?\n)#datatype,string,(?:string|long)\r?\n(?:#[^\n]*\n)*,error,reference\r?\n,([^\n]*)")
_TYPES: dict[str, FieldType] = {"double": "float", "long": "integer", "unsignedLong": "unsigned", "boolean": "boolean",
                                "string": "string", "dateTime:RFC3339": "integer", "dateTime:RFC3339Nano": "integer",
                                "duration": "string", "base64Binary": "string"}


def find_error(body: bytes) -> str:
    """The message of an error table in an answer; "" if there is none."""
    found = _ERROR.search(body)
    return next(csv.reader([found.group(1).decode("utf-8", "replace").rstrip("\r")]))[0] if found else ""


def _float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text} is not a boolean")
    return text == "true"


def text_of(body: bytes) -> str:
    """The answer with line breaks inside texts as they were stored, except for the CRs that the server dropped."""
    return body.decode("utf-8", "replace").replace("\r\n", "\n")


class _Block:
    """What the columns under one header are."""

    def __init__(self, annotations: dict[str, list[str]], names: list[str], tags: frozenset[str],
                 times: TimeReader, all_tags: bool) -> None:
        """`annotations` by name, one value for each of `names`. `all_tags`: all columns are tags that are not Flux's.
        Raises QueryError."""
        datatypes, groups = annotations.get("#datatype", []), annotations.get("#group", [])
        defaults = annotations.get("#default", [])
        if len(datatypes) != len(names) or len(groups) != len(names):
            raise QueryError("the answer has no datatype and group annotations that fit its columns")
        if "_time" not in names:
            raise QueryError("the answer has no column _time; keep it in the query")
        self.width = len(names)
        self.time = names.index("_time")
        self.defaults = defaults if any(defaults) else []
        self.long = "_field" in names and "_value" in names
        self.field = names.index("_field") if self.long else 0
        self.value = names.index("_value") if self.long else 0
        self.tag_names: tuple[str, ...] = ()
        self.tag_at: tuple[int, ...] = ()
        #: For rows of several fields: index, column and conversion of each.
        self.fields: list[tuple[int, Column, Callable[[str], Value]]] = []
        for index, name in enumerate(names):
            if name in _RESERVED or (index < len(_FIRST) and name in _FIRST) or (self.long and index == self.value):
                continue
            if all_tags or groups[index] == "true" or name in tags:
                self.tag_names += (name,)
                self.tag_at += (index,)
            else:
                kind = _field_type(datatypes[index])
                self.fields.append((index, Column("value" if name == "_value" else name, "field", kind),
                                    _conversion(datatypes[index], times)))
        self.type = _field_type(datatypes[self.value]) if self.long else "string"
        self.convert = _conversion(datatypes[self.value], times)


def _field_type(datatype: str) -> FieldType:
    if datatype not in _TYPES:
        raise QueryError(f"a column has the datatype {datatype}, which is not one of " + ", ".join(_TYPES))
    return _TYPES[datatype]


def _conversion(datatype: str, times: TimeReader) -> Callable[[str], Value]:
    if datatype.startswith("dateTime"):
        return times.read
    conversions: dict[str, Callable[[str], Value]] = {
        "double": _float, "long": int, "unsignedLong": int, "boolean": _boolean}
    return conversions.get(datatype, str)


class PointAssembler:
    """Assembles the points of an answer: rows of one series and time are one point."""

    def __init__(self, tags: frozenset[str] = frozenset(), all_tags: bool = False) -> None:
        """`tags`: columns that are tags although they are not in the group key; with `all_tags`, all but Flux's own."""
        self._tags = tags
        self._all_tags = all_tags
        self._times = TimeReader()
        #: (tag keys, tag values, time) -> fields.
        self._points: dict[tuple[tuple[str, ...], tuple[str, ...], int], dict[Column, Value]] = {}
        self._bad: list[BadRow] = []
        self._columns: dict[tuple[str, FieldType], Column] = {}

    def read(self, body: bytes) -> None:
        """Reads a whole answer. Raises QueryError if it is not annotated CSV."""
        csv.field_size_limit(MAX_VALUE)
        annotations: dict[str, list[str]] = {}
        block: _Block | None = None
        skipped = False
        for row in csv.reader(io.StringIO(text_of(body), newline="")):
            if len(row) < 2:
                continue
            if row[0].startswith("#"):
                annotations = annotations if block is None else {}
                annotations[row[0]] = row
                block = None
                skipped = row[:2] == ["#default", COUNT_RESULT] or skipped and row[0] != "#datatype"
            elif skipped:
                annotations = {}
            elif block is None:
                block = _Block(annotations, row, self._tags, self._times, self._all_tags)
            else:
                self._row(block, row)

    def _row(self, block: _Block, row: list[str]) -> None:
        try:
            if len(row) != block.width:
                raise ValueError(f"{len(row)} columns instead of {block.width}")
            if block.defaults:
                row = [value or default for value, default in zip(row, block.defaults, strict=True)]
            time = self._times.read(row[block.time])
            key = block.tag_names, tuple([row[index] for index in block.tag_at]), time
            values: dict[Column, Value]
            if block.long:
                values = {self._column(row[block.field], block.type): block.convert(row[block.value])}
            else:
                values = {}
            # With several fields in a row, CSV has the same empty text for a missing value and an empty string.
            values.update((column, convert(row[index])) for index, column, convert in block.fields if row[index])
        except ValueError as error:
            self._bad.append(BadRow("bad_value", str(error), ",".join(row)[:500]))
            return
        known = self._points.get(key)
        if known is None:
            self._points[key] = values
        else:
            known.update(values)

    def _column(self, name: str, kind: FieldType) -> Column:
        column = self._columns.get((name, kind))
        if column is None:
            column = self._columns[name, kind] = Column(name, "field", kind)
        return column

    def table(self, measurement: str, before: int) -> Table:
        """All points before the time `before`, ordered by time."""
        tag_names = {name for names, _, _ in self._points for name in names}
        tags = sort_columns([Column(name, "tag", "string") for name in tag_names])
        fields = sort_columns(list({column for point in self._points.values() for column in point}))
        rows: list[Row] = []
        for (names, values, time), point in self._points.items():
            if time < before:
                own = dict(zip(names, values, strict=True))
                rows.append((time, *[own.get(tag.name) or None for tag in tags], *[point.get(f) for f in fields]))
        rows.sort(key=itemgetter(0))
        return Table(measurement, (*tags, *fields), rows, self._bad)
