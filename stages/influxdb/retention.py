"""Which times a database accepts, learned from what it refuses: its retention, and its write window. Pure.

InfluxDB refuses lines older than now - duration, and reports how many of a request they were, not which. The bounds
are known from `stages.influxdb.retention_messages`. They are kept relative to this machine's monotonic clock, so a
wrong wall clock here or there does not matter.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from msgspec import Struct

#: Nanoseconds of a second, and of the units of precision.
SECOND = 1_000_000_000
UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": SECOND}
#: Seconds between two checks of the bounds: a batch is sent whole, with the lines that should be refused, in case the
#: retention was changed.
RECHECK_SECONDS = 10.0
#: Bounds that refused nothing for so long are dropped, seconds: the times of batches are not parsed any more.
FORGET_SECONDS = 600.0


class Bounds(Struct, frozen=True):
    """The oldest and newest time that a database accepts, nanoseconds since 1970; None: no bound is known."""

    oldest: int | None = None
    newest: int | None = None

    def contains(self, time: int | None) -> bool:
        """Whether a line of that time is accepted. One without a time gets the server's, and is."""
        return time is None or ((self.oldest is None or time >= self.oldest)
                                and (self.newest is None or time <= self.newest))

    def refusal(self, time: int) -> str:
        """Why a line of that time, which is outside, is not written: for a dead letter."""
        if self.oldest is not None and time < self.oldest:
            return (f"older than the database keeps: its time is {format_bound(time)}, the oldest accepted is "
                    f"{format_bound(self.oldest)}")
        return (f"too far in the future for the database: its time is {format_bound(time)}, the newest accepted is "
                f"{format_bound(self.newest or 0)}")


def format_bound(time: int) -> str:
    """A time (nanoseconds since 1970) as RFC 3339, without trailing zeros; the number if datetime can't have the year.
    """
    seconds, rest = divmod(time, SECOND)
    try:
        text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(time)
    return f"{text}.{rest:09}".rstrip("0").rstrip(".") + "Z" if rest else f"{text}Z"


def times_of(lines: Iterable[bytes], unit: int) -> list[int | None]:
    """The times of lines in nanoseconds since 1970, None for a line without one; `unit`: nanoseconds of its unit."""
    found: list[int | None] = []
    for line in lines:
        try:
            found.append(int(line[line.rindex(b" ") + 1:]) * unit)
        except ValueError:  # fields, or the end of a string
            found.append(None)
    return found


class Retention:
    """The known bounds of one bucket or database. Times of this machine in seconds, monotonic."""

    def __init__(self) -> None:
        self._bounds = Bounds()
        #: When the request was sent, and answered, that they are known from.
        self._began = self._answered = 0.0
        #: When they last refused a line, and when a line outside was last sent.
        self._used = self._rechecked = 0.0

    def bounds(self, now: float) -> Bounds | None:
        """The bounds at `now`, never narrower than the server's; None while nothing is known."""
        if self._bounds == Bounds() or now - self._used > FORGET_SECONDS:
            return None
        oldest, newest = self._bounds.oldest, self._bounds.newest
        return Bounds(None if oldest is None else oldest + int((now - self._answered) * SECOND),
                      None if newest is None else newest + int((now - self._began) * SECOND))

    def start_recheck(self, now: float) -> bool:
        """True if a recheck is due: lines outside are to be sent now, to see whether they are still refused."""
        if now - self._rechecked < RECHECK_SECONDS:
            self._used = now
            return False
        self._rechecked = now
        return True

    def learn(self, bounds: Bounds, began: float, answered: float) -> None:
        """A server refused lines outside of `bounds`, which it stated. They replace the known ones."""
        self._bounds, self._began, self._answered = bounds, began, answered
        self._used = self._rechecked = answered

    def learn_refused(self, sent: Sequence[int | None], began: float, answered: float) -> None:
        """A server refused every line of a request for its time, and stated no bound: so it refuses older ones, too."""
        known = self.bounds(answered) or Bounds()
        found = [time for time in sent if time is not None]
        if found and len(found) == len(sent) and (known.oldest is None or known.oldest <= max(found)):
            self.learn(Bounds(max(found) + 1, known.newest), began, answered)

    def learn_stored(self, sent: Iterable[int | None], began: float) -> None:
        """A server stored all lines of a request that was sent at `began`: bounds that exclude one are dropped."""
        known = self.bounds(began)
        if known is not None and not all(known.contains(time) for time in sent):
            self._bounds = Bounds()
