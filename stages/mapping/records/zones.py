"""Time zones as a configuration names them: "UTC", an offset such as "+01:00", or a name such as "Europe/Berlin".

Pure, except for the zone database: the machine's, or that of the package tzdata if the machine has none. The machine's
own zone never matters.
"""

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stages.mapping.records import timestamps

_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
#: Offset from UTC: sign, hours, minutes. The minus may be the typographic one, which ISO 8601 prefers.
OFFSET = r"([-+\u2212])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?"
_OFFSET = re.compile(OFFSET)
_NAME = re.compile(r"[A-Za-z]+(?:/[A-Za-z0-9_+-]+)*")


def offset_seconds(text: str) -> int | None:
    """Seconds of an offset, "+01:00", "+0100" or "+01"; 0 for "Z", "UTC", "GMT" and "UT"; None for anything else."""
    if text.upper() in ("Z", "UTC", "GMT", "UT"):
        return 0
    match = _OFFSET.fullmatch(text)
    if match is None:
        return None
    seconds = int(match[2]) * 3_600 + int(match[3] or 0) * 60
    return seconds if match[1] == "+" else -seconds


def zone_of(name: str) -> tzinfo:
    """The zone of a name. Raises ValueError, with a text for the user, if it does not exist."""
    seconds = offset_seconds(name)
    if seconds is not None:
        return timezone(timedelta(seconds=seconds)) if seconds else UTC
    try:
        # "localtime" is the machine's own zone in some databases.
        if _NAME.fullmatch(name) and name not in ("localtime", "posixrules"):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise ValueError('there is no such time zone; use "UTC", an offset such as "+01:00", or a name such as '
                     '"Europe/Berlin"')


def utc_offset(zone: tzinfo, local: datetime) -> int:
    """Seconds that a zone is ahead of UTC at a local time.

    A time that occurs twice, when clocks go back, is the first of the two. A time that is skipped, when they go
    forward, has the offset from before the change (02:30 means 03:30). Source: PEP 495, fold = 0.
    """
    offset = local.replace(tzinfo=zone).utcoffset()
    return round(offset.total_seconds()) if offset is not None else 0


def moment(day: int, seconds: int, nanoseconds: int, offset: int | None, zone: tzinfo) -> int:
    """Nanoseconds since 1970 of a day's ordinal and of a time of that day.

    `offset` is in seconds ahead of UTC; `zone` counts where it is None. Raises BadTimestamp, and OverflowError beyond
    the years 1 to 9999.
    """
    total = (day - _EPOCH_DAY) * 86_400 + seconds
    if offset is None:
        offset = 0 if zone is UTC else utc_offset(zone, datetime(1970, 1, 1) + timedelta(seconds=total))
    return timestamps.check_range((total - offset) * 1_000_000_000 + nanoseconds)
