"""The format of dead letters: the fields of a record, its greatest size, and the ids. Pure.

Stores are append-only, so that a topic can be one. Letters that were replayed or purged are marked by a later record, a
tombstone. Others may write to a topic or a file: a record that is neither is not an error, but counted and skipped.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

#: Longest name of a stream, topic or sink in a letter, and longest time, characters. Source: Iggy's identifiers.
Name = Annotated[str, Meta(max_length=255)]
Time = Annotated[str, Meta(max_length=64)]
#: Valid partitions and offsets in requests to Iggy.
Partition = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]
#: Version of the layout of letters and tombstones. Records of a later one are counted and skipped.
LETTER_VERSION = 1
#: Characters of the line and of the detail in a shortened letter.
SHORTENED_CHARACTERS = 500
#: Hexadecimal digits of a letter's short id, and of a prefix of it at least.
SHORT_ID_DIGITS, MIN_ID_DIGITS = 10, 4
#: Bytes that JSON writes as two characters, and those that it may write as six.
_TWO, _SIX = b'"\\', bytes(range(32))


class DeadLetter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message that cannot be written. Its payload is text if it is UTF-8, else base64; neither if it was deleted."""

    #: When it was rejected, RFC 3339.
    time: Time
    stream: Name
    topic: Name
    partition: Partition
    offset: Offset
    #: Iggy's time of the message, microseconds since 1970; 0 if the message was deleted.
    iggy_timestamp: int = 0
    #: Time of origin that the producer has set, microseconds since 1970; 0 if it has not.
    origin_timestamp: int = 0
    headers: dict[str, str] = {}
    #: Name of the sink that could not write it; "" in letters of earlier versions.
    sink: Name = ""
    #: "encode" or "write".
    stage: str
    #: Class of the reason, e.g. not_json, type_conflict, too_large.
    reason: str
    #: Message of the database or the mapping.
    detail: str
    #: HTTP status; 0 if no answer was received.
    status: int = 0
    attempts: int = 0
    #: The line that was refused, if there was one.
    line: str = ""
    payload: str | None = None
    payload_base64: str | None = None
    #: The payload is left out because the letter would be too large for its store: its length in bytes, and digest.
    payload_omitted: bool = False
    payload_length: int = 0
    payload_sha256: str = ""
    #: For the same reason, line and detail are cut to `SHORTENED_CHARACTERS` and headers are left out.
    shortened: bool = False
    pipeline_version: str
    #: `LETTER_VERSION` of the release that wrote it; 0 before there was one.
    version: int = 0

    @property
    def id(self) -> str:
        """Identifies the letter: position of its message, and time of the reject."""
        return f"{self.stream}/{self.topic}/{self.partition}/{self.offset}@{self.time}"

    @property
    def at(self) -> datetime:
        """`time` as a datetime. Raises ValueError in a letter that `decode_record` has not checked."""
        at = datetime.fromisoformat(self.time)
        if at.tzinfo is None:
            raise ValueError("a time without its offset from UTC")
        return at

    def payload_bytes(self) -> bytes | None:
        """The message's payload; None if it was deleted from Iggy, or is left out."""
        if self.payload_base64 is not None:
            return base64.b64decode(self.payload_base64, validate=True)
        return self.payload.encode() if self.payload is not None else None

    def with_payload(self, payload: bytes) -> "DeadLetter":
        """The letter with a payload that was left out, as base64."""
        return msgspec.structs.replace(self, payload_base64=base64.b64encode(payload).decode())

    def without_payload(self) -> "DeadLetter":
        """The letter without its payload, for listings."""
        return msgspec.structs.replace(self, payload=None, payload_base64=None)


class Tombstone(Struct, frozen=True, kw_only=True):
    """Marks letters as replayed or purged."""

    #: "replayed" or "purged".
    mark: str
    time: str
    ids: tuple[str, ...]
    #: As in a letter.
    version: int = 0


_letter = msgspec.json.Decoder(DeadLetter)
_tombstone = msgspec.json.Decoder(Tombstone)


def decode_record(content: bytes) -> DeadLetter | Tombstone:
    """The letter or tombstone in a record. Raises ValueError with the reason why it is neither."""
    try:
        try:
            letter = _letter.decode(content)
        except msgspec.ValidationError as error:
            return _decoded_tombstone(content, error)
        _check_version(letter)
        _ = letter.at
        if letter.payload_base64 is not None:
            base64.b64decode(letter.payload_base64, validate=True)
        return letter
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _decoded_tombstone(content: bytes, otherwise: msgspec.ValidationError) -> Tombstone:
    try:
        tombstone = _tombstone.decode(content)
    except msgspec.ValidationError:
        raise otherwise from None
    _check_version(tombstone)
    return tombstone


