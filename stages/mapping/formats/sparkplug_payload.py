"""Sparkplug B's payload: its Protobuf messages, and its metrics' values as JSON has them.

Source: Eclipse Sparkplug specification 3.0, chapter 6, "Payloads", and its data types (6.4.16).
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

from stages.mapping.limits import Limits
from stages.mapping.reject import Reject

#: Field numbers of the messages: (name, type), where a type is one of Protobuf or a message of these; "*" is repeated.
_MESSAGES: Final[dict[str, dict[int, tuple[str, str]]]] = {
    "Payload": {1: ("timestamp", "uint64"), 2: ("metrics", "*Metric"), 3: ("seq", "uint64"), 4: ("uuid", "string"),
                5: ("body", "bytes")},
    "Metric": {1: ("name", "string"), 2: ("alias", "uint64"), 3: ("timestamp", "uint64"), 4: ("datatype", "uint32"),
               5: ("is_historical", "bool"), 6: ("is_transient", "bool"), 7: ("is_null", "bool"),
               10: ("int_value", "uint32"), 11: ("long_value", "uint64"), 12: ("float_value", "float"),
               13: ("double_value", "double"), 14: ("boolean_value", "bool"), 15: ("string_value", "string"),
               16: ("bytes_value", "bytes"), 17: ("dataset_value", "DataSet"), 18: ("template_value", "Template")},
    "DataSet": {1: ("num_of_columns", "uint64"), 2: ("columns", "*string"), 3: ("types", "*uint32"),
                4: ("rows", "*Row")},
    "Row": {1: ("elements", "*Element")},
    "Element": {1: ("int_value", "uint32"), 2: ("long_value", "uint64"), 3: ("float_value", "float"),
                4: ("double_value", "double"), 5: ("boolean_value", "bool"), 6: ("string_value", "string")},
    "Template": {1: ("version", "string"), 2: ("metrics", "*Metric"), 4: ("template_ref", "string"),
                 5: ("is_definition", "bool")},
}
#: Data type -> bits of an integer, and whether it has a sign.
_INTEGERS: Final = {1: (8, True), 2: (16, True), 3: (32, True), 4: (64, True), 5: (8, False), 6: (16, False),
                    7: (32, False), 8: (64, False)}
#: Data type of an array -> its elements, as `struct` has them.
_ARRAYS: Final = {22: "b", 23: "h", 24: "i", 25: "q", 26: "B", 27: "H", 28: "I", 29: "Q", 30: "f", 31: "d", 34: "Q"}
_BOOLEANS: Final = 32
_STRINGS: Final = 33
#: Fields of a metric's value.
_VALUES: Final = tuple(name for number, (name, _) in _MESSAGES["Metric"].items() if number >= 10)


class UnknownType(Exception):
    """An integer may have a sign or not: without the metric's data type, nobody knows."""


def payload_class() -> Any:
    """The class of payloads; needs the package protobuf."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package="sparkplug", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind) in fields.items():
            label = field.LABEL_REPEATED if kind[0] == "*" else field.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in _MESSAGES:
                message.field.add(name=field_name, number=number, label=label, type=field.TYPE_MESSAGE,
                                  type_name=f".sparkplug.{kind}")
            else:
                message.field.add(name=field_name, number=number, label=label, type=getattr(
                    field, f"TYPE_{kind.upper()}"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("sparkplug.Payload"))


def checked_text(value: str | bytes) -> str:
    """A text. Raises Reject for one that is not UTF-8, which the library gives as bytes."""
    if isinstance(value, bytes):
        raise Reject("not_sparkplug", "a text of it is not UTF-8")
    return value


def value_of(metric: Any, datatype: int, limits: Limits, depth: int = 2) -> Any:
    """The value of a metric of a data type, 0 if that is not known; None if it has none.

    Raises UnknownType, and Reject for a value that its data type cannot have.
    """
    limits.check_depth(depth)
    name = next((name for name in _VALUES if metric.HasField(name)), "")
    if metric.is_null or not name:
        return None
    value = getattr(metric, name)
    if name == "dataset_value":
        return list(_rows(value))
    if name == "template_value":
        members = [] if value.is_definition else [member for member in value.metrics if member.name]
        return {checked_text(member.name): value_of(member, member.datatype, limits, depth + 1)
                for member in members} or None
    return _scalar(name, value, datatype)


def _scalar(name: str, value: Any, datatype: int) -> Any:
    if name in ("int_value", "long_value"):
        return _integer(value, datatype, 32 if name == "int_value" else 64)
    if name == "string_value":
        return checked_text(value)
    if name == "float_value":
        return shortest(value)
    if name == "bytes_value" and datatype in (*_ARRAYS, _BOOLEANS, _STRINGS):
        return _array(value, datatype)
    return value


def _integer(value: int, datatype: int, bits: int) -> int | bool:
    """An integer, which is sent without its sign, as two's complement."""
    if datatype == 11:
        return value != 0
    if datatype not in _INTEGERS:
        if not datatype and value >> (bits - 1):
            raise UnknownType
        return value
    bits, signed = _INTEGERS[datatype]
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def shortest(value: float) -> float:
    """The shortest decimal number that is this float of 32 bits: 20.1, not 20.100000381469727."""
    if value != value or value in (float("inf"), float("-inf")):
        return value
    for digits in range(6, 9):
        text = f"{value:.{digits}g}"
        if struct.unpack("<f", struct.pack("<f", float(text)))[0] == value:
            return float(text)
    return value


def _rows(dataset: Any) -> Iterator[dict[str, Any]]:
    types = list(dataset.types)
    for row in dataset.rows:
        members = {}
        for number, (column, element) in enumerate(zip(dataset.columns, row.elements, strict=False)):
            datatype = types[number] if number < len(types) else 0
            name = next((descriptor.name for descriptor, _ in element.ListFields()), "")
            members[checked_text(column)] = _scalar(name, getattr(element, name), datatype) if name else None
        yield members


def _array(data: bytes, datatype: int) -> list[Any]:
    """The elements of an array. Raises Reject."""
    if datatype == _STRINGS:
        return [text.decode("utf-8", "replace") for text in data.removesuffix(b"\0").split(b"\0")] if data else []
    if datatype == _BOOLEANS:
        count = int.from_bytes(data[:4], "little")
        if len(data) < 4 or count > 8 * (len(data) - 4):
            raise Reject("not_sparkplug", "an array of booleans is cut short")
        return [bool(data[4 + index // 8] >> (7 - index % 8) & 1) for index in range(count)]
    kind = _ARRAYS[datatype]
    count, rest = divmod(len(data), struct.calcsize(f"<{kind}"))
    if rest:
        raise Reject("not_sparkplug", "an array is cut short")
    found = list(struct.unpack(f"<{count}{kind}", data))
    return [shortest(value) for value in found] if kind == "f" else found
