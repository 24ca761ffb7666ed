"""From a payload to records: flat dictionaries from a value's path to its JSON text.

Values stay JSON texts all the way, so that no number passes through a float. A path is the keys from the outside in,
joined by dots; beside it stands the field key, joined by the configured separator.
"""

import json
import re
from collections.abc import Iterator, Set
from typing import Any, Literal, NamedTuple

import msgspec

from pipeline.config.schema import MappingConfig
from stages.mapping.limits import Limits, TooComplex
from stages.mapping.notices import Notices
from stages.mapping.records.declared import DeclaredTypes
from stages.mapping.reject import Reject, shown

#: path -> (field key, JSON text of the value). Where two values have one path, as in {"a.b": 1, "a": {"b": 2}}, the
#: second has a NUL behind it.
Record = dict[str, tuple[str, str]]

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
#: Only walks over a text, and so proves it JSON.
_RAW = msgspec.json.Decoder(msgspec.Raw)
# None of these goes back over what it has read: whatever a payload holds, they take time and memory by its length.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_PARTS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^"]++', re.DOTALL)
#: A string, and the colon behind it where it is a key.
_KEY = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"([ \t\r\n]*+:)?', re.DOTALL)
#: A string, closed or not, or a number that is none and not the key of a member.
_BARE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|(-?)\b(nan|inf(?:inity)?)\b(?![ \t\r\n]*+:)',
                   re.DOTALL | re.IGNORECASE)
#: Values, and characters of their paths and keys, of a message whose places are told: code is made for each of them.
_SPANNED_KEYS, _SPANNED_CHARS = 1_000, 100_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
#: How the tokens NaN, Infinity and -Infinity stand in a record: JSON has no text for them. No line could hold the NUL.
NOT_NUMBERS = {f'"\\u0000{token}"': token for token in ("NaN", "Infinity", "-Infinity")}


def decode_object(payload: bytes, limits: Limits) -> dict[str, str]:
    """The JSON text of each member of the object that a payload is; the last of equal keys. Raises Reject.

    A byte order mark before it does not count. Bare NaN and infinities become keys of `NOT_NUMBERS`.
    """
    try:
        return _members(payload, limits)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        wrong: Exception = error
    tolerated = _tolerated(payload)
    if tolerated != payload:
        try:
            return _members(tolerated, limits)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            wrong = error
    other = isinstance(wrong, msgspec.ValidationError) and is_json(tolerated)
    hint = "; it looks like UTF-16, and JSON is UTF-8" if payload[:2] in _UTF_16 else ""
    if payload[:1] == b"\0" and payload[5:6] in (b"{", b"["):
        hint = '; it begins like a header of Confluent\'s: set schema_header = "confluent"'
    raise Reject("not_object" if other else "not_json", f"{wrong}{hint}")


def _members(payload: bytes, limits: Limits) -> dict[str, str]:
    if not payload.isascii():
        payload.decode()
    if limits.may_be_over(payload):
        _RAW.decode(payload)  # what is no JSON says nothing by its commas
        limits.check_json(payload)
    members = _OBJECT.decode(payload)
    limits.check_keys(len(members))
    return {key: str(raw, "utf-8") for key, raw in members.items()}


def _tolerated(payload: bytes) -> bytes:
    """A payload without what is no JSON, and is taken all the same."""
    return quote_not_numbers(payload.removeprefix(_BYTE_ORDER_MARK))


def quote_not_numbers(payload: bytes) -> bytes:
    """A payload with its bare NaN and infinities, as the languages write them, as the strings of `NOT_NUMBERS`."""
    folded = payload.lower()
    if b"nan" not in folded and b"inf" not in folded:
        return payload
    out = bytearray()  # a list of the pieces would take twenty times their bytes
    at = 0
    for match in _BARE.finditer(payload):
        sign, word = match.groups()
        if word:
            out += payload[at:match.start()]
            out += b'"\\u0000NaN"' if word[:1] in b"nN" else b'"\\u0000%bInfinity"' % sign
            at = match.end()
    return bytes(out + payload[at:]) if at else payload


