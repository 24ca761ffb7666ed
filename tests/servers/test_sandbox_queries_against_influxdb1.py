"""The sandbox posing as InfluxDB 1.6.7 answers a source's queries line for line with the same JSON as the real one."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.influxdb_servers import running_influxdb

#: Tags that are hard to ask for.
HARD = [r'h,t=q"\ü\ [x]/ f=1 1', "h,t=it's f=2 2", "h f=3 3", r"h,t=a\b f=4 4", "h,t=cr\rx f=5 5",
        't,g=x t="field",f=6 6']
SELECT_H = 'SELECT "t"::tag, "f"::float FROM "h" WHERE'
LINES = [r'm,a=x f=1,i=2i,s="q\"u,o],[te",b=t 10', "m f=2.5 11", "m,a=y i=9223372036854775807i 12", 'm,c=1 s="" 13',
         r'odd\ "m,t\ g=a\,b x=1e300,t\ g=5 -12', "ü,t=ö v=1e21 5", "ü v=1e-9 6",
         *(f"many v={n}i {n}" for n in range(25)), *HARD]
SELECT_M = 'SELECT "a"::tag, "c"::tag, "b"::boolean, "f"::float, "i"::integer, "s"::string FROM "m"'
QUERIES = [
    'SELECT "x" FROM "x" WHERE time = 0 LIMIT 1; SHOW MEASUREMENTS',
    'SHOW TAG KEYS FROM "m"; SHOW FIELD KEYS FROM "m"',
    'SHOW TAG KEYS FROM "many"; SHOW FIELD KEYS FROM "many"',
    'SHOW TAG KEYS FROM "nothing"; SHOW FIELD KEYS FROM "nothing"',
    'SHOW TAG KEYS FROM "autogen"."m"',
    f"{SELECT_M} ORDER BY time ASC", f"{SELECT_M} WHERE time >= 11 AND time < 13 ORDER BY time ASC LIMIT 10",
    f"{SELECT_M} WHERE time < 12 ORDER BY time ASC LIMIT 1", f"{SELECT_M} WHERE time >= 100 ORDER BY time ASC",
    'SELECT "t g"::tag, "t g"::float, "x"::float FROM "odd \\"m" WHERE time >= -20 AND time < 0 ORDER BY time ASC',
    'SELECT "t"::tag, "v"::float FROM "ü" ORDER BY time ASC',
    'SELECT "f"::string, "i"::float FROM "m" ORDER BY time ASC',
    *(f"{SELECT_H} time >= 0 AND {condition} ORDER BY time ASC LIMIT 10" for condition in (
        r'"t"::tag =~ /^(?s:q\"\\ü .*\/|it\'s)$/', r'"t"::tag !~ /^(?s:.+)$/', r'"t"::tag =~ /^(?s:cr\x0dx|a\\.)$/',
        """("t"::tag !~ /^(?s:a.*)$/ AND "t"::tag != '')""", """("t"::tag =~ /^(?s:i.*)$/ OR "t"::tag = '')""",
        """"none"::tag = ''""", """"none"::tag != ''""")),
    """SELECT "t"::string FROM "t" WHERE "t"::tag = '' ORDER BY time ASC""",
    'SELECT * FROM "ü" GROUP BY * LIMIT 1 SLIMIT 3', 'SELECT * FROM "many" GROUP BY * LIMIT 1 SLIMIT 3',
    'SELECT * FROM "none" GROUP BY * LIMIT 1 SLIMIT 3',
    'SELECT "v"::integer FROM "many" ORDER BY time ASC', 'SELECT "v"::integer FROM "many" ORDER BY time ASC LIMIT 12',
]


@pytest.fixture(scope="module")
def urls(influxdb1: str) -> Iterator[tuple[str, str]]:
    """The real server and the sandbox, with the same points."""
    requests.post(f"{influxdb1}/query", params={"q": "CREATE DATABASE compared"}, timeout=60).raise_for_status()
    with running_influxdb(flavour="v1") as server:
        for url, name in ((influxdb1, "compared"), (server.url, "sandbox")):
            answer = requests.post(f"{url}/write?db={name}", data="\n".join(LINES).encode(), timeout=60)
            assert answer.status_code == 204, answer.text
        yield influxdb1, server.url


def ask(url: str, database: str, query: str) -> tuple[int, list[Any]]:
    """Status and lines of the answer."""
    answer = requests.post(f"{url}/query?db={database}&epoch=ns&chunked=true&chunk_size=10", data={"q": query},
                           timeout=60)
    return answer.status_code, [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_answered_as_the_real_server_does(urls: tuple[str, str], query: str) -> None:
    real, sandbox = urls
    assert ask(sandbox, "sandbox", query) == ask(real, "compared", query)


def test_retention_policies_are_answered_as_the_real_server_does(urls: tuple[str, str]) -> None:
    real, sandbox = urls
    for text in ('CREATE RETENTION POLICY "o d" ON "{0}" DURATION 0s REPLICATION 1', 'SHOW RETENTION POLICIES ON "{0}"',
                 'SHOW FIELD KEYS FROM "o d"./.*/', 'SHOW TAG KEYS FROM "o d"."m"; SHOW FIELD KEYS FROM "o d"."m"',
                 'SHOW FIELD KEYS FROM "autogen"./.*/ LIMIT 1',
                 'SELECT "f"::float FROM "gone"."m"; SHOW TAG KEYS FROM "m"',
                 'ALTER RETENTION POLICY "o d" ON "{0}" DEFAULT', 'SHOW RETENTION POLICIES ON "{0}"',
                 'SELECT "f"::float FROM "m" ORDER BY time ASC', 'ALTER RETENTION POLICY "autogen" ON "{0}" DEFAULT',
                 'DROP RETENTION POLICY "o d" ON "{0}"', 'SHOW RETENTION POLICIES ON "{0}"'):
        assert ask(sandbox, "sandbox", text.format("sandbox")) == ask(real, "compared", text.format("compared"))


def test_a_missing_database_is_answered_as_the_real_server_does(urls: tuple[str, str]) -> None:
    real, sandbox = urls
    for database in ("nowhere", ""):
        assert ask(sandbox, database, QUERIES[0])[1][0] == ask(real, database, QUERIES[0])[1][0]


def test_what_the_sandbox_does_not_understand_it_says(urls: tuple[str, str]) -> None:
    status, lines = ask(urls[1], "sandbox", "SELECT mean(v) FROM many")
    assert status == 400 and "the sandbox understands only" in lines[0]["error"]
