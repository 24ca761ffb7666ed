"""Learns which times a database accepts from its refusals: its retention, and its write limits. Pure.

InfluxDB refuses lines older than now - duration, and reports how many of a request they were, not which. InfluxDB 2 and
1.12 report the bound; InfluxDB 1 before 1.12 does not, but can be queried for the duration. A bound is kept as a time
that moves with this machine's monotonic clock, so a wrong clock on either machine does not matter.

Sources: influxdata/influxdb, `coordinator/points_writer.go` of 1.6 to 1.12, `v1/coordinator/points_writer.go` of 2.7;
recorded answers of 1.6.7 and 2.7.12; influxdata/influxdb#24642 for InfluxDB Cloud Serverless and Dedicated.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct

#: Nanoseconds of a second, and of the units of precision.
SECOND = 1_000_000_000
UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": SECOND}
#: Interval in which one batch is sent unchecked, seconds: the database may accept more than before.
PROBE_SECONDS = 10.0
#: A bound that refused nothing for this time is dropped, seconds: batches are no longer checked.
UNUSED_SECONDS = 600.0
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|\+00:00)"
_DURATION = r"(?:[0-9]+(?:\.[0-9]+)?(?:h|ms|m|s|us|µs|ns))+"
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s|us|µs|ns)")
_NANOSECONDS = {"h": 3_600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": 1_000_000, "us": 1_000, "µs": 1_000, "ns": 1}
#: How InfluxDB 2.7.12 and 1.12 report the bound. Between the two parts are series keys, which may contain any text: the
#: first part must be at the beginning of the message, and the last occurrence of the second part counts.
_REPORT = re.compile(
    rf"(?:failure writing points to database: |unexpected error writing points to database: )?partial write: dropped "
    rf"[0-9]+ points outside retention policy of duration (?P<duration>{_DURATION})"
    rf"(?: and [0-9]+ points outside write window \((?:-(?P<past>{_DURATION}))?(?: to )?(?P<future>{_DURATION})?\))?"
    r" - oldest point ")
_LAST = " dropped because it violates a "
_BOUND = re.compile(
    rf"(?P<bound>Retention Policy Lower|Write Window Upper|Write Window Lower) Bound at (?P<at>{_TIME}) dropped=[0-9]+"
    r"(?: for database: \S+ for retention policy: [^\n]*)?")
_POINT = re.compile(rf" at (?P<time>{_TIME})")
#: InfluxDB Cloud Serverless, Dedicated and Clustered; a table's name is between the two parts.
_REPORT_V3 = re.compile("(?:dml handler error: )?data in table ")
_LAST_V3 = " is outside of the retention period: "
_BOUND_V3 = re.compile(rf"minimum acceptable timestamp is (?P<at>{_TIME}), but observed timestamp {_TIME} is older\.?")
#: Longest time with " at " before it, characters.
_POINT_CHARACTERS = 42


class Bounds(Struct, frozen=True):
    """The times that a database accepts, nanoseconds since 1970. None: no bound is known on that side."""

    oldest: int | None = None
    newest: int | None = None

    def hold(self, time: int | None) -> bool:
        """Whether a line with this time is inside the bounds. A line without a time gets the server's time."""
        return time is None or ((self.oldest is None or time >= self.oldest)
                                and (self.newest is None or time <= self.newest))

    def why(self, time: int) -> str:
        """Why a line with this time, which is outside, is not written: the detail of a dead letter."""
        if self.oldest is not None and time < self.oldest:
            return (f"older than the database keeps: its time is {shown(time)}, the oldest accepted time "
                    f"{shown(self.oldest)}")
        return (f"too far in the future for the database: its time is {shown(time)}, the newest accepted time "
                f"{shown(self.newest or 0)}")


def shown(time: int) -> str:
    """A time (nanoseconds since 1970) as RFC 3339 with its significant digits; as a number if the year is out of
    range."""
    seconds, rest = divmod(time, SECOND)
    try:
        text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(time)
    return f"{text}.{rest:09}".rstrip("0").rstrip(".") + "Z" if rest else f"{text}Z"


def times(lines: Iterable[bytes], unit: int) -> list[int | None]:
    """The times of lines in nanoseconds since 1970, None for a line without; `unit`: nanoseconds of the lines' unit."""
    found: list[int | None] = []
    for line in lines:
        try:
            found.append(int(line[line.rindex(b" ") + 1:]) * unit)
        except ValueError:  # fields, or the end of a string
            found.append(None)
    return found


