"""Real servers that the tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.support.influxdb_servers import running_influxdb1


@pytest.fixture(scope="session")
def influxdb1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one InfluxDB 1.6.7 for all tests; each makes a database of its own."""
    with running_influxdb1(tmp_path_factory.mktemp("influxdb1")) as url:
        yield url
