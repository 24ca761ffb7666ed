"""The stores of dead letters, files and Iggy topics: appending to them, and reading their letters."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from msgspec import Struct

from pipeline.config.feedback import dead_letter_topics
from pipeline.config.schema import Config, DeadLetterConfig, Subscription
from pipeline.dead_letters.letters import DeadLetter, Tombstone, decode_record, is_sha256_of
from pipeline.dead_letters.rotating_file import RotatingFile
from pipeline.errors import PipelineError
from pipeline.files import describe
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError, IggyForbidden, IggyNotFound
from pipeline.iggy.retry import retry_on_disconnect
from pipeline.iggy.rights import lacks_everywhere
from pipeline.printable import printable_bytes

#: Largest record, bytes: the largest payload that the client accepts. Source: Iggy's `MAX_PAYLOAD_SIZE`. It fits in a
#: frame of a server with default settings (`message_bus.max_message_size`, 64 MiB).
MAX_RECORD_BYTES = 64_000_000
#: Bytes of one message that every Iggy server accepts, whatever its limits.
SAFE_BYTES = 1_000_000
#: Records of one send, and their bytes; a single record may be larger.
SEND_RECORDS, SEND_BYTES = 1_000, SAFE_BYTES
#: Bytes of letters with payloads that are returned at once, approximately.
READ_BYTES = 4_000_000
#: After this many connections lost in a row while a record larger than `SAFE_BYTES` was sent, the server's limit is
#: taken to be lower.
LARGE_ATTEMPTS = 3
#: Records of one poll, and their bytes, estimated by the previous poll.
POLL_RECORDS, POLL_BYTES = 200, 16_000_000
#: Bytes of a malformed record that are shown.
SHOWN_BYTES = 60


class StoreError(PipelineError):
    """A dead-letter file cannot be used: which one, why, and what to do. Can be retried."""


class Record(Struct, frozen=True):
    """One record of a store, whichever process wrote it."""

    #: File and line, or partition and offset, for people.
    where: str
    content: bytes
    #: False for a line that was cut at `rotating_file.MAX_LINE_BYTES`.
    whole: bool = True


class DeadLetterStore(Protocol):
    """Holds dead letters."""

    #: The file, or stream/topic, for people.
    name: str
    #: Bytes of the largest record that it accepts; may become smaller.
    max_bytes: int

    def records(self) -> AsyncIterator[Record]:
        """All records, oldest first; none if the topic or file is missing. Raises IggyError or StoreError."""

    async def append(self, records: Sequence[bytes]) -> None:
        """Appends the records of one send, about `SEND_BYTES` or a single one; returns when they are stored.

        Raises IggyError or StoreError; then none of them is stored, as far as is known.
        """

    async def clear(self) -> None:
        """Removes all records, also those that are no letters. Raises IggyError or StoreError."""

    async def check(self) -> None:
        """Raises IggyError or StoreError if no record could be appended now."""


class FileStore:
    """A rotating NDJSON file."""

    def __init__(self, options: DeadLetterConfig, logger: logging.Logger) -> None:
        self.name = options.file
        self.max_bytes = min(MAX_RECORD_BYTES, options.max_file_bytes - 1)
        self._keep = options.max_files
        self._file = RotatingFile(options.file, options.max_file_bytes, options.max_files)
        self._logger = logger

    async def records(self) -> AsyncIterator[Record]:
        """All lines, oldest first. Raises StoreError."""
        try:
            for line in self._file.lines():
                yield Record(line.where, line.content, line.whole)
        except OSError as error:
            raise self._error("read", error) from None

    async def append(self, records: Sequence[bytes]) -> None:
        """Appends lines; returns when they are on the disk. Raises StoreError."""
        try:
            deleted = await asyncio.to_thread(self._file.write, list(records))
        except OSError as error:
            raise self._error("written to", error) from None
        for path in deleted:
            self._logger.warning("the oldest dead letters, in %s, were deleted: dead_letters.max_files is %d", path,
                                 self._keep)

    async def clear(self) -> None:
        """Deletes the files. Raises StoreError."""
        try:
            await asyncio.to_thread(self._file.clear)
        except OSError as error:
            raise self._error("deleted", error) from None

    async def check(self) -> None:
        """Creates the file, and tests whether there is room. Raises StoreError."""
        try:
            await asyncio.to_thread(self._file.check)
        except OSError as error:
            raise self._error("written to", error) from None

    def _error(self, what: str, error: OSError) -> StoreError:
        return StoreError(f"dead_letters.file can't be {what}: {describe(error, error.filename or self.name)}")


class TopicStore:
    """An Iggy topic."""

    def __init__(self, iggy: IggyConnection, stream: str, topic: str, logger: logging.Logger) -> None:
        self.name = f"{stream}/{topic}"
        self.max_bytes = MAX_RECORD_BYTES
        self._iggy = iggy
        self._stream = stream
        self._topic = topic
        self._logger = logger
        #: Connections lost in a row while a large record was sent.
        self._disconnects = 0

    async def records(self) -> AsyncIterator[Record]:
        """All messages, oldest first in each partition; none if the topic is missing. Raises IggyError."""
        await self._iggy.ensure_connected()
        details = await self._iggy.details(self._stream, self._topic)
        subscription = Subscription(0, self._stream, self._topic, 0, self._iggy.consumer)
        for partition in details.partitions if details is not None else []:
            position, count = 0, 1
            while messages := await self._iggy.poll(subscription, partition.id, position, count):
                largest = 1
                for message in messages:
                    content = message.payload()
                    largest = max(largest, len(content))
                    yield Record(f"{subscription.label(partition.id)} offset {message.offset()}", content)
                position = messages[-1].offset() + 1
                count = max(1, min(2 * count, POLL_RECORDS, POLL_BYTES // largest))

    async def append(self, records: Sequence[bytes]) -> None:
        """Appends messages; returns when Iggy has confirmed them. Raises IggyError."""
        await self._iggy.ensure_connected()
        await self._iggy.make_topic(self._stream, self._topic)
        try:
            await self._iggy.send(self._stream, self._topic, list(records))
        except IggyError:
            self._learn_limit(sum(map(len, records)) if len(records) == 1 else 0)
            raise
        self._disconnects = 0

    def _learn_limit(self, size: int) -> None:
        """Lowers `max_bytes` after repeated failures: a server with a lower limit closes the connection without an
        error."""
        if size <= SAFE_BYTES or self._iggy.is_connected:
            return
        self._disconnects += 1
        if self._disconnects >= LARGE_ATTEMPTS:
            self._disconnects = 0
            self.max_bytes = SAFE_BYTES
            self._logger.warning(
                "Iggy has closed the connection %d times when a dead letter of %d bytes was sent to %s. The server's "
                "limit (message_bus.max_message_size) seems lower; from now on letters over %d bytes are stored "
                "shortened or without their payloads", LARGE_ATTEMPTS, size, self.name, SAFE_BYTES)

    async def clear(self) -> None:
        """Purges the topic. Raises IggyError."""
        await self._iggy.ensure_connected()
        if await self._iggy.details(self._stream, self._topic) is not None:
            await self._iggy.purge(self._stream, self._topic)

    async def check(self) -> None:
        """Creates the topic if its stream exists. Raises IggyError, also when the user may send nowhere."""
        await self._iggy.ensure_connected()
        permissions = await self._iggy.permissions()
        if permissions is not None and lacks_everywhere(permissions, "send_messages"):
            raise IggyForbidden(f"the user of the pipeline lacks the right send_messages on {self.name}, the topic of "
                                "dead letters; grant it, or set dead_letters.stores = [\"file\"]")
        if await self._iggy.has_stream(self._stream):
            try:
                await self._iggy.make_topic(self._stream, self._topic)
            except IggyError as error:
                raise IggyError(f"the topic of dead letters {self.name} can't be made ({error}); make it, or give "
                                "another dead_letters.topic") from None


def stores(config: Config, iggy: IggyConnection, logger: logging.Logger) -> dict[str, list[DeadLetterStore]]:
    """The configured stores, by kind: "iggy" (one topic for each stream), "file"."""
    options = config.dead_letters
    found: dict[str, list[DeadLetterStore]] = {}
    if "iggy" in options.stores:
        found["iggy"] = [TopicStore(iggy, stream, topic, logger) for stream, topic in dead_letter_topics(config)]
    if "file" in options.stores:
        found["file"] = [FileStore(options, logger)]
    return found


async def check_stores(config: Config, logger: logging.Logger) -> None:
    """Checks before the start whether dead letters can be stored, files first. Raises IggyError or StoreError."""
    iggy = IggyConnection(config.iggy)
    if config.subscriptions():
        for kind, configured in sorted(stores(config, iggy, logger).items()):
            for store in configured:
                await (retry_on_disconnect(store.check) if kind == "iggy" else store.check())


class Contents(Struct, frozen=True):
    """The contents of a store."""

    #: The letters that were neither replayed nor purged, oldest first, without their payloads.
    letters: list[DeadLetter]
    #: Number of records that are neither letters nor tombstones; position, error and beginning of the first.
    bad: int = 0
    example: str = ""


async def read_contents(store: DeadLetterStore) -> Contents:
    """Reads a store, without payloads. Raises IggyError or StoreError."""
    letters: dict[str, DeadLetter] = {}
    settled: set[str] = set()
    bad, example = 0, ""
    async for record in store.records():
        try:
            found = _decoded(record)
        except ValueError as error:
            bad += 1
            example = example or f"{record.where} ({error}): {printable_bytes(record.content, SHOWN_BYTES)}"
            continue
        if isinstance(found, Tombstone):
            settled.update(found.ids)
        else:
            letters[found.id] = found.without_payload()
    return Contents([letter for id_, letter in letters.items() if id_ not in settled], bad, example)


def _decoded(record: Record) -> DeadLetter | Tombstone:
    if not record.whole:
        raise ValueError("too long")
    return decode_record(record.content)


async def read_letters(store: DeadLetterStore, ids: Collection[str], at_once: int) -> AsyncIterator[list[DeadLetter]]:
    """The letters with these ids, with payloads, up to `at_once` at a time, fewer if they are large. Raises as
    `records`."""
    wanted = set(ids)
    some: list[DeadLetter] = []
    size = 0
    async for record in store.records():
        if not wanted:
            break
        try:
            letter = _decoded(record)
        except ValueError:
            continue
        if isinstance(letter, DeadLetter) and letter.id in wanted:
            wanted.discard(letter.id)
            some.append(letter)
            size += len(record.content)
            if len(some) >= at_once or size >= READ_BYTES:
                yield some
                some, size = [], 0
    if some:
        yield some


async def find_payload(letter: DeadLetter, iggy: IggyConnection) -> DeadLetter:
    """The letter with its payload, if that was left out and Iggy still has the message. Raises IggyError."""
    if not letter.payload_omitted:
        return letter
    await iggy.ensure_connected()
    subscription = Subscription(0, letter.stream, letter.topic, 0, iggy.consumer)
    try:
        found = await iggy.poll(subscription, letter.partition, letter.offset, 1)
    except IggyNotFound:
        return letter
    if not found or found[0].offset() != letter.offset or not is_sha256_of(letter, found[0].payload()):
        return letter
    return letter.with_payload(found[0].payload())
