"""What the sandbox broker does for each operation of Iggy's binary protocol."""

import struct
from collections.abc import Callable

from pipeline.sandbox import protocol
from pipeline.sandbox.broker import (
    DEFAULT_PARTITION,
    FIRST,
    GROUP,
    LAST,
    NEXT,
    SINGLE,
    TIMESTAMP,
    Broker,
    Connection,
    Group,
    Parts,
    Topic,
    now_micros,
)
from pipeline.sandbox.protocol import Reader, Refused, Request

CREATE_TOPIC = 132
#: The operation that the reply to CREATE_TOPIC names.
CREATE_TOPIC_REPLY = 64
SEND_MESSAGES = 160
REGISTER, GENERIC, LOGOUT = 1, 2, 3
POLL = 100
Answer = tuple[Parts, int]


def handle(broker: Broker, connection: Connection, request: Request) -> Answer | None:
    """The body, in parts, and the operation of the answer; None to close. Raises Refused with an error's code."""
    if request.operation == REGISTER:
        return _login(broker, connection, request)
    if request.operation == LOGOUT:
        broker.forget_member(connection.session)
        connection.session = 0
        return [b""], LOGOUT
    reader = Reader(request.body)
    if request.operation == GENERIC:
        if request.code == POLL:
            return _poll(broker, connection, reader), GENERIC
        handler = _BY_CODE.get(request.code)
    else:
        handler = _BY_OPERATION.get(request.operation)
    if handler is None:
        raise Refused(3)
    operation = CREATE_TOPIC_REPLY if request.operation == CREATE_TOPIC else request.operation
    return [handler(broker, connection, reader)], operation


def _login(broker: Broker, connection: Connection, request: Request) -> Answer | None:
    reader = Reader(request.body)
    reader.u32()
    reader.text(), reader.text()
    if (reader.text(), reader.text()) != broker.credentials:
        connection.transport.write(protocol.eviction(request, protocol.EVICTED_BAD_CREDENTIALS))
        return None
    connection.session = broker.new_session()
    return [struct.pack("<QQ", 0, connection.session)[:4] + struct.pack("<Q", 0)[:4]
            + struct.pack("<Q", connection.session)[:8] + protocol.LOGIN_VERSIONS], REGISTER


def _cluster(broker: Broker, _: Connection, __: Reader) -> bytes:
    name, node, ip = b"single-node", b"iggy-node", broker.host.encode()
    parts = [struct.pack("<I", len(name)), name, struct.pack("<I", 1), struct.pack("<I", len(node)), node,
             struct.pack("<I", len(ip)), ip, struct.pack("<HHHH", broker.port, 0, 0, 0), bytes(2)]
    return b"".join(parts)


def _nothing(_: Broker, __: Connection, ___: Reader) -> bytes:
    return b""


def _get_stream(broker: Broker, _: Connection, reader: Reader) -> bytes:
    stream = broker.stream(reader.identifier())
    return stream.summary() + b"".join(t.summary() for t in stream.topics.values()) if stream else b""


def _get_streams(broker: Broker, _: Connection, __: Reader) -> bytes:
    return b"".join(stream.summary() for stream in broker.streams.values())


def _create_stream(broker: Broker, _: Connection, reader: Reader) -> bytes:
    name = reader.text()
    if name in broker.streams:
        return protocol.refusal(protocol.STREAM_EXISTS)
    return protocol.result(broker.new_stream(name).summary())


def _delete_stream(broker: Broker, _: Connection, reader: Reader) -> bytes:
    stream = broker.stream(reader.identifier())
    if stream is None:
        raise Refused(protocol.RESOURCE_NOT_FOUND)
    del broker.streams[stream.name]
    return protocol.result()


def _get_topic(broker: Broker, _: Connection, reader: Reader) -> bytes:
    stream = broker.stream(reader.identifier())
    topic = stream.topic(reader.identifier()) if stream else None
    return topic.details() if topic else b""


