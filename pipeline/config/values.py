"""Walks a configuration's tables beside the schema: replaces variables, converts, names every mistake. Pure."""

import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from pipeline.config.renamed import canonical_key, renamed_key
from pipeline.config.variables import Place, expand, holds_variable

#: Values of variables at least this long, characters, are replaced by the variables' names in errors.
REDACTED_CHARACTERS: Final = 6
#: Most characters of a value that an error shows.
SHOWN_CHARACTERS: Final = 160
#: Integers beyond 64 bits fit nowhere: neither between processes nor to Iggy.
INTEGERS: Final = range(-2**63, 2**64)
#: Upper limits from here on are technical.
UNTOLD_LIMIT: Final = 1_000_000_000
_INDEX: Final = re.compile(r"\[\d+\]")
#: User and password in a URL.
_USERINFO: Final = re.compile(r"[^/:@]*:[^/@]*@")
_LONG: Final = re.compile(rf'"([^"]{{{SHOWN_CHARACTERS},}})"')
#: Last parts of keys whose values are never shown, and of those whose strings are addresses, or data.
_SECRETS: Final = ("password", "token", "headers")
_ADDRESSES: Final = ("url", "urls", "proxy", "address", "listen")
_DATA: Final = ("query", "when")

#: Whether a key such as "sinks[0].influxdb.token" is used by the command.
Used = Callable[[str], bool]


class _LeftOut:
    """Stands for a value that is left out: it is wrong, or its variable is unset and the command does not need it."""


_LEFT_OUT: Final = _LeftOut()


