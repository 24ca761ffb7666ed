"""What the sandbox broker does for each operation of Iggy's binary protocol.

Three kinds, with three ways of refusing: a read is refused by the reply's status; an operation on streams, topics and
groups by an entry in its result section; an operation on a partition by status 20 when its target can't be found.
Source: `core/server/src/dispatch.rs` and `responses.rs` of apache/iggy, server 0.9.0-edge.5.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.testbed.sandbox.iggy import protocol, system
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

if TYPE_CHECKING:
    from pipeline.testbed.sandbox.iggy.server import Broker, Connection

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


def handle(broker: Broker, connection: Connection, request: Request) -> Answer | None:
    """The answer; None when there is none, or it is on its way already."""
    if not request.intact():
        return _denied(connection, protocol.INVALID_FORMAT)
    if request.operation == GENERIC:
        return _read(broker, connection, request)
    if request.operation == REGISTER:
        return _login(broker, connection, request)
    if request.operation == LOGOUT:
        client, session = (request.client, connection.session) if connection.session else (connection.transport_id, 0)
        connection.end_session()
        return Answer([b""], client, session, broker.op)
    if not connection.session:
        connection.transport.write(protocol.eviction(connection.transport_id, protocol.EVICTED_NO_SESSION))
        return None
    if request.operation >= protocol.FIRST_PARTITION_OPERATION:
        return _on_partition(broker, connection, request)
    return _on_metadata(broker, connection, request)


def _denied(connection: Connection, code: int, commit: int = 0) -> Answer:
    return Answer([b""], connection.transport_id, commit=commit, status=code)


def _login(broker: Broker, connection: Connection, request: Request) -> Answer | None:
    reason = _login_refusal(broker, Reader(request.body))
    if reason is not None:
        connection.transport.write(protocol.eviction(request.client, reason))
        return None
    connection.end_session()
    session = connection.session = broker.next_op()
    body = struct.pack("<IQI", 0, session, protocol.PROTOCOL_VERSION) + protocol.text(protocol.SERVER_VERSION)
    return Answer([protocol.result(body)], request.client, session, session)


def _login_refusal(broker: Broker, reader: Reader) -> int | None:
    """Why a login is refused: an eviction's reason, or None."""
    try:
        version, _, _ = reader.u32(), reader.text(), reader.text()
        if not protocol.compatible(version):
            return protocol.EVICTED_INCOMPATIBLE
        credentials = reader.text(), reader.text()
    except Malformed:
        return protocol.EVICTED_MALFORMED_LOGIN
    return None if credentials == broker.credentials else protocol.EVICTED_BAD_CREDENTIALS


def _read(broker: Broker, connection: Connection, request: Request) -> Answer | None:
    if not connection.session and request.code != PING:
        return _denied(connection, protocol.UNAUTHENTICATED)
    handler = _READS.get(request.code)
    status, parts = 0, Parts([b""])
    try:
        if request.code == POLL:
            parts = _poll(broker, connection, Reader(request.body))
            if broker.polls_to_cut and len(parts) > 1:
                broker.polls_to_cut -= 1
                connection.send_cut(request, parts)
                return None
        elif handler is None:
            status = protocol.INVALID_COMMAND
        else:
            parts = [handler(broker, connection, Reader(request.body))]
    except Refused as refused:
        status = refused.code
    except Malformed:
        status = protocol.INVALID_COMMAND
    return Answer(parts, request.client, request.session, broker.op, status=status)


def _on_metadata(broker: Broker, connection: Connection, request: Request) -> Answer:
    handler = _METADATA.get(request.operation)
    if handler is None:
        return _denied(connection, protocol.INVALID_COMMAND, broker.op)
    try:
        body = protocol.result(handler(broker, connection, Reader(request.body)))
    except Denied as denied:
        return _denied(connection, denied.code, broker.op)
    except Refused as refused:
        body = protocol.refusal(refused.code)
    except Malformed:
        return _denied(connection, protocol.INVALID_COMMAND, broker.op)
    op = broker.next_op()
    return Answer([body], request.client, op, op, broker.clock(),
                  operation=COMMITTED_AS.get(request.operation, 0), clustered=True)


def _on_partition(broker: Broker, connection: Connection, request: Request) -> Answer:
    handler = _PARTITION.get(request.operation)
    if handler is None:
        return _denied(connection, protocol.INVALID_COMMAND, broker.op)
    try:
        return handler(broker, connection, Reader(request.body))
    except Denied as denied:
        return Answer([b""], connection.transport_id, status=denied.code, clustered=True)
    except Refused:
        return _denied(connection, protocol.RESOURCE_NOT_FOUND, broker.op)
    except (*Malformed, ValueError):
        return _denied(connection, protocol.INVALID_COMMAND, broker.op)


def _committed(connection: Connection, log: PartitionLog, body: bytes, timestamp: int) -> Answer:
    log.op += 1
    return Answer([body], connection.transport_id, log.op, log.op, timestamp, clustered=True)


