"""A real InfluxDB 2, which `INFLUXDB2_TEST_URL` and `INFLUXDB2_TEST_TOKEN` name (and `INFLUXDB2_TEST_ORG`: my-org).

`INFLUXDB2_TEST_POINTS=1000000 ... --timeout 600` moves as many.
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
from tests.support.sinks import check_that_only_bad_ones_are_rejected
from tests.support.sources import FIRST_TIME, Copy, Source

URL = os.environ.get("INFLUXDB2_TEST_URL", "")
TOKEN = os.environ.get("INFLUXDB2_TEST_TOKEN", "")
ORG = os.environ.get("INFLUXDB2_TEST_ORG", "my-org")
POINTS = int(os.environ.get("INFLUXDB2_TEST_POINTS", "20_000"))
pytestmark = pytest.mark.skipif(not URL, reason="INFLUXDB2_TEST_URL names no server")
ask = partial(influxdb_servers.ask, URL, f"Token {TOKEN}")


@pytest.fixture
def bucket() -> Iterator[str]:
    """A new bucket, which is deleted after the test."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    org = ask("GET", "/api/v2/orgs", params={"org": ORG}).json()["orgs"][0]["id"]
    made = ask("POST", "/api/v2/buckets", json={"orgID": org, "name": name, "retentionRules": []}).json()
    yield name
    ask("DELETE", f"/api/v2/buckets/{made['id']}")


@pytest.mark.parametrize("language", ["auto", "flux"])
def test_points_of_every_kind_go_into_a_real_influxdb_2_and_come_back(
        influxdb1: str, bucket: str, sandbox: SandboxIggy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        language: str) -> None:
    monkeypatch.setenv("INFLUX_TOKEN", TOKEN)
    lines = list(every_kind.lines(POINTS))
    if language == "flux":  # without empty strings, which 2.7.10 to 2.8.0 answer wrongly
        lines = [line.replace('=""', '="e"') for line in lines]
    old, again, expected = (f"{bucket}-{what}" for what in ("old", "again", "expected"))
    for database in (old, again, expected):
        every_kind.ask(influxdb1, f'CREATE DATABASE "{database}"')
    every_kind.write(influxdb1, old, lines)
    every_kind.write(influxdb1, expected, lines if language == "auto" else [line.replace("\r", "") for line in lines])
    new = {"http://127.0.0.1:8086": influxdb1, "http://127.0.0.1:8087": URL, 'org = "my-org"': f'org = "{ORG}"',
           'bucket = "telemetry"': f'bucket = "{bucket}"'}
    for example, database in (("source-round-trip", old), ("source-round-trip-back", again)):
        run = Copy(tmp_path / example, example, sandbox.address,
                   {**new, 'database = "telemetry"': f'database = "{database}"'},
                   source=f'language = "{language}"' if example == "source-round-trip-back" else "")
        try:
            assert run.ends(500) == 0
        finally:
            run.close()
    every_kind.check_databases(influxdb1, again, expected, POINTS)


@pytest.mark.parametrize(("mistake", "words"), [
    ({"token": "wrong"}, "answered 401 Unauthorized; correct the token"),
    ({"bucket": "not-there"}, 'database not found: not-there; create the bucket'),
    ({"org": "not-there", "language": "flux"}, 'organization name "not-there" not found; create the bucket')])
def test_a_source_that_is_told_wrong_says_what_and_waits(bucket: str, sandbox: SandboxIggy, stream: str, tmp_path: Path,
                                                         mistake: dict[str, str], words: str) -> None:
    names = {"org": ORG, "bucket": bucket, "token": TOKEN, **mistake}
    language = names.pop("language", "auto")
    options = "\n".join(f'{name} = "{value}"' for name, value in names.items())
    run = Source(tmp_path, sandbox.address, URL, f'version = "v2"\n{options}', stream,
                 source=f'language = "{language}"')
    try:
        wait_until(lambda: words in run.log() and "paused, nothing is lost" in run.log(), "the words")
        assert run.stop() == 0
    finally:
        run.close()


