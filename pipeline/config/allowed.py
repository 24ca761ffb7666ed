"""What keys accept, for errors: types in words, choices, and where a key belongs. Pure."""

import difflib
import functools
import types
import typing
from typing import Any, Final

import msgspec

#: Upper limits from here on are technical.
UNTOLD_LIMIT: Final = 1_000_000_000


def allowed(expected: Any, value: object) -> str:
    """The description of what a key accepts instead of `value`."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Annotated:
        return allowed(arguments[0], value) + _bounds(arguments[1], value)
    if origin is typing.Literal:
        return " or ".join(f'"{choice}"' for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(allowed(argument, value) for argument in arguments)
    if origin is dict:
        return "a table"
    if origin is tuple:
        return "a list of such"
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


def near_choice(expected: Any, value: object) -> str:
    """What may be meant instead of a value that is none of the choices."""
    choices = choices_of(expected)
    near = difflib.get_close_matches(value, choices, 1, 0.7) if isinstance(value, str) and len(choices) > 1 else []
    return f'; did you mean "{near[0]}"?' if near else ""


def choices_of(expected: Any) -> list[str]:
    """The texts that a type is limited to; none if it is not."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Literal:
        return [choice for choice in arguments if isinstance(choice, str)]
    return [choice for argument in arguments for choice in choices_of(argument)] \
        if origin in (typing.Union, types.UnionType) else []


@functools.cache
def _tables_with(name: str) -> tuple[str, ...]:
    """The tables of the schema that have a key of this name, such as "[pipeline]"."""
    return tuple(dict.fromkeys(title for title, keys in _tables() if title.startswith("[") and name in keys))


@functools.cache
def _tables() -> list[tuple[str, tuple[str, ...]]]:
    """Title and keys of every table of the schema."""
    # Imported here, because the schema's tables are not needed to read a configuration without mistakes.
    from pipeline.config.descriptions import purpose
    from pipeline.config.json_schema import structs_of
    from pipeline.config.schema import Config

    return [(purpose(struct)[0], struct.__struct_encode_fields__) for struct in structs_of(Config)]


def elsewhere(name: str) -> str:
    """Where a key belongs that its table does not have; "" if that is not clear."""
    tables = _tables_with(name)
    return f"it belongs to {' or '.join(tables)}" if 0 < len(tables) <= 2 else ""
