"""A user's second pipeline on the same offsets is refused, and so are changes of them, whatever the environment."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink


@pytest.mark.parametrize("environment", ["as it is", "service", "cron", "spelled"])
def test_a_second_pipeline_is_refused_in_any_environment(
        environment: str, sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
        start_sink: Callable[..., Sink], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    first = start_sink(sandbox.address, stream, influxdb)
    first.wait_for(lambda status: status.ready)
    variables = dict(os.environ)
    match environment:
        case "service":
            (tmp_path / "run").mkdir(mode=0o700)
            (tmp_path / "tmp").mkdir(mode=0o700)
            variables |= {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "TMPDIR": str(tmp_path / "tmp"),
                          "HOME": str(tmp_path), "USER": "other", "LOGNAME": "other"}
        case "cron":
            variables = {name: value for name, value in variables.items() if name in ("PATH", "PYTHONPATH")}
        case "spelled":
            first.config.write_text(first.config.read_text().replace("127.0.0.1:", "localhost:", 1))
    text = first.config.read_text().replace(str(first.folder / "run"), str(tmp_path / "second"))
    second = tmp_path / "second.toml"
    second.write_text(text)
    for command in (("start",), ("offsets", "reset", "--to", "earliest")):
        run = subprocess.run([sys.executable, "-m", "pipeline", *command, "-c", str(second)], env=variables,
                             capture_output=True, text=True, timeout=60)
        assert run.returncode == 1
        assert f"another pipeline (process {first.process.pid}) reads {stream}/{TOPIC}" in run.stderr
    assert first.stop() == 0
