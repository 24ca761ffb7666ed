"""Points of every kind, by the examples: InfluxDB 1.6.7 -> Iggy -> sandbox v2, and fewer the way back.

`ROUND_TRIP_POINTS=1000000 ROUND_TRIP_BACK_POINTS=1000000` takes a million each way."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.testbed.sandbox.influxdb.answers import Identity
from pipeline.testbed.sandbox.influxdb.lines import escaped_key
from pipeline.testbed.sandbox.influxdb.server import InfluxServer
from tests.support import every_kind
from tests.support.iggy_servers import SandboxIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sources import Copy, Source, read_partitions

#: Points of the way there. Every combination of values is among them: they repeat after 291,720 points.
POINTS = int(os.environ.get("ROUND_TRIP_POINTS", "300_000"))
#: Points of the way back, by InfluxQL.
BACK_POINTS = int(os.environ.get("ROUND_TRIP_BACK_POINTS", "100_000"))
#: And by Flux.
FLUX_POINTS = 20_000
#: Longest wait for a million points on a busy machine, seconds.
LONG_SECONDS = 400.0
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("round trip"), pytest.mark.timeout(900)]
#: A float's value in a line, or what looks like one in a text: it is the same text on both sides.
FLOAT = re.compile(r"(?<==)-?[0-9.]+(?:e[+-]?[0-9]+)?(?=[, ])")
NEW = Identity(org="my-org", bucket="telemetry", token="")


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Every point."""
    return list(every_kind.lines(max(POINTS, BACK_POINTS)))


@pytest.fixture(scope="module")
def old(influxdb1: str, lines: list[str]) -> str:
    """An InfluxDB 1.6.7 whose database `telemetry` has them."""
    every_kind.ask(influxdb1, "CREATE DATABASE telemetry")
    every_kind.write(influxdb1, "telemetry", lines[:POINTS])
    return influxdb1


@pytest.fixture
def new() -> Iterator[InfluxServer]:
    """An empty sandbox InfluxDB 2."""
    with running_influxdb(identity=NEW) as server:
        yield server


def check_same(found: list[str], expected: list[str]) -> None:
    """The same lines, in whatever order; floats may be written otherwise. The first differences are shown."""
    wanted, come = ({FLOAT.sub(lambda match: repr(float(match[0])), line) for line in lines}
                    for lines in (expected, found))
    missing, strange = wanted - come, come - wanted
    assert (len(missing), len(strange), sorted(missing)[:3], sorted(strange)[:3]) == (0, 0, [], [])


def test_every_point_comes_to_iggy_once_with_its_types(
        old: str, lines: list[str], sandbox: SandboxIggy, stream: str, tmp_path: Path) -> None:
    run = Source(tmp_path, sandbox.address, old, 'version = "v1"\ndatabase = "telemetry"', stream,
                 output='format = "line_protocol"\npartitions = 4', arguments=["--until-caught-up"])
    try:
        assert run.ends(LONG_SECONDS) == 0
        parts = read_partitions(sandbox.address, stream, "out")
    finally:
        run.close()
    found = [message.payload().decode() for part in parts for message in part]
    assert len(found) == POINTS
    check_same(found, lines[:POINTS])


def test_every_point_reaches_another_database_though_processes_are_killed(
        influxdb1: str, new: InfluxServer, lines: list[str], sandbox: SandboxIggy, tmp_path: Path) -> None:
    # All with odd values, whose combinations repeat last, and a third of the others.
    some = [line for number, line in enumerate(lines[:POINTS]) if number % 10 == 7 or number % 100 < 30]
    every_kind.ask(influxdb1, "CREATE DATABASE some")
    every_kind.write(influxdb1, "some", some)
    run = Copy(tmp_path, "source-round-trip", sandbox.address, {
        "http://127.0.0.1:8086": influxdb1, "http://127.0.0.1:8087": new.url,
        'database = "telemetry"': 'database = "some"'}, source="page_size = 1_000\npages_in_flight = 1")
    try:
        for share, victim in enumerate(("query", "convert-0", "produce", "source-coordinator"), 1):
            enough = share * len(some) // 20
            run.wait_for(lambda status, enough=enough: status.points >= enough, seconds=LONG_SECONDS)  # type: ignore[misc]
            run.kill(victim)
        run.wait_for(lambda status: status.points >= len(some) // 20, seconds=LONG_SECONDS)
        run.close()
        run.start()
        assert run.ends(LONG_SECONDS) == 0
    finally:
        run.close()
    bucket = new.buckets["telemetry"]
    assert bucket.count == len(some)
    heads = {(name, tags): escaped_key(name, tags)
             for name in bucket.measurements() for tags, *_ in bucket.texts(name, -2**63, 2**63)}
    check_same([f"{heads[name, tags]} {fields.decode()} {time}" for name in bucket.measurements()
                for tags, time, fields in bucket.texts(name, -2**63, 2**63)], some)


@pytest.mark.parametrize(("language", "points"), [("influxql", BACK_POINTS), ("flux", FLUX_POINTS)])
def test_points_come_back_as_they_were_but_for_the_carriage_returns_of_flux(
        new: InfluxServer, influxdb1: str, lines: list[str], sandbox: SandboxIggy, tmp_path: Path, language: str,
        points: int) -> None:
    expected, again = f"expected_{language}", f"again_{language}"
    for database in (expected, again):
        every_kind.ask(influxdb1, f"CREATE DATABASE {database}")
    kept = lines[:points] if language == "influxql" else [line.replace("\r", "") for line in lines[:points]]
    every_kind.write(influxdb1, expected, kept)
    every_kind.write(new.url, "telemetry", lines[:points])
    run = Copy(tmp_path, "source-round-trip-back", sandbox.address, {
        "http://127.0.0.1:8086": influxdb1, "http://127.0.0.1:8087": new.url,
        'database = "telemetry"': f'database = "{again}"'}, source=f'language = "{language}"')
    try:
        assert run.ends(LONG_SECONDS) == 0
    finally:
        run.close()
    every_kind.check_databases(influxdb1, again, expected, points)
