"""One connection to Iggy through the `apache-iggy` client, with a deadline for every call and readable errors."""

import asyncio
import contextlib
import logging
import struct
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

from apache_iggy import (
    Consumer,
    IggyClient,
    Partitioning,
    Permissions,
    PollingStrategy,
    ReceiveMessage,
    SendMessage,
    TopicDetails,
)

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import Subscription
from pipeline.iggy.addresses import Addresses
from pipeline.iggy.clients import new_client
from pipeline.iggy.credentials import Credentials, Login, SecretFileProblem
from pipeline.iggy.diagnosis import diagnose
from pipeline.iggy.errors import IggyAuthenticationFailed, IggyError, IggyForbidden, IggyNotFound, IggyUnreachable
from pipeline.iggy.requests import (
    DELETE_CONSUMER_OFFSET,
    GET_CONSUMER_OFFSET,
    GET_ME,
    GROUP,
    NO_OPTIONS,
    POLL_MESSAGES_CODE,
    SINGLE,
    STORE_CONSUMER_OFFSET,
    SYNC_CONSUMER_GROUP,
    create_topic,
    identifier,
    last_of_partition,
)
from pipeline.iggy.topic_details import Details, polled_topic

T = TypeVar("T")
#: A poll that is under way; its messages once they are awaited.
Poll: TypeAlias = Coroutine[Any, Any, list[ReceiveMessage]]

#: Messages of one poll when a whole topic is read.
POLL_MESSAGES = 1_000
#: Longest wait for a connection, seconds.
CONNECT_SECONDS = 5.0
#: Pause before work that lost its connection is repeated, seconds.
RETRY_SECONDS = 0.1
#: A connection on which all calls fail for this time, for any reason, is dropped, seconds.
MAX_FAILING_SECONDS = 5.0
#: Texts in the client's errors, which have no codes, that mean a lost connection or session.
DISCONNECT_TEXTS = ("connect", "stale", "eof", "broken pipe", "reset by peer", "unauthenticated", "evict", "session",
                    "tcp error", "quic error", "websocket")
#: Texts in the client's errors that mean that a login is refused.
REFUSED_TEXTS = ("credentials", "unauthenticated", "unauthorized", "password", "personal access token", "user inactive")
#: A login that was refused is tried again after this time, or once its file has changed; seconds.
REFUSED_SECONDS = 10.0
#: Text of the client's error when the user lacks a right. It is answered only for what exists.
FORBIDDEN_TEXT = "unauthorized"
#: A topic that may not be read is asked for again after this time: the right may have been granted, seconds.
UNREADABLE_SECONDS = 60.0
#: Texts in the client's errors that mean that the server works, and the object does not exist.
NOT_FOUND_TEXTS = ("not found", "was not found")


LOGGER = logging.getLogger("iggy")


class TopicState(NamedTuple):
    """What a stream's details say of a topic. It changes whenever one of its partitions does."""

    created_at: int
    size: int
    messages: int
    partitions: int


