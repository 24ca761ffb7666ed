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
_BARE = re.compile(rb'("(?:[^"\\]|\\.)*")|-?\b(?:NaN|Infinity)\b')
#: How the tokens NaN, Infinity and -Infinity stand in a record: JSON has no text for them. No line could hold the NUL.
NOT_NUMBERS = {f'"\\u0000{token}"': token for token in ("NaN", "Infinity", "-Infinity")}
#: Objects and arrays within each other, at most.
MAX_DEPTH = 64


def decode_object(payload: bytes) -> dict[str, str]:
    """The JSON text of each member of the object that a payload is; the last of equal keys. Raises Reject.

    The bare tokens NaN, Infinity and -Infinity, which Python's json writes, become keys of `NOT_NUMBERS`.
    """
    try:
        if not payload.isascii():
            payload.decode()
        return {key: str(raw, "utf-8") for key, raw in _OBJECT.decode(payload).items()}
    except msgspec.ValidationError as error:
        raise Reject("not_object" if is_json(payload) else "not_json", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        quoted = quote_not_numbers(payload)
        if quoted == payload:
            raise Reject("not_json", str(error)) from None
    return decode_object(quoted)


def quote_not_numbers(payload: bytes) -> bytes:
    """A payload with its bare NaN, Infinity and -Infinity as the strings of `NOT_NUMBERS`."""
    if b"NaN" not in payload and b"Infinity" not in payload:
        return payload
    return _BARE.sub(lambda match: match[1] or b'"\\u0000' + match[0] + b'"', payload)


def is_json(payload: bytes) -> bool:
    """Whether the payload is JSON at all."""
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

        Only for texts that `records` has taken: objects of scalars, nested as the configuration flattens them.
        """
        found: list[tuple[str, str, int, int]] = []
        try:
            end = self._scan(text, _skip(text, 0), None, "", found)
        except (_Opaque, IndexError):
            return None
        paths = [path for path, _, _, _ in found]
        return found if _skip(text, end) == len(text) and len(set(paths)) == len(paths) else None

    def _scan(self, text: str, at: int, path: str | None, key: str, found: list[tuple[str, str, int, int]]) -> int:
        """Reads the value at `at`, whose path is None for the whole object; returns where it ends."""
        if text[at] != "{":
            match = _STRING.match(text, at) or _SCALAR.match(text, at)
            if match is None:
                raise _Opaque
            found.append((path or "", key, at, match.end()))
            return match.end()
        if path is not None and (path in self._whole or self._nested != "flatten" and path not in self._opened):
            raise _Opaque
        at = _skip(text, at + 1)
        while text[at] != "}":
            match = _STRING.match(text, at)
            if match is None:
                raise _Opaque
            name = loads(match.group())
            at = _skip(text, _skip(text, match.end()) + 1)
            inner, inner_key = (name, name) if path is None else (f"{path}.{name}", f"{key}{self._separator}{name}")
            at = _skip(text, self._scan(text, at, inner, inner_key, found))
            if text[at] == ",":
                at = _skip(text, at + 1)
        return at + 1


_SCALAR = re.compile(r"[-+.0-9a-zA-Z]+")
_SPACE = re.compile(r"[ \t\r\n]*")


class _Opaque(Exception):
    """The text holds what has no fixed shape: an array, or an object kept as JSON."""


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
