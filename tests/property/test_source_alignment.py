"""Windows that end by the clocks of a time zone: they divide all of time, and their ends are multiples there."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.points.alignment import Alignment, UnknownZone, zone_of
from pipeline.points.times import MAX_TIME, MIN_TIME, SECOND, parse_time
from pipeline.points.windows import floor
from pipeline.source_coordinator.stride import Stride

HOUR = 3_600 * SECOND
#: Half and quarter hours, clocks set at midnight and by half an hour, a day that was skipped.
ZONES = ["", "UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo",
         "America/Havana", "Africa/Cairo", "Pacific/Apia", "America/St_Johns"]
WIDTHS = st.sampled_from([SECOND, 1_800 * SECOND, HOUR, 6 * HOUR, 24 * HOUR, 7 * 24 * HOUR])
#: Also the times at which clocks are set.
TIMES = st.one_of(st.integers(MIN_TIME + 400 * 24 * HOUR, MAX_TIME - 400 * 24 * HOUR),
                  st.builds(lambda hours, more: parse_time("2011-01-01T00:00:00Z") + hours * HOUR // 2 + more,
                            st.integers(0, 16 * 366 * 48), st.integers(-1, 1)))


@given(st.sampled_from(ZONES), WIDTHS, TIMES)
def test_a_time_is_in_one_window_whose_ends_are_multiples(zone: str, width: int, time: int) -> None:
    alignment = Alignment(width, zone)
    start = alignment.floor(time)
    end = alignment.after(start)
    assert start <= time < end
    assert alignment.floor(start) == start and alignment.floor(end - 1) == start and alignment.floor(end) == end
    local = datetime.fromtimestamp(start // SECOND, UTC).astimezone(ZoneInfo(zone or "UTC"))
    passed = (local.replace(tzinfo=None) - datetime(1970, 1, 1)) // timedelta(seconds=1)
    # Where clocks skip a multiple, the window begins when they are set.
    skipped = datetime.fromtimestamp(start // SECOND - 1, UTC).astimezone(local.tzinfo).utcoffset() != local.utcoffset()
    assert passed * SECOND % width == 0 or skipped


@given(st.integers(MIN_TIME, MAX_TIME), WIDTHS)
def test_without_a_zone_they_are_multiples_since_1970(time: int, width: int) -> None:
    assert Alignment(width).floor(time) == floor(time, width)


@pytest.mark.parametrize(("zone", "day", "hours"), [
    ("Europe/Berlin", "2026-03-29", 23), ("Europe/Berlin", "2026-10-25", 25),
    ("Australia/Lord_Howe", "2024-10-06", 23.5), ("America/Sao_Paulo", "2018-11-04", 23),
    ("Asia/Kolkata", "2026-03-29", 24)])
def test_a_day_has_as_many_hours_as_its_clocks(zone: str, day: str, hours: float) -> None:
    alignment = Alignment(24 * HOUR, zone)
    start = alignment.floor(parse_time(f"{day}T12:00:00Z"))
    assert alignment.after(start) - start == hours * HOUR


@given(st.sampled_from(ZONES), st.integers(0, 4_000), st.integers(1, 400))
def test_windows_of_days_follow_each_other_without_a_gap(zone: str, begin: int, days: int) -> None:
    alignment = Alignment(24 * HOUR, zone)
    stride = Stride(False, alignment, 40 * 24 * HOUR)
    start = alignment.floor(parse_time("2015-01-01T00:00:00Z") + begin * 24 * HOUR)
    limit, seen = start + days * 24 * HOUR, 0
    while (window := stride.next(start, limit)) is not None:
        assert window.start == start and alignment.floor(window.end) == window.end
        narrower = stride.narrower(window, start, 1)
        assert narrower is None or alignment.floor(narrower.end) == narrower.end < window.end
        start, seen = window.end, seen + 1
        assert seen < 1_000
    assert limit - start < 26 * HOUR + 24 * HOUR * (zone == "Pacific/Apia")


def test_a_zone_that_is_not_there_is_named() -> None:
    for name in ("Europe/Bonn", "localtime", "../etc/passwd", ""):
        with pytest.raises(UnknownZone):
            zone_of(name)
