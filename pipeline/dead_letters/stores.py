"""The stores of dead letters, files and Iggy topics, and what is read of them: letters, and what is no letter."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from msgspec import Struct

from pipeline.config.schema import Config, DeadLetterConfig, Subscription
from pipeline.dead_letters.letters import DeadLetter, Tombstone, decode_record, is_sha256_of
from pipeline.dead_letters.rotating_file import RotatingFile
from pipeline.errors import PipelineError
from pipeline.files import describe
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError, IggyNotFound
from pipeline.iggy.retry import retry_on_disconnect
from pipeline.printable import printable_bytes

#: Largest record, bytes: the largest payload that the client takes. Source: Iggy's `MAX_PAYLOAD_SIZE`; a frame of a
#: server with default settings (`message_bus.max_message_size`, 64 MiB) has room for it.
MAX_RECORD_BYTES = 64_000_000
#: What every Iggy takes in one message, however its limits are set, bytes.
SAFE_BYTES = 1_000_000
#: Records of one send, and their bytes: only a record that is larger by itself is sent in a larger one.
SEND_RECORDS, SEND_BYTES = 1_000, SAFE_BYTES
#: Bytes of letters given to whoever reads them whole, about, at once.
READ_BYTES = 4_000_000
#: So many connections lost in a row over a record larger than `SAFE_BYTES`, and it counts as larger than Iggy takes.
TRIES_OF_LARGE = 3
#: Records of one poll, and their bytes as far as the poll before it tells.
POLL_RECORDS, POLL_BYTES = 200, 16_000_000
#: Bytes of a bad record that are shown.
SHOWN_BYTES = 60


class StoreError(PipelineError):
    """A dead-letter file can't be used: which one, why, what to do. Worth trying again."""


class Record(Struct, frozen=True):
    """One record of a store, whoever wrote it."""

    #: For people: file and line, or partition and offset.
    where: str
    content: bytes
    #: Whether all of it is there; a line over `rotating.MAX_LINE_BYTES` isn't read.
    whole: bool = True


class DeadLetterStore(Protocol):
    """A place that holds dead letters."""

    #: For people: the file, or stream/topic.
    name: str
    #: Bytes of the largest record that it takes; may become smaller.
    max_bytes: int

    def records(self) -> AsyncIterator[Record]:
        """All records, the oldest first; none when there is no such topic or file. Raises IggyError or StoreError."""

    async def append(self, records: Sequence[bytes]) -> None:
        """Adds the records of one send, about `SEND_BYTES` or a single one; returns when they are stored.

        Raises IggyError or StoreError; then none of them is stored, as far as is known.
        """

    async def clear(self) -> None:
        """Removes all records, whatever they are. Raises IggyError or StoreError."""

    async def check(self) -> None:
        """Raises IggyError or StoreError where no record could be added now."""


