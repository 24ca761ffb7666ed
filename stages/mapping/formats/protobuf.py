"""`format = "protobuf"`: one message for each payload, by a FileDescriptorSet (`protoc --descriptor_set_out`).

Fields keep their names. A field without presence always has a value, its default if necessary, since 0 can be a
measured value; a field with presence has one only if it was set. 64-bit integers stay exact, enums become their names,
bytes Base64, and google.protobuf.Timestamp an RFC 3339 text with nanoseconds.
"""

from collections.abc import Iterator
from typing import Any, Final

from stages.mapping.formats import Transcoder
from stages.mapping.formats.errors import BadFormat, missing_package
from stages.mapping.formats.json_values import to_json
from stages.mapping.limits import Limits
from stages.mapping.reject import Reject

#: Messages that wrap one value, so that it may be missing. Source: google/protobuf/wrappers.proto.
_WRAPPERS: Final = frozenset(f"google.protobuf.{kind}Value" for kind in (
    "Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"))


def protobuf_transcoder(descriptor_file: str, name: str, limits: Limits) -> Transcoder:
    """The transcoder of messages of the type `name` in the descriptor file. Raises BadFormat."""
    kind = message_class(descriptor_file, name)
    from google.protobuf.message import DecodeError

    def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
        try:
            message = kind.FromString(payload)
        except DecodeError as error:
            raise Reject("not_protobuf", str(error)) from None
        yield "", to_json(_Reader(limits).members(message, 1), limits)

    return objects


def message_class(descriptor_file: str, name: str) -> Any:
    """The class of messages of the type `name` in the descriptor file. Raises BadFormat."""
    try:
        from google.protobuf import message_factory
    except ImportError:
        raise missing_package("format", "protobuf", "protobuf", "protobuf") from None
    pool = _pool(descriptor_file)
    try:
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    except KeyError:
        raise BadFormat("protobuf_message", f'"{name}" is not in {descriptor_file}') from None


def _pool(descriptor_file: str) -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool
    from google.protobuf.message import DecodeError

    try:
        with open(descriptor_file, "rb") as file:
            found = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    except OSError as error:
        raise BadFormat("protobuf_descriptor", f'"{descriptor_file}" can\'t be read: {error.strerror}') from None
    except DecodeError as error:
        raise BadFormat("protobuf_descriptor", f'"{descriptor_file}" is not a FileDescriptorSet: {error}') from None
    pool = descriptor_pool.DescriptorPool()
    try:
        for file_descriptor in found.file:
            pool.Add(file_descriptor)
            pool.FindFileByName(file_descriptor.name)
    except (TypeError, KeyError) as error:
        raise BadFormat("protobuf_descriptor", f'"{descriptor_file}" is not complete (protoc needs '
                                               f"--include_imports): {error}") from None
    return pool


class _Reader:
    """Reads one message, within the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._values = 0

    def members(self, message: Any, depth: int) -> Any:
        """A message as a dict of its fields, or the value that a well-known type represents."""
        name = message.DESCRIPTOR.full_name
        self._limits.check_depth(depth)
        if name == "google.protobuf.Timestamp":
            return _rfc3339(message.seconds, message.nanos)
        if name in _WRAPPERS:
            return message.value
        members: dict[Any, Any] = {}
        for field in message.DESCRIPTOR.fields:
            if field.is_repeated:
                members[field.name] = self._repeated(field, getattr(message, field.name), depth)
            elif not field.has_presence or message.HasField(field.name):
                members[field.name] = self._value(field, getattr(message, field.name), depth)
        return members

    def _repeated(self, field: Any, values: Any, depth: int) -> Any:
        self._limits.check_values(self._values + len(values))
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            return {key: self._value(inner, values[key], depth) for key in values}
        return [self._value(field, element, depth) for element in values]

    def _value(self, field: Any, value: Any, depth: int) -> Any:
        self._values += 1
        self._limits.check_values(self._values)
        if field.message_type is not None:
            return self.members(value, depth + 1)
        if field.enum_type is not None:
            known = field.enum_type.values_by_number.get(value)
            return known.name if known is not None else value
        return value


def _rfc3339(seconds: int, nanos: int) -> str:
    from datetime import UTC, datetime, timedelta

    try:
        day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    except OverflowError:
        raise Reject("bad_timestamp", f"{seconds} s is outside the range of times") from None
    return f"{day:%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"
