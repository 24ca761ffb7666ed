"""Watermarks in the future: where reading continues, and that no point stored meanwhile is missed."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.source_coordinator.clock import ClockWatch, corrected

TIMES = st.integers(-(10**18), 4 * 10**18)


@given(TIMES, TIMES, TIMES)
def test_only_a_watermark_in_the_future_is_corrected(watermark: int, now: int, begin: int) -> None:
    back = corrected(watermark, now, begin)
    assert back == watermark if watermark <= max(now, begin) else back < watermark
    assert back >= min(watermark, begin)


@given(TIMES, st.integers(1, 10**15), st.integers(0, 10**15), st.integers(0, 10**12))
def test_all_is_read_again_that_came_while_the_clock_was_ahead(wrong_since: int, ahead: int, lasted: int,
                                                               buffer: int) -> None:
    now = wrong_since + lasted
    watermark = now + ahead - buffer
    if lasted <= ahead - buffer and watermark > now:
        assert corrected(watermark, now, -(2**63)) <= wrong_since
    if watermark > now:
        assert corrected(watermark, now, -(2**63), trusted=wrong_since) <= wrong_since


def test_a_clock_that_is_set_is_seen_once() -> None:
    watch = ClockWatch(1_000, 0)
    assert watch.jump(1_050, 50) == 0
    assert watch.jump(4_060, 60) == 3_000
    assert watch.jump(4_070, 70) == 0
    assert watch.jump(70, 80) == -4_010
