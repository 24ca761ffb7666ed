"""One connection to Iggy through the `apache-iggy` client, with a deadline on every call and errors in words."""

import asyncio
import contextlib
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
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
    TcpReconnectionConfig,
    TopicDetails,
)

from pipeline.config.schema import IggyConfig, Subscription
from pipeline.iggy.errors import IggyAuthenticationFailed, IggyError, IggyNotFound, IggyUnreachable
from pipeline.iggy.requests import (
    DELETE_CONSUMER_OFFSET,
    GET_CONSUMER_OFFSET,
    GROUP,
    NO_OPTIONS,
    SINGLE,
    STORE_CONSUMER_OFFSET,
    SYNC_CONSUMER_GROUP,
    create_topic,
    identifier,
)

T = TypeVar("T")

#: Messages asked for at once where a whole topic is read.
MESSAGES_AT_ONCE = 1_000
#: Longest wait for a connection, seconds.
CONNECT_SECONDS = 5.0
#: Pause before a check that lost its connection is made again, seconds.
AGAIN_SECONDS = 0.1
#: Calls that fail for so long, whatever the reason, cost the connection, seconds.
RENEW_SECONDS = 5.0
#: Words in the client's errors (it has texts only) that tell that the connection, or its session, is gone.
LOST_WORDS = ("connect", "stale", "eof", "broken pipe", "reset by peer", "unauthenticated", "evict", "session",
              "tcp error")
#: Words in what a server answers that lives, and has no such thing.
MISSING_WORDS = ("not found", "was not found")


