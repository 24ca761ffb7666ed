"""The Retry-After header, and HTTP dates. Pure."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def retry_after(value: str | None, now: float, date: str | None = None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date.

    A date is relative to the answer's own Date header `date`; without one, to `now` (seconds since 1970).
    """
    if not value:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return max(0.0, float(value))
    until = seconds_of(value)
    if until is None:
        return None
    base = seconds_of(date) if date else None
    return max(0.0, until - (now if base is None else base))


def seconds_of(date: str) -> float | None:
    """Seconds since 1970 of an HTTP date, which is always UTC; None if it is not a date."""
    try:
        found = parsedate_to_datetime(date)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
