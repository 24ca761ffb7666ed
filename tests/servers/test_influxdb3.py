"""A real InfluxDB 3, which `INFLUXDB3_TEST_URL` names (and `INFLUXDB3_TEST_TOKEN` where it asks for one).

`INFLUXDB3_TEST_POINTS=1000000 ... --timeout 600` moves as many.
"""

import os
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline.testbed.harness.waiting import wait_until
from tests.support import every_kind, influxdb_servers
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, check_that_only_bad_ones_are_rejected
from tests.support.sources import Copy, Source

URL = os.environ.get("INFLUXDB3_TEST_URL", "")
TOKEN = os.environ.get("INFLUXDB3_TEST_TOKEN", "")
POINTS = int(os.environ.get("INFLUXDB3_TEST_POINTS", "20_000"))
pytestmark = pytest.mark.skipif(not URL, reason="INFLUXDB3_TEST_URL names no server")
ask = partial(influxdb_servers.ask, URL, f"Bearer {TOKEN}")


@pytest.fixture
def database() -> Iterator[str]:
    """A name for a database, which is deleted after the test."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    ask("DELETE", "/api/v3/configure/database", params={"db": name})


@pytest.mark.parametrize(("language", "transport"), [("sql", "http"), ("influxql", "flight")])
def test_points_of_every_kind_go_into_a_real_influxdb_3_and_come_back(
        influxdb1: str, database: str, sandbox: SandboxIggy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        language: str, transport: str) -> None:
    monkeypatch.setenv("INFLUX_TOKEN", TOKEN)
    old, again = f"{database}-old", f"{database}-again"
    for name in (old, again):
        every_kind.ask(influxdb1, f'CREATE DATABASE "{name}"')
    # InfluxDB 3 has one column of a name, a tag or a field.
    every_kind.write(influxdb1, old, (line.replace(",b=", ",c=") for line in every_kind.lines(POINTS)))
    new = f'version = "v3"\ndatabase = "{database}"'
    for example, name, options, source in (
            ("source-round-trip", old, new, ""),
            ("source-round-trip-back", again, f'{new}\ntransport = "{transport}"', f'language = "{language}"')):
        run = Copy(tmp_path / example, example, sandbox.address, {
            "http://127.0.0.1:8086": influxdb1, "http://127.0.0.1:8087": URL,
            'database = "telemetry"': f'database = "{name}"',
            'version = "v2"\norg = "my-org"\nbucket = "telemetry"': options}, source=source)
        try:
            assert run.ends(500) == 0
        finally:
            run.close()
    every_kind.check_databases(influxdb1, again, old, POINTS)


@pytest.mark.parametrize("transport", ["http", "flight"])
@pytest.mark.parametrize("language", ["sql", "influxql"])
def test_rows_without_all_fields_come_whole_page_by_page(
        database: str, sandbox: SandboxIggy, stream: str, tmp_path: Path, language: str, transport: str) -> None:
    lines = [f"m f={n},g={n} {n}" if n % 3 == 0 else f"m f={n} {n}" for n in range(600)]
    ask("POST", "/api/v3/write_lp", params={"db": database, "precision": "nanosecond"}, data="\n".join(lines))
    run = Source(tmp_path, sandbox.address, URL, f'version = "v3"\ndatabase = "{database}"\ntoken = "{TOKEN}"\n'
                 f'transport = "{transport}"', stream, source=f'language = "{language}"\npage_size = 50',
                 arguments=["--until-caught-up"])
    try:
        assert run.ends(60) == 0
    finally:
        run.close()
    assert sorted((point["time"], point["fields"]) for point in run.points()) == [
        (n, {"f": n, "g": n} if n % 3 == 0 else {"f": n}) for n in range(600)]


@pytest.mark.parametrize("transport", ["http", "flight"])
@pytest.mark.parametrize(("mistake", "words"), [
    ({"token": "wrong"}, ("answered 401", "answered: unauthorized")),
    ({"database": "not-there"}, "database not found: not-there")])
def test_a_source_that_is_told_wrong_says_what_and_waits(
        database: str, sandbox: SandboxIggy, stream: str, tmp_path: Path, mistake: dict[str, str],
        words: str | tuple[str, str], transport: str) -> None:
    ask("POST", "/api/v3/configure/database", json={"db": database})
    options = "\n".join(f'{name} = "{value}"' for name, value in
                        {"database": database, "token": TOKEN, "transport": transport, **mistake}.items())
    said = words if isinstance(words, str) else words[transport == "flight"]
    run = Source(tmp_path, sandbox.address, URL, f'version = "v3"\n{options}', stream)
    try:
        wait_until(lambda: said in run.log() and "paused, nothing is lost" in run.log(), "the words")
        assert run.stop() == 0
    finally:
        run.close()


@pytest.mark.parametrize("transport", ["http", "flight"])
@pytest.mark.parametrize(("query", "words"), [
    ("SELECT time, nope FROM m WHERE time >= '$from' AND time < '$to'", "No field named nope"),
    ("SELEC time FROM m WHERE time >= '$from' AND time < '$to'", "Expected: an SQL statement, found: SELEC")])
def test_a_bad_query_is_named_at_the_start(
        database: str, sandbox: SandboxIggy, stream: str, tmp_path: Path, query: str, words: str,
        transport: str) -> None:
    ask("POST", "/api/v3/write_lp", params={"db": database}, data="m f=1")
    run = Source(tmp_path, sandbox.address, URL, f'version = "v3"\ndatabase = "{database}"\ntoken = "{TOKEN}"\n'
                 f'transport = "{transport}"', stream, source=f'query = "{query}"\nmeasurement = "m"')
    try:
        assert run.ends() == 1
        assert words in run.log() and "correct it, or the source's influxdb table" in run.log()
        assert "Traceback" not in run.log()
    finally:
        run.close()


@pytest.mark.parametrize(("version", "options"), [
    ("v1", ""), ("v2", ""), ("v3", ""), ("auto", ""), ("v3", "accept_partial = false"), ("v3", "no_sync = true")])
def test_a_sink_writes_what_a_real_influxdb_3_takes_and_rejects_the_rest(
        database: str, sandbox: SandboxIggy, stream: str, tmp_path: Path, version: str, options: str) -> None:
    target = f'version = "{version}"\ndatabase = "{database}"\ntoken = "{TOKEN}"\n{options}'
    if version == "v2":
        target = f'version = "v2"\norg = "o"\nbucket = "{database}"\ntoken = "{TOKEN}"'
    check_that_only_bad_ones_are_rejected(sandbox, stream, tmp_path, URL, target)
    asked = {"db": database, "q": f"SELECT count(value) AS n FROM {TOPIC}", "format": "json"}
    # Without a sync, what was acknowledged is seen a little later.
    wait_until(lambda: ask("POST", "/api/v3/query_sql", json=asked).json() == [{"n": 5_000}], "5,000 points")
