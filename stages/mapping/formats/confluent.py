"""`schema_header = "confluent"`: what Confluent's serializers put before a payload, and the schemas that it names.

A zero byte, and the schema's id as four bytes, big-endian. With Protobuf, the indexes of the message in the schema's
file follow, as zigzag varints: their number, and each; a single 0 stands for the first message. Source: Confluent's
documentation, "Wire format".
"""

import json
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

from stages.mapping.formats.errors import BadFormat
from stages.mapping.reject import Reject

_MAGIC: Final = b"\0"
#: Of the header.
HEADER_BYTES: Final = 5
#: Message types within each other, at most.
_MAX_INDEXES: Final = 16
_Schema = TypeVar("_Schema")


def schema_id(payload: bytes) -> int | None:
    """The schema's id in the header that a payload begins with; None if it has none."""
    if payload[:1] != _MAGIC or len(payload) < HEADER_BYTES:
        return None
    return int.from_bytes(payload[1:HEADER_BYTES], "big")


def without_header(payload: bytes, reason: str) -> tuple[int, bytes]:
    """The schema's id, and the rest of a payload. Raises Reject, with that reason, for a payload without a header."""
    found = schema_id(payload)
    if found is None:
        begin = payload[:HEADER_BYTES].hex(" ") or "nothing"
        raise Reject(reason, f"it has no header of Confluent's: it begins with {begin}, not with a zero byte and a "
                             "schema id (schema_header)")
    return found, payload[HEADER_BYTES:]


def hint(payload: bytes) -> str:
    """What is to be added to the error of a payload that looks as if it had a header; "" for any other."""
    found = schema_id(payload)
    if found is None:
        return ""
    return f'; it begins like a header of Confluent\'s for schema {found}: set schema_header = "confluent"'


def message_indexes(payload: bytes) -> tuple[list[int], bytes]:
    """The indexes of a Protobuf message, from the outermost type in, and the rest of the payload. Raises Reject."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(payload) or shift > 28:
                raise Reject("not_protobuf", "the message indexes after Confluent's header are cut short")
            byte = payload[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value >> 1 if not value & 1 else -1

    count = varint()
    if not 0 <= count <= _MAX_INDEXES:
        raise Reject("not_protobuf", f"{count} message indexes after Confluent's header")
    indexes = [varint() for _ in range(count)] or [0]
    return indexes, payload[at:]


class SchemaFolder:
    """The schemas of `schema_folder`: a file for each, named by its id. A file that is added later is found."""

    def __init__(self, folder: str, ending: str, parse: Callable[[bytes], Any], reason: str) -> None:
        """`parse` raises anything for a file that is no schema. Raises BadFormat with the first such file."""
        self._folder, self._ending, self._parse, self._reason = folder, ending, parse, reason
        self._known: dict[int, Any] = {}
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            raise BadFormat("schema_folder", f'"{folder}" cannot be read: {error.strerror}') from None
        for name in names:
            stem, dot, end = name.partition(".")
            if f"{dot}{end}" == ending and stem.isdecimal():
                try:
                    self._known[int(stem)] = self._read(name)
                except Exception as error:  # the libraries have no common error
                    raise BadFormat("schema_folder", f'"{os.path.join(folder, name)}": {error}') from None

    def _read(self, name: str) -> Any:
        with open(os.path.join(self._folder, name), "rb") as file:
            return self._parse(file.read())

    def schema(self, number: int) -> Any:
        """The schema with an id. Raises Reject if there is no file of it, or none that can be read."""
        if number not in self._known:
            name = f"{number}{self._ending}"
            path = os.path.join(self._folder, name)
            try:
                self._known[number] = self._read(name)
            except FileNotFoundError:
                raise Reject(self._reason, f"schema {number} is not known: put it into {path}") from None
            except Exception as error:
                raise Reject(self._reason, f"schema {number} in {path} cannot be used: {error}") from None
        return self._known[number]


def schema_text(content: bytes) -> Any:
    """The JSON of a schema's file: the schema, or what the registry answers, with the schema as a text in it."""
    found = json.loads(content)
    if isinstance(found, dict) and isinstance(found.get("schema"), str) and "type" not in found:
        return json.loads(found["schema"])
    return found
