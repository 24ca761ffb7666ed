"""Dead letters as they are kept: what one holds, and the places that hold them. A place is only ever appended to.

What has been replayed or purged is marked by a record of its own behind the letters, so that a topic can hold it, too.
"""

import base64
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec
from msgspec import Struct

from pipeline.errors import PipelineError
from pipeline.iggy import IggyConnection
from pipeline.rotating import RotatingFile
from pipeline.schema import Config

#: Records sent to a topic at once.
RECORDS_AT_ONCE = 1_000


class DeadLetter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message that can't be written. Its payload is text where it is UTF-8, else base64; neither if it is gone."""

    #: When it was given up, RFC 3339.
    time: str
    stream: str
    topic: str
    partition: int
    offset: int
    #: Iggy's time of the message, microseconds since 1970; 0 where the message is gone.
    iggy_timestamp: int = 0
    #: When its producer made it, by the producer's clock, microseconds since 1970; 0 where it did not say.
    origin_timestamp: int = 0
    headers: dict[str, str] = {}
    #: "encode" or "write".
    stage: str
    #: The reason's class, e.g. not_json, type_conflict, too_large.
    reason: str
    #: In words: the database's, or the mapping's.
    detail: str
    #: HTTP status; 0 where the database wasn't asked.
    status: int = 0
    attempts: int = 0
    #: The line that was refused, if there was one.
    line: str = ""
    payload: str | None = None
    payload_base64: str | None = None
    pipeline_version: str

    @property
    def id(self) -> str:
        """Names the letter: where its message is or was, and when it was given up."""
        return f"{self.stream}/{self.topic}/{self.partition}/{self.offset}@{self.time}"

    def payload_bytes(self) -> bytes | None:
        """The message's payload; None when it was gone from Iggy."""
        if self.payload_base64 is not None:
            return base64.b64decode(self.payload_base64)
        return self.payload.encode() if self.payload is not None else None


class Mark(Struct, frozen=True, kw_only=True):
    """Letters that have been dealt with."""

    #: "replayed" or "purged".
    mark: str
    time: str
    ids: tuple[str, ...]


class Place(Protocol):
    """Where dead letters are kept."""

    #: For people: the file, or stream/topic.
    name: str

    async def read(self) -> list[bytes]:
        """All records, the oldest first. Raises IggyError or OSError."""

    async def append(self, records: Sequence[bytes]) -> None:
        """Adds records; returns when they are stored. Raises IggyError or OSError."""

    async def clear(self) -> None:
        """Removes all records. Raises IggyError or OSError."""


class FilePlace:
    """A rotating NDJSON file."""

    def __init__(self, file: RotatingFile, name: str) -> None:
        self.name = name
        self._file = file

    async def read(self) -> list[bytes]:
        """All records, the oldest first. Raises OSError."""
        return [line for path in self._file.files() for line in path.read_bytes().splitlines() if line]

    async def append(self, records: Sequence[bytes]) -> None:
        """Adds records; returns when they are on the disk. Raises OSError."""
        self._file.write(list(records))

    async def clear(self) -> None:
        """Deletes the files. Raises OSError."""
        for path in self._file.files():
            path.unlink()


class TopicPlace:
    """An Iggy topic."""

    def __init__(self, iggy: IggyConnection, stream: str, topic: str) -> None:
        self.name = f"{stream}/{topic}"
        self._iggy = iggy
        self._stream = stream
        self._topic = topic

    async def read(self) -> list[bytes]:
        """All records, the oldest first of each partition; none when there is no such topic. Raises IggyError."""
        await self._iggy.connected()
        return await self._iggy.read_all(self._stream, self._topic)

    async def append(self, records: Sequence[bytes]) -> None:
        """Adds records; returns when Iggy has confirmed them. Raises IggyError."""
        await self._iggy.connected()
        await self._iggy.make_topic(self._stream, self._topic)
        for at in range(0, len(records), RECORDS_AT_ONCE):
            await self._iggy.send(self._stream, self._topic, list(records[at:at + RECORDS_AT_ONCE]))

    async def clear(self) -> None:
        """Purges the topic. Raises IggyError."""
        await self._iggy.connected()
        await self._iggy.purge(self._stream, self._topic)


def places(config: Config, iggy: IggyConnection) -> dict[str, list[Place]]:
    """The configured places, by kind: "iggy" (one topic a stream), "file"."""
    options = config.dead_letters
    found: dict[str, list[Place]] = {}
    if "iggy" in options.to:
        streams = [options.stream] if options.stream else [one.stream for one in config.subscriptions()]
        found["iggy"] = [TopicPlace(iggy, stream, options.topic) for stream in dict.fromkeys(streams)]
    if "file" in options.to:
        file = RotatingFile(options.file, options.max_file_bytes, options.keep_files)
        found["file"] = [FilePlace(file, options.file)]
    return found


def open_letters(records: Iterable[bytes]) -> list[DeadLetter]:
    """The letters among the records that no mark names. Raises PipelineError for what is neither letter nor mark."""
    letters: dict[str, DeadLetter] = {}
    for number, record in enumerate(records):
        try:
            if b'"mark":' in record[:20]:
                for id_ in msgspec.json.decode(record, type=Mark).ids:
                    letters.pop(id_, None)
                continue
            letter = msgspec.json.decode(record, type=DeadLetter)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise PipelineError(f"record {number} is no dead letter of ours ({error}); is this the right topic or file?"
                                ) from None
        letters[letter.id] = letter
    return list(letters.values())


def mark(kind: str, letters: Iterable[DeadLetter]) -> list[bytes]:
    """The record that says that these letters are dealt with; none for no letters."""
    ids = tuple(letter.id for letter in letters)
    return [msgspec.json.encode(Mark(mark=kind, time=datetime.now(UTC).isoformat(), ids=ids))] if ids else []