class IggyConnection:
    """Connects when `ensure_connected` is called. A connection that is lost stays lost until then: the client's own
    reconnection is switched off, because after it the log may be another one, and memberships are gone.
    """

    def __init__(self, config: IggyConfig) -> None:
        self._config = config
        self._client: IggyClient | None = None
        #: How many connections there have been: who sees it grow looks whether the logs are still the same.
        self.connections = 0
        #: Groups that this connection has joined.
        self._joined: set[Subscription] = set()
        self._failing_since: float | None = None
        #: Topics that were found or made, by stream and topic.
        self._made: set[tuple[str, str]] = set()

    async def connect(self) -> None:
        """Connects and logs in. Raises IggyError, or IggyRefused when the server rejects user and password."""
        login = AutoLogin.username_password(self._config.username, self._config.password)
        try:
            client = IggyClient(TcpConfig(server_address=self._config.address, auto_login=login, nodelay=True,
                                          reconnection=TcpReconnectionConfig(enabled=False)))
        except ValueError as error:
            raise IggyAuthenticationFailed(f"iggy.address: {error}; give host:port") from None
        try:
            await asyncio.wait_for(_started(client), CONNECT_SECONDS)
        except (TimeoutError, RuntimeError) as error:
            failure = self._in_words(error) if isinstance(error, RuntimeError) else None
            if isinstance(failure, IggyAuthenticationFailed):
                raise failure from None
            reason = error if failure else f"no connection within {CONNECT_SECONDS:.0f} s"
            raise IggyUnreachable(f"Iggy at {self._config.address} can't be reached ({reason}); start it, or correct "
                                  "iggy.address") from None
        self._client = client
        self.connections += 1
        self._joined.clear()

    async def _call(self, what: Awaitable[T]) -> T:
        client, seconds = self._client, self._config.call_timeout_ms / 1000
        try:
            result = await asyncio.wait_for(what, seconds)
        except TimeoutError:
            self._drop_connection(client)
            raise IggyError(f"Iggy at {self._config.address} gave no answer within {seconds:g} s") from None
        except RuntimeError as error:
            failure = self._in_words(error)
            if any(word in str(error).lower() for word in LOST_WORDS) or self._fails_too_long(failure):
                self._drop_connection(client)
            raise failure from None
        self._failing_since = None
        return result

    def _fails_too_long(self, failure: IggyError) -> bool:
        if isinstance(failure, IggyNotFound):
            return False
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        return now - self._failing_since > RENEW_SECONDS

    def _drop_connection(self, client: IggyClient | None) -> None:
        """Gives a connection up, unless another has taken its place already."""
        if self._client is client:
            self._client = self._failing_since = None
            self._joined.clear()

    def _in_words(self, error: RuntimeError) -> IggyError:
        text = str(error)
        where = f"Iggy at {self._config.address}"
        if any(word in text.lower() for word in ("credentials", "unauthenticated", "unauthorized", "password")):
            return IggyAuthenticationFailed(f"{where} refused the login of user {self._config.username}; "
                               "correct iggy.username and iggy.password")
        kind = IggyNotFound if any(word in text.lower() for word in MISSING_WORDS) else IggyError
        return kind(f"{where}: {text}")

    @property
    def client(self) -> IggyClient:
        """The client underneath. Raises IggyError before `connect`."""
        if self._client is None:
            raise IggyError(f"Iggy at {self._config.address}: not connected")
        return self._client

    async def topic(self, source: Subscription) -> TopicDetails:
        """The topic's details, its partitions with their current offsets among them. Raises IggyMissing if missing."""
        details = await self._call(self.client.get_topic(source.stream, source.topic))
        if details is None:
            raise IggyNotFound(f"Iggy at {self._config.address} has no topic {source.stream}/{source.topic}; "
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

    async def last(self, source: Subscription, partition: int) -> ReceiveMessage | None:
        """The last message of a partition, or None. Raises IggyError."""
        found = await self._poll(source, partition, PollingStrategy.Last(), 1)
        return found[0] if found else None

    async def _poll(self, source: Subscription, partition: int, strategy: PollingStrategy,
                    count: int) -> list[ReceiveMessage]:
        consumer = Consumer.Group(source.consumer) if source in self._joined else Consumer.Single(source.consumer)
        try:
            return await self._call(self.client.poll_messages(
                source.stream, source.topic, consumer=consumer, polling_strategy=strategy,
                count=count, auto_commit=False, partition_id=partition))
        except IggyNotFound:
            self._made.discard((source.stream, source.topic))
            raise

    async def stored_offset(self, source: Subscription, partition: int) -> int:
        """The offset stored for our consumer, or -1. Source: GetConsumerOffset, code 120."""
        body = self._consumer_body(source) + struct.pack("<BI", 1, partition)
        reply = await self._call(self.client.send_binary_request(GET_CONSUMER_OFFSET, body))
        return int(struct.unpack_from("<IQQ", reply)[2]) if len(reply) >= 20 else -1

    async def store_offset(self, source: Subscription, partition: int, offset: int) -> None:
        """Stores the offset of our consumer. Any connection may. Source: StoreConsumerOffset, code 121."""
        body = self._consumer_body(source) + struct.pack("<BIQB", 1, partition, offset, 0)
        await self._call(self.client.send_binary_request(STORE_CONSUMER_OFFSET, body))

    async def delete_offset(self, source: Subscription, partition: int) -> None:
        """Removes the stored offset of our consumer, if there is one. Source: DeleteConsumerOffset, code 122."""
        if await self.stored_offset(source, partition) >= 0:
            body = self._consumer_body(source) + struct.pack("<BIB", 1, partition, 0)
            await self._call(self.client.send_binary_request(DELETE_CONSUMER_OFFSET, body))

    async def join(self, source: Subscription) -> None:
        """Makes the group if need be, and joins it with this connection. Raises IggyError."""
        if await self._call(self.client.get_consumer_group(source.stream, source.topic, source.consumer)) is None:
            # Another member may make it at the same moment; anything else that is wrong, joining says.
            with contextlib.suppress(IggyError):
                await self._call(self.client.create_consumer_group(source.stream, source.topic, source.consumer))
        await self._call(self.client.join_consumer_group(source.stream, source.topic, source.consumer))
        self._joined.add(source)

    async def leave(self, source: Subscription) -> None:
        """Leaves the group. Raises IggyError."""
        self._joined.discard(source)
        await self._call(self.client.leave_consumer_group(source.stream, source.topic, source.consumer))

    async def delete_group(self, source: Subscription) -> None:
        """Deletes the group with its members and offsets, if there is one. Raises IggyError."""
        self._joined.discard(source)
        if await self._call(self.client.get_consumer_group(source.stream, source.topic, source.consumer)) is not None:
            await self._call(self.client.delete_consumer_group(source.stream, source.topic, source.consumer))

    async def assignment(self, source: Subscription) -> list[int] | None:
        """The partitions that this member of the group may poll now; None when it is no member (any more).

        Source: SyncConsumerGroup, code 606: `[generation u64][count u32][partition u32]...`.
        """
        body = identifier(source.stream) + identifier(source.topic) + identifier(source.consumer)
        reply = await self._call(self.client.send_binary_request(SYNC_CONSUMER_GROUP, body))
        if len(reply) < 12:
            return None
        count = struct.unpack_from("<QI", reply)[1]
        return list(struct.unpack_from(f"<{count}I", reply, 12))

    async def members(self, source: Subscription) -> list[list[int]]:
        """The partitions of each of the group's members; none when there is no such group."""
        group = await self._call(self.client.get_consumer_group(source.stream, source.topic, source.consumer))
        return [list(member.partitions) for member in group.members] if group is not None else []

    async def make_topic(self, stream: str, topic: str, partitions: int = 1,
                         options: Mapping[str, str] = NO_OPTIONS) -> None:
        """Makes a topic of `partitions`, and its stream, if they are missing. Raises IggyError.

        Of the options, those that the server doesn't know are left out.
        """
        if (stream, topic) in self._made:
            return
        await _make_missing(lambda: self._call(self.client.get_stream(stream)),
                            lambda: self._call(self.client.create_stream(stream)))
        await _make_missing(lambda: self.details(stream, topic),
                            lambda: self._create(stream, topic, partitions, options))
        self._made.add((stream, topic))

    async def _create(self, stream: str, topic: str, partitions: int, options: Mapping[str, str]) -> None:
        known = {spec.key for spec in await self._call(self.client.describe_options("topic"))} if options else ()
        await self._call(create_topic(self.client, stream, topic, partitions,
                                      {key: value for key, value in options.items() if key in known}))

    async def has_stream(self, stream: str) -> bool:
        """Whether there is such a stream. Raises IggyError."""
        return await self._call(self.client.get_stream(stream)) is not None

    async def details(self, stream: str, topic: str) -> TopicDetails | None:
        """A topic's details; None when it, or its stream, is missing. Raises IggyError."""
        return await self._call(self.client.get_topic(stream, topic))

    async def partitions(self, stream: str, topic: str) -> int:
        """How many partitions a topic has; 0 when it is missing. Raises IggyError."""
        details = await self.details(stream, topic)
        return details.partitions_count if details is not None else 0

    async def send(self, stream: str, topic: str, payloads: list[bytes], partition: int | None = None,
                   headers: dict[str, str] | None = None) -> int | None:
        """Sends messages to a topic, and returns when Iggy has confirmed them: the first one's offset, if it tells.

        The broker chooses the partition where none is given. `headers` are each message's. Raises IggyError.
        """
        where = Partitioning.balanced() if partition is None else Partitioning.partition_id(partition)
        messages = [SendMessage(payload, headers) for payload in payloads]
        try:
            answer = await self._call(self.client.send_messages(stream, topic, where, messages))
        except IggyError:
            self._made.discard((stream, topic))
            raise
        return answer.confirmations[0].base_offset if answer.confirmations else None

    async def ensure_connected(self) -> None:
        """Connects, unless that has been done. Raises IggyError."""
        if self._client is None:
            await self.connect()

    @property
    def consumer(self) -> str:
        """The configured name of a single consumer."""
        return self._config.consumer

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection that was not lost (as far as is known)."""
        return self._client is not None

    async def read_all(self, stream: str, topic: str) -> list[bytes]:
        """The payloads of a whole topic, partition by partition; none when there is no such topic. Raises IggyError."""
        details = await self.details(stream, topic)
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
        kind = GROUP if source.group else SINGLE
        return kind + identifier(source.consumer) + identifier(source.stream) + identifier(source.topic)


async def _make_missing(find: Callable[[], Awaitable[object | None]], make: Callable[[], Awaitable[object]]) -> None:
    """Makes what is not found, unless another process is quicker. Raises IggyError."""
    if await find() is None:
        try:
            await make()
        except IggyError:
            if await find() is None:
                raise


async def _started(client: IggyClient) -> None:
    await client.connect()
    await client.ping()
