"""The same requests to a real InfluxDB 3 Core 3.9.6 and to the sandbox posing as one: the same status, headers, body.

`INFLUXDB3_TEST_URL` names the server, which has to ask for `INFLUXDB3_TEST_TOKEN`.
"""

import base64
import gzip
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from msgspec import Struct
from pyarrow import flight

from pipeline.testbed.sandbox.influxdb.answers import Identity
from stages.languages.v3 import JsonDialect
from tests.support.influxdb_servers import running_influxdb

URL = os.environ.get("INFLUXDB3_TEST_URL", "")
TOKEN = os.environ.get("INFLUXDB3_TEST_TOKEN", "")
pytestmark = pytest.mark.skipif(not (URL and TOKEN), reason="INFLUXDB3_TEST_URL names no server that asks for a token")

HEADERS = ("Content-Type", "Content-Encoding", "Access-Control-Allow-Origin", "X-Influxdb-Build", "X-Influxdb-Version")
GZIP = {"Content-Encoding": "gzip"}
#: Answered at once: a write that waits for the server's next flush takes up to a second.
V3_WRITE = "/api/v3/write_lp?db=DB&precision=second&no_sync=true"
ALL_OR_NOTHING = V3_WRITE + "&accept_partial=false"
V2_WRITE, V1_WRITE = "/api/v2/write?bucket=DB&precision=s", "/write?db=DB&precision=s"
WRITES = (V3_WRITE, ALL_OR_NOTHING, V2_WRITE, V1_WRITE)
#: A point with a column of each kind.
BEFORE = 'm,t=a f=1,i=1i,u=1u,b=t,s="x" 1'


class Exchange(Struct, frozen=True):
    """A request. `before` was written before it; DB stands for the database, which is new, TOKEN for the token."""

    title: str
    body: bytes = b""
    path: str = V3_WRITE
    method: str = "POST"
    headers: dict[str, str] = {}
    before: str = ""
    token: bool = True


def writes(title: str, body: str | bytes, before: str = "", headers: dict[str, str] | None = None) -> list[Exchange]:
    """The same body to each endpoint."""
    data = body.encode() if isinstance(body, str) else body
    return [Exchange(f"{title}, {path.removeprefix(V3_WRITE) or path}", data, path, before=before,
                     headers=headers or {}) for path in WRITES]


def lines(*bodies: str, before: str = "") -> list[Exchange]:
    """Bodies to the endpoint that says most."""
    return [Exchange(f"{body[:60]!r}{' after others' if before else ''}", body.encode(), before=before)
            for body in bodies]


def _gzip_with_wrong_sum() -> bytes:
    packed = bytearray(gzip.compress(b"m f=1"))
    packed[-8] ^= 1
    return bytes(packed)


def basic(words: str) -> str:
    """The header of basic authentication."""
    return "Basic " + base64.b64encode(words.encode()).decode()


