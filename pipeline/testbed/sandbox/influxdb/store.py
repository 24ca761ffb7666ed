"""The points of one bucket, in memory: the last write of a measurement, its tags and a time wins, field by field.

A batch is read first (`parse`) and stored then (`store`): some servers store nothing of a batch with a bad line. Fields
stay the text they came in until somebody asks for them. Lines of a kind seen before take a short way: their measurement
and tags are found in a dictionary, and their fields match a regular expression made for that kind.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct

from pipeline.testbed.sandbox.influxdb import lines
from pipeline.testbed.sandbox.influxdb.lines import FieldType, FieldValue, LineError, Point

#: Kinds of line (fields, their order and types) remembered for each measurement.
MAX_SHAPES = 32
#: Spellings of measurement and tags remembered for each bucket; all are forgotten when there are more.
MAX_PREFIXES = 200_000
_PLAIN_KEY = re.compile(r"[\w.:/%@-]+", re.ASCII)
#: What each type looks like when nothing about it is special and no range can be left.
_PLAIN_VALUES: dict[FieldType, str] = {
    "float": r"-?\d{1,17}(?:\.\d{1,17})?", "integer": r"-?\d{1,18}i", "unsigned": r"\d{1,19}u",
    "boolean": r"(?:true|false|[tTfF]|TRUE|FALSE|True|False)", "string": r'"[^"\\\n]*"',
}


class Shape:
    """A kind of line of one measurement: its fields with their types, in order."""

    __slots__ = ("accepted", "match", "types")

    def __init__(self, types: dict[str, FieldType], plain: bool) -> None:
        """`plain`: whether to make a regular expression that lines of this kind match from their first field on."""
        self.types = types
        #: All its fields are known to have these types, so there is nothing left to check.
        self.accepted = False
        fields = ",".join(f"{re.escape(key)}={_PLAIN_VALUES[kind]}" for key, kind in types.items())
        self.match = re.compile(rf"({fields})(?: (-?\d{{1,19}}))?".encode()).fullmatch if plain else None


class Measurement:
    """A measurement: the type of each of its fields (the first one written stays), and its kinds of line."""

    __slots__ = ("kinds", "name", "shapes", "types")

    def __init__(self, name: str) -> None:
        self.name = name
        self.types: dict[str, FieldType] = {}
        self.kinds: dict[tuple[tuple[str, FieldType], ...], Shape] = {}
        #: Those of `kinds` that have a regular expression.
        self.shapes: list[Shape] = []

    def shape(self, types: dict[str, FieldType], plain: bool) -> Shape:
        """The kind of line with these fields; remembered unless there are too many."""
        kind = tuple(types.items())
        shape = self.kinds.get(kind)
        if shape is None:
            plain = plain and all(map(_PLAIN_KEY.fullmatch, types)) and len(self.kinds) < MAX_SHAPES
            shape = Shape(types, plain)
            if len(self.kinds) < MAX_SHAPES:
                self.kinds[kind] = shape
            if plain:
                self.shapes.append(shape)
        return shape


class Series:
    """A measurement with tags, and its points: time in nanoseconds -> fields as text."""

    __slots__ = ("_times", "measurement", "points", "tags")

    def __init__(self, measurement: Measurement, tags: tuple[tuple[str, str], ...]) -> None:
        self.measurement = measurement
        self.tags = tags
        self.points: dict[int, bytes] = {}
        self._times: list[int] = []

    def times(self, start: int, end: int) -> list[int]:
        """The times of its points with `start <= time < end`, sorted."""
        if len(self._times) != len(self.points):
            self._times = sorted(self.points)
        return self._times[bisect_left(self._times, start):bisect_left(self._times, end)]

    @property
    def key(self) -> str:
        """Measurement and tags as the servers print them."""
        return lines.escaped_key(self.measurement.name, self.tags)


#: A good line: series, time in nanoseconds, fields as text, kind, and its number among the lines of the batch, from 1.
Entry = tuple[Series, int, bytes, Shape, int]


class BadLine(Struct, frozen=True):
    """A line that is no line protocol."""

    number: int
    line: str
    reason: str


class Batch(Struct):
    """What a body holds."""

    entries: list[Entry] = []
    bad: list[BadLine] = []


class Drop(Struct, frozen=True):
    """A good line that isn't stored: a field has another type already, or something that may not be is named `time`.

    `field`, `type` and `existing` are of the first field in conflict.
    """

    entry: Entry
    kind: Literal["conflict", "time_tag", "time_field"]
    field: str = ""
    type: FieldType = "float"
    existing: FieldType = "float"
    #: The type it conflicts with came with an earlier line of the same batch.
    in_batch: bool = False


class Stored(Struct):
    """What became of a batch's good lines."""

    dropped: list[Drop] = []
    #: Lines older than the retention.
    late: list[Entry] = []
    #: Nothing was stored.
    refused: bool = False