def _get_topics(broker: Broker, _: Connection, reader: Reader) -> bytes:
    stream = broker.stream(reader.identifier())
    return b"".join(topic.summary() for topic in stream.topics.values()) if stream else b""


def _create_topic(broker: Broker, _: Connection, reader: Reader) -> bytes:
    stream = broker.stream(reader.identifier())
    if stream is None:
        raise Refused(protocol.RESOURCE_NOT_FOUND)
    partitions, name = reader.u32(), reader.text()
    if name in stream.topics:
        return protocol.refusal(protocol.TOPIC_EXISTS)
    topic = stream.topics[name] = Topic(stream.next_topic, name, partitions)
    stream.next_topic += 1
    return protocol.result(topic.details())


def _delete_topic(broker: Broker, _: Connection, reader: Reader) -> bytes:
    stream = broker.stream(reader.identifier())
    topic = stream.topic(reader.identifier()) if stream else None
    if stream is None or topic is None:
        raise Refused(protocol.RESOURCE_NOT_FOUND)
    del stream.topics[topic.name]
    return protocol.result()


def _send(broker: Broker, _: Connection, reader: Reader) -> bytes:
    end = reader.u32() + 4
    topic = broker.topic(reader.identifier(), reader.identifier())
    reader.u8()
    value = reader.take(reader.u8())
    log = topic.log(int.from_bytes(value, "little"))
    base = log.append(reader.body[end:], now_micros())
    return struct.pack("<IIIIQ", 1, 1, log.partition, 0, base)[:24]


def _member_partition(group: Group | None, connection: Connection, topic: Topic, asked: int | None) -> int | None:
    """The partition a group's member may poll now, or None."""
    owned = group.partitions(connection.session, len(topic.logs)) if group else []
    if asked is not None or group is None or not owned:
        return asked if asked in owned else None
    turn = group.turns.get(connection.session, 0)
    group.turns[connection.session] = turn + 1
    return owned[turn % len(owned)]


def _poll(broker: Broker, connection: Connection, reader: Reader) -> Parts:
    kind, consumer = reader.u8(), reader.identifier()
    topic = broker.topic(reader.identifier(), reader.identifier())
    flag, number = reader.u8(), reader.u32()
    partition: int | None = number if flag else None
    strategy, value, count, commit = reader.u8(), reader.u64(), reader.u32(), reader.u8()
    if kind == GROUP:
        partition = _member_partition(topic.group(consumer), connection, topic, partition)
        if partition is None:
            return [struct.pack("<IQI", number, 0, 0)]
    partition = DEFAULT_PARTITION if partition is None else partition
    log = topic.log(partition)
    key = kind, consumer, partition
    start = {FIRST: 0, LAST: max(0, log.next_offset - count), TIMESTAMP: 0, NEXT: topic.offsets.get(key, -1) + 1}.get(
        strategy, value)
    if strategy == TIMESTAMP:
        start = log.first_since(value)
    found, parts = log.read(start, count)
    if commit and found:
        topic.offsets[key] = max(start + found - 1, topic.offsets.get(key, 0))
    return [struct.pack("<IQI", partition, log.current_offset, found), *parts]


def _offset_key(broker: Broker, reader: Reader) -> tuple[Topic, tuple[int, int | str, int]]:
    kind, consumer = reader.u8(), reader.identifier()
    topic = broker.topic(reader.identifier(), reader.identifier())
    flag, partition = reader.u8(), reader.u32()
    partition = partition if flag else DEFAULT_PARTITION
    topic.log(partition)
    return topic, (kind, consumer, partition)


def _get_offset(broker: Broker, _: Connection, reader: Reader) -> bytes:
    try:
        topic, key = _offset_key(broker, reader)
    except Refused:
        return b""
    if key not in topic.offsets:
        return b""
    return struct.pack("<IQQ", key[2], topic.log(key[2]).current_offset, topic.offsets[key])