EXCHANGES = [
    *writes("a good line", "m f=1 5"),
    *writes("gzip", gzip.compress(b"m f=1 5"), headers=GZIP),
    *writes("gzip of two streams", gzip.compress(b"m f=1\n") + gzip.compress(b"bad\n"), headers=GZIP),
    *writes("gzip that isn't", b"m f=1 and more", headers=GZIP),
    *writes("gzip that isn't, shorter than a header", b"m f=1", headers=GZIP),
    *writes("an empty body that says gzip", b"", headers=GZIP),
    *writes("gzip that is cut short", gzip.compress(b"m f=1")[:-4], headers=GZIP),
    *writes("gzip with a wrong checksum", _gzip_with_wrong_sum(), headers=GZIP),
    *writes("another encoding", b"m f=1", headers={"Content-Encoding": "deflate"}),
    *writes("a body over the limit", b"#" * 10_485_761),
    *writes("a body over the limit once unpacked", gzip.compress(b"#" * 10_485_761), headers=GZIP),
    *writes("what is no UTF-8", b'm f="\xff" 1'),
    *writes("an empty body", ""),
    *writes("only comments", "# nothing\n\n# more\n"),
    *writes("only a malformed line", "bad"),
    *writes("malformed lines among good ones", "m f=1 5\nbad\nm f= 6\nm f=2 7"),
    *writes("a type conflict", 'm f="x" 7', BEFORE),
    *writes("a type conflict among good lines", 'm f=2 6\nm f="x" 7\nm f=3 8', BEFORE),
    *writes("conflicts and malformed lines", 'm f="x" 7\nbad\nm i=1 8\nm f= 2\nm f=5 9', BEFORE),
    *writes("a malformed line before a conflict", 'bad\nm f="x" 7\nbad\n', BEFORE),
    *writes("a type conflict inside a batch", 'm n=1 1\nm n="x" 2\nm n=2 3'),
    *writes("a tag used as a field", "m t=1 7\nm f=2 8", BEFORE),
    *writes("a field used as a tag", "m,f=a g=1 7\nm f=2 8", BEFORE),
    *writes("a tag named time", "m,time=1 f=1 2"),
    *writes("a field named time", "m time=1,f=1 2\nm f=1 2"),
    *writes("a tag named time in a table", "m,time=1 f=1 2", BEFORE),
    *writes("a field named time in a table", "m f=1,time=1 2", BEFORE),
    *writes("a field twice", "m f=1,f=2 1"),
    *writes("a time out of range", "m f=1 99999999999999999"),
    *lines("m", "m ", "m f", "m f=", "m f= 6", "m,t= f=1 8", "m,t f=1 8", "m,a=b,t f=1 8", "m,=a f=1", "m, f=1",
           "m,t=a", "m,t=a ", ",m f=1", "f=1 5", "m\tf=1", "m,t=a\tf=1"),
    *lines("m f=1,", "m f=1,g=", "m f=1,g=2,", "m f=1,g=2,h=", "m f=1,g 5", "m f=2 soon", "m f=1 1.5", "m f=1 ",
           "m f=1 1 ", "m f=1 1 x", "m f=1\t1", "m  f=1  1", "  m f=1 1", "m f=1 99999999999999999999"),
    *lines("m f=zz 1", "m f=tr 1", 'm f="abc 1', 'm f="a\\" 1', 'm f="a" "b"', "m f=NaN", "m f=Inf", "m f=.5 1",
           "m f=5. 1", "m f=+1 1", "m f=- 1", "m f=1e 1", "m f=1E+5,g=1.5e-3,h=-0.0 1", "m f=0x1 1", "m f=1.5i 1",
           "m f=-1u 1", "m f=99999999999999999999i", "m f=99999999999999999999u",
           "m f=t,g=T,h=True,i=TRUE,j=f,k=FALSE 1"),
    *lines("m f=1 1\r\nm f=2 2\r\n", "m\\ f=1 1", "m,t=a\\ f=1 1", "m,t\\==a f=1 1", "m f\\=1 1", "m f=1 5\n\nbad\n",
           "#c\nbad", 'm f="a\nb" 1\nbad', "m,t=longer,than=what,is=shown f= 1", "m,tag=ééé f= 1\nm,té f=1",
           'm f="ééééééééééé'),
    *lines('m f="x"', 'm f="x" -7', "m f=t 7", "m f=1i 7", "m i=1 7", "m i=1.50 7", "m i=1e300 7", "m f=1,i=1e-7 7",
           "m u=1i 7", "m i=1u 7", "m b=0.0 7", "m s=-0.0 7", "m s=123456.5 7", 'm t="x" 7', "m,f=a f=1 7",
           "m,t=b,f=a,i=c g=1 7", 'm f="a b,c=d" 7', 'm f="q\\"uo\\\\te" 7', 'm f="x",i=2i,u=3u,b=T 7',
           'm,z=1,a=2 f="x" 1', 'm,t=b\\ c f="x" 1700000000', '  m f="x"   7  ', 'm f="é…ü-éééééééééééé" 7',
           'm f="x",f=1 7', "m f=1,f=t 7", 'm,new=1 f="x" 7\nm new=5 8', 'm new=1,f="x" 7\nm,new=5 f=2 8',
           'm f="a\nb" 7\nm s="a\nb" 8\nm f="c" 9\nbad 1\n', 'm f=2 9\nm f="x" 7\n\n# c\nbad', 'm,time=a f="x" 1',
           'm f="x",time=1 1', before=BEFORE),
    *lines('m\\ x,t=b\\,\\=\\ c f="x" 2', 'm\\ x f\\ g="x" 2', before="m\\ x,t=a f=1,f\\ g=1 1"),
    *(Exchange(f"precision {precision}, {path}", b"m f=1 5", f"{path.partition('&')[0]}&precision={precision}")
      for path in (V3_WRITE.replace("precision=second", "no_sync=true"), V2_WRITE, V1_WRITE)
      for precision in ("auto", "m", "h", "zz", "")),
    *(Exchange(f"precision {precision}", b"m f=1 5", f"/api/v3/write_lp?db=DB&no_sync=true&precision={precision}")
      for precision in ("second", "s", "millisecond", "ms", "microsecond", "us", "u", "nanosecond", "ns", "n")),
    *(Exchange(f"the query {query!r}", b"m f=1", query) for query in (
        "/api/v3/write_lp", "/api/v3/write_lp?db=", "/api/v3/write_lp?precision=second",
        "/api/v3/write_lp?precision=zz", "/api/v2/write", "/api/v2/write?bucket=", "/api/v2/write?org=o",
        "/api/v2/write?precision=s", "/write", "/write?db=", "/write?precision=s", "/api/v3/write_lp?db=_a",
        "/api/v3/write_lp?db=-a", "/api/v3/write_lp?db=a%20b",
        "/api/v3/write_lp?db=" + "a" * 65, "/api/v2/write?bucket=_a", "/api/v2/write?bucket=a%20b",
        "/api/v2/write?bucket=" + "a" * 65, "/write?db=_a", "/write?db=a%20b", "/write?db=" + "a" * 65,
        V3_WRITE + "&accept_partial=1", V3_WRITE + "&accept_partial=", "/api/v3/write_lp?db=DB&no_sync=True")),
    *(Exchange(f"Authorization {header!r}, {path}", b"m f=1", path, "POST" if "write" in path else "GET",
               {"Authorization": header} if header else {}, token=False)
      for header in ("", "Bearer TOKEN", "Token TOKEN", basic("any:") + "TOKEN", "bearer TOKEN", "Bearer no",
                     "Token no", "Bearer", "Bearer  TOKEN", "Bearer a b", "TOKEN", "Foo bar", "Basic !!!",
                     basic("u:no"))
      for path in (V3_WRITE, "/health", "/nosuch")),
    *(Exchange(f"no token, {path}", b"m f=1", path, token=False) for path in (
        V2_WRITE, V1_WRITE, "/ping", V1_WRITE + "&u=any&p=TOKEN", V1_WRITE + "&p=TOKEN", V1_WRITE + "&u=any&p=no",
        V1_WRITE + "&u=TOKEN", V2_WRITE + "&p=TOKEN", V3_WRITE + "&p=TOKEN")),
    *(Exchange(f"{method} {path}", path=path, method=method) for method, path in (
        ("GET", "/health"), ("HEAD", "/health"), ("POST", "/health"), ("GET", "/ping"), ("POST", "/ping"),
        ("HEAD", "/ping"), ("GET", "/nosuch"), ("POST", "/nosuch"), ("HEAD", "/nosuch"), ("GET", V3_WRITE),
        ("PUT", V3_WRITE), ("GET", V2_WRITE), ("GET", V1_WRITE), ("PUT", "/api/v3/query_sql"), ("GET", "/ready"),
        ("POST", "/api/v2/query?org=o"), ("GET", "/"))),
]


