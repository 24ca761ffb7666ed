"""The same requests to a real QuestDB, which `QUESTDB_TEST_URL` names, and to the sandbox posing as one."""

import gzip
import os
import time
import uuid
from functools import partial
from typing import Any

import msgspec
import pytest
import requests

from pipeline.testbed.harness.waiting import wait_until
from tests.support.influxdb_servers import running_influxdb

URL = os.environ.get("QUESTDB_TEST_URL", "")
pytestmark = pytest.mark.skipif(not URL, reason="QUESTDB_TEST_URL names no server")
HEADERS = ("Content-Type", "Server", "X-Influxdb-Version")
#: Longest wait until what was written can be read, seconds.
SEEN_SECONDS = 30.0
#: `@` becomes the name of a table that is not there.
LINES = [
    "@,t=a f=1 1000\n", "@,t=a f=1.5,g=2i,h=true,i=\"x\" 1000\n@,t=b f=2 2000\n", "@ f=1\n", "@,t=a 1000\n",
    "@,t=a\n", "@ f=1 1000\n@ f=zz 2000\n@ f=3 3000\n", "@ f=1 1000\n@\n", "\n\n@ f=1 1000\n\nbad\n", "# comment\n",
    "@ f=1 5 6\n", "@ f=1  5\n", "@  f=1 5\n", "@,t=a  f=1 5\n", "@ f=1 5 \n", " @ f=1 5\n", "@ f=1 5x\n",
    "@ f=1 -5\n", "@ f=1 1.5\n", "@ f=1 5000n\n", "@ f=1 5t\n", "@ f=1 5m\n", "@ f=1 99999999999999999999\n",
    "@ f=1i2 5\n", "@ f=i 5\n", "@ f=e 5\n", "@ f=n 5\n", "@ f=TRUE 5000\n", "@ f=F 5000\n", "@ f=5u 5\n",
    "@ f=1e5 5000\n", "@ f=1e400 5\n", "@ f=1e 5\n", "@ f=nan 5\n", "@ f=NaN,g=1 5000\n", "@ f=-Infinity,g=1 5000\n",
    "@ f=+5 5000\n", "@ f=1_0 5\n", "@ f=5t 5000\n", "@ f=9223372036854775808i 5\n",
    "@ f=-9223372036854775808i,g=1i 5000\n", "@ f=9223372036854775807i 5000\n", "@ f=\"a\"b 5\n", "@ f=\"a\"b\" 5\n",
    "@ f=\"a 5\n", "@ f=\" 5\n", "@ f=\"\" 5000\n", "@ f=\"a\nb\" 5\n", "@ f=\"a\\\nb\\\"\\\\ \\n,= x\" 5000\n",
    "@ f= 5\n", "@ f 5\n", "@ f=1, 5000\n", "@ ,f=1 5\n", "@ =1 5\n", "@,=1 f=1 5\n", "@,a f=1 5\n", "@ 5\n",
    "@ f==1 5\n", "@,a==1 f=1 5\n", "@/ f=1 5\n", "@ a/b=1 5\n", "@ f=1/2 5\n", "@ f=1 5/\n", "@\\\\ f=1 5\n",
    "@ f\\\\=1 5\n", "@,a=b\\\\c f=1 5000\n", "@,a=b\\nc\\,\\=\\ \\d f=1 5000\n", "@,a=\"b\" f=1 5000\n",
    "@,a=x/y:z f=1 5000\n", "@ f=\\\"a\\\" 5000\n", "@ f=1\r\n", "@\rf=1 5\n", "@ f=\"a\rb\" 5000\n", ",f=1 5\n",
    "@,a=1 f=1,b\n", "@,a=1,a=2 f=1 5000\n", "@ f=1,F=2 5000\n", "@,f=a f=1 5000\n", "@ é=1,É=2,x=3 5000\n",
    "@,a=é😀\\ 漢 f=\"é😀漢\" 5000\n", "@ timestamp=1 5\n", "@ timestamp=1i,f=1 5\n", "@ time=1 5000\n", "@ a-b=1 5\n",
    "@ a.b=1 5\n", "@ a\\,b=1 5\n", "@.x f=1 5000\n", "@?x f=1 5\n", "@\\,x f=1 5\n", "@-x f=1 5000\n",
    "@ a\"b=1 5\n", "@ f=1 1000\n@ f=2i 2000\n@ f=true 3000\n@ f=\"x\" 4000\n",
    "@ f=1i 1000\n@ f=true 2000\n@ f=1.5 3000\n", "@ f=\"x\" 1000\n@,f=tag g=1 2000\n@ f=1 3000\n",
    "@,f=x g=1 1000\n@ f=1.50 2000\n@ f=7i 3000\n@ f=\"s\" 4000\n@ f=t 5000\n", "@ f=true 1000\n@ f=1 2000\n",
    "@ f=5t 1000\n@ f=7i 2000\n@ f=true 3000\n", "@ f=1 1000\n@,f=a g=1 2000\n", "@ f=1 1000\n@ g=zz 2000\n",
    "@ f=1 1000\n@ f=1 1000\n@ f=1 1000\n", "@ " + "a" * 127 + "=1 5000\n", "@ " + "a" * 128 + "=1 5\n",
    "@" + "b" * 200 + " f=1 5\n", "@ f=\x01\x7f\"'\t\b\f 5\n", "@ f=" + "y" * 3_000 + " 5\n",
    "@,a=1 f=1 5000\n@,a=\x00 f=1 5\n", "@ f=\"\x01\" 5000\n", "@ f=1,a\x01=2 5\n",
]


