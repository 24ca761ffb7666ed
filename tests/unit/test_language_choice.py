"""Which servers give wrong strings in Flux."""

import pytest

from stages.influxdb.flavour import Flavour
from stages.languages.choice import mixes_strings


@pytest.mark.parametrize(("product", "version", "wrong"), [
    ("InfluxDB OSS", "v2.7.9", False), ("InfluxDB OSS", "v2.7.10", True), ("InfluxDB OSS", "2.7.12", True),
    ("InfluxDB OSS", "2.8.0", True), ("InfluxDB OSS", "2.8.1", False), ("InfluxDB OSS", "", False),
    ("InfluxDB Cloud", "2.7.12", False)])
def test_versions_that_mix_strings_up(product: str, version: str, wrong: bool) -> None:
    assert mixes_strings(Flavour(product, version, "v2")) == wrong
    assert mixes_strings(None)