class StoredPoint(Struct, frozen=True):
    """A point as `/sandbox/points` gives it. `types` distinguishes 1 (integer), 1 (unsigned) and 1.0 (float)."""

    measurement: str
    tags: list[tuple[str, str]]
    fields: dict[str, FieldValue]
    types: dict[str, FieldType]
    #: Nanoseconds since 1970.
    time: int


class Columns:
    """What InfluxDB 3 keeps beside the points: what each column of a table is. `columns_v3` has the rules."""

    __slots__ = ("known", "tables")

    def __init__(self) -> None:
        #: Table -> column -> "tag", "timestamp", "field::float", ...: as the server's messages name it.
        self.tables: dict[str, dict[str, str]] = {}
        #: Series and kinds of line whose columns have been found good.
        self.known: set[tuple[Series, Shape]] = set()


class Bucket:
    """A bucket or database."""

    def __init__(self, name: str, retention_seconds: int = 0) -> None:
        """`retention_seconds`: what is older is refused; 0 keeps all."""
        self.name = name
        self.retention_seconds = retention_seconds
        #: Of a database: its retention policies by name, each with points of its own, and which is the default.
        self.policies: dict[str, Bucket] = {"autogen": self}
        self.default_policy = "autogen"
        self.clear()

    def policy(self, name: str) -> "Bucket | None":
        """The points of a retention policy; "" is the default one."""
        return self.policies.get(name or self.default_policy)

    def clear(self) -> None:
        """Deletes all points, and all types."""
        self.count = 0
        self._measurements: dict[str, Measurement] = {}
        self._series: dict[tuple[str, tuple[tuple[str, str], ...]], Series] = {}
        #: Measurement and tags as written -> series.
        self._prefixes: dict[bytes, Series] = {}
        self.columns = Columns()

    def parse(self, body: bytes, unit: int, now: int, unsigned: bool = True, reserved: frozenset[str] = frozenset(),
              read: Callable[[str, int, bool], Point] = lines.parse_line) -> Batch:
        """Reads a body. `unit`: nanoseconds its times count in; `now`: the time of lines without one, nanoseconds.

        `reserved`: keys that no tag may have. `read`: reads one line.
        """
        batch = Batch()
        position, number, size = 0, 0, len(body)
        while position < size:
            end = body.find(b"\n", position)
            if end < 0:
                end = size
            entry = self._known_entry(body, position, end, unit, now, number + 1)
            if entry is not None:
                number += 1
                batch.entries.append(entry)
                position = end + 1
                continue
            end = lines.line_end(body, position)
            text = lines.content(body[position:end])
            if text is not None:
                number += 1
                try:
                    point = read(text, unit, unsigned)
                    lines.check_tags(point, reserved)
                except LineError as error:
                    batch.bad.append(BadLine(number, text, str(error)))
                else:
                    batch.entries.append(self._entry(point, body[position:end], now, number))
            position = end + 1
        return batch

    def _known_entry(self, body: bytes, start: int, end: int, unit: int, now: int, number: int) -> Entry | None:
        """The line from `start` to `end`, if its series and the kinds of its fields were met before."""
        space = body.find(b" ", start, end)
        series = self._prefixes.get(body[start:space]) if space > 0 else None
        if series is None:
            return None
        for shape in series.measurement.shapes:
            found = shape.match(body, space + 1, end) if shape.match else None
            if found is not None:
                fields, stamp = found.groups()
                time = int(stamp) if stamp else 0
                if abs(time) >= lines.MAX_TIME // unit:
                    return None
                return series, time * unit if stamp else now, fields, shape, number
        return None

    def store(self, batch: Batch, now: int, atomic: bool = False, united: bool = False) -> Stored:
        """Stores the good lines. With `atomic`, all of them or, when one would be dropped, none.

        With `united`, none when two of them differ on the type of a field that is new; the first type stays.
        """
        result = Stored()
        new_types: list[tuple[Measurement, str]] = []
        kept = [entry for entry in batch.entries if self._accepts(entry, now, result, new_types)]
        if united and any(drop.in_batch for drop in result.dropped):
            result.refused = True
        elif atomic and result.dropped:
            result.refused = True
            for measurement, field in new_types:
                del measurement.types[field]
                for shape in measurement.kinds.values():
                    shape.accepted = False
        else:
            self._put(kept)
        return result

    def _accepts(self, entry: Entry, now: int, result: Stored, new_types: list[tuple[Measurement, str]]) -> bool:
        """Whether a line may be stored; why not goes to `result`, the fields it names first to `new_types`."""
        if self.retention_seconds and entry[1] < now - self.retention_seconds * 1_000_000_000:
            result.late.append(entry)
            return False
        drop = None if entry[3].accepted else self._judge(entry, new_types)
        if drop is not None:
            result.dropped.append(drop)
        return drop is None

    def _put(self, entries: list[Entry]) -> None:
        for series, time, fields, _, _ in entries:
            points = series.points
            old = points.get(time)
            if old is None:
                self.count += 1
                points[time] = fields
            elif old != fields:
                points[time] = _merged(old, fields)

    def points(self, measurement: str = "") -> Iterator[StoredPoint]:
        """All points, or one measurement's, sorted by measurement, tags and time."""
        for (name, tags), series in sorted(self._series.items()):
            if measurement in ("", name):
                for time, fields in sorted(series.points.items()):
                    values, types = lines.typed_fields(lines.split_fields(fields.decode("utf-8", "surrogateescape")))
                    yield StoredPoint(name, list(tags), values, types, time)

    def texts(self, measurement: str, start: int, end: int) -> Iterator[tuple[tuple[tuple[str, str], ...], int, bytes]]:
        """Tags, time and fields (as text) of a measurement's points with `start <= time < end`: series by series, each
        in the order of time."""
        for (name, tags), series in list(self._series.items()):
            if name == measurement:
                for time in series.times(start, end):
                    yield tags, time, series.points[time]

    def measurements(self) -> list[str]:
        """The measurements that have points, sorted."""
        return sorted({name for (name, _), series in self._series.items() if series.points})

    def tag_keys(self, measurement: str) -> list[str]:
        """The tag keys of a measurement's series, sorted."""
        return sorted({key for (name, tags), series in self._series.items() if name == measurement and series.points
                       for key, _ in tags})

    def field_keys(self, measurement: str) -> dict[str, FieldType]:
        """The fields of a measurement, with their types, sorted."""
        found = self._measurements.get(measurement)
        return dict(sorted(found.types.items())) if found else {}

    def _entry(self, point: Point, raw: bytes, now: int, number: int) -> Entry:
        """A line that was read the long way, as an entry; remembers its spelling and kind for the lines after it."""
        measurement = self._measurements.setdefault(point.measurement, Measurement(point.measurement))
        series = self._series.setdefault((point.measurement, point.tags), Series(measurement, point.tags))
        prefix = raw.partition(b" ")[0]
        types = {key: kind for key, kind in point.types.items() if key != "time"}
        time = now if point.time is None else point.time
        if any(key == "time" for key, _ in point.tags):
            return series, time, b"", Shape(types, False), number
        if b"\\" not in prefix and prefix:
            if len(self._prefixes) >= MAX_PREFIXES:
                self._prefixes.clear()
            self._prefixes[prefix] = series
        plain = b"\\" not in raw and len(types) == len(point.types) and bool(types)
        return series, time, _text(point), measurement.shape(types, plain), number

    def _judge(self, entry: Entry, new_types: list[tuple[Measurement, str]]) -> Drop | None:
        """Why a line is dropped, or None. Adds the fields it names first to the measurement, and to `new_types`."""
        series, _, _, shape, _ = entry
        known = series.measurement.types
        if any(key == "time" for key, _ in series.tags):
            return Drop(entry, "time_tag")
        if not shape.types:
            return Drop(entry, "time_field")
        for field, kind in shape.types.items():
            if known.get(field, kind) != kind:
                in_batch = (series.measurement, field) in new_types
                return Drop(entry, "conflict", field, kind, known[field], in_batch)
        for field, kind in shape.types.items():
            if field not in known:
                known[field] = kind
                new_types.append((series.measurement, field))
        shape.accepted = True
        return None


def _text(point: Point) -> bytes:
    """A point's fields as text, without any named `time`, which the servers ignore."""
    parts = []
    for key, value in point.fields.items():
        if key != "time":
            kind = point.types[key]
            if kind == "string":
                written = '"' + re.sub(r'(["\\])', r"\\\1", str(value)) + '"'
            elif kind == "boolean":
                written = json.dumps(value)
            else:
                written = repr(value) + {"integer": "i", "unsigned": "u"}.get(kind, "")
            parts.append(re.sub(r'([,"= ])', r"\\\1", key) + "=" + written)
    return ",".join(parts).encode("utf-8", "surrogateescape")


def _merged(old: bytes, new: bytes) -> bytes:
    """The fields of both; of those in both, the new."""
    parts: dict[str, str] = {}
    for fields in (old, new):
        parts.update(lines.split_fields(fields.decode("utf-8", "surrogateescape")))
    return ",".join(f"{key}={value}" for key, value in parts.items()).encode("utf-8", "surrogateescape")
