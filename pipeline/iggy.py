"""One connection to Iggy through the `apache-iggy` client, with a deadline on every call and errors in words."""

import asyncio
import struct
from collections.abc import Awaitable
from typing import TypeVar

from apache_iggy import (
    AutoLogin,
    Consumer,
    IggyClient,
    Partitioning,
    PollingStrategy,
    ReceiveMessage,
    SendMessage,
    TcpConfig,
    TopicDetails,
)

from pipeline.errors import PipelineError
from pipeline.schema import IggyConfig, Subscription

T = TypeVar("T")

GET_CONSUMER_OFFSET = 120
STORE_CONSUMER_OFFSET = 121
CREATE_TOPIC = 302
#: Messages asked for at once where a whole topic is read.
MESSAGES_AT_ONCE = 1_000
#: Longest wait for any answer, seconds; the client reconnects by itself meanwhile.
CALL_SECONDS = 15.0
#: Longest wait for the first connection, seconds.
CONNECT_SECONDS = 5.0


class IggyError(PipelineError):
    """Iggy refused, or can't be reached. Worth trying again unless it is `IggyRefused`."""


class IggyRefused(IggyError):
    """Iggy answered, and trying again won't help: wrong credentials."""


def identifier(name: str) -> bytes:
    """A stream, topic or consumer by name: `[2][length][UTF-8 name]`. Source: Iggy's binary protocol 0.11.0."""
    encoded = name.encode()
    return bytes((2, len(encoded))) + encoded