@contextmanager
def server(kind: str) -> Iterator["Server"]:
    """The real one or the sandbox, and the name of a database that is not there before, nor after."""
    name = f"sandbox-{uuid.uuid4().hex[:8]}"
    if kind == "sandbox":
        with running_influxdb(flavour="v3", identity=Identity(bucket="other", token=TOKEN), flight_port=0) as sandbox:
            yield Server(sandbox.url, sandbox.flight_url, name)
        return
    try:
        yield Server(URL, URL, name)
    finally:
        requests.delete(f"{URL}/api/v3/configure/database", params={"db": name},
                        headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)


class Server(Struct, frozen=True):
    """One of the two, with a database."""

    url: str
    flight_url: str
    database: str

    def said(self, exchange: Exchange) -> dict[str, Any]:
        """What it answers."""
        if exchange.before:
            written = self.said(Exchange("", exchange.before.encode()))
            assert written["status"] == 204, written
        headers = {"Authorization": f"Bearer {TOKEN}"} if exchange.token else {}
        headers |= {name: self._filled(value) for name, value in exchange.headers.items()}
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(exchange.method, self.url + self._filled(exchange.path), headers=headers,
                                     data=exchange.body.replace(b'"DB"', f'"{self.database}"'.encode()), timeout=60)
        body = answer.content.replace(self.database.encode(), b"DB")
        if exchange.path == "/ping" and answer.ok:
            body = re.sub(rb'"(revision|process_id)":"[^"]*"', rb'"\1":""', body)
        assert "Cluster-Uuid" in answer.headers
        return {"status": answer.status_code, "body": body, **{name: answer.headers.get(name) for name in HEADERS}}

    def _filled(self, text: str) -> str:
        if text.startswith("Basic ") and text.endswith("TOKEN"):
            return basic(base64.b64decode(text[6:-5]).decode() + TOKEN)
        return text.replace("DB", self.database).replace("TOKEN", TOKEN)

    def flies(self, ticket: bytes, authorization: str) -> Any:
        """What the Flight service answers to DoGet: columns and rows, or an error with its words."""
        ticket = ticket.replace(b'"DB"', f'"{self.database}"'.encode())
        headers = [(b"authorization", self._filled(authorization).encode())] if authorization else []
        options = flight.FlightCallOptions(timeout=60, headers=headers)
        with flight.FlightClient(self.flight_url.replace("http://", "grpc+tcp://"),
                                 generic_options=[("grpc.enable_http_proxy", 0)]) as client:
            try:
                table = client.do_get(flight.Ticket(ticket), options).read_all()
            except Exception as error:
                words = re.sub(r".*?with message: |\. (?:gRPC client debug context|Detail): .*", "", str(error),
                               flags=re.DOTALL)
                return type(error), words.replace(self.database, "DB")
        rows = [[value.as_py() if column.type != "timestamp[ns]" else value.value for value in column]
                for column in table.columns]
        return [(field.name, field.type, field.metadata) for field in table.schema], rows