def is_array(payload: bytes) -> bool:
    """Whether a payload, if it is JSON, is an array."""
    return payload.removeprefix(_BYTE_ORDER_MARK).lstrip(b" \t\r\n")[:1] == b"["


def elements(payload: bytes, limits: Limits) -> list[bytes]:
    """The JSON texts of the elements of a payload that `is_array`. Raises Reject."""
    payload = _tolerated(payload)
    try:
        payload.decode()
        if limits.may_be_over(payload):
            _RAW.decode(payload)
            limits.check_json(payload)
        raws = _ARRAY.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Reject("not_json", str(error)) from None
    limits.check_points(len(raws))
    return [bytes(raw) for raw in raws]


def is_json(payload: bytes) -> bool:
    """Whether the payload is JSON at all, if it is UTF-8."""
    try:
        _RAW.decode(payload)
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


def twice(text: bytes, members: dict[str, str]) -> str:
    """A key that an object's JSON text has twice, or ""; `members` are those that were read from it."""
    # Each member has a colon of its own, beside those in values; only an escaped one in a key would not be seen.
    if text.count(b":") == len(members) + "".join(members.values()).count(":") and ":" not in "".join(members):
        return ""
    inside = sum([keys_in(member.encode()) for member in members.values() if "{" in member])
    if keys_in(text) - inside == len(members):
        return ""
    found: list[list[str]] = []
    try:
        json.loads(_tolerated(text), object_pairs_hook=lambda pairs: found.append([key for key, _ in pairs]))
    except (ValueError, RecursionError):
        return "?"
    return next((key for index, key in enumerate(found[-1]) if key in found[-1][:index]), "?")


def keys_in(text: bytes) -> int:
    """How many members the objects in a JSON text have, the outermost and those in it."""
    return sum(map(bool, _KEY.findall(text)))


class Records(NamedTuple):
    """What one payload holds."""

    #: Or what is wrong with one.
    found: list[Record | Reject]
    #: They are the elements of the array at `explode`.
    are_elements: bool = False


