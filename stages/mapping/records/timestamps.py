"""Timestamps: JSON text or RFC 3339 to nanoseconds, exactly, and nanoseconds to the precision written.

No value passes through a float: `1700000000.123456789` seconds keep their last digit.
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
#: A present time's unit, by its number of digits.
_UNIT_BY_DIGITS: Final = {10: "s", 13: "ms", 16: "us", 19: "ns"}
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()


class BadTimestamp(ValueError):
    """The time cannot be read, or is out of range (reject reason "bad_timestamp")."""


def check_range(ns: int) -> int:
    """Line protocol element `timestamp`: give `ns` back if the servers' range holds it."""
    if not MIN_NS <= ns <= MAX_NS:
        raise BadTimestamp(f"time out of range: {ns} ns" if abs(ns) < 10**40 else "time out of range")
    return ns


def to_precision(ns: int, precision: str) -> int:
    """Line protocol element `timestamp`: nanoseconds in the unit the request names, rounded down."""
    return ns // UNIT_NS[precision]


def parse_epoch(text: str, unit: str) -> int:
    """A number's decimal text, counted in `unit` ("ns", "us", "ms", "s"), in nanoseconds.

    Digits finer than a nanosecond are rounded down.
    """
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
    shift = int(exponent or 0) - len(fraction) + len(str(UNIT_NS[unit])) - 1
    if len(digits) + shift > 20:
        raise BadTimestamp("time out of range")
    value = -int(digits) if sign == "-" else int(digits)
    ns = value * 10**shift if shift >= 0 else value // 10 ** min(-shift, len(digits) + 1)
    return check_range(ns)


def hint(text: str) -> str:
    """What a time that cannot be read may be: the beginning of an advice; "" where nothing is seen."""
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
    """An RFC 3339 date-time, any offset, up to nine digits of fraction, in nanoseconds.

    A leap second (`:60`) counts as the first second of the next minute.
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
