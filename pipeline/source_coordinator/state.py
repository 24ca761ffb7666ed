"""The state of a source that survives restarts: watermarks, and fingerprints of the overlap. Pure.

It is stored as JSON with a checksum, in a file (`state_file.py`) or an Iggy topic (`state_topic.py`). A state that is
damaged, or belongs to another source, is an error: starting from the beginning instead would send everything twice.
"""

import base64
import binascii
from datetime import UTC, datetime

import msgspec
import xxhash
from msgspec import Struct, field

from pipeline import __version__
from pipeline.config.source_names import alignment_of
from pipeline.config.source_schema import SourceConfig
from pipeline.errors import PipelineError
from pipeline.points.fingerprints import Known, fingerprints_of, known_from, pack, unpack
from pipeline.points.times import MIN_TIME, parse_time

#: Version of the layout. Releases read their own and every earlier one; a later one is refused, and not taken for
#: damage.
VERSION = 1
FORMAT = "pipeline-source-state"


class StateError(PipelineError):
    """A state cannot be used, or stored."""


class Identity(Struct, frozen=True, forbid_unknown_fields=True):
    """What a state belongs to. The server's address is not part of it, since it may change."""

    source: str
    #: Bucket or database, with the retention policy if there is one.
    database: str
    #: Hash of the custom query; "" without.
    query: str = ""
    #: The bounds of a backfill.
    from_: str = ""
    to: str = ""


class SourceState(Struct):
    """The state of one source. Times in nanoseconds since 1970."""

    identity: Identity
    #: When this source was started for the first time.
    begun: int
    #: Measurement, by the name that the source keeps it under -> watermark: all points before it are in Iggy.
    watermarks: dict[str, int] = {}
    #: Measurement -> fingerprints of points of the overlap.
    fingerprints: dict[str, Known] = {}

    def restart(self, measurement: str, watermark: int | None) -> None:
        """Has a measurement read from `watermark` on; None: from where the source begins. What is known of what was
        read is forgotten, so that it is sent again.
        """
        self.fingerprints.pop(measurement, None)
        if watermark is None:
            self.watermarks.pop(measurement, None)
        else:
            self.watermarks[measurement] = watermark


class StateHead(Struct, frozen=True):
    """What can be said of a stored state without checking it."""

    identity: Identity
    #: When it was written, ISO 8601.
    written: str = ""


class _Header(Struct):
    """What every version begins with."""

    format: str
    version: int


class _Stored(Struct, forbid_unknown_fields=True):
    """A state as it is stored."""

    format: str
    version: int
    identity: Identity
    begun: int
    watermarks: dict[str, int] = field(name="marks")
    #: base64 of `fingerprints.pack`.
    fingerprints: dict[str, str]
    #: When it was written, for people.
    written: str
    #: xxh64 of the rest, by `_sum`.
    checksum: str


def identity_of(config: SourceConfig) -> Identity:
    """The identity of the state of this source."""
    influxdb = config.influxdb
    database = influxdb.database or influxdb.bucket
    if influxdb.retention_policy:
        database += f"/{influxdb.retention_policy}"
    if config.retention_policies:
        database += ", by retention policy"
    zone = f"\0{config.window_align_zone}" if config.window_align_zone else ""
    query = xxhash.xxh64_hexdigest(f"{config.query}\0{config.window_align_ms}{zone}".encode()) if config.query else ""
    bounds = (config.from_, config.to) if config.to else ("", "")
    return Identity(config.name, database, query, *bounds)


def begin_of(config: SourceConfig, begun: int) -> int:
    """Where a measurement begins that has no watermark in the state; `begun`: of the state. Nanoseconds since 1970."""
    start = {"earliest": MIN_TIME, "now": begun}.get(config.from_)
    start = parse_time(config.from_) if start is None else start
    return alignment_of(config).floor(start) if config.window_align_ms else start


def head_of(content: bytes) -> StateHead | None:
    """What a state belongs to; None for one that is damaged or of a later release."""
    try:
        return msgspec.json.decode(content, type=StateHead)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        return None


def state_name(config: SourceConfig, name: str) -> str:
    """The file or topic for the state: `name`, and for a backfill (with `to`) another beside it, so that it does not
    move the watermarks of `name`.

    The suffix for a backfill has at most 32 bytes.
    """
    if not config.to:
        return name
    end = datetime.fromtimestamp(parse_time(config.to) / 1e9, UTC).strftime("%Y%m%dT%H%M%S")
    which = xxhash.xxh32_hexdigest(f"{config.from_}\0{config.to}".encode())
    return f"{name}.until-{end}-{which}"


def encode_state(state: SourceState) -> bytes:
    """The state as indented JSON."""
    stored = _Stored(FORMAT, VERSION, state.identity, state.begun, state.watermarks,
                     {name: base64.b64encode(pack(fingerprints_of(known))).decode()
                      for name, known in state.fingerprints.items() if known},
                     datetime.now(UTC).isoformat(timespec="seconds"), "")
    stored.checksum = _sum(stored)
    return msgspec.json.format(msgspec.json.encode(stored)) + b"\n"


def decode_state(content: bytes, config: SourceConfig, where: str, option: str, remedy: str) -> SourceState:
    """The state of a source. Raises StateError when it is damaged, or belongs to another source.

    For the error: `where` it is stored, the `option` for that, and the `remedy` that removes it.
    """
    advice = f"restore it from a copy, or {remedy} to start again at `from`"
    here, expected = f"source {config.name}: {where}", identity_of(config)
    _check_version(content, here, advice)
    try:
        stored = msgspec.json.decode(content, type=_Stored)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise StateError(f"{here} is damaged, or not a state ({error}); {advice}") from None
    if stored.format != FORMAT or stored.version != VERSION:
        raise StateError(f"{here} is of format {stored.format} version {stored.version}, not {FORMAT} version "
                         f"{VERSION}; {advice}")
    if stored.checksum != _sum(stored):
        raise StateError(f"{here} is damaged (its checksum is wrong); {advice}")
    if stored.identity != expected:
        raise StateError(f"{here} belongs to {_shown(stored.identity)}, not to {_shown(expected)}; give this source "
                         f"another {option}, or {remedy}")
    try:
        fingerprints = {name: known_from(unpack(base64.b64decode(text, validate=True)))
                  for name, text in stored.fingerprints.items()}
    except (ValueError, binascii.Error) as error:
        raise StateError(f"{here} is damaged ({error}); {advice}") from None
    return SourceState(stored.identity, stored.begun, stored.watermarks, fingerprints)


def _check_version(content: bytes, here: str, advice: str) -> None:
    """Raises StateError for the state of a later release, whose other fields may be any."""
    try:
        header = msgspec.json.decode(content, type=_Header)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        return  # it is damaged, and reported as such
    if header.format == FORMAT and header.version > VERSION:
        raise StateError(f"{here} is of format {FORMAT} version {header.version}, not {VERSION}: it was written by a "
                         f"later release than this one, {__version__}; install that release again, or {advice}")


def _sum(stored: _Stored) -> str:
    return xxhash.xxh64_hexdigest(msgspec.json.encode(
        (stored.format, stored.version, stored.identity, stored.begun, sorted(stored.watermarks.items()),
         sorted(stored.fingerprints.items()), stored.written)))


def _shown(identity: Identity) -> str:
    backfill = f", from {identity.from_} to {identity.to}" if identity.to else ""
    return f'source "{identity.source}" of {identity.database}{" (another query)" if identity.query else ""}{backfill}'
