"""When Iggy's retention overtakes what is not written yet."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.coordinator.retention import Look, Retention, overtaken_in, words

HOUR = 3_600.0


def a_look(at: float, *, first: int = 0, committed: int = 99, end: int = 999, age: float = 100.0,
           size: int = 1_000) -> Look:
    """A partition at one moment."""
    return Look(at, first, committed, end, age, size)


def test_a_pipeline_that_stands_is_overtaken_when_its_oldest_message_expires() -> None:
    found = overtaken_in(Retention(HOUR), a_look(0, age=1_000), a_look(10, age=1_010))
    assert found == HOUR - 1_010


def test_one_that_falls_behind_slowly_is_overtaken_later_and_one_that_catches_up_never() -> None:
    assert overtaken_in(Retention(HOUR), a_look(0, age=1_000), a_look(10, age=1_001)) == (HOUR - 1_001) * 10
    assert overtaken_in(Retention(HOUR), a_look(0, age=1_000), a_look(10, age=999)) is None
    assert overtaken_in(Retention(), a_look(0, age=1_000), a_look(10, age=1_010)) is None


def test_nothing_is_foretold_from_one_look_but_what_may_happen_now() -> None:
    assert overtaken_in(Retention(HOUR, 1_000), None, a_look(0, age=HOUR - 1, size=5_000)) is None
    assert overtaken_in(Retention(HOUR), None, a_look(0, age=HOUR)) == 0
    assert overtaken_in(Retention(), None, a_look(0, first=101, committed=99)) == 0, "it has happened"


def test_a_full_topic_deletes_as_fast_as_it_is_written() -> None:
    before, now = a_look(0, end=1_000), a_look(10, first=40, end=2_000)
    assert overtaken_in(Retention(bytes=1_000), before, now) == (100 - 40) / 100
    assert overtaken_in(Retention(bytes=1_000), before, a_look(10, first=40, committed=1_100, end=2_000)) is None


def test_a_topic_is_filled_first() -> None:
    before, now = a_look(0, end=1_000, size=400), a_look(10, end=2_000, size=500)
    assert overtaken_in(Retention(bytes=1_000), before, now) == (900 - 500) / 10 + 100 / 100
    assert overtaken_in(Retention(bytes=1_000), before, a_look(10, end=2_000, size=400)) is None


LOOKS = st.builds(Look, st.floats(0, 1e6), st.integers(0, 10**9), st.integers(-1, 10**9), st.integers(-1, 10**9),
                  st.floats(0, 1e9), st.integers(0, 10**12))


@given(st.builds(Retention, st.none() | st.floats(1, 1e8), st.none() | st.integers(1, 10**12)),
       st.none() | LOOKS, LOOKS)
def test_a_forecast_is_never_negative(retention: Retention, before: Look | None, now: Look) -> None:
    found = overtaken_in(retention, before, now)
    assert found is None or found >= 0
    assert 60 <= retention.warn_seconds <= 86_400
    assert words(found or 0.0)


def test_time_spans_in_words() -> None:
    assert [words(seconds) for seconds in (0.4, 90, 900, 7_300, 200_000)] == ["0 s", "90 s", "15 min", "2 h", "2 days"]
