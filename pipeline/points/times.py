"""Times in nanoseconds since 1970, exactly: from and to RFC 3339. Pure."""

import re
from datetime import UTC, datetime, timedelta, timezone

#: Times that InfluxDB can store: int64 without its two lowest values and its highest one.
MIN_TIME, MAX_TIME = -(2**63) + 2, 2**63 - 2
SECOND = 1_000_000_000
#: Entries in the cache of a TimeReader.
MAX_SECONDS = 100_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)?")


class TimeOutOfRange(ValueError):
    """A time before or after those that InfluxDB can store."""


def parse_time(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time; without a zone it is UTC, as InfluxDB 3 prints it.

    Raises ValueError for anything else, and TimeOutOfRange for a time that InfluxDB cannot store.
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:60]} is not a time like 2026-01-31T00:00:00Z")
    *numbers, fraction, zone = found.groups()
    tz: timezone = UTC
    if zone and zone not in "Zz":
        minutes = int(zone[1:3]) * 60 + int(zone[4:6])
        tz = timezone(timedelta(minutes=-minutes if zone[0] == "-" else minutes))
    whole = datetime(*map(int, numbers), tzinfo=tz) - _EPOCH  # type: ignore[arg-type, misc]
    time = (whole.days * 86_400 + whole.seconds) * SECOND + int((fraction or "").ljust(9, "0"))
    if not MIN_TIME <= time <= MAX_TIME:
        raise TimeOutOfRange(f"{text} is outside the times of InfluxDB, {format_time(MIN_TIME)} to "
                             f"{format_time(MAX_TIME)}")
    return time


class TimeReader:
    """`parse_time` with a cache of whole seconds, for many times near each other."""

    def __init__(self) -> None:
        self._seconds: dict[str, int] = {}

    def read(self, text: str) -> int:
        """Nanoseconds since 1970. Raises ValueError."""
        whole = self._seconds.get(text[:19])
        fraction = text[20:].rstrip("Z")
        if whole is None or (len(text) > 19 and text[19] not in ".Z") or (fraction and not fraction.isdigit()) \
                or len(fraction) > 9:
            time = parse_time(text)
            if len(self._seconds) >= MAX_SECONDS:
                self._seconds.clear()
            if len(text) <= 20 or text[19] == "." and (fraction.isdigit() and len(fraction) <= 9):
                self._seconds[text[:19]] = time - time % SECOND
            return time
        return whole + int(fraction.ljust(9, "0") or "0")


def format_time(nanoseconds: int) -> str:
    """RFC 3339 in UTC with nine digits after the second."""
    seconds, fraction = divmod(nanoseconds, SECOND)
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S") + f".{fraction:09d}Z"
