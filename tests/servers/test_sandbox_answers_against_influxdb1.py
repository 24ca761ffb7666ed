"""The same requests to a real InfluxDB 1.6.7 and to the sandbox posing as one: the same status, headers and body."""

import gzip
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from msgspec import Struct

from pipeline.testbed.sandbox.influxdb.answers import Identity
from tests.support.influxdb_servers import running_influxdb, running_influxdb1

HEADERS = ("Content-Type", "X-Influxdb-Build", "X-Influxdb-Version", "X-Influxdb-Error")
GZIP = {"Content-Encoding": "gzip"}
NANOSECONDS = "/write?db=sandbox"
#: InfluxDB 1 keeps the types of fields for each day then; for each hour, with a shorter one.
RETENTION_SECONDS = 3 * 86_400
#: A time, seconds since 1970, that no retention here reaches back to.
OLD = 1_000_000_000


class Exchange(Struct, frozen=True):
    """A request. `before` are bodies that were written before it.

    A line without a time has that of its body. Bodies that share a series have no precision: to the second, they would
    be one point or two by the clock; to the nanosecond they are always two."""

    title: str
    body: bytes = b""
    path: str = "/write?db=sandbox&precision=s"
    method: str = "POST"
    headers: dict[str, str] = {}
    before: tuple[bytes, ...] = ()


def _gzip_with_wrong_sum() -> bytes:
    packed = bytearray(gzip.compress(b"m f=1"))
    packed[-8] ^= 1
    return bytes(packed)


EXCHANGES = [
    Exchange("a good line", b"m f=1"),
    Exchange("a good line, gzip", gzip.compress(b"m f=1"), headers=GZIP),
    Exchange("an empty body"),
    Exchange("only a comment", b"# nothing\n\n"),
    Exchange("only a malformed line", b"bad"),
    Exchange("good and malformed lines", b"m f=1\nbad\nm,t=b f=zz 17\n"),
    Exchange("only malformed lines", b"bad\nworse f=\n"),
    Exchange("a malformed line with what JSON must escape", b'm f="<&>\xff\t\x01"x=1 7'),
    Exchange("a malformed line longer than a header may be", b"b" * 3_000),
    Exchange("NaN", b"m f=NaN"),
    Exchange("an unsigned number", b"m f=1u"),
    Exchange("a time out of range", b"m f=1 9999999999999999"),
    Exchange("a type conflict", b'm f="x"\nm g=1', NANOSECONDS, before=(b"m f=1",)),
    Exchange("two type conflicts", b'm f="x"\nm f=t\nm f=2', NANOSECONDS, before=(b"m f=1",)),
    Exchange("a type conflict inside a batch", b'm f=1\nm f="x"'),
    Exchange("a type conflict and a malformed line", b'm f="x"\nbad\nm f=2', NANOSECONDS, before=(b"m f=1",)),
    Exchange("a string into an integer", b'm f="x"', before=(b"m f=1i",)),
    Exchange("a boolean into a string", b"m f=t", before=(b'm f="x"',)),
    Exchange("a point older than the retention", b"m f=1 %d\nm f=2" % OLD),
    Exchange("two points older than the retention, and a malformed line", b"m f=1 %d\nm f=1 1\nbad\nm f=2" % OLD),
    Exchange("an old point and a conflict", b'm f=1 %d\nm f="x"' % OLD, before=(b"m f=1",)),
    Exchange("a tag named time", b"m,time=1 f=1"),
    Exchange("only a field named time", b"m time=1"),
    Exchange("a field named time beside another", b"m time=1,f=1"),
    Exchange("no database", b"m f=1", "/write"),
    Exchange("an unknown database", b"m f=1", "/write?db=nodb"),
    Exchange("an unknown retention policy", b"m f=1", "/write?db=sandbox&rp=norp"),
    Exchange("an unknown retention policy and a malformed line", b"bad", "/write?db=sandbox&rp=norp"),
    Exchange("an unknown consistency", b"m f=1", "/write?db=sandbox&consistency=zz"),
    Exchange("an unknown consistency and database", b"m f=1", "/write?db=nodb&consistency=zz"),
    Exchange("an unknown consistency and no database", b"m f=1", "/write?consistency=zz"),
    Exchange("a consistency in capitals", b"m f=1", "/write?db=sandbox&precision=s&consistency=ANY"),
    Exchange("an unknown precision", b"m f=1", "/write?db=sandbox&precision=zz"),
    Exchange("gzip that isn't", b"m f=1 and more", headers=GZIP),
    Exchange("gzip that isn't, shorter than a header", b"m f=1", headers=GZIP),
    Exchange("an empty body that says gzip", headers=GZIP),
    Exchange("gzip that is cut short", gzip.compress(b"m f=1")[:-4], headers=GZIP),
    Exchange("gzip with a wrong checksum", _gzip_with_wrong_sum(), headers=GZIP),
    Exchange("gzip of two streams", gzip.compress(b"m f=1\n") + gzip.compress(b"bad\n"), headers=GZIP),
    Exchange("a body over the limit", b"#" * 25_000_001),
    Exchange("a body over the limit once unpacked", gzip.compress(b"#" * 25_000_001), headers=GZIP),
    Exchange("ping", path="/ping", method="GET"),
    Exchange("ping by HEAD", path="/ping", method="HEAD"),
    Exchange("health, which it has not", path="/health", method="GET"),
    Exchange("the write path of InfluxDB 2", b"m f=1", "/api/v2/write?org=o&bucket=sandbox"),
    Exchange("the write path of InfluxDB 3", b"m f=1", "/api/v3/write_lp?db=sandbox"),
    Exchange("write by GET", path="/write", method="GET"),
    Exchange("nonsense", path="/nosuch", method="GET"),
]


