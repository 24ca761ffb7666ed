"""One field of many messages whose values are texts: most devices send but a few of them, which are looked up."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from stages.mapping.budget import cost_of
from stages.mapping.compiled.tables import Column
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.reject import Reject

#: A value that was read as a text; None is null, and UNSET not there.
Text = str | None | UnsetType

#: New texts of a part that are looked up from then on, at most; with more, all are converted together.
_MAX_NEW: Final = 64
#: Parts of which all are converted together, after one that had more.
_TOGETHER: Final = 50
_encoder: Final = msgspec.json.Encoder()


def json_of(value: Text) -> str:
    """The JSON text of a value; "\\0" where it is not there."""
    return "\0" if value is UNSET else _encoder.encode(value).decode()


class TextColumn:
    """Makes the pieces of lines with one field. Not thread-safe."""

    def __init__(self, rules: RecordMapper, column: Column) -> None:
        self.lead = column.lead
        self._before = f",{column.lead}"
        self._convert = rules.converter(column.path)
        #: The pieces of values that were met.
        self._known: dict[Text, str] = {}
        self._share = rules.budget.share(self._known.clear)
        #: Parts to go without looking up.
        self._together = 0

    def pieces(self, values: Sequence[Text], bad: set[int]) -> list[str]:
        """Comma, `key=` and value of each message; "" where there is none. Indices of those that need the exact rules
        are added to `bad`.
        """
        if self._together > 0:
            self._together -= 1
            found = self._converted_together(values)
            if found is not None:
                return found
        out: list[Any] = list(map(self._known.get, values))
        if None in out:
            new = {value for value, piece in zip(values, out, strict=True) if piece is None}
            if len(new) > _MAX_NEW and (found := self._converted_together(values)) is not None:
                self._together = _TOGETHER
                return found
            made = {value: self._made(value) for value in new}
            wrong = {value for value, piece in made.items() if piece is None}
            out = [made[value] if piece is None else piece for value, piece in zip(values, out, strict=True)]
            if wrong:
                bad.update([index for index, value in enumerate(values) if value in wrong])
        return out

    def _made(self, value: Text) -> str | None:
        """The piece of one value; None where the exact rules have to say it."""
        if value is None or value is UNSET:
            piece = ""
        else:
            try:
                converted = self._convert(json_of(value))
            except Reject:
                return None
            piece = f"{self._before}{converted}" if converted else ""
        if self._share.takes(cost_of(piece, str(value))):
            self._known[value] = piece
        return piece

    def _converted_together(self, values: Sequence[Text]) -> list[str] | None:
        """The same for all of them, or None where one holds a NUL."""
        absent = [index for index, value in enumerate(values) if value is None or value is UNSET]
        if absent:
            values = list(values)
            for index in absent:
                values[index] = ""
        joined = "\0".join(values)  # type: ignore[arg-type]
        if joined.count("\0") != len(values) - 1:
            return None
        inner = joined.replace("\\", "\\\\").replace('"', '\\"')
        begin = f'{self._before}"'
        out = (begin + inner.replace("\0", f'"\0{begin}') + '"').split("\0")
        for index in absent:
            out[index] = ""
        return out