@pytest.mark.parametrize("exchange", EXCHANGES, ids=[exchange.title for exchange in EXCHANGES])
def test_the_sandbox_answers_as_the_real_server(exchange: Exchange) -> None:
    with server("sandbox") as sandbox, server("real") as real:
        assert sandbox.said(exchange) == real.said(exchange)


POINTS = """m,t=a,z=q f=1.0,g=1e300,h=-0.0,i=3i,u=18446744073709551615u,b=t 1700000000000000001
m s="a\\"b\\\\cé<>&\u2028\x01/\x7f" 11
m,t=b f=1e15 1700000000000000002
m f=1e16,g=1e-7,h=0.1,s="" -1
m f=123456789012345680,g=1.5e-5,h=1e21 -1500000000
m f=1e9,g=1e10,h=1e-5 -1500000001
m f=1234567890.5,g=-12345678901.5,h=1e-6,i=-1i 1700000001000000000
m f=5e-324,g=1.7976931348623157e308,h=1234.0 1700000001000001000
m g=2 9
m s="only" 10
n\\ x,T=1,t=2 F=1,f=2 5
"""
PAGE = 'SELECT time, "t", "z", "b", "f", "g", "h", "i", "s", "u" FROM "m"'
QUERIES = [(language, query) for query in (
    f"{PAGE} ORDER BY time ASC", f"{PAGE} ORDER BY time ASC LIMIT 1", f"{PAGE} ORDER BY time ASC LIMIT 3",
    'SELECT time, "s", "t" FROM "m" ORDER BY time ASC', 'SELECT time, "t" FROM "m" ORDER BY time ASC LIMIT 1',
    'SELECT time, "F", "f", "T" FROM "n x" ORDER BY time ASC', 'SELECT time, "f" FROM "nope" ORDER BY time ASC',
    'SELECT time, "nope" FROM "m" ORDER BY time ASC', 'SELECT time, "NOPE", "f" FROM "m" ORDER BY time ASC',
    'SELECT time, "nope" FROM "n x" ORDER BY time ASC', 'SELECT time, "f", "nope" FROM "m" ORDER BY time ASC')
    for language in ("sql", "influxql")] + [("sql", query) for query in (
        f"{PAGE} WHERE time >= TIMESTAMP '2023-11-14T22:13:20Z' AND time < TIMESTAMP '2023-11-14T22:13:20.000000002Z' "
        "ORDER BY time ASC",
        f"{PAGE} WHERE time >= TIMESTAMP '2033-11-14T22:13:20Z' ORDER BY time ASC",
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'iox'",
        *("SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'iox' "
          f"AND table_name = '{table}'" for table in ("m", "n x", "nope")))] + [("influxql", query) for query in (
              f"{PAGE} WHERE time >= 1700000000000000000 AND time < 1700000000000000002 ORDER BY time ASC",
              f"{PAGE} WHERE time < 10 ORDER BY time ASC LIMIT 2",
              f"{PAGE} WHERE time >= 2700000000000000000 ORDER BY time ASC")]


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Server, Server]]:
    """The sandbox and the real server, with the same points."""
    with server("sandbox") as sandbox, server("real") as real:
        for one in (sandbox, real):
            written = one.said(Exchange("", POINTS.encode(), "/api/v3/write_lp?db=DB&precision=nanosecond"))
            assert written["status"] == 204
        yield sandbox, real


