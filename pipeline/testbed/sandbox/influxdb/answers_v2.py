"""The answers of InfluxDB OSS 2.7.12, as recorded; where nothing was recorded, as its source (`http/`) has it."""

import json
import re

from pipeline.testbed.sandbox.influxdb import answers, query_flux, query_influxql
from pipeline.testbed.sandbox.influxdb.answers import NotGzip, Server, go_time
from pipeline.testbed.sandbox.influxdb.answers_v1 import first_drop
from pipeline.testbed.sandbox.influxdb.http1 import Request, Response
from pipeline.testbed.sandbox.influxdb.query import NotUnderstood, answered
from pipeline.testbed.sandbox.influxdb.store import Bucket, Entry

VERSION = "v2.7.12"
WRITE, WRITE_V1 = "/api/v2/write", "/write"
QUERY, QUERY_V1 = "/api/v2/query", "/query"
#: The id of every bucket here, for the message that has it in it.
BUCKET_ID = "5a0db0c500000001"
#: The id of the organization.
ORG_ID = "0a0b0c0d0e0f0001"
INTERNAL = "An internal error has occurred - check server logs"
_ID = re.compile("(?!0{16})[0-9A-Fa-f]{16}")
_GZIP_HEADER_BYTES = 10
_HEADERS = (("X-Influxdb-Build", "OSS"), ("X-Influxdb-Version", VERSION))
_JSON = (("Content-Type", "application/json; charset=utf-8"), *_HEADERS)
#: What no tag may be called. Source: InfluxDB 2.7.12, `models.ParsePoints`.
_RESERVED_TAGS = frozenset({"_field", "_measurement", "time"})
#: status -> code, and the message of an injected failure.
_CODES = {400: ("invalid", "invalid request"), 401: ("unauthorized", "unauthorized access"),
          403: ("forbidden", "insufficient permissions for write"), 404: ("not found", "bucket not found"),
          405: ("method not allowed", "method not allowed"),
          413: ("request too large", "unable to read data: points batch is too large"),
          422: ("unprocessable entity", "failure writing points to database"),
          429: ("too many requests", "too many requests"), 500: ("internal error", INTERNAL),
          503: ("unavailable", "service unavailable")}


