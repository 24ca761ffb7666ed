"""A mapping as the lines of `[mapping]` in a configuration. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, structs

from pipeline.config.schema import MappingConfig


def mapping_text(mapping: MappingConfig) -> str:
    """The lines of all options that are not the defaults."""
    return "".join([f"{key} = {_value(value)}\n" for key, value in _changed(mapping).items()])


def _changed(options: Struct) -> dict[str, Any]:
    """The options that differ from the defaults, or have none."""
    return {field.encode_name: getattr(options, field.name) for field in structs.fields(options)
            if getattr(options, field.name) not in (field.default, {})}


def _value(value: Any) -> str:
    if isinstance(value, Struct):
        tag = value.__struct_config__.tag
        value = ({str(value.__struct_config__.tag_field): tag} if tag is not None else {}) | _changed(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join([f"{json.dumps(key)} = {_value(member)}" for key, member in value.items()]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
