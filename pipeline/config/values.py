"""Walks a configuration's tables beside the schema: replaces variables, converts, names every mistake. Pure."""

import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Collection, Mapping
from datetime import date
from typing import Any, Final

import msgspec

from pipeline.config.allowed import allowed, choices_of, elsewhere, near_choice
from pipeline.config.renamed import canonical_key, renamed_key
from pipeline.config.secret_keys import is_secret
from pipeline.config.variables import Place, expand, holds_variable

#: Values of variables at least this long, characters, are replaced by the variables' names in errors.
REDACTED_CHARACTERS: Final = 6
#: Most mistakes that are named: a file with more is another file than was meant.
MAX_PROBLEMS: Final = 1_000
#: Most characters of a value that an error shows.
SHOWN_CHARACTERS: Final = 160
#: Keys whose mistakes may be none, where another key of the table is wrong.
_DEPEND_ON: Final = {"version": ("bucket", "database", "org"), "database": ("bucket",)}
#: Integers beyond 64 bits fit nowhere: neither between processes nor to Iggy.
INTEGERS: Final = range(-2**63, 2**64)
#: Characters of a text that are looked at to show it.
_MAX_SHOWN: Final = 2_000
_INDEX: Final = re.compile(r"\[\d+\]")
#: User and password in a URL.
_USERINFO: Final = re.compile(r"[^/:@]*:[^/@]*@|(?<=//)[^/@:\s]+@")
_LONG: Final = re.compile(rf'"([^"]{{{SHOWN_CHARACTERS},}})"')
#: Last parts of keys whose strings are addresses, or data.
_ADDRESSES: Final = ("url", "urls", "proxy", "address", "listen")
_DATA: Final = ("query", "when", "jq", "program", "pattern", "with")

#: Whether a key such as "sinks[0].influxdb.token" is used by the command.
Used = Callable[[str], bool]


class Verbatim(str):
    """A text from the environment: no variables are replaced in it."""

    __slots__ = ()


class _LeftOut:
    """Stands for a value that is left out: it is wrong, or its variable is unset and the command does not need it."""


_LEFT_OUT: Final = _LeftOut()