def asked(language: str, query: str, database: str = "DB", **headers: str) -> Exchange:
    """A query as a source sends it."""
    ask = JsonDialect(database, "sql")._ask(query, language)
    headers = {"Content-Type": ask.content_type, "Accept": ask.accept, **headers}
    return Exchange(query, ask.body, ask.path, headers=headers)


@pytest.mark.parametrize(("language", "query"), QUERIES)
def test_queries_are_answered_as_by_the_real_server(both: tuple[Server, Server], language: str, query: str) -> None:
    sandbox, real = both
    assert sandbox.said(asked(language, query)) == real.said(asked(language, query))


@pytest.mark.parametrize("language", ["sql", "influxql"])
@pytest.mark.parametrize("headers", [
    {"Accept": "application/jsonl"}, {"Accept": "application/x-ndjson"}, {"Accept": "application/json"},
    {"Accept": "application/jsonl, */*"}, {"Accept-Encoding": "gzip"}, {"Authorization": "Bearer no"},
    {"Authorization": "Foo bar"}], ids=json.dumps)
def test_what_a_client_accepts_and_who_it_is_counts_as_with_the_real_server(
        both: tuple[Server, Server], language: str, headers: dict[str, str]) -> None:
    exchange = asked(language, f"{PAGE} ORDER BY time ASC LIMIT 1", **headers)
    assert both[0].said(exchange) == both[1].said(exchange)


