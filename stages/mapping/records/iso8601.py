"""`timestamp_format = "iso8601"`: everything that is called ISO 8601 and gives a moment. Pure.

Date: 2023-11-14, 20231114, a week date 2023-W46-2, an ordinal date 2023-318. Time, after T or spaces, or none: hours,
minutes and seconds, with or without colons; a fraction of any length, after a point or comma, of the last of them.
Offset: Z, UTC, GMT, +01:00, +0100, +01, or none. A zone in brackets after an offset (RFC 9557) adds nothing to it.
"""

import re
from datetime import date, tzinfo
from typing import Final

from stages.mapping.records.timestamps import BadTimestamp
from stages.mapping.records.zones import OFFSET, moment, offset_seconds
from stages.mapping.reject import shown

#: Longest text that is parsed.
_MAX_CHARS: Final = 200
#: Digits of a fraction that count.
_DIGITS: Final = 20
_DAY_SECONDS: Final = 86_400
_ISO: Final = re.compile(
    r"(?P<year>[0-9]{4})(?:-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})|(?P<month2>[0-9]{2})(?P<day2>[0-9]{2})"
    r"|-?[Ww](?P<week>[0-9]{2})(?:-?(?P<weekday>[1-7]))|-?(?P<ordinal>[0-9]{3}))"
    r"(?:(?:[Tt]| +)(?P<hour>2[0-4]|[01][0-9])(?::?(?P<minute>[0-5][0-9])(?::?(?P<second>60|[0-5][0-9]))?)?"
    rf"(?:[.,](?P<fraction>[0-9]+))? *(?P<zone>Z|z|UTC|GMT|utc|gmt|{OFFSET})?(?:\[[A-Za-z0-9/_+-]+\])?)?")


def read_iso(text: str, zone: tzinfo) -> int:
    """Nanoseconds since 1970; `zone` is for texts without an offset. Raises BadTimestamp."""
    match = _ISO.fullmatch(text.strip()) if len(text) <= _MAX_CHARS else None
    if match is None or match["zone"] is None and text.rstrip().endswith("]"):
        raise BadTimestamp(f"not an ISO 8601 time: {shown(text)!r}")
    found = match.groupdict()
    hour, minute, second, fraction = (found[name] or "" for name in ("hour", "minute", "second", "fraction"))
    seconds = int(hour or 0) * 3_600 + int(minute or 0) * 60 + int(second or 0)
    unit = 1 if second else 60 if minute else 3_600
    rest = int(fraction[:_DIGITS] or 0) * unit * 1_000_000_000 // 10 ** len(fraction[:_DIGITS])
    try:
        if seconds > _DAY_SECONDS or seconds == _DAY_SECONDS and rest:
            raise ValueError
        return moment(_day(found), seconds, rest, offset_seconds(found["zone"]) if found["zone"] else None, zone)
    except (ValueError, OverflowError) as error:
        if isinstance(error, BadTimestamp):
            raise
        raise BadTimestamp(f"no such time: {shown(text)!r}") from None


def _day(found: dict[str, str]) -> int:
    """The ordinal of the date. Raises ValueError for one that does not exist."""
    year = int(found["year"])
    if found["week"]:
        return date.fromisocalendar(year, int(found["week"]), int(found["weekday"])).toordinal()
    if found["ordinal"]:
        day = date(year, 1, 1).toordinal() + int(found["ordinal"]) - 1
        if not found["ordinal"] > "000" or date.fromordinal(day).year != year:
            raise ValueError
        return day
    return date(year, int(found["month"] or found["month2"]), int(found["day"] or found["day2"])).toordinal()
