"""What a time's format has to be able to give, found at the start; and that the machine's own zone does not matter."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import MappingConfig
from stages.mapping.check import mapping_problems
from stages.mapping.records.time_formats import time_format
from stages.mapping.records.timestamps import BadTimestamp


def problems(form: str, zone: str = "UTC", names: dict[str, str] | None = None) -> list[str]:
    """What is said at the start."""
    return mapping_problems(MappingConfig(timestamp_from="field", timestamp_field="ts", timestamp_format=form,
                                          timestamp_zone=zone, timestamp_zone_names=names or {}),
                            "mapping", [("s", "t")])


@pytest.mark.parametrize(("form", "words"), [
    ("%s", "strptime has no %s"), ("%Y-%m-%dT%H:%M:%S.%3N", "strptime has no %3"), ("%Q", "strptime has no %Q"),
    ("%Y-%m-%d %", "strptime has no %"), ("%E", "strptime has no %E"), ("%-d.%m.%Y", "strptime has no %-"),
    ("%H:%M:%S", "no date"), ("%d %H:%M", "no date"), ("%X", "no date"), ("%m/%H", "no date"), ("%A %H:%M", "no date"),
    ("100%%Y", "no date"), ("%%", "no date"), ("%Y %U", "no date"), ("%Y %d", "no month"), ("%Y-%m-%d %I:%M", "%p"),
    ("%Y-%m-%d %H:%M %p", "%I"), ("%Y-%m-%d %Y", "%Y occurs twice"), ("%Y-%m-%d %H:%M %Z", "timestamp_zone_names")])
def test_a_format_that_gives_no_moment_is_refused_at_the_start(form: str, words: str) -> None:
    (problem,) = problems(form)
    assert problem.startswith("mapping.timestamp_format: ")
    assert words in problem


@pytest.mark.parametrize(("form", "zone", "names", "words"), [
    ("iso8601", "Mars/Olympus", {}, "mapping.timestamp_zone: \"Mars/Olympus\": there is no such time zone"),
    ("iso8601", "../../etc/passwd", {}, "no such time zone"), ("iso8601", "localtime", {}, "no such time zone"),
    ("iso8601", "", {}, "no such time zone"), ("iso8601", "+25:00", {}, "no such time zone"),
    ("epoch_ms", "Europe/Berlin", {}, "mapping.timestamp_zone: only with"),
    ("%Y-%m-%d %Z", "UTC", {"CET": "one"}, 'mapping.timestamp_zone_names: CET = "one" is not allowed'),
    ("%Y-%m-%d %z", "UTC", {"CET": "+01:00"}, "mapping.timestamp_zone_names: only with %Z")])
def test_a_zone_that_is_none_is_refused_at_the_start(form: str, zone: str, names: dict[str, str], words: str) -> None:
    (problem,) = problems(form, zone, names)
    assert words in problem


@pytest.mark.parametrize("form", ["iso8601", "%c", "%Y", "%Y-%m", "%j", "%b %d %H:%M", "%G-W%V-%u", "%d/%m/%y %I %p",
                                  "%Y%m%d%H%M%S%f", "%a, %d %b %Y %H:%M:%S %z", "%x %X"])
def test_a_format_that_gives_one_is_not(form: str) -> None:
    assert problems(form) == []


CODE = """
from stages.mapping.records.time_formats import time_format
read = time_format("%Y-%m-%d %H:%M:%S", "UTC", {}).read
named = time_format("%Y-%m-%d %H:%M:%S %Z", "UTC", {"CET": "+01:00", "EST": "-05:00"}).read
print(read("2026-01-15 12:00:00", None), named("2026-01-15 12:00:00 CET", None), named("2026-01-15 12:00:00 EST", None))
"""


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_the_zone_of_the_machine_does_not_matter(zone: str) -> None:
    run = subprocess.run([sys.executable, "-c", CODE], env={"TZ": zone, "PYTHONPATH": ":".join(sys.path)}, check=True,
                         capture_output=True, text=True)
    assert run.stdout.split() == ["1768478400000000000", "1768474800000000000", "1768496400000000000"]


def test_zones_are_known_where_the_machine_has_no_database() -> None:
    code = "from stages.mapping.records.zones import zone_of; print(zone_of('Europe/Berlin'))"
    run = subprocess.run([sys.executable, "-c", code], env={"PYTHONTZPATH": "", "PYTHONPATH": ":".join(sys.path)},
                         check=True, capture_output=True, text=True)
    assert run.stdout == "Europe/Berlin\n"


moments = st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1))
FORMS = ["%Y-%m-%d %H:%M:%S.%f", "%d/%m/%Y %I:%M:%S.%f %p", "%B %d, %Y %H:%M:%S.%f", "%a %d %b %Y %H:%M:%S.%f",
         "%Y%m%d%H%M%S%f", "%Y-%j %H:%M:%S.%f", "%G-%V-%u %H:%M:%S.%f"]


@given(st.sampled_from(FORMS), moments, st.integers(-1_439, 1_439))
def test_what_strftime_writes_is_read_as_the_same_moment(form: str, at: datetime, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    name = "UTC" if minutes == 0 else f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    since = at.replace(tzinfo=zone) - datetime(1970, 1, 1, tzinfo=UTC)
    expected = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1_000
    assert time_format(form, name, {}).read(at.strftime(form), None) == expected
    if "%G" not in form:
        text = at.replace(tzinfo=zone).strftime(form + " %z")
        assert time_format(form + " %z", "UTC", {}).read(text, None) == expected


@given(moments, st.sampled_from(["T", " ", "t"]), st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]),
       st.sampled_from([".", ","]), st.integers(-1_439, 1_439))
def test_what_isoformat_writes_is_read_as_the_same_moment(
        at: datetime, between: str, spec: str, point: str, minutes: int) -> None:
    at = at.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = at.isoformat(between, spec).replace(".", point)
    exact = datetime.fromisoformat(at.isoformat(timespec=spec))
    since = exact - datetime(1970, 1, 1, tzinfo=UTC)
    expected = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1_000
    assert time_format("iso8601", "UTC", {}).read(text, None) == expected


@given(st.one_of(st.sampled_from(["iso8601", "%Y", *FORMS])), st.text(max_size=30))
def test_any_text_is_a_time_or_a_bad_one(form: str, text: str) -> None:
    try:
        assert isinstance(time_format(form, "Europe/Berlin", {}).read(text, 1_700_000_000_000_000), int)
    except BadTimestamp as error:
        assert str(error)


@given(moments, moments)
def test_without_a_year_no_other_year_is_nearer(at: datetime, near: datetime) -> None:
    if (at.month, at.day) == (2, 29):
        at = at.replace(day=28)
    micros = (near - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    found = time_format("%b %d %H:%M:%S", "UTC", {}).read(at.strftime("%b %d %H:%M:%S"), micros)
    others = [(at.replace(year=near.year + step, microsecond=0) - datetime(1970, 1, 1)) // timedelta(microseconds=1)
              for step in (-1, 0, 1)]
    assert abs(found // 1_000 - micros) == min(abs(other - micros) for other in others)
