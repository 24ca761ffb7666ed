"""Short forms of what tests do with the real Iggy client: connect, send, poll, store, wait."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any

from apache_iggy import (
    AutoLogin,
    Consumer,
    IggyClient,
    Partitioning,
    PollingStrategy,
    ReceiveMessage,
    SendMessage,
    TcpConfig,
    TcpReconnectionConfig,
)

from tests.support.iggy_servers import RunningIggy

TOPIC = "readings"
GROUP = "workers"
ME = Consumer.Single("me")
WORKERS = Consumer.Group(GROUP)
#: Longest wait for something that happens by itself, seconds.
SOON_SECONDS = 60.0
#: Reconnects without the client's five seconds of rest, and sends no heartbeat into the middle of it.
AT_ONCE = TcpReconnectionConfig(interval=timedelta(seconds=0.1), reestablish_after=timedelta(0))
SELDOM = timedelta(seconds=30)
GET_ME, GET_OFFSET, STORE_OFFSET, DELETE_OFFSET = 20, 120, 121, 122


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Runs a test's coroutine to its end, within two minutes."""
    asyncio.run(asyncio.wait_for(scenario, 120))


async def connected(iggy: RunningIggy) -> IggyClient:
    """A client of its own connection, logged in."""
    client = IggyClient(TcpConfig(server_address=iggy.address, nodelay=True, reconnection=AT_ONCE,
                                  auto_login=AutoLogin.username_password("iggy", "iggy"), heartbeat_interval=SELDOM))
    await client.connect()
    return client


async def send(client: IggyClient, stream: str, payloads: list[bytes], partition: int = 0) -> None:
    """One batch to one partition."""
    await client.send_messages(stream, TOPIC, Partitioning.partition_id(partition), [SendMessage(p) for p in payloads])


async def poll(client: IggyClient, stream: str, strategy: PollingStrategy, *, count: int = 100, commit: bool = False,
               partition: int | None = 0, consumer: Consumer = ME) -> list[ReceiveMessage]:
    """One poll."""
    return await client.poll_messages(stream, TOPIC, consumer=consumer, polling_strategy=strategy, count=count,
                                      auto_commit=commit, partition_id=partition)


def payloads(messages: list[ReceiveMessage]) -> list[bytes]:
    """What was sent."""
    return [message.payload() for message in messages]


def numbered(first: int, count: int) -> list[bytes]:
    """Payloads of different lengths: `m0`, `m1`, ..."""
    return [b"m%d" % number for number in range(first, first + count)]


def name(value: str) -> bytes:
    """An identifier on the wire."""
    return bytes((2, len(value))) + value.encode()


def offset_body(stream: str, kind: int, consumer: str, partition: int, rest: bytes = b"") -> bytes:
    """The body of a raw request about a stored offset."""
    return bytes((kind,)) + name(consumer) + name(stream) + name(TOPIC) + struct.pack("<BI", 1, partition) + rest


async def stored(client: IggyClient, stream: str, partition: int = 0, kind: int = 1, consumer: str = "me",
                 ) -> int | None:
    """The offset stored for a consumer (kind 1) or group (2), or None."""
    reply = await client.send_binary_request(GET_OFFSET, offset_body(stream, kind, consumer, partition))
    return int(struct.unpack("<IQQ", reply)[2]) if reply else None


async def store(client: IggyClient, stream: str, offset: int, partition: int = 0, kind: int = 1, consumer: str = "me",
                acknowledged: int = 1) -> None:
    """Stores an offset by hand."""
    rest = struct.pack("<QB", offset, acknowledged)
    await client.send_binary_request(STORE_OFFSET, offset_body(stream, kind, consumer, partition, rest))


async def owners(client: IggyClient, stream: str) -> list[list[int]]:
    """Each group member's partitions, by member."""
    group = await client.get_consumer_group(stream, TOPIC, GROUP)
    assert group is not None
    return [sorted(member.partitions) for member in group.members]


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Returns once the condition holds; fails, naming `what`, when it doesn't soon."""
    deadline = asyncio.get_running_loop().time() + SOON_SECONDS
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited {SOON_SECONDS:g} s in vain for {what}"
        await asyncio.sleep(0.01)
