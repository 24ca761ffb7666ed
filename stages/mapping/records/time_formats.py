"""`timestamp_format`: parses ISO 8601 and strptime formats to nanoseconds since 1970. Pure.

Neither the machine's zone nor its locale matters (names of months and days are English). `time_reader` refuses formats
that cannot give a moment, at the start rather than with the first message.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final, NamedTuple

from stages.mapping.records import timestamps
from stages.mapping.records.timestamps import BadTimestamp
from stages.mapping.records.zones import OFFSET, offset_seconds, utc_offset, zone_of
from stages.mapping.reject import shown

#: (text, the message's own time or None: microseconds since 1970) -> nanoseconds since 1970. Raises BadTimestamp.
Reader = Callable[[str, int | None], int]

#: Longest text that is parsed.
_MAX_CHARS: Final = 200
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAY_SECONDS: Final = 86_400
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FULL_MONTHS: Final = ("january", "february", "march", "april", "may", "june", "july", "august", "september",
                       "october", "november", "december")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FULL_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
#: Pattern of each directive of strptime. Source: the library reference of Python, datetime, "Format Codes".
_DIRECTIVES: Final = {
    "a": "|".join(_DAYS), "A": "|".join(_FULL_DAYS), "b": "|".join(_MONTHS), "B": "|".join(_FULL_MONTHS),
    "d": "3[01]|[12][0-9]|0[1-9]|[1-9]| [1-9]", "f": "[0-9]+", "H": "2[0-3]|[01][0-9]|[0-9]",
    "I": "1[0-2]|0[1-9]|[1-9]| [1-9]", "j": "36[0-6]|3[0-5][0-9]|[12][0-9][0-9]|0[1-9][0-9]|00[1-9]|[1-9][0-9]|[1-9]",
    "m": "1[0-2]|0[1-9]|[1-9]", "M": "[0-5][0-9]|[0-9]", "p": "am|pm", "S": "60|[0-5][0-9]|[0-9]", "y": "[0-9]{2}",
    "Y": "[0-9]{4}", "z": f"{OFFSET}|Z", "Z": "[A-Za-z]+", "u": "[1-7]", "w": "[0-6]",
}
#: Directives that stand for others, in the locale C.
_MACROS: Final = {"c": "%a %b %d %H:%M:%S %Y", "x": "%m/%d/%y", "X": "%H:%M:%S"}
#: Directives of weeks: formats with them are parsed by Python's own strptime.
_WEEKS: Final = frozenset("UWGV")
_ISO: Final = re.compile(
    r"(?:([0-9]{4})-([0-9]{2})-([0-9]{2})|([0-9]{4})([0-9]{2})([0-9]{2}))"
    r"(?:(?:[Tt]| +)(2[0-4]|[01][0-9])(?::?([0-5][0-9])(?::?(60|[0-5][0-9])(?:[.,]([0-9]+))?)?)?"
    rf" *(Z|z|UTC|GMT|{OFFSET})?)?")


class BadTimeFormat(ValueError):
    """A format cannot give a moment, or a zone does not exist; `option` is the key of the mapping that causes it."""

    def __init__(self, problem: str, option: str = "timestamp_format") -> None:
        super().__init__(problem)
        self.option = option


class _Parts(NamedTuple):
    """The parts of a time in a text."""

    month: int
    day: int
    #: Seconds of the day, and nanoseconds; in the zone of the text, or else of the configuration.
    seconds: int
    nanoseconds: int
    #: Seconds ahead of UTC; None if the text has no offset.
    offset: int | None


def time_reader(form: str, zone: str, zone_names: Mapping[str, str]) -> Reader:
    """A reader of times of a format; `zone` is for texts without an offset, `zone_names` are abbreviations for %Z.

    Raises BadTimeFormat.
    """
    try:
        own = zone_of(zone)
    except ValueError as error:
        raise BadTimeFormat(f'"{zone}": {error}', "timestamp_zone") from None
    offsets = _offsets(zone_names)
    if form == "iso8601":
        return lambda text, near: _read_iso(text, own)
    plain = re.sub("%(.)", lambda match: _MACROS.get(match[1], match[0]), form, flags=re.DOTALL)
    used = _checked(form, plain, offsets)
    if used & _WEEKS:
        return lambda text, near: _by_weeks(text, form, own)
    return _Strptime(form, plain, own, offsets).read


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


def _checked(form: str, plain: str, offsets: Mapping[str, int]) -> set[str]:
    """The directives of a format. Raises BadTimeFormat if it cannot give a moment."""
    found = [name for name in re.findall("%(.?)", plain, re.DOTALL) if name != "%"]
    used = set(found)
    unknown = [name for name in found if name not in _DIRECTIVES and name not in _WEEKS]
    if unknown:
        raise BadTimeFormat(f'"{form}": strptime has no %{unknown[0]}; seconds since 1970 are epoch_s, fractions %f')
    twice = [name for name in found if found.count(name) > 1]
    if twice:
        raise BadTimeFormat(f'"{form}": %{twice[0]} occurs twice')
    has_day = used & {"j"} or used & set("bBm") and "d" in used
    has_week = used & {"U", "W"} and used & set("aAwu") or {"V", "u"} <= used or {"V", "a"} <= used
    if not (used & set("YyG") or has_day) or used & _WEEKS and not has_week:
        raise BadTimeFormat(f'"{form}": it has no date, so it cannot give a moment')
    if not used & set("YyG") and not has_day or used & {"d"} and not used & set("bBmj"):
        raise BadTimeFormat(f'"{form}": it has no month')
    if ("I" in used) != ("p" in used):
        raise BadTimeFormat(f'"{form}": %I (1 to 12) and %p (AM or PM) need each other; %H is 0 to 23')
    if "Z" in used and (len(offsets) == 4 or used & _WEEKS):
        raise BadTimeFormat(f'"{form}": %Z does not give the offset; set those of the abbreviations in '
                            'timestamp_zone_names = { CET = "+01:00", CEST = "+02:00" } (UTC and GMT are known), or '
                            "put an abbreviation that never changes into the format, and set timestamp_zone")
    return used


def _moment(year: int, parts: _Parts, zone: tzinfo) -> int:
    """Nanoseconds since 1970. Raises BadTimestamp and ValueError."""
    day = date(year, parts.month, parts.day).toordinal() - _EPOCH_DAY
    seconds = day * _DAY_SECONDS + parts.seconds
    offset = parts.offset
    if offset is None:
        local = datetime(1970, 1, 1) + timedelta(seconds=seconds) if zone is not UTC else None
        offset = utc_offset(zone, local) if local is not None else 0
    return timestamps.check_range((seconds - offset) * 1_000_000_000 + parts.nanoseconds)


def _nanoseconds(fraction: str | None) -> int:
    """A fraction of a second in nanoseconds, rounded down."""
    return int((fraction or "0")[:9].ljust(9, "0"))


def _read_iso(text: str, zone: tzinfo) -> int:
    match = _ISO.fullmatch(text.strip()) if len(text) <= _MAX_CHARS else None
    if match is None:
        raise BadTimestamp(f"not an ISO 8601 time: {shown(text)!r}")
    hour, minute, second, fraction, suffix = match.group(7, 8, 9, 10, 11)
    year, month, day = (int(match[index] or match[index + 3]) for index in (1, 2, 3))
    of_day = int(hour or 0) * 3_600 + int(minute or 0) * 60 + int(second or 0)
    try:
        if of_day > _DAY_SECONDS:
            raise ValueError
        return _moment(year, _Parts(month, day, of_day, _nanoseconds(fraction),
                                    offset_seconds(suffix) if suffix else None), zone)
    except (ValueError, OverflowError) as error:
        if isinstance(error, BadTimestamp):
            raise
        raise BadTimestamp(f"no such time: {shown(text)!r}") from None


def _by_weeks(text: str, form: str, zone: tzinfo) -> int:
    try:
        at = datetime.strptime(text[:_MAX_CHARS], form)
        since = at.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        offset = at.utcoffset()
        ahead = utc_offset(zone, at) if offset is None else round(offset.total_seconds())
    except (ValueError, OverflowError):
        raise BadTimestamp(f"not a time like {form}: {shown(text)!r}") from None
    seconds = since.days * _DAY_SECONDS + since.seconds - ahead
    return timestamps.check_range((seconds * 1_000_000 + since.microseconds) * 1_000)


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
            if "Y" in found or "y" in found:
                year = int(found["Y"]) if "Y" in found else _century(int(found["y"]))
                return _moment(year, self._parts(found, year), self._zone)
            return self._nearest(found, near)
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
                moments.append(_moment(year, self._parts(found, year), self._zone))
            except ValueError:  # a 29 February that this year does not have
                continue
        if not moments:
            raise ValueError
        return min(moments, key=lambda ns: abs(ns - near * 1_000))

    def _parts(self, found: Mapping[str, str], year: int) -> _Parts:
        month, day = _day(found, year)
        hour = int(found.get("H", 0))
        if "I" in found:
            hour = int(found["I"]) % 12 + 12 * (found["p"].lower() == "pm")
        seconds = hour * 3_600 + int(found.get("M", 0)) * 60 + int(found.get("S", 0))
        return _Parts(month, day, seconds, _nanoseconds(found.get("f")), self._offset(found))

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


def _day(found: Mapping[str, str], year: int) -> tuple[int, int]:
    """Month and day of the month; 1 if the format has none."""
    if "j" in found:
        at = date(year, 1, 1) + timedelta(days=int(found["j"]) - 1)
        if at.year != year:
            raise ValueError
        return at.month, at.day
    month = int(found.get("m", 1))
    if name := found.get("b"):
        month = _MONTHS.index(name.lower()) + 1
    elif name := found.get("B"):
        month = _FULL_MONTHS.index(name.lower()) + 1
    return month, int(found.get("d", 1))