@pytest.mark.parametrize("language", ["sql", "influxql"])
def test_a_database_that_is_not_there_is_told_as_by_the_real_server(
        both: tuple[Server, Server], language: str) -> None:
    exchange = asked(language, f"{PAGE} ORDER BY time ASC", "nowhere")
    assert both[0].said(exchange) == both[1].said(exchange)


@pytest.mark.parametrize("body", [b"{}", b'{"db":"DB"}', b'{"q":"SELECT 1"}', b"{", b"[]", b""])
def test_a_request_without_a_query_is_refused_with_the_real_servers_status(
        both: tuple[Server, Server], body: bytes) -> None:
    exchange = Exchange("", body, "/api/v3/query_sql", headers={"Content-Type": "application/json"})
    sandbox, real = (one.said(exchange) for one in both)
    assert sandbox["body"].startswith(b"serde json error: ") and real["body"].startswith(b"serde json error: ")
    assert {**sandbox, "body": b""} == {**real, "body": b""}


@pytest.mark.parametrize("language", ["sql", "influxql"])
@pytest.mark.parametrize("query", ["SELEC", f"{PAGE} ORDER BY", "SELECT time FROM"])
def test_a_query_that_is_none_is_refused_in_the_real_servers_form(
        both: tuple[Server, Server], language: str, query: str) -> None:
    sandbox, real = (one.said(asked(language, query)) for one in both)
    form = {"sql": b'SQL error: ParserError("', "influxql": b"error in InfluxQL statement: parsing error: "}[language]
    assert sandbox["body"].startswith(form) and real["body"].startswith(form)
    assert {**sandbox, "body": b""} == {**real, "body": b""}
    (kind, words), (real_kind, real_words) = (
        one.flies(json.dumps({"database": "DB", "sql_query": query, "query_type": language}).encode(), "Bearer TOKEN")
        for one in both)
    assert kind == real_kind
    form_flies = {"sql": 'Error while planning query: SQL error: ParserError("',
                  "influxql": "Error while planning query: Error during planning: "}[language]
    assert words.startswith(form_flies) and real_words.startswith(form_flies)


@pytest.mark.parametrize(("language", "query"), QUERIES)
def test_the_flight_service_answers_as_the_real_one(both: tuple[Server, Server], language: str, query: str) -> None:
    ticket = json.dumps({"database": "DB", "sql_query": query, "query_type": language}).encode()
    sandbox, real = (one.flies(ticket, "Bearer TOKEN") for one in both)
    assert sandbox == real


GOOD = b'{"database": "DB", "sql_query": "SELECT time, \\"f\\" FROM \\"m\\" ORDER BY time ASC LIMIT 1"}'


@pytest.mark.parametrize(("ticket", "authorization"), [
    *((GOOD, header) for header in ("Bearer TOKEN", "Token TOKEN", basic("any:") + "TOKEN", "bearer TOKEN", "Bearer no",
                                    "", "Foo bar", "Bearer")),
    *((ticket, "Bearer TOKEN") for ticket in (
        GOOD.replace(b"DB", b"nowhere"), GOOD.replace(b"database", b"bucket"),
        GOOD.replace(b"database", b"namespace_name"),
        GOOD[:-1] + b', "query_type": "sql"}', GOOD[:-1] + b', "query_type": "zz"}', b"{", b"nonsense", b"{}",
        b'{"database": "DB"}', b'{"sql_query": "SELECT 1"}'))])
def test_the_flight_service_takes_and_refuses_tickets_as_the_real_one(
        both: tuple[Server, Server], ticket: bytes, authorization: str) -> None:
    sandbox, real = (one.flies(ticket, authorization) for one in both)
    assert sandbox == real
