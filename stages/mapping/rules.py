"""The mapping's rules: what the measurement, tags, fields and time of a record are. One record at a time.

They define every line; the code that is generated for common shapes (`stages.mapping.shapes`) writes the same.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from string import Formatter
from typing import Final, NamedTuple

from msgspec import Struct

from pipeline.schema import MappingConfig, Precision
from stages.mapping import escape, timestamps
from stages.mapping.record import Flattener, Record, loads
from stages.mapping.reject import Reject, shown
from stages.mapping.values import Converter, converter

#: Fields with keys of their own are remembered, at most so many; then all are forgotten.
_MAX_FIELDS: Final = 10_000


class Origin(Struct, frozen=True):
    """Where one message was, as far as the mapping asks; times in microseconds since 1970."""

    partition: int = 0
    offset: int = 0
    timestamp: int | None = None
    arrival: int | None = None


class Point(NamedTuple):
    """One point, its parts already escaped."""

    #: Measurement and tags.
    head: str
    #: `key` -> `value`.
    fields: dict[str, str]
    time: int


class Rules:
    """One mapping, for messages of one topic, written with one precision."""

    def __init__(self, config: MappingConfig, precision: Precision, stream: str, topic: str) -> None:
        """Raises `escape.Unwritable` where the configured names cannot be written."""
        self.config = config
        self.precision: Precision = precision
        self.flattener = Flattener(config)
        self._stream = stream
        self._topic = topic
        self.measurement_path = config.measurement_field if config.measurement_from == "field" else ""
        self.time_path = config.timestamp_field if config.timestamp_from == "field" else ""
        self.explicit = frozenset(config.field_names) if config.field_strategy == "explicit" else None
        self._tag_paths = dict.fromkeys(config.tag_fields)
        self._map_prefix = f"{config.tag_map_field}." if config.tag_map_field else ""
        self._template = list(Formatter().parse(config.measurement_template))
        self._in_head = frozenset([*config.tag_fields, self.measurement_path, *config.template_paths()])
        self._fixed = self._fixed_measurement()
        self._constant = dict(config.constant_tags)
        for tag in config.metadata_tags:
            if tag in ("stream", "topic"):
                self._constant[tag] = stream if tag == "stream" else topic
        for key, value in self._constant.items():
            escape.tag_key(key), escape.tag_value(value)
        self._leads: dict[tuple[str, str], tuple[str, Converter]] = {}
        for name in config.field_names:
            self.field(name, name.replace(".", config.separator))

    def _fixed_measurement(self) -> str:
        config = self.config
        if config.measurement_from in ("field", "template"):
            return ""
        names = {"static": config.measurement_name, "topic": self._topic, "stream": self._stream}
        return escape.measurement(names[config.measurement_from])

    def in_head(self, path: str) -> bool:
        """Whether the value at `path` is part of the measurement or the tags."""
        return path in self._in_head or bool(self._map_prefix and path.startswith(self._map_prefix))

    def is_field(self, path: str) -> bool:
        """Whether the value at `path` is a field, if it has one."""
        if self.explicit is not None:
            return path in self.explicit
        if path == self.time_path or path == self.measurement_path or path in self._tag_paths:
            return False
        return not (self._map_prefix and path.startswith(self._map_prefix))

    def field(self, path: str, key: str) -> tuple[str, Converter]:
        """`key=` escaped, and the converter of the field at `path`. Raises Reject for a key that cannot be written."""
        found = self._leads.get((path, key))
        if found is None:
            try:
                name = self.config.field_renames.get(path, key)
                if name == "time":
                    raise Reject("unwritable", "field key is time, which InfluxDB keeps for itself; rename it")
                found = escape.field_key(name) + "=", converter(self.config, path)
            except escape.Unwritable as error:
                raise Reject("unwritable", f"{error}: {shown(key)}") from None
            if len(self._leads) >= _MAX_FIELDS:
                self._leads.clear()
            self._leads[path, key] = found
        return found

    def head(self, record: Record, origin: Origin) -> str:
        """Line protocol elements `measurement` and `tag set`, the tags sorted by key. Raises Reject."""
        try:
            out = self._fixed or self._measurement(record)
            tags = self._tags(record, origin)
            for key in sorted(tags):
                if key == "time":
                    raise Reject("unwritable", "tag key is time, which InfluxDB keeps for itself; rename it")
                out += f",{escape.tag_key(key)}={escape.tag_value(tags[key])}"
            return out
        except escape.Unwritable as error:
            raise Reject("unwritable", str(error)) from None

    def _measurement(self, record: Record) -> str:
        if self.measurement_path:
            _, text = record.get(self.measurement_path, ("", ""))
            value = loads(text) if text[:1] == '"' else ""
            if not value:
                raise Reject("bad_measurement",
                             f"{self.measurement_path}: not a string, or empty: {shown(text) or 'missing'}")
            return escape.measurement(value)
        out = ""
        names = {"topic": self._topic, "stream": self._stream}
        for literal, name, _, _ in self._template:
            out += literal
            if name is None:
                continue
            value = names.get(name) or self._tag_text(*record.get(name, ("", "")))
            if not value:
                raise Reject("bad_measurement", f"{name}: missing or empty, and the template needs it")
            out += value
        return escape.measurement(out)

    def _tags(self, record: Record, origin: Origin) -> dict[str, str]:
        tags = dict(self._constant)
        for name in self.config.metadata_tags:
            if name in ("partition", "offset"):
                tags[name] = str(origin.partition if name == "partition" else origin.offset)
        renames = self.config.tag_renames
        if self._map_prefix:
            length = len(self._map_prefix)
            for path, (key, text) in record.items():
                if path.startswith(self._map_prefix) and (value := self._tag_text(key, text)):
                    tags[renames.get(path, path[length:])] = value
        for path in self._tag_paths:
            if path in record:
                key, text = record[path]
                if value := self._tag_text(key, text):
                    tags[renames.get(path, key)] = value
        return tags

    def _tag_text(self, key: str, text: str) -> str:
        """A tag's value; "" where it is left out (missing, null, empty)."""
        if text in ("", "null", '""'):
            return ""
        if text[0] == '"':
            return str(loads(text))
        if text[0] in "[{":
            raise Reject("bad_tag", f"{key}: an object or array cannot be a tag")
        if "e" in text.lower() and text not in ("true", "false"):
            return repr(float(text))
        return text

    def fields(self, record: Record) -> dict[str, str]:
        """Line protocol element `field set`, as escaped `key=` to value, in the message's order. Raises Reject."""
        out: dict[str, str] = {}
        for path, (key, text) in record.items():
            if self.is_field(path):
                lead, convert = self.field(path, key)
                value = convert(text)
                if value:
                    out[lead] = value
        if not out:
            raise Reject("no_fields", "no field has a value")
        return out

    def time(self, record: Record, origin: Origin) -> int:
        """Line protocol element `timestamp`, in the precision written. Raises Reject."""
        source: str = self.config.timestamp_from
        if source == "field":
            _, text = record.get(self.time_path, ("", ""))
            if text and text != "null":
                return self.field_time(text)
            source = self.config.on_missing_timestamp
            if source == "reject":
                raise Reject("missing_timestamp", f"{self.time_path}: no value")
        return self.message_time(origin.arrival if source == "arrival" else origin.timestamp)

    def field_time(self, text: str) -> int:
        """The time of a value's JSON text, in the precision written. Raises Reject."""
        form = self.config.timestamp_format
        try:
            inner = loads(text) if text[0] == '"' else text
            if form.startswith("epoch_"):
                ns = timestamps.parse_epoch(inner, form.removeprefix("epoch_"))
            elif text[0] != '"':
                raise Reject("bad_timestamp", f"{self.time_path}: not a string: {shown(text)}")
            elif form == "rfc3339":
                ns = timestamps.parse_rfc3339(inner)
            else:
                ns = _strptime(inner, form)
        except timestamps.BadTimestamp as error:
            raise Reject("bad_timestamp", f"{self.time_path}: {error}") from None
        return timestamps.to_precision(ns, self.precision)

    def message_time(self, micros: int | None) -> int:
        """A time in microseconds since 1970, in the precision written. Raises Reject."""
        if micros is None:
            raise Reject("missing_timestamp", "the message came without its time")
        try:
            return timestamps.to_precision(timestamps.check_range(micros * 1_000), self.precision)
        except timestamps.BadTimestamp as error:
            raise Reject("bad_timestamp", str(error)) from None

    def points(self, payload: bytes, origin: Origin) -> list[Point]:
        """The points of one message: one, or with `explode` any number. Raises Reject for the message as a whole."""
        return list(self._points(self.flattener.records(payload), origin))

    def _points(self, records: Iterable[Record], origin: Origin) -> Iterable[Point]:
        for record in records:
            yield Point(self.head(record, origin), self.fields(record), self.time(record, origin))


def _strptime(text: str, form: str) -> int:
    """A time in a strptime format, in nanoseconds; without an offset of its own it is UTC. Raises BadTimestamp."""
    try:
        at = datetime.strptime(text, form)
    except ValueError:
        raise timestamps.BadTimestamp(f"not a time like {form}: {shown(text)}") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return timestamps.check_range(((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000)
