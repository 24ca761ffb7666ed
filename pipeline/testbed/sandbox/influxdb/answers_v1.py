"""The answers of InfluxDB 1.6.7, as recorded from Debian's package."""

from pipeline.testbed.sandbox.influxdb import answers, query_influxql
from pipeline.testbed.sandbox.influxdb.answers import NotGzip, Server
from pipeline.testbed.sandbox.influxdb.http1 import Request, Response
from pipeline.testbed.sandbox.influxdb.store import Batch, Bucket, Drop, Stored

VERSION = "1.6.7~rc0"
#: `max-body-size` of `[http]`.
DEFAULT_MAX_BODY_BYTES = 25_000_000
#: Longest text that goes to the header with the error, bytes.
MAX_ERROR_HEADER_BYTES = 1_024
CONSISTENCIES = ("", "all", "any", "one", "quorum")
_HEADERS = (("X-Influxdb-Build", "OSS"), ("X-Influxdb-Version", VERSION))
_JSON = (("Content-Type", "application/json"), *_HEADERS)
_TEXT = (("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff"), *_HEADERS)
_REASONS = {401: "authorization failed", 413: "Request Entity Too Large", 429: "too many requests",
            500: "engine: error", 503: "Service Unavailable", 504: "timeout"}


class AnswersV1:
    """InfluxDB 1.6.7."""

    write_paths = frozenset({"/write"})
    query_paths = frozenset({"/query"})

    def __init__(self, server: Server) -> None:
        self._server = server

    def answer(self, request: Request, now: int) -> Response:
        if request.path == "/ping" and request.method in ("GET", "HEAD"):
            return Response(204, headers=_JSON)
        if request.path == "/query" and request.method in ("GET", "POST"):
            return self._unauthorized(request) or query_influxql.respond(request, self._server.buckets, _JSON)
        if request.path != "/write":
            return Response(404, b"404 page not found\n", _TEXT)
        if request.method == "OPTIONS":
            return Response(204, headers=_JSON)
        if request.method != "POST":
            return Response(405, b"Method Not Allowed\n", (("Allow", "OPTIONS, POST"), *_TEXT))
        return self._unauthorized(request) or self._write(request, now)

    def failure(self, status: int) -> Response:
        return _error(status, _REASONS.get(status, "error"))

    def _unauthorized(self, request: Request) -> Response | None:
        identity = self._server.identity
        if not identity.password:
            return None
        given = answers.user_and_password(request)
        if given == (identity.username, identity.password):
            return None
        reason = "unable to parse authentication credentials" if given is None else "authorization failed"
        return Response(401, answers.go_json({"error": reason}) + b"\n",
                        (*_JSON, ("Www-Authenticate", 'Basic realm="InfluxDB"')))

    def _write(self, request: Request, now: int) -> Response:
        query = request.query
        if not query.get("db"):
            return _error(400, "database is required")
        database = self._server.buckets.get(query["db"])
        if database is None:
            return _error(404, f'database not found: "{query["db"]}"')
        if query.get("consistency", "").lower() not in CONSISTENCIES:
            return _error(400, "invalid consistency level")
        limit = self._server.max_body_bytes
        limit = DEFAULT_MAX_BODY_BYTES if limit is None else limit
        if limit and len(request.body) > limit:
            return _error(413, "Request Entity Too Large", close=True)
        try:
            body = answers.inflate(request)
        except NotGzip as error:
            return _error(400, str(error))
        precision = query.get("precision", "n")
        unit = answers.UNITS[precision] if precision in ("u", "ms", "s", "m", "h") else 1
        bucket = database.policy(query.get("rp", "")) or database
        batch = bucket.parse(body, unit, answers.truncated(now, unit), unsigned=False)
        malformed = "\n".join(f"unable to parse '{bad.line}': {bad.reason}" for bad in batch.bad)
        if malformed and not batch.entries:
            return _error(400, malformed)
        if batch.entries and database.policy(query.get("rp", "")) is None:
            return _error(500, f"retention policy not found: {query['rp']}")
        return _stored(bucket, batch, malformed, now)


def _stored(bucket: Bucket, batch: Batch, malformed: str, now: int) -> Response:
    stored = bucket.store(batch, now, united=True)
    if stored.refused:
        return _error(400, "field type conflict")
    partial = first_drop(stored)
    if partial:
        return _error(400, partial)
    if stored.late:
        return _error(400, f"partial write: points beyond retention policy dropped={len(stored.late)}")
    if malformed:
        return _error(400, f"partial write: {malformed} dropped=0")
    return Response(204, headers=_JSON)


def first_drop(stored: Stored) -> str:
    """The storage engine's message for lines it dropped, of which it names the first; InfluxDB 2 has the same."""
    if not stored.dropped:
        return ""
    return f"partial write: {_reason(stored.dropped[0])} dropped={len(stored.dropped)}"


def _reason(drop: Drop) -> str:
    measurement = drop.entry[0].measurement.name
    if drop.kind == "time_tag":
        return f'invalid tag key: input tag "time" on measurement "{measurement}" is invalid'
    if drop.kind == "time_field":
        return f'invalid field name: input field "time" on measurement "{measurement}" is invalid'
    return (f'field type conflict: input field "{drop.field}" on measurement "{measurement}" is type {drop.type}, '
            f"already exists as type {drop.existing}")


def _error(status: int, reason: str, close: bool = False) -> Response:
    shown = reason.encode("utf-8", "surrogateescape")[:MAX_ERROR_HEADER_BYTES].decode("utf-8", "surrogateescape")
    headers = (*_JSON, ("X-Influxdb-Error", shown.replace("\n", " ").replace("\r", " ")))
    return Response(status, answers.go_json({"error": reason}) + b"\n", headers, close)
