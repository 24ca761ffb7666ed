"""`format = "protobuf"`: one message for each payload, by a FileDescriptorSet (`protoc --descriptor_set_out`), or by
one of a folder whose id the payload names.

Fields keep their names. A field without presence always has a value, its default if necessary, since 0 can be a
measured value; a field with presence has one only if it was set. 64-bit integers stay exact, enums become their names,
bytes Base64, and google.protobuf.Timestamp an RFC 3339 text with nanoseconds.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from pipeline.config.schema import MappingConfig
from stages.mapping.formats import Transcoder, each
from stages.mapping.formats.confluent import SchemaFolder, hint, message_indexes, without_header
from stages.mapping.formats.errors import BadFormat, missing_package
from stages.mapping.formats.json_values import to_json, usual_texts
from stages.mapping.limits import Limits
from stages.mapping.reject import Reject

#: Messages that wrap one value, so that it may be missing. Source: google/protobuf/wrappers.proto.
_WRAPPERS: Final = frozenset(f"google.protobuf.{kind}Value" for kind in (
    "Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"))


def protobuf_transcoder(config: MappingConfig, limits: Limits) -> Transcoder:
    """The transcoder of messages of the type `protobuf_message`, or the one that they name. Raises BadFormat."""
    has_header = config.schema_header == "confluent"
    class_of = _classes(config)
    from google.protobuf.message import DecodeError

    def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
        number, indexes, message = 0, [0], payload
        if has_header:
            number, message = without_header(payload, "not_protobuf")
            indexes, message = message_indexes(message)
        try:
            read = class_of(number, indexes).FromString(message)
        except DecodeError as error:
            raise Reject("not_protobuf", f"{error}{'' if has_header else hint(payload)}") from None
        yield "", to_json(_Reader(limits).members(read, 1), limits)

    return objects


def quick_protobuf(config: MappingConfig, limits: Limits) -> Callable[[Sequence[bytes]], list[bytes | None]] | None:
    """The same for many payloads of a type that has only single values, no messages in it (`formats.Quick`); None
    where the type is another, or depends on the payload. Raises BadFormat.
    """
    if not config.protobuf_message or config.schema_folder or config.schema_header != "none":
        return None
    kind = message_class(config.protobuf_descriptor, config.protobuf_message)
    from google.protobuf.message import DecodeError

    fields = list(kind.DESCRIPTOR.fields)
    name = kind.DESCRIPTOR.full_name
    if len(fields) > limits.values or name == "google.protobuf.Timestamp" or name in _WRAPPERS or any(
            [field.is_repeated or field.message_type is not None for field in fields]):
        return None
    parts = [(field.name, field.has_presence, None if field.enum_type is None else {
        number: value.name for number, value in field.enum_type.values_by_number.items()}) for field in fields]

    def members(payload: bytes) -> dict[str, Any]:
        message = kind.FromString(payload)
        found: dict[str, Any] = {}
        for key, has_presence, names in parts:
            if not has_presence or message.HasField(key):
                value = getattr(message, key)
                found[key] = value if names is None else names.get(value, value)
        return found

    return lambda payloads: usual_texts(each(members, payloads, (DecodeError,)), limits)


def _classes(config: MappingConfig) -> Callable[[int, Sequence[int]], Any]:
    """Gives the class of a message by its schema's id, and its indexes in the schema's file. Raises BadFormat.

    The function raises Reject for those that are not known.
    """
    name = config.protobuf_message
    if config.schema_folder:
        _need_package()
        folder = SchemaFolder(config.schema_folder, ".desc", _DescriptorSet, "not_protobuf")
        return lambda number, indexes: folder.schema(number).message(name, indexes)
    if name:
        kind = message_class(config.protobuf_descriptor, name)
        return lambda number, indexes: kind
    given = _descriptor_set(config.protobuf_descriptor)
    return lambda number, indexes: given.message("", indexes)


def message_class(descriptor_file: str, name: str) -> Any:
    """The class of messages of the type `name` in the descriptor file. Raises BadFormat."""
    try:
        return _descriptor_set(descriptor_file).message(name, ())
    except Reject:
        raise BadFormat("protobuf_message", f'"{name}" is not in {descriptor_file}') from None


def _need_package() -> None:
    """Raises BadFormat where the package is missing."""
    try:
        import google.protobuf  # noqa: F401
    except ImportError:
        raise missing_package("format", "protobuf", "protobuf", "protobuf") from None


def _descriptor_set(path: str) -> "_DescriptorSet":
    """Raises BadFormat."""
    _need_package()
    try:
        with open(path, "rb") as file:
            return _DescriptorSet(file.read())
    except OSError as error:
        raise BadFormat("protobuf_descriptor", f'"{path}" can\'t be read: {error.strerror}') from None
    except ValueError as error:
        raise BadFormat("protobuf_descriptor", f'"{path}" is {error}') from None


class _DescriptorSet:
    """The types of one FileDescriptorSet. Its last file is the schema itself; those before are imported."""

    def __init__(self, content: bytes) -> None:
        """Raises ValueError, with words that follow "is"."""
        from google.protobuf import descriptor_pb2, descriptor_pool
        from google.protobuf.message import DecodeError

        try:
            found = descriptor_pb2.FileDescriptorSet.FromString(content)
        except DecodeError as error:
            raise ValueError(f"not a FileDescriptorSet: {error}") from None
        self._pool = descriptor_pool.DescriptorPool()
        try:
            for file_descriptor in found.file:
                self._pool.Add(file_descriptor)
                self._pool.FindFileByName(file_descriptor.name)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not complete (protoc needs --include_imports): {error}") from None
        self._types = found.file[-1].message_type if found.file else []
        self._package = f"{found.file[-1].package}." if found.file and found.file[-1].package else ""
        self._known: dict[tuple[str, tuple[int, ...]], Any] = {}

    def message(self, name: str, indexes: Sequence[int]) -> Any:
        """The class of the messages with a full name, or, if that is "", at these indexes. Raises Reject."""
        from google.protobuf import message_factory

        key = (name, tuple(indexes))
        if key not in self._known:
            try:
                self._known[key] = message_factory.GetMessageClass(
                    self._pool.FindMessageTypeByName(name or self._name_at(indexes)))
            except (KeyError, IndexError):
                raise Reject("not_protobuf", f"its schema has no message {name or list(indexes)}") from None
        return self._known[key]

    def _name_at(self, indexes: Sequence[int]) -> str:
        """Raises IndexError."""
        types, names = self._types, []
        for index in indexes:
            if not 0 <= index < len(types):
                raise IndexError
            names.append(types[index].name)
            types = types[index].nested_type
        return self._package + ".".join(names)


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
