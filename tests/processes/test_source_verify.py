"""`pipeline verify`: one missing and one changed point are found, and equal data are."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes.test_source_gaps import LANGUAGES
from tests.support.iggy_servers import RunningIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sinks import SandboxInflux
from tests.support.sources import FIRST_TIME, Source, lines_of, write

OUTPUTS = {
    "v1": "", "v2 flux": 'format = "line_protocol"\nshape = "long"',
    "v3 sql": 'format = "msgpack"\nbatch_points = 100\ncompression = "gzip"'}


def verify(source: Source, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the result."""
    done = subprocess.run([sys.executable, "-m", "pipeline", "verify", "-c", str(source.config), "--json", *arguments],
                          capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("language", OUTPUTS)
def test_one_missing_and_one_changed_point_are_found(tmp_path: Path, iggy: RunningIggy, stream: str,
                                                     language: str) -> None:
    flavour, table, more, _ = LANGUAGES[language]
    with running_influxdb(flavour=flavour) as server:
        influxdb = SandboxInflux(server.url, flavour)
        write(influxdb, lines_of(3_000))
        source = Source(tmp_path, iggy.address, influxdb.url, table, stream, source=more, output=OUTPUTS[language],
                        arguments=["--until-caught-up"])
        try:
            assert source.ends() == 0
        finally:
            source.close()
        points = 3_000 * (4 if "long" in OUTPUTS[language] else 1)
        code, found = verify(source)
        assert (code, found["database_points"], found["iggy_points"], found["differing"]) == (0, points, points, [])
        write(influxdb, [f"m,device=d9 f=1 {FIRST_TIME}", lines_of(901)[900].replace("f=900.0", "f=900.5")])
        code, found = verify(source, "--window-ms", "60000")
        assert (code, found["missing"], found["changed"], found["only_in_iggy"]) == (1, 1, 1, 0)
        assert sorted(one["missing"] + 2 * one["changed"] for one in found["differing"]) == [1, 2]
        assert len(found["examples"]) == 2
