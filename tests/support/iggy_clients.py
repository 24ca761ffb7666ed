"""Clients of Iggy that prepare a secured one: topics, users with rights, tokens. They speak for root."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import TypeVar

from apache_iggy import IggyClient, Permissions, StreamPermissions, TopicPermissions

from pipeline.config.iggy_schema import IggyConfig
from pipeline.iggy.clients import new_client
from pipeline.iggy.credentials import Credentials
from pipeline.iggy.requests import create_topic

T = TypeVar("T")
CREATE_TOKEN, DELETE_TOKEN = 42, 43


def as_user(config: IggyConfig, work: Callable[[IggyClient], Awaitable[T]]) -> T:
    """What `work` gives, which gets a client that is logged in as `config` says."""
    async def connected() -> T:
        client = new_client(config, config.servers()[0], Credentials(config).login().automatic())
        await client.connect()
        return await work(client)

    return asyncio.run(asyncio.wait_for(connected(), 60))


def make_topics(config: IggyConfig, stream: str, *topics: str, partitions: int = 1) -> None:
    """Creates topics, and their stream if it is missing."""
    async def make(client: IggyClient) -> None:
        if await client.get_stream(stream) is None:
            await client.create_stream(stream)
        for topic in topics:
            if await client.get_topic(stream, topic) is None:
                await create_topic(client, stream, topic, partitions)

    as_user(config, make)


def make_user(config: IggyConfig, name: str, password: str, stream: str,
              topics: dict[str, TopicPermissions], in_stream: StreamPermissions | None = None) -> None:
    """Creates a user with rights in single topics of a stream, or those `in_stream`."""
    async def make(client: IggyClient) -> None:
        details = await client.get_stream(stream)
        assert details is not None
        numbers = {topic.name: topic.id for topic in details.topics}
        rights = in_stream or StreamPermissions(topics={numbers[topic]: rights for topic, rights in topics.items()})
        await client.create_user(name, password, permissions=Permissions(None, {details.id: rights}))

    as_user(config, make)


def make_token(config: IggyConfig, name: str) -> str:
    """A new personal access token of the user in `config` that never expires."""
    async def make(client: IggyClient) -> str:
        reply = await client.send_binary_request(CREATE_TOKEN, _text(name) + struct.pack("<Q", 0))
        return bytes(reply[1:]).decode()

    return as_user(config, make)


def delete_token(config: IggyConfig, name: str) -> None:
    """Deletes a token of the user in `config`."""
    async def delete(client: IggyClient) -> None:
        await client.send_binary_request(DELETE_TOKEN, _text(name))

    as_user(config, delete)


def _text(value: str) -> bytes:
    return bytes((len(value),)) + value.encode()
