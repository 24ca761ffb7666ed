"""`format = "csv"`: a point a line, as RFC 4180 has it.

A cell that has the form of a JSON number, or is true, false, NaN or an infinity, is one; an empty one is null. Declare
a type where that is not meant: `types = { zip = "string" }` keeps 01234 and 12345 alike.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Final

from stages.mapping.formats import Transcoder
from stages.mapping.formats.json_values import to_json
from stages.mapping.limits import Limits
from stages.mapping.reject import Reject, shown

_BARE: Final = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+|true|false|NaN|-?Infinity")


def csv_transcoder(header: Sequence[str], delimiter: str, trim: bool, limits: Limits) -> Transcoder:
    """Objects with the cells of a line at the keys in `header`; without one the payload's first line has them.

    `trim` takes the white space around names and cells away, also that before a quote.
    """
    def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
        try:
            lines = io.StringIO(payload.decode("utf-8-sig"), newline="")
            rows = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=trim)
            names = list(header) or next(rows, [])
            limits.check_keys(len(names))
            keys = [to_json(name, limits) + b":" for name in (names if header else _header(names, trim))]
            for row in rows:
                cells = [cell.strip() for cell in row] if trim else row
                if cells and (len(cells) > 1 or cells[0] or len(keys) == 1):
                    yield f"line {rows.line_num}: ", _object(keys, cells, limits)
        except (UnicodeDecodeError, csv.Error) as error:
            raise Reject("not_csv", str(error)) from None

    return objects


def _header(row: Sequence[str], trim: bool) -> list[str]:
    """The names in the first line. Raises Reject where one is there twice."""
    keys = [name.strip() for name in row] if trim else list(row)
    if len(set(keys)) < len(keys):
        name = next(name for index, name in enumerate(keys) if name in keys[:index])
        raise Reject("not_csv", f'line 1: two columns are called "{shown(name)}"; give csv_header')
    return keys


def _object(keys: Sequence[bytes], row: Sequence[str], limits: Limits) -> bytes | Reject:
    if len(row) != len(keys):
        return Reject("not_csv", f"{len(row)} cells, where there are {len(keys)} names")
    return b"{" + b",".join([key + _cell(cell, limits) for key, cell in zip(keys, row, strict=True)]) + b"}"


def _cell(cell: str, limits: Limits) -> bytes:
    if not cell:
        return b"null"
    return cell.encode() if _BARE.fullmatch(cell) else to_json(cell, limits)
