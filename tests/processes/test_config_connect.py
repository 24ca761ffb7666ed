"""`pipeline config check --connect`: both ends are asked, and nothing is written to them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands.config import load_config
from pipeline.commands.configuration.connection import ConnectionCheck, check_connections
from pipeline.config.inputs import ConfigInputs
from pipeline.testbed.sandbox.influxdb.answers import Flavour
from tests.support.iggy_servers import RunningIggy, SandboxIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sinks import TARGETS, SandboxInflux

FREE_PORT = "127.0.0.1:9"


def write(folder: Path, iggy: str, influxdb: str, target: str = TARGETS["v2"], topic: str = "sensors") -> Path:
    """A configuration."""
    path = folder / "pipeline.toml"
    path.write_text(f'[iggy]\naddress = "{iggy}"\n[[topics]]\nstream = "s"\ntopic = "{topic}"\n'
                    f'[influxdb]\nurl = "{influxdb}"\n{target}\n')
    return path


def checks(path: Path, *settings: str) -> list[ConnectionCheck]:
    """What is asked and answered."""
    return check_connections(load_config(ConfigInputs((str(path),), settings), {"WRONG": "wrong-secret"}))


def failed(path: Path, *settings: str) -> str:
    """The one check that fails: what, and its detail."""
    (check,) = [check for check in checks(path, *settings) if not check.ok]
    return f"{check.what}: {check.detail}"


def test_every_failure_is_a_check_of_its_own_and_nothing_is_written(
        tmp_path: Path, sandbox: SandboxIggy, influxdb: SandboxInflux) -> None:
    sandbox.create_topic("s", "sensors", 2)
    path = write(tmp_path, sandbox.address, influxdb.url)
    assert [check.what.partition(" ")[0] for check in checks(path)] == [
        "reachable,", "topic", "the", "the", "the", "reachable", "login,"]
    assert all(check.ok for check in checks(path))
    assert "no topic s/other" in failed(path, "topics.0.topic=other")
    sandbox.create_topic("s", "sensors-2", 1)
    checked = {check.what: check.detail for check in checks(path, "topics.0.topic=sens*", "topics.1.stream=s",
                                                            "topics.1.topic=none-*")}
    assert checked["topics s/sens*"] == "2 match now" and checked["topic s/sensors-2"] == "1 partition"
    assert checked["topics s/none-*"].startswith("none matches now")
    assert "has no partition 7" in failed(path, "topics.0.partitions=7")
    assert "can't be reached" in failed(path, f"iggy.address={FREE_PORT}")
    assert "login of user" in failed(path, "iggy.password=${WRONG}")
    assert 'bucket "other" not found' in failed(path, "influxdb.bucket=other")
    assert "unauthorized" in failed(path, "influxdb.token=${WRONG}")
    assert "no connection" in failed(path, f"influxdb.url=http://{FREE_PORT}")
    assert influxdb.count() == 0
    answer = subprocess.run([sys.executable, "-m", "pipeline", "config", "check", "-c", str(path), "--connect",
                             "--json", "--set", "influxdb.bucket=other"], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 1, answer.stderr
    found = json.loads(answer.stdout)
    assert found["problems"] == [] and [check["ok"] for check in found["checks"]] == [True] * 6 + [False]


@pytest.mark.parametrize("flavour", ["v1", "v3", "questdb"])
def test_the_right_to_write_is_asked_of_every_kind_of_database(
        tmp_path: Path, sandbox: SandboxIggy, flavour: Flavour) -> None:
    sandbox.create_topic("s", "sensors", 1)
    with running_influxdb(flavour=flavour) as server:
        path = write(tmp_path, sandbox.address, server.url, TARGETS[flavour])
        assert [check for check in checks(path) if not check.ok] == []


def test_a_source_is_asked_too(tmp_path: Path, sandbox: SandboxIggy, influxdb: SandboxInflux) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(f'[iggy]\naddress = "{sandbox.address}"\n[[sources]]\nname = "a"\nstate_file = "state"\n'
                    f'[sources.influxdb]\nurl = "{influxdb.url}"\n{TARGETS["v2"]}\n'
                    '[sources.output]\nstream = "o"\ntopic = "points"\n')
    assert [check for check in checks(path) if not check.ok] == []
    assert "login and the list of measurements" in failed(path, "sources.0.influxdb.token=${WRONG}")


def test_rights_of_a_user_are_asked_of_a_real_server(tmp_path: Path, iggy: RunningIggy, stream: str,
                                                     influxdb: SandboxInflux) -> None:
    iggy.create_topic(stream, "sensors", 1)
    path = write(tmp_path, iggy.address, influxdb.url)
    assert [check for check in checks(path, f"topics.0.stream={stream}") if not check.ok] == []