def _store_offset(broker: Broker, connection: Connection, reader: Reader) -> bytes:
    topic, key = _offset_key(broker, reader)
    offset = reader.u64()
    if key[0] == GROUP:
        group = topic.group(key[1])
        if group is None or connection.session not in group.members:
            raise Refused(protocol.RESOURCE_NOT_FOUND)
    topic.offsets[key] = offset
    return protocol.result()


def _delete_offset(broker: Broker, _: Connection, reader: Reader) -> bytes:
    topic, key = _offset_key(broker, reader)
    if topic.offsets.pop(key, None) is None:
        raise Refused(protocol.RESOURCE_NOT_FOUND)
    return protocol.result()


def _group_summary(group: Group, topic: Topic) -> bytes:
    return struct.pack("<III", group.id, len(topic.logs), len(group.members)) + protocol.text(group.name)


def _get_group(broker: Broker, _: Connection, reader: Reader) -> bytes:
    topic = broker.topic(reader.identifier(), reader.identifier())
    group = topic.group(reader.identifier())
    if group is None:
        return b""
    body = _group_summary(group, topic)
    for number, session in enumerate(group.members):
        owned = group.partitions(session, len(topic.logs))
        body += struct.pack(f"<II{len(owned)}I", number, len(owned), *owned)
    return body


def _get_groups(broker: Broker, _: Connection, reader: Reader) -> bytes:
    topic = broker.topic(reader.identifier(), reader.identifier())
    return b"".join(_group_summary(group, topic) for group in topic.groups.values())


def _create_group(broker: Broker, _: Connection, reader: Reader) -> bytes:
    topic = broker.topic(reader.identifier(), reader.identifier())
    name = reader.text()
    if name in topic.groups:
        return protocol.refusal(protocol.GROUP_EXISTS)
    group = topic.groups[name] = Group(topic.next_group, name)
    topic.next_group += 1
    return protocol.result(_group_summary(group, topic))


def _named_group(broker: Broker, reader: Reader) -> tuple[Topic, Group]:
    topic = broker.topic(reader.identifier(), reader.identifier())
    group = topic.group(reader.identifier())
    if group is None:
        raise Refused(protocol.RESOURCE_NOT_FOUND)
    return topic, group


def _delete_group(broker: Broker, _: Connection, reader: Reader) -> bytes:
    topic, group = _named_group(broker, reader)
    del topic.groups[group.name]
    return protocol.result()


def _join(broker: Broker, connection: Connection, reader: Reader) -> bytes:
    _, group = _named_group(broker, reader)
    if connection.session not in group.members:
        group.members.append(connection.session)
    return protocol.result()


def _leave(broker: Broker, connection: Connection, reader: Reader) -> bytes:
    _, group = _named_group(broker, reader)
    if connection.session in group.members:
        group.members.remove(connection.session)
    return protocol.result()


def _sync(broker: Broker, connection: Connection, reader: Reader) -> bytes:
    topic, group = _named_group(broker, reader)
    owned = group.partitions(connection.session, len(topic.logs))
    return struct.pack(f"<QI{len(owned)}I", 1, len(owned), *owned)


Handler = Callable[[Broker, Connection, Reader], bytes]
_BY_CODE: dict[int, Handler] = {
    1: _nothing, 12: _cluster, 120: _get_offset, 200: _get_stream, 201: _get_streams, 300: _get_topic,
    301: _get_topics, 600: _get_group, 601: _get_groups, 606: _sync,
}
_BY_OPERATION: dict[int, Handler] = {
    128: _create_stream, 130: _delete_stream, CREATE_TOPIC: _create_topic, 134: _delete_topic, 139: _create_group,
    140: _delete_group, 148: _join, 149: _leave, SEND_MESSAGES: _send, 161: _store_offset, 162: _delete_offset,
}
__all__ = ["SINGLE", "handle"]
