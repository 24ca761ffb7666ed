"""Which right each request needs. Source: `core/server/src/dispatch/authz.rs` of apache/iggy, server 0.9.0-edge.5.

A request on something that does not exist is let through, as there: its handler answers that.
"""

from msgspec import Struct

from pipeline.testbed.sandbox.iggy.protocol import GENERIC, Reader, Refused, Request
from pipeline.testbed.sandbox.iggy.state import Session, State
from pipeline.testbed.sandbox.iggy.users import User


class Rule(Struct, frozen=True):
    """The action, and where a body names its stream and topic."""

    action: str
    #: How many names precede: "consumer" one with its kind, "metadata" the length before a send's target.
    after: str = ""
    #: 0: nothing is named; 1: a stream; 2: a stream and a topic.
    names: int = 0


#: By command code, for reads.
_READS = {
    10: Rule("read_servers"), 32: Rule("read_users"), 200: Rule("read_stream", names=1), 201: Rule("read_streams"),
    300: Rule("read_topic", names=2), 301: Rule("read_topics", names=1), 600: Rule("read_topic", names=2),
    601: Rule("read_topic", names=2), 100: Rule("poll_messages", "consumer", 2),
    120: Rule("poll_messages", "consumer", 2),
}
#: By operation, for the rest.
_OPERATIONS = {
    128: Rule("manage_streams"), 129: Rule("manage_stream", names=1), 130: Rule("manage_stream", names=1),
    131: Rule("manage_stream", names=1), 132: Rule("manage_topics", names=1), 133: Rule("manage_topic", names=2),
    134: Rule("manage_topic", names=2), 135: Rule("manage_topic", names=2), 136: Rule("manage_topic", names=2),
    137: Rule("manage_topic", names=2), 139: Rule("read_topic", names=2), 140: Rule("read_topic", names=2),
    141: Rule("manage_users"), 142: Rule("manage_users"), 143: Rule("manage_users"), 144: Rule("manage_users"),
    145: Rule("manage_users"), 148: Rule("read_topic", names=2), 149: Rule("read_topic", names=2),
    160: Rule("send_messages", "metadata", 2), 161: Rule("poll_messages", "consumer", 2),
    162: Rule("poll_messages", "consumer", 2),
}


def is_allowed(state: State, session: Session, request: Request) -> bool:
    """Whether the session's user may do what is requested. Raises as a Reader does, for a malformed body."""
    user = session.user
    if user is None or not user.number:
        return True  # root; and without a login the request is refused for that
    rule = _READS.get(request.code) if request.operation == GENERIC else _OPERATIONS.get(request.operation)
    if rule is None:
        return True
    reader = Reader(request.body)
    if rule.after == "consumer":
        reader.u8()
        reader.identifier()
    elif rule.after == "metadata":
        reader.u32()
    return _may(state, user, rule, reader)


def _may(state: State, user: User, rule: Rule, reader: Reader) -> bool:
    try:
        stream = state.stream(reader.identifier()) if rule.names else None
        topic = state.topic(stream.id, reader.identifier()) if stream is not None and rule.names > 1 else None
    except Refused:
        return True
    return user.may(rule.action, None if stream is None else stream.id, None if topic is None else topic.id)
