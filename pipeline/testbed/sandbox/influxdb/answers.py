"""What the answers of all flavours of InfluxDB share: who may write, compressed bodies, JSON as Go writes it. Pure."""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal, Protocol

from isal import isal_zlib
from msgspec import Struct

from pipeline.testbed.sandbox.influxdb.http1 import Request, Response
from pipeline.testbed.sandbox.influxdb.store import Bucket

Flavour = Literal["v1", "v2", "v3", "questdb"]

#: Nanoseconds of each spelling of a precision, all flavours together; each allows only some.
UNITS = {"n": 1, "ns": 1, "nanosecond": 1, "u": 1_000, "us": 1_000, "microsecond": 1_000, "ms": 1_000_000,
         "millisecond": 1_000_000, "s": 1_000_000_000, "second": 1_000_000_000, "m": 60_000_000_000,
         "h": 3_600_000_000_000}
_HTML = re.compile("[<>&\u2028\u2029]")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_GZIP_HEADER_BYTES = 10
#: 32 KiB of window, 16 more for the gzip header: https://zlib.net/manual.html
_GZIP_WINDOW_BITS = 31
#: The same when compressing.
_GZIP_MEMBER = 31
#: Its stub has it for an instance.
_IsalError: type[Exception] = isal_zlib.error  # type: ignore[assignment]


class Identity(Struct):
    """Whose server it is. InfluxDB 1 has no authentication while `password` is empty."""

    org: str = "sandbox"
    bucket: str = "sandbox"
    token: str = "sandbox-token"
    username: str = "sandbox"
    password: str = ""


class Server(Struct):
    """What a flavour answers from: the identity, the buckets, the clock and the limits."""

    identity: Identity
    buckets: dict[str, Bucket]
    #: Largest body in bytes; 0: none, None: the flavour's default.
    max_body_bytes: int | None = None
    retention_seconds: int = 0


class FlavourAnswers(Protocol):
    """One flavour of InfluxDB."""

    #: Paths that take writes here, and queries.
    write_paths: frozenset[str]
    query_paths: frozenset[str]

    def answer(self, request: Request, now: int) -> Response:
        """The answer to anything, `now` in nanoseconds since 1970. Writes change the buckets."""

    def failure(self, status: int) -> Response:
        """This flavour's body for the status of an injected failure."""


class NotGzip(Exception):
    """The body is declared as gzip and isn't. The text is the message of Go's gzip reader."""


def inflate(request: Request) -> bytes:
    """The body, uncompressed. Raises NotGzip."""
    body = request.body
    if request.headers.get("content-encoding", "").lower() != "gzip":
        return body
    parts = []
    while True:  # a gzip file may hold several streams
        if len(body) < _GZIP_HEADER_BYTES:
            raise NotGzip("unexpected EOF" if body else "EOF")
        if body[:3] != b"\x1f\x8b\x08":
            raise NotGzip("gzip: invalid header")
        stream = isal_zlib.decompressobj(wbits=_GZIP_WINDOW_BITS)
        try:
            parts.append(stream.decompress(body))
        except _IsalError as error:
            wrong_sum = "checksum" in str(error).lower()
            raise NotGzip("gzip: invalid checksum" if wrong_sum else "flate: corrupt input") from None
        if not stream.eof:
            raise NotGzip("unexpected EOF")
        body = stream.unused_data
        if not body:
            return parts[0] if len(parts) == 1 else b"".join(parts)


def gzipped(body: bytes) -> bytes:
    """A body as a gzip member."""
    return isal_zlib.compress(body, 1, _GZIP_MEMBER)


def gzipped_pieces(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A body that comes piece by piece as a gzip member."""
    packer = isal_zlib.compressobj(1, wbits=_GZIP_MEMBER)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def bearer(request: Request) -> str:
    """The token of `Authorization: Token ...` or `Bearer ...`; empty when there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() in ("token", "bearer") else ""


def user_and_password(request: Request) -> tuple[str, str] | None:
    """`u` and `p` of the query, or of basic authentication; None when there is neither."""
    if "u" in request.query or "p" in request.query:
        return request.query.get("u", ""), request.query.get("p", "")
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user, password


def go_json(value: object) -> bytes:
    """JSON as Go's `encoding/json` writes it: compact, `<`, `>` and `&` escaped, U+FFFD for what isn't UTF-8."""
    text = _NOT_UTF8.sub(r"\\ufffd", json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    return _HTML.sub(lambda found: f"\\u{ord(found.group()):04x}", text).encode()


def go_time(nanoseconds: int) -> str:
    """A time as Go prints RFC 3339 with nanoseconds: no zeros at the end of the fraction. UTC."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    shown = f".{fraction:09d}".rstrip("0").rstrip(".")
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + shown + "Z"


def go_duration(seconds: int) -> str:
    """A duration of whole seconds as Go prints it: `1h0m0s`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


def truncated(now: int, unit: int) -> int:
    """The time of points without one: now, cut to the precision."""
    return now - now % unit
