"""Where windows end: at multiples of an interval since 1970, by the clocks of a time zone.

A day then has 23 to 25 hours where clocks are set. Pure, except for the zone database.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.points.times import MIN_TIME, SECOND

_EPOCH = datetime(1970, 1, 1)


class UnknownZone(ValueError):
    """There is no time zone of this name."""


class Alignment:
    """The multiples of a width."""

    def __init__(self, width: int = 1, zone: str = "") -> None:
        """`width` in nanoseconds, whole milliseconds with a `zone`; "" is UTC. Raises UnknownZone."""
        self.width = width
        self._zone = None if zone in ("", "UTC") else zone_of(zone)

    def floor(self, time: int) -> int:
        """The last multiple that is not after `time`; or the first one that InfluxDB can store."""
        found = self._floor(time)
        return found if found >= MIN_TIME else self.after(found)

    def after(self, multiple: int) -> int:
        """The next multiple."""
        if self._zone is None:
            return multiple + self.width
        number = self._number(multiple) + 1
        # Clocks that are set back by more than the width meet a multiple twice.
        while (found := self._multiple(number)) <= multiple:
            number += 1
        return found

    def _floor(self, time: int) -> int:
        if self._zone is None:
            return time - time % self.width
        number = self._number(time)
        while (found := self._multiple(number)) > time:
            number -= 1
        while (later := self._multiple(number + 1)) <= time:
            number, found = number + 1, later
        return found

    def _number(self, time: int) -> int:
        """Number of the multiple that the clocks of the zone have passed last."""
        offset = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time // SECOND)).astimezone(
            self._zone).utcoffset() or timedelta()
        return (time + round(offset.total_seconds()) * SECOND) // self.width

    def _multiple(self, number: int) -> int:
        """When the clocks of the zone first show a multiple; or when they skip it."""
        local = _EPOCH + timedelta(microseconds=number * self.width // 1_000)
        offset = local.replace(tzinfo=self._zone).utcoffset() or timedelta()
        return number * self.width - round(offset.total_seconds()) * SECOND


def zone_of(name: str) -> ZoneInfo:
    """A zone by its name in the zone database. Raises UnknownZone."""
    try:
        if name not in ("localtime", "posixrules"):  # the machine's own
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise UnknownZone(name)
