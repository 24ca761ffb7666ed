"""`format = "csv"`: one point for each line. Source: RFC 4180, and what loggers write instead.

A cell that looks like a JSON number, or is true, false, NaN or an infinity, is one; an empty cell, and one of
`csv_none`, is null. Declare a type where that is wrong: `types = { zip = "string" }` keeps 01234 and 12345 as they are.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pipeline.config.schema import MappingConfig
from stages.mapping.formats import Transcoder, each
from stages.mapping.formats.column_texts import Columns
from stages.mapping.formats.json_values import to_json
from stages.mapping.limits import Limits
from stages.mapping.reject import Reject, shown

_BARE: Final = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+|true|false|NaN|-?Infinity")
_NOT_NUMBERS: Final = frozenset((b"NaN", b"Infinity", b"-Infinity"))
#: Names of Python's codecs.
_ENCODINGS: Final = {"utf-8": "utf-8-sig", "utf-16": "utf-16", "windows-1252": "cp1252"}
#: Thousands before a decimal comma, 1.234.567,8: digits that points group are only taken for that beside one.
_GROUPED: Final = re.compile(r"-?[1-9][0-9]{0,2}(?:\.[0-9]{3})+,[0-9]+")

#: What has a meaning of its own: a payload without these is one line, whose cells the delimiter parts.
_UNUSUAL: Final = re.compile(rb'["\r\n\x00]|^\xef\xbb\xbf|^\Z')
#: Python's own limit is 131,072 characters a cell.
_MOST_BYTES: Final = 100_000
_NUMBERS: Final = re.compile(r"(?:-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+\n)*+")
#: Cells whose JSON texts are remembered, at most, and their characters.
_MOST_CELLS: Final = 5_000
_MOST_CELL_CHARS: Final = 60


def csv_transcoder(config: MappingConfig, limits: Limits) -> Transcoder:
    """The transcoder: yields an object for each line, with the keys in `csv_header`, or else in the first line.

    A line that is wrong is a Reject of its own.
    """
    trim = config.csv_trim
    encoding = _ENCODINGS[config.csv_encoding]
    cells_of = _CellReader(config, limits)
    form: dict[str, Any] = {"delimiter": config.csv_delimiter, "strict": True, "skipinitialspace": trim}
    form |= {"quotechar": config.csv_quote} if config.csv_quote else {"quoting": csv.QUOTE_NONE, "quotechar": None}

    def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
        try:
            lines = _Lines(payload.decode(encoding), config)
        except UnicodeDecodeError as error:
            raise Reject("not_csv", f"{error}; csv_encoding says what it is") from None
        rows = csv.reader(lines, **form)
        names = list(config.csv_header)
        try:
            if not names:
                lines.begin_record()
                names = _header(next(rows, []), trim, lines.number)
        except csv.Error as error:
            raise Reject("not_csv", f"line {lines.number}: {error}") from None
        lines.skip(config.csv_skip_after_names)
        limits.check_keys(len(names))
        keys = [to_json(name, limits) + b":" for name in names]
        while True:
            lines.begin_record()
            try:
                row = next(rows, None)
            except csv.Error as error:
                yield f"line {lines.number}: ", Reject("not_csv", str(error))
                continue
            if row is None:
                return
            cells = [cell.strip() for cell in row] if trim else row
            if cells and (len(cells) > 1 or cells[0] or len(keys) == 1):
                yield f"line {lines.number}: ", cells_of.object(keys, cells)

    return objects


class QuickCsv:
    """The same for many payloads that are one line each, column by column (`formats.Quick`)."""

    def __init__(self, header: Sequence[str], delimiter: str, trim: bool, limits: Limits) -> None:
        self._header, self._delimiter, self._trim = header, delimiter, trim
        #: Whether what is trimmed may be a delimiter: then it is none at the ends of a line.
        self._strips = trim and delimiter.isspace()
        self._cell = _Cells(limits).__getitem__
        #: Columns that had other cells than numbers.
        self._others: set[int] = set()
        self._paths = tuple([(name,) for name in header])
        self._template = "{" + ",".join([to_json(name, limits).decode().replace("%", "%%") + ":%s"
                                         for name in header]) + "}"

    def texts(self, payloads: Sequence[bytes]) -> list[bytes | None]:
        """The JSON text of each payload; None for those that the transcoder has to look at."""
        columns, usual = self._columns(payloads)
        cells = [self._texts(number, column).split("\n") if column else [] for number, column in enumerate(columns)]
        made = map(str.encode, map(self._template.__mod__, zip(*cells, strict=True)))
        return list(made) if usual is None else [next(made) if is_usual else None for is_usual in usual]

    def columns(self, payloads: Sequence[bytes]) -> tuple[Columns, list[int] | None]:
        """See `column_texts.ReadColumns`."""
        columns, usual = self._columns(payloads)
        texts = [self._texts(number, column).encode() for number, column in enumerate(columns)]
        found = list(range(len(payloads))) if usual is None else [at for at, is_usual in enumerate(usual) if is_usual]
        # These have no JSON text.
        odd = {row for text in texts if b"NaN" in text or b"Infinity" in text
               for row, cell in enumerate(text.split(b"\n")) if cell in _NOT_NUMBERS}
        if odd:
            keep = [row for row in range(len(found)) if row not in odd]
            texts = [b"\n".join([cells[row] for row in keep]) for cells in [text.split(b"\n") for text in texts]]
            found = [found[row] for row in keep]
        return Columns(self._paths, texts, len(found)), found if len(found) < len(payloads) else None

    def _texts(self, number: int, cells: Sequence[str]) -> str:
        """The JSON texts of a column's cells, joined by line breaks."""
        if number not in self._others and cells:
            joined = "\n".join(cells)
            if _NUMBERS.fullmatch(f"{joined}\n"):
                return joined
            self._others.add(number)
        return "\n".join(map(self._cell, cells))

    def _columns(self, payloads: Sequence[bytes]) -> tuple[Sequence[Sequence[str]], list[bool] | None]:
        """The cells of each column of those payloads that are usual, and which ones are; None: all."""
        if self._strips:
            payloads = [payload.lstrip(b" \t").rstrip(b" \t\r\n") for payload in payloads]
        found = self._at_once(payloads)
        if found is not None:
            return found, None
        rows: list[Any] = each(self._row, payloads, (UnicodeDecodeError, _Unusual))
        usual = [cells for cells in rows if cells is not None]
        columns = list(zip(*usual, strict=True)) if usual else [()] * len(self._header)
        return columns, None if len(usual) == len(rows) else [cells is not None for cells in rows]

    def _at_once(self, payloads: Sequence[bytes]) -> list[list[str]] | None:
        """The columns; None where a payload is unusual."""
        if payloads[0][-1:] == b"\n":
            payloads = [payload[:-1] if payload[-1:] == b"\n" else payload for payload in payloads]
        joined, width = b"\n".join(payloads), len(self._header) + 1
        if (joined.count(b"\n") != len(payloads) - 1 or b'"' in joined or b"\r" in joined or b"\0" in joined
                or b"\xef\xbb\xbf" in joined or max(map(len, payloads)) > _MOST_BYTES or width < 3):
            return None
        # Each line is followed by a cell of its own, by which the lines are known to have as many cells each.
        try:
            cells = joined.decode().replace("\n", f"{self._delimiter}\n{self._delimiter}").split(self._delimiter)
        except UnicodeDecodeError:
            return None
        if len(cells) != width * len(payloads) - 1 or cells[width - 1::width].count("\n") != len(payloads) - 1:
            return None
        columns = [cells[number::width] for number in range(width - 1)]
        return [list(map(str.strip, column)) for column in columns] if self._trim else columns

    def _row(self, payload: bytes) -> list[str]:
        if payload[-1:] == b"\n":
            payload = payload[:-2] if payload[-2:] == b"\r\n" else payload[:-1]
        if _UNUSUAL.search(payload) or len(payload) > _MOST_BYTES:
            raise _Unusual
        cells = payload.decode().split(self._delimiter)
        if len(cells) != len(self._header):
            raise _Unusual
        return [text.strip() for text in cells] if self._trim else cells


