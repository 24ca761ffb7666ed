"""The sandbox broker's users: passwords, personal access tokens, and what each may do. No sockets.

Rules and format as server 0.9.0-edge.5 has them. Source: `core/metadata/src/permissioner` and
`core/binary_protocol/src/primitives/permissions.rs` of apache/iggy.
"""

import secrets
import struct

from msgspec import Struct, field

from pipeline.testbed.sandbox.iggy import protocol
from pipeline.testbed.sandbox.iggy.protocol import Reader, Refused

#: A token's characters; the real server's have as many.
TOKEN_BYTES = 33
#: Names of the rights, in the order of the wire.
GLOBAL = ("manage_servers", "read_servers", "manage_users", "read_users", "manage_streams", "read_streams",
          "manage_topics", "read_topics", "poll_messages", "send_messages")
STREAM = ("manage_stream", "read_stream", "manage_topics", "read_topics", "poll_messages", "send_messages")
TOPIC = ("manage_topic", "read_topic", "poll_messages", "send_messages")
Rights = frozenset[str]


class StreamRights(Struct, frozen=True):
    """What a user may do in one stream, and in single topics of it."""

    rights: Rights
    topics: dict[int, Rights]


class Permissions(Struct, frozen=True):
    """What a user may do everywhere, and in single streams. `encoded` is the same as on the wire."""

    rights: Rights = frozenset()
    streams: dict[int, StreamRights] = {}
    encoded: bytes = b""


#: Of each action, the rights that allow it: everywhere, in the stream, in the topic.
_READ = ({"manage_streams", "read_streams", "manage_topics", "read_topics"},
         {"manage_stream", "read_stream", "manage_topics", "read_topics"}, {"manage_topic", "read_topic"})
ACTIONS: dict[str, tuple[set[str], set[str], set[str]]] = {
    "read_servers": ({"manage_servers", "read_servers"}, set(), set()),
    "manage_users": ({"manage_users"}, set(), set()),
    "read_users": ({"manage_users", "read_users"}, set(), set()),
    "manage_streams": ({"manage_streams"}, set(), set()),
    "read_streams": ({"manage_streams", "read_streams"}, set(), set()),
    "manage_stream": ({"manage_streams"}, {"manage_stream"}, set()),
    "read_stream": ({"manage_streams", "read_streams"}, {"manage_stream", "read_stream"}, set()),
    "manage_topics": ({"manage_streams", "manage_topics"}, {"manage_stream", "manage_topics"}, set()),
    "read_topics": (_READ[0], _READ[1], set()),
    "manage_topic": ({"manage_streams", "manage_topics"}, {"manage_stream", "manage_topics"}, {"manage_topic"}),
    "read_topic": _READ,
    "poll_messages": (_READ[0] | {"poll_messages"}, _READ[1] | {"poll_messages"}, _READ[2] | {"poll_messages"}),
    "send_messages": ({"manage_streams", "manage_topics", "send_messages"},
                      {"manage_stream", "manage_topics", "send_messages"}, {"manage_topic", "send_messages"}),
}


class User(Struct):
    """A user. The one with number 0 is root, and may do everything."""

    number: int
    name: str
    password: str
    created_at: int
    permissions: Permissions = Permissions()
    #: Name -> token, and when it expires: microseconds since 1970, 0 never.
    tokens: dict[str, tuple[str, int]] = field(default_factory=dict)
    is_active: bool = True

    def may(self, action: str, stream: int | None = None, topic: int | None = None) -> bool:
        """Whether the user may do it, there; `stream` and `topic` are their numbers."""
        if not self.number:
            return True
        everywhere, in_stream, in_topic = ACTIONS[action]
        if self.permissions.rights & everywhere:
            return True
        found = self.permissions.streams.get(stream) if stream is not None else None
        if found is None:
            return False
        return bool(found.rights & in_stream) or (
            topic is not None and bool(found.topics.get(topic, frozenset()) & in_topic))

    def encoded(self) -> bytes:
        """As `get_user` answers it."""
        permissions = self.permissions.encoded
        return (struct.pack("<IQB", self.number, self.created_at, 1 if self.is_active else 2)
                + protocol.text(self.name) + bytes(4)
                + (b"\1" + struct.pack("<I", len(permissions)) + permissions if permissions else bytes(4)))


class Users:
    """All users; the first is root."""

    def __init__(self, username: str, password: str, now: int) -> None:
        self._users = [User(0, username, password, now)]

    def by_password(self, username: str, password: str) -> User | None:
        """The user who may log in with it, or None."""
        return next((user for user in self._users if (user.name, user.password) == (username, password)
                     and user.is_active), None)

    def by_token(self, token: str, now: int) -> User | None:
        """The user whose token it is, unless it has expired."""
        return next((user for user in self._users for known, expires in user.tokens.values()
                     if known == token and user.is_active and not 0 < expires <= now), None)

    def get(self, name: int | str) -> User:
        """A user by name or number. Raises Refused when there is none."""
        for user in self._users:
            if name in (user.name, user.number):
                return user
        raise Refused(protocol.RESOURCE_NOT_FOUND)

    def add(self, name: str, password: str, permissions: Permissions, now: int) -> User:
        """Creates a user. Raises Refused when there is one of that name."""
        if any(user.name == name for user in self._users):
            raise Refused(protocol.USER_EXISTS)
        user = User(1 + max(user.number for user in self._users), name, password, now, permissions)
        self._users.append(user)
        return user

    def delete(self, name: int | str) -> None:
        """Deletes a user: whoever is logged in as the user may do nothing any more. Raises Refused."""
        user = self.get(name)
        if not user.number:
            raise Refused(protocol.CANNOT_DELETE_USER)
        user.permissions, user.is_active = Permissions(), False
        self._users.remove(user)


def make_token(user: User, name: str, expiry_micros: int, now: int) -> str:
    """Makes a personal access token, which lives for `expiry_micros`; 0: for ever. Raises Refused for a second one."""
    if name in user.tokens:
        raise Refused(protocol.TOKEN_EXISTS)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    user.tokens[name] = token, now + expiry_micros if 0 < expiry_micros < 2**63 else 0
    return token


def read_permissions(block: bytes) -> Permissions:
    """Permissions from the wire. Raises struct.error or IndexError for malformed ones."""
    reader = Reader(block)
    rights = _rights(reader, GLOBAL)
    streams: dict[int, StreamRights] = {}
    more = reader.u8()
    while more:
        number = reader.u32()
        in_stream = _rights(reader, STREAM)
        topics: dict[int, Rights] = {}
        more_topics = reader.u8()
        while more_topics:
            topic = reader.u32()
            topics[topic] = _rights(reader, TOPIC)
            more_topics = reader.u8()
        streams[number] = StreamRights(in_stream, topics)
        more = reader.u8()
    return Permissions(rights, streams, block)


def encode_permissions(rights: Rights, streams: dict[int, StreamRights]) -> Permissions:
    """Permissions, with what they are on the wire."""
    block = _flags(rights, GLOBAL)
    for number, stream in sorted(streams.items()):
        block += b"\1" + struct.pack("<I", number) + _flags(stream.rights, STREAM)
        for topic, in_topic in sorted(stream.topics.items()):
            block += b"\1" + struct.pack("<I", topic) + _flags(in_topic, TOPIC)
        block += b"\0"
    return Permissions(rights, streams, block + b"\0")


def _flags(rights: Rights, names: tuple[str, ...]) -> bytes:
    return bytes(name in rights for name in names)


def _rights(reader: Reader, names: tuple[str, ...]) -> Rights:
    return frozenset(name for name, given in zip(names, reader.take(len(names)), strict=True) if given)