def reported_bounds(message: str) -> Bounds | None:
    """The bounds that a server reports in a refusal, by its clock; None if it reports none."""
    if _REPORT_V3.match(message):
        last = _BOUND_V3.fullmatch(message, message.rfind(_LAST_V3) + len(_LAST_V3))
        return Bounds(_nanoseconds(last["at"])) if last else None
    first, at = _REPORT.match(message), message.rfind(_LAST)
    last = _BOUND.fullmatch(message, at + len(_LAST))
    point = _POINT.search(message, max(0, at - _POINT_CHARACTERS), max(0, at))
    if first is None or last is None or point is None or point.end() != at:
        return None
    duration, past, future = (duration_of(first[name] or "0s") for name in ("duration", "past", "future"))
    return _bounds_of(duration, past, future, last["bound"], _nanoseconds(last["at"]), _nanoseconds(point["time"]))


def _bounds_of(duration: int, past: int, future: int, bound: str, at: int, time: int) -> Bounds | None:
    """The bounds that follow if a point of `time` violates the bound at `at`."""
    length = {"Retention Policy Lower": duration, "Write Window Lower": past, "Write Window Upper": -future}[bound]
    if not length:
        # With a write limit, 1.12 reports any point without a shard as older than the retention.
        return Bounds(at) if time < at else None
    now = at + length
    kept = min(filter(None, (duration, past)), default=0)
    return Bounds(now - kept if kept else None, now + future if future else None)


def duration_of(text: str) -> int:
    """Nanoseconds of a duration as Go prints it: "168h0m0s", "1m30.5s"."""
    return int(sum(Decimal(number) * _NANOSECONDS[unit] for number, unit in _DURATION_PART.findall(text)))


def policies_query(database: str) -> str:
    """The InfluxQL query for the retention policies of a database."""
    escaped = database.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'SHOW RETENTION POLICIES ON "{escaped}"'


def queried_bounds(reply: Any, policy: str, now: int) -> Bounds | None:
    """The bounds that follow from the decoded answer to `policies_query`, for a policy ("": the default one).

    `now`: the server's time of the answer, nanoseconds since 1970. None if the answer has no bounds.
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
    whole, _, rest = text.replace("+00:00", "Z").removesuffix("Z").partition(".")
    seconds = datetime.fromisoformat(f"{whole}+00:00").timestamp()
    return round(seconds) * SECOND + int(rest.ljust(9, "0"))


class Retention:
    """The known bounds of one bucket or database. Times of this machine in seconds, monotonic."""

    def __init__(self) -> None:
        self._bounds = Bounds()
        #: The request whose answer reported the bounds was sent and answered at these times.
        self._began = self._answered = 0.0
        #: When the bounds last refused a line, and when a line outside was last sent.
        self._used = self._probed = 0.0

    def bounds(self, now: float) -> Bounds | None:
        """The bounds at `now`, never narrower than the server's; None if none are known."""
        if self._bounds == Bounds() or now - self._used > UNUSED_SECONDS:
            return None
        oldest, newest = self._bounds.oldest, self._bounds.newest
        return Bounds(None if oldest is None else oldest + int((now - self._answered) * SECOND),
                      None if newest is None else newest + int((now - self._began) * SECOND))

    def should_probe(self, now: float) -> bool:
        """Whether to send lines outside the bounds, to check that they are still refused. Counts as sent if True."""
        if now - self._probed < PROBE_SECONDS:
            self._used = now
            return False
        self._probed = now
        return True

    def learn(self, bounds: Bounds, began: float, answered: float) -> None:
        """Replaces the bounds with those that a server reported."""
        self._bounds, self._began, self._answered = bounds, began, answered
        self._used = self._probed = answered

    def refused(self, sent: Sequence[int | None], began: float, answered: float) -> None:
        """A server refused every line of a request for its time without reporting a bound: older lines are refused,
        too."""
        known = self.bounds(answered) or Bounds()
        found = [time for time in sent if time is not None]
        if found and len(found) == len(sent) and (known.oldest is None or known.oldest <= max(found)):
            self.learn(Bounds(max(found) + 1, known.newest), began, answered)

    def stored(self, sent: Iterable[int | None], began: float) -> None:
        """A server accepted all lines of a request that was sent at `began`: drops bounds that would refuse one of
        them."""
        known = self.bounds(began)
        if known is not None and not all(known.hold(time) for time in sent):
            self._bounds = Bounds()
