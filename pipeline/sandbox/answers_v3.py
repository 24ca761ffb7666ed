"""The answers of InfluxDB 3 Core, as its documentation and the tests in its source have them; none was recorded.

What is a line and what isn't is judged as by InfluxDB 2, but for backslashes and tabs (`lines_v3`); the two differ in
more corners: InfluxDB 3 takes `f=1,`, for one. Newer versions are said to cut `original_line` to 20 bytes; the
documentation shows it whole, and so does this.
"""

import json
import re

from pipeline.sandbox import answers, lines_v3, query_v3
from pipeline.sandbox.answers import NotGzip, Server
from pipeline.sandbox.http1 import Request, Response
from pipeline.sandbox.query import ONLY, NotUnderstood, answered
from pipeline.sandbox.store import BadLine, Bucket, Drop

VERSION = "3.0.0"
WRITE = "/api/v3/write_lp"
#: `--max-http-request-size`, of the uncompressed body.
DEFAULT_MAX_BODY_BYTES = 10_485_760
#: How much of the rest of a line InfluxDB 3 shows, characters.
SHOWN_CHARACTERS = 10
#: With precision "auto", a time below each of these (absolute) is in that unit: nanoseconds of the unit.
_AUTO_LIMITS = ((5_000_000_000, 1_000_000_000), (5_000_000_000_000, 1_000_000), (5_000_000_000_000_000, 1_000))
_PRECISIONS = {WRITE: ("auto", "second", "millisecond", "microsecond", "nanosecond"),
               "/api/v2/write": ("ns", "n", "us", "u", "ms", "s"), "/write": ("ns", "n", "us", "u", "ms", "s")}
_HEADERS = (("X-Influxdb-Version", VERSION), ("X-Influxdb-Build", "Core"))
_JSON = (("Content-Type", "application/json"), *_HEADERS)
_TYPES = {"float": "float", "integer": "integer", "unsigned": "uinteger", "string": "string", "boolean": "boolean"}
_REASONS = {401: "the request was not authenticated", 404: "not found", 413: "max request size exceeded",
            429: "too many requests", 500: "internal error", 503: "service unavailable"}


