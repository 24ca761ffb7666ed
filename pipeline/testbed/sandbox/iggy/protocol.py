"""Iggy's binary protocol 0.11.0, as much as the sandbox needs: frames, names, options. Pure.

A frame is a 256-byte header and a body, little-endian. Source: `core/binary_protocol` of apache/iggy.
"""

import struct
from typing import TypeAlias

import xxhash
from msgspec import Struct

HEADER_BYTES = 256
COMMAND_PING, COMMAND_PONG, COMMAND_REQUEST, COMMAND_REPLY, COMMAND_EVICTION = 3, 4, 5, 8, 13
#: Operations that aren't metadata or partition operations.
REGISTER, GENERIC, LOGOUT = 1, 2, 3
#: Operations from here on are of one partition.
FIRST_PARTITION_OPERATION = 160
EVICTED_NO_SESSION, EVICTED_BAD_CREDENTIALS, EVICTED_BAD_TOKEN = 1, 9, 10
EVICTED_INCOMPATIBLE, EVICTED_MALFORMED_LOGIN = 14, 15
#: Protocol version: `major << 20 | minor << 10 | patch`; any patch of 0.11, and no newer minor, may log in.
PROTOCOL_VERSION = PROTOCOL_VERSION_MIN = 11 << 10
SERVER_VERSION = "0.9.0-edge.5"
#: `major * 1_000_000 + minor * 1_000 + patch` of the server, as its statistics give it.
SERVER_SEMVER = 9_000
#: The real server's hash of its default cluster name; it stamps it on what it has committed.
CLUSTER_ID = bytes.fromhex("21bb05c88727bab88d0ec27be8a72d46")
#: Partition number of an empty group poll, upon which the client requests its assignment again.
RESYNC_PARTITION = 2**32 - 1

INVALID_COMMAND, INVALID_FORMAT = 3, 4
RESOURCE_NOT_FOUND = 20
UNAUTHENTICATED, UNAUTHORIZED = 40, 41
INVALID_PASSWORD, USER_EXISTS, CANNOT_DELETE_USER, TOKEN_EXISTS = 44, 46, 48, 51
STREAM_NOT_FOUND, STREAM_EXISTS = 1009, 1012
TOPIC_NOT_FOUND, TOPIC_EXISTS = 2010, 2013
TOO_MANY_PARTITIONS, BAD_PARTITION_COUNT = 2015, 2019
PARTITION_NOT_FOUND = 3007
OFFSET_NOT_FOUND = 3021
UNSUPPORTED_OPTION = 4041
INVALID_OFFSET = 4100
GROUP_NOT_FOUND, GROUP_EXISTS, MEMBER_NOT_FOUND = 5000, 5004, 5006

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
Buffer: TypeAlias = bytes | bytearray | memoryview
Parts: TypeAlias = list[Buffer]


class Refused(Exception):
    """A look-up or a rule failed, with the server's error code. Its form in a reply depends on the operation."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Denied(Refused):
    """Refused before anything was committed: always the reply's status, with an empty body."""


class Request(Struct, frozen=True):
    """One request of a client; `code` counts only with operation GENERIC. The body may be a view of a live buffer."""

    command: int
    client: bytes
    checksum: bytes
    number: int
    operation: int
    session: int
    code: int
    body: Buffer

    def kept(self) -> "Request":
        """The same with a body of its own, for a request that is answered later."""
        return Request(self.command, self.client, self.checksum, self.number, self.operation, self.session, self.code,
                       bytes(self.body))

    def intact(self) -> bool:
        """Whether the body matches its XXH3-64 stamp; a zero stamp isn't checked."""
        stamp = int.from_bytes(self.checksum, "little")
        return stamp == 0 or stamp == xxhash.xxh3_64_intdigest(self.body)


class Answer(Struct, frozen=True):
    """A reply without what it echoes. `timestamp` in microseconds since 1970, 0 for what wasn't committed."""

    parts: Parts
    client: bytes
    op: int = 0
    commit: int = 0
    timestamp: int = 0
    #: 0: the operation of the request.
    operation: int = 0
    status: int = 0
    #: Whether the cluster's id is stamped on it, as on all that went through consensus.
    clustered: bool = False


def parse_request(frame: Buffer) -> Request:
    """A whole frame taken apart. Raises struct.error when it is shorter than a header."""
    return Request(frame[60], bytes(frame[128:144]), bytes(frame[144:160]), _U64.unpack_from(frame, 168)[0], frame[176],
                   _U64.unpack_from(frame, 184)[0], _U32.unpack_from(frame, 196)[0], frame[HEADER_BYTES:])


def reply_header(request: Request, answer: Answer) -> bytes:
    """The header of a reply to `request`."""
    header = bytearray(HEADER_BYTES)
    if answer.clustered:
        header[32:48] = CLUSTER_ID
    _U32.pack_into(header, 48, HEADER_BYTES + sum(map(len, answer.parts)))
    header[60] = COMMAND_REPLY
    header[128:144] = request.checksum
    header[160:176] = answer.client
    struct.pack_into("<QQQQ", header, 176, answer.op, answer.commit, answer.timestamp, request.number)
    header[208] = answer.operation or request.operation
    _U32.pack_into(header, 216, answer.status)
    return bytes(header)