def _send(broker: Broker, connection: Connection, reader: Reader) -> Answer:
    end = reader.u32() + 4
    stream_id, topic_id = reader.identifier(), reader.identifier()
    topic = broker.topic(stream_id, topic_id)
    if reader.u8() != 2:
        raise Denied(protocol.INVALID_COMMAND)
    log = topic.log(int.from_bytes(reader.take(reader.u8()), "little"))
    batch = log.append(memoryview(reader.body)[end:], broker.clock())
    body = struct.pack("<IIIIQ", 1, broker.stream(stream_id).id, topic.id, log.partition, batch.base)
    return _committed(connection, log, body, batch.timestamp)


def _poll(broker: Broker, connection: Connection, reader: Reader) -> Parts:
    kind, consumer = reader.u8(), reader.identifier()
    topic = broker.topic(reader.identifier(), reader.identifier())
    asked = reader.partition()
    strategy, value, count, commit = reader.u8(), reader.u64(), reader.u32(), reader.u8()
    number = DEFAULT_PARTITION if asked is None else asked
    group: Group | None = None
    if kind == GROUP:
        if asked is None or not OFFSET <= strategy <= NEXT:
            return [_polled(0)]
        group = _settled_group(broker, topic, consumer)
        if group is None or not group.may_poll(connection.session, number):
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


def _settled_group(broker: Broker, topic: Topic, name: int | str) -> Group | None:
    try:
        group = topic.group(name)
    except Refused:
        return None
    broker.settle(group)
    return group


def _store(topic: Topic, group: Group | None, consumer: int | str, partition: int, offset: int) -> None:
    if group:
        group.offsets[partition] = offset
    else:
        topic.offsets[consumer, partition] = offset


def _offset_target(broker: Broker, connection: Connection,
                   reader: Reader) -> tuple[Topic, Group | None, int | str, PartitionLog]:
    """What a store or a removal of an offset is about. Raises Refused; also for a group's partition that isn't ours."""
    kind, consumer = reader.u8(), reader.identifier()
    topic = broker.topic(reader.identifier(), reader.identifier())
    asked = reader.partition()
    if asked is None:
        raise Refused(protocol.PARTITION_NOT_FOUND)
    group = None
    if kind == GROUP:
        group = _settled_group(broker, topic, consumer)
        if group is None or not group.owns(connection.session, asked):
            raise Refused(protocol.MEMBER_NOT_FOUND)
    return topic, group, consumer, topic.log(asked)


def _store_offset(broker: Broker, connection: Connection, reader: Reader) -> Answer:
    topic, group, consumer, log = _offset_target(broker, connection, reader)
    offset, acknowledged = reader.u64(), reader.u8()
    if not log.next_offset or offset > log.current_offset:
        raise Denied(protocol.INVALID_OFFSET)
    _store(topic, group, consumer, log.partition, offset)
    return _offset_changed(broker, connection, log, acknowledged)


def _delete_offset(broker: Broker, connection: Connection, reader: Reader) -> Answer:
    topic, group, consumer, log = _offset_target(broker, connection, reader)
    acknowledged = reader.u8()
    removed = group.offsets.pop(log.partition, None) if group else topic.offsets.pop((consumer, log.partition), None)
    if removed is None:
        raise Denied(protocol.OFFSET_NOT_FOUND)
    return _offset_changed(broker, connection, log, acknowledged)


def _offset_changed(broker: Broker, connection: Connection, log: PartitionLog, acknowledged: int) -> Answer:
    if acknowledged:
        return _committed(connection, log, protocol.result(), broker.clock())
    return Answer([protocol.result()], connection.transport_id, log.op, log.op, clustered=True)


def _get_offset(broker: Broker, _: Connection, reader: Reader) -> bytes:
    kind, consumer = reader.u8(), reader.identifier()
    try:
        topic = broker.topic(reader.identifier(), reader.identifier())
    except Refused:
        return b""
    asked = reader.partition()
    log = topic.log(DEFAULT_PARTITION if asked is None else asked)
    if kind == GROUP:
        group = _settled_group(broker, topic, consumer)
        stored = group.offsets.get(log.partition) if group else None
    else:
        stored = topic.offsets.get((consumer, log.partition))
    return b"" if stored is None else struct.pack("<IQQ", log.partition, log.current_offset, stored)


def _ping(_: Broker, __: Connection, ___: Reader) -> bytes:
    return b""


def _get_stream(broker: Broker, _: Connection, reader: Reader) -> bytes:
    try:
        stream = broker.stream(reader.identifier())
    except Refused:
        return b""
    return stream.summary() + b"".join(topic.summary() for topic in stream.topics.values())


def _get_streams(broker: Broker, _: Connection, __: Reader) -> bytes:
    return b"".join(stream.summary() for stream in broker.streams.values())


def _create_stream(broker: Broker, _: Connection, reader: Reader) -> bytes:
    name = reader.text()
    if protocol.read_options(reader.rest()):
        raise Denied(protocol.UNSUPPORTED_OPTION)
    return broker.new_stream(name).summary()


def _delete_stream(broker: Broker, _: Connection, reader: Reader) -> bytes:
    del broker.streams[broker.stream(reader.identifier()).name]
    return b""


