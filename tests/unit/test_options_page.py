"""The page of configuration keys, which the documentation's build generates, has every key of the schema."""

import importlib.util
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config.schema import Config

PATH = Path(__file__).parents[2] / "docs" / "options.py"


def keys(kind: msgspec.inspect.Type) -> set[str]:
    """The keys of a table and of those in it."""
    if isinstance(kind, msgspec.inspect.VarTupleType):
        return keys(kind.item_type)
    if not isinstance(kind, msgspec.inspect.StructType):
        return set()
    return {key for field in kind.fields for key in {field.encode_name} | keys(field.type)}


def options_module() -> Any:
    """`docs/options.py`, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("options", PATH)
    assert spec is not None and spec.loader is not None
    options = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(options)
    return options


def test_every_key_is_described() -> None:
    options = options_module()
    missing = [f"{struct.__name__}.{field.name}" for struct in options.tables()
               for field in msgspec.structs.fields(struct) if field.name not in options.comments(struct)]
    assert missing == []


def test_every_key_is_on_the_page() -> None:
    page = options_module().page()
    tables = {field.encode_name for field in msgspec.structs.fields(Config)}
    missing = {key for key in keys(msgspec.inspect.type_info(Config)) - tables if f"``{key}``" not in page}
    assert missing == set()
