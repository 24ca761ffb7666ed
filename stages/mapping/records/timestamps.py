"""Converts numbers and RFC 3339 texts to nanoseconds, and nanoseconds to the precision written, without rounding
errors.

No value is converted through a float: `1700000000.123456789` seconds keep their last digit.
"""

import re
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final

#: The range the servers accept, in nanoseconds.
MIN_NS: Final = -9223372036854775806
MAX_NS: Final = 9223372036854775806

#: Nanoseconds in one unit, by precision.
UNIT_NS: Final[dict[str, int]] = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}

_NUMBER = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?", re.ASCII)
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))",
    re.ASCII,
)
#: The unit of a present time, by its number of digits.
_UNIT_BY_DIGITS: Final = {10: "s", 13: "ms", 16: "us", 19: "ns"}
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()


class BadTimestamp(ValueError):
    """The time cannot be parsed, or is out of range (reject reason "bad_timestamp")."""


def check_range(ns: int) -> int:
    """Line protocol element `timestamp`: returns `ns`. Raises BadTimestamp if it is outside the servers' range."""
    if not MIN_NS <= ns <= MAX_NS:
        raise BadTimestamp(f"time out of range: {ns} ns" if abs(ns) < 10**40 else "time out of range")
    return ns


def to_precision(ns: int, precision: str) -> int:
    """Line protocol element `timestamp`: nanoseconds in the unit the request names, rounded down."""
    return ns // UNIT_NS[precision]


def parse_epoch(text: str, unit: str) -> int:
    """Nanoseconds of a number's decimal text in `unit` ("ns", "us", "ms", "s"), rounded down. Raises BadTimestamp."""
    return check_range(scaled(text, UNIT_NS[unit]))


def scaled(text: str, unit_ns: int) -> int:
    """A number's decimal text times `unit_ns`, rounded down: of at most 40 digits. Raises BadTimestamp."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise BadTimestamp(f"not a number: {text[:40]!r}")
    sign, whole, fraction, exponent = match.groups()
    fraction = fraction or ""
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 0
    if len(text) > 400 or (exponent and len(exponent) > 5):
        raise BadTimestamp("time out of range")
    shift = int(exponent or 0) - len(fraction)
    if len(digits) + shift > 40 - len(str(unit_ns)):
        raise BadTimestamp("time out of range")
    value: int = (-int(digits) if sign == "-" else int(digits)) * unit_ns
    return value * int(10**shift) if shift >= 0 else value // 10 ** min(-shift, len(digits) + 20)


def hint(text: str) -> str:
    """A suggestion of the format of a time that cannot be parsed, to append to the error; "" if there is none."""
    unit = _UNIT_BY_DIGITS.get(len(text)) if text.isascii() and text.isdigit() and text[0] == "1" else None
    if unit is None:
        return ""
    at = datetime.fromtimestamp(parse_epoch(text, unit) // UNIT_NS["s"], UTC)
    return f'; with timestamp_format = "epoch_{unit}" it is {at:%Y-%m-%dT%H:%M:%SZ}'


@lru_cache(maxsize=1024)
def _day_seconds(day: str) -> int:
    """Seconds from 1970-01-01 to `day` (YYYY-MM-DD)."""
    try:
        return (date.fromisoformat(day).toordinal() - _EPOCH_DAY) * 86_400
    except ValueError:
        raise BadTimestamp(f"no such day: {day}") from None


def parse_rfc3339(text: str) -> int:
    """Nanoseconds of an RFC 3339 date-time with any offset and up to nine digits of fraction. Raises BadTimestamp.

    A leap second (`:60`) is the first second of the next minute.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise BadTimestamp(f"not an RFC 3339 time: {text[:40]!r}")
    day, hour, minute, second, fraction, sign, off_hour, off_minute = match.groups()
    hours, minutes, seconds = int(hour), int(minute), int(second)
    if hours > 23 or minutes > 59 or seconds > 60:
        raise BadTimestamp(f"no such time of day: {text[:40]!r}")
    total = _day_seconds(day) + hours * 3600 + minutes * 60 + seconds
    if sign:
        if int(off_hour) > 23 or int(off_minute) > 59:
            raise BadTimestamp(f"no such offset: {text[:40]!r}")
        offset = int(off_hour) * 3600 + int(off_minute) * 60
        total += offset if sign == "-" else -offset
    return check_range(total * 1_000_000_000 + int((fraction or "").ljust(9, "0")))
