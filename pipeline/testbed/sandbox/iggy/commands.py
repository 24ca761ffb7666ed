"""What the sandbox broker does for each operation of Iggy's binary protocol.

Three kinds, with three ways of refusing: a read is refused by the reply's status; an operation on streams, topics and
groups by an entry in its result section; an operation on a partition by status 20 when its target can't be found.
Source: `core/server/src/dispatch.rs` and `responses.rs` of apache/iggy, server 0.9.0-edge.5.
"""

import contextlib
import struct
import time
from collections.abc import Callable

from pipeline.testbed.sandbox.iggy import protocol, system, user_commands
from pipeline.testbed.sandbox.iggy.authorization import is_allowed
from pipeline.testbed.sandbox.iggy.groups import Group
from pipeline.testbed.sandbox.iggy.log import PartitionLog, Topic
from pipeline.testbed.sandbox.iggy.protocol import (
    GENERIC,
    LOGOUT,
    REGISTER,
    Answer,
    Denied,
    Parts,
    Reader,
    Refused,
    Request,
)
from pipeline.testbed.sandbox.iggy.state import CutAnswer, Evicted, Session, State
from pipeline.testbed.sandbox.iggy.users import User

#: Kinds of consumer, and of polling strategy.
SINGLE, GROUP = 1, 2
OFFSET, TIMESTAMP, FIRST, LAST, NEXT = 1, 2, 3, 4, 5
#: Polls and look-ups of a consumer that names no partition take this one.
DEFAULT_PARTITION = 0
#: Most partitions that one request may add or remove.
MAX_PARTITIONS = 1_000
PING, POLL = 1, 100
CREATE_TOPIC, CREATE_PARTITIONS = 132, 136
#: The operations that the replies to these name.
COMMITTED_AS = {CREATE_TOPIC: 64, CREATE_PARTITIONS: 65}

Malformed = (struct.error, IndexError, UnicodeDecodeError)


def handle(state: State, session: Session, request: Request) -> Answer | Evicted | CutAnswer:
    """Carries a request out. The connection sends what is returned."""
    if not request.intact():
        return _denied(session, protocol.INVALID_FORMAT)
    if request.operation == GENERIC:
        return _read(state, session, request)
    if request.operation == REGISTER:
        return _login(state, session, request)
    if request.operation == LOGOUT:
        client, op = (request.client, session.id) if session.id else (session.transport_id, 0)
        state.end_session(session)
        return Answer([b""], client, op, state.op)
    if not session.id:
        return Evicted(session.transport_id, protocol.EVICTED_NO_SESSION)
    if request.operation >= protocol.FIRST_PARTITION_OPERATION:
        return _on_partition(state, session, request)
    return _on_metadata(state, session, request)


def _denied(session: Session, code: int, commit: int = 0) -> Answer:
    return Answer([b""], session.transport_id, commit=commit, status=code)


def _login(state: State, session: Session, request: Request) -> Answer | Evicted:
    user = _logged_in(state, Reader(request.body))
    if isinstance(user, int):
        return Evicted(request.client, user)
    state.end_session(session)
    session.id, session.user = state.next_op(), user
    body = struct.pack("<IQI", user.number, session.id, protocol.PROTOCOL_VERSION)
    return Answer([protocol.result(body + protocol.text(protocol.SERVER_VERSION))], request.client, session.id,
                  session.id)


def _logged_in(state: State, reader: Reader) -> User | int:
    """The user who logs in; or why that is refused: an eviction's reason."""
    try:
        version, _, _ = reader.u32(), reader.text(), reader.text()
    except Malformed:
        return protocol.EVICTED_MALFORMED_LOGIN
    if not protocol.compatible(version):
        return protocol.EVICTED_INCOMPATIBLE
    start = reader.at
    with contextlib.suppress(*Malformed):
        username, password = reader.text(), reader.text()
        if reader.u32() == len(reader.rest()):
            return state.users.by_password(username, password) or protocol.EVICTED_BAD_CREDENTIALS
    reader.at = start
    with contextlib.suppress(*Malformed):
        token = reader.text()
        if reader.u32() == len(reader.rest()):
            return state.users.by_token(token, state.clock()) or protocol.EVICTED_BAD_TOKEN
    return protocol.EVICTED_MALFORMED_LOGIN


