"""The answers of InfluxDB 3 Core 3.9.6, as recorded: tests/servers/test_sandbox_answers_against_influxdb3.py compares.

What is a line is judged by `lines_v3`, what a table takes by `columns_v3`; both say what they leave out. Left out here:
the words for a query in which anything is wrong but a name, which are the sandbox's own in InfluxDB 3's form; Basic
authorization without a colon; limits; that precision "auto" looks at each time, where this looks at the first.

The endpoint of InfluxDB 2 refuses all writes with 400 or 413 and JSON; the two others with JSON or with plain words, as
it comes, and with a 500 for a body that is too large or can't be read.
"""

import json
import re

import msgspec

from pipeline.testbed.sandbox.influxdb import answers, columns_v3, lines_v3, query_v3
from pipeline.testbed.sandbox.influxdb.answers import NotGzip, Server
from pipeline.testbed.sandbox.influxdb.http1 import Request, Response
from pipeline.testbed.sandbox.influxdb.query import NotUnderstood
from pipeline.testbed.sandbox.influxdb.store import Bucket

VERSION = "3.9.6"
WRITE, WRITE_V2, WRITE_V1 = "/api/v3/write_lp", "/api/v2/write", "/write"
#: `--max-http-request-size`, of the uncompressed body.
DEFAULT_MAX_BODY_BYTES = 10_485_760
MAX_NAME_CHARACTERS = 64
#: With precision "auto", a time below each of these (absolute) is in that unit: nanoseconds of the unit.
_AUTO_LIMITS = ((5_000_000_000, 1_000_000_000), (5_000_000_000_000, 1_000_000), (5_000_000_000_000_000, 1_000))
_PRECISIONS = ("s", "second", "millisecond", "ms", "microsecond", "u", "us", "n", "nanosecond", "ns")
#: What a client may accept; anything else alone is refused, also the type of the answer itself.
_ACCEPTED = re.compile(r"\*/\*|application/json\b|text/(?:csv|plain)|application/vnd\.apache\.parquet")
_REFUSED = (("Cluster-Uuid", "00000000-0000-0000-0000-000000000000"),)
_HEADERS = (("Access-Control-Allow-Origin", "*"), *_REFUSED)
_PING = (("Content-Type", "application/json"), ("X-Influxdb-Build", "Core"), ("X-Influxdb-Version", VERSION), *_HEADERS)
_TEXT = (("Content-Type", "text/plain; charset=utf-8"), *_HEADERS)
_UNAUTHORIZED = Response(401, b'{"error": "the request was not authenticated"}', _REFUSED)
_MALFORMED = Response(400, b'{"error": "Authorization header was malformed, the request was not in the form of '
                           b"'Authorization: <auth-scheme> <token>', supported auth-schemes are Bearer, Token and "
                           b'Basic"}', _REFUSED)
_GZIP_WORDS = {"gzip: invalid header": "invalid gzip header", "flate: corrupt input": "corrupt deflate stream",
               "gzip: invalid checksum": "corrupt gzip stream does not have a matching checksum"}
_REASONS = {404: "not found", 413: "max request size exceeded", 429: "too many requests", 500: "internal error",
            503: "service unavailable"}


