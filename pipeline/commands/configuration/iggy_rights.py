"""What a pipeline needs of Iggy: asked of the server, without sending a message."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from apache_iggy import Permissions, StreamPermissions, TopicPermissions
from msgspec.structs import replace

from pipeline.commands.configuration.connection import ConnectionCheck
from pipeline.config.feedback import dead_letter_topics
from pipeline.config.schema import Config, Subscription
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError, IggyForbidden
from pipeline.iggy.rights import lacks_everywhere
from pipeline.iggy.topic_patterns import find_topics
from pipeline.topic_configs import with_topics

#: What the server answers to an offset that it does not have: it has checked the right to store one.
_INVALID_OFFSET = "invalid offset"


#: Most topics that are asked for one by one.
MAX_TOPICS = 100


async def iggy_checks(config: Config) -> list[ConnectionCheck]:
    """Connection, login, topics, and the rights to read, to store offsets, and to send dead letters."""
    return [check async for check in _checks(config)]


async def _checks(config: Config) -> AsyncIterator[ConnectionCheck]:
    server = f"Iggy at {config.iggy.label()}"
    iggy = IggyConnection(config.iggy)
    try:
        await iggy.ensure_connected()
    except IggyError as error:
        yield ConnectionCheck(server, "reachable, and login", False, str(error))
        return
    encryption = "encrypted" if config.iggy.is_encrypted() else "not encrypted"
    yield ConnectionCheck(server, "reachable, and login", True, f"{await _version(iggy)}, {encryption}")
    permissions = await _permissions(iggy)
    config, checks = await _with_topics(server, iggy, config)
    for check in checks:
        yield check
    named = dict.fromkeys(replace(one, sink=0) for one in config.subscriptions() if not one.is_pattern)
    for subscription in list(named)[:MAX_TOPICS]:
        async for check in _topic_checks(server, iggy, subscription):
            yield check
    for stream, topic, why in _written_topics(config):
        try:
            yield await _send_check(server, iggy, permissions, stream, topic, why)
        except (IggyError, RuntimeError) as error:
            yield ConnectionCheck(server, f"the right to send to {stream}/{topic} ({why})", False, str(error))


async def _with_topics(server: str, iggy: IggyConnection, config: Config) -> tuple[Config, list[ConnectionCheck]]:
    """The configuration with the topics that its patterns match, and a check of each pattern."""
    patterns = {index: one for index, one in enumerate(config.subscriptions()) if one.is_pattern}
    if not patterns:
        return config, []
    try:
        found = await find_topics(iggy, config)
    except IggyError as error:
        return config, [ConnectionCheck(server, f"topics {one.label()}", False, str(error))
                        for one in patterns.values()]
    counts = {index: sum(topic.pattern == index for topic in found) for index in patterns}
    return with_topics(config, found), [
        ConnectionCheck(server, f"topics {one.label()}", True, f"{counts[index]} match now" if counts[index] else
                        "none matches now; those that do later are found while the pipeline runs")
        for index, one in patterns.items()]


async def _version(iggy: IggyConnection) -> str:
    try:
        stats = await asyncio.wait_for(iggy.client.get_stats(), 5)
    except (RuntimeError, TimeoutError):  # it needs the right to read servers
        return "version not shown to this user"
    return f"version {stats.iggy_server_version}"


async def _permissions(iggy: IggyConnection) -> Permissions | None:
    """Those of the user; None if the server does not tell them."""
    try:
        return await asyncio.wait_for(iggy.permissions(), 5)
    except (IggyError, TimeoutError):
        return None


async def _topic_checks(server: str, iggy: IggyConnection, subscription: Subscription
                        ) -> AsyncIterator[ConnectionCheck]:
    label = subscription.label()
    try:
        details = await iggy.topic(subscription)
    except IggyError as error:
        yield ConnectionCheck(server, f"topic {label}", False, str(error))
        return
    absent = sorted(set(subscription.partitions) - {partition.id for partition in details.partitions})
    if absent or not details.partitions:
        yield ConnectionCheck(server, f"topic {label}", False, f"has no partition {', '.join(map(str, absent))}; "
                              "correct partitions in [[topics]]" if absent else "has no partitions; create some")
        return
    count = len(details.partitions)
    yield ConnectionCheck(server, f"topic {label}", True, f"{count} partition{'s' * (count > 1)}")
    # Rights are the same for all partitions and names of consumers.
    probe = replace(subscription, consumer=f"pipeline-check-{os.getpid()}", group=False)
    partition = details.partitions[0]
    try:
        await iggy.poll(probe, partition.id, partition.current_offset, 1)
        yield ConnectionCheck(server, f"the right to read {label}", True)
    except IggyError as error:
        yield ConnectionCheck(server, f"the right to read {label}", False, str(error))
        return
    if subscription.group:
        try:
            await iggy.members(subscription)
            yield ConnectionCheck(server, f"the right to join the consumer group of {label}", True)
        except IggyError as error:
            yield ConnectionCheck(server, f"the right to join the consumer group of {label}", False, str(error))
    problem = await _why_not_stored(iggy, probe, partition.id, partition.current_offset)
    yield ConnectionCheck(server, f"the right to store offsets of {label}", not problem, problem)


async def _why_not_stored(iggy: IggyConnection, probe: Subscription, partition: int, offset: int) -> str:
    try:
        await iggy.store_offset(probe, partition, offset)
        await iggy.delete_offset(probe, partition)
    except IggyError as error:
        return "" if _INVALID_OFFSET in str(error).lower() else str(error)
    return ""


def _written_topics(config: Config) -> list[tuple[str, str, str]]:
    """Stream, topic, and what is sent there; those with {measurement} or {source} in their names are left out."""
    found = [(stream, topic, "dead letters") for stream, topic in dead_letter_topics(config)]
    for source in config.sources:
        found.append((source.output.stream, source.output.topic, f"source {source.name}"))
        if source.output.dead_letter_topic:
            found.append((source.output.stream, source.output.dead_letter_topic, f"dead letters of {source.name}"))
        if source.state_topic:
            stream, _, topic = source.state_topic.partition("/")
            found.append((stream, topic, f"state of {source.name}"))
    return [one for one in dict.fromkeys(found) if "{" not in one[0] + one[1]]


async def _send_check(server: str, iggy: IggyConnection, permissions: Permissions | None, stream: str, topic: str,
                      why: str) -> ConnectionCheck:
    what = f"the right to send to {stream}/{topic} ({why})"
    try:
        details = await iggy.full_details(stream, topic)
        stream_id = await _stream_id(iggy, stream)
    except (IggyForbidden, RuntimeError):  # it exists, and the user may not read it: its number is not known
        lacks = permissions is not None and lacks_everywhere(permissions, "send_messages")
        return ConnectionCheck(server, what, not lacks, "the user may not; give it the permission send_messages" if
                               lacks else "it exists, and the user may send to some topic")
    if permissions is None:
        there = "exists" if details is not None else "will be created at the start"
        return ConnectionCheck(server, what, True, f"it {there}; the server does not show the user's rights")
    if details is not None:
        allowed = may_send(permissions, stream_id, details.id)
        return ConnectionCheck(server, what, allowed, "" if allowed else "the user may not; give it the permission "
                               "send_messages")
    allowed = may_create(permissions, stream_id)
    needed = "manage_streams" if stream_id is None else "manage_topics"
    return ConnectionCheck(server, what, allowed, "it is missing, and will be created at the start" if allowed else
                           f"it is missing, and the user may not create it; create it, or give the user {needed}")


async def _stream_id(iggy: IggyConnection, stream: str) -> int | None:
    if not await iggy.has_stream(stream):
        return None
    found = await iggy.client.get_stream(stream)
    return found.id if found is not None else None


def may_send(permissions: Permissions, stream: int | None, topic: int) -> bool:
    """Whether any permission allows sending to a topic. A permission to manage includes it."""
    whole = permissions.global_permissions
    one: StreamPermissions | None = (permissions.streams or {}).get(stream) if stream is not None else None
    own: TopicPermissions | None = (one.topics or {}).get(topic) if one is not None else None
    return (_any(whole, "send_messages", "manage_topics", "manage_streams")
            or _any(one, "send_messages", "manage_topics", "manage_stream")
            or _any(own, "send_messages", "manage_topic"))


def may_create(permissions: Permissions, stream: int | None) -> bool:
    """Whether any permission allows creating a topic; without `stream`, a stream, too."""
    if stream is None:
        return _any(permissions.global_permissions, "manage_streams")
    return (_any(permissions.global_permissions, "manage_topics", "manage_streams")
            or _any((permissions.streams or {}).get(stream), "manage_topics", "manage_stream"))


def _any(permissions: Any, *names: str) -> bool:
    return any(bool(getattr(permissions, name, False)) for name in names)
