"""The answers of QuestDB 9.3.4, as recorded. It takes `/write` and `/api/v2/write`, whatever database they name.

A request is kept whole or not at all; of the bad lines in it the first is told, by its number.
`/exec` answers what the pipeline asks (which tables have DEDUP), and switches DEDUP on and off.
"""

import json
import re

from pipeline.testbed.sandbox.influxdb import answers
from pipeline.testbed.sandbox.influxdb.answers import NotGzip, Server
from pipeline.testbed.sandbox.influxdb.http1 import Request, Response
from pipeline.testbed.sandbox.influxdb.lines_questdb import RowError, read_row
from pipeline.testbed.sandbox.influxdb.tables import Tables, TimeColumnWritten, folded

SERVER = (("Server", "questDB/1.0"),)
_JSON = (*SERVER, ("Content-Type", "application/json; charset=utf-8"))
_PLAIN = (*SERVER, ("Content-Type", "text/plain; charset=utf-8"))
WRITES = frozenset({"/write", "/api/v2/write"})
UNITS = {"n": 1, "ns": 1, "u": 1_000, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000,
         "h": 3_600_000_000_000}
_CODES = {400: "invalid", 403: "unauthorised", 413: "request too large", 500: "internal error"}
_BEFORE = "failed to parse line protocol:errors encountered on line(s):"
_DEDUP = re.compile(r"ALTER TABLE '(?P<table>[^']+)' DEDUP (?:ENABLE UPSERT KEYS\((?P<keys>[^)]+)\)|DISABLE)", re.ASCII)
#: What the pipeline asks at its start.
TABLES = "SELECT table_name, dedup FROM tables()"


class AnswersQuestdb:
    """QuestDB 9.3.4."""

    write_paths = WRITES
    query_paths: frozenset[str] = frozenset({"/exec"})

    def __init__(self, server: Server) -> None:
        self._max_body_bytes = server.max_body_bytes
        self._tables = Tables(server.identity.bucket)
        server.buckets[server.identity.bucket] = self._tables
        self._errors = 0

    def answer(self, request: Request, now: int) -> Response:
        if request.path in WRITES:
            return self._write(request, now) if request.method == "POST" else _no_method(request)
        if request.method != "GET":
            return _no_method(request)
        if request.path == "/ping":
            return Response(204, headers=(*SERVER, ("X-Influxdb-Version", "v2.7.4")))
        if request.path == "/exec":
            return self._exec(request.query.get("query", ""))
        return Response(404, b"Not Found\r\n", _PLAIN)

    def failure(self, status: int) -> Response:
        return self._error(status, "told to fail", None)

    def _write(self, request: Request, now: int) -> Response:
        unit = UNITS.get(request.query.get("precision") or "n")
        if unit is None:
            return self._error(400, f"{_BEFORE}unsupported precision", 0, "not supported")
        try:
            body = answers.inflate(request)
        except NotGzip:
            return self._error(415, f"{_BEFORE}gzip decompression error", 0, "not supported")
        if self._max_body_bytes and len(body) > self._max_body_bytes:
            return self._error(413, f"{_BEFORE}unable to read data: ILP line does not fit QuestDB ILP buffer size", 1)
        body, position, line = body + b"\n", 0, 0
        self._tables.begin()
        while position < len(body):
            try:
                row, position = read_row(body, position)
                if row is not None:
                    self._tables.add(row, unit, now)
                    line += 1
            except RowError as error:
                return self._error(400, f"{_BEFORE}\nerror in line {line + 1}{error}", line + 1)
            except TimeColumnWritten as error:
                return self._error(500, f"{_BEFORE}write error: {error}, error: "
                                   "java.lang.UnsupportedOperationException", line + 1)
        self._tables.commit()
        return Response(204, headers=SERVER)

    def _exec(self, query: str) -> Response:
        if (match := _DEDUP.fullmatch(query)) is not None:
            table = self._tables.tables.get(folded(match["table"]))
            if table is not None:
                table.keys = tuple(folded(key.strip()) for key in (match["keys"] or "").split(",") if key.strip())
                return Response(200, b'{"ddl":"OK"}', _JSON)
            error = f"table does not exist [table={match['table']}]"
            return Response(400, _encoded({"query": query, "error": error, "position": 12}), _JSON)
        if query != TABLES:
            error = "the sandbox does not understand this query"
            return Response(400, _encoded({"query": query, "error": error, "position": 0}), _JSON)
        rows = [[table.name, bool(table.keys)] for table in self._tables.tables.values()]
        columns = [{"name": "table_name", "type": "STRING"}, {"name": "dedup", "type": "BOOLEAN"}]
        return Response(200, _encoded({"query": query, "columns": columns, "timestamp": -1, "dataset": rows,
                                       "count": len(rows)}), _JSON)

    def _error(self, status: int, message: str, line: int | None, code: str = "") -> Response:
        self._errors += 1
        said: dict[str, object] = {"code": code or _CODES.get(status, "invalid"), "message": message}
        if line is not None:
            said["line"] = line
        return Response(status, _encoded({**said, "errorId": f"5a0db0c50000-{self._errors}"}), _JSON)


def _no_method(request: Request) -> Response:
    return Response(405, f"Method {request.method} not supported\r\n".encode(), _PLAIN)


def _encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
