"""From a payload to records: flat dictionaries from a value's path to its JSON text.

Values stay JSON texts all the way, so that no number passes through a float. A path is the keys from the outside in,
joined by dots; beside it stands the field key, joined by the configured separator.
"""

import re
from typing import Any

import msgspec

from pipeline.schema import MappingConfig
from stages.mapping.reject import Reject, shown

#: path -> (field key, JSON text of the value)
Record = dict[str, tuple[str, str]]

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|[^"]+')
#: A string, closed or not, or a number that is none and not the key of a member. Linear: it never goes back.
_BARE = re.compile(rb'("(?:[^"\\]|\\.)*+"?)|(-?)\b(nan|inf(?:inity)?)\b(?![ \t\r\n]*+:)', re.DOTALL | re.IGNORECASE)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: How the tokens NaN, Infinity and -Infinity stand in a record: JSON has no text for them. No line could hold the NUL.
NOT_NUMBERS = {f'"\\u0000{token}"': token for token in ("NaN", "Infinity", "-Infinity")}
#: Objects and arrays within each other, at most.
MAX_DEPTH = 64


def decode_object(payload: bytes) -> dict[str, str]:
    """The JSON text of each member of the object that a payload is; the last of equal keys. Raises Reject.

    A byte order mark before it does not count. Bare NaN and infinities become keys of `NOT_NUMBERS`.
    """
    try:
        return _members(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        wrong: Exception = error
    tolerated = _tolerated(payload)
    if tolerated != payload:
        try:
            return _members(tolerated)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            wrong = error
    other = isinstance(wrong, msgspec.ValidationError) and is_json(tolerated)
    raise Reject("not_object" if other else "not_json", str(wrong))


def _members(payload: bytes) -> dict[str, str]:
    if not payload.isascii():
        payload.decode()
    return {key: str(raw, "utf-8") for key, raw in _OBJECT.decode(payload).items()}


def _tolerated(payload: bytes) -> bytes:
    """A payload without what is no JSON, and is taken all the same."""
    return quote_not_numbers(payload.removeprefix(_BYTE_ORDER_MARK))


def quote_not_numbers(payload: bytes) -> bytes:
    """A payload with its bare NaN and infinities, as the languages write them, as the strings of `NOT_NUMBERS`."""
    return _BARE.sub(_quoted, payload)


def _quoted(match: re.Match[bytes]) -> bytes:
    string, sign, word = match.groups()
    if string is not None:
        return match[0]
    return b'"\\u0000NaN"' if word[:1] in b"nN" else b'"\\u0000%bInfinity"' % sign


def is_array(payload: bytes) -> bool:
    """Whether a payload, if it is JSON, is an array."""
    return payload.removeprefix(_BYTE_ORDER_MARK).lstrip(b" \t\r\n")[:1] == b"["


def elements(payload: bytes) -> list[bytes]:
    """The JSON texts of the elements of a payload that `is_array`. Raises Reject."""
    payload = _tolerated(payload)
    try:
        payload.decode()
        return [bytes(raw) for raw in _ARRAY.decode(payload)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Reject("not_json", str(error)) from None


def is_json(payload: bytes) -> bool:
    """Whether the payload is JSON at all, if it is UTF-8."""
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def loads(text: str) -> Any:
    """The value of a JSON text. Raises Reject for a string with half a surrogate pair, and for too deep a nesting."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Reject("bad_field", f"{error}: {shown(text)}") from None


def items(text: str) -> list[str]:
    """The JSON texts of an array's elements."""
    return [str(raw, "utf-8") for raw in _ARRAY.decode(text)]


def compact(text: str) -> str:
    """A JSON text without white space between its parts; numbers as they were written."""
    return "".join([NOT_NUMBERS.get(part, part) if part[0] == '"' else "".join(part.split())
                    for part in _PARTS.findall(text)])


class Flattener:
    """Makes records as the mapping's `nested`, `separator`, `arrays` and `explode` say."""

    def __init__(self, config: MappingConfig) -> None:
        self._nested = config.nested
        self._arrays = config.arrays
        self._separator = config.separator
        self._array_separator = config.array_separator
        self._explode = config.explode
        paths = [*config.tag_fields, *config.field_names, config.measurement_field, config.timestamp_field,
                 config.explode, *config.template_paths()]
        #: Paths that a configured path or the tag map lies below: these objects are opened whatever `nested` says.
        self._opened = {path[:at] for path in filter(None, paths) for at in range(len(path)) if path[at] == "."}
        #: Paths that keep their JSON text, whatever `nested` and `arrays` say.
        self._whole = {path for path, declared in config.types.items() if declared == "json"} - self._opened
        self._tag_map = config.tag_map_field
        if self._tag_map:
            self._opened |= {self._tag_map, *(self._tag_map[:at] for at in range(len(self._tag_map))
                                              if self._tag_map[at] == ".")}

    def records(self, payload: bytes) -> list[Record]:
        """The records of one payload: one, or with `explode` one for each element. Raises Reject."""
        record: Record = {}
        for key, text in decode_object(payload).items():
            if text[0] in "{[":
                self.add(record, key, key, text, 1)
            else:
                record[key] = key, text
        if not self._explode or self._explode not in record:
            return [record]
        _, text = record.pop(self._explode)
        if text == "null":
            return [record]
        if not text.startswith("["):
            raise Reject("bad_field", f"{self._explode}: explode needs an array, not {shown(text)}")
        return [self._element(record, element) for element in items(text)]

    def _element(self, record: Record, text: str) -> Record:
        element = dict(record)
        if text.startswith("{"):
            for key, member in decode_object(text.encode()).items():
                self.add(element, key, key, member, 2)
        else:
            key = self._explode.rpartition(".")[2]
            self.add(element, key, key, text, 2)
        return element

    def add(self, record: Record, path: str, key: str, text: str, depth: int) -> None:
        """Puts a value into a record, opened as far as the configuration says. Raises Reject."""
        if depth > MAX_DEPTH:
            raise Reject("bad_field", f"{shown(path)}: nested deeper than {MAX_DEPTH}")
        if path in self._whole:
            record[path] = key, text
            return
        first = text[0]
        if first == "{" and (self._nested == "flatten" or path in self._opened):
            for name, member in decode_object(text.encode()).items():
                self.add(record, f"{path}.{name}", f"{key}{self._separator}{name}", member, depth + 1)
            if self._nested != "json" or path in self._opened:
                return
        if first == "[" and path != self._explode and self._arrays != "json":
            self._add_array(record, path, key, text, depth)
        elif first != "{" or self._nested != "drop":
            record[path] = key, text

    def _add_array(self, record: Record, path: str, key: str, text: str, depth: int) -> None:
        if self._arrays == "index":
            for index, element in enumerate(items(text)):
                self.add(record, f"{path}.{index}", f"{key}{self._separator}{index}", element, depth + 1)
        elif self._arrays == "join":
            joined = self._array_separator.join([
                NOT_NUMBERS.get(element) or (str(loads(element)) if element[0] == '"' else compact(element))
                for element in items(text)])
            record[path] = key, msgspec.json.encode(joined).decode()

    def spans(self, text: str) -> list[tuple[str, str, int, int]] | None:
        """(path, key, start, end) of each value of an object's text, in order; None where that can't be said.

        Only for valid JSON. It says what `records` makes of it: objects of scalars, nested as the configuration
        flattens them, in which no key is there twice.
        """
        found: list[tuple[str, str, int, int]] = []
        begin = _skip(text, 0)
        if not text.startswith("{", begin):
            return None
        try:
            end = self._scan(text, begin, None, "", found, 0)
        except (_Opaque, IndexError):
            return None
        paths = [path for path, _, _, _ in found]
        return found if _skip(text, end) == len(text) and len(set(paths)) == len(paths) else None

    def _scan(self, text: str, at: int, path: str | None, key: str, found: list[tuple[str, str, int, int]],
              depth: int) -> int:
        """Reads the value at `at`, whose path is None for the whole object; returns where it ends."""
        if depth > MAX_DEPTH:
            raise _Opaque
        if text[at] != "{":
            match = _STRING.match(text, at) or _SCALAR.match(text, at)
            if match is None:
                raise _Opaque
            found.append((path or "", key, at, match.end()))
            return match.end()
        if path is not None and (path in self._whole or self._nested != "flatten" and path not in self._opened):
            raise _Opaque
        at = _skip(text, at + 1)
        names: set[str] = set()
        while text[at] != "}":
            match = _STRING.match(text, at)
            if match is None:
                raise _Opaque
            name = loads(match.group())
            if name in names:
                raise _Opaque
            names.add(name)
            at = _skip(text, _skip(text, match.end()) + 1)
            inner, inner_key = (name, name) if path is None else (f"{path}.{name}", f"{key}{self._separator}{name}")
            at = _skip(text, self._scan(text, at, inner, inner_key, found, depth + 1))
            if text[at] == ",":
                at = _skip(text, at + 1)
        return at + 1


_SCALAR = re.compile(r"[-+.0-9a-zA-Z]+")
_SPACE = re.compile(r"[ \t\r\n]*")


class _Opaque(Exception):
    """The text holds what has no fixed shape: an array, an object kept as JSON, a key that is there twice."""


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
