"""`pipeline source state` and `reset`: what is stored, what will happen, and what is refused."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.commands.config import load_config
from pipeline.commands.source import planned
from pipeline.config.source_names import qualified
from pipeline.errors import PipelineError
from pipeline.locks import Locks
from pipeline.points.times import MIN_TIME, parse_time
from pipeline.source_coordinator.state import SourceState, identity_of
from pipeline.source_coordinator.state_file import StateFile
from pipeline.source_coordinator.state_store import lock_states

CONFIG = """
[[sources]]
name = "weather"
state_file = "{folder}/weather.json"
from = "2020-01-01T00:00:00Z"
overlap_ms = 60000
[sources.influxdb]
version = "v1"
database = "db"
[sources.output]
stream = "s"
"""
EARLY, MARK, END = "2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A source that has read two measurements, and one of a backfill completely."""
    path = tmp_path / "pipeline.toml"
    path.write_text(CONFIG.format(folder=tmp_path))
    state = stored(path)
    state.watermarks = {"rain": parse_time(MARK), "wind": MIN_TIME}
    state.fingerprints = {"rain": {1: (parse_time(MARK), 2)}}
    save(path, state)
    backfill = stored(path, to=END)
    backfill.watermarks = {"rain": parse_time(END), "wind": parse_time(MARK)}
    save(path, backfill, to=END)
    return path


def store(path: Path, **bounds: str) -> StateFile:
    """The file of the state."""
    return StateFile(load_config(str(path), sources=bounds).sources[0])


def stored(path: Path, **bounds: str) -> SourceState:
    """The state that is stored."""
    return asyncio.run(store(path, **bounds).load(7))


def save(path: Path, state: SourceState, **bounds: str) -> None:
    """Stores a state."""
    asyncio.run(store(path, **bounds).save(state))


def run(path: Path, *arguments: str, answer: str = "") -> tuple[int, str]:
    """Exit code and output of `pipeline source`."""
    done = CliRunner().invoke(main, ["source", arguments[0], "-c", str(path), *arguments[1:]], input=answer)
    return done.exit_code, done.output


def test_the_state_and_its_backfills_are_shown(config: Path) -> None:
    code, text = run(config, "state")
    assert code == 0
    assert "source weather: " in text and "wind" in text and "not begun" in text
    assert f"backfill from {EARLY} to {END}" in text and "1 of 2 measurements are complete" in text
    assert f"pipeline start --from {EARLY} --to {END}" in text
    states = json.loads(run(config, "state", "weather", "--json")[1])["states"]
    assert [(one["to"], one["complete"], [m["measurement"] for m in one["measurements"]]) for one in states] == [
        (None, False, ["rain", "wind"]), (END, False, ["rain", "wind"])]
    assert states[0]["measurements"][0] == {"measurement": "rain", "watermark": "2026-01-01T00:00:00.000000000Z",
                                            "nanoseconds": parse_time(MARK), "complete": False, "fingerprints": 1}


def test_before_the_first_start_there_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(CONFIG.format(folder=tmp_path))
    code, text = run(path, "state")
    assert code == 0 and f"no state in {tmp_path}/weather.json yet; it begins at `from` = {EARLY}" in text
    code, text = run(path, "reset", "weather", "--yes")
    assert code == 1 and "has no state" in text and "nothing was read" in text


def test_a_state_that_is_used_says_by_whom(config: Path) -> None:
    locks = Locks()
    lock_states(locks, load_config(str(config)))
    try:
        states = json.loads(run(config, "state", "--json")[1])["states"]
        assert [bool(one["process"]) for one in states] == [True, False]
        code, text = run(config, "reset", "weather", "--yes")
        assert code == 1 and "runs with" in text and "stop it" in text
        assert stored(config).watermarks["rain"] == parse_time(MARK)
        # A backfill has another state, which nobody uses.
        assert run(config, "reset", "weather", "--state", states[1]["state"], "--yes")[0] == 0
    finally:
        locks.release()


def test_a_damaged_state_is_named_and_the_others_are_shown(config: Path) -> None:
    path = store(config).path
    path.write_bytes(path.read_bytes()[:-20])
    code, text = run(config, "state")
    assert code == 1 and "is damaged" in text and "1 of 2 measurements are complete" in text
    code, text = run(config, "reset", "weather", "--yes")
    assert code == 1 and "is damaged" in text