class IggyConnection:
    """Connects lazily and for good: after an error the client's own reconnection goes on, login included."""

    def __init__(self, config: IggyConfig) -> None:
        self._config = config
        self._client: IggyClient | None = None
        #: Topics that were found or made, by stream and topic.
        self._made: set[tuple[str, str]] = set()

    async def connect(self) -> None:
        """Connects and logs in. Raises IggyError, or IggyRefused when the server rejects user and password."""
        login = AutoLogin.username_password(self._config.username, self._config.password)
        client = IggyClient(TcpConfig(server_address=self._config.address, auto_login=login, nodelay=True))
        try:
            await asyncio.wait_for(_started(client), CONNECT_SECONDS)
        except TimeoutError:
            raise IggyError(f"Iggy at {self._config.address} can't be reached (no connection within "
                            f"{CONNECT_SECONDS:.0f} s); start it, or correct iggy.address") from None
        except RuntimeError as error:
            raise self._in_words(error) from None
        self._client = client

    async def _call(self, what: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(what, CALL_SECONDS)
        except TimeoutError:
            raise IggyError(f"Iggy at {self._config.address} gave no answer within {CALL_SECONDS:.0f} s") from None
        except RuntimeError as error:
            raise self._in_words(error) from None

    def _in_words(self, error: RuntimeError) -> IggyError:
        text = str(error)
        where = f"Iggy at {self._config.address}"
        if any(word in text.lower() for word in ("credentials", "unauthenticated", "unauthorized", "password")):
            return IggyRefused(f"{where} refused the login of user {self._config.username}; "
                               "correct iggy.username and iggy.password")
        return IggyError(f"{where}: {text}")

    @property
    def client(self) -> IggyClient:
        """The client underneath. Raises IggyError before `connect`."""
        if self._client is None:
            raise IggyError(f"Iggy at {self._config.address}: not connected")
        return self._client

    async def topic(self, source: Subscription) -> TopicDetails:
        """The topic's details, its partitions with their current offsets among them. Raises IggyError if missing."""
        details = await self._call(self.client.get_topic(source.stream, source.topic))
        if details is None:
            raise IggyError(f"Iggy at {self._config.address} has no topic {source.stream}/{source.topic}; "
                            "create it, or correct [[topics]]")
        return details

    async def poll(self, source: Subscription, partition: int, offset: int, count: int) -> list[ReceiveMessage]:
        """Up to `count` messages of one partition from `offset` on; empty at the log's end. Commits nothing."""
        return await self._poll(source, partition, PollingStrategy.Offset(offset), count)

    async def first_since(self, source: Subscription, partition: int,
                          microseconds: int) -> ReceiveMessage | None:
        """The first message with a timestamp at or after `microseconds` since 1970, or None."""
        found = await self._poll(source, partition, PollingStrategy.Timestamp(microseconds), 1)
        return found[0] if found else None

    async def _poll(self, source: Subscription, partition: int, strategy: PollingStrategy,
                    count: int) -> list[ReceiveMessage]:
        return await self._call(self.client.poll_messages(
            source.stream, source.topic, consumer=Consumer.Single(source.consumer), polling_strategy=strategy,
            count=count, auto_commit=False, partition_id=partition))

    async def stored_offset(self, source: Subscription, partition: int) -> int:
        """The offset stored for our consumer, or -1. Source: GetConsumerOffset, code 120."""
        body = self._consumer_body(source) + struct.pack("<BI", 1, partition)
        reply = await self._call(self.client.send_binary_request(GET_CONSUMER_OFFSET, body))
        return int(struct.unpack_from("<IQQ", reply)[2]) if len(reply) >= 20 else -1

    async def store_offset(self, source: Subscription, partition: int, offset: int) -> None:
        """Stores the offset of our consumer. Any connection may. Source: StoreConsumerOffset, code 121."""
        body = self._consumer_body(source) + struct.pack("<BIQB", 1, partition, offset, 0)
        await self._call(self.client.send_binary_request(STORE_CONSUMER_OFFSET, body))

    async def make_topic(self, stream: str, topic: str, partitions: int = 1) -> None:
        """Makes a topic of `partitions`, and its stream, if they are missing. Raises IggyError."""
        if (stream, topic) in self._made:
            return
        if await self._call(self.client.get_stream(stream)) is None:
            await self._call(self.client.create_stream(stream))
        if await self._call(self.client.get_topic(stream, topic)) is None:
            await self._call(create_topic(self.client, stream, topic, partitions))
        self._made.add((stream, topic))

    async def partitions(self, stream: str, topic: str) -> int:
        """How many partitions a topic has; 0 when it is missing. Raises IggyError."""
        details = await self._call(self.client.get_topic(stream, topic))
        return details.partitions_count if details is not None else 0

    async def send(self, stream: str, topic: str, payloads: list[bytes], partition: int | None = None,
                   headers: dict[str, str] | None = None) -> None:
        """Sends messages to a topic, and returns when Iggy has confirmed them. Raises IggyError.

        The broker chooses the partition where none is given. `headers` are each message's.
        """
        where = Partitioning.balanced() if partition is None else Partitioning.partition_id(partition)
        try:
            await self._call(self.client.send_messages(stream, topic, where,
                                                       [SendMessage(payload, headers) for payload in payloads]))
        except IggyError:
            self._made.discard((stream, topic))
            raise

    async def connected(self) -> None:
        """Connects, unless that has been done. Raises IggyError."""
        if self._client is None:
            await self.connect()

    async def read_all(self, stream: str, topic: str) -> list[bytes]:
        """The payloads of a whole topic, partition by partition; none when there is no such topic. Raises IggyError."""
        details = await self._call(self.client.get_topic(stream, topic))
        found: list[bytes] = []
        source = Subscription(0, stream, topic, 0, self._config.consumer)
        for partition in details.partitions if details is not None else []:
            position = 0
            while messages := await self.poll(source, partition.id, position, MESSAGES_AT_ONCE):
                found += [message.payload() for message in messages]
                position = messages[-1].offset() + 1
        return found

    async def purge(self, stream: str, topic: str) -> None:
        """Removes all messages of a topic. Raises IggyError."""
        await self._call(self.client.purge_topic(stream, topic))

    def _consumer_body(self, source: Subscription) -> bytes:
        return b"\x01" + identifier(source.consumer) + identifier(source.stream) + identifier(source.topic)


async def create_topic(client: IggyClient, stream: str, topic: str, partitions: int) -> None:
    """Creates a topic with the server's own defaults. Raises RuntimeError.

    `IggyClient.create_topic` of 0.9.0 sends option keys that the server 0.9.0 refuses. Source: CreateTopic, code 302.
    """
    name = topic.encode()
    body = identifier(stream) + struct.pack("<IB", partitions, len(name)) + name
    await client.send_binary_request(CREATE_TOPIC, body)


async def _started(client: IggyClient) -> None:
    await client.connect()
    await client.ping()


async def check_iggy(config: IggyConfig, topics: tuple[Subscription, ...]) -> None:
    """Raises IggyError when the server can't be reached, refuses the login, or lacks a topic."""
    connection = IggyConnection(config)
    await connection.connect()
    for topic in topics:
        await connection.topic(topic)
