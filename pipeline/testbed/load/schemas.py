"""Messages whose form a schema gives: Avro records and Protocol Buffers, each field with a value of its type."""

import io
import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import MappingConfig
from pipeline.testbed.load.slots import Kind, Slot

if TYPE_CHECKING:
    from pipeline.testbed.load.telemetry import Values

Payload = Callable[["Values"], bytes]
#: What every universally unique identifier is.
_UUID = "00000000-0000-4000-8000-000000000000"


def by_schema(mapping: MappingConfig, slots: list[Slot]) -> Payload | None:
    """What makes the payloads of a mapping with a schema; None for another format. The schema has been checked.

    Raises ValueError for container files, which have their schemas in them.
    """
    if mapping.format == "avro":
        if not mapping.avro_schema:
            raise ValueError("format = \"avro\" without avro_schema reads container files, which can't be made here; "
                             "give avro_schema")
        return _Avro(mapping.avro_schema, slots).payload
    if mapping.format == "protobuf":
        return _Protobuf(mapping.protobuf_descriptor, mapping.protobuf_message, slots).payload
    return None


class _Avro:
    """Records of one schema."""

    def __init__(self, file: str, slots: list[Slot]) -> None:
        import fastavro

        with open(file, encoding="utf-8") as content:
            self._schema: Any = _plain(json.load(content))
        self._parsed = fastavro.parse_schema(self._schema)
        self._write = fastavro.schemaless_writer
        self._kinds = {slot.path: slot for slot in slots}
        self._named: dict[str, Any] = {}

    def payload(self, values: "Values") -> bytes:
        """One record."""
        out = io.BytesIO()
        self._write(out, self._parsed, self._value(self._schema, "", values, ()))
        return out.getvalue()

    def _value(self, schema: Any, path: str, values: "Values", inside: tuple[str, ...]) -> Any:
        if isinstance(schema, list):
            kinds = [part for part in schema if part != "null"]
            recursive = any(_name(part) in inside for part in kinds)
            return None if not kinds or recursive and "null" in schema else self._value(kinds[0], path, values, inside)
        if isinstance(schema, str):
            schema = self._named.get(schema, {"type": schema})
        kind = schema["type"]
        if isinstance(kind, list | dict):
            return self._value(kind, path, values, inside)
        if "name" in schema:
            self._named[schema["name"]] = schema
        if kind in ("record", "error"):
            return {field["name"]: self._value(field["type"], f"{path}.{field['name']}".lstrip("."), values,
                                               (*inside, schema["name"])) for field in schema["fields"]}
        return self._plain_value(kind, schema, path, values)

    def _plain_value(self, kind: str, schema: Any, path: str, values: "Values") -> Any:
        if kind in ("array", "map"):
            return [] if kind == "array" else {}
        if kind == "enum":
            return schema["symbols"][0]
        if kind in ("bytes", "fixed"):
            return bytes(schema.get("size", 1))
        if kind == "null":
            return None
        if schema.get("logicalType") == "uuid":
            return _UUID
        slot = self._kinds.get(path)
        if kind == "string":
            return _text(slot, values)
        if kind == "boolean":
            return values.hundredths() % 2 == 0
        return _number(slot, values, whole=kind in ("int", "long"))


def _plain(schema: Any) -> Any:
    """The schema with the values below its logical types, but for identifiers."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _plain(part) for key, part in schema.items() if key != "logicalType" or part == "uuid"}


def _name(schema: Any) -> str:
    return schema.get("name", "") if isinstance(schema, dict) else str(schema)


class _Protobuf:
    """Messages of one type."""

    def __init__(self, file: str, name: str, slots: list[Slot]) -> None:
        from stages.mapping.formats.protobuf import message_class

        self._class = message_class(file, name)
        self._kinds = {slot.path: slot for slot in slots}

    def payload(self, values: "Values") -> bytes:
        """One message."""
        message = self._class()
        self._fill(message, "", values, ())
        return bytes(message.SerializeToString())

    def _fill(self, message: Any, path: str, values: "Values", inside: tuple[str, ...]) -> None:
        name = message.DESCRIPTOR.full_name
        for field in message.DESCRIPTOR.fields:
            inner = f"{path}.{field.name}".lstrip(".")
            choice = field.containing_oneof
            if field.is_repeated or choice is not None and choice.fields[0] is not field:
                continue
            if field.message_type is None:
                setattr(message, field.name, self._value(field, inner, values))
            elif field.message_type.full_name == "google.protobuf.Timestamp":
                _set_time(getattr(message, field.name), values)
            elif field.message_type.full_name not in (*inside, name):
                child = getattr(message, field.name)
                child.SetInParent()
                self._fill(child, inner, values, (*inside, name))

    def _value(self, field: Any, path: str, values: "Values") -> Any:
        slot = self._kinds.get(path)
        if field.cpp_type == field.CPPTYPE_STRING:
            return b"\0" if field.type == field.TYPE_BYTES else _text(slot, values)
        if field.cpp_type == field.CPPTYPE_BOOL:
            return values.hundredths() % 2 == 0
        if field.cpp_type == field.CPPTYPE_ENUM:
            return field.enum_type.values[0].number
        return _number(slot, values, whole=field.cpp_type not in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE))


def _text(slot: Slot | None, values: "Values") -> str:
    kind: Kind = slot.kind if slot is not None else "text"
    if slot is not None and kind == "constant":
        return slot.text
    texts = {"site": values.site, "device": values.device, "time": str(values.time)}
    return texts.get(kind) or f"state-{values.hundredths() % 4}"


def _number(slot: Slot | None, values: "Values", whole: bool) -> float:
    if slot is not None and slot.kind == "time" and isinstance(values.time, int):
        return values.time
    return values.hundredths() // 100 if whole else values.hundredths() / 100


def _set_time(timestamp: Any, values: "Values") -> None:
    """A google.protobuf.Timestamp, which the mapping reads as a text in RFC 3339."""
    if isinstance(values.time, str):
        timestamp.FromDatetime(datetime.fromisoformat(values.time))
    else:
        timestamp.FromMicroseconds(values.time)
