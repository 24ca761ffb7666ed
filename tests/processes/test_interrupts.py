"""Ctrl-C at any moment of a command's first seconds ends it with a line or two, and leaves nothing behind."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.interrupts import signals_blocked
from pipeline.sockets.curve_keys import add_worker, make_keys
from tests.support.iggy_servers import SandboxIggy

SECONDS = 3.0
#: Longest wait for a command that was interrupted, seconds.
END_SECONDS = 60.0
#: Moments for each command, one in each part of the time.
MOMENTS = 3
CONFIG = """
[iggy]
address = "{iggy}"
[[topics]]
stream = "{stream}"
topic = "t"
[influxdb]
bucket = "b"
org = "o"
"""


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for temporary files: sockets in it have short enough names."""
    with tempfile.TemporaryDirectory(prefix="pi-", dir="/tmp") as folder:
        yield Path(folder)


def interrupted(folder: Path, seconds: float, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command that gets SIGINT after so many seconds, as its whole group does by Ctrl-C."""
    environ = {**os.environ, "TMPDIR": str(folder)}
    # Held until the command asks for it: the interpreter itself, before that, would print a traceback.
    with signals_blocked():
        process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environ)
    try:
        time.sleep(seconds)  # the moment is what is tried
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=END_SECONDS)
        return process.returncode, output
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def moments(seed: str) -> list[float]:
    """Random moments, the first one at once."""
    chance = random.Random(seed)
    return [0.0, *(SECONDS * (part + chance.random()) / (MOMENTS - 1) for part in range(MOMENTS - 1))]


def check_left_nothing(folder: Path) -> None:
    """No folder is left but that of the locks."""
    assert [path.name for path in folder.iterdir() if "locks" not in path.name] == []


@pytest.mark.parametrize(("command", "codes", "lines"), [
    (("pipeline", "demo", "--messages", "9000000", "--plain"), (130,), 4),
    (("pipeline", "bench", "--messages", "50000"), (130,), 2),
    (("pipeline.commands.bench_main", "idle"), (130,), 2),
    (("pipeline", "sandbox", "--iggy-port", "0", "--influx-port", "0"), (0, 130), 40),
])
def test_a_command_that_needs_nothing_ends_at_once(command: tuple[str, ...], codes: tuple[int, ...], lines: int,
                                                   short_folder: Path) -> None:
    for moment in moments(" ".join(command)):
        code, output = interrupted(short_folder, moment, *command)
        assert code in codes, (moment, output)
        assert "Traceback" not in output, (moment, output)
        # How many lines of progress there are is the machine's speed.
        assert len([line for line in output.splitlines() if not line.startswith("read ")]) <= lines, (moment, output)
        check_left_nothing(short_folder)


def test_a_start_ends_with_0_once_it_runs_and_with_130_before(sandbox: SandboxIggy, short_folder: Path) -> None:
    stream = uuid.uuid4().hex
    sandbox.create_topic(stream, "t", 1)
    config = short_folder / "c.toml"
    config.write_text(CONFIG.format(iggy=sandbox.address, stream=stream))
    for moment in moments("start"):
        code, output = interrupted(short_folder, moment, "pipeline", "start", "-c", str(config))
        assert code == (130 if "interrupted" in output else 0), (moment, output)
        assert "Traceback" not in output, (moment, output)
        assert not [path for path in short_folder.iterdir() if path.name.startswith("pipeline-run-")]


def test_a_load_ends_with_its_processes(sandbox: SandboxIggy, short_folder: Path) -> None:
    config = short_folder / "c.toml"
    config.write_text(CONFIG.format(iggy=sandbox.address, stream=uuid.uuid4().hex))
    for moment in moments("load"):
        code, output = interrupted(short_folder, moment, "pipeline", "load", "-c", str(config), "--seconds", "60")
        assert (code, output) == (130, "pipeline: interrupted\n"), moment


def test_a_remote_encoder_ends(short_folder: Path) -> None:
    config = short_folder / "c.toml"
    config.write_text(CONFIG.format(iggy="127.0.0.1:9", stream="s"))
    make_keys(str(short_folder / "keys"))
    worker = add_worker(str(short_folder / "keys"), "far")
    for moment in moments("stage"):
        code, output = interrupted(short_folder, moment, "pipeline", "stage", "encode", "-c", str(config),
                                   "--connect", "127.0.0.1:9", "--keys", str(worker))
        assert code == (130 if "interrupted" in output else 0), (moment, output)
        assert "Traceback" not in output


def test_what_a_command_has_started_ends_with_it(short_folder: Path) -> None:
    code, output = interrupted(short_folder, SECONDS, "pipeline", "demo", "--messages", "9000000", "--plain")
    assert code == 130, output
    left = [path.parent.name for path in Path("/proc").glob("[0-9]*/environ")
            if _holds(path, f"TMPDIR={short_folder}".encode())]
    assert left == []


def _holds(path: Path, text: bytes) -> bool:
    try:
        return text in path.read_bytes()
    except OSError:
        return False
