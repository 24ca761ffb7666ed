"""What is wrong with a set-up: the same requests to a real InfluxDB 2 and to the sandbox posing as one."""

import gzip
import os

import pytest
import requests
from msgspec import Struct

from tests.support.influxdb_servers import running_influxdb

URL = os.environ.get("INFLUXDB2_TEST_URL", "")
TOKEN = os.environ.get("INFLUXDB2_TEST_TOKEN", "")
ORG = os.environ.get("INFLUXDB2_TEST_ORG", "my-org")
pytestmark = pytest.mark.skipif(not URL, reason="INFLUXDB2_TEST_URL names no server")
LINE = b"m f=1 1"
PACKED = gzip.compress(LINE)
HEADERS = ("Content-Type", "X-Platform-Error-Code")


class Exchange(Struct, frozen=True):
    """A request; ORG stands for an organization that is there."""

    title: str
    query: str
    body: bytes = LINE
    path: str = "/api/v2/write"
    headers: dict[str, str] = {}
    authorization: str | None = "Token TOKEN"


EXCHANGES = [
    Exchange("no organization", "bucket=zz"),
    Exchange("an empty organization", "org=&bucket=zz"),
    Exchange("an unknown organization", "org=zz&bucket=zz"),
    Exchange("an empty id", "orgID=&bucket=zz"),
    Exchange("an id that is too short", "orgID=abc&bucket=zz"),
    Exchange("an id of letters that are no digits", "orgID=zzzzzzzzzzzzzzzz&bucket=zz"),
    Exchange("an id of zeros", "orgID=0000000000000000&bucket=zz"),
    Exchange("an unknown id", "orgID=0123456789abcdef&bucket=zz"),
    Exchange("an unknown id beside a name", "org=ORG&orgID=0123456789abcdef&bucket=zz"),
    Exchange("no bucket", "org=ORG"),
    Exchange("an empty bucket", "org=ORG&bucket="),
    Exchange("an unknown bucket", "org=ORG&bucket=zz"),
    Exchange("a bad precision", "org=ORG&bucket=zz&precision=h"),
    Exchange("no authorization", "org=ORG&bucket=zz", authorization=None),
    Exchange("an empty token", "org=ORG&bucket=zz", authorization="Token "),
    Exchange("a wrong token", "org=ORG&bucket=zz", authorization="Token zz"),
    Exchange("a token without its scheme", "org=ORG&bucket=zz", authorization="TOKEN"),
    Exchange("no database at /write", "", path="/write"),
    Exchange("an unknown database at /write", "db=zz", path="/write"),
    Exchange("gzip that isn't", "org=ORG&bucket=zz", b"m f=1 and more", headers={"Content-Encoding": "gzip"}),
    Exchange("gzip that is cut short", "org=ORG&bucket=BUCKET", PACKED[:-9], headers={"Content-Encoding": "gzip"}),
    Exchange("gzip that is cut very short", "org=ORG&bucket=BUCKET", PACKED[:6], headers={"Content-Encoding": "gzip"}),
    Exchange("gzip with a wrong checksum", "org=ORG&bucket=BUCKET", PACKED[:-8] + bytes(8),
             headers={"Content-Encoding": "gzip"}),
    Exchange("gzip of nothing", "org=ORG&bucket=BUCKET", b"", headers={"Content-Encoding": "gzip"}),
]


def said(url: str, exchange: Exchange, org: str, bucket: str, token: str) -> dict[str, object]:
    """What a server answers, without the names that differ."""
    query = exchange.query.replace("ORG", org).replace("BUCKET", bucket)
    headers = dict(exchange.headers)
    if exchange.authorization is not None:
        headers["Authorization"] = exchange.authorization.replace("TOKEN", token)
    answer = requests.post(f"{url}{exchange.path}?{query}", data=exchange.body, headers=headers, timeout=60)
    return {"status": answer.status_code, "body": answer.content,
            **{name: answer.headers.get(name) for name in HEADERS}}


@pytest.fixture(scope="module")
def bucket() -> str:
    """The name of some bucket that is there; nothing is stored in it."""
    buckets = requests.get(f"{URL}/api/v2/buckets?org={ORG}", headers={"Authorization": f"Token {TOKEN}"}, timeout=60)
    return next(str(found["name"]) for found in buckets.json()["buckets"] if found["type"] == "user")


@pytest.mark.parametrize("exchange", EXCHANGES, ids=[exchange.title for exchange in EXCHANGES])
def test_the_sandbox_answers_as_the_real_server(bucket: str, exchange: Exchange) -> None:
    with running_influxdb(flavour="v2") as sandbox:
        assert said(sandbox.url, exchange, "sandbox", "sandbox", "sandbox-token") == said(
            URL, exchange, ORG, bucket, TOKEN)
