"""`timestamp_format` for numbers: their scales, to nanoseconds since 1970. Pure.

GPS time has no leap seconds, and was equal to UTC on 1980-01-06. The differences since then are in `_LEAP_SECONDS`; the
last one is 18 s, since 2017, and no other is announced (IERS, Bulletin C). A leap second itself is the first second of
the next minute. A week number below 1,024 may have been sent modulo 1,024, as receivers with ten bits for it do: it is
the one that is nearest to the message's own time.
"""

from bisect import bisect_right
from collections.abc import Callable
from datetime import date, datetime, timedelta, tzinfo
from typing import Final

from stages.mapping.records import timestamps
from stages.mapping.records.timestamps import UNIT_NS, BadTimestamp, check_range, scaled
from stages.mapping.records.zones import utc_offset

#: (decimal text, the message's own time or None: microseconds since 1970) -> nanoseconds since 1970. Raises
#: BadTimestamp.
NumberReader = Callable[[str, int | None], int]

_SECOND: Final = UNIT_NS["s"]
_DAY_NS: Final = 86_400 * _SECOND
_WEEK_NS: Final = 7 * _DAY_NS
_TICK_NS: Final = 100
#: Weeks after which receivers with ten bits begin at 0 again.
_WEEKS: Final = 1_024
#: Seconds from which on a time of SenML is absolute.
_RELATIVE_BELOW: Final = 2**28
#: Limits of `epoch_auto`, seconds since 1970, below which a number is in that unit; those of InfluxDB 3's
#: precision "auto".
_AUTO: Final = ((5 * 10**9, "s"), (5 * 10**12, "ms"), (5 * 10**15, "us"))


def _days(day: date) -> int:
    return (day - date(1970, 1, 1)).days


_GPS_EPOCH_S: Final = _days(date(1980, 1, 6)) * 86_400
#: Days since which GPS time is ahead of UTC by one more second.
_LEAP_DAYS: Final = tuple(date(*day) for day in (
    (1981, 7, 1), (1982, 7, 1), (1983, 7, 1), (1985, 7, 1), (1988, 1, 1), (1990, 1, 1), (1991, 1, 1), (1992, 7, 1),
    (1993, 7, 1), (1994, 7, 1), (1996, 1, 1), (1997, 7, 1), (1999, 1, 1), (2006, 1, 1), (2009, 1, 1), (2012, 7, 1),
    (2015, 7, 1), (2017, 1, 1)))
#: The same as GPS time, seconds since 1980-01-06.
_LEAP_SECONDS: Final = tuple(_days(day) * 86_400 - _GPS_EPOCH_S + count for count, day in enumerate(_LEAP_DAYS, 1))


def number_reader(form: str, zone: tzinfo) -> NumberReader | None:
    """The reader of a format of numbers; None if `form` is none of them. `zone` is for `ole_date`, a local time."""
    if form.startswith("epoch_") and form != "epoch_auto":
        unit = form.removeprefix("epoch_")
        return lambda text, near: timestamps.parse_epoch(text, unit)
    return {
        "epoch_auto": lambda text, near: _auto(text),
        "filetime": lambda text, near: _ticks(text, date(1601, 1, 1)),
        "dotnet_ticks": lambda text, near: _ticks(text, date(1, 1, 1)),
        "ole_date": lambda text, near: _ole(text, zone),
        "gps_s": lambda text, near: from_gps(scaled(text, _SECOND)),
        "gps_ms": lambda text, near: from_gps(scaled(text, UNIT_NS["ms"])),
        "senml": _senml,
        "gps_week": lambda text, near: from_gps(_week_ns(text, near)),
    }.get(form)


def from_gps(ns: int) -> int:
    """Nanoseconds since 1970 of nanoseconds of GPS time since 1980-01-06. Raises BadTimestamp."""
    leap_seconds = bisect_right(_LEAP_SECONDS, ns // _SECOND)
    return check_range(ns + (_GPS_EPOCH_S - leap_seconds) * _SECOND)


def gps_week_time(week: str, of_week_ns: int, near: int | None) -> int:
    """The time of a week number and of nanoseconds in that week. Raises BadTimestamp."""
    if not 0 <= of_week_ns < _WEEK_NS:
        raise BadTimestamp("the time of the week is not within a week")
    return from_gps(_week_ns(week, near) + of_week_ns)


def _week_ns(text: str, near: int | None) -> int:
    week = scaled(text, 1)
    if not 0 <= week < 100 * _WEEKS:
        raise BadTimestamp(f"no week of GPS: {text[:40]!r}")
    if week < _WEEKS and near is not None:
        present = (near * 1_000 // _SECOND - _GPS_EPOCH_S) // (7 * 86_400)
        week += max(0, round((present - week) / _WEEKS)) * _WEEKS
    return week * _WEEK_NS


def _senml(text: str, near: int | None) -> int:
    """Seconds since 1970, or from the message's own time on, which 2^28 and more cannot be. Source: RFC 8428, 4.5.3."""
    ns = scaled(text, _SECOND)
    if ns >= _RELATIVE_BELOW * _SECOND:
        return check_range(ns)
    if near is None:
        raise BadTimestamp("it is relative, and the message has no time")
    return check_range(near * 1_000 + ns)


def _auto(text: str) -> int:
    size = abs(scaled(text, 1))
    unit = next((unit for limit, unit in _AUTO if size < limit), "ns")
    return timestamps.parse_epoch(text, unit)


def _ticks(text: str, epoch: date) -> int:
    """Ticks of 100 ns since the beginning of a day."""
    return check_range(scaled(text, _TICK_NS) + _days(epoch) * _DAY_NS)


def _ole(text: str, zone: tzinfo) -> int:
    """Days since 1899-12-30, local time, to the nearest millisecond: more is not in the fraction of a day."""
    millisecond = UNIT_NS["ms"]
    days_ns = scaled(text, _DAY_NS)
    if days_ns < 0:
        raise BadTimestamp(f"before 1899-12-30: {text[:40]!r}")
    local = check_range((days_ns + millisecond // 2) // millisecond * millisecond
                        + _days(date(1899, 12, 30)) * _DAY_NS)
    ahead = utc_offset(zone, datetime(1970, 1, 1) + timedelta(seconds=local // _SECOND))
    return check_range(local - ahead * _SECOND)
