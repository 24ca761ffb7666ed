"""What an operator pauses and resumes."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.controls import ControlRequest, Controls, Selection, applied
from pipeline.config.schema import Config, TopicConfig
from pipeline.supervisor.kept_pauses import keep_pauses, path_of, read_pauses

NAMES = st.sampled_from(["", "a", "b"])
SELECTIONS = st.builds(Selection, NAMES, NAMES, NAMES, st.integers(-1, 1))
CONFIG = Config(topics=(TopicConfig(stream="s", topic="t"),))
LOGGER = logging.getLogger("test")


@given(st.lists(SELECTIONS, max_size=5), SELECTIONS)
def test_a_pause_covers_what_was_selected_and_a_resume_of_it_ends_it(before: list[Selection], one: Selection) -> None:
    controls = Controls()
    for selection in before:
        controls = applied(ControlRequest("pause", selection), controls)
    paused = applied(ControlRequest("pause", one), controls)
    resumed = applied(ControlRequest("resume", one), paused)
    for place in [(sink, stream, topic, number) for sink in "ab" for stream in "ab" for topic in "ab"
                  for number in range(3)]:
        assert paused.is_paused(*place) == any(each.covers(*place) for each in [*before, one])
        if one.covers(*place):
            assert resumed.is_paused(*place) == any(
                each.covers(*place) and not one.includes(each) for each in [*before, one])
    assert not applied(ControlRequest("resume"), paused).paused


def test_kept_pauses_are_found_again_and_a_broken_file_pauses_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert read_pauses(CONFIG, LOGGER) == ()
    paused = (Selection(stream="s", topic="t", partition=0),)
    keep_pauses(CONFIG, paused)
    assert read_pauses(CONFIG, LOGGER) == paused
    for content in (b"", b"[1]", b'{"sink":1}', b"\xff"):
        path_of(CONFIG).write_bytes(content)
        assert read_pauses(CONFIG, LOGGER) == ()
    keep_pauses(CONFIG, ())
    assert not path_of(CONFIG).exists()