def _get_topic(broker: Broker, _: Connection, reader: Reader) -> bytes:
    try:
        return broker.topic(reader.identifier(), reader.identifier()).details()
    except Refused:
        return b""


def _get_topics(broker: Broker, _: Connection, reader: Reader) -> bytes:
    try:
        topics = list(broker.stream(reader.identifier()).topics.values())
    except Refused:
        topics = []
    return struct.pack("<I", len(topics)) + b"".join(topic.summary() for topic in topics)


def _create_topic(broker: Broker, _: Connection, reader: Reader) -> bytes:
    stream, partitions, name = reader.identifier(), reader.u32(), reader.text()
    options = protocol.read_options(reader.rest())
    if broker.strict_options and not options.keys() <= protocol.TOPIC_DEFAULTS.keys():
        raise Denied(protocol.UNSUPPORTED_OPTION)
    if partitions > MAX_PARTITIONS:
        raise Denied(protocol.TOO_MANY_PARTITIONS)
    return broker.new_topic(stream, name, partitions, options).details(segments=0)


def _delete_topic(broker: Broker, _: Connection, reader: Reader) -> bytes:
    stream = broker.stream(reader.identifier())
    del stream.topics[broker.topic(stream.id, reader.identifier()).name]
    return b""


def _purge_topic(broker: Broker, _: Connection, reader: Reader) -> bytes:
    broker.topic(reader.identifier(), reader.identifier()).purge()
    return b""


def _partitions_change(broker: Broker, reader: Reader) -> tuple[Topic, int]:
    stream, topic, count = reader.identifier(), reader.identifier(), reader.u32()
    if not 0 < count <= MAX_PARTITIONS:
        raise Denied(protocol.TOO_MANY_PARTITIONS)
    return broker.topic(stream, topic), count


def _create_partitions(broker: Broker, _: Connection, reader: Reader) -> bytes:
    topic, count = _partitions_change(broker, reader)
    broker.change_partitions(topic, count)
    return b""


def _delete_partitions(broker: Broker, _: Connection, reader: Reader) -> bytes:
    topic, count = _partitions_change(broker, reader)
    if count > len(topic.logs):
        raise Refused(protocol.BAD_PARTITION_COUNT)
    broker.change_partitions(topic, -count)
    return b""


def _get_group(broker: Broker, _: Connection, reader: Reader) -> bytes:
    topic = broker.topic(reader.identifier(), reader.identifier())
    group = _settled_group(broker, topic, reader.identifier())
    return group.details(len(topic.logs)) if group else b""


def _get_groups(broker: Broker, _: Connection, reader: Reader) -> bytes:
    topic = broker.topic(reader.identifier(), reader.identifier())
    return b"".join(group.summary(len(topic.logs)) for group in topic.groups.values())


def _sync(broker: Broker, connection: Connection, reader: Reader) -> bytes:
    try:
        _, group = _named_group(broker, reader)
    except Refused:
        return b""
    return group.assignment(connection.session)


def _named_group(broker: Broker, reader: Reader) -> tuple[Topic, Group]:
    topic = broker.topic(reader.identifier(), reader.identifier())
    group = topic.group(reader.identifier())
    broker.settle(group)
    return topic, group


def _create_group(broker: Broker, _: Connection, reader: Reader) -> bytes:
    topic = broker.topic(reader.identifier(), reader.identifier())
    name = reader.text()
    if name in topic.groups:
        raise Refused(protocol.GROUP_EXISTS)
    return topic.add_group(name).summary(len(topic.logs))


def _delete_group(broker: Broker, _: Connection, reader: Reader) -> bytes:
    topic, group = _named_group(broker, reader)
    del topic.groups[group.name]
    return b""


def _join(broker: Broker, connection: Connection, reader: Reader) -> bytes:
    topic, group = _named_group(broker, reader)
    group.join(connection.session, topic.partition_numbers, time.monotonic())
    return b""


def _leave(broker: Broker, connection: Connection, reader: Reader) -> bytes:
    topic, group = _named_group(broker, reader)
    if not group.leave(connection.session, topic.partition_numbers):
        raise Refused(protocol.MEMBER_NOT_FOUND)
    return b""


_READS: dict[int, Callable[[Broker, Connection, Reader], bytes]] = {
    PING: _ping, 10: system.stats, 12: system.cluster, 13: system.options, 20: system.me, 120: _get_offset,
    200: _get_stream, 201: _get_streams, 300: _get_topic, 301: _get_topics, 600: _get_group, 601: _get_groups,
    606: _sync,
}
_METADATA: dict[int, Callable[[Broker, Connection, Reader], bytes]] = {
    128: _create_stream, 130: _delete_stream, CREATE_TOPIC: _create_topic, 134: _delete_topic,
    135: _purge_topic,
    CREATE_PARTITIONS: _create_partitions, 137: _delete_partitions, 139: _create_group, 140: _delete_group,
    148: _join, 149: _leave,
}
_PARTITION: dict[int, Callable[[Broker, Connection, Reader], Answer]] = {
    160: _send, 161: _store_offset, 162: _delete_offset,
}
