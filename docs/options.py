"""Writes the page of all configuration keys from the schema: keys, types, ranges, defaults and comments (`#:`)."""

import inspect
import json
from pathlib import Path
from typing import Any

from msgspec import NODEFAULT, UNSET
from msgspec import inspect as types

from pipeline.config import http_schema, iggy_schema, log_schema, otlp_schema, schema, source_schema, steps_schema
from pipeline.config.descriptions import descriptions

INTRODUCTION = """Configuration keys
==================

Every table and key of a configuration, generated from the schema that checks it. :doc:`configuration` describes the
checks, environment variables and paths; :doc:`mapping`, :doc:`writing` and :doc:`source` describe how keys work
together. A key is there since release 0.1.0, unless another one is named.

.. contents::
   :local:
   :depth: 1
"""
#: Keys that came with a later release than the first one: key -> release.
SINCE: dict[str, str] = {}
FIRST_RELEASE = "0.1.0"
MODULES = (iggy_schema, schema, log_schema, steps_schema, source_schema, http_schema, otlp_schema)


def tables() -> list[type]:
    """The Structs of tables, in the order of the schema: those whose docstring starts with the table's name."""
    return [item for module in MODULES for item in vars(module).values()
            if inspect.isclass(item) and inspect.getmodule(item) is module and (item.__doc__ or "").startswith("`[")]


def page() -> str:
    """The page, reStructuredText."""
    return INTRODUCTION + "".join(_table(struct) for struct in tables())


def write(folder: Path) -> None:
    """Writes `reference/options.rst` below the documentation's folder, if it has changed."""
    path = folder / "reference" / "options.rst"
    text = page()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _table(struct: type) -> str:
    title, _, purpose = _literals(inspect.getdoc(struct) or "").partition(":")
    out = f"\n{title}\n{'-' * len(title)}\n\n{purpose.strip()[:1].upper()}{purpose.strip()[1:]}\n\n"
    about_fields = comments(struct)
    info = types.type_info(struct)
    assert isinstance(info, types.StructType)
    for field in sorted(info.fields, key=lambda field: field.name not in struct.__annotations__):
        about = about_fields.get(field.name, "")
        kind = _type(field.type) + _unit(field.encode_name)
        out += f"``{field.encode_name}``\n   {kind}; {_default(field)}{_since(field)}\n"
        out += f"\n   {about}\n\n" if about else "\n"
    return out


def comments(struct: type) -> dict[str, str]:
    """Field -> its `#:` comment as reStructuredText."""
    return {name: _literals(text) for name, text in descriptions(struct).items()}


def _literals(text: str) -> str:
    """Python's single back quotes as reStructuredText has them."""
    return text.replace("`", "``").replace("*", "\\*")


def _type(kind: types.Type) -> str:
    match kind:
        case types.LiteralType(values=values):
            return "one of " + ", ".join(f"``{json.dumps(value)}``" for value in sorted(values, key=str))
        case types.IntType(ge=low, le=high) | types.FloatType(ge=low, le=high):
            name = "integer" if isinstance(kind, types.IntType) else "number"
            return f"{name}, {low:,} to {high:,}" if low is not None and high is not None else name
        case types.BoolType():
            return "boolean"
        case types.StrType(min_length=least):
            return "string, not empty" if least else "string"
        case types.VarTupleType(item_type=item):
            inner = item.types if isinstance(item, types.UnionType) else (item,)
            tables = all(isinstance(one, types.StructType) for one in inner)
            return "array of tables" if tables else f"array ({_type(item)})"
        case types.DictType(value_type=value):
            return f"table of {_type(value)}"
        case types.UnionType(types=some):
            return " or ".join(_type(one) for one in some)
        case types.StructType():
            return "table"
        case types.Metadata(type=inner):
            return _type(inner)
        case _:
            return "any value"


#: Ending of a key -> the unit of its value.
UNITS = {"_ms": "milliseconds", "_us": "microseconds", "_bytes": "bytes", "_seconds": "seconds", "_percent": "percent",
         "_messages": "messages", "_points": "points"}


def _unit(key: str) -> str:
    return next((f", {unit}" for ending, unit in UNITS.items() if key.endswith(ending)), "")


def _since(field: types.Field) -> str:
    """The release that brought a key; those without a mark are as old as their table. "" for the first release."""
    version = SINCE.get(field.encode_name, FIRST_RELEASE)
    return "" if version == FIRST_RELEASE else f"; since {version}"


def _default(field: types.Field) -> str:
    if field.required:
        return "required"
    value: Any = field.default if field.default not in (NODEFAULT, UNSET) else field.default_factory()
    if isinstance(value, (tuple, dict)):
        return "default: none" if not value else f"default ``{json.dumps(value)}``"
    if isinstance(value, (str, bool)):
        return f"default ``{json.dumps(value)}``"
    return f"default ``{value:,}``" if isinstance(value, (int, float)) else "default: its own defaults"