def _read(state: State, session: Session, request: Request) -> Answer | CutAnswer:
    if not session.id and request.code != PING:
        return _denied(session, protocol.UNAUTHENTICATED)
    handler = _READS.get(request.code)
    status, parts = 0, Parts([b""])
    try:
        if not is_allowed(state, session, request):
            status = protocol.UNAUTHORIZED
        elif request.code == POLL:
            parts = _poll(state, session, Reader(request.body))
            if state.polls_to_cut and len(parts) > 1:
                state.polls_to_cut -= 1
                return CutAnswer(Answer(parts, request.client, request.session, state.op))
        elif handler is None:
            status = protocol.INVALID_COMMAND
        else:
            parts = [handler(state, session, Reader(request.body))]
    except Refused as refused:
        status = refused.code
    except Malformed:
        status = protocol.INVALID_COMMAND
    return Answer(parts, request.client, request.session, state.op, status=status)


def _on_metadata(state: State, session: Session, request: Request) -> Answer:
    handler = _METADATA.get(request.operation)
    if handler is None:
        return _denied(session, protocol.INVALID_COMMAND, state.op)
    try:
        if not is_allowed(state, session, request):
            raise Refused(protocol.UNAUTHORIZED)
        body = protocol.result(handler(state, session, Reader(request.body)))
    except Denied as denied:
        return _denied(session, denied.code, state.op)
    except Refused as refused:
        body = protocol.refusal(refused.code)
    except Malformed:
        return _denied(session, protocol.INVALID_COMMAND, state.op)
    op = state.next_op()
    return Answer([body], request.client, op, op, state.clock(),
                  operation=COMMITTED_AS.get(request.operation, 0), clustered=True)


def _on_partition(state: State, session: Session, request: Request) -> Answer:
    handler = _PARTITION.get(request.operation)
    if handler is None:
        return _denied(session, protocol.INVALID_COMMAND, state.op)
    try:
        if not is_allowed(state, session, request):
            return _denied(session, protocol.UNAUTHORIZED, state.op)
        return handler(state, session, Reader(request.body))
    except Denied as denied:
        return Answer([b""], session.transport_id, status=denied.code, clustered=True)
    except Refused:
        return _denied(session, protocol.RESOURCE_NOT_FOUND, state.op)
    except (*Malformed, ValueError):
        return _denied(session, protocol.INVALID_COMMAND, state.op)


def _committed(session: Session, log: PartitionLog, body: bytes, timestamp: int) -> Answer:
    log.op += 1
    return Answer([body], session.transport_id, log.op, log.op, timestamp, clustered=True)


def _send(state: State, session: Session, reader: Reader) -> Answer:
    end = reader.u32() + 4
    stream_id, topic_id = reader.identifier(), reader.identifier()
    topic = state.topic(stream_id, topic_id)
    if reader.u8() != 2:
        raise Denied(protocol.INVALID_COMMAND)
    log = topic.log(int.from_bytes(reader.take(reader.u8()), "little"))
    batch = log.append(memoryview(reader.body)[end:], state.clock())
    body = struct.pack("<IIIIQ", 1, state.stream(stream_id).id, topic.id, log.partition, batch.base)
    return _committed(session, log, body, batch.timestamp)


def _poll(state: State, session: Session, reader: Reader) -> Parts:
    kind, consumer = reader.u8(), reader.identifier()
    topic = state.topic(reader.identifier(), reader.identifier())
    asked = reader.partition()
    strategy, value, count, commit = reader.u8(), reader.u64(), reader.u32(), reader.u8()
    number = DEFAULT_PARTITION if asked is None else asked
    group: Group | None = None
    if kind == GROUP:
        if asked is None or not OFFSET <= strategy <= NEXT:
            return [_polled(0)]
        group = _settled_group(state, topic, consumer)
        if group is None or not group.may_poll(session.id, number):
            return [_polled(protocol.RESYNC_PARTITION)]
    log = topic.log(number)
    stored = group.offsets.get(number) if group else topic.offsets.get((consumer, number))
    starts = {OFFSET: value, FIRST: 0, LAST: log.current_offset + 1 - count, NEXT: -1 if stored is None else stored}
    start = log.first_since(value) if strategy == TIMESTAMP else starts[strategy] + (strategy == NEXT)
    found = log.read(start, count)
    if found.count:
        if group:
            group.served(number, found.last)
        if commit and (stored is None or found.last > stored):
            log.op += 1
            _store(topic, group, consumer, number, found.last)
    return [_polled(number, log.current_offset, found.count), *found.parts]


