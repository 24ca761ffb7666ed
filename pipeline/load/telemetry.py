"""Telemetry as a fleet of devices sends it: JSON with two tags, some fields and a time. Pure."""

from typing import Final

#: Values of the tag `site`.
SITES: Final = 5
#: Digits of every number: a number is `NN.NN`.
_VALUES: Final = 10_000


class Telemetry:
    """Makes messages of one form. Message `n` comes from series `n % series`."""

    def __init__(self, series: int, fields: int, size: int) -> None:
        """`size` is the length of a message in bytes: what fields and time leave of it is filled with a text.

        Raises ValueError when that is nothing, or when there is no series or no field.
        """
        if series < 1 or fields < 1:
            raise ValueError("there must be a series and a field")
        self.series = series
        names = b"".join([b',"f%d":%%d.%%02d' % number for number in range(fields)])
        self._fields = fields
        self._form = b'{"site":"site-%d","device":"dev-%06d"' + names + b',"ts":%d}'
        shortest = len(self.message(0, 1_700_000_000_000_000))
        if size:
            shortest += len(b',"note":""')
            if size < shortest:
                raise ValueError(f"{fields} fields make messages of at least {shortest} bytes")
            self._form = self._form[:-1] + b',"note":"' + b"x" * (size - shortest) + b'"}'

    def message(self, number: int, time_us: int) -> bytes:
        """Message `number`; its `ts` is a time in microseconds since 1970."""
        device = number % self.series
        values: list[int] = []
        mixed = number * 2_654_435_761
        for _ in range(self._fields):
            mixed = (mixed * 1_103_515_245 + 12_345) & 0x7FFFFFFF
            value = (mixed >> 8) % _VALUES
            values += (10 + value // 120, value % 100)
        return self._form % (device % SITES, device, *values, time_us)
