"""`pipeline offsets` shows, sets and resets the marks of sources."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands.config import load_config
from pipeline.locks import Locks
from pipeline.points.times import MIN_TIME, parse_time
from pipeline.source_coordinator.state import SourceState
from pipeline.source_coordinator.state_file import StateFile
from pipeline.source_coordinator.state_store import lock_states

CONFIG = """
[[sources]]
name = "weather"
state_file = "{folder}/weather.json"
[sources.influxdb]
version = "v1"
database = "db"
[sources.output]
stream = "s"
"""
MARK = parse_time("2026-01-01T00:00:00Z")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of a source that has read two measurements."""
    path = tmp_path / "pipeline.toml"
    path.write_text(CONFIG.format(folder=tmp_path))
    state = stored(path)
    state.watermarks, state.fingerprints = {"rain": MARK, "wind": MIN_TIME}, {"rain": {1: (MARK, 2)}}
    asyncio.run(StateFile(load_config(str(path)).sources[0]).save(state))
    return path


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and output of `pipeline offsets`."""
    done = subprocess.run([sys.executable, "-m", "pipeline", "offsets", *arguments], capture_output=True, text=True,
                          timeout=60, env={**os.environ, "COLUMNS": "200"})
    return done.returncode, done.stdout + done.stderr


def stored(config: Path) -> SourceState:
    """The state that is stored."""
    return asyncio.run(StateFile(load_config(str(config)).sources[0]).load(0))


def marks(config: Path) -> dict[str, int]:
    """Its marks."""
    return stored(config).watermarks


def test_marks_are_shown_without_asking_iggy(config: Path) -> None:
    code, text = run("show", "-c", str(config))
    assert code == 0
    assert re.search(r"weather\W+rain\W+2026-01-01T00:00:00.000000000Z", text) and re.search(r"wind\W+earliest", text)


def test_one_mark_is_set_and_the_others_stay(config: Path) -> None:
    code, text = run("set", "-c", str(config), "--source", "weather", "--measurement", "rain",
                     "--time", "2025-06-01T00:00:00Z")
    assert (code, text) == (0, "weather rain: reading begins at 2025-06-01T00:00:00Z\n")
    assert marks(config) == {"rain": parse_time("2025-06-01T00:00:00Z"), "wind": MIN_TIME}
    assert stored(config).fingerprints == {}


def test_all_marks_are_reset(config: Path) -> None:
    assert run("reset", "-c", str(config), "--to", "earliest")[0] == 0
    assert marks(config) == {"rain": MIN_TIME, "wind": MIN_TIME}


@pytest.mark.parametrize(("arguments", "words"), [
    (("set", "--source", "nobody", "--measurement", "m", "--time", "latest"), "no source nobody"),
    (("set", "--source", "weather", "--measurement", "m", "--time", "soon"), "soon: for sources give earliest"),
    (("set", "--source", "weather"), "give --topic, --partition and --offset, or --source, --measurement and --time"),
    (("reset", "--to", "17"), "17: for sources give earliest, latest or a time"),
])
def test_what_does_not_fit_is_said_and_changes_nothing(config: Path, arguments: tuple[str, ...], words: str) -> None:
    code, text = run(arguments[0], "-c", str(config), *arguments[1:])
    assert code != 0 and words in text
    assert marks(config) == {"rain": MARK, "wind": MIN_TIME}


def test_marks_are_left_alone_while_a_pipeline_runs(config: Path) -> None:
    locks = Locks()
    lock_states(locks, load_config(str(config)))
    code, text = run("reset", "-c", str(config), "--to", "earliest")
    assert code == 1 and "already" in text
    assert marks(config) == {"rain": MARK, "wind": MIN_TIME}
    locks.release()