def _polled(partition: int, current_offset: int = 0, count: int = 0) -> bytes:
    return struct.pack("<IQI", partition, current_offset, count)


def _settled_group(state: State, topic: Topic, name: int | str) -> Group | None:
    try:
        group = topic.group(name)
    except Refused:
        return None
    state.settle(group)
    return group


def _store(topic: Topic, group: Group | None, consumer: int | str, partition: int, offset: int) -> None:
    if group:
        group.offsets[partition] = offset
    else:
        topic.offsets[consumer, partition] = offset


def _offset_target(state: State, session: Session,
                   reader: Reader) -> tuple[Topic, Group | None, int | str, PartitionLog]:
    """What a store or a removal of an offset is about. Raises Refused; also for a group's partition that isn't ours."""
    kind, consumer = reader.u8(), reader.identifier()
    topic = state.topic(reader.identifier(), reader.identifier())
    asked = reader.partition()
    if asked is None:
        raise Refused(protocol.PARTITION_NOT_FOUND)
    group = None
    if kind == GROUP:
        group = _settled_group(state, topic, consumer)
        if group is None or not group.owns(session.id, asked):
            raise Refused(protocol.MEMBER_NOT_FOUND)
    return topic, group, consumer, topic.log(asked)


def _store_offset(state: State, session: Session, reader: Reader) -> Answer:
    topic, group, consumer, log = _offset_target(state, session, reader)
    offset, acknowledged = reader.u64(), reader.u8()
    if not log.next_offset or offset > log.current_offset:
        raise Denied(protocol.INVALID_OFFSET)
    _store(topic, group, consumer, log.partition, offset)
    return _offset_changed(state, session, log, acknowledged)


def _delete_offset(state: State, session: Session, reader: Reader) -> Answer:
    topic, group, consumer, log = _offset_target(state, session, reader)
    acknowledged = reader.u8()
    removed = group.offsets.pop(log.partition, None) if group else topic.offsets.pop((consumer, log.partition), None)
    if removed is None:
        raise Denied(protocol.OFFSET_NOT_FOUND)
    return _offset_changed(state, session, log, acknowledged)


def _offset_changed(state: State, session: Session, log: PartitionLog, acknowledged: int) -> Answer:
    if acknowledged:
        return _committed(session, log, protocol.result(), state.clock())
    return Answer([protocol.result()], session.transport_id, log.op, log.op, clustered=True)


def _get_offset(state: State, _: Session, reader: Reader) -> bytes:
    kind, consumer = reader.u8(), reader.identifier()
    try:
        topic = state.topic(reader.identifier(), reader.identifier())
    except Refused:
        return b""
    asked = reader.partition()
    log = topic.log(DEFAULT_PARTITION if asked is None else asked)
    if kind == GROUP:
        group = _settled_group(state, topic, consumer)
        stored = group.offsets.get(log.partition) if group else None
    else:
        stored = topic.offsets.get((consumer, log.partition))
    return b"" if stored is None else struct.pack("<IQQ", log.partition, log.current_offset, stored)


def _ping(_: State, __: Session, ___: Reader) -> bytes:
    return b""


def _get_stream(state: State, _: Session, reader: Reader) -> bytes:
    try:
        stream = state.stream(reader.identifier())
    except Refused:
        return b""
    return stream.summary() + b"".join(topic.summary() for topic in stream.topics.values())


def _get_streams(state: State, _: Session, __: Reader) -> bytes:
    return b"".join(stream.summary() for stream in state.streams.values())


def _create_stream(state: State, _: Session, reader: Reader) -> bytes:
    name = reader.text()
    if protocol.read_options(reader.rest()):
        raise Denied(protocol.UNSUPPORTED_OPTION)
    return state.new_stream(name).summary()


def _delete_stream(state: State, _: Session, reader: Reader) -> bytes:
    del state.streams[state.stream(reader.identifier()).name]
    return b""


def _get_topic(state: State, _: Session, reader: Reader) -> bytes:
    try:
        return state.topic(reader.identifier(), reader.identifier()).details()
    except Refused:
        return b""


def _get_topics(state: State, _: Session, reader: Reader) -> bytes:
    try:
        topics = list(state.stream(reader.identifier()).topics.values())
    except Refused:
        topics = []
    return struct.pack("<I", len(topics)) + b"".join(topic.summary() for topic in topics)