class Flattener:
    """Makes records as the mapping's `nested`, `flatten_separator`, `arrays` and `explode` say."""

    def __init__(self, config: MappingConfig, types: DeclaredTypes, notices: Notices) -> None:
        self._types = types
        self._notices = notices
        self._nested = config.nested
        self._arrays = config.arrays
        self._separator = config.flatten_separator
        self._array_separator = config.array_join_separator
        self._explode = config.explode
        #: How deep the array at that path is; the message is 1.
        self._explode_depth = config.explode.count(".") + 2
        self.limits = Limits.of(config)
        self._most_spans = min(_SPANNED_KEYS, self.limits.keys, self.limits.values)
        #: Whether the values at hand are those of an element of the exploded array.
        self._in_element = False
        #: Characters of the paths and keys made for the message at hand.
        self._path_chars = 0
        times = config.all_time_paths()
        paths = [*config.tag_fields, *config.field_names, config.measurement_field, *times, config.explode,
                 *config.template_paths()]
        #: Paths that a configured path or the tag map lies below: these objects are opened whatever `nested` says.
        self._opened = {prefix for path in paths for prefix in _prefixes(path)}
        #: Paths that keep their JSON text, whatever `nested` and `arrays` say.
        self._whole = {path for path, declared in config.types.items() if declared == "json"} - self._opened
        #: Paths of single values: an object or array there keeps its text, by which it is found to be none.
        self._single = {*config.tag_fields, config.measurement_field, *times, *config.template_paths(),
                        *config.bucket_paths()} - self._opened
        self._single = (self._single | {config.explode}) - {""}
        #: Paths that ask for one value: of two, one would be lost.
        self._chosen = {*config.tag_fields, config.measurement_field, *times, config.explode,
                        *config.template_paths(), *config.bucket_paths()}
        self._time_paths = frozenset(times)
        self._tag_map = config.tag_map_field
        self._opened |= {*_prefixes(self._tag_map), self._tag_map} - {""}
        #: Paths that are left out.
        self._excluded = frozenset(config.exclude_fields)
        #: Configured paths that begin at the exploded array, and the objects on their way.
        named = [*paths, *config.types, *config.field_renames, *config.tag_renames, *config.exclude_fields]
        self._in_elements = {part for path in named if config.explode and path.startswith(f"{config.explode}.")
                             for part in (path, *_prefixes(path))}

    def records(self, payload: bytes) -> Records:
        """The records of one payload: one, or with `explode` one for each element. Raises Reject for the whole."""
        record: Record = {}
        self._path_chars = 0
        self._in_element = False
        excluded = self._excluded
        opened = False
        for key, text in self._members(payload).items():
            if text[0] in "{[":
                self.add(record, key, key, text, 2)
                opened = True
            elif not excluded or key not in excluded:
                if opened:
                    self._put(record, key, key, text)
                else:
                    record[key] = key, text
        self.limits.check_keys(len(record))
        if not self._explode or self._explode not in record:
            self.limits.check_values(len(record))
            return Records([record])
        _, text = record.pop(self._explode)
        if text == "null":
            return Records([record])
        if not text.startswith("["):
            raise Reject("bad_field", f"{self._explode}: explode needs an array, not {shown(text)}")
        elements = items(text)
        self.limits.check_depth(self._explode_depth)
        self.limits.check_points(len(elements))
        values = len(elements) * (len(record) + 1)
        self.limits.check_values(values)
        records: list[Record | Reject] = []
        self._in_element = True
        for element in elements:
            try:
                found = self._element(record, element)
            except TooComplex:
                raise
            except Reject as reject:
                records.append(reject)
                continue
            records.append(found)
            values += len(found) - len(record) - 1
            self.limits.check_values(values)
        return Records(records, are_elements=True)

    def _element(self, record: Record, text: str) -> Record:
        element = dict(record)
        if text.startswith("{"):
            self.limits.check_depth(self._explode_depth + 1)
            for key, member in self._members(text.encode()).items():
                self.add(element, self.element_path(key), key, member, self._explode_depth + 2)
            self.limits.check_keys(len(element))
        else:
            key = self._explode.rpartition(".")[2]
            self.add(element, key, key, text, self._explode_depth + 1)
        return element

    def add(self, record: Record, path: str, key: str, text: str, depth: int) -> None:
        """Puts a value into a record, opened as far as the configuration says. Raises Reject.

        Only an object or array is at a `depth`; one that is a member of the message is at 2.
        """
        # A list of what is left instead of recursion: nothing above holds the text of what is inside it.
        todo = [(path, key, text, depth)]
        while todo:
            path, key, text, depth = todo.pop()
            if self._excluded and path in self._excluded:
                continue
            first = text[0]
            if first not in "{[":
                self._put(record, path, key, text)
                continue
            self.limits.check_depth(depth)
            treatment = self.treatment(path, first)
            if treatment == "keep":
                self._keep(record, path, key, text, depth)
            elif treatment == "open":
                members = self._members(text.encode())
                self._room(len(record) + len(todo), len(members), path, key)
                todo += [(f"{path}.{name}", f"{key}{self._separator}{name}", member, depth + 1)
                         for name, member in reversed(members.items())]
                del members
            elif treatment == "index":
                elements = items(text)
                self._room(len(record) + len(todo), len(elements), path, key)
                todo += [(f"{path}.{index}", f"{key}{self._separator}{index}", elements[index], depth + 1)
                         for index in range(len(elements) - 1, -1, -1)]
                del elements
            elif treatment == "join":
                self._join(record, path, key, text, depth)

    def treatment(self, path: str, first: str) -> Literal["keep", "open", "index", "join", "drop"]:
        """What becomes of an object or array at a path, by its first character: its text is kept, its members or
        elements become values of their own, one text is made of them, or it is left out.
        """
        if path in self._whole or path in self._single or self._types.has_json_patterns and (
                path not in self._opened and self._types.of(path) == "json"):
            return "keep"
        if first == "{":
            if self._nested == "flatten" or path in self._opened:
                return "open"
            return "keep" if self._nested != "drop" or self._is_tags(path) else "drop"
        if self._arrays in ("index", "join") and path != self._tag_map:
            return "index" if self._arrays == "index" else "join"
        return "keep" if self._arrays != "drop" or self._is_tags(path) else "drop"

    def element_path(self, key: str) -> str:
        """Path of a member of an element of the exploded array."""
        full = f"{self._explode}.{key}"
        return full if full in self._in_elements else key

    def _is_tags(self, path: str) -> bool:
        """Whether a value is the tag map, or in it: an object or array must not go missing there."""
        return bool(self._tag_map) and (path == self._tag_map or path.startswith(f"{self._tag_map}."))

    def _keep(self, record: Record, path: str, key: str, text: str, depth: int) -> None:
        # The exploded array itself is not kept; an element of it that is no object is, at the same path.
        if self._in_element or path != self._explode:
            self.limits.check_kept(text, depth)
        self._put(record, path, key, text)

    def _members(self, text: bytes) -> dict[str, str]:
        members = decode_object(text, self.limits)
        if name := twice(text, members):
            self._notices.note("duplicate_key", f"the key {shown(name)} is there twice in one object; the last one "
                                                "counts")
        return members

    def _put(self, record: Record, path: str, key: str, text: str) -> None:
        """Puts a value into a record that may have one at the same path. Raises Reject where one would be lost."""
        held = record.get(path)
        while held is not None and held[0] != key and path not in self._chosen:
            path += "\0"
            held = record.get(path)
        if held is not None and text == "null":
            return
        if held is not None and held[1] not in ("null", text) and not (self._in_element and path in self._time_paths):
            hint = f"; the element's own is {self._explode}.{path}" if self._in_element else ""
            self._notices.clash(f"{shown(path)}: {shown(held[1])} and {shown(text)} have one path{hint}")
        record[path] = key, text

    def _room(self, held: int, members: int, path: str, key: str) -> None:
        """Checks that a record that has `held` keys has room for the members of a value, and memory for their paths."""
        self.limits.check_keys(held + members)
        self._path_chars += members * (len(path) + len(key))
        self.limits.check_bytes(self._path_chars)

    def _join(self, record: Record, path: str, key: str, text: str, depth: int) -> None:
        self.limits.check_kept(text, depth)
        joined = self._array_separator.join([
            NOT_NUMBERS.get(element) or (str(loads(element)) if element[0] == '"' else compact(element))
            for element in items(text)])
        self._put(record, path, key, msgspec.json.encode(joined).decode())

    def spans(self, text: str) -> list[tuple[str, str, int, int]] | None:
        """(path, key, start, end) of each value of an object's text, in order; None where that can't be said.

        Only for valid JSON. It says what `records` makes of it: objects of scalars, nested as the configuration
        flattens them, in which no key is there twice.
        """
        found: list[tuple[str, str, int, int]] = []
        self._path_chars = 0
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
        if text[at] != "{":
            if path == self._tag_map and path:
                raise _Opaque
            match = _STRING.match(text, at) or _SCALAR.match(text, at)
            if match is None:
                raise _Opaque
            found.append((path or "", key, at, match.end()))
            return match.end()
        if depth >= self.limits.depth:
            raise _Opaque
        if path is not None and (path in self._whole or path in self._single or self._types.has_json_patterns
                                 or self._nested != "flatten" and path not in self._opened):
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
            self._path_chars += len(inner) + len(inner_key)
            if len(found) >= self._most_spans or self._path_chars > _SPANNED_CHARS:
                raise _Opaque
            at = _skip(text, self._scan(text, at, inner, inner_key, found, depth + 1))
            if text[at] == ",":
                at = _skip(text, at + 1)
        return at + 1


def _prefixes(path: str) -> Iterator[str]:
    """The paths of the objects that a path leads through."""
    return (path[:at] for at in range(len(path)) if path[at] == ".")


def is_within(path: str, paths: Set[str]) -> bool:
    """Whether the value at a path is one of those at `paths`, or a part of one."""
    return path in paths or any(prefix in paths for prefix in _prefixes(path))


_SCALAR = re.compile(r"[-+.0-9a-zA-Z]+")
_SPACE = re.compile(r"[ \t\r\n]*")


class _Opaque(Exception):
    """The text holds what has no fixed shape: an array, an object kept as JSON, a key that is there twice."""


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
