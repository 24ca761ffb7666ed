"""A source's state: what is stored comes back; what can't be trusted is an error that says what to do."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from pipeline.config.source_schema import OutputConfig, SourceConfig, SourceInfluxConfig
from pipeline.source_coordinator.state import SourceState, StateError, identity_of
from pipeline.source_coordinator.state_file import StateFile

NOW = 1_700_000_000_000_000_000
PRINTS = {2**64 - 1: (5, 0), 1: (-7, 2)}


def source(folder: Path, **more: object) -> SourceConfig:
    """A source whose state is in `folder`."""
    config = SourceConfig(name="weather", state_file=str(folder / "state.json"),
                          influxdb=SourceInfluxConfig(database="db"), output=OutputConfig(stream="s"))
    return msgspec.structs.replace(config, **more)


def load_state(config: SourceConfig, now: int) -> SourceState:
    """What is stored."""
    return asyncio.run(StateFile(config).load(now))


def save_state(config: SourceConfig, state: SourceState) -> None:
    """Stores it."""
    asyncio.run(StateFile(config).save(state))


def state_path(config: SourceConfig) -> Path:
    """Where."""
    return StateFile(config).path


def stored(config: SourceConfig) -> SourceState:
    """Stores a state, and gives it."""
    state = load_state(config, NOW)
    state.watermarks, state.fingerprints = {"m": 12, 'odd "name"\n': -5}, {"m": PRINTS}
    save_state(config, state)
    return state


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    config = source(tmp_path)
    state = stored(config)
    assert load_state(config, NOW + 1) == state
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json"]


def test_without_a_file_a_source_begins_now(tmp_path: Path) -> None:
    state = load_state(source(tmp_path), NOW)
    assert (state.begun, state.watermarks, state.fingerprints) == (NOW, {}, {})


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": "x"}', "\x00\xff"])
def test_a_file_that_is_no_state_is_an_error(tmp_path: Path, damage: str) -> None:
    (tmp_path / "state.json").write_text(damage, "latin-1")
    with pytest.raises(StateError, match="state.json is damaged.*move it away"):
        load_state(source(tmp_path), NOW)


def test_a_changed_byte_is_an_error(tmp_path: Path) -> None:
    config = source(tmp_path)
    stored(config)
    path = tmp_path / "state.json"
    path.write_text(path.read_text().replace('"m": 12', '"m": 13'))
    with pytest.raises(StateError, match="checksum"):
        load_state(config, NOW)


def test_a_file_cut_short_anywhere_is_an_error(tmp_path: Path) -> None:
    config = source(tmp_path)
    stored(config)
    whole = (tmp_path / "state.json").read_bytes()
    for size in range(0, len(whole) - 2, 7):
        (tmp_path / "state.json").write_bytes(whole[:size])
        with pytest.raises(StateError):
            load_state(config, NOW)


def test_another_sources_state_is_an_error_that_names_both(tmp_path: Path) -> None:
    stored(source(tmp_path))
    other = source(tmp_path, influxdb=SourceInfluxConfig(database="elsewhere"))
    with pytest.raises(StateError, match='belongs to source "weather" of db, not to source "weather" of elsewhere'):
        load_state(other, NOW)
    with pytest.raises(StateError, match="another query"):
        load_state(source(tmp_path, query="select $from $to", measurement="m"), NOW)


def test_a_newer_layout_is_an_error(tmp_path: Path) -> None:
    config = source(tmp_path)
    stored(config)
    path = tmp_path / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    with pytest.raises(StateError, match="version 2, not"):
        load_state(config, NOW)


def test_a_server_may_move(tmp_path: Path) -> None:
    stored(source(tmp_path))
    moved = source(tmp_path, influxdb=SourceInfluxConfig(database="db", url="http://other:8086"))
    assert load_state(moved, NOW).watermarks["m"] == 12


def test_a_backfill_has_a_state_of_its_own(tmp_path: Path) -> None:
    config = source(tmp_path)
    stored(config)
    backfill = source(tmp_path, from_="2026-01-01T00:00:00Z", to="2026-02-01T00:00:00Z")
    assert state_path(backfill).name.startswith("state.json.until-20260201T000000-")
    assert load_state(backfill, NOW).watermarks == {}
    stored(backfill)
    assert load_state(backfill, NOW).watermarks["m"] == 12
    assert state_path(source(tmp_path, from_="earliest", to="2026-02-01T00:00:00Z")) != state_path(backfill)


def test_a_folder_that_is_gone_is_said_and_the_old_state_stays(tmp_path: Path) -> None:
    config = source(tmp_path, state_file=str(tmp_path / "gone" / "state.json"))
    with pytest.raises(StateError, match="cannot be written: No such file or directory"):
        save_state(config, load_state(config, NOW))


def test_a_state_is_for_its_user_alone_and_no_link_is_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    config = source(tmp_path)
    path = state_path(config)
    path.with_name(path.name + ".new").symlink_to(victim)
    save_state(config, SourceState(identity_of(config), NOW))
    assert path.stat().st_mode & 0o777 == 0o600 and not path.is_symlink()
    assert load_state(config, 0).begun == NOW
    path.chmod(0o666)
    with pytest.raises(StateError, match="written to by others"):
        load_state(config, 0)
    path.unlink()
    path.symlink_to(victim)
    with pytest.raises(StateError, match="symbolic link"):
        load_state(config, 0)
    assert victim.read_bytes() == b"precious"
