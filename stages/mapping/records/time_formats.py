"""`timestamp_format`: reads times of any of its formats as nanoseconds since 1970. Pure.

Neither the machine's zone nor its locale matters (names of months and days are English). `time_format` refuses formats
that cannot give a moment, at the start rather than with the first message.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final, NamedTuple

from stages.mapping.records import timestamps
from stages.mapping.records.iso8601 import read_iso
from stages.mapping.records.number_times import number_reader
from stages.mapping.records.timestamps import BadTimestamp
from stages.mapping.records.zones import OFFSET, moment, offset_seconds, zone_of
from stages.mapping.reject import shown

#: (text, the message's own time or None: microseconds since 1970) -> nanoseconds since 1970. Raises BadTimestamp.
Reader = Callable[[str, int | None], int]

#: Longest text that is parsed.
_MAX_CHARS: Final = 200
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FULL_MONTHS: Final = ("january", "february", "march", "april", "may", "june", "july", "august", "september",
                       "october", "november", "december")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FULL_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WEEK: Final = "5[0-3]|[0-4][0-9]|[0-9]"
#: Pattern of each directive of strptime. Source: the library reference of Python, datetime, "Format Codes".
_DIRECTIVES: Final = {
    "a": "|".join(_DAYS), "A": "|".join(_FULL_DAYS), "b": "|".join(_MONTHS), "B": "|".join(_FULL_MONTHS),
    "d": "3[01]|[12][0-9]|0[1-9]|[1-9]| [1-9]", "f": "[0-9]+", "H": "2[0-3]|[01][0-9]|[0-9]",
    "I": "1[0-2]|0[1-9]|[1-9]| [1-9]", "j": "36[0-6]|3[0-5][0-9]|[12][0-9][0-9]|0[1-9][0-9]|00[1-9]|[1-9][0-9]|[1-9]",
    "m": "1[0-2]|0[1-9]|[1-9]", "M": "[0-5][0-9]|[0-9]", "p": "am|pm", "S": "60|[0-5][0-9]|[0-9]", "y": "[0-9]{2}",
    "Y": "[0-9]{4}", "z": f"{OFFSET}|Z", "Z": "[A-Za-z]+", "u": "[1-7]", "w": "[0-6]",
    "G": "[0-9]{4}", "U": _WEEK, "V": _WEEK, "W": _WEEK,
}
#: Directives that stand for others, in the locale C.
_MACROS: Final = {"c": "%a %b %d %H:%M:%S %Y", "x": "%m/%d/%y", "X": "%H:%M:%S"}
#: Directives of weeks.
_WEEKS: Final = frozenset("UWGV")
_RFC_3164: Final = "%b %d %H:%M:%S"
#: Zones of RFC 822 and 2822 by name, and hours ahead of UTC; military letters mean nothing (RFC 2822, 4.3).
_RFC_ZONES: Final = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
_RFC_2822: Final = re.compile(
    rf"(?:(?:{'|'.join(_FULL_DAYS)}|{'|'.join(_DAYS)}),?\s+)?([0-3]?[0-9])[\s-]({'|'.join(_MONTHS)})[\s-]([0-9]{{4}}|[0-9]{{2}})"
    rf"\s+([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]|60))?\s+([+-][0-9]{{4}}|UTC?|GMT|Z|{'|'.join(_RFC_ZONES)})"
    r"(?:\s*\([^()]*\))?", re.IGNORECASE | re.ASCII)
#: What ASP.NET and WCF write in JSON: milliseconds since 1970; the offset is that of their clock, and changes nothing.
_DOTNET_DATE: Final = re.compile(r"/?(?:new )?Date\((-?[0-9]{1,19})(?:[+-][0-9]{4})?\)/?")


class BadTimeFormat(ValueError):
    """A format cannot give a moment, or a zone does not exist; `option` is the key of the mapping that causes it."""

    def __init__(self, problem: str, option: str = "timestamp_format") -> None:
        super().__init__(problem)
        self.option = option


class TimeFormat(NamedTuple):
    """How times of one format are read."""

    name: str
    read: Reader
    #: It reads numbers, and strings that hold them; otherwise it reads strings, and whole numbers as their digits.
    is_number: bool = False


def time_format(form: str, zone: str, zone_names: Mapping[str, str]) -> TimeFormat:
    """How times of a format are read; `zone` is for those without an offset, `zone_names` are abbreviations for %Z.

    Raises BadTimeFormat.
    """
    try:
        own = zone_of(zone)
    except ValueError as error:
        raise BadTimeFormat(f'"{zone}": {error}', "timestamp_zone") from None
    offsets = _offsets(zone_names)
    numbers = number_reader(form, own)
    if numbers is not None:
        return TimeFormat(form, numbers, is_number=True)
    match form:
        case "iso8601":
            return TimeFormat(form, lambda text, near: read_iso(text, own))
        case "rfc3339":
            return TimeFormat(form, lambda text, near: timestamps.parse_rfc3339(text))
        case "rfc2822":
            return TimeFormat(form, lambda text, near: _read_rfc_2822(text))
        case "dotnet_date":
            return TimeFormat(form, lambda text, near: _read_dotnet_date(text))
    plain = _RFC_3164 if form == "rfc3164" else re.sub(
        "%(.)", lambda match: _MACROS.get(match[1], match[0]), form, flags=re.DOTALL)
    _check(form, plain, bool(zone_names))
    return TimeFormat(form, _Strptime(form, plain, own, offsets).read)


def _offsets(zone_names: Mapping[str, str]) -> dict[str, int]:
    """Seconds ahead of UTC by abbreviation, in lower case. Raises BadTimeFormat."""
    offsets = {"utc": 0, "gmt": 0, "ut": 0, "z": 0}
    for name, offset in zone_names.items():
        seconds = offset_seconds(offset)
        if seconds is None or not re.fullmatch("[A-Za-z]+", name):
            raise BadTimeFormat(f'{name} = "{offset}" is not allowed; give an abbreviation and its offset, such as '
                                'CET = "+01:00"', "timestamp_zone_names")
        offsets[name.lower()] = seconds
    return offsets


def _check(form: str, plain: str, has_zone_names: bool) -> None:
    """Raises BadTimeFormat if a strptime format cannot give a moment."""
    found = [name for name in re.findall("%(.?)", plain, re.DOTALL) if name != "%"]
    used = set(found)
    unknown = [name for name in found if name not in _DIRECTIVES]
    if unknown:
        raise BadTimeFormat(f'"{form}": strptime has no %{unknown[0]}; seconds since 1970 are epoch_s, fractions %f')
    twice = [name for name in found if found.count(name) > 1]
    if twice:
        raise BadTimeFormat(f'"{form}": %{twice[0]} occurs twice')
    has_day = used & {"j"} or used & set("bBm") and "d" in used
    has_week = bool(used & set("aAwu")) and (used & _WEEKS == {"G", "V"} or "G" not in used and (
        used & _WEEKS in ({"U"}, {"W"})))
    if not (used & set("YyG") or has_day) or used & _WEEKS and not has_week:
        raise BadTimeFormat(f'"{form}": it has no date, so it cannot give a moment')
    if not used & set("YyG") and not has_day or used & {"d"} and not used & set("bBmj"):
        raise BadTimeFormat(f'"{form}": it has no month')
    if ("I" in used) != ("p" in used):
        raise BadTimeFormat(f'"{form}": %I (1 to 12) and %p (AM or PM) need each other; %H is 0 to 23')
    if "Z" in used and not has_zone_names:
        raise BadTimeFormat(f'"{form}": %Z does not give the offset; set those of the abbreviations in '
                            'timestamp_zone_names = { CET = "+01:00", CEST = "+02:00" } (UTC and GMT are known), or '
                            "put an abbreviation that never changes into the format, and set timestamp_zone")


def _nanoseconds(fraction: str | None) -> int:
    """A fraction of a second in nanoseconds, rounded down."""
    return int((fraction or "0")[:9].ljust(9, "0"))


def _read_dotnet_date(text: str) -> int:
    match = _DOTNET_DATE.fullmatch(text.strip()) if len(text) <= _MAX_CHARS else None
    if match is None:
        raise BadTimestamp(f"not a time like /Date(1700000000000)/: {shown(text)!r}")
    return timestamps.parse_epoch(match[1], "ms")


def _read_rfc_2822(text: str) -> int:
    match = _RFC_2822.fullmatch(text.strip()) if len(text) <= _MAX_CHARS else None
    if match is None:
        raise BadTimestamp(f"not a time of RFC 2822: {shown(text)!r}")
    day, month, year, hour, minute, second, zone = match.groups()
    offset = offset_seconds(zone)
    if offset is None:
        offset = _RFC_ZONES[zone.upper()] * 3_600
    try:
        at = date(int(year) if len(year) == 4 else _century(int(year)), _MONTHS.index(month.lower()) + 1, int(day))
    except ValueError:
        raise BadTimestamp(f"no such day: {shown(text)!r}") from None
    return moment(at.toordinal(), int(hour) * 3_600 + int(minute) * 60 + int(second or 0), 0, offset, UTC)


class _Strptime:
    """Parses times of one strptime format as Python does, but with fractions of any length, and years from the
    message."""

    def __init__(self, form: str, plain: str, zone: tzinfo, offsets: Mapping[str, int]) -> None:
        self._form = form
        self._zone = zone
        self._offsets = offsets
        pattern = ""
        for directive, name, space, literal in re.findall(r"(%(.))|(\s+)|(.)", plain, re.DOTALL):
            if directive and name != "%":
                pattern += f"(?P<{name}>{_DIRECTIVES[name]})"
            else:
                pattern += r"\s+" if space else re.escape(literal or name)
        self._match = re.compile(pattern, re.IGNORECASE | re.ASCII).fullmatch

    def read(self, text: str, near: int | None) -> int:
        """The time of a text. A missing year is the one nearest to `near`. Raises BadTimestamp."""
        match = self._match(text.strip()) if len(text) <= _MAX_CHARS else None
        if match is None:
            raise BadTimestamp(f"not a time like {self._form}: {shown(text)!r}")
        found = match.groupdict()
        try:
            year = next((int(found[name]) for name in "YG" if name in found), None)
            if year is None and "y" in found:
                year = _century(int(found["y"]))
            return self._nearest(found, near) if year is None else self._moment(found, year)
        except (ValueError, OverflowError) as error:
            if isinstance(error, BadTimestamp):
                raise
            raise BadTimestamp(f"no such time: {shown(text)!r}") from None

    def _nearest(self, found: Mapping[str, str], near: int | None) -> int:
        if near is None:
            raise BadTimestamp("it has no year, and the message has no time to derive it from")
        middle = (datetime(1970, 1, 1) + timedelta(microseconds=near)).year
        moments = []
        for year in range(max(1, middle - 8), min(9_999, middle + 8) + 1):
            try:
                moments.append(self._moment(found, year))
            except ValueError:  # a 29 February that this year does not have
                continue
        if not moments:
            raise ValueError
        return min(moments, key=lambda ns: abs(ns - near * 1_000))

    def _moment(self, found: Mapping[str, str], year: int) -> int:
        hour = int(found.get("H", 0))
        if "I" in found:
            hour = int(found["I"]) % 12 + 12 * (found["p"].lower() == "pm")
        seconds = hour * 3_600 + int(found.get("M", 0)) * 60 + int(found.get("S", 0))
        return moment(_day(found, year), seconds, _nanoseconds(found.get("f")), self._offset(found), self._zone)

    def _offset(self, found: Mapping[str, str]) -> int | None:
        if "z" in found:
            return offset_seconds(found["z"])
        if "Z" not in found:
            return None
        offset = self._offsets.get(found["Z"].lower())
        if offset is None:
            raise BadTimestamp(f"{shown(found['Z'])} is not one of timestamp_zone_names")
        return offset


def _century(year: int) -> int:
    """The year of two digits. Source: POSIX, strptime, %y."""
    return year + (1900 if year > 68 else 2000)


def _day(found: Mapping[str, str], year: int) -> int:
    """The ordinal of the date; its first month and day, if the format has none. Raises ValueError."""
    if "V" in found:
        return date.fromisocalendar(year, int(found["V"]), _weekday(found) + 1).toordinal()
    first = date(year, 1, 1)
    if "U" in found or "W" in found:
        # The days before the first Sunday (%U) or Monday (%W) of the year are in week 0.
        shift = 1 if "U" in found else 0
        begins = (first.weekday() + shift) % 7
        week = int(found["U"] if shift else found["W"])
        day = first.toordinal() + 7 * week - begins + (_weekday(found) + shift) % 7 - (0 if begins else 7)
        if date.fromordinal(day).year != year:
            raise ValueError
        return day
    if "j" in found:
        day = first.toordinal() + int(found["j"]) - 1
        if date.fromordinal(day).year != year:
            raise ValueError
        return day
    month = int(found.get("m", 1))
    if name := found.get("b"):
        month = _MONTHS.index(name.lower()) + 1
    elif name := found.get("B"):
        month = _FULL_MONTHS.index(name.lower()) + 1
    return date(year, month, int(found.get("d", 1))).toordinal()


def _weekday(found: Mapping[str, str]) -> int:
    """0 for Monday to 6 for Sunday."""
    if "u" in found:
        return int(found["u"]) - 1
    if "w" in found:
        return (int(found["w"]) - 1) % 7
    return _DAYS.index((found.get("a") or found["A"])[:3].lower())
