"""Real servers that the tests of this folder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.testbed.bench.influxd import influxd
from pipeline.testbed.harness.influxd import Influxd
from tests.support.influxdb_servers import running_influxdb1


@pytest.fixture(scope="session")
def influxdb1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one InfluxDB 1.6.7 for all tests; each makes a database of its own."""
    with running_influxdb1(tmp_path_factory.mktemp("influxdb1")) as url:
        yield url


@pytest.fixture
def own_influxdb1(tmp_path: Path) -> Iterator[Influxd]:
    """An InfluxDB 1.6.7 of this test's own, which it may stop, with the database `DATABASE` of `bench.influxd`."""
    with influxd(tmp_path / "influxd") as running:
        yield running