class Refusal(Exception):
    """A query is refused, in `words`, as HTTP does with `status`."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class Refused(Exception):
    """A write is refused as a whole: with JSON, or in plain `words`; by the endpoint of InfluxDB 2 with 400 and JSON,
    unless it has a status of its own for it."""

    def __init__(self, words: str, status: int = 400, plain: bool = False, status_v2: int = 400) -> None:
        super().__init__(words)
        self.words = words
        self.status = status
        self.plain = plain
        self.status_v2 = status_v2

    def response(self, path: str) -> Response:
        """As the endpoint `path` answers."""
        if path == WRITE_V2:
            code = "request too large" if self.status_v2 == 413 else "invalid"
            return Response(self.status_v2, _json({"code": code, "message": self.words}), _REFUSED)
        return Response(self.status, self.words.encode() if self.plain else _json({"error": self.words}), _REFUSED)


class AnswersV3:
    """InfluxDB 3 Core."""

    write_paths = frozenset({WRITE, WRITE_V2, WRITE_V1})
    query_paths = frozenset({"/api/v3/query_sql", "/api/v3/query_influxql"})

    def __init__(self, server: Server) -> None:
        self._server = server

    def answer(self, request: Request, now: int) -> Response:
        refused = self._unauthorized(request)
        if refused is not None:
            return refused
        match request.method, request.path:
            case "POST", path if path in self.write_paths:
                try:
                    return self._write(request, now)
                except Refused as error:
                    return error.response(path)
            case "POST", path if path in self.query_paths:
                return self._query(request)
            case "GET", "/health":
                return Response(200, b"OK", _TEXT)
            case "GET" | "POST", "/ping":
                value = {"product_name": "InfluxDB 3 Core", "version": VERSION, "revision": "sandbox",
                         "process_id": "00000000-0000-0000-0000-000000000000"}
                return Response(200, _json(value), _PING)
        return Response(404, b"Not found", _REFUSED)

    def failure(self, status: int) -> Response:
        return _UNAUTHORIZED if status == 401 else Response(
            status, _json({"error": _REASONS.get(status, "error")}), _REFUSED)

    def _unauthorized(self, request: Request) -> Response | None:
        given = _token(request)
        if given is None:
            return _MALFORMED
        return None if given == self._server.identity.token else _UNAUTHORIZED

    def _query(self, request: Request) -> Response:
        try:
            asked = json.loads(request.body)
            name, text = (str(asked[key]) for key in ("db", "q"))
        except KeyError as error:
            return _words(400, f"serde json error: missing field `{error.args[0]}` at line 1 column "
                               f"{len(request.body)}")
        except (ValueError, TypeError):
            return _words(400, "serde json error: the sandbox tells no more")
        shape = asked.get("format")
        if shape not in ("json", "jsonl"):
            return _words(400, "the sandbox answers only with the formats json and jsonl")
        if not _ACCEPTED.search(accept := request.headers.get("accept", "*/*")):
            return _words(500, f"invalid mime type ({accept})")
        bucket, language = self._server.buckets.get(name), request.path.rpartition("_")[2]
        if bucket is None:
            return Response(404, _json({"error": f"query error: database not found: {name}"}), _REFUSED)
        try:
            answer = query_v3.run(bucket, text, language)
        except query_v3.QueryError as error:
            return _words(error.status, str(error))
        except NotUnderstood as error:
            return _words(400, f'SQL error: ParserError("{error}")' if language == "sql"
                          else f"error in InfluxQL statement: parsing error: {error}")
        body = answer.json_array() if shape == "json" else answer.json_lines()
        return Response(200, body, (("Content-Type", f"application/{shape}"), *_HEADERS))

    def flight(self, request: Request) -> query_v3.Answer:
        """The answer of the Flight service's DoGet, whose ticket is the request's body. Raises Refusal."""
        if self._unauthorized(request) is not None:
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
        bucket = self._server.buckets.get(name)
        if bucket is None:
            raise Refusal(500, f"Cannot retrieve database: External error: database not found: {name}")
        try:
            return query_v3.run(bucket, text, language)
        except query_v3.QueryError as error:
            raise Refusal(400, f"Error while planning query: {error}") from None
        except NotUnderstood as error:
            words = f'SQL error: ParserError("{error}")' if language == "sql" else f"Error during planning: {error}"
            raise Refusal(400, f"Error while planning query: {words}") from None

    def _write(self, request: Request, now: int) -> Response:
        path, query = request.path, request.query
        unit = _unit(path, query)
        if path == WRITE and not {query.get(flag, "true") for flag in ("accept_partial", "no_sync")} <= {"true",
                                                                                                         "false"}:
            raise Refused("serde error: provided string was not `true` or `false`", plain=True)
        name = _database(path, query)
        body = self._body(request)
        batch_of = self._server.buckets.get(name) or Bucket(name, self._server.retention_seconds)
        partial = path == WRITE and query.get("accept_partial", "true") == "true"
        batch = batch_of.parse(body, unit or _auto_unit(body), now, read=lines_v3.parse_line)
        if not batch.entries and not batch.bad:
            raise Refused("write buffer error: incoming write was empty" if path == WRITE_V2
                          else "incoming write was empty", plain=True)
        refused = columns_v3.admit(batch_of, body, batch, partial)
        if partial or not refused:
            self._server.buckets[name] = batch_of  # Core makes a database at the first write to it
            batch_of.store(batch, now)
        return _answer(path, refused, partial)

    def _body(self, request: Request) -> bytes:
        """A write's body. Raises Refused."""
        encoding = request.headers.get("content-encoding", "identity")
        if encoding not in ("gzip", "identity"):
            raise Refused(f"unacceptable content-encoding: {encoding}", plain=True)
        try:
            body = answers.inflate(request)
        except NotGzip as error:
            words = _GZIP_WORDS.get(str(error), "unexpected end of file")
            raise Refused(f"error decoding gzip stream: {words}", 500, plain=True) from None
        limit = self._server.max_body_bytes
        limit = DEFAULT_MAX_BODY_BYTES if limit is None else limit
        if limit and len(body) > limit:
            raise Refused(f"max request size ({limit} bytes) exceeded", 500, plain=True, status_v2=413)
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise Refused(f"body content is not valid utf8: invalid utf-8 sequence of {error.end - error.start} bytes "
                          f"from index {error.start}", 500, plain=True) from None
        return body


