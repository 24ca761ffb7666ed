"""What a source has sent, kept over restarts: a mark for each measurement, and fingerprints of the overlap.

The file is replaced as a whole, and never half: written beside, synced, renamed, and the folder synced. One that is
damaged, or another source's, is an error: to begin at zero without a word would send everything twice.
"""

import base64
import binascii
import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import xxhash
from msgspec import Struct

from pipeline.errors import PipelineError
from pipeline.lock import Locks
from pipeline.schema import Config
from pipeline.source_schema import SourceConfig
from stages.source.fingerprints import Print, pack, unpack
from stages.source.times import parse_time

#: Of the file's layout.
VERSION = 1
FORMAT = "pipeline-source-state"


class StateError(PipelineError):
    """A state file that can't be used, or written."""


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
    prints: dict[str, list[Print]] = {}


class _File(Struct, forbid_unknown_fields=True):
    """The file, JSON."""

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
    query = xxhash.xxh64_hexdigest(f"{config.query}\0{config.align_ms}".encode()) if config.query else ""
    bounds = (config.from_, config.to) if config.to else ("", "")
    return Identity(config.name, database, query, *bounds)


def state_path(config: SourceConfig) -> Path:
    """The state's file. A backfill (with `to`) has one of its own beside, so that it doesn't move the other's mark."""
    if not config.to:
        return Path(config.state_file)
    end = datetime.fromtimestamp(parse_time(config.to) / 1e9, UTC).strftime("%Y%m%dT%H%M%S")
    which = xxhash.xxh32_hexdigest(f"{config.from_}\0{config.to}".encode())
    return Path(f"{config.state_file}.until-{end}-{which}")


def load_state(config: SourceConfig, now: int) -> SourceState:
    """The stored state; a new one, begun at `now`, when there is no file. Raises StateError."""
    path, expected = state_path(config), identity_of(config)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return SourceState(expected, now)
    except OSError as error:
        raise StateError(f"source {config.name}: {path} can't be read: {error.strerror}") from None
    advice = "restore it from a copy, or move it away to begin again at `from`"
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise StateError(f"source {config.name}: {path} is damaged, or no state ({error}); {advice}") from None
    if file.format != FORMAT or file.version != VERSION:
        raise StateError(f"source {config.name}: {path} is of format {file.format} version {file.version}, not "
                         f"{FORMAT} version {VERSION}; {advice}")
    if file.checksum != _sum(file):
        raise StateError(f"source {config.name}: {path} is damaged (its checksum is wrong); {advice}")
    if file.identity != expected:
        raise StateError(f"source {config.name}: {path} belongs to {_shown(file.identity)}, not to "
                         f"{_shown(expected)}; give this source another state_file, or move that one away")
    try:
        prints = {name: unpack(base64.b64decode(text, validate=True)) for name, text in file.fingerprints.items()}
    except (ValueError, binascii.Error) as error:
        raise StateError(f"source {config.name}: {path} is damaged ({error}); {advice}") from None
    return SourceState(file.identity, file.begun, file.marks, prints)


def save_state(config: SourceConfig, state: SourceState) -> None:
    """Stores a state for good. Raises StateError; then the old one is still there."""
    path = state_path(config)
    file = _File(FORMAT, VERSION, state.identity, state.begun, state.marks,
                 {name: base64.b64encode(pack(prints)).decode() for name, prints in state.prints.items() if prints},
                 datetime.now(UTC).isoformat(timespec="seconds"), "")
    file.checksum = _sum(file)
    beside = path.with_name(path.name + ".new")
    try:
        with open(beside, "wb") as handle:
            handle.write(msgspec.json.format(msgspec.json.encode(file)) + b"\n")
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StateError(f"source {config.name}: {path} can't be written: {error.strerror}") from None


def lock_states(locks: Locks, config: Config) -> None:
    """Keeps a second pipeline away from the same state files. Raises `lock.Locked`."""
    for source in config.source:
        path = state_path(source)
        locks.take(path.with_name(path.name + ".lock"), f"uses {path} already; stop it, or give another state_file")


def _sum(file: _File) -> str:
    return xxhash.xxh64_hexdigest(msgspec.json.encode(
        (file.format, file.version, file.identity, file.begun, sorted(file.marks.items()),
         sorted(file.fingerprints.items()), file.written)))


def _shown(identity: Identity) -> str:
    backfill = f", from {identity.from_} to {identity.to}" if identity.to else ""
    return f'source "{identity.source}" of {identity.database}{" (another query)" if identity.query else ""}{backfill}'