def _create_topic(state: State, _: Session, reader: Reader) -> bytes:
    stream, partitions, name = reader.identifier(), reader.u32(), reader.text()
    options = protocol.read_options(reader.rest())
    if state.strict_options and not options.keys() <= protocol.TOPIC_DEFAULTS.keys():
        raise Denied(protocol.UNSUPPORTED_OPTION)
    if partitions > MAX_PARTITIONS:
        raise Denied(protocol.TOO_MANY_PARTITIONS)
    return state.new_topic(stream, name, partitions, options).details(segments=0)


def _delete_topic(state: State, _: Session, reader: Reader) -> bytes:
    stream = state.stream(reader.identifier())
    del stream.topics[state.topic(stream.id, reader.identifier()).name]
    return b""


def _purge_topic(state: State, _: Session, reader: Reader) -> bytes:
    state.topic(reader.identifier(), reader.identifier()).purge()
    return b""


def _partitions_change(state: State, reader: Reader) -> tuple[Topic, int]:
    stream, topic, count = reader.identifier(), reader.identifier(), reader.u32()
    if not 0 < count <= MAX_PARTITIONS:
        raise Denied(protocol.TOO_MANY_PARTITIONS)
    return state.topic(stream, topic), count


def _create_partitions(state: State, _: Session, reader: Reader) -> bytes:
    topic, count = _partitions_change(state, reader)
    state.change_partitions(topic, count)
    return b""


def _delete_partitions(state: State, _: Session, reader: Reader) -> bytes:
    topic, count = _partitions_change(state, reader)
    if count > len(topic.logs):
        raise Refused(protocol.BAD_PARTITION_COUNT)
    state.change_partitions(topic, -count)
    return b""


def _get_group(state: State, _: Session, reader: Reader) -> bytes:
    topic = state.topic(reader.identifier(), reader.identifier())
    group = _settled_group(state, topic, reader.identifier())
    return group.details(len(topic.logs)) if group else b""


def _get_groups(state: State, _: Session, reader: Reader) -> bytes:
    topic = state.topic(reader.identifier(), reader.identifier())
    return b"".join(group.summary(len(topic.logs)) for group in topic.groups.values())


def _sync(state: State, session: Session, reader: Reader) -> bytes:
    try:
        _, group = _named_group(state, reader)
    except Refused:
        return b""
    return group.assignment(session.id)


def _named_group(state: State, reader: Reader) -> tuple[Topic, Group]:
    topic = state.topic(reader.identifier(), reader.identifier())
    group = topic.group(reader.identifier())
    state.settle(group)
    return topic, group


def _create_group(state: State, _: Session, reader: Reader) -> bytes:
    topic = state.topic(reader.identifier(), reader.identifier())
    name = reader.text()
    if name in topic.groups:
        raise Refused(protocol.GROUP_EXISTS)
    return topic.add_group(name).summary(len(topic.logs))


def _delete_group(state: State, _: Session, reader: Reader) -> bytes:
    topic, group = _named_group(state, reader)
    del topic.groups[group.name]
    return b""


def _join(state: State, session: Session, reader: Reader) -> bytes:
    topic, group = _named_group(state, reader)
    group.join(session.id, topic.partition_numbers, time.monotonic())
    return b""


def _leave(state: State, session: Session, reader: Reader) -> bytes:
    topic, group = _named_group(state, reader)
    if not group.leave(session.id, topic.partition_numbers):
        raise Refused(protocol.MEMBER_NOT_FOUND)
    return b""


_READS: dict[int, Callable[[State, Session, Reader], bytes]] = {
    PING: _ping, 10: system.stats, 12: system.cluster, 13: system.options, 20: system.me, 31: user_commands.get_user,
    120: _get_offset,
    200: _get_stream, 201: _get_streams, 300: _get_topic, 301: _get_topics, 600: _get_group, 601: _get_groups,
    606: _sync,
}
_METADATA: dict[int, Callable[[State, Session, Reader], bytes]] = {
    128: _create_stream, 130: _delete_stream, CREATE_TOPIC: _create_topic, 134: _delete_topic,
    135: _purge_topic,
    CREATE_PARTITIONS: _create_partitions, 137: _delete_partitions, 139: _create_group, 140: _delete_group,
    **user_commands.METADATA, 148: _join, 149: _leave,
}
_PARTITION: dict[int, Callable[[State, Session, Reader], Answer]] = {
    160: _send, 161: _store_offset, 162: _delete_offset,
}
