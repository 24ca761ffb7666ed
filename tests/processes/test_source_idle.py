"""Measurements without new points are asked together, and what is written to some of them is read all the same."""

import time
from pathlib import Path

import pytest

from pipeline.wire.source import SourceStatus
from tests.processes.test_source_gaps import LANGUAGES
from tests.support.iggy_servers import RunningIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sinks import SandboxInflux
from tests.support.sources import Source, write

#: More than a probe in Flux names.
MEASUREMENTS = 60


def earliest(status: SourceStatus) -> int:
    """The watermark that is furthest behind."""
    return min(one.watermark for one in status.measurements)


@pytest.mark.parametrize("language", ["v1", "v2 flux"])
def test_idle_measurements_pass_time_without_pages_until_points_come(
        tmp_path: Path, iggy: RunningIggy, stream: str, language: str) -> None:
    flavour, table, more, _ = LANGUAGES[language]
    with running_influxdb(flavour=flavour) as server:
        influxdb = SandboxInflux(server.url, flavour)
        write(influxdb, [f"m{n} f=1 1" for n in range(MEASUREMENTS)])
        source = Source(tmp_path, iggy.address, influxdb.url, table, stream, source=more)
        try:
            status = source.wait_for(lambda s: s.points == MEASUREMENTS and s.caught_up)
            before = status
            while True:
                since = earliest(before) + 300_000_000
                status = source.wait_for(lambda s, since=since: earliest(s) > since)  # type: ignore[misc]
                if status.pages == before.pages:  # not around a multiple of 15 minutes
                    break
                before = status
            write(influxdb, [f"m{n} f=2 {time.time_ns() + 1_000_000_000}" for n in range(0, MEASUREMENTS, 7)])
            source.wait_for(lambda s: s.points == MEASUREMENTS + 9)
            assert source.stop() == 0
        finally:
            source.close()
        found = [point["measurement"] for point in source.points() if point["fields"]["f"] == 2]
        assert sorted(found) == sorted(f"m{n}" for n in range(0, MEASUREMENTS, 7))
