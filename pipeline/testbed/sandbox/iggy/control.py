"""Controls a sandbox broker from another process: one JSON object a command, one JSON object back.

`{"do": "restart", "seconds": 2}` and so on: `do` is the name of a command below in small letters with underscores, the
other keys are its fields. The answer is the broker's state after it, or `{"error": "..."}`.
"""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

from pipeline.testbed.sandbox.iggy import protocol
from pipeline.testbed.sandbox.iggy.protocol import Refused
from pipeline.testbed.sandbox.iggy.server import Broker
from pipeline.testbed.sandbox.iggy.state import State
from pipeline.testbed.sandbox.iggy.users import (
    GLOBAL,
    STREAM,
    TOPIC,
    Permissions,
    StreamRights,
    encode_permissions,
    make_token,
)

#: Types of fields: seconds, and a count.
Seconds: TypeAlias = Annotated[float, Meta(ge=0)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]

_MISSING = {protocol.STREAM_NOT_FOUND: "no such stream", protocol.TOPIC_NOT_FOUND: "no such topic",
            protocol.PARTITION_NOT_FOUND: "no such partition", protocol.STREAM_EXISTS: "there is such a stream",
            protocol.TOPIC_EXISTS: "there is such a topic", protocol.RESOURCE_NOT_FOUND: "no such user",
            protocol.USER_EXISTS: "there is such a user", protocol.TOKEN_EXISTS: "there is such a token",
            protocol.CANNOT_DELETE_USER: "root stays"}


