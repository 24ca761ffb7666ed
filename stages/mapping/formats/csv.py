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
from stages.mapping.formats.plain import to_json
from stages.mapping.limits import Limits
from stages.mapping.reject import Reject

_BARE: Final = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+|true|false|NaN|-?Infinity")


def csv_transcoder(header: Sequence[str], delimiter: str, limits: Limits) -> Transcoder:
    """Objects with the cells of a line at the keys in `header`; without one the payload's first line has them."""
    def objects(payload: bytes) -> Iterator[tuple[str, bytes]]:
        try:
            lines = io.StringIO(payload.decode("utf-8-sig"), newline="")
            rows = csv.reader(lines, delimiter=delimiter, strict=True)
            names = list(header) or next(rows, [])
            limits.check_keys(len(names))
            keys = [to_json(name, limits) + b":" for name in names]
            for row in rows:
                if row:
                    yield f"line {rows.line_num}: ", _object(keys, row, limits)
        except (UnicodeDecodeError, csv.Error) as error:
            raise Reject("not_csv", str(error)) from None

    return objects


def _object(keys: Sequence[bytes], row: Sequence[str], limits: Limits) -> bytes:
    if len(row) != len(keys):
        # One line that is no JSON: it is rejected, and the others of the payload are not.
        return b"a line with %d cells under %d names" % (len(row), len(keys))
    return b"{" + b",".join([key + _cell(cell, limits) for key, cell in zip(keys, row, strict=True)]) + b"}"


def _cell(cell: str, limits: Limits) -> bytes:
    if not cell:
        return b"null"
    return cell.encode() if _BARE.fullmatch(cell) else to_json(cell, limits)