def test_a_sink_writes_what_a_real_influxdb_2_takes_and_rejects_the_rest(
        bucket: str, sandbox: SandboxIggy, stream: str, tmp_path: Path) -> None:
    target = f'version = "v2"\norg = "{ORG}"\nbucket = "{bucket}"\ntoken = "{TOKEN}"'
    check_that_only_bad_ones_are_rejected(sandbox, stream, tmp_path, URL, target)
    asked = (f'from(bucket: "{bucket}") |> range(start: 0) |> filter(fn: (r) => r._field == "value") '
             "|> group() |> count()")
    answer = ask("POST", "/api/v2/query", params={"org": ORG}, json={"query": asked}).text
    assert answer.split()[1].endswith(",5000"), answer


def test_flux_brings_the_values_of_a_field_in_every_shard_whatever_its_type(
        bucket: str, sandbox: SandboxIggy, stream: str, tmp_path: Path) -> None:
    week = 7 * 86_400 * 10**9
    lines = [f"m,t=a f=1.5 {FIRST_TIME}", f'm,t=a f="text" {FIRST_TIME + week}',
             f"m,t=b f=true {FIRST_TIME + 3 * week}", f"m,t=b f=2i {FIRST_TIME + 100 * week}"]
    for line in lines:
        ask("POST", f"/api/v2/write?org={ORG}&bucket={bucket}", data=line.encode())
    database = f'version = "v2"\nbucket = "{bucket}"\norg = "{ORG}"\ntoken = "{TOKEN}"'
    with Source(tmp_path, sandbox.address, URL, database, stream, source='language = "flux"', start=False,
                arguments=["--until-caught-up"]) as run:
        assert run.ends() == 0, run.log()
        assert [point["fields"]["f"] for point in sorted(run.points(), key=lambda one: int(one["time"]))] == [
            1.5, "text", True, 2]


def test_every_policy_that_is_mapped_is_read_with_its_own_tags_also_without_a_default(
        bucket: str, sandbox: SandboxIggy, stream: str, tmp_path: Path) -> None:
    org = ask("GET", "/api/v2/orgs", params={"org": ORG}).json()["orgs"][0]["id"]
    made = {}
    try:
        for policy, line in (("one", "m,t=a f=1.5"), ("o d.d ü", 'm,u=b f="text"')):
            name = f"{bucket}-db/{policy}"
            made[policy] = ask("POST", "/api/v2/buckets",
                               json={"orgID": org, "name": name, "retentionRules": []}).json()
            ask("POST", "/api/v2/write", params={"org": ORG, "bucket": name}, data=f"{line} {FIRST_TIME}".encode())
        # Buckets of such names are policies of the database, none of them the default one.
        options = 'retention_policies = ["one", "o d*"]'
        with Source(tmp_path, sandbox.address, URL, f'database = "{bucket}-db"\ntoken = "{TOKEN}"',
                    stream, source=options, output='constant_tags = { rp = "{retention_policy}" }', start=False,
                    arguments=["--until-caught-up"]) as run:
            assert run.ends() == 0, run.log()
            found = sorted(((point["tags"], point["fields"]) for point in run.points()), key=str)
            assert found == [({"rp": "o d.d ü", "u": "b"}, {"f": "text"}), ({"rp": "one", "t": "a"}, {"f": 1.5})]
        with Source(tmp_path / "only", sandbox.address, URL, f'database = "{bucket}-db"\ntoken = "{TOKEN}"\n'
                    'retention_policy = "o d.d ü"', f"{stream}-only", start=False,
                    arguments=["--until-caught-up"]) as run:
            assert run.ends() == 0, run.log()
            assert [(point["tags"], point["fields"]) for point in run.points()] == [({"u": "b"}, {"f": "text"})]
    finally:
        for one in made.values():
            ask("DELETE", f"/api/v2/buckets/{one['id']}")
