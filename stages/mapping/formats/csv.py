"""`format = "csv"`: one point for each line. Source: RFC 4180.

A cell that looks like a JSON number, or is true, false, NaN or an infinity, is one; an empty cell is null. Declare a
type where that is wrong: `types = { zip = "string" }` keeps 01234 and 12345 as they are.
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
    """The transcoder: yields an object for each line, with the keys in `header`, or else in the payload's first line.

    `trim` removes white space around names and cells, also before a quote.
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
    """The names in the first line. Raises Reject if a name occurs twice."""
    keys = [name.strip() for name in row] if trim else list(row)
    if len(set(keys)) < len(keys):
        name = next(name for index, name in enumerate(keys) if name in keys[:index])
        raise Reject("not_csv", f'line 1: two columns are named "{shown(name)}"; set csv_header')
    return keys


def _object(keys: Sequence[bytes], row: Sequence[str], limits: Limits) -> bytes | Reject:
    if len(row) != len(keys):
        return Reject("not_csv", f"{len(row)} cells for {len(keys)} names")
    return b"{" + b",".join([key + _cell(cell, limits) for key, cell in zip(keys, row, strict=True)]) + b"}"


def _cell(cell: str, limits: Limits) -> bytes:
    if not cell:
        return b"null"
    return cell.encode() if _BARE.fullmatch(cell) else to_json(cell, limits)