class _Cells(dict[str, str]):
    """The JSON texts of cells, as far as they are remembered."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits

    def __missing__(self, text: str) -> str:
        found = _cell(text, self._limits).decode()
        if len(text) <= _MOST_CELL_CHARS:
            if len(self) >= _MOST_CELLS:
                self.clear()
            self[text] = found
        return found


class _Unusual(Exception):
    """The transcoder has to look at this payload."""


class _Lines:
    """The lines of a payload, without those that are skipped. They end in line breaks only, and keep them."""

    def __init__(self, text: str, config: MappingConfig) -> None:
        self._lines = io.StringIO(text, newline="")
        self._comment = config.csv_comment
        self._strips = config.csv_trim and config.csv_delimiter.isspace()
        self._is_first = True
        #: Number of the line that was read last.
        self.number = 0
        self.skip(config.csv_skip_lines)

    def skip(self, count: int) -> None:
        """Reads so many lines for nothing."""
        for _ in range(count):
            if not self._lines.readline():
                return
            self.number += 1

    def begin_record(self) -> None:
        """A comment may stand at the beginning of a record, not within one."""
        self._is_first = True

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        while True:
            line = self._lines.readline()
            if not line:
                raise StopIteration
            self.number += 1
            if self._is_first and self._comment and line.lstrip(" \t").startswith(self._comment):
                continue
            self._is_first = False
            return line.strip(" \t\r\n") + "\n" if self._strips else line


def _header(row: Sequence[str], trim: bool, number: int) -> list[str]:
    """The names in the first line. Raises Reject if a name occurs twice."""
    keys = [name.strip() for name in row] if trim else list(row)
    if len(set(keys)) < len(keys):
        name = next(name for index, name in enumerate(keys) if name in keys[:index])
        raise Reject("not_csv", f'line {number}: two columns are named "{shown(name)}"; set csv_header')
    return keys


class _CellReader:
    """Turns the cells of a line into an object."""

    def __init__(self, config: MappingConfig, limits: Limits) -> None:
        self._limits = limits
        self._none = frozenset(["", *config.csv_none])
        self._has_comma = config.csv_decimal == ","

    def object(self, keys: Sequence[bytes], row: Sequence[str]) -> bytes | Reject:
        """The JSON text of a line's object."""
        if len(row) != len(keys):
            return Reject("not_csv", f"{len(row)} cells for {len(keys)} names")
        return b"{" + b",".join([key + self._json(cell) for key, cell in zip(keys, row, strict=True)]) + b"}"

    def _json(self, cell: str) -> bytes:
        if cell in self._none:
            return b"null"
        if not self._has_comma:
            return _cell(cell, self._limits)
        # A point is no part of a number that stands alone.
        if "." in cell and not _GROUPED.fullmatch(cell):
            return to_json(cell, self._limits)
        number = cell.replace(".", "").replace(",", ".")
        return number.encode() if _BARE.fullmatch(number) else to_json(cell, self._limits)


def _cell(cell: str, limits: Limits) -> bytes:
    if not cell:
        return b"null"
    return cell.encode() if _BARE.fullmatch(cell) else to_json(cell, limits)
