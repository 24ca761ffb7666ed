"""What the sandbox broker does for operations on users and their personal access tokens."""

from collections.abc import Callable
from types import MappingProxyType

from pipeline.testbed.sandbox.iggy import protocol
from pipeline.testbed.sandbox.iggy.protocol import Reader, Refused
from pipeline.testbed.sandbox.iggy.state import Session, State
from pipeline.testbed.sandbox.iggy.users import Permissions, make_token, read_permissions


def get_user(state: State, session: Session, reader: Reader) -> bytes:
    """A user, with the permissions. Raises Refused for another one without the right."""
    try:
        user = state.users.get(reader.identifier())
    except Refused:
        return b""
    if session.user is not user and session.user is not None and not session.user.may("read_users"):
        raise Refused(protocol.UNAUTHORIZED)
    return user.encoded()


def _given_permissions(reader: Reader) -> Permissions:
    return read_permissions(reader.take(reader.u32())) if reader.u8() else Permissions()


def create_user(state: State, _: Session, reader: Reader) -> bytes:
    """Creates a user. Raises Refused for one that exists."""
    name, password, active = reader.text(), reader.text(), reader.u8() == 1
    user = state.users.add(name, password, _given_permissions(reader), state.clock())
    user.is_active = active
    return user.encoded()


def delete_user(state: State, _: Session, reader: Reader) -> bytes:
    """Deletes a user. Raises Refused."""
    state.users.delete(reader.identifier())
    return b""


def change_password(state: State, _: Session, reader: Reader) -> bytes:
    """Changes a password. Raises Refused if the old one is wrong."""
    user, old, new = state.users.get(reader.identifier()), reader.text(), reader.text()
    if user.password != old:
        raise Refused(protocol.INVALID_PASSWORD)
    user.password = new
    return b""


def update_permissions(state: State, _: Session, reader: Reader) -> bytes:
    """Replaces a user's permissions. Raises Refused."""
    user = state.users.get(reader.identifier())
    user.permissions = _given_permissions(reader)
    return b""


def create_token(state: State, session: Session, reader: Reader) -> bytes:
    """Makes a personal access token of the user who asks. Raises Refused."""
    assert session.user is not None  # metadata operations need a login
    return protocol.text(make_token(session.user, reader.text(), reader.u64(), state.clock()))


def delete_token(state: State, session: Session, reader: Reader) -> bytes:
    """Deletes one. Raises Refused."""
    assert session.user is not None
    if session.user.tokens.pop(reader.text(), None) is None:
        raise Refused(protocol.RESOURCE_NOT_FOUND)
    return b""


#: By operation.
METADATA: MappingProxyType[int, Callable[[State, Session, Reader], bytes]] = MappingProxyType({
    141: create_user, 143: delete_user, 144: change_password, 145: update_permissions, 146: create_token,
    147: delete_token,
})