def test_a_renamed_backfill_is_not_taken_for_another(config: Path) -> None:
    path = store(config, to=END).path
    path.rename(path.with_name("weather.json.until-20300101T000000-00000000"))
    code, text = run(config, "state")
    assert code == 1 and "it was renamed or copied" in text


def test_a_reset_says_what_will_happen_and_asks(config: Path) -> None:
    code, text = run(config, "reset", "weather", "--measurement", "rain", "--to", "2025-06-01T00:00:00Z", answer="n\n")
    assert code == 1 and "nothing was reset" in text
    assert "rain: from 2026-01-01T00:00:00.000000000Z back to 2025-06-01T00:00:00.000000000Z" in text
    assert "come to Iggy a second time" in text and "overlap" in text
    assert stored(config).watermarks["rain"] == parse_time(MARK)
    assert run(config, "reset", "weather")[0] == 1  # nobody answers
    code, text = run(config, "reset", "weather", "--measurement", "rain", "--to", "2025-06-01T00:00:00Z", answer="y\n")
    assert code == 0
    assert stored(config).watermarks == {"rain": parse_time("2025-06-01T00:00:00Z"), "wind": MIN_TIME}
    assert stored(config).fingerprints == {}


def test_without_a_time_reading_begins_where_the_source_does(config: Path) -> None:
    code, text = run(config, "reset", "weather", "--yes")
    assert code == 0 and f"they begin at `from` = {EARLY}" in text
    assert "wind: from earliest forward to 2020-01-01T00:00:00.000000000Z; points between are NOT read" in text
    assert stored(config).watermarks == {} and stored(config).begun == 7
    assert stored(config, to=END).watermarks["rain"] == parse_time(END)
    code, text = run(config, "state")
    assert "no measurement was read yet" in text
    code, text = run(config, "reset", "weather", "--yes")
    assert code == 1 and "it has no measurement yet" in text and "nothing is to be changed" in text


def test_a_backfill_is_reset_by_the_name_of_its_state(config: Path) -> None:
    name = store(config, to=END).path.name
    code, text = run(config, "reset", "weather", "--state", name, "--measurement", "rain", "--yes")
    assert code == 0 and f"backfill from {EARLY} to {END}" in text and "pipeline start --from" in text
    assert stored(config, to=END).watermarks == {"wind": parse_time(MARK)}
    assert stored(config).watermarks["rain"] == parse_time(MARK)


@pytest.mark.parametrize(("arguments", "words"), [
    (("state", "nobody"), "there is no source nobody; the configuration has weather"),
    (("reset", "nobody", "--yes"), "there is no source nobody"),
    (("reset", "weather", "--yes", "--measurement", "rian"), "such as rain"),
    (("reset", "weather", "--yes", "--to", "soon"), "soon: for sources give earliest, latest or a time"),
    (("reset", "weather", "--yes", "--to", "2200-01-01T00:00:00Z"), "in the future"),
    (("reset", "weather", "--yes", "--state", "other"), "has no state other; it has"),
])
def test_what_does_not_fit_is_said_and_changes_nothing(config: Path, arguments: tuple[str, ...], words: str) -> None:
    before = {path.name: path.read_bytes() for path in config.parent.glob("weather.json*") if path.suffix != ".lock"}
    code, text = run(config, *arguments)
    assert code == 1 and words in text
    after = {path.name: path.read_bytes() for path in config.parent.glob("weather.json*") if path.suffix != ".lock"}
    assert after == before


def test_a_plain_name_stands_for_the_measurement_in_every_policy(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(CONFIG.format(folder=tmp_path).replace("overlap_ms = 60000", 'retention_policies = ["*"]')
                    .replace('stream = "s"', 'stream = "s"\ntopic = "{retention_policy}"'))
    [source] = load_config(str(path)).sources
    kept = [qualified(policy, name) for policy in ("a b", "c") for name in ("rain", 'wi"nd')]
    state = SourceState(identity_of(source), 0, dict.fromkeys(kept, 7))
    found = [one.measurement for one in planned(source, state, ["rain", kept[3], kept[0]], 9)]
    assert found == [kept[0], kept[2], kept[3]]
    with pytest.raises(PipelineError, match="no measurement wind"):
        planned(source, state, ["wind"], 9)