class Reading:
    """Reads one configuration's values, and collects a line for each mistake in `problems`: key, what is allowed."""

    def __init__(self, environ: Mapping[str, str], folder_of: Callable[[str], str],
                 unused: Collection[str] = ()) -> None:
        """`folder_of`: key -> what a relative path in it is relative to. `unused` tables and keys may lack their
        variables."""
        self.problems: list[str] = []
        #: Keys that are wrong, missing, or named otherwise: in the values they are left out.
        self.wrong: set[str] = set()
        #: Keys, without their tables, on lines that are not TOML: they are there, but their values are not known.
        self.skipped: set[str] = set()
        self._environ = environ
        self._folder_of = folder_of
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

    @property
    def is_full(self) -> bool:
        """Whether so many mistakes were found that no more are looked for."""
        return len(self.problems) >= MAX_PROBLEMS

    def hide(self, name: str, value: str) -> None:
        """Has errors show the variable's name instead of its value."""
        self._replaced[name] = value

    def replaced(self) -> set[str]:
        """The variables that were replaced."""
        return set(self._replaced)

    def follows(self, problem: str) -> bool:
        """Whether a mistake that was found later is about a key that is wrong already, or only seems to be one because
        of it."""
        key = problem.partition(": ")[0]
        if any(_has_word(problem, name) for name in self.skipped):
            return True
        return any(key == wrong or key.startswith((f"{wrong}.", f"{wrong}["))
                   or key == _table_of(wrong)[:-1] and _has_word(problem, wrong.rpartition(".")[2]) or (
            problem.startswith(_table_of(wrong)) and (
                _mentions(problem, wrong.rpartition(".")[2])
                or key.rpartition(".")[2] in _DEPEND_ON.get(wrong.rpartition(".")[2], ())))
            for wrong in self.wrong)

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
        if choices := _tagged(expected):
            return self._one_of(value, choices, key)
        if isinstance(value, list) and origin in (typing.Union, types.UnionType):
            # Where one text, or several, are allowed.
            listed = [one for one in arguments if typing.get_origin(one) is tuple]
            origin, arguments = (tuple, typing.get_args(listed[0])) if listed else (origin, arguments)
        if origin is tuple and arguments[-1] is Ellipsis:
            return self._list(value, arguments[0], key)
        if origin is dict:
            return self._dictionary(value, arguments[1], key)
        if expected is Any or isinstance(value, dict) and typing.Any in _flat(expected):
            return self._anything(value, key)
        return self._scalar(value, expected, key)

    def _one_of(self, value: Any, choices: Mapping[str, type[msgspec.Struct]], key: str) -> dict[str, Any]:
        """A table of the kind that its tag says."""
        if not isinstance(value, dict):
            self._no_table(value, key)
            return self._any_of(choices, key)
        field = str(next(iter(choices.values())).__struct_config__.tag_field)
        tag = value.get(field)
        if not isinstance(tag, str) or tag not in choices:
            near = difflib.get_close_matches(tag, choices, 1) if isinstance(tag, str) else []
            said = f"{shown(tag)} is not allowed" if field in value else "missing"
            if field in value or field not in self.skipped:
                self._add(f"{key}.{field}", f"{said}; " + (
                    f"did you mean {near[0]}?" if near else f"give one of {', '.join(choices)}"))
            return self._any_of(choices, key)
        rest = {name: item for name, item in value.items() if name != field}
        return {field: tag, **self._table(rest, choices[tag], key)}

    def _any_of(self, choices: Mapping[str, type[msgspec.Struct]], key: str) -> dict[str, Any]:
        """A table that stands for one whose kind is not known, so that the rest can be checked."""
        self.wrong.add(key)
        tag, struct = next(iter(choices.items()))
        return {str(struct.__struct_config__.tag_field): tag, **self._stand_in(struct, key)}

    def _table(self, value: Any, expected: type[msgspec.Struct], key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._no_table(value, key)
            value = {field.encode_name: _LEFT_OUT for field in msgspec.structs.fields(expected) if field.required}
        fields = {field.encode_name: field for field in msgspec.structs.fields(expected)}
        out = {}
        given = set(value)
        for name, item in value.items():
            if self.is_full:
                break
            path = f"{key}.{name}".lstrip(".")
            if value[name] is _LEFT_OUT:
                continue
            if name not in fields:
                given.add(self._unknown_key(item, fields, path))
                continue
            found = self.value(item, fields[name].type, path)
            if found is not _LEFT_OUT:
                out[name] = found
        for name, field in fields.items():
            if field.required and name not in given and name in self.skipped:
                self.wrong.add(f"{key}.{name}".lstrip("."))
            elif field.required and name not in given:
                self._add(f"{key}.{name}".lstrip("."), "missing; it is required")
            if field.required and name not in out:
                out[name] = self._stand_in(field.type, f"{key}.{name}".lstrip("."))
        return out

    def _stand_in(self, expected: Any, key: str) -> Any:
        """A value for a required key that is wrong or missing, so that the rest can be checked."""
        if isinstance(expected, type) and issubclass(expected, msgspec.Struct):
            return {field.encode_name: self._stand_in(field.type, f"{key}.{field.encode_name}")
                    for field in msgspec.structs.fields(expected) if field.required}
        if choices := choices_of(expected):
            return choices[0]
        if str in _flat(expected):
            return f"missing {key}"
        return [] if typing.get_origin(expected) is tuple else {}

    def _add(self, key: str, what: str) -> None:
        self.problems.append(f"{key}: {what}")
        self.wrong.add(key)

    def _unknown_key(self, value: Any, fields: Mapping[str, msgspec.structs.FieldInfo], path: str) -> str:
        """Names a key that the table does not have. Returns the key that is meant, or "" where that is not known."""
        name = path.rpartition(".")[2]
        if renamed := renamed_key(path):
            self._add(path, renamed.answer(value))
            self.wrong.add(f"{path.rpartition('.')[0]}.{renamed.name}".lstrip("."))
            if isinstance(value, dict | list):
                # Its content is checked, too, so that all mistakes are named at once.
                self.value(value, fields[renamed.name].type, path)
            return renamed.name
        near = difflib.get_close_matches(name, fields, 1)
        hint = f"did you mean {near[0]}?" if near else elsewhere(name) or "allowed here: " + ", ".join(fields)
        self._add(path, f"unknown key; {hint}")
        if near:
            self.wrong.add(f"{path.rpartition('.')[0]}.{near[0]}".lstrip("."))
        return near[0] if near and fields[near[0]].required else ""

    def _list(self, value: Any, expected: Any, key: str) -> Any:
        if isinstance(value, str) and holds_variable(value):
            text = self._expanded(value, key)
            if not isinstance(text, str):
                return text
            found = [self._checked(_typed(item, expected), expected, f"{key}[{index}]", shown(value))
                     for index, item in enumerate(_items(text))]
            return [item for item in found if item is not _LEFT_OUT]
        if not isinstance(value, list):
            self._add(key, f"{shown(value)} is not a list")
            return []
        found = [self.value(item, expected, f"{key}[{index}]") for index, item in enumerate(value)
                 if not self.is_full]
        return [item for item in found if item is not _LEFT_OUT]

    def _dictionary(self, value: Any, expected: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._no_table(value, key)
            return {}
        if expected is Any:
            return {name: self._anything(item, f"{key}.{name}") for name, item in value.items()}
        for name in value:
            if holds_variable(name):
                self._add(f"{key}.{name}", "variables are replaced in values only, and this is a key")
        found = {name: self.value(item, expected, f"{key}.{name}") for name, item in value.items()}
        return {name: item for name, item in found.items() if item is not _LEFT_OUT}

    def _no_table(self, value: Any, key: str) -> None:
        text = "a string" if isinstance(value, str) else shown(value)
        self._add(key, f"{_unless_secret(key, text)} is not a table")

    def _anything(self, value: Any, key: str) -> Any:
        """Data, whatever it is."""
        if isinstance(value, dict):
            found = {name: self._anything(item, f"{key}.{name}") for name, item in value.items()}
            return {name: item for name, item in found.items() if item is not _LEFT_OUT}
        if isinstance(value, list):
            some = [self._anything(item, f"{key}[{index}]") for index, item in enumerate(value)]
            return [item for item in some if item is not _LEFT_OUT]
        if isinstance(value, str):
            return self._expanded(value, key)
        if isinstance(value, int) and value not in INTEGERS:
            self._add(key, f"{shown(value)} has more than 64 bits")
            return _LEFT_OUT
        return value

    def _scalar(self, value: Any, expected: Any, key: str) -> Any:
        if isinstance(value, date) and str in _flat(expected):
            # TOML has a type for times, written without quotes.
            value = value.isoformat()
        if not isinstance(value, str):
            return self._checked(value, expected, key, shown(value))
        text = self._expanded(value, key, is_path(expected))
        if not isinstance(text, str):
            return text
        if not holds_variable(value) or isinstance(value, Verbatim):
            return self._checked(text, expected, key, shown(text))
        return self._checked(_typed(text, expected), expected, key, f"{shown(value)}, as the environment has it,")

    def _checked(self, value: Any, expected: Any, key: str, text: str) -> Any:
        """A value without variables; `text` shows it."""
        try:
            if isinstance(value, int) and value not in INTEGERS:
                raise msgspec.ValidationError
            msgspec.convert(value, expected, strict=True)
        except msgspec.ValidationError:
            self._add(key, f"{_unless_secret(key, text)} is not allowed; give {allowed(expected, value)}"
                      + near_choice(expected, value))
            return _LEFT_OUT
        if value and is_path(expected):
            if "\0" in value:
                self._add(key, f"{text} is not allowed; give the path of a file")
                return _LEFT_OUT
            return os.path.join(self._folder_of(key), value)
        return value

    def _expanded(self, raw: str, key: str, is_path: bool = False) -> Any:
        """The text with its variables replaced, or `_LEFT_OUT`."""
        if isinstance(raw, Verbatim):
            return str(raw)
        found = expand(raw, self._environ, _place(key, is_path))
        self._replaced.update(found.values)
        if found.unset and not self.is_used(key):
            self._incomplete.add(_parent(key))
            return _LEFT_OUT
        if found.problems or found.unset:
            for problem in (*found.problems, *found.unset):
                self._add(key, problem)
            return _LEFT_OUT
        return found.text


def _unless_secret(key: str, text: str) -> str:
    hidden = is_secret(key) or key.rpartition(".")[2] == "headers" or ".headers." in key
    return "the value" if hidden else text


def shown(value: Any) -> str:
    """A value for errors. Tables and lists may contain secrets, so only their kind is named."""
    if isinstance(value, str):
        text = value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "..."
        return f'"{_USERINFO.sub("***@", text) if "@" in text else text}"'
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and value not in INTEGERS and abs(value) >= 10**SHOWN_CHARACTERS:
        return f"an integer of {value.bit_length()} bits"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS - 3] + "..."


def _table_of(key: str) -> str:
    """The table that a key is in, with its dot; "" at the top."""
    return key.rpartition(".")[0] + "." if "." in key else ""


def _has_word(problem: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(_INDEX.sub('', name))}(?!\w)", problem) is not None


def _mentions(problem: str, name: str) -> bool:
    """Whether a mistake names a key. Many keys are words of a sentence, too: "to", "name", "file"."""
    word = re.escape(_INDEX.sub("", name))
    if "_" in word:
        return _has_word(problem, name)
    return re.search(rf"(?:\b(?:with|beside|without|than)(?: \[+| )|[.`]){word}(?!\w)|(?<!\w){word} =",
                     problem) is not None


def text_as(text: str, expected: Any) -> Any:
    """A text from outside the files as what a key takes: TOML, a list with commas, or the text itself."""
    origin = typing.get_origin(expected)
    if origin is tuple:
        try:
            found = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError, KeyError):
            found = None
        return found if isinstance(found, list) else [_typed(item, typing.get_args(expected)[0])
                                                      for item in _items(text)]
    try:
        value = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return _typed(text, expected)
    if value.keys() != {"value"}:
        return text
    found = value["value"]
    if origin is dict:
        return found
    wanted = _flat(expected)
    if str in wanted and type(found) not in (str, *wanted) and not (isinstance(found, dict) and Any in wanted):
        return text
    return found


def _parent(key: str) -> str:
    return key.rpartition(".")[0] + "." if "." in key else key


def _place(key: str, is_path: bool) -> Place:
    name = _INDEX.sub("", key)
    last = name.rpartition(".")[2]
    if name.startswith("tests.") or last in _DATA:
        return "data"
    return "address" if is_path or last in _ADDRESSES else "text"


def is_path(expected: Any) -> bool:
    """Whether a type of the schema is that of a path."""
    return any(isinstance(meta, msgspec.Meta) and (meta.extra or {}).get("path")
               for meta in getattr(expected, "__metadata__", ()))


def _tagged(expected: Any) -> dict[str, type[msgspec.Struct]]:
    """The tables of a union that are told apart by a tag: tag -> table."""
    structs = [one for one in typing.get_args(expected) if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    return {str(one.__struct_config__.tag): one for one in structs if one.__struct_config__.tag is not None}


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
