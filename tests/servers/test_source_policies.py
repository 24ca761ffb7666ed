"""Every retention policy of an InfluxDB 1.6.7 to Iggy: odd names, other types, and policies that come and go."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.support.iggy_servers import SandboxIggy
from tests.support.sources import FIRST_TIME, Source

ODD = 'o dd.{x} "p" ü'
OUTPUT = """constant_tags = { policy = "{retention_policy}", origin = "{source}" }
headers = { rp = "{retention_policy}" }"""


def query(url: str, text: str) -> None:
    """One InfluxQL statement, which must succeed."""
    answer = requests.post(f"{url}/query", params={"q": text}, timeout=60)
    assert "error" not in answer.text, answer.text


def write(url: str, database: str, policy: str, lines: list[str]) -> None:
    """Stores lines in a retention policy."""
    answer = requests.post(f"{url}/write", params={"db": database, "rp": policy}, data="\n".join(lines).encode(),
                           timeout=60)
    assert answer.status_code == 204, answer.text


def create(url: str, database: str, policy: str) -> None:
    """Makes a retention policy."""
    name = policy.replace('"', '\\"')
    query(url, f'CREATE RETENTION POLICY "{name}" ON "{database}" DURATION INF REPLICATION 1')


@contextmanager
def reading(folder: Path, sandbox: SandboxIggy, url: str, database: str, stream: str, source: str,
            **options: Any) -> Iterator[Source]:
    """A source that reads a database."""
    run = Source(folder / "run", sandbox.address, url, f'version = "v1"\ndatabase = "{database}"', stream,
                 source=source, **options)
    try:
        yield run
    finally:
        run.close()


def found(run: Source) -> list[tuple[str, dict[str, str], dict[str, Any]]]:
    """Measurement, tags and fields of all points, without the source's name."""
    points = run.points()
    assert all(point["tags"].pop("origin") == "source" for point in points)
    return sorted(((point["measurement"], point["tags"], point["fields"]) for point in points), key=str)


def test_every_policy_is_read_and_new_ones_are_found_whatever_becomes_the_default(
        tmp_path: Path, sandbox: SandboxIggy, influxdb1: str, stream: str) -> None:
    database = "several"
    query(influxdb1, f"CREATE DATABASE {database}")
    create(influxdb1, database, ODD)
    create(influxdb1, database, "private")
    write(influxdb1, database, "autogen", [f"m,t=a f=1 {FIRST_TIME}", f"alone,policy=own x=1i {FIRST_TIME}"])
    write(influxdb1, database, ODD, [f"m,t=a f=2i {FIRST_TIME}", f'm,q=z g="s" {FIRST_TIME}'])
    write(influxdb1, database, "private", [f"m,t=a f=3 {FIRST_TIME}"])
    expected = [("alone", {"policy": "own"}, {"x": 1}), ("m", {"policy": "autogen", "t": "a"}, {"f": 1.0}),
                ("m", {"policy": ODD, "t": "a"}, {"f": 2}), ("m", {"policy": ODD, "q": "z"}, {"g": "s"})]
    with reading(tmp_path, sandbox, influxdb1, database, stream,
                 'retention_policies = ["auto*", "o dd*", "late"]', output=OUTPUT) as run:
        run.wait_for(lambda status: status.points == 4)
        assert found(run) == sorted(expected, key=str)
        assert "o dd.{x}" in str([message.user_headers() for message in run.messages()])
        create(influxdb1, database, "late")
        query(influxdb1, f'ALTER RETENTION POLICY "late" ON "{database}" DEFAULT')
        write(influxdb1, database, "late", [f"m,t=a f=true {FIRST_TIME}"])
        run.wait_for(lambda status: status.points == 5)
        # A policy that is gone concerns its own measurements only.
        name = ODD.replace('"', '\\"')
        query(influxdb1, f'DROP RETENTION POLICY "{name}" ON "{database}"')
        write(influxdb1, database, "autogen", [f"new f=4 {FIRST_TIME}"])
        run.wait_for(lambda status: status.points == 6)
        assert run.stop() == 0
        run.start("--until-caught-up")
        assert run.ends() == 0
        assert found(run) == sorted([*expected, ("m", {"policy": "late", "t": "a"}, {"f": True}),
                                     ("new", {"policy": "autogen"}, {"f": 4.0})], key=str)


def test_another_default_policy_is_told_where_the_default_is_read(
        tmp_path: Path, sandbox: SandboxIggy, influxdb1: str, stream: str) -> None:
    database = "default_policy"
    query(influxdb1, f"CREATE DATABASE {database}")
    write(influxdb1, database, "autogen", [f"m f=1 {FIRST_TIME}"])
    with reading(tmp_path, sandbox, influxdb1, database, stream, "") as run:
        run.wait_for(lambda status: status.points == 1)
        create(influxdb1, database, "other")
        query(influxdb1, f'ALTER RETENTION POLICY "other" ON "{database}" DEFAULT')
        run.wait_for_log("default retention policy of the database is now other, and was autogen")
