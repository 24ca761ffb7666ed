"""What a person sees of mistakes: one clear line each, the right exit code, no traceback, no secrets."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TARGETS, TOPIC, configuration


def pipeline(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return subprocess.run([sys.executable, "-m", "pipeline", *arguments], capture_output=True, text=True, timeout=60)


def write(folder: Path, iggy: str, target: str = TARGETS["v2"], **changes: str) -> str:
    """A configuration; `changes` are arguments of `configuration`."""
    path = folder / "pipeline.toml"
    path.write_text(configuration(iggy, "s", "http://127.0.0.1:9", target, folder / "run", **changes))
    return str(path)


def is_one_line(run: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> None:
    """The command said what is wrong in one line of ours, with these words."""
    assert run.returncode == exit_code, run.stderr
    assert "Traceback" not in run.stderr
    lines = [line for line in run.stderr.splitlines() if "error" in line.lower()]
    assert len(lines) == 1, run.stderr
    for word in words:
        assert word in lines[0]


def test_no_configuration_is_said(tmp_path: Path) -> None:
    is_one_line(pipeline("start"), 2, "--config")
    is_one_line(pipeline("start", "-c", str(tmp_path / "none.toml")), 2, "none.toml", "No such file", "-c FILE")


@pytest.mark.parametrize(("changes", "words"), [
    ({"options": "batchsize = 1"}, ("pipeline.batchsize", "unknown key", "did you mean batch_size?")),
    ({"options": 'window_bytes = "much"'}, ("pipeline.window_bytes", "an integer of 1 or more")),
    ({"topic": "[["}, ("is not valid TOML", "line")),
    ({"target": 'version = "v4"'}, ("influxdb.version", '"auto" or "v1" or "v2" or "v3"')),
    ({"dead_letters": 'stores = ["file"]'}, ("dead_letters.file", "required")),
])
def test_a_mistake_in_the_configuration_is_one_line_and_exit_code_2(
        tmp_path: Path, changes: dict[str, str], words: tuple[str, ...]) -> None:
    is_one_line(pipeline("start", "-c", write(tmp_path, "127.0.0.1:1", **changes)), 2, "pipeline.toml", *words)


def test_a_server_that_is_not_there_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    is_one_line(pipeline("start", "-c", write(tmp_path, "127.0.0.1:19")), 1, "127.0.0.1:19", "can't be reached",
                "iggy.address")


def test_a_wrong_password_is_one_line_and_is_not_shown(tmp_path: Path, sandbox: SandboxIggy) -> None:
    config = Path(write(tmp_path, sandbox.address))
    config.write_text(config.read_text().replace("[iggy]", '[iggy]\npassword = "hunter2"'))
    run = pipeline("start", "-c", str(config))
    is_one_line(run, 1, "refused the login of user iggy", "iggy.password")
    assert "hunter2" not in run.stderr


def test_a_missing_topic_is_one_line(tmp_path: Path, sandbox: SandboxIggy) -> None:
    is_one_line(pipeline("start", "-c", write(tmp_path, sandbox.address)), 1, f"no topic s/{TOPIC}", "[[topics]]")


def test_where_no_topic_is_there_or_a_batch_job_lacks_one_all_are_named(tmp_path: Path, sandbox: SandboxIggy) -> None:
    topics = '[[topics]]\nstream = "s"\ntopic = "other"\n'
    config = write(tmp_path, sandbox.address, topic=topics)
    is_one_line(pipeline("start", "-c", config), 1, f"lacks the topics s/{TOPIC}, s/other", "[[topics]]")
    sandbox.create_topic("s", "other", 1)
    is_one_line(pipeline("start", "-c", config, "--once"), 1, f"no topic s/{TOPIC}")
    shown = pipeline("offsets", "show", "-c", config)
    assert shown.returncode == 0 and "other" in shown.stdout
    assert f"pipeline: warning: Iggy at {sandbox.address} has no topic s/{TOPIC}" in shown.stderr


def test_unknown_commands_and_options_are_usage_errors() -> None:
    assert pipeline("stat").returncode == 2
    assert pipeline("start", "--worker", "x").returncode == 2
    assert "Usage" in pipeline("--help").stdout
    assert pipeline("--version").stdout.startswith("pipeline, version")


def test_the_demo_runs_to_its_verdict() -> None:
    run = pipeline("demo", "--messages", "3000", "--workers", "2", "--plain")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "sent 3,000  stored 3,000  offsets committed 3,000" in run.stdout
