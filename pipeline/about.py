"""What the mapping of a message is told beside its payload: single headers, or everything that is known of it. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

#: Among the names of headers that a mapping needs: everything. No header has this name.
EVERYTHING: Final = ""


class About(Struct, frozen=True, array_like=True):
    """Times and headers of a message; times in microseconds since 1970, 0 if unknown."""

    #: When Iggy received the message.
    timestamp: int = 0
    #: When its producer made it.
    origin_timestamp: int = 0
    headers: dict[str, str] = {}


_decoder: Final = msgspec.json.Decoder(About)


def header_texts(names: Sequence[str], about: About) -> tuple[str, ...]:
    """The values of headers, "" for one that is missing; for `EVERYTHING` all that is known, as `read_about` reads."""
    return tuple([about.headers.get(name, "") if name else msgspec.json.encode(about).decode() for name in names])


def read_about(text: str) -> About:
    """What is known of a message; nothing if the text is empty."""
    return _decoder.decode(text) if text else About()