def said(url: str, exchange: Exchange) -> dict[str, Any]:
    """What a server answers."""
    path = exchange.path.partition("?")[0]
    for body in exchange.before:
        assert requests.post(f"{url}{exchange.path}", data=body, timeout=60).status_code == 204, path
    answer = requests.request(exchange.method, f"{url}{exchange.path}", data=exchange.body, headers=exchange.headers,
                              timeout=60)
    return {"status": answer.status_code, "body": answer.content,
            **{name: answer.headers.get(name) for name in HEADERS}}


@pytest.mark.parametrize("exchange", EXCHANGES, ids=[exchange.title for exchange in EXCHANGES])
def test_the_sandbox_answers_as_the_real_server(influxdb1: str, exchange: Exchange) -> None:
    create = f"DROP DATABASE sandbox; CREATE DATABASE sandbox WITH DURATION {RETENTION_SECONDS}s NAME autogen"
    requests.post(f"{influxdb1}/query", data={"q": create}, timeout=60).raise_for_status()
    with running_influxdb(flavour="v1", retention_seconds=RETENTION_SECONDS) as sandbox:
        assert said(sandbox.url, exchange) == said(influxdb1, exchange)
        count = "SELECT count(*) FROM m"
        series = requests.get(f"{influxdb1}/query", params={"db": "sandbox", "q": count}, timeout=60).json()
        stored = requests.get(f"{sandbox.url}/sandbox/points?measurement=m", timeout=60).json()
        fields = sum(len(point["fields"]) for point in stored)
        assert fields == sum(sum(row["values"][0][1:]) for row in series["results"][0].get("series", []))


@pytest.fixture(scope="module")
def influxdb1_with_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an InfluxDB 1.6.7 with a user `sandbox`, password `secret`, and a database of the same name."""
    with running_influxdb1(tmp_path_factory.mktemp("influxdb1"), auth=True) as url:
        create = "CREATE USER sandbox WITH PASSWORD 'secret' WITH ALL PRIVILEGES"
        requests.post(f"{url}/query", data={"q": create}, timeout=60).raise_for_status()
        requests.post(f"{url}/query", data={"q": "CREATE DATABASE sandbox"}, auth=("sandbox", "secret"), timeout=60)
        yield url


@pytest.mark.parametrize(("query", "basic"), [
    ("", None), ("&u=sandbox&p=no", None), ("&u=no&p=secret", None), ("&u=sandbox&p=secret", None),
    ("", ("sandbox", "no")), ("", ("sandbox", "secret")),
])
def test_the_sandbox_asks_for_user_and_password_as_the_real_server(
        influxdb1_with_users: str, query: str, basic: tuple[str, str] | None) -> None:
    answers = []
    with running_influxdb(flavour="v1", identity=Identity(password="secret")) as sandbox:
        for server in (influxdb1_with_users, sandbox.url):
            answer = requests.post(f"{server}/write?db=sandbox{query}", data=b"m f=1", auth=basic, timeout=60)
            answers.append((answer.status_code, answer.content, answer.headers.get("WWW-Authenticate")))
    assert answers[0] == answers[1]