def eviction(client: bytes, reason: int) -> bytes:
    """Tells a client why its session is over. The connection stays open: the client may log in again on it."""
    header = bytearray(HEADER_BYTES)
    header[32:48] = CLUSTER_ID
    _U32.pack_into(header, 48, HEADER_BYTES)
    header[60] = COMMAND_EVICTION
    header[128:144] = client
    if reason == EVICTED_INCOMPATIBLE:
        struct.pack_into("<II", header, 144, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN)
    header[255] = reason
    return bytes(header)


def compatible(version: int) -> bool:
    """Whether a client of this protocol version may log in."""
    return version >= PROTOCOL_VERSION_MIN and version >> 10 <= PROTOCOL_VERSION >> 10


class Reader:
    """Reads the parts of a body in order. Raises struct.error or IndexError when it is too short."""

    def __init__(self, body: Buffer) -> None:
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
        if self.at > len(self.body):
            raise IndexError(f"{size} bytes announced, {len(self.body) - self.at + size} there")
        return bytes(self.body[self.at - size:self.at])

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self.body) - self.at)

    def text(self) -> str:
        """One byte of length, then UTF-8."""
        return self.take(self.u8()).decode()

    def identifier(self) -> int | str:
        """`[1][4][u32]` or `[2][length][name]`."""
        kind = self.u8()
        raw = self.take(self.u8())
        return int(_U32.unpack(raw)[0]) if kind == 1 else raw.decode()

    def partition(self) -> int | None:
        """`[1][u32]`, or `[0][0]` for none."""
        given, number = self.u8(), self.u32()
        return number if given else None


def result(payload: bytes = b"") -> bytes:
    """The body of a committed operation that worked."""
    return bytes(4) + payload


def refusal(code: int) -> bytes:
    """The body of a committed operation that was refused."""
    return struct.pack("<III", 1, 0, code)


def text(value: str) -> bytes:
    """One byte of length, then UTF-8."""
    encoded = value.encode()
    return bytes((len(encoded),)) + encoded


def long_text(value: str) -> bytes:
    """Four bytes of length, then UTF-8."""
    encoded = value.encode()
    return _U32.pack(len(encoded)) + encoded


#: Kinds of an option's value.
_STRING, _BOOL, _UINT32, _UINT64 = 2, 3, 11, 12
_UNLIMITED = b"\xff" * 8
Options: TypeAlias = dict[str, tuple[int, bytes]]
#: Every option a topic of server 0.9.0-edge.5 has, with the server's default.
TOPIC_DEFAULTS: Options = {
    "compression_algorithm": (_STRING, b"none"), "enforce_fsync": (_BOOL, b"\0"),
    "max_topic_size": (_UINT64, _UNLIMITED), "message_expiry": (_UINT64, _UNLIMITED),
    "messages_required_to_save": (_UINT32, _U32.pack(1024)), "preallocate_segments": (_BOOL, b"\0"),
    "segment_size": (_UINT64, _U64.pack(1 << 30)), "size_of_messages_required_to_save": (_UINT64, _U64.pack(1 << 20)),
}


def read_options(block: bytes) -> Options:
    """The entries of an options block, to its end. Raises struct.error or IndexError for a malformed one."""
    reader, found = Reader(block), Options()
    while reader.at < len(block):
        reader.u8()
        key = reader.take(reader.u32()).decode()
        kind = reader.u8()
        found[key] = kind, reader.take(reader.u32())
    return found


def _options_block(options: Options) -> bytes:
    encoded = b"".join(bytes((_STRING,)) + long_text(key) + bytes((kind,)) + _U32.pack(len(value)) + value
                       for key, (kind, value) in sorted(options.items()))
    return _U32.pack(len(encoded)) + encoded


def _canonical(kind: int, given: int, value: bytes) -> tuple[int, bytes]:
    """A value in the type of its key, if it is a text of that type."""
    size = {_UINT32: 4, _UINT64: 8}.get(kind)
    if given == _STRING and size is not None and value.isdigit() and int(value) < 1 << 8 * size:
        return kind, int(value).to_bytes(size, "little")
    if given == _STRING and kind == _BOOL and value in (b"true", b"false"):
        return kind, bytes((value == b"true",))
    return given, value


def topic_catalog() -> bytes:
    """The options that a topic may have. Source: `responses/system/describe_options.rs`."""
    return _U32.pack(len(TOPIC_DEFAULTS)) + b"".join(
        text(key) + bytes((kind,)) + _U32.pack(len(default)) + default + _U32.pack(0)
        for key, (kind, default) in TOPIC_DEFAULTS.items())


class TopicOptions:
    """A topic's options: those that its creator gave, and the server's defaults for the rest."""

    def __init__(self, explicit: Options) -> None:
        """Of `explicit`, numbers may be texts of digits, and truths `true` and `false`: they become what they mean."""
        self.explicit = {key: _canonical(TOPIC_DEFAULTS[key][0], *value) for key, value in explicit.items()
                         if key in TOPIC_DEFAULTS}

    def number(self, key: str) -> int:
        """One that is a number; a value that isn't in its canonical form counts as the default."""
        kind, value = self.explicit.get(key, TOPIC_DEFAULTS[key])
        return int.from_bytes(value if kind == _UINT64 else TOPIC_DEFAULTS[key][1], "little")

    def compression(self) -> int:
        """1 none, 2 gzip."""
        return 2 if self.explicit.get("compression_algorithm", (0, b""))[1] == b"gzip" else 1

    def encoded(self) -> bytes:
        """Both blocks as they end a topic's description."""
        derived = {key: value for key, value in TOPIC_DEFAULTS.items() if key not in self.explicit}
        return _options_block(self.explicit) + _options_block(derived)
