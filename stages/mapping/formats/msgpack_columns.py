"""MessagePack maps of texts, numbers, booleans and nil, read many at once, column by column. Pure.

Their keys are learned, and a Struct with an optional field for each of them is generated. A map with as many keys as
its Struct has values had none of them twice.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from stages.mapping.formats import each
from stages.mapping.formats.column_texts import Columns, not_finite, value_texts

#: Keys that have columns, at most, and how often the Struct is made anew.
_MOST_KEYS: Final = 128
_MOST_STRUCTS: Final = 40
#: Messages that are looked at for new keys, of those that cannot be read.
_LEARNED_FROM: Final = 20
_VALUE: Final = str | int | float | bool | None | UnsetType
_FLAT: Final = msgspec.msgpack.Decoder(dict[str, str | int | float | bool | None])
#: First byte of a map of fewer than 16 keys, but for their number.
_MAP: Final = 0x80
#: First byte of another map -> bytes of its length.
_LENGTHS: Final = {0xDE: 2, 0xDF: 4}
_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class MsgpackColumns:
    """Reads the maps of one topic. Not thread-safe: it learns their keys."""

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}
        self._structs_left = _MOST_STRUCTS
        self._decode: Callable[[bytes], Any] | None = None
        self._paths: tuple[tuple[str, ...], ...] = ()

    def columns(self, payloads: Sequence[bytes]) -> tuple[Columns, list[int] | None]:
        """See `column_texts.ReadColumns`."""
        structs = self._read(payloads)
        if None in structs:
            if self._learn([payload for payload, one in zip(payloads, structs, strict=True) if one is None]):
                structs = self._read(payloads)
            found = [index for index, one in enumerate(structs) if one is not None]
        else:
            found = list(range(len(payloads)))
        return self._columns(payloads, [one for one in structs if one is not None] if None in structs else structs,
                             found)

    def _read(self, payloads: Sequence[bytes]) -> list[Any]:
        """A Struct for each payload; None where there is none."""
        return [None] * len(payloads) if self._decode is None else each(self._decode, payloads, _ERRORS)

    def _columns(self, payloads: Sequence[bytes], structs: Sequence[Any],
                 found: list[int]) -> tuple[Columns, list[int] | None]:
        values = [_field(number)(structs) for number in range(len(self._keys))]
        if len(found) < len(payloads):
            payloads = [payloads[index] for index in found]
            is_whole = False
        else:
            is_whole = True
        bad: set[int] = set()
        try:
            # As many keys as values, and none of them is UNSET, which has no text: all are there, each once.
            if bytes([payload[0] for payload in payloads]) != bytes([_MAP | len(values)]) * len(payloads):
                raise TypeError
            texts = list(map(value_texts, values))
        except (TypeError, ValueError):
            values, bad = _lacking(payloads, values)
            texts = list(map(value_texts, values))
        for column, text in zip(values, texts, strict=True):
            if b"null" in text:
                bad.update(not_finite(column))
        if bad:
            keep = [row for row in range(len(structs)) if row not in bad]
            found = [found[row] for row in keep]
            texts = [value_texts([column[row] for row in keep]) for column in values]
        return Columns(self._paths, texts, len(found)), None if is_whole and not bad else found

    def _learn(self, payloads: Sequence[bytes]) -> bool:
        """Learns the keys of messages that could not be read. Whether there were new ones."""
        if self._structs_left <= 0:
            return False
        before = len(self._keys)
        for message in each(_FLAT.decode, payloads[:_LEARNED_FROM], _ERRORS):
            if message is not None and len(self._keys) + len(message) <= _MOST_KEYS:
                self._keys.update(dict.fromkeys(message))
        if len(self._keys) == before:
            return False
        self._structs_left -= 1
        names = {f"f{number}": key for number, key in enumerate(self._keys)}
        struct = msgspec.defstruct("Read", [(name, _VALUE, UNSET) for name in names], rename=names, frozen=True,
                                   forbid_unknown_fields=True, eq=False, gc=False)
        self._decode = msgspec.msgpack.Decoder(struct).decode
        self._paths = tuple([(key,) for key in self._keys])
        return True


@lru_cache(maxsize=_MOST_KEYS)
def _field(number: int) -> Callable[[Sequence[Any]], list[Any]]:
    """Gives one field of each Struct; an expression of its own is three times as fast as `attrgetter`."""
    made: Callable[[Sequence[Any]], list[Any]] = eval(f"lambda structs: [one.f{number} for one in structs]")  # nosec B307  # a number
    return made


def _lacking(payloads: Sequence[bytes], values: Sequence[list[Any]]) -> tuple[list[list[Any]], set[int]]:
    """The columns with None for what is not there, and the rows whose payloads have more keys than they have values."""
    lacking = [0] * len(payloads)
    for column in values:
        if UNSET in column:
            for row, value in enumerate(column):
                lacking[row] += value is UNSET
    whole = [[None if value is UNSET else value for value in column] if UNSET in column else column
             for column in values]
    return whole, {row for row, (payload, less) in enumerate(zip(payloads, lacking, strict=True))
                   if _keys_of(payload) + less != len(values)}


def _keys_of(payload: bytes) -> int:
    """The number of keys of a payload that is a map."""
    first = payload[0]
    return first & 0x0F if first < 0x90 else int.from_bytes(payload[1:1 + _LENGTHS[first]])