class Refusal(Exception):
    """A query is refused, in `words`, as HTTP does with `status`."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class AnswersV3:
    """InfluxDB 3 Core."""

    write_paths = frozenset(_PRECISIONS)
    query_paths = frozenset({"/api/v3/query_sql", "/api/v3/query_influxql"})

    def __init__(self, server: Server) -> None:
        self._server = server

    def answer(self, request: Request, now: int) -> Response:
        """See `FlavourAnswers`."""
        if request.path in self.write_paths:
            if request.method != "POST":
                return Response(405, b"method not allowed", _HEADERS)
            return self._unauthorized(request) or self._write(request, now)
        if request.path in self.query_paths and request.method == "POST":
            return self._unauthorized(request) or self._query(request)
        if request.path == "/health":
            return Response(200, b"OK", _HEADERS)
        if request.path == "/ping":
            value = {"version": VERSION, "revision": "sandbox", "process_id": "00000000-0000-0000-0000-000000000000"}
            return Response(200, json.dumps(value).encode(), _JSON)
        return Response(404, b"not found", _HEADERS)

    def failure(self, status: int) -> Response:
        """See `FlavourAnswers`."""
        return _error(status, _REASONS.get(status, "error"))

    def _unauthorized(self, request: Request) -> Response | None:
        given = answers.bearer(request) or (answers.user_and_password(request) or ("", ""))[1]
        return None if given == self._server.identity.token else _error(401, _REASONS[401])

    def _query(self, request: Request) -> Response:
        try:
            asked = json.loads(request.body)
            name, text, form = str(asked["db"]), str(asked["q"]), asked.get("format")
        except (ValueError, KeyError, TypeError):
            return _error(400, "serde json error: missing field")
        if form != "jsonl":
            return _error(400, f"only the format jsonl is understood; {ONLY}")
        try:
            answer = self._run(name, text, request.path.rpartition("_")[2])
        except Refusal as error:
            return _error(error.status, f"query error: {error.words}")
        return answered(request, answer.json_lines(), (("Content-Type", "application/jsonl"), *_HEADERS))

    def flight(self, request: Request) -> query_v3.Answer:
        """The answer of the Flight service's DoGet, whose ticket is the request's body. Raises Refusal.

        Source: influxdata/influxdb, `core/service_grpc_flight/src/request.rs` and `lib.rs`, for JSON and for the words.
        """
        if self._unauthorized(request):
            raise Refusal(401, "Unauthenticated")
        try:
            asked = json.loads(request.body)
            name = next(str(asked[key]) for key in ("database", "namespace_name", "bucket", "bucket-name")
                        if key in asked)
            text, language = str(asked["sql_query"]), asked.get("query_type", "sql")
        except (ValueError, KeyError, TypeError, StopIteration):
            raise Refusal(400, "Invalid ticket. Error: Invalid ticket") from None
        if language not in ("sql", "influxql"):
            raise Refusal(400, "Invalid ticket. Error: Invalid ticket")
        return self._run(name, text, language)

    def _run(self, name: str, text: str, language: str) -> query_v3.Answer:
        bucket = self._server.buckets.get(name)
        if bucket is None:
            raise Refusal(404, f"database not found: {name}")
        try:
            return query_v3.run(bucket, text, language)
        except query_v3.NoTable as error:
            raise Refusal(400, f"error while planning query: table 'public.iox.{error}' not found") from None
        except NotUnderstood as error:
            raise Refusal(400, str(error)) from None

    def _write(self, request: Request, now: int) -> Response:
        query = request.query
        name = query.get("bucket" if request.path == "/api/v2/write" else "db", "")
        if not name:
            return _error(400, "db name cannot be empty")
        precision = query.get("precision") or ("auto" if request.path == WRITE else "ns")
        if precision not in _PRECISIONS[request.path]:
            expected = ", ".join(f"`{one}`" for one in _PRECISIONS[request.path])
            return Response(400, f"serde error: unknown variant `{precision}`, expected one of {expected}".encode(),
                            _HEADERS)
        for flag in ("accept_partial", "no_sync"):
            if query.get(flag, "true") not in ("true", "false"):
                return Response(400, b"serde error: provided string was not `true` or `false`", _HEADERS)
        try:
            body = answers.inflate(request)
        except NotGzip as error:
            return _error(400, f"error decoding gzip stream: {error}")
        limit = self._server.max_body_bytes
        limit = DEFAULT_MAX_BODY_BYTES if limit is None else limit
        if limit and len(body) > limit:
            return _error(413, f"max request size ({limit} bytes) exceeded")
        bucket = self._server.buckets.get(name)
        if bucket is None:  # Core makes a database at the first write to it
            bucket = self._server.buckets[name] = Bucket(name, self._server.retention_seconds)
        unit = _auto_unit(body) if precision == "auto" else answers.UNITS[precision]
        return _stored(bucket, body, unit, now, query.get("accept_partial", "true") == "true")


def _stored(bucket: Bucket, body: bytes, unit: int, now: int, partial: bool) -> Response:
    batch = bucket.parse(body, unit, now, read=lines_v3.parse_line)
    rejected = [(bad.number, bad.line, _parse_reason(bad)) for bad in batch.bad]
    if partial or not rejected:
        stored = bucket.store(batch, now, atomic=not partial)
        rejected += [(drop.entry[4], _rendered(drop, unit), _drop_reason(drop)) for drop in stored.dropped]
    if not rejected:
        return Response(204, headers=_HEADERS)
    data = [{"original_line": line, "line_number": number, "error_message": reason}
            for number, line, reason in sorted(rejected)]
    if partial:
        return _error(400, "partial write of line protocol occurred", data)
    return _error(400, "parsing failed for write_lp endpoint", data[0])


def _auto_unit(body: bytes) -> int:
    """The unit that "auto" guesses, nanoseconds: from the size of the first time, where InfluxDB 3 guesses for each."""
    found = re.search(rb" (-?\d+) *(?:\n|$)", body)
    time = abs(int(found.group(1))) if found else 0
    return next((unit for limit, unit in _AUTO_LIMITS if time < limit), 1)


def _parse_reason(bad: BadLine) -> str:
    """InfluxDB 3's words for what InfluxDB 2 calls `bad.reason`, as near as that can tell."""
    key, _, rest = bad.line.partition(" ")
    if bad.reason == "missing tag value":
        return f"Expected tag value, got `{_shown(' ' + rest)}`"
    if bad.reason == "missing tag key":
        return f"Expected tag key, got `{_shown(key.partition(',')[2] + ' ' + rest)}`"
    if bad.reason in ("bad timestamp", "point is invalid"):
        return f"Could not parse entire line. Found trailing content: `{_shown(' ' + rest.rpartition(' ')[2])}`"
    return "No fields were provided"


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _drop_reason(drop: Drop) -> str:
    if drop.kind != "conflict":
        return "'time' is a reserved column"
    return (f"invalid column type for column '{drop.field}', expected iox::column_type::field::"
            f"{_TYPES[drop.existing]}, got iox::column_type::field::{_TYPES[drop.type]}")


def _rendered(drop: Drop, unit: int) -> str:
    """The line as InfluxDB 3 prints it with a conflict: parsed and put together again, strings without quotes."""
    series, time, fields, _, _ = drop.entry
    return f"{series.key} {fields.decode('utf-8', 'replace')} {time // unit}".replace('"', "")


def _error(status: int, message: str, data: object = None) -> Response:
    value = {"error": message} if status in (401, 404, 413) else {"error": message, "data": data}
    return Response(status, answers.go_json(value), _JSON)
