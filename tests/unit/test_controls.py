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
SELECTIONS = st.builds(Selection, NAMES, NAMES, NAMES, st.integers(-1, 1)) | st.builds(Selection, source=NAMES)
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
    for name in "ab":
        is_one = one == Selection() or one.source == name
        assert paused.is_source_paused(name) == (is_one or controls.is_source_paused(name))
        if is_one:
            assert resumed.is_source_paused(name) == any(
                each == Selection() or each.source == name for each in before if not one.includes(each))
    assert not applied(ControlRequest("resume"), paused).paused


def test_a_source_alone_is_paused_by_its_name_and_everything_by_none() -> None:
    paused = Controls().with_pause(Selection(source="a"))
    assert paused.is_source_paused("a") and not paused.is_source_paused("b")
    assert not paused.is_paused("main", "s", "t", 0)
    assert Selection(source="a").label == "source a" and Selection().label == "everything"
    both = paused.with_pause(Selection())
    assert both.paused == (Selection(),) and both.is_source_paused("b") and both.is_paused("main", "s", "t", 0)
    assert not Controls().with_pause(Selection(sink="main")).is_source_paused("a")


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
