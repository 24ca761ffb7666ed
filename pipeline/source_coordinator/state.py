"""What a source has sent, kept over restarts: a mark for each measurement, and fingerprints of the overlap. Pure.

It has one form, JSON with a checksum, whether it is kept in a file (`source_state_file`) or in an Iggy topic
(`source_state_topic`). One that is damaged, or another source's, is an error: to begin at zero without a word would
send everything twice.
"""

import base64
import binascii
from datetime import UTC, datetime

import msgspec
import xxhash
from msgspec import Struct

from pipeline.config.source_schema import SourceConfig
from pipeline.errors import PipelineError
from pipeline.points.fingerprints import Known, fingerprints_of, known_from, pack, unpack
from pipeline.points.times import parse_time

#: Of the layout.
VERSION = 1
FORMAT = "pipeline-source-state"


class StateError(PipelineError):
    """A state that can't be used, or stored."""


class Identity(Struct, frozen=True, forbid_unknown_fields=True):
    """What a state belongs to. A server's address is no part of it: it may move."""

    source: str
    #: Bucket or database, with the retention policy if there is one.
    database: str
    #: Hash of the query of one's own; "" without.
    query: str = ""
    #: Of a backfill.
    from_: str = ""
    to: str = ""


class SourceState(Struct):
    """The state of one source. Times in nanoseconds since 1970."""

    identity: Identity
    #: When this source was started for the first time.
    begun: int
    #: measurement -> all before it is in Iggy.
    marks: dict[str, int] = {}
    #: measurement -> points of the overlap.
    prints: dict[str, Known] = {}


class _Stored(Struct, forbid_unknown_fields=True):
    """A state as it is stored."""

    format: str
    version: int
    identity: Identity
    begun: int
    marks: dict[str, int]
    #: base64 of `fingerprints.pack`.
    fingerprints: dict[str, str]
    #: When it was written, for people.
    written: str
    #: xxh64 of the rest, as `_sum` has it.
    checksum: str


def identity_of(config: SourceConfig) -> Identity:
    """What the state of this source is known by."""
    influxdb = config.influxdb
    database = influxdb.database or influxdb.bucket
    if influxdb.retention_policy:
        database += f"/{influxdb.retention_policy}"
    query = xxhash.xxh64_hexdigest(f"{config.query}\0{config.window_align_ms}".encode()) if config.query else ""
    bounds = (config.from_, config.to) if config.to else ("", "")
    return Identity(config.name, database, query, *bounds)


def place_of(config: SourceConfig, name: str) -> str:
    """The file or topic called `name`, or beside it that of a backfill (with `to`), which doesn't move that mark.

    The ending of a backfill's has 32 bytes at most.
    """
    if not config.to:
        return name
    end = datetime.fromtimestamp(parse_time(config.to) / 1e9, UTC).strftime("%Y%m%dT%H%M%S")
    which = xxhash.xxh32_hexdigest(f"{config.from_}\0{config.to}".encode())
    return f"{name}.until-{end}-{which}"


def encode_state(state: SourceState) -> bytes:
    """The state as it is stored: JSON, for people to read, too."""
    stored = _Stored(FORMAT, VERSION, state.identity, state.begun, state.marks,
                     {name: base64.b64encode(pack(fingerprints_of(known))).decode()
                      for name, known in state.prints.items() if known},
                     datetime.now(UTC).isoformat(timespec="seconds"), "")
    stored.checksum = _sum(stored)
    return msgspec.json.format(msgspec.json.encode(stored)) + b"\n"


def decode_state(content: bytes, config: SourceConfig, where: str, option: str, remedy: str) -> SourceState:
    """The state of a source. Raises StateError for what is not whole, or not this source's.

    `where` it is kept, the `option` that says so, and the `remedy` that removes it, for the words of the error.
    """
    advice = f"restore it from a copy, or {remedy} to begin again at `from`"
    here, expected = f"source {config.name}: {where}", identity_of(config)
    try:
        stored = msgspec.json.decode(content, type=_Stored)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise StateError(f"{here} is damaged, or no state ({error}); {advice}") from None
    if stored.format != FORMAT or stored.version != VERSION:
        raise StateError(f"{here} is of format {stored.format} version {stored.version}, not {FORMAT} version "
                         f"{VERSION}; {advice}")
    if stored.checksum != _sum(stored):
        raise StateError(f"{here} is damaged (its checksum is wrong); {advice}")
    if stored.identity != expected:
        raise StateError(f"{here} belongs to {_shown(stored.identity)}, not to {_shown(expected)}; give this source "
                         f"another {option}, or {remedy}")
    try:
        prints = {name: known_from(unpack(base64.b64decode(text, validate=True)))
                  for name, text in stored.fingerprints.items()}
    except (ValueError, binascii.Error) as error:
        raise StateError(f"{here} is damaged ({error}); {advice}") from None
    return SourceState(stored.identity, stored.begun, stored.marks, prints)


def _sum(stored: _Stored) -> str:
    return xxhash.xxh64_hexdigest(msgspec.json.encode(
        (stored.format, stored.version, stored.identity, stored.begun, sorted(stored.marks.items()),
         sorted(stored.fingerprints.items()), stored.written)))


def _shown(identity: Identity) -> str:
    backfill = f", from {identity.from_} to {identity.to}" if identity.to else ""
    return f'source "{identity.source}" of {identity.database}{" (another query)" if identity.query else ""}{backfill}'
