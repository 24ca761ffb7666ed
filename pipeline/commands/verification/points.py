"""Points as messages: the single points of a message, where they belong, and sums that do not depend on their order.

Pure. The database's points are encoded as the source encodes them, so equal points are equal bytes.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec
import xxhash
from msgspec import Struct

from pipeline.compression import decompress
from pipeline.config.source_schema import Format, OutputConfig
from pipeline.points import escape
from stages.influxdb.body import LINE

_SUM_BITS: Final = (1 << 64) - 1
#: Measurement, series and field key of a line.
_MEASUREMENT: Final = re.compile(rb"((?:[^\\, ]|\\.)*)", re.DOTALL)
_SERIES: Final = re.compile(rb"((?:[^\\ ]|\\.)*) ", re.DOTALL)
_FIELD: Final = re.compile(rb"((?:[^\\=]|\\.)*)=", re.DOTALL)


class Place(Struct):
    """Measurement and time of a point in JSON or MessagePack."""

    measurement: str
    #: Nanoseconds since 1970.
    time: int


class Window(NamedTuple):
    """A measurement and the beginning of a window, nanoseconds since 1970."""

    measurement: str
    start: int


class Sums(Struct):
    """How many points a window has, and the sum of their hashes."""

    points: int = 0
    hashes: int = 0

    def add(self, hashed: int) -> None:
        """Counts a point."""
        self.points += 1
        self.hashes = (self.hashes + hashed) & _SUM_BITS


def hash_of(point: bytes) -> int:
    """64 bits of a point as it is sent."""
    return xxhash.xxh3_64_intdigest(point)


class PointReader:
    """Takes the messages of one output apart."""

    def __init__(self, output: OutputConfig, measurements: Iterable[str]) -> None:
        self._format: Format = output.format
        self._long = output.shape == "long"
        self._gzip = output.batch_points > 1 and output.compression == "gzip"
        self._batched = output.batch_points > 1
        self._json = msgspec.json.Decoder(Place)
        self._msgpack = msgspec.msgpack.Decoder(Place)
        self._array = msgspec.msgpack.Decoder(list[msgspec.Raw])
        self._names = {escape.measurement(name).encode(): name for name in measurements} \
            if output.format == "line_protocol" else {}

    def points(self, message: bytes) -> list[bytes]:
        """The points of a message. Raises ValueError for one that the source has not sent."""
        if not self._batched:
            return [message]
        try:
            message = decompress(message) if self._gzip else message
        except Exception as error:
            raise ValueError(str(error)) from None
        if self._format == "msgpack":
            return [bytes(point) for point in self._array.decode(message)]
        return split_points(message) if self._format == "line_protocol" else message.removesuffix(b"\n").split(b"\n")

    def place(self, point: bytes) -> tuple[str, int]:
        """Measurement (another than the known ones as it is written) and time. Raises ValueError for what is not a
        point."""
        if self._format == "line_protocol":
            name = _MEASUREMENT.match(point)
            if name is None:
                raise ValueError("no measurement")
            found = self._names.get(name[1])
            return name[1].decode() if found is None else found, int(point.rpartition(b" ")[2])
        place = (self._json if self._format == "json" else self._msgpack).decode(point)
        return place.measurement, place.time

    def key(self, point: bytes) -> int:
        """A hash of what a point has in common with other values of itself: series and time; with the shape "long" also
        the field."""
        if self._format == "line_protocol":
            series = _SERIES.match(point)
            head = series[1] if series else point
            field = _FIELD.match(point, len(head) + 1) if self._long else None
            return hash_of(b"\0".join((head, point.rpartition(b" ")[2], field[1] if field else b"")))
        decoder: Any = msgspec.json if self._format == "json" else msgspec.msgpack
        value = decoder.decode(point)
        names = sorted(value["fields"]) if self._long else []
        return hash_of(msgspec.json.encode([value["measurement"], sorted(value["tags"].items()), value["time"], names]))


def split_points(text: bytes) -> list[bytes]:
    """The lines of line protocol; a line break within a string is part of it. Raises ValueError for anything else."""
    if b'"' not in text:
        return text.removesuffix(b"\n").split(b"\n")
    lines = [match.group()[:-1] for match in LINE.finditer(text)]
    if sum(map(len, lines)) + len(lines) != len(text):
        raise ValueError("not line protocol")
    return lines


class Comparison:
    """Sums by measurement and window, of the database and of Iggy."""

    def __init__(self, width: int) -> None:
        """`width` of a window, nanoseconds."""
        self.width = width
        self.database: dict[Window, Sums] = {}
        self.iggy: dict[Window, Sums] = {}

    def window(self, measurement: str, time: int) -> Window:
        """The window of a point."""
        return Window(measurement, time - time % self.width)

    def differing(self) -> list[Window]:
        """The windows that are not equal, by measurement and time. A point that was sent twice makes one, too."""
        return sorted(window for window in self.database.keys() | self.iggy.keys()
                      if self.database.get(window) != self.iggy.get(window))


class Details:
    """The points of some windows that differ, one by one."""

    def __init__(self) -> None:
        #: Key -> hash of the point in the database, and its window.
        self._expected: dict[int, tuple[int, Window]] = {}
        #: Keys that are in Iggy, and those that are there as in the database.
        self._seen: set[int] = set()
        self._equal: set[int] = set()
        self.repeated: Counter[Window] = Counter()
        self.extra: Counter[Window] = Counter()

    def expect(self, window: Window, key: int, hashed: int) -> None:
        """The database has a point; other values of the same key belong to another policy in the same topic."""
        if self._expected.setdefault(key, (hashed, window))[0] != hashed:
            self._expected[key ^ hashed] = hashed, window

    def found(self, window: Window, key: int, hashed: int) -> None:
        """Iggy has a point; an older value of a point that has changed is none of another."""
        expected = self._expected.get(key)
        if expected is not None and expected[0] != hashed and key ^ hashed in self._expected:
            key ^= hashed
            expected = self._expected[key]
        if expected is None:
            self.extra[window] += key not in self._seen
        elif expected[0] == hashed:
            self.repeated[window] += key in self._equal
            self._equal.add(key)
        self._seen.add(key)

    def missing(self) -> set[int]:
        """The keys of points that Iggy does not have."""
        return self._expected.keys() - self._seen

    def changed(self) -> set[int]:
        """The keys of points that Iggy has with other values only."""
        return (self._expected.keys() & self._seen) - self._equal

    def by_window(self, keys: set[int]) -> Counter[Window]:
        """How many of these points each window has."""
        return Counter(self._expected[key][1] for key in keys)