def named(text: str, table: str) -> bytes:
    """A body with the name of its table."""
    return text.replace("@", table).encode()


def said(url: str, method: str, path: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """What a server answers, without the id of the error."""
    answer = requests.request(method, url + path, data=body, headers=headers, timeout=60)
    content: Any = answer.content
    if answer.headers.get("Content-Type", "").startswith("application/json"):
        content = msgspec.json.decode(content)
        content.pop("errorId", None)
    return {"status": answer.status_code, "body": content, **{name: answer.headers.get(name) for name in HEADERS}}


def real_rows(table: str) -> list[dict[str, Any]]:
    """The rows of a table of the real server, once they can be read; none when there is no such table."""
    until = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < until:
        state = requests.get(f"{URL}/exec", timeout=60, params={
            "query": f"select writerTxn, sequencerTxn from wal_tables() where name = '{table}'"}).json()["dataset"]
        if not state or state[0][0] == state[0][1]:
            break
        time.sleep(0.02)
    text = requests.get(f"{URL}/exec", params={"query": f"select * from '{table}' order by timestamp"}, timeout=60).text
    found = msgspec.json.decode(text.encode()) if "\x01" not in text else {"dataset": []}
    names = [column["name"] for column in found.get("columns", []) if column["name"] != "timestamp"]
    return [{name: value for name, value in zip(names, row, strict=False) if value is not None}
            for row in found.get("dataset", [])]


@pytest.mark.parametrize("text", LINES, ids=range(len(LINES)))
def test_the_sandbox_answers_and_keeps_as_the_real_server(text: str) -> None:
    table = f"test{uuid.uuid4().hex[:12]}"
    with running_influxdb(flavour="questdb") as sandbox:
        try:
            ours, theirs = (said(url, "POST", "/write", named(text, table), {}) for url in (sandbox.url, URL))
            if "timestamp" in text:  # which words it has for that differs from time to time
                assert theirs["body"].pop("message") and ours["body"].pop("message")
            assert ours == theirs
            if not any(part in text for part in ("\x01", "5t", "@.", "@-")):
                stored = requests.get(f"{sandbox.url}/sandbox/points", timeout=60).json()
                rows = [{**dict(one["tags"]), **one["fields"]} for one in sorted(stored, key=lambda one: one["time"])]
                assert [row for row in rows if row] == [row for row in real_rows(table) if row]
        finally:
            requests.get(f"{URL}/exec", params={"query": f"drop table if exists '{table}'"}, timeout=60)


@pytest.mark.parametrize(("method", "path", "body", "headers"), [
    ("POST", "/write?db=x&precision=zz", b"m f=1 5\n", {}),
    ("POST", "/write?db=x", b"", {}),
    ("POST", "/api/v2/write?org=o&bucket=nosuch&precision=us", b"", {"Authorization": "Token none"}),
    ("POST", "/write?db=x", b"m f=1", {"Content-Encoding": "gzip"}),
    ("POST", "/write?db=x", gzip.compress(b"bad\n", mtime=0), {"Content-Encoding": "gzip"}),
    ("POST", "/api/v3/write_lp?db=x", b"m f=1", {}),
    ("GET", "/write", b"", {}), ("GET", "/ping", b"", {}), ("POST", "/ping", b"", {}), ("GET", "/health", b"", {}),
    ("GET", "/nosuch", b"", {}), ("POST", "/nosuch", b"", {}), ("POST", "/api/v2/query?org=o", b"{}", {}),
    ("GET", "/query?q=SHOW+DATABASES", b"", {})])
def test_the_sandbox_answers_other_requests_as_the_real_server(
        method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
    with running_influxdb(flavour="questdb") as sandbox:
        assert said(sandbox.url, method, path, body, headers) == said(URL, method, path, body, headers)


def has_dedup(url: str, table: str) -> bool:
    """Whether a table has DEDUP UPSERT KEYS."""
    answer = requests.get(f"{url}/exec", params={"query": "SELECT table_name, dedup FROM tables()"}, timeout=60)
    return bool(dict(answer.json()["dataset"])[table])


def test_rows_written_twice_are_there_twice_until_the_table_has_dedup() -> None:
    table = f"test{uuid.uuid4().hex[:12]}"
    body = f"{table},t=a f=1 5000\n{table},t=b f=2 5000\n".encode()
    with running_influxdb(flavour="questdb") as sandbox:
        try:
            for url in (sandbox.url, URL):
                for _ in range(2):
                    requests.post(f"{url}/write", data=body, timeout=60).raise_for_status()
                assert not has_dedup(url, table)
            assert requests.get(f"{sandbox.url}/sandbox/count", timeout=60).json()["points"] == 4
            assert len(real_rows(table)) == 4
            for url in (sandbox.url, URL):
                query = f"ALTER TABLE '{table}' DEDUP ENABLE UPSERT KEYS(timestamp, t)"
                assert requests.get(f"{url}/exec", params={"query": query}, timeout=60).json() == {"ddl": "OK"}
                requests.post(f"{url}/write", data=body, timeout=60).raise_for_status()
                wait_until(partial(has_dedup, url, table), "DEDUP", SEEN_SECONDS)
            # Of those that were there before, the real one keeps one of each key once it writes their part anew.
            assert requests.get(f"{sandbox.url}/sandbox/count", timeout=60).json()["points"] == 2
            assert len(real_rows(table)) in (2, 4)
        finally:
            requests.get(f"{URL}/exec", params={"query": f"drop table if exists '{table}'"}, timeout=60)
