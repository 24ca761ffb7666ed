"""The times that a database accepts, as its messages and InfluxQL state them. Pure.

Sources: influxdata/influxdb, `coordinator/points_writer.go` of 1.6 to 1.12, `v1/coordinator/points_writer.go` of 2.7;
recorded answers of 1.6.7 and 2.7.12; influxdata/influxdb#24642 for InfluxDB Cloud Serverless and Dedicated.
"""

import re
from datetime import datetime
from decimal import Decimal
from typing import Any

from stages.influxdb.retention import SECOND, Bounds

_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|\+00:00)"
_DURATION = r"(?:[0-9]+(?:\.[0-9]+)?(?:h|ms|m|s|us|µs|ns))+"
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s|us|µs|ns)")
_NANOSECONDS = {"h": 3_600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": 1_000_000, "us": 1_000, "µs": 1_000, "ns": 1}
#: The bound in messages of InfluxDB 2.7.12 and 1.12. Between its two parts are series keys, which may contain any
#: text: so the first part is matched at the beginning of the message, and the second at its last occurrence.
_STATED = re.compile(
    rf"(?:failure writing points to database: |unexpected error writing points to database: )?partial write: dropped "
    rf"[0-9]+ points outside retention policy of duration (?P<duration>{_DURATION})"
    rf"(?: and [0-9]+ points outside write window \((?:-(?P<past>{_DURATION}))?(?: to )?(?P<future>{_DURATION})?\))?"
    r" - oldest point ")
_LAST = " dropped because it violates a "
_BOUND = re.compile(
    rf"(?P<bound>Retention Policy Lower|Write Window Upper|Write Window Lower) Bound at (?P<at>{_TIME}) dropped=[0-9]+"
    r"(?: for database: \S+ for retention policy: [^\n]*)?")
_POINT = re.compile(rf" at (?P<time>{_TIME})")
#: InfluxDB Cloud Serverless and Dedicated, Clustered; the name of a table is between the two parts.
_STATED_V3 = re.compile("(?:dml handler error: )?data in table ")
_LAST_V3 = " is outside of the retention period: "
_BOUND_V3 = re.compile(rf"minimum acceptable timestamp is (?P<at>{_TIME}), but observed timestamp {_TIME} is older\.?")
#: Longest time with " at " before it, characters.
_POINT_CHARACTERS = 42


def stated_bounds(message: str) -> Bounds | None:
    """The bounds in a server's message about refused lines, by its clock; None if there are none."""
    if _STATED_V3.match(message):
        last = _BOUND_V3.fullmatch(message, message.rfind(_LAST_V3) + len(_LAST_V3))
        return Bounds(_nanoseconds(last["at"])) if last else None
    first, at = _STATED.match(message), message.rfind(_LAST)
    last = _BOUND.fullmatch(message, at + len(_LAST))
    point = _POINT.search(message, max(0, at - _POINT_CHARACTERS), max(0, at))
    if first is None or last is None or point is None or point.end() != at:
        return None
    duration, past, future = (duration_of(first[name] or "0s") for name in ("duration", "past", "future"))
    return _derived(duration, past, future, last["bound"], _nanoseconds(last["at"]), _nanoseconds(point["time"]))


def _derived(duration: int, past: int, future: int, bound: str, at: int, time: int) -> Bounds | None:
    """The bounds that follow from a point of `time` violating the `bound` that is `at` a time."""
    length = {"Retention Policy Lower": duration, "Write Window Lower": past, "Write Window Upper": -future}[bound]
    if not length:
        # With a write window, 1.12 reports any point without a shard as older than the retention.
        return Bounds(at) if time < at else None
    now = at + length
    kept = min(filter(None, (duration, past)), default=0)
    return Bounds(now - kept if kept else None, now + future if future else None)


def duration_of(text: str) -> int:
    """Nanoseconds of a duration as Go prints it: "168h0m0s", "1m30.5s"."""
    return int(sum(Decimal(number) * _NANOSECONDS[unit] for number, unit in _DURATION_PART.findall(text)))


def policies_query(database: str) -> str:
    """The InfluxQL for the retention policies of a database of InfluxDB 1."""
    escaped = database.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'SHOW RETENTION POLICIES ON "{escaped}"'


def bounds_of_policy(reply: Any, policy: str, now: int) -> Bounds | None:
    """The bounds of a policy ("": the default one) in the decoded answer to `policies_query`.

    `now`: the server's time when it answered, nanoseconds since 1970. None if there is no such policy, or no limit.
    """
    try:
        series = reply["results"][0]["series"][0]
        rows = [dict(zip(series["columns"], row, strict=True)) for row in series["values"]]
        row = next(row for row in rows if (row["name"] == policy if policy else row["default"]))
        duration = duration_of(row["duration"])
    except (KeyError, IndexError, TypeError, ValueError, StopIteration):
        return None
    return Bounds(now - duration) if duration else None


def _nanoseconds(text: str) -> int:
    """Nanoseconds since 1970 of a time in RFC 3339, which datetime would round to microseconds."""
    whole, _, rest = text.replace("+00:00", "Z").removesuffix("Z").partition(".")
    seconds = datetime.fromisoformat(f"{whole}+00:00").timestamp()
    return round(seconds) * SECOND + int(rest.ljust(9, "0"))