class AnswersV2:
    """InfluxDB OSS 2.7.12."""

    write_paths = frozenset({WRITE, WRITE_V1})
    query_paths = frozenset({QUERY, QUERY_V1})

    def __init__(self, server: Server) -> None:
        self._server = server

    def answer(self, request: Request, now: int) -> Response:
        if request.path in self.write_paths:
            if request.method != "POST":
                return _error(405, "allow: OPTIONS, POST", (("Allow", "OPTIONS, POST"),))
            return self._unauthorized(request) or self._write(request, now)
        if request.path in self.query_paths and request.method == "POST":
            return self._unauthorized(request) or self._query(request)
        if request.method not in ("GET", "HEAD"):
            return _error(404, "path not found")
        if request.path == "/ping":
            return Response(204, headers=_HEADERS)
        if request.path == "/health":
            return _ok({"name": "influxdb", "message": "ready for queries and writes", "status": "pass", "checks": [],
                        "version": VERSION, "commit": "sandbox"})
        if request.path == "/ready":
            return _ok({"status": "ready", "started": go_time(now), "up": "1s"})
        return _error(404, "path not found")

    def failure(self, status: int) -> Response:
        return _error(status, _CODES.get(status, ("", "error"))[1])

    def _unauthorized(self, request: Request) -> Response | None:
        token = self._server.identity.token
        given = answers.bearer(request)
        if not given and request.path in (WRITE_V1, QUERY_V1):
            given = (answers.user_and_password(request) or ("", ""))[1]
        return None if given == token else _error(401, "unauthorized access")

    def _write(self, request: Request, now: int) -> Response:
        query, v1 = request.query, request.path == WRITE_V1
        precision = query.get("precision") or "ns"
        if v1 and not query.get("db"):
            return _error(400, "missing db")
        if not v1 and precision not in ("ns", "us", "ms", "s"):
            return _error(400, "invalid precision; valid precision units are ns, us, ms, and s")
        if not v1 and not query.get("bucket"):
            return _error(404, "bucket not found")
        try:
            body = answers.inflate(request)
        except NotGzip as error:
            return _not_gzip(request.body, str(error))
        bucket = self._bucket(request)
        if isinstance(bucket, Response):
            return bucket
        if self._server.max_body_bytes and len(body) > self._server.max_body_bytes:
            return _error(413, _CODES[413][1])
        unit = answers.UNITS.get(precision, 1)
        batch = bucket.parse(body, unit, answers.truncated(now, unit), reserved=_RESERVED_TAGS)
        if batch.bad:
            return _error(400, "\n".join(f"unable to parse '{bad.line}': {bad.reason}" for bad in batch.bad))
        stored = bucket.store(batch, now)
        partial = first_drop(stored) or _late(bucket, stored.late, now)
        return _error(422, f"failure writing points to database: {partial}") if partial else Response(
            204, headers=_HEADERS)

    def _query(self, request: Request) -> Response:
        if request.path == QUERY_V1:
            return query_influxql.respond(request, self._server.buckets, _JSON, lists_all=False)
        org = request.query.get("org") or request.query.get("orgID") or ""
        if org != self._server.identity.org:
            return _error(400, f'failed to decode request body: organization name "{org}" not found')
        try:
            text = str(json.loads(request.body)["query"])
        except (ValueError, KeyError, TypeError):
            return _error(400, "failed to decode request body: request body requires either query or AST")
        try:
            body = query_flux.run(self._server.buckets, text)
        except query_flux.NoBucket as error:
            return _error(404, f'failed to initialize execute state: could not find bucket "{error}"')
        except NotUnderstood as error:
            return _error(400, f"compilation failed: {error}")
        return answered(request, body, (("Content-Type", "text/csv; charset=utf-8"), *_HEADERS))

    def _bucket(self, request: Request) -> Bucket | Response:
        """The bucket to write to, or why there is none."""
        query, buckets = request.query, self._server.buckets
        if request.path == WRITE_V1:
            found = buckets[query["db"]].policy(query.get("rp", "")) if query["db"] in buckets else None
            return found or _error(404, "no dbrp mapping found")
        org, org_id = query.get("org", ""), query.get("orgID", "")
        if not org and not org_id:
            return _error(400, "Please provide either orgID or org")
        if org_id and len(org_id) != len(ORG_ID):
            return _error(400, "id must have a length of 16 bytes")
        if org_id and not _ID.fullmatch(org_id):
            return _error(400, "invalid ID")
        if org_id and org_id.lower() != ORG_ID:
            return _error(404, "organization not found")
        if not org_id and org != self._server.identity.org:
            return _error(404, f'organization name "{org}" not found')
        return buckets.get(query["bucket"]) or _error(404, f'bucket "{query["bucket"]}" not found')


def _not_gzip(body: bytes, why: str) -> Response:
    """The message for a body whose gzip is too short, has no header, or is damaged."""
    if why == "gzip: invalid header" or len(body) < _GZIP_HEADER_BYTES:
        return _error(500, INTERNAL)
    return _error(400 if why == "gzip: invalid checksum" else 500, f"unable to read data: {why}")


def _late(bucket: Bucket, late: list[Entry], now: int) -> str:
    """The message for lines that are older than the retention; empty when there are none."""
    if not late:
        return ""
    bound = go_time(now - bucket.retention_seconds * 1_000_000_000)
    oldest, newest = min(late, key=lambda entry: entry[1]), max(late, key=lambda entry: entry[1])
    old, new = (f"{which} point {entry[0].key} at {go_time(entry[1])} dropped because it violates a Retention Policy "
                f"Lower Bound at {bound}" for which, entry in (("oldest", oldest), ("newest", newest)))
    return (f"partial write: dropped {len(late)} points outside retention policy of duration "
            f"{answers.go_duration(bucket.retention_seconds)} - {old}, {new} dropped={len(late)} "
            f"for database: {BUCKET_ID} for retention policy: autogen")


def _ok(value: dict[str, object]) -> Response:
    return Response(200, json.dumps(value).encode() + b"\n", _JSON)


def _error(status: int, message: str, more: tuple[tuple[str, str], ...] = ()) -> Response:
    code = _CODES.get(status, ("internal error" if status >= 500 else "invalid", ""))[0]
    headers = (*_JSON, ("X-Platform-Error-Code", code), *more)
    return Response(status, answers.go_json({"code": code, "message": message}), headers)