def _token(request: Request) -> str | None:
    """The token that a request shows: "" without one, None when it can't be read."""
    if request.path == WRITE_V1 and "p" in request.query:
        return request.query["p"]
    header = request.headers.get("authorization")
    if header is None:
        return ""
    match header.split(" "):
        case "Bearer" | "Token", token:
            return token
        case "Basic", _:
            found = answers.user_and_password(msgspec.structs.replace(request, query={}))
            return None if found is None else found[1]
    return None


def _unit(path: str, query: dict[str, str]) -> int:
    """Nanoseconds of the precision that a write has; 0: to be guessed. Raises Refused."""
    precision = query.get("precision", "auto" if path == WRITE else "ns")
    if precision == "auto" and path == WRITE:
        return 0
    if precision not in _PRECISIONS:
        known = ", ".join(f"`{one}`" for one in (("auto",) if path == WRITE else ()) + _PRECISIONS)
        raise _misread(path, f"unknown variant `{precision}`, expected one of {known}")
    return answers.UNITS[precision]


def _misread(path: str, words: str) -> Refused:
    what = {WRITE: "serde error", WRITE_V2: "failed to deserialize org/bucket/precision in request",
            WRITE_V1: "failed to deserialize db/rp/precision in request"}[path]
    return Refused(f"{what}: {words}", plain=path == WRITE)


def _database(path: str, query: dict[str, str]) -> str:
    """The database that a write goes to. Raises Refused."""
    key = "bucket" if path == WRITE_V2 else "db"
    if key not in query:
        if path == WRITE:
            raise _misread(path, "missing field `db`") if query else Refused("missing query parameter 'db'", plain=True)
        if not query:
            raise Refused(f"no {'org/bucket' if path == WRITE_V2 else 'db'} destination provided")
    name = query.get(key, "")
    if path == WRITE_V2 and not name:
        raise Refused("missing bucket value")
    if key not in query:
        raise _misread(path, f"missing field `{key}`")
    bad = re.search(r"[^A-Za-z0-9_/-]", name)
    if path != WRITE:
        if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
            raise Refused(f"namespace name {name} length must be between 1 and {MAX_NAME_CHARACTERS} characters")
        if bad is not None:
            raise Refused(f"namespace name '{name}' contains invalid character, character number {bad.start()} is not "
                          "allowed")
    if not name:
        raise Refused("db name cannot be empty")
    if len(name) > MAX_NAME_CHARACTERS:
        raise Refused(f"db name too long: max {MAX_NAME_CHARACTERS}")
    if not re.match("[A-Za-z0-9]", name):
        raise Refused("db name did not start with a number or letter")
    if bad is not None:
        raise Refused("invalid character in database or rp name: must be ASCII, containing only letters, numbers, "
                      "underscores, or hyphens")
    policy = query.get("rp", "") if path == WRITE_V1 else ""
    return name if policy in ("", "autogen", "default") else f"{name}/{policy}"


def _auto_unit(body: bytes) -> int:
    """The unit that "auto" guesses, nanoseconds: from the size of the first time, where InfluxDB 3 guesses for each."""
    found = re.search(rb" (-?\d+) *(?:\n|$)", body)
    time = abs(int(found.group(1))) if found else 0
    return next((unit for limit, unit in _AUTO_LIMITS if time < limit), 1)


def _answer(path: str, refused: list[columns_v3.RefusedLine], partial: bool) -> Response:
    """The answer to a write that was read."""
    if not refused:
        return Response(204, headers=_HEADERS)
    if path == WRITE_V2:
        raise Refused(f"write buffer error: line protocol parse failed: {refused[0].reason}")
    data = [{"error_message": one.reason, "line_number": one.number, "original_line": one.line} for one in refused]
    value: dict[str, object] = {"error": "partial write of line protocol occurred", "data": data}
    if not partial:
        value = {"error": "parsing failed for write_lp endpoint", "data": data[0]}
    return Response(400, _json(value), _REFUSED)


def _words(status: int, words: str) -> Response:
    return Response(status, words.encode("utf-8", "replace"), _REFUSED)


def _json(value: object) -> bytes:
    """JSON as it writes it: compact, with nothing escaped that need not be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
