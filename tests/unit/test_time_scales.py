"""Times that are numbers, in other scales than seconds since 1970; and that neither zone nor locale of the machine, nor
its lack of a zone database, changes a time of any format.
"""

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.mapping.records.number_times import from_gps, gps_week_time
from stages.mapping.records.time_formats import time_format
from stages.mapping.records.timestamps import BadTimestamp

NS = 1_000_000_000
NUMBERS = ("epoch_ns", "epoch_us", "epoch_ms", "epoch_s", "epoch_auto", "filetime", "dotnet_ticks", "ole_date", "gps_s",
           "gps_ms", "gps_week")
moments = st.datetimes(datetime(1980, 1, 7), datetime(2200, 1, 1))


@given(moments, st.integers(-1_439, 1_439))
def test_what_the_mail_library_writes_is_read_as_the_same_moment(at: datetime, minutes: int) -> None:
    at = at.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=minutes)))
    expected = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) * NS
    assert time_format("rfc2822", "UTC", {}).read(format_datetime(at), None) == expected


def ns_of(at: datetime) -> int:
    """Nanoseconds since 1970 of a time of UTC."""
    return (at - datetime(1970, 1, 1)) // timedelta(microseconds=1) * 1_000


@given(moments)
def test_ticks_since_another_beginning_are_read_exactly(at: datetime) -> None:
    filetime = (at - datetime(1601, 1, 1)) // timedelta(microseconds=1) * 10
    assert time_format("filetime", "UTC", {}).read(str(filetime), None) == ns_of(at)
    ticks = (at - datetime(1, 1, 1)) // timedelta(microseconds=1) * 10
    assert time_format("dotnet_ticks", "UTC", {}).read(str(ticks), None) == ns_of(at)


@given(moments)
def test_a_date_of_ole_that_went_through_a_float_is_read_to_the_millisecond(at: datetime) -> None:
    at = at.replace(microsecond=at.microsecond // 1_000 * 1_000)
    days = (at - datetime(1899, 12, 30)) / timedelta(days=1)
    assert time_format("ole_date", "UTC", {}).read(repr(days), None) == ns_of(at)


@pytest.mark.parametrize(("day", "leap"), [
    ("1980-01-06", 0), ("1981-06-30", 0), ("1981-07-01", 1), ("1998-12-31", 12), ("1999-01-01", 13), ("2016-12-31", 17),
    ("2017-01-01", 18), ("2030-01-01", 18)])
def test_gps_time_is_ahead_by_the_leap_seconds_of_its_day(day: str, leap: int) -> None:
    at = datetime.fromisoformat(day)
    since = (at - datetime(1980, 1, 6)) // timedelta(seconds=1)
    assert from_gps((since + leap) * NS) == ns_of(at)


@given(moments, st.integers(-500, 500))
def test_a_week_of_ten_bits_is_the_one_nearest_to_the_message(at: datetime, days: int) -> None:
    gps = ns_of(at) - ns_of(datetime(1980, 1, 6)) + 18 * NS
    week, rest = divmod(gps, 7 * 86_400 * NS)
    near = (ns_of(at) // 1_000) + days * 86_400 * 1_000_000
    expected = from_gps(gps)
    if ns_of(at) > ns_of(datetime(2000, 1, 1)):
        assert gps_week_time(str(week % 1_024), rest, near) == expected
        assert gps_week_time(str(week), rest, near) == expected


@given(st.sampled_from(NUMBERS), st.one_of(st.text(max_size=20), st.text("0123456789.eE+-", max_size=30)),
       st.integers(0, 2**62))
def test_any_text_is_a_time_or_a_bad_one(form: str, text: str, near: int) -> None:
    try:
        assert isinstance(time_format(form, "America/New_York", {}).read(text, near % 2**53), int)
    except BadTimestamp as error:
        assert str(error)


CODE = """
import locale
from stages.mapping.records.time_formats import time_format
try:
    locale.setlocale(locale.LC_ALL, "")
except locale.Error:
    pass
for form, zone, text in [
        ("%A, %d. %B %Y %I:%M:%S %p", "UTC", "Tuesday, 14. November 2023 10:13:20 PM"), ("%c", "UTC",
        "Tue Nov 14 22:13:20 2023"), ("%G-W%V-%a %H:%M:%S", "UTC", "2023-W46-Tue 22:13:20"),
        ("%Y %U %A %X", "UTC", "2023 46 Tuesday 22:13:20"), ("iso8601", "Europe/Berlin", "2023-11-14T23:13:20"),
        ("rfc3164", "America/Los_Angeles", "Nov 14 14:13:20"), ("ole_date", "Asia/Kolkata", "45245.155092592594"),
        ("iso8601", "America/New_York", "2026-03-08T02:30:00"), ("iso8601", "America/New_York", "2026-11-01T01:30:00")]:
    print(time_format(form, zone, {}).read(text, 1_700_000_000_000_000) // 10**9)
"""
#: The last two: an hour that does not exist means the one after it, and of one that exists twice the first counts.
EXPECTED = ["1700000000"] * 7 + [str(int(datetime(2026, month, day, hour, 30, tzinfo=UTC).timestamp()))
                                 for month, day, hour in ((3, 8, 7), (11, 1, 5))]


@pytest.mark.parametrize("environment", [
    {"TZ": "UTC"}, {"TZ": "Asia/Kolkata", "LC_ALL": "de_DE.UTF-8"}, {"TZ": "America/New_York", "LC_ALL": "tr_TR.UTF-8",
    "PYTHONTZPATH": ""}, {"TZ": ":/nowhere", "LANG": "C", "PYTHONTZPATH": ""}])
def test_times_do_not_depend_on_the_machine(environment: dict[str, str]) -> None:
    run = subprocess.run([sys.executable, "-c", CODE], env={"PYTHONPATH": ":".join(sys.path)} | environment, check=True,
                         capture_output=True, text=True)
    assert run.stdout.split() == EXPECTED
