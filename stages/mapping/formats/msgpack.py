"""`format = "msgpack"`: a map, or an array of maps, each a point. Keys become strings, `bin` values Base64."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from stages.mapping.formats import Transcoder, each
from stages.mapping.formats.json_values import json_or_reject, usual_texts
from stages.mapping.limits import Limits
from stages.mapping.reject import Reject

_decoder = msgspec.msgpack.Decoder(Any)
_encoder = msgspec.msgpack.Encoder()
#: Walks over a payload without making objects, and so proves that it is complete.
_raw = msgspec.msgpack.Decoder(msgspec.Raw)
#: Bytes that follow a first byte from 0xc0 to 0xdf: those of a value, and those of a length.
_FIXED: Final = {0xC0: 0, 0xC1: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1,
                 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_LENGTH: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4,
                  0xDE: 2, 0xDF: 4}


#: Values as other formats have them, too: texts for keys, objects and arrays within each other as deep as this.
_USUAL_DEPTH: Final = 5


def quick_msgpack(limits: Limits) -> Callable[[Sequence[bytes]], list[bytes | None]]:
    """The same for many payloads: texts of maps whose keys are texts, None for others (`formats.Quick`)."""
    value: Any = str | int | float | bool | None
    for _ in range(_USUAL_DEPTH - 1):
        value = str | int | float | bool | None | dict[str, value] | list[value]
    decode = msgspec.msgpack.Decoder(dict[str, value]).decode

    def texts(payloads: Sequence[bytes]) -> list[bytes | None]:
        values = each(decode, payloads, (msgspec.DecodeError, UnicodeDecodeError, RecursionError))
        again = list(map(_encoder.encode, values))
        # A key that is there twice makes what is encoded again shorter.
        if again != payloads or max(map(len, payloads)) > limits.values:
            values = [value if (one == payload or len(one) == len(payload) and b"\xca" not in payload)
                      and len(payload) <= limits.values else None
                      for value, payload, one in zip(values, payloads, again, strict=True)]
        return usual_texts(values, limits)

    return texts


def msgpack_transcoder(limits: Limits) -> Transcoder:
    """The transcoder: yields the map or maps."""
    def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
        try:
            if len(payload) > limits.values:
                _raw.decode(payload)
                _count_values(payload, limits)
            value = _decoder.decode(payload)
            if _may_lack(value, payload) and _count_values(payload, limits) > _values_in(value):
                raise Reject("not_msgpack", "a map has a key twice")
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError, ValueError) as error:
            raise Reject("not_msgpack", str(error)) from None
        if isinstance(value, list):
            limits.check_points(len(value))
            for number, element in enumerate(value, 1):
                yield f"element {number}: ", json_or_reject(element, limits)
        else:
            yield "", json_or_reject(value, limits)

    return objects


def _may_lack(value: Any, payload: bytes) -> bool:
    """Whether decoding may have dropped something: False if the value, encoded again, has the payload's length.

    Only a 32-bit float (0xca) becomes longer when it is encoded again.
    """
    return b"\xca" in payload or len(_encoder.encode(value)) != len(payload)


def _values_in(value: Any) -> int:
    """Number of values in a value, including itself and keys."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(_values_in, value.values()))
    return 1 + sum(map(_values_in, value)) if isinstance(value, list) else 1


def _count_values(payload: bytes, limits: Limits) -> int:
    """Number of values in a complete payload, without making an object for each. Raises TooComplex."""
    at = values = 0
    left = 1
    while left:
        left -= 1
        values += 1
        if values > limits.values:
            limits.check_values(values)
        first = payload[at]
        at += 1
        if first < 0x80 or first >= 0xE0:
            continue
        if first < 0xA0:
            left += (first & 0x0F) * (2 if first < 0x90 else 1)
        elif first < 0xC0:
            at += first & 0x1F
        elif first in _FIXED:
            at += _FIXED[first]
        else:
            size = _LENGTH[first]
            length = int.from_bytes(payload[at:at + size])
            at += size
            if first >= 0xDC:
                left += length * (2 if first >= 0xDE else 1)
            else:
                at += length + (first in (0xC7, 0xC8, 0xC9))
    return values
