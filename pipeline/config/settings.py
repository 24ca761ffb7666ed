"""Values that replace those of the files: `--set influxdb.url=...` and PIPELINE_INFLUXDB__URL. Pure.

A key's parts are tables, keys, and elements of arrays: by number from 0, or by `name`. A value is TOML where the key
takes something else than text; what is not TOML is text.
"""

import re
import tomllib
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from pipeline.config.inputs import MAX_DEPTH, is_within
from pipeline.config.merging import Merged, Origin
from pipeline.config.schema import Config
from pipeline.config.secret_keys import is_secret, url_password
from pipeline.config.toml_text import joined
from pipeline.config.values import Verbatim, text_as
from pipeline.config.variables import CONFIG_VARIABLE
from pipeline.errors import Problem

#: What begins the environment variables that are keys.
PREFIX: Final = "PIPELINE_"
#: Between the parts of a key in a variable's name.
SEPARATOR: Final = "__"
#: Most parts of a key.
MAX_PARTS: Final = 20
#: Variables that begin like that and are no keys.
OTHER_VARIABLES: Final = ("PIPELINE_TRACEBACK", CONFIG_VARIABLE)
#: What Kubernetes sets in every container for a Service that is called "pipeline".
_KUBERNETES: Final = re.compile(r"PIPELINE_(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP)(_[A-Z]+)?)?)")
_PART: Final = re.compile(r"""\s*(?:([^\s"'.=\[\]]+(?:[ ][^\s"'.=\[\]]+)*)|"((?:[^"\\]|\\.)*)"|'([^']*)')"""
                          r"""((?:\[[0-9]+\])*)\s*([.=])""")
_WHOLE_VARIABLE: Final = re.compile(r"\$\{[^}]*\}")


class BadSetting(ValueError):
    """Why a setting cannot be used; the value is not in the text."""


class Setting(Struct, frozen=True):
    """One value for one key."""

    #: "--set" or the variable's name, for errors.
    place: str
    parts: tuple[str, ...]
    value: str
    is_variable: bool = False


def parsed_setting(text: str) -> Setting:
    """A setting from "a.b=value". Raises BadSetting."""
    parts: list[str] = []
    at = 0
    while True:
        match = _PART.match(text, at)
        if match is None:
            raise BadSetting("is not KEY=VALUE, such as influxdb.url=http://127.0.0.1:8086")
        quoted = match[2]
        parts.append(match[1] or match[3] or "" if quoted is None else _unescaped(quoted))
        parts += re.findall(r"\[([0-9]+)\]", match[4])
        at = match.end()
        if match[5] == "=":
            return Setting("--set", tuple(parts), text[at:])


def environment_settings(environ: Mapping[str, str]) -> list[Setting]:
    """The settings among the environment variables, elements of arrays in order of their numbers."""
    found = [Setting(name, tuple(name.removeprefix(PREFIX).split(SEPARATOR)), value, is_variable=True)
             for name, value in environ.items()
             if name.startswith(PREFIX) and SEPARATOR in name.removeprefix(PREFIX) and name not in OTHER_VARIABLES]
    return sorted(found, key=lambda setting: [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part)
                                              for part in setting.parts])


def unknown_variables(environ: Mapping[str, str], used: Collection[str]) -> Iterator[str]:
    """A warning for each PIPELINE_ variable that is no key and that no file uses as ${...}."""
    for name in sorted(environ):
        if name.startswith(PREFIX) and SEPARATOR not in name.removeprefix(PREFIX) and name not in OTHER_VARIABLES \
                and name not in used and not _KUBERNETES.fullmatch(name):
            yield (f"{name}: unknown environment variable, not used; a key is written with two underscores between its "
                   "parts, such as PIPELINE_IGGY__ADDRESS" + _suggestion(name))


def _suggestion(name: str) -> str:
    for field in msgspec.structs.fields(Config):
        start = f"{PREFIX}{field.encode_name.upper()}_"
        if name.startswith(start):
            return f"; did you mean {start}_{name.removeprefix(start)}?"
    return ""


def apply_settings(merged: Merged, settings: Sequence[Setting], folder: str) -> list[Problem]:
    """Puts the values in their places; relative paths are relative to `folder`. Returns what is wrong with them."""
    problems = []
    for setting in settings:
        path = ""
        try:
            _check_text(setting)
            _check_visible(setting)
            path, value = _assign(merged.tables, setting)
            merged.record(path, value, Origin(setting.place, folder))
        except BadSetting as error:
            name = ".".join(setting.parts[:MAX_PARTS])
            name = name.lower() if setting.is_variable else name
            problems.append(Problem(setting.place, 0, name, f"{name}: {error}"))
    return problems


def _check_text(setting: Setting) -> None:
    """Raises BadSetting for what no configuration can hold."""
    if len(setting.parts) > MAX_PARTS:
        raise BadSetting(f"has more than {MAX_PARTS} parts")
    text = "".join(setting.parts) + setting.value
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadSetting("is not UTF-8 text")
    parsed = _parsed(setting.value)
    if isinstance(parsed, dict | list) and not is_within({"value": parsed}, MAX_DEPTH):
        raise BadSetting(f"is nested too deep: more than {MAX_DEPTH} levels")


