"""Telemetry as a fleet of devices sends it: JSON with two tags, some fields and a time. Pure."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Final

from msgspec import Struct

from pipeline.schema import EPOCH_FORMATS
from stages.mapping.timestamps import to_precision
from stages.mapping.zones import zone_of

#: Values of the tag `site`.
SITES: Final = 5
#: Digits of every number: a number is `NN.NN`.
_VALUES: Final = 10_000


class TimeForm(Struct, frozen=True):
    """How a message tells its time."""

    #: The key.
    field: str = "ts"
    #: As `mapping.timestamp_format` has it.
    format: str = "epoch_us"
    #: As `mapping.timestamp_zone` has it.
    zone: str = "UTC"

    def writer(self) -> Callable[[int], bytes]:
        """Turns microseconds since 1970 into JSON."""
        if self.format in EPOCH_FORMATS:
            precision = self.format.removeprefix("epoch_")
            return lambda time_us: b"%d" % to_precision(time_us * 1_000, precision)
        zone = zone_of(self.zone)
        return lambda time_us: json.dumps(_text(time_us, self.format, zone)).encode()


DEFAULT_TIME: Final = TimeForm()


def _text(time_us: int, form: str, zone: tzinfo) -> str:
    time = datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)
    if form in ("rfc3339", "iso8601"):
        return time.isoformat(timespec="microseconds")
    return time.strftime(form) if "%Z" in form else time.astimezone(zone).strftime(form)


class Telemetry:
    """Makes messages of one form. Message `n` comes from series `n % series`."""

    def __init__(self, series: int, fields: int, size: int, time: TimeForm = DEFAULT_TIME) -> None:
        """`size` is the length of a message in bytes: what fields and time leave of it is filled with a text.

        Raises ValueError when that is nothing, or when there is no series or no field.
        """
        if series < 1 or fields < 1:
            raise ValueError("there must be a series and a field")
        self.series = series
        names = b"".join([b',"f%d":%%d.%%02d' % number for number in range(fields)])
        self._fields = fields
        self._time = time.writer()
        self._form = b'{"site":"site-%d","device":"dev-%06d"' + names + b',"' + time.field.encode() + b'":%b}'
        shortest = len(self.message(0, 1_700_000_000_000_000))
        if size:
            shortest += len(b',"note":""')
            if size < shortest:
                raise ValueError(f"{fields} fields make messages of at least {shortest} bytes")
            self._form = self._form[:-1] + b',"note":"' + b"x" * (size - shortest) + b'"}'

    def message(self, number: int, time_us: int) -> bytes:
        """Message `number`; `time_us` is its time in microseconds since 1970."""
        device = number % self.series
        values: list[int] = []
        mixed = number * 2_654_435_761
        for _ in range(self._fields):
            mixed = (mixed * 1_103_515_245 + 12_345) & 0x7FFFFFFF
            value = (mixed >> 8) % _VALUES
            values += (10 + value // 120, value % 100)
        return self._form % (device % SITES, device, *values, self._time(time_us))
