"""`pipeline config show`: the values in effect, and where each comes from."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from pipeline.config.connection_schema import ConnectionConfig
from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.merging import Merged
from pipeline.config.schema import Config
from pipeline.config.secret_keys import is_secret, without_password
from pipeline.config.toml_text import joined
from pipeline.config.toml_values import toml_value
from pipeline.config.variables import holds_variable

_VARIABLE: Final = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*")
#: What stands for a secret.
HIDDEN: Final = "***"
#: Column of the comments, where the values leave room.
_COLUMN: Final = 44


class ShownValue(Struct, frozen=True):
    """One key."""

    #: Its table, as a header has it: "[influxdb]", "[[topics]]".
    table: str
    #: The key with its tables: "topics[0].stream".
    key: str
    name: str
    value: Any
    #: "default", "pipeline.toml:7", "PIPELINE_IGGY__ADDRESS", "--set".
    origin: str


def shown_toml(config: Config, merged: Merged, changed: bool) -> Iterator[str]:
    """Lines of TOML, each with a comment that says where the value comes from."""
    before = None
    for one in shown_values(config, merged, changed):
        place = one.table, one.key.rpartition(".")[0]
        if place != before:
            yield from ([""] if before is not None else [])
            yield one.table
            before = place
        line = f"{one.name} = {toml_value(one.value)}"
        yield f"{line:{_COLUMN}}  # {one.origin}"


def shown_json(config: Config, merged: Merged, changed: bool) -> Iterator[str]:
    """A JSON object for each key."""
    for one in shown_values(config, merged, changed):
        yield json.dumps({"key": one.key, "value": one.value, "from": one.origin}, default=str)


def shown_values(config: Config, merged: Merged, changed: bool) -> Iterator[ShownValue]:
    """Every key in effect; with `changed`, only those that have not their default."""
    for field in msgspec.structs.fields(config):
        if field.encode_name == "tests" or config.sinks and field.encode_name in ("topics", "mapping", "influxdb"):
            continue
        if not config.all_sinks() and field.encode_name in ("topics", "mapping", "influxdb", "dead_letters", "network"):
            continue
        value = getattr(config, field.name)
        yield from _table(value, field.encode_name, field.encode_name, merged, changed)


def _table(value: Any, key: str, header: str, merged: Merged, changed: bool,
           is_element: bool = False) -> Iterator[ShownValue]:
    if isinstance(value, tuple):
        for index, element in enumerate(value):
            yield from _table(element, f"{key}[{index}]", header, merged, changed, is_element=True)
        return
    below = []
    header_line = f"[[{header}]]" if is_element else f"[{header}]"
    kind = value.__struct_config__
    if kind.tag_field is not None:  # the verb of a step, which is no field
        path = joined(key, kind.tag_field)
        yield ShownValue(header_line, path, kind.tag_field, kind.tag, _origin(path, merged))
    for field in msgspec.structs.fields(value):
        item, path = getattr(value, field.name), joined(key, field.encode_name)
        if isinstance(item, Struct) or isinstance(item, tuple) and any(isinstance(one, Struct) for one in item):
            below.append((item, path, f"{header}.{field.encode_name}"))
            continue
        if item is None or field.name in _not_in_effect(value):  # TOML has nothing that stands for None
            continue
        if changed and not field.required and item == _default(field) and merged.given(path) is None:
            continue
        item = _in_effect(value).get(field.name, item)
        yield ShownValue(header_line, path, field.encode_name, visible(item, path), _origin(path, merged))
    for item, path, name in below:
        yield from _table(item, path, name, merged, changed)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _in_effect(table: Any) -> dict[str, str]:
    """Values of keys that are empty by default and stand for another value."""
    if isinstance(table, ConnectionConfig):
        return {"url": table.servers()[0]}
    return {"address": table.servers()[0]} if isinstance(table, IggyConfig) else {}


def _not_in_effect(table: Any) -> tuple[str, ...]:
    """Keys that another key of the table stands in for."""
    if isinstance(table, ConnectionConfig):
        return ("url",) if table.urls else ("urls",)
    if isinstance(table, IggyConfig):
        return (*(("address",) if table.addresses else ("addresses",)),
                *(("username", "password") if table.has_token() else ()))
    return ()


def visible(value: Any, key: str) -> Any:
    """A value without secrets."""
    if isinstance(value, dict):
        return {name: visible(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [visible(item, key) for item in value]
    if is_secret(key) and value:
        return HIDDEN
    return without_password(value) if isinstance(value, str) else value


def _origin(key: str, merged: Merged) -> str:
    origin = merged.given(key)
    if origin is None:
        return "default"
    place = f"{origin.place}:{origin.line}" if origin.line else origin.place
    raw = _raw(merged.tables, key)
    if isinstance(raw, str) and holds_variable(raw) and origin.document is not None:
        return f"{place}, {', '.join(found[2:] for found in _VARIABLE.findall(raw))}"
    return place


def _raw(tables: Any, key: str) -> Any:
    """The value of a key before variables were replaced; None if there is none."""
    for name, index in re.findall(r"([^.\[\]]+)|\[([0-9]+)\]", key):
        try:
            tables = tables[int(index)] if index else tables[name]
        except (KeyError, IndexError, TypeError):
            return None
    return tables