def _check_visible(setting: Setting) -> None:
    """Raises BadSetting for a secret in an argument: every user of the machine can read it there."""
    if setting.is_variable or _WHOLE_VARIABLE.fullmatch(setting.value.strip().strip("\"'")):
        return
    if any(is_secret(".".join(setting.parts[:length])) for length in range(1, len(setting.parts) + 1)) \
            or _holds_secret(_parsed(setting.value), ".".join(setting.parts)) or url_password(setting.value):
        variable = PREFIX + SEPARATOR.join(setting.parts).upper()
        raise BadSetting(f"a secret in an argument is visible to every user of the machine (ps); give it as the "
                         f"environment variable {variable}, or as ${{VARIABLE}}, or in a file")


def _holds_secret(value: object, key: str) -> bool:
    if isinstance(value, dict):
        return any(is_secret(f"{key}.{name}") and bool(item) or _holds_secret(item, f"{key}.{name}")
                   for name, item in value.items())
    return isinstance(value, list) and any(_holds_secret(item, key) for item in value)


def _assign(tables: dict[str, Any], setting: Setting) -> tuple[str, Any]:
    """Puts the value in its place. Returns the key's path, and the value. Raises BadSetting."""
    container: Any = tables
    expected: Any = Config
    path = ""
    for number, part in enumerate(setting.parts):
        slot: int | str
        if isinstance(container, list):
            slot = _index(container, part, path, setting.is_variable)
            expected = _element(expected)
            path = f"{path}[{slot}]"
            if slot == len(container):
                container.append(None)
        else:
            slot, expected = _member(expected, part, setting.is_variable)
            path = joined(path, slot)
        if number == len(setting.parts) - 1:
            container[slot] = _value(setting, expected)
            return path, container[slot]
        below = container[slot] if isinstance(slot, int) else container.get(slot)
        if below is None:
            below = container[slot] = [] if _is_list(expected) else {}
        if not isinstance(below, dict | list):
            raise BadSetting(f"{path} is a value, and holds no keys")
        container = below
    raise BadSetting("names no key")


def _index(elements: list[Any], part: str, path: str, is_variable: bool) -> int:
    """The element that a part names: by number, also the one after the last, or by name."""
    if part.isascii() and part.isdigit() and len(part) < 10:
        if int(part) <= len(elements):
            return int(part)
        raise BadSetting(f"{path} has {len(elements)} elements; give a number from 0 to {len(elements)}")
    names = [str(element.get("name", "")) if isinstance(element, dict) else "" for element in elements]
    found = [index for index, name in enumerate(names)
             if name == part or is_variable and re.sub(r"[^A-Za-z0-9]", "_", name).upper() == part.upper()]
    if len(found) != 1:
        known = ", ".join(name for name in names if name)
        raise BadSetting(f"{path} has {'several elements' if found else 'no element'} of that name; give a number from "
                         f"0 to {len(elements)}" + (f", or one of the names {known}" if known else ""))
    return found[0]


def _member(expected: Any, part: str, is_variable: bool) -> tuple[str, Any]:
    """The key that a part names in a table, and its type. Case counts in variables only in tables of free keys."""
    if isinstance(expected, type) and issubclass(expected, Struct):
        name = part.lower() if is_variable else part
        kinds = {field.encode_name: field.type for field in msgspec.structs.fields(expected)}
        return name, kinds.get(name, Any)
    arguments = typing.get_args(expected)
    return part, arguments[1] if typing.get_origin(expected) is dict else Any


def _is_list(expected: Any) -> bool:
    return typing.get_origin(expected) is tuple


def _element(expected: Any) -> Any:
    return typing.get_args(expected)[0] if _is_list(expected) else Any


def _value(setting: Setting, expected: Any) -> Any:
    value = text_as(setting.value, expected)
    return _verbatim(value) if setting.is_variable else value


def _verbatim(value: Any) -> Any:
    """The value with texts in which no variables are replaced: they are from the environment already."""
    if isinstance(value, str):
        return Verbatim(value)
    if isinstance(value, list):
        return [_verbatim(item) for item in value]
    return {name: _verbatim(item) for name, item in value.items()} if isinstance(value, dict) else value


def _parsed(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}").get("value")
    except (ValueError, RecursionError):
        return None


def _unescaped(text: str) -> str:
    try:
        return str(tomllib.loads(f'key = "{text}"')["key"])
    except ValueError:
        raise BadSetting("is not KEY=VALUE: the quoted part of the key is not TOML") from None


def keys_beginning_with(text: str) -> list[str]:
    """The keys of the schema that begin with a text, for completion; elements of arrays are numbered 0."""
    return sorted(key for key in _keys(Config, "") if key.startswith(text))


def _keys(expected: Any, key: str) -> Iterator[str]:
    if _is_list(expected) and isinstance(_element(expected), type) and issubclass(_element(expected), Struct):
        expected, key = _element(expected), f"{key}.0"
    if isinstance(expected, type) and issubclass(expected, Struct):
        for field in msgspec.structs.fields(expected):
            yield from _keys(field.type, joined(key, field.encode_name))
    else:
        yield key