class Reading:
    """Reads one configuration's values, and collects a line for each mistake in `problems`: key, what is allowed."""

    def __init__(self, environ: Mapping[str, str], folder: str, unused: Collection[str] = ()) -> None:
        """`folder` is what relative paths are relative to; `unused` tables and keys may lack their variables."""
        self.problems: list[str] = []
        self._environ = environ
        self._folder = folder
        self._unused = tuple(unused)
        #: Variable -> its value, of those that were replaced.
        self._replaced: dict[str, str] = {}
        #: Tables with a key whose variable is not set.
        self._incomplete: set[str] = set()

    def is_used(self, key: str) -> bool:
        """Whether a key such as "sinks[0].influxdb.token" is used: neither it nor a table that it is in is unused."""
        name = canonical_key(key)
        return not any(name == unused or name.startswith(f"{unused}.") for unused in self._unused)

    def depends_on_unset(self, problem: str) -> bool:
        """Whether a mistake is in a table with an unset variable, so that it may not be one."""
        return any(problem.startswith(table) for table in self._incomplete)

    def redacted(self, problem: str) -> str:
        """A mistake as it may be shown: no value from the environment, no password in a URL, nothing very long."""
        for name, value in sorted(self._replaced.items(), key=lambda item: -len(item[1])):
            if len(value) >= REDACTED_CHARACTERS:
                problem = problem.replace(value, f"${{{name}}}")
        return _LONG.sub(lambda match: f'"{match[1][:SHOWN_CHARACTERS - 3]}..."', problem)

    def value(self, value: Any, expected: Any, key: str) -> Any:
        """`value` converted to the schema's type `expected`. The result is meaningless if there are problems."""
        if isinstance(expected, type) and issubclass(expected, msgspec.Struct):
            return self._table(value, expected, key)
        origin, arguments = typing.get_origin(expected), typing.get_args(expected)
        if origin is tuple and arguments[-1] is Ellipsis:
            return self._list(value, arguments[0], key)
        if origin is dict:
            return self._dictionary(value, arguments[1], key)
        if expected is Any or isinstance(value, dict) and typing.Any in _flat(expected):
            return self._anything(value, key)
        return self._scalar(value, expected, key)

    def _table(self, value: Any, expected: type[msgspec.Struct], key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._no_table(value, key)
            return {}
        fields = {field.encode_name: field for field in msgspec.structs.fields(expected)}
        out = {}
        given = set(value)
        for name, item in value.items():
            path = f"{key}.{name}".lstrip(".")
            if name not in fields:
                given.add(self._unknown_key(item, fields, path))
                continue
            found = self.value(item, fields[name].type, path)
            if found is not _LEFT_OUT or fields[name].required:
                out[name] = found if found is not _LEFT_OUT else item
        for name, field in fields.items():
            if field.required and name not in given:
                self.problems.append(f"{key}.{name}".lstrip(".") + ": missing; it is required")
        return out

    def _unknown_key(self, value: Any, fields: Mapping[str, msgspec.structs.FieldInfo], path: str) -> str:
        """Names a key that the table does not have. Returns the key that is meant, or "" where that is not known."""
        name = path.rpartition(".")[2]
        if renamed := renamed_key(path):
            self.problems.append(f"{path}: {renamed.answer(value)}")
            if isinstance(value, dict | list):
                # Its content is checked, too, so that all mistakes are named at once.
                self.value(value, fields[renamed.name].type, path)
            return renamed.name
        near = difflib.get_close_matches(name, fields, 1)
        hint = f"did you mean {near[0]}?" if near else "allowed here: " + ", ".join(fields)
        self.problems.append(f"{path}: unknown key; {hint}")
        return ""

    def _list(self, value: Any, expected: Any, key: str) -> Any:
        if isinstance(value, str) and holds_variable(value):
            text = self._expanded(value, key)
            if not isinstance(text, str):
                return text
            return [self._checked(_typed(item, expected), expected, f"{key}[{index}]", shown(value))
                    for index, item in enumerate(_items(text))]
        if not isinstance(value, list):
            self.problems.append(f"{key}: {shown(value)} is not a list")
            return []
        found = [self.value(item, expected, f"{key}[{index}]") for index, item in enumerate(value)]
        return [item for item in found if item is not _LEFT_OUT]

    def _dictionary(self, value: Any, expected: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._no_table(value, key)
            return {}
        if expected is Any:
            return {name: self._anything(item, f"{key}.{name}") for name, item in value.items()}
        self.problems += [f"{key}.{name}: variables are replaced in values only, and this is a key"
                          for name in value if holds_variable(name)]
        found = {name: self.value(item, expected, f"{key}.{name}") for name, item in value.items()}
        return {name: item for name, item in found.items() if item is not _LEFT_OUT}

    def _no_table(self, value: Any, key: str) -> None:
        text = "a string" if isinstance(value, str) else shown(value)
        self.problems.append(f"{key}: {_unless_secret(key, text)} is not a table")

    def _anything(self, value: Any, key: str) -> Any:
        """Data, whatever it is."""
        if isinstance(value, dict):
            return {name: self._anything(item, f"{key}.{name}") for name, item in value.items()}
        if isinstance(value, list):
            return [self._anything(item, f"{key}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, str):
            return self._expanded(value, key)
        if isinstance(value, int) and value not in INTEGERS:
            self.problems.append(f"{key}: {shown(value)} has more than 64 bits")
        return value

    def _scalar(self, value: Any, expected: Any, key: str) -> Any:
        if isinstance(value, datetime) and str in _flat(expected):
            # TOML has a type for times, written without quotes.
            value = value.isoformat()
        if not isinstance(value, str):
            return self._checked(value, expected, key, shown(value))
        text = self._expanded(value, key, _is_path(expected))
        if not isinstance(text, str):
            return text
        if not holds_variable(value):
            return self._checked(text, expected, key, shown(text))
        return self._checked(_typed(text, expected), expected, key, f"{shown(value)}, as the environment has it,")

    def _checked(self, value: Any, expected: Any, key: str, text: str) -> Any:
        """A value without variables; `text` shows it."""
        try:
            if isinstance(value, int) and value not in INTEGERS:
                raise msgspec.ValidationError
            msgspec.convert(value, expected, strict=True)
        except msgspec.ValidationError:
            self.problems.append(f"{key}: {_unless_secret(key, text)} is not allowed; give {_allowed(expected, value)}")
            return value
        if value and _is_path(expected):
            if "\0" in value:
                self.problems.append(f"{key}: {text} is not allowed; give the path of a file")
                return value
            return os.path.join(self._folder, value)
        return value

    def _expanded(self, raw: str, key: str, is_path: bool = False) -> Any:
        """The text with its variables replaced, or `_LEFT_OUT`."""
        found = expand(raw, self._environ, _place(key, is_path))
        self._replaced.update(found.values)
        if found.unset and not self.is_used(key):
            self._incomplete.add(_parent(key))
            return _LEFT_OUT
        if found.problems or found.unset:
            self.problems += [f"{key}: {problem}" for problem in (*found.problems, *found.unset)]
            return _LEFT_OUT
        return found.text


def _unless_secret(key: str, text: str) -> str:
    return "the value" if key.rpartition(".")[2] in _SECRETS or ".headers." in key else text


def shown(value: Any) -> str:
    """A value for errors. Tables and lists may contain secrets, so only their kind is named."""
    if isinstance(value, str):
        return f'"{_USERINFO.sub("***@", value)}"'
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and value not in INTEGERS and abs(value) >= 10**SHOWN_CHARACTERS:
        return f"an integer of {value.bit_length()} bits"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS - 3] + "..."


def _parent(key: str) -> str:
    return key.rpartition(".")[0] + "." if "." in key else key


def _place(key: str, is_path: bool) -> Place:
    name = _INDEX.sub("", key)
    last = name.rpartition(".")[2]
    if name.startswith("tests.") or last in _DATA:
        return "data"
    return "address" if is_path or last in _ADDRESSES else "text"


def _is_path(expected: Any) -> bool:
    return any(isinstance(meta, msgspec.Meta) and (meta.extra or {}).get("path")
               for meta in getattr(expected, "__metadata__", ()))


def _flat(expected: Any) -> set[Any]:
    """The plain types of a type; of tables, what they hold."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Annotated:
        return _flat(arguments[0])
    if origin is typing.Literal:
        return {str}
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(_flat, arguments))
    return {arguments[1]} if origin is dict else {expected}


def _typed(text: str, expected: Any) -> object:
    """A variable's text as the number or boolean that a key takes; else the text unchanged."""
    wanted, word = _flat(expected), text.strip()
    if bool in wanted and word.lower() in ("true", "false"):
        return word.lower() == "true"
    for kind in (int, float):
        if kind in wanted and word.isascii() and len(word) <= SHOWN_CHARACTERS:
            try:
                return kind(word)
            except ValueError:
                continue
    return text


def _items(text: str) -> list[str]:
    """A list from a variable's text: as TOML has it, in brackets, or with commas between the items."""
    if text.strip().startswith("["):
        try:
            values = tomllib.loads(f"items = {text}")
        except (ValueError, RecursionError):
            return [text]
        if values.keys() == {"items"} and isinstance(values["items"], list):
            return [item if isinstance(item, str) else str(item) for item in values["items"]]
    return [item.strip() for item in text.split(",") if item.strip()]


def _allowed(expected: Any, value: object) -> str:
    """The description of what a key accepts instead of `value`."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Annotated:
        return _allowed(arguments[0], value) + _bounds(arguments[1], value)
    if origin is typing.Literal:
        return " or ".join(f'"{choice}"' for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_allowed(argument, value) for argument in arguments)
    if origin is dict:
        return "a table"
    return {int: "an integer", float: "a number", str: "a string", bool: "true or false"}.get(expected, str(expected))


def _bounds(meta: msgspec.Meta, value: object) -> str:
    if meta.max_length == 1:
        return " of one character"
    if meta.min_length:
        return " that is not empty"
    # A limit that is far away is named only to those who exceed it.
    if meta.ge is not None and meta.le is not None and (
            meta.le < UNTOLD_LIMIT or isinstance(value, int) and value > meta.le):
        return f" from {meta.ge} to {meta.le}"
    return f" of {meta.ge} or more" if meta.ge is not None else ""