class IggyConnection:
    """Connects when `ensure_connected` is called.

    The client's own reconnection is off, because the caller has to know: on a new connection a log may be another
    one, and group memberships are lost.
    """

    def __init__(self, config: IggyConfig) -> None:
        self._config = config
        self._addresses = Addresses(config.servers())
        self._credentials = Credentials(config)
        self._client: IggyClient | None = None
        #: The server that is, or was last, connected.
        self.address = self._addresses.current
        #: Number of connections so far. When it grows, the caller has to check whether the logs are still the same.
        self.connections = 0
        #: Subscriptions whose group this connection has joined.
        self._joined: set[Subscription] = set()
        self._failing_since: float | None = None
        #: Topics that were found or created: (stream, topic).
        self._known: set[tuple[str, str]] = set()
        #: The login that was refused last, why, and when: seconds, monotonic.
        self._refused: tuple[Login, IggyAuthenticationFailed, float] | None = None
        #: Who is logged in, for errors.
        self._user = f"user {config.username}"
        #: Topics whose details the user may not read, and when that was found: seconds, monotonic.
        self._unreadable: dict[tuple[str, str], float] = {}
        #: Topics to whose first partition everything is sent, for the same reason.
        self._unbalanced: set[tuple[str, str]] = set()

    async def connect(self) -> None:
        """Connects to the first server that can be reached, and logs in.

        Raises IggyUnreachable if none can, and IggyAuthenticationFailed when the server rejects the credentials, or
        has just rejected the same.
        """
        login = self._login()
        failures = []
        for address in self._addresses.candidates(time.monotonic()):
            try:
                client = await self._connect_to(address, login)
            except IggyUnreachable as error:
                self._addresses.failed(address, time.monotonic())
                failures.append(str(error))
                continue
            if address != self.address:
                LOGGER.warning("%s is not used now; Iggy at %s is", self.address, address)
            self._addresses.reached(address)
            self._client, self.address, self._user = client, address, login.user()
            self.connections += 1
            self._joined.clear()
            self._unreadable.clear()
            self._unbalanced.clear()
            return
        raise IggyUnreachable("; ".join(failures))

    def _login(self) -> Login:
        """The login to try now. Raises IggyAuthenticationFailed."""
        try:
            login = self._credentials.login()
        except SecretFileProblem as error:
            raise IggyAuthenticationFailed(str(error)) from None
        if self._refused is not None:
            refused, failure, at = self._refused
            if login == refused and time.monotonic() - at < REFUSED_SECONDS:
                raise failure
        return login

    async def _connect_to(self, address: str, login: Login) -> IggyClient:
        """A client that is logged in. Raises IggyUnreachable and IggyAuthenticationFailed."""
        client: IggyClient | None = None
        try:
            client = new_client(self._config, address, login.automatic())
            await asyncio.wait_for(_connect(client), CONNECT_SECONDS)
        except ValueError as error:
            raise IggyAuthenticationFailed(f"iggy.address: {error}; give host:port") from None
        except (TimeoutError, RuntimeError) as error:
            said = str(error)
            # What has failed must not stay connected: see `_call`.
            traceback.clear_frames(error.__traceback__)
            client = None
            if any(text in said.lower() for text in REFUSED_TEXTS):
                failure = IggyAuthenticationFailed(f"Iggy at {address} {login.refused()}")
                self._refused = login, failure, time.monotonic()
                raise failure from None
            cause = await diagnose(self._config, address, said or f"no connection within {CONNECT_SECONDS:.0f} s")
            raise IggyUnreachable(f"Iggy at {address} can't be reached ({cause.what}); {cause.advice}") from None
        self._refused = None
        return client

    async def _call(self, call: Awaitable[T], right: str = "") -> T:
        """The result of a call, which needs a right: its name, and where. Raises IggyError.

        No frame here may have the client in a variable: an error keeps the frames that it has passed, in circles that
        only the garbage collector finds, and a client that is still there keeps its connection, and its membership in
        a group, alive.
        """
        connection, seconds = self.connections, self._config.call_timeout_ms / 1000
        try:
            has_ended = isinstance(call, asyncio.Future) and call.done()
            async with contextlib.nullcontext() if has_ended else asyncio.timeout(seconds):
                result = await call
        except TimeoutError:
            self._addresses.failed(self.address, time.monotonic())
            self._drop_connection(connection)
            raise IggyError(f"Iggy at {self.address} gave no answer within {seconds:g} s") from None
        except RuntimeError as error:
            failure = self._to_error(error, right)
            if any(text in str(error).lower() for text in DISCONNECT_TEXTS) or self._fails_too_long(failure):
                self._drop_connection(connection)
            raise failure from None
        self._failing_since = None
        return result

    def _fails_too_long(self, failure: IggyError) -> bool:
        if isinstance(failure, IggyNotFound | IggyForbidden):
            return False
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        return now - self._failing_since > MAX_FAILING_SECONDS

    def _drop_connection(self, connection: int) -> None:
        """Drops connection number `connection`, unless it has been replaced already. Its client closes it."""
        if self.connections == connection:
            self._client = self._failing_since = None
            self._joined.clear()

    def _to_error(self, error: RuntimeError, right: str) -> IggyError:
        text = str(error)
        if text.lower() == FORBIDDEN_TEXT:
            return IggyForbidden(f"Iggy at {self.address}: {self._user} lacks the right {right or 'to do this'}; grant "
                                 "it, or give a user who has it")
        kind = IggyNotFound if any(found in text.lower() for found in NOT_FOUND_TEXTS) else IggyError
        return kind(f"Iggy at {self.address}: {text}")

    @property
    def client(self) -> IggyClient:
        """The client underneath. Raises IggyError before `connect`."""
        if self._client is None:
            raise IggyError(f"Iggy at {self.address}: not connected")
        return self._client

    async def topic(self, subscription: Subscription) -> Details:
        """The topic's details, with its partitions and their current offsets. Raises IggyNotFound."""
        details = await self.details(subscription.stream, subscription.topic)
        if details is None:
            raise IggyNotFound(f"Iggy at {self.address} has no topic {subscription.label()}; "
                              "create it, or correct [[topics]]")
        return details

    async def topic_states(self, stream: str) -> dict[str, TopicState]:
        """The state of each topic of a stream, by name; none if the user may not read the stream.

        Raises IggyNotFound if it is missing.
        """
        try:
            return await self.topics_of(stream)
        except IggyForbidden:
            return {}

    async def topics_of(self, stream: str) -> dict[str, TopicState]:
        """The same. Raises IggyForbidden if the user may not read the stream."""
        details = await self._call(self.client.get_stream(stream), f"read_stream on the stream {stream}")
        if details is None:
            raise IggyNotFound(f"Iggy at {self.address} has no stream {stream}; create it, or "
                               "correct [[topics]]")
        return {topic.name: TopicState(topic.created_at, topic.size, topic.messages_count, topic.partitions_count)
                for topic in details.topics}

    async def streams(self) -> list[str]:
        """The names of all streams. Raises IggyError."""
        return [stream.name for stream in await self._call(self.client.get_streams(), "read_streams")]

    def poll(self, subscription: Subscription, partition: int, offset: int, count: int) -> Poll:
        """Up to `count` messages of one partition from `offset` on; none at the end of the log. Commits nothing.

        The request is under way from this call on, whenever its result is awaited. Both raise IggyError.
        """
        return self._poll(subscription, partition, PollingStrategy.Offset(offset), count)

    async def first_since(self, subscription: Subscription, partition: int,
                          microseconds: int) -> ReceiveMessage | None:
        """The first message with a timestamp at or after `microseconds` since 1970, or None."""
        found = await self._poll(subscription, partition, PollingStrategy.Timestamp(microseconds), 1)
        return found[0] if found else None

    async def first(self, subscription: Subscription, partition: int) -> ReceiveMessage | None:
        """The oldest message that is left of a partition, or None. Raises IggyError."""
        found = await self._poll(subscription, partition, PollingStrategy.First(), 1)
        return found[0] if found else None

    async def last(self, subscription: Subscription, partition: int) -> ReceiveMessage | None:
        """The last message of a partition, or None. Raises IggyError."""
        found = await self._poll(subscription, partition, PollingStrategy.Last(), 1)
        return found[0] if found else None

    def _poll(self, subscription: Subscription, partition: int, strategy: PollingStrategy, count: int) -> Poll:
        kind = Consumer.Group if subscription in self._joined else Consumer.Single
        return self._polled(subscription, self.client.poll_messages(
            subscription.stream, subscription.topic, consumer=kind(subscription.consumer), polling_strategy=strategy,
            count=count, auto_commit=False, partition_id=partition))

    async def _polled(self, subscription: Subscription,
                      request: Awaitable[list[ReceiveMessage]]) -> list[ReceiveMessage]:
        try:
            return await self._call(request, _polling(subscription))
        except IggyNotFound:
            self._known.discard((subscription.stream, subscription.topic))
            raise

    async def stored_offset(self, subscription: Subscription, partition: int) -> int:
        """The offset stored for the consumer, or -1. Source: GetConsumerOffset, code 120."""
        body = self._consumer_body(subscription) + struct.pack("<BI", 1, partition)
        reply = await self._call(self.client.send_binary_request(GET_CONSUMER_OFFSET, body), _polling(subscription))
        return int(struct.unpack_from("<IQQ", reply)[2]) if len(reply) >= 20 else -1

    async def store_offset(self, subscription: Subscription, partition: int, offset: int) -> None:
        """Stores the offset of the consumer; in a group only a member may. Source: StoreConsumerOffset, code 121."""
        body = self._consumer_body(subscription) + struct.pack("<BIQB", 1, partition, offset, 0)
        await self._call(self.client.send_binary_request(STORE_CONSUMER_OFFSET, body), _polling(subscription))

    async def delete_offset(self, subscription: Subscription, partition: int) -> None:
        """Removes the stored offset of the consumer, if there is one. Source: DeleteConsumerOffset, code 122."""
        if await self.stored_offset(subscription, partition) >= 0:
            body = self._consumer_body(subscription) + struct.pack("<BIB", 1, partition, 0)
            await self._call(self.client.send_binary_request(DELETE_CONSUMER_OFFSET, body), _polling(subscription))

    async def join(self, subscription: Subscription) -> None:
        """Joins the group with this connection, and creates it if it is missing. Raises IggyError."""
        if await self._call(self.client.get_consumer_group(*_group(subscription)), _reading(subscription)) is None:
            # Another member may create it at the same time; any other failure is raised by joining.
            with contextlib.suppress(IggyError):
                await self._call(self.client.create_consumer_group(*_group(subscription)), _reading(subscription))
        await self._call(self.client.join_consumer_group(*_group(subscription)), _reading(subscription))
        self._joined.add(subscription)

    async def leave(self, subscription: Subscription) -> None:
        """Leaves the group. Raises IggyError."""
        self._joined.discard(subscription)
        await self._call(self.client.leave_consumer_group(*_group(subscription)), _reading(subscription))

    async def delete_group(self, subscription: Subscription) -> None:
        """Deletes the group with its members and offsets, if there is one. Raises IggyError."""
        self._joined.discard(subscription)
        if await self._call(self.client.get_consumer_group(*_group(subscription)), _reading(subscription)) is not None:
            await self._call(self.client.delete_consumer_group(*_group(subscription)), _reading(subscription))

    async def assignment(self, subscription: Subscription) -> list[int] | None:
        """The partitions assigned to this member of the group; None when it is not a member, or no longer.

        Source: SyncConsumerGroup, code 606: `[generation u64][count u32][partition u32]...`.
        """
        body = b"".join(map(identifier, _group(subscription)))
        reply = await self._call(self.client.send_binary_request(SYNC_CONSUMER_GROUP, body))
        if len(reply) < 12:
            return None
        count = struct.unpack_from("<QI", reply)[1]
        return list(struct.unpack_from(f"<{count}I", reply, 12))

    async def members(self, subscription: Subscription) -> list[list[int]]:
        """The partitions of each member of the group; none when the group does not exist."""
        group = await self._call(self.client.get_consumer_group(*_group(subscription)), _reading(subscription))
        return [list(member.partitions) for member in group.members] if group is not None else []

    async def make_topic(self, stream: str, topic: str, partitions: int = 1,
                         options: Mapping[str, str] = NO_OPTIONS) -> None:
        """Creates a topic with `partitions`, and its stream, if they are missing. Raises IggyError.

        Options that the server does not know are left out.
        """
        if (stream, topic) in self._known:
            return
        await _create_missing(lambda: self.has_stream(stream),
                              lambda: self._call(self.client.create_stream(stream), "manage_streams"))
        await _create_missing(lambda: self._has_topic(stream, topic),
                              lambda: self._create(stream, topic, partitions, options))
        self._known.add((stream, topic))

    async def _create(self, stream: str, topic: str, partitions: int, options: Mapping[str, str]) -> None:
        known = {spec.key for spec in await self._call(self.client.describe_options("topic"))} if options else ()
        await self._call(create_topic(self.client, stream, topic, partitions,
                                      {key: value for key, value in options.items() if key in known}),
                         f"manage_topics on the stream {stream}")

    async def has_stream(self, stream: str) -> bool:
        """Whether the stream exists. Raises IggyError."""
        try:
            return await self._call(self.client.get_stream(stream)) is not None
        except IggyForbidden:
            return True  # a right is asked for only where there is something

    async def _has_topic(self, stream: str, topic: str) -> bool:
        try:
            return await self._call(self.client.get_topic(stream, topic)) is not None
        except IggyForbidden:
            return True

    async def details(self, stream: str, topic: str) -> Details | None:
        """A topic's details; None when it, or its stream, is missing. Raises IggyError.

        Where the user may only poll, they are what polls show: without the times when the partitions were created.
        """
        found = self._unreadable.get((stream, topic))
        if found is None or time.monotonic() - found > UNREADABLE_SECONDS:
            try:
                details = await self.full_details(stream, topic)
                self._unreadable.pop((stream, topic), None)
                return details
            except IggyForbidden:
                self._unreadable[stream, topic] = time.monotonic()
        right = f"read_topic (or poll_messages) on {stream}/{topic}"
        return await polled_topic(lambda partition: self._call(
            self.client.send_binary_request(
                POLL_MESSAGES_CODE, last_of_partition(self._config.consumer, stream, topic, partition)), right))

    async def full_details(self, stream: str, topic: str) -> TopicDetails | None:
        """As the server gives them. Raises IggyError, also where the user may only poll."""
        return await self._call(self.client.get_topic(stream, topic), f"read_topic on {stream}/{topic}")

    def limits(self) -> list[str]:
        """What the user may not see, and what is lost by that."""
        return [f"{self._user} may poll {stream}/{topic}, but lacks the right read_topic on it: its partitions are "
                "found by polls, and a topic that is made again is noticed only when it is shorter than before"
                for stream, topic in self._unreadable]

    async def permissions(self) -> Permissions | None:
        """What the user may do; None where the server does not tell. Raises IggyError."""
        reply = await self._call(self.client.send_binary_request(GET_ME, b""))
        user = await self._call(self.client.get_user(int.from_bytes(reply[4:8], "little")))
        return user.permissions if user is not None else None

    async def partitions(self, stream: str, topic: str) -> int:
        """The number of a topic's partitions; 0 when it is missing. Raises IggyError."""
        details = await self.details(stream, topic)
        return details.partitions_count if details is not None else 0

    async def send(self, stream: str, topic: str, payloads: list[bytes], partition: int | None = None,
                   headers: dict[str, str] | None = None) -> int | None:
        """Sends messages to a topic, and waits until Iggy has confirmed them. Returns the first offset, if known.

        Where no partition is given, they are used in turn; or only the first, if the user may not read the topic. Every
        message gets the `headers`. Raises IggyError.
        """
        if partition is None and (stream, topic) in self._unbalanced:
            partition = 0
        partitioning = Partitioning.balanced() if partition is None else Partitioning.partition_id(partition)
        messages = _messages(payloads, headers)
        try:
            answer = await self._call(self.client.send_messages(stream, topic, partitioning, messages),
                                      f"send_messages on {stream}/{topic}")
        except IggyForbidden:
            if partition is not None:
                raise
            # The client may have been refused the number of partitions, and not the sending.
            self._unbalanced.add((stream, topic))
            return await self.send(stream, topic, payloads, None, headers)
        except IggyError:
            self._known.discard((stream, topic))
            raise
        return answer.confirmations[0].base_offset if answer.confirmations else None

    async def ensure_connected(self) -> None:
        """Connects, unless there is a connection. Raises IggyError."""
        if self._client is None:
            await self.connect()

    @property
    def consumer(self) -> str:
        """The configured name of a single consumer."""
        return self._config.consumer

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._client is not None

    async def read_all(self, stream: str, topic: str) -> list[bytes]:
        """The payloads of a whole topic, partition by partition; none when the topic is missing. Raises IggyError."""
        details = await self.details(stream, topic)
        found: list[bytes] = []
        subscription = Subscription(0, stream, topic, 0, self._config.consumer)
        for partition in details.partitions if details is not None else []:
            position = 0
            while messages := await self.poll(subscription, partition.id, position, POLL_MESSAGES):
                found += [message.payload() for message in messages]
                position = messages[-1].offset() + 1
        return found

    async def purge(self, stream: str, topic: str) -> None:
        """Removes all messages of a topic. Raises IggyError."""
        await self._call(self.client.purge_topic(stream, topic), f"manage_topic on {stream}/{topic}")

    def _consumer_body(self, subscription: Subscription) -> bytes:
        kind = GROUP if subscription.group else SINGLE
        stream, topic, consumer = _group(subscription)
        return kind + identifier(consumer) + identifier(stream) + identifier(topic)


def _group(subscription: Subscription) -> tuple[str, str, str]:
    """Stream, topic and consumer: what names a consumer group."""
    return subscription.stream, subscription.topic, subscription.consumer


def _polling(subscription: Subscription) -> str:
    """The right that polls and stored offsets need."""
    return f"poll_messages on {subscription.label()}"


def _reading(subscription: Subscription) -> str:
    """The right that consumer groups need."""
    return f"read_topic on {subscription.label()}, which consumer groups need"


async def _create_missing(is_there: Callable[[], Awaitable[bool]], create: Callable[[], Awaitable[object]]) -> None:
    """Creates what is missing; another process may do so at the same time. Raises IggyError."""
    if not await is_there():
        try:
            await create()
        except IggyError:
            if not await is_there():
                raise


async def _connect(client: IggyClient) -> None:
    await client.connect()
    await client.ping()


def _messages(payloads: list[bytes], headers: dict[str, str] | None) -> list[SendMessage]:
    """Messages to send. Text costs the client a fifth of what bytes do: of those, it first fails to make text."""
    try:
        return [SendMessage(payload.decode(), headers) for payload in payloads]
    except UnicodeDecodeError:
        return [SendMessage(payload, headers) for payload in payloads]
