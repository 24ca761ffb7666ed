"""Where each key of a TOML text stands: its line, and the spans of its name and value. Pure.

`tomllib` gives values without places. This scanner reads texts that `tomllib` has accepted, so it knows only as much of
the grammar as finding keys takes: headers, dotted and quoted keys, and where a value ends. Source: TOML 1.0.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY: Final = re.compile(r"""[ \t]*(?:([A-Za-z0-9_-]+)|("(?:[^"\\\n]|\\.)*")|('[^'\n]*'))[ \t]*""")
_STRING: Final = re.compile(r'''"""(?:[^"\\]|\\.|"(?!""))*"""(?:"{0,2})|\'\'\'(?:[^']|'(?!\'\'))*\'\'\'(?:'{0,2})'''
                            r'''|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\'''', re.DOTALL)
#: A number, boolean or time; a time may hold a space.
_PLAIN: Final = re.compile(r"[^,\]}#\n]*")


class KeyPlace(Struct, frozen=True):
    """One name in the text, of a header, of a dotted key, or alone."""

    #: The key as errors name it: "topics[0].stream".
    path: str
    #: From 1.
    line: int
    #: Where the name stands in the text, with its quotes: start and end.
    name: tuple[int, int]
    #: Where the value stands; equal ends where the name has none of its own (headers, and all but the last of a dotted
    #: key).
    value: tuple[int, int] = (0, 0)
    #: Whether the table or value is defined here, and not only named on the way to another.
    defined: bool = True


def key_lines(text: str) -> dict[str, int]:
    """Line of each key and of each element of arrays, by path: where it is defined, or else first named."""
    lines: dict[str, int] = {}
    named: dict[str, int] = {}
    for place in scan(text):
        (lines if place.defined else named).setdefault(place.path, place.line)
    return {**named, **lines}


def scan(text: str) -> list[KeyPlace]:
    """Every name in a text that `tomllib` accepts, in order. Of another text, those before what is not TOML."""
    scanner = _Scanner(text)
    try:
        scanner.run()
    except (_NotToml, RecursionError):
        pass
    return scanner.places


def joined(table: str, name: str) -> str:
    """The path of a key in a table; the names are not quoted, as in errors."""
    return f"{table}.{name}".lstrip(".")


class _NotToml(Exception):
    """The text is not TOML from here on."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.places: list[KeyPlace] = []
        self._text = text
        self._at = 0
        #: Line of `_counted_to`, so that lines are counted once.
        self._line, self._counted_to = 1, 0
        #: Path of each array of tables -> how many elements it has so far.
        self._arrays: dict[str, int] = {}

    def run(self) -> None:
        """Scans the whole text. Raises _NotToml."""
        table = ""
        while not self._at_end():
            if self._take("[["):
                table = self._header(is_array=True)
            elif self._take("["):
                table = self._header(is_array=False)
            else:
                self._key_and_value(table)

    def _at_end(self) -> bool:
        self._skip(_BLANK)
        return self._at >= len(self._text)

    def _skip(self, pattern: re.Pattern[str]) -> tuple[int, int]:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _NotToml
        self._at = match.end()
        return match.span()

    def _take(self, characters: str) -> bool:
        if self._text.startswith(characters, self._at):
            self._at += len(characters)
            return True
        return False

    def _expect(self, characters: str) -> None:
        if not self._take(characters):
            raise _NotToml

    def _line_at(self, position: int) -> int:
        self._line += self._text.count("\n", self._counted_to, position)
        self._counted_to = position
        return self._line

    def _names(self) -> Iterator[tuple[str, int, int]]:
        """The parts of a dotted key: name, start and end."""
        while True:
            match = _KEY.match(self._text, self._at)
            if match is None:
                raise _NotToml
            self._at = match.end()
            token = match[match.lastindex or 0]
            name = token if match[1] is not None else token[1:-1] if match[3] is not None else _unquoted(token)
            yield name, match.start(match.lastindex or 0), match.end(match.lastindex or 0)
            if not self._take("."):
                return

    def _header(self, is_array: bool) -> str:
        """Reads a header; returns the path of its table."""
        names = list(self._names())
        path = ""
        for number, (name, start, end) in enumerate(names):
            path = joined(path, name)
            is_last = number == len(names) - 1
            if is_last and is_array:
                self._arrays[path] = self._arrays.get(path, 0) + 1
            line = self._line_at(start)
            if path in self._arrays:
                if is_last:
                    self.places.append(KeyPlace(path, line, (start, end), defined=self._arrays[path] == 1))
                path = f"{path}[{self._arrays[path] - 1}]"
            self.places.append(KeyPlace(path, line, (start, end), defined=is_last))
        self._expect("]]" if is_array else "]")
        return path

    def _key_and_value(self, table: str) -> None:
        names = list(self._names())
        path = table
        for number, (name, start, end) in enumerate(names):
            path = joined(path, name)
            self.places.append(KeyPlace(path, self._line_at(start), (start, end), defined=number == len(names) - 1))
        index = len(self.places) - 1
        self._expect("=")
        value = self._value(path)
        last = self.places[index]
        self.places[index] = KeyPlace(last.path, last.line, last.name, value)

    def _value(self, path: str) -> tuple[int, int]:
        """Reads a value, and the keys in it; returns its span."""
        self._skip(_BLANK)
        start = self._at
        if self._take("["):
            self._elements(path)
        elif self._take("{"):
            self._inline_table(path)
        elif self._text[start:start + 1] in ('"', "'"):
            self._skip(_STRING)
        else:
            self._skip(_PLAIN)
            while self._at > start and self._text[self._at - 1] in " \t\r":
                self._at -= 1
        return start, self._at

    def _elements(self, path: str) -> None:
        index = 0
        while not self._at_end():
            if self._take("]"):
                return
            self.places.append(KeyPlace(f"{path}[{index}]", self._line_at(self._at), (self._at, self._at)))
            self._value(f"{path}[{index}]")
            index += 1
            self._skip(_BLANK)
            if not self._take(","):
                self._expect("]")
                return
        raise _NotToml

    def _inline_table(self, path: str) -> None:
        while not self._at_end():
            if self._take("}"):
                return
            self._key_and_value(path)
            self._skip(_BLANK)
            if not self._take(","):
                self._expect("}")
                return
        raise _NotToml


def _unquoted(token: str) -> str:
    try:
        return str(tomllib.loads(f"k = {token}")["k"])
    except ValueError:
        raise _NotToml from None
