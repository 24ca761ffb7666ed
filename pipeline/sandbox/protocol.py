"""Iggy's binary protocol 0.11.0, as much as the sandbox needs: frames and names. Pure.

A frame is a 256-byte header and a body, little-endian. Source: `core/binary_protocol` of apache/iggy.
"""

import struct

from msgspec import Struct

HEADER_BYTES = 256
COMMAND_PING, COMMAND_PONG, COMMAND_REQUEST, COMMAND_REPLY, COMMAND_EVICTION = 3, 4, 5, 8, 13
EVICTED_BAD_CREDENTIALS, EVICTED_MALFORMED_LOGIN = 9, 15
#: Protocol and server version in the answer to a login.
LOGIN_VERSIONS = bytes.fromhex("002c0000") + b"\x0c0.9.0-edge.5"

RESOURCE_NOT_FOUND = 20
STREAM_EXISTS = 1012
TOPIC_EXISTS = 2013
GROUP_EXISTS = 5004
PARTITION_NOT_FOUND = 3007

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Refused(Exception):
    """The request is answered with an error code and an empty body."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Request(Struct, frozen=True):
    """One request of a client; `code` counts only with operation 2."""

    command: int
    client: bytes
    checksum: bytes
    number: int
    operation: int
    session: int
    code: int
    body: bytes


def parse_request(frame: bytes) -> Request:
    """A whole frame taken apart."""
    return Request(frame[60], frame[128:144], frame[144:160], _U64.unpack_from(frame, 168)[0], frame[176],
                   _U64.unpack_from(frame, 184)[0], _U32.unpack_from(frame, 196)[0], frame[HEADER_BYTES:])


def reply_header(request: Request, body_bytes: int, status: int, session: int, operation: int) -> bytes:
    """The header of a reply to `request`."""
    header = bytearray(HEADER_BYTES)
    _U32.pack_into(header, 48, HEADER_BYTES + body_bytes)
    header[60] = COMMAND_REPLY
    header[128:144] = request.checksum
    header[160:176] = request.client
    _U64.pack_into(header, 176, session)
    _U64.pack_into(header, 184, session if operation == 1 else 0)
    _U64.pack_into(header, 200, request.number)
    header[208] = operation
    _U32.pack_into(header, 216, status)
    return bytes(header)


def eviction(request: Request, reason: int) -> bytes:
    """Tells a client why it is thrown out."""
    header = bytearray(HEADER_BYTES)
    _U32.pack_into(header, 48, HEADER_BYTES)
    header[60] = COMMAND_EVICTION
    header[128:144] = request.client
    header[255] = reason
    return bytes(header)


class Reader:
    """Reads the parts of a body in order. Raises struct.error or IndexError when it is too short."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def u8(self) -> int:
        """One byte."""
        self.at += 1
        return self.body[self.at - 1]

    def u32(self) -> int:
        """Four bytes."""
        self.at += 4
        return int(_U32.unpack_from(self.body, self.at - 4)[0])

    def u64(self) -> int:
        """Eight bytes."""
        self.at += 8
        return int(_U64.unpack_from(self.body, self.at - 8)[0])

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        self.at += size
        return self.body[self.at - size:self.at]

    def text(self) -> str:
        """One byte of length, then UTF-8."""
        return self.take(self.u8()).decode()

    def identifier(self) -> int | str:
        """`[1][4][u32]` or `[2][length][name]`."""
        kind = self.u8()
        raw = self.take(self.u8())
        return int(_U32.unpack(raw)[0]) if kind == 1 else raw.decode()


def result(payload: bytes = b"") -> bytes:
    """The body of a metadata operation that worked."""
    return bytes(4) + payload


def refusal(code: int) -> bytes:
    """The body of a metadata operation that was refused."""
    return struct.pack("<III", 1, 0, code)


def text(value: str) -> bytes:
    """One byte of length, then UTF-8."""
    encoded = value.encode()
    return bytes((len(encoded),)) + encoded


def options() -> bytes:
    """The options that the server derives for a topic, as recorded of the real one with its defaults."""
    entries = [
        ("compression_algorithm", 2, b"none"), ("enforce_fsync", 3, b"\0"), ("max_topic_size", 12, b"\xff" * 8),
        ("message_expiry", 12, b"\xff" * 8), ("messages_required_to_save", 11, _U32.pack(1024)),
        ("preallocate_segments", 3, b"\0"), ("segment_size", 12, _U64.pack(1 << 30)),
        ("size_of_messages_required_to_save", 12, _U64.pack(1 << 20)),
    ]
    encoded = b"".join(b"\x02" + _U32.pack(len(key)) + key.encode() + bytes((kind,)) + _U32.pack(len(value)) + value
                       for key, kind, value in entries)
    return bytes(4) + _U32.pack(len(encoded)) + encoded