def _check_version(record: DeadLetter | Tombstone) -> None:
    """Raises ValueError for a record of a later release."""
    if record.version > LETTER_VERSION:
        raise ValueError(f"written by a later release (layout {record.version}; this release knows {LETTER_VERSION})")


def encode_letter(letter: DeadLetter, payload: bytes | None, max_bytes: int) -> bytes:
    """The record of a letter and its message's payload, of at most `max_bytes` (at least 10,000).

    It has the first of these forms that fits: with the payload as text; as base64; either with a shortened line;
    without the payload, but with its length and digest; and that shortened.
    """
    for form in (letter, _shortened(letter)):
        size = len(msgspec.json.encode(form))
        if payload is None and size <= max_bytes:
            return msgspec.json.encode(form)
        with_payload = _with_payload(form, payload, max_bytes - size) if payload is not None else None
        if with_payload is not None and len(record := msgspec.json.encode(with_payload)) <= max_bytes:
            return record
    if payload is not None:
        letter = msgspec.structs.replace(letter, payload_omitted=True, payload_length=len(payload),
                                         payload_sha256=hashlib.sha256(payload).hexdigest())
    record = msgspec.json.encode(letter)
    return record if len(record) <= max_bytes else msgspec.json.encode(_shortened(letter))


def _shortened(letter: DeadLetter) -> DeadLetter:
    return msgspec.structs.replace(letter, line=letter.line[:SHORTENED_CHARACTERS], headers={}, shortened=True,
                                   detail=letter.detail[:SHORTENED_CHARACTERS])


def _with_payload(letter: DeadLetter, payload: bytes, room: int) -> DeadLetter | None:
    """The letter with its payload in about `room` bytes; None if it is larger in every form."""
    if json_size(payload) <= room:
        try:
            return msgspec.structs.replace(letter, payload=payload.decode())
        except UnicodeDecodeError:
            pass
    if len(payload) // 3 * 4 <= room:
        return msgspec.structs.replace(letter, payload_base64=base64.b64encode(payload).decode())
    return None


def json_size(text: bytes) -> int:
    """Bytes of UTF-8 text as a JSON string, at most, without its quotes: `\x01` takes six."""
    return len(text) + sum(map(text.count, (_TWO[:1], _TWO[1:]))) + 5 * (len(text) - len(text.translate(None, _SIX)))


def is_sha256_of(letter: DeadLetter, payload: bytes) -> bool:
    """Whether `payload` is the one that was left out of the letter."""
    return letter.payload_length == len(payload) and letter.payload_sha256 == hashlib.sha256(payload).hexdigest()


def tombstones(kind: str, ids: Iterable[str], max_bytes: int) -> Iterator[bytes]:
    """Tombstones, each of at most about `max_bytes`, that mark these letters as `kind`: "replayed" or "purged"."""
    time = datetime.now(UTC).isoformat()
    some: list[str] = []
    size = 0
    for id_ in ids:
        length = 3 + len(msgspec.json.encode(id_))
        if some and size + length > max_bytes - 200:
            yield _encoded_tombstone(kind, time, some)
            some, size = [], 0
        some.append(id_)
        size += length
    if some:
        yield _encoded_tombstone(kind, time, some)


def _encoded_tombstone(kind: str, time: str, ids: list[str]) -> bytes:
    return msgspec.json.encode(Tombstone(mark=kind, time=time, ids=tuple(ids), version=LETTER_VERSION))


def short_id(id_: str) -> str:
    """The first hexadecimal digits of an id's digest: a short form that fits into any terminal."""
    return _digest(id_)[:SHORT_ID_DIGITS]


def matching_ids(ids: Iterable[str], given: str) -> list[str]:
    """The ids that match `given`: equal to it; of the message stream/topic/partition/offset; or with it as a prefix of
    the id or of its digest. The first of these rules that matches any id is used.
    """
    known = list(ids)
    given = given.strip().rstrip("….")
    if given in known:
        return [given]
    of_message = [id_ for id_ in known if id_.startswith(f"{given}@")]
    if of_message:
        return of_message
    return [id_ for id_ in known if id_.startswith(given)
            or len(given) >= MIN_ID_DIGITS and _digest(id_).startswith(given.lower())]


def _digest(id_: str) -> str:
    return hashlib.sha256(id_.encode("utf-8", "surrogatepass")).hexdigest()
