"""JSON's escapes as single characters, so that a string ends at the next quote: for many messages at once. Pure.

Valid JSON has no control characters but white space around its values, so that they can stand for what is escaped. A
backslash and a quote are written in lines as they are in JSON; other escapes stand for a character that lines hold as
it is.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from stages.mapping.records.type_guard import SlowPathNeeded

_BACKSLASH: Final = "\x01"
_QUOTE: Final = "\x02"
#: What follows a backslash in JSON -> what stands for both.
_MARKS: Final = {"\\": _BACKSLASH, '"': _QUOTE, "/": "/", "n": "\x03", "t": "\x04", "r": "\x05", "b": "\x06",
                 "f": "\x07"}
#: What stands for an escape -> what a line has in a string.
_IN_LINES: Final = {_BACKSLASH: "\\\\", _QUOTE: '\\"', "\x03": "\n", "\x04": "\t", "\x05": "\r", "\x06": "\b",
                    "\x07": "\f"}
#: Is in no text that is `marked`.
_BETWEEN: Final = "\x1e"
#: An escape, without its backslash; those of `\u` that follow each other are one.
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}(?:\\u[0-9a-fA-F]{4})*+|.)", re.DOTALL)
_STRING: Final = msgspec.json.Decoder(str)
#: Runs of `\u` escapes that are remembered, and characters of one.
_REMEMBERED: Final = 1_000
_REMEMBERED_CHARS: Final = 200
_ANY_MARK: Final = str.maketrans(dict.fromkeys(_IN_LINES, "x"))


def marked(text: str) -> str:
    """Valid JSON with a character for each escape.

    Raises SlowPathNeeded where one is a control character, and msgspec.DecodeError where one is half a surrogate pair.
    """
    parts = _ESCAPE.split(text)
    parts[1::2] = [_MARKS.get(escape) or _unicode(escape) for escape in parts[1::2]]
    return "".join(parts)


def _unicode(escape: str) -> str:
    return _short_unicode(escape) if len(escape) <= _REMEMBERED_CHARS else _any_unicode(escape)


@lru_cache(maxsize=_REMEMBERED)
def _short_unicode(escape: str) -> str:
    return _any_unicode(escape)


def _any_unicode(escape: str) -> str:
    found = _STRING.decode(f'"\\{escape}"')
    if min(found) < " ":
        raise SlowPathNeeded
    return found.replace("\\", _BACKSLASH).replace('"', _QUOTE)


def without_marks(text: str) -> str:
    """A `marked` text with a letter for each escape that has a mark."""
    return text.translate(_ANY_MARK)


def in_lines(texts: Sequence[str]) -> Sequence[str]:
    """Parts of `marked` texts, with strings, as lines have them."""
    joined = _BETWEEN.join(texts)
    before = joined
    for mark, written in _IN_LINES.items():
        if mark in joined:
            joined = joined.replace(mark, written)
    return texts if joined is before else joined.split(_BETWEEN)