def _snake(name: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")


class Command(Struct, frozen=True, tag_field="do", tag=_snake, forbid_unknown_fields=True):
    """What all commands share: the name in `do`, no other fields than their own, times in seconds."""


class Status(Command, frozen=True):
    """Does nothing."""


class RefuseConnections(Command, frozen=True):
    """Refuses new connections, or accepts them again."""

    refuse: bool = True


class DropConnections(Command, frozen=True):
    """Closes all connections."""


class DelayAnswers(Command, frozen=True):
    """Delays every answer."""

    seconds: Seconds


class Hang(Command, frozen=True):
    """Stops answering until `Resume`."""


class Resume(Command, frozen=True):
    """Answers the requests received since `Hang`, and continues."""


class Restart(Command, frozen=True):
    """Restarts the server; with `ghosts`, the old memberships of groups remain."""

    seconds: Seconds = 1.0
    ghosts: bool = False


class Crash(Command, frozen=True):
    """Restarts the server without the messages that it had not saved."""

    stream: str
    topic: str
    partition: Count
    lose: Count
    seconds: Seconds = 1.0
    ghosts: bool = False


class Expire(Command, frozen=True):
    """Deletes a partition's messages below an offset."""

    stream: str
    topic: str
    partition: Count
    before: Count


class CreateTopic(Command, frozen=True):
    """Makes a topic, and its stream if it does not exist."""

    stream: str
    topic: str
    partitions: Annotated[int, Meta(ge=1)] = 1


class RecreateTopic(Command, frozen=True):
    """Deletes a topic, and creates it again, with as many partitions unless others are given."""

    stream: str
    topic: str
    partitions: Annotated[int, Meta(ge=1)] | None = None


class AddPartitions(Command, frozen=True):
    """Adds partitions to a topic."""

    stream: str
    topic: str
    count: Annotated[int, Meta(ge=1)] = 1


class CutPolls(Command, frozen=True):
    """Cuts the next poll replies."""

    count: Annotated[int, Meta(ge=1)] = 1


class CreateUser(Command, frozen=True):
    """Makes a user who may do what `grants` say: "RIGHT" everywhere, "RIGHT STREAM" or "RIGHT STREAM/TOPIC" there."""

    name: str
    password: str
    grants: tuple[str, ...] = ()


class DeleteUser(Command, frozen=True):
    """Deletes a user."""

    name: str


class ChangePassword(Command, frozen=True):
    """Gives a user another password."""

    name: str
    password: str


class CreateToken(Command, frozen=True):
    """Makes a personal access token of a user, which the answer has as `token`; 0 seconds: it never expires."""

    user: str
    name: str
    seconds: Seconds = 0


class DeleteTokens(Command, frozen=True):
    """Deletes all tokens of a user."""

    user: str


AnyCommand: TypeAlias = (Status | RefuseConnections | DropConnections | DelayAnswers | Hang | Resume | Restart | Crash
                         | Expire | CreateTopic | RecreateTopic | AddPartitions | CutPolls | CreateUser | DeleteUser
                         | ChangePassword | CreateToken | DeleteTokens)


async def handle_control(broker: Broker, command: dict[str, object]) -> dict[str, object]:
    """Carries a command out, on the broker's own event loop. Never raises: the answer has `error` when it didn't work.

    Else it has the state: `address`, `listening`, `hung`, `delay_seconds`, `connections`, and `topics`, a list of
    objects with `stream`, `topic` and `partitions`, each with `start_offset`, `next_offset` and the `offsets` stored,
    by consumer and, as `group:NAME`, by group.
    """
    try:
        order = msgspec.convert(command, AnyCommand)
        if isinstance(order, CreateToken):
            return {**_state(broker), "token": _create_token(broker.state, order)}
        await _carry_out(broker, order)
    except msgspec.ValidationError as error:
        return {"error": str(error)}
    except Refused as refused:
        return {"error": _MISSING.get(refused.code, f"Iggy's error {refused.code}")}
    return _state(broker)


async def _carry_out(broker: Broker, command: AnyCommand) -> None:
    match command:
        case RefuseConnections(refuse):
            await broker.refuse_connections(refuse)
        case DropConnections():
            broker.drop_connections()
        case DelayAnswers(seconds):
            broker.delay_answers(seconds)
        case Hang():
            broker.hang()
        case Resume():
            broker.resume()
        case Restart(seconds, ghosts):
            await broker.restart(seconds, ghosts)
        case Crash(stream, topic, partition, lose, seconds, ghosts):
            await broker.crash(stream, topic, partition, lose, seconds, ghosts)
        case Expire(stream, topic, partition, before):
            broker.state.expire(stream, topic, partition, before)
        case CreateTopic(stream, topic, partitions):
            if stream not in broker.state.streams:
                broker.state.new_stream(stream)
            broker.state.new_topic(stream, topic, partitions)
        case RecreateTopic(stream, topic, wanted):
            broker.state.recreate_topic(stream, topic, wanted)
        case AddPartitions(stream, topic, count):
            broker.state.add_partitions(stream, topic, count)
        case CutPolls(count):
            broker.cut_polls(count)
        case CreateUser() | DeleteUser() | ChangePassword() | DeleteTokens():
            _change_users(broker.state, command)
        case Status():
            pass


def _change_users(state: State, command: CreateUser | DeleteUser | ChangePassword | DeleteTokens) -> None:
    match command:
        case CreateUser(name, password, grants):
            state.users.add(name, password, _permissions(state, grants), state.clock())
        case DeleteUser(name):
            state.users.delete(name)
        case ChangePassword(name, password):
            state.users.get(name).password = password
        case DeleteTokens(user):
            state.users.get(user).tokens.clear()


def _create_token(state: State, command: CreateToken) -> str:
    return make_token(state.users.get(command.user), command.name, round(command.seconds * 1_000_000), state.clock())


def _permissions(state: State, grants: tuple[str, ...]) -> Permissions:
    """What the grants mean. Raises Refused for a stream or topic that there is not, and ValidationError for others."""
    everywhere: set[str] = set()
    streams: dict[int, tuple[set[str], dict[int, set[str]]]] = {}
    for grant in grants:
        right, _, where = grant.partition(" ")
        stream_name, _, topic_name = where.partition("/")
        known: tuple[str, ...] = GLOBAL
        given = everywhere
        if stream_name:
            stream = state.stream(stream_name)
            known, (given, topics) = STREAM, streams.setdefault(stream.id, (set(), {}))
            if topic_name:
                known, given = TOPIC, topics.setdefault(state.topic(stream.id, topic_name).id, set())
        if right not in known:
            raise msgspec.ValidationError(f"no such right there: {right}; give one of {', '.join(known)}")
        given.add(right)
    return encode_permissions(frozenset(everywhere), {
        number: StreamRights(frozenset(rights), {topic: frozenset(of_topic) for topic, of_topic in topics.items()})
        for number, (rights, topics) in streams.items()})


def _state(broker: Broker) -> dict[str, object]:
    topics: list[dict[str, object]] = []
    for stream in broker.state.streams.values():
        for topic in stream.topics.values():
            partitions = []
            for log in topic.logs:
                offsets = {str(consumer): offset for (consumer, number), offset in topic.offsets.items()
                           if number == log.partition}
                offsets |= {f"group:{group.name}": group.offsets[log.partition] for group in topic.groups.values()
                            if log.partition in group.offsets}
                partitions.append({"start_offset": log.start_offset, "next_offset": log.next_offset,
                                   "offsets": offsets})
            topics.append({"stream": stream.name, "topic": topic.name, "partitions": partitions})
    return {"address": broker.address, "listening": broker.listening, "hung": broker.hung,
            "delay_seconds": broker.delay_seconds, "connections": len(broker.connections), "topics": topics}