class FileStore:
    """A rotating NDJSON file."""

    def __init__(self, options: DeadLetterConfig, logger: logging.Logger) -> None:
        self.name = options.file
        self.max_bytes = min(MAX_RECORD_BYTES, options.max_file_bytes - 1)
        self._keep = options.max_files
        self._file = RotatingFile(options.file, options.max_file_bytes, options.max_files)
        self._logger = logger

    async def records(self) -> AsyncIterator[Record]:
        """All lines, the oldest first. Raises StoreError."""
        try:
            for line in self._file.lines():
                yield Record(line.where, line.content, line.whole)
        except OSError as error:
            raise self._error("read", error) from None

    async def append(self, records: Sequence[bytes]) -> None:
        """Adds lines; returns when they are on the disk. Raises StoreError."""
        try:
            deleted = await asyncio.to_thread(self._file.write, list(records))
        except OSError as error:
            raise self._error("written to", error) from None
        for path in deleted:
            self._logger.warning("the oldest dead letters, in %s, are deleted: dead_letters.max_files is %d", path,
                                 self._keep)

    async def clear(self) -> None:
        """Deletes the files. Raises StoreError."""
        try:
            await asyncio.to_thread(self._file.clear)
        except OSError as error:
            raise self._error("deleted", error) from None

    async def check(self) -> None:
        """Makes the file, and sees whether there is room. Raises StoreError."""
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
        #: How often the connection was lost in a row over a large record.
        self._lost = 0

    async def records(self) -> AsyncIterator[Record]:
        """All messages, the oldest first of each partition; none when there is no such topic. Raises IggyError."""
        await self._iggy.ensure_connected()
        details = await self._iggy.details(self._stream, self._topic)
        source = Subscription(0, self._stream, self._topic, 0, self._iggy.consumer)
        for partition in details.partitions if details is not None else []:
            position, count = 0, 1
            while messages := await self._iggy.poll(source, partition.id, position, count):
                largest = 1
                for message in messages:
                    content = message.payload()
                    largest = max(largest, len(content))
                    yield Record(f"{self.name} partition {partition.id} offset {message.offset()}", content)
                position = messages[-1].offset() + 1
                count = max(1, min(2 * count, POLL_RECORDS, POLL_BYTES // largest))

    async def append(self, records: Sequence[bytes]) -> None:
        """Adds messages; returns when Iggy has confirmed them. Raises IggyError."""
        await self._iggy.ensure_connected()
        await self._iggy.make_topic(self._stream, self._topic)
        try:
            await self._iggy.send(self._stream, self._topic, list(records))
        except IggyError:
            self._learn(sum(map(len, records)) if len(records) == 1 else 0)
            raise
        self._lost = 0

    def _learn(self, size: int) -> None:
        """A server whose limit is lower than the default ends the connection, and says nothing."""
        if size <= SAFE_BYTES or self._iggy.is_connected:
            return
        self._lost += 1
        if self._lost >= TRIES_OF_LARGE:
            self._lost = 0
            self.max_bytes = SAFE_BYTES
            self._logger.warning(
                "Iggy has ended the connection %d times over a dead letter of %d bytes for %s: it counts as larger "
                "than the server takes (message_bus.max_message_size); letters over %d bytes are kept shortened, or "
                "without their payloads, from now on", TRIES_OF_LARGE, size, self.name, SAFE_BYTES)

    async def clear(self) -> None:
        """Purges the topic. Raises IggyError."""
        await self._iggy.ensure_connected()
        if await self._iggy.details(self._stream, self._topic) is not None:
            await self._iggy.purge(self._stream, self._topic)

    async def check(self) -> None:
        """Makes the topic where its stream is there. Raises IggyError."""
        await self._iggy.ensure_connected()
        if await self._iggy.has_stream(self._stream):
            try:
                await self._iggy.make_topic(self._stream, self._topic)
            except IggyError as error:
                raise IggyError(f"the topic of dead letters {self.name} can't be made ({error}); make it, or give "
                                "another dead_letters.topic") from None


def stores(config: Config, iggy: IggyConnection, logger: logging.Logger) -> dict[str, list[DeadLetterStore]]:
    """The configured stores, by kind: "iggy" (one topic a stream), "file"."""
    options = config.dead_letters
    found: dict[str, list[DeadLetterStore]] = {}
    if "iggy" in options.stores:
        streams = [options.stream] if options.stream else [one.stream for one in config.subscriptions()]
        found["iggy"] = [TopicStore(iggy, stream, options.topic, logger) for stream in dict.fromkeys(streams)]
    if "file" in options.stores:
        found["file"] = [FileStore(options, logger)]
    return found


async def check_stores(config: Config, logger: logging.Logger) -> None:
    """Looks whether dead letters can be stored, before there are any: files first. Raises IggyError or StoreError."""
    iggy = IggyConnection(config.iggy)
    if config.subscriptions():
        for kind, configured in sorted(stores(config, iggy, logger).items()):
            for store in configured:
                await (retry_on_disconnect(store.check) if kind == "iggy" else store.check())


class Contents(Struct, frozen=True):
    """What a store holds."""

    #: The letters that have been neither replayed nor purged, the oldest first, without their payloads.
    letters: list[DeadLetter]
    #: Records that are neither letters nor tombstones; where the first is, why it is neither, and how it begins.
    bad: int = 0
    example: str = ""


async def read_contents(store: DeadLetterStore) -> Contents:
    """Reads a store, and keeps no payload. Raises IggyError or StoreError."""
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
    """The letters with these ids, whole, so many at a time (fewer where they are large). Raises as `records` does."""
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
    """A letter whose payload was left out, with it as far as Iggy still has the very message. Raises IggyError."""
    if not letter.payload_omitted:
        return letter
    await iggy.ensure_connected()
    source = Subscription(0, letter.stream, letter.topic, 0, iggy.consumer)
    try:
        found = await iggy.poll(source, letter.partition, letter.offset, 1)
    except IggyNotFound:
        return letter
    if not found or found[0].offset() != letter.offset or not is_sha256_of(letter, found[0].payload()):
        return letter
    return letter.with_payload(found[0].payload())
