"""The JSON Schema of a configuration, for editors. Pure."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from pipeline.config.descriptions import descriptions, purpose
from pipeline.config.schema import Config

#: What stands for a value that is not known before a variable is replaced.
_VARIABLE: Final[dict[str, Any]] = {"type": "string", "pattern": "\\$\\{"}


def config_schema() -> dict[str, Any]:
    """The schema, draft 2020-12, with a description of every key."""
    definitions: dict[str, Any]
    (reference,), definitions = msgspec.json.schema_components([Config], ref_template="#/$defs/{name}")
    for struct in structs_of(Config):
        definition = definitions[struct.__name__]
        title, text = purpose(struct)
        definition["description"] = f"{title}: {text}" if text else title
        about = descriptions(struct)
        for field in msgspec.structs.fields(struct):
            found = _with_variables(definition["properties"][field.encode_name])
            if "$ref" in found:
                # Editors would put the whole table in.
                found.pop("default", None)
            if field.name in about:
                found["description"] = about[field.name].replace("`", "")
            definition["properties"][field.encode_name] = found
        for name, found in definition["properties"].items():
            if struct.__struct_config__.tag_field == name:
                found["description"] = "The kind of this table."
    root: dict[str, Any] = definitions.pop(reference["$ref"].rpartition("/")[2])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root,
            "title": "Configuration of the Iggy to InfluxDB pipeline", "$defs": definitions}


def structs_of(struct: type) -> list[type[msgspec.Struct]]:
    """The tables of the schema, each once."""
    found: dict[type[msgspec.Struct], None] = {}

    def visit(kind: Any) -> None:
        for part in _parts(kind):
            if part.cls not in found:
                found[part.cls] = None
                for field in part.fields:
                    visit(field.type)

    visit(msgspec.inspect.type_info(struct))
    return list(found)


def _parts(kind: Any) -> Iterator[msgspec.inspect.StructType]:
    if isinstance(kind, msgspec.inspect.StructType):
        yield kind
    elif isinstance(kind, msgspec.inspect.VarTupleType):
        yield from _parts(kind.item_type)
    elif isinstance(kind, msgspec.inspect.DictType):
        yield from _parts(kind.value_type)
    elif isinstance(kind, msgspec.inspect.UnionType):
        for one in kind.types:
            yield from _parts(one)
    elif isinstance(kind, msgspec.inspect.Metadata):
        yield from _parts(kind.type)


def _with_variables(found: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that `${VAR}` may stand for, except that of tables."""
    kind = found.get("type")
    if kind == "string" and not {"pattern", "format", "maxLength"} & found.keys():
        return found
    if kind in ("integer", "number", "boolean", "string") or "enum" in found:
        return _either(found)
    if kind == "array" and "$ref" not in found.get("items", {}):
        items = found.get("items", {})
        return _either({**found, "items": _with_variables(items)} if items else found)
    return found


def _either(found: dict[str, Any]) -> dict[str, Any]:
    outer: dict[str, Any] = {name: found[name] for name in ("default", "description") if name in found}
    return {"anyOf": [{name: item for name, item in found.items() if name not in outer}, _VARIABLE], **outer}
