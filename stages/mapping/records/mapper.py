"""The mapping's rules: what the measurement, tags, fields and time of a record are. One record at a time.

They define every point; the compiled ways (`stages.mapping.compiled`) write the same ones.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from pipeline.config.schema import MappingConfig, Precision
from pipeline.points import escape
from stages.mapping.budget import Budget, cost_of
from stages.mapping.limits import TooComplex
from stages.mapping.notices import Notices
from stages.mapping.records import message_times, timestamps
from stages.mapping.records.declared import DeclaredTypes
from stages.mapping.records.record import Flattener, Record, is_within
from stages.mapping.records.routing import Router
from stages.mapping.records.series import SHORT_CHARS, Origin, SeriesKeyBuilder
from stages.mapping.records.time_field import TimeField
from stages.mapping.records.type_guard import TypeGuard
from stages.mapping.records.values import Converter, converter
from stages.mapping.reject import Dropped, Reject, and_more, shown

#: What is remembered of a path beside its texts, bytes, about.
_ROLE_BYTES: Final = 700


class Point(NamedTuple):
    """One point, its parts already escaped."""

    #: Measurement and tags.
    head: str
    #: `key=` -> `value`.
    fields: dict[str, str]
    time: int
    #: Where it goes; "" is the configured bucket.
    bucket: str = ""

    @property
    def size(self) -> int:
        """Characters of its head and fields, about."""
        return len(self.head) + sum(map(len, self.fields)) + sum(map(len, self.fields.values()))


class _Role(NamedTuple):
    """What becomes of the value at a path: nothing but a field is told here."""

    key: str
    #: `key=`, escaped; "" where the value is no field.
    lead: str
    #: None where the path has not been met.
    convert: Converter | None


_UNKNOWN: Final = _Role("", "", None)


class RecordMapper:
    """One mapping, for messages of one topic, written with one precision."""

    def __init__(self, config: MappingConfig, precision: Precision, stream: str, topic: str,
                 guards: Callable[[str], TypeGuard] | None = None, budget: Budget | None = None) -> None:
        """`guards` gives the type guard of a bucket ("": the configured one).

        Raises `escape.Unwritable` where the configured names cannot be written, and `conditions.BadCondition`.
        """
        self.config = config
        #: Stream and topic.
        self.place = stream, topic
        self.budget = budget or Budget()
        self.precision: Precision = precision
        #: What is to be said of messages that were written.
        self.notices = Notices(config.on_name_clash)
        self.types = DeclaredTypes(config.types)
        self.flattener = Flattener(config, self.types, self.notices)
        self.heads = SeriesKeyBuilder(config, stream, topic, self.notices, self.budget)
        self.router = Router(config, self.heads) if config.rules or config.bucket_template else None
        self._make_guard = guards
        #: The type guard of the configured bucket, and those of other ones.
        self.guard = guards("") if guards is not None else None
        self._guards: dict[str, TypeGuard] = {"": self.guard} if self.guard is not None else {}
        self.times = TimeField(config, precision)
        #: The first path of the time; "" if it is not from the message.
        self.time_path = self.times.paths[0] if self.times.paths else ""
        self.explicit = frozenset(config.field_names) if config.field_strategy == "explicit" else None
        self._not_fields = frozenset([*config.tag_fields, *config.all_time_paths(), self.heads.measurement_path,
                                      config.tag_map_field]) - {""}
        self._excluded = frozenset(config.exclude_fields)
        self._map_prefix = f"{config.tag_map_field}." if config.tag_map_field else ""
        self._roles: dict[str, _Role] = {}
        self._roles_share = self.budget.share(self._roles.clear)
        #: Whether a field key has been met that may be too long for some series.
        self.long_keys = False
        for path, name in config.field_renames.items():
            self._lead(path, name)
        for path in config.field_names:
            self._lead(path, path.replace(".", config.flatten_separator))

    def is_field(self, path: str) -> bool:
        """Whether the value at `path` is a field, if it has one."""
        if self.explicit is not None and path in self.explicit:
            return True
        if path in self._not_fields or self._map_prefix and path.startswith(self._map_prefix):
            return False
        return self.explicit is None or is_within(path, self.explicit)

    def is_excluded(self, path: str) -> bool:
        """Whether the value at `path` is left out, whatever it would be."""
        return bool(self._excluded) and is_within(path, self._excluded)

    def _lead(self, path: str, key: str) -> str:
        name = self.config.field_renames.get(path, key)
        if name == "time":
            raise escape.Unwritable("field key is time, which InfluxDB keeps for itself; rename it (field_renames), "
                                    "leave it out (exclude_fields), or take the time from it (timestamp_field)")
        lead = escape.field_key(name) + "="
        if len(lead) > SHORT_CHARS:
            escape.check_key("m", lead)
            self.long_keys = True
        return lead

    def lead(self, path: str, key: str) -> str:
        """`key=` of the field at `path`, escaped. Raises Reject for a key that cannot be written."""
        return self._role(path, key).lead

    def _role(self, path: str, key: str) -> _Role:
        role = self._roles.get(path)
        if role is None or role.key != key:
            named = path.rstrip("\0")
            try:
                lead = self._lead(named, key) if self.is_field(named) else ""
            except escape.Unwritable as error:
                raise Reject("unwritable", f"{error}: {shown(key)}") from None
            role = _Role(key, lead, self.converter(named))
            if self._roles_share.takes(_ROLE_BYTES + cost_of(path, key, lead)):
                self._roles[path] = role
        return role

    def converter(self, path: str) -> Converter:
        """How the field at `path` is written, from its JSON text."""
        return converter(self.config, self.types.of(path), path)

    def fields(self, record: Record) -> dict[str, str]:
        """Line protocol element `field set`, as escaped `key=` to value, in the message's order. Raises Reject."""
        out: dict[str, str] = {}
        found = 0
        roles = self._roles
        for path, (key, text) in record.items():
            known_key, lead, convert = roles.get(path, _UNKNOWN)
            if known_key != key or convert is None:
                if text == "null":
                    continue
                _, lead, convert = self._role(path, key)
            if lead and convert is not None and (value := convert(text)):
                out[lead] = value
                found += 1
        if found != len(out):
            self._check_clashes(record)
        return out

    def _check_clashes(self, record: Record) -> None:
        """Finds the fields that have one key, and different values. Raises Reject where that is the policy."""
        seen: dict[str, tuple[str, str]] = {}
        for path, (key, text) in record.items():
            _, lead, convert = self._role(path, key) if text != "null" else _UNKNOWN
            value = convert(text) if lead and convert is not None else ""
            if not value:
                continue
            other, held = seen.get(lead, (path, value))
            if held != value:
                self.notices.clash(f"{shown(other)} and {shown(path)} both become the field {shown(lead[:-1])}"
                                   .replace("\0", ""))
            seen[lead] = path, value

    def check_keys(self, head: str, fields: dict[str, str]) -> None:
        """Raises Reject where a series key would be longer than InfluxDB holds."""
        try:
            escape.check_key(head, max(fields, key=lambda lead: len(lead.encode())))
        except escape.Unwritable as error:
            raise Reject("unwritable", str(error)) from None

    def time(self, record: Record, origin: Origin) -> int:
        """Line protocol element `timestamp`, in the precision written. Raises Reject."""
        source: str = self.config.timestamp_from
        if source == "field":
            time = self.times.of(record, origin.timestamp or origin.arrival)
            if isinstance(time, int):
                return time
            source = self.config.on_missing_timestamp
            if source == "reject":
                raise Reject("missing_timestamp", time.detail)
        elif source == "origin_timestamp" and self._is_unset(origin.timestamp):
            source = self.config.on_missing_timestamp
            if source == "reject":
                raise Reject("missing_timestamp", "its producer gave it no time (origin_timestamp is 0)"
                             if not origin.timestamp else "origin_timestamp is before timestamp_not_before")
        return self._message_time(origin.arrival if source == "arrival" else origin.timestamp, origin)

    def _is_unset(self, micros: int | None) -> bool:
        """Whether a producer's time is none, or before `timestamp_not_before`."""
        not_before = self.times.not_before
        return not micros or not_before is not None and micros * 1_000 < not_before

    def _message_time(self, micros: int | None, origin: Origin) -> int:
        if not micros:
            raise Reject("missing_timestamp", "the message came without its time")
        try:
            return message_times.message_time(micros, origin.partition, origin.offset, self.precision)
        except timestamps.BadTimestamp as error:
            raise Reject("bad_timestamp", str(error)) from None

    def points(self, payload: bytes, origin: Origin) -> tuple[list[Point], Reject | None]:
        """The points of one message: one, or with `explode` any number, and what is wrong with elements that have none.

        Raises Reject for the message as a whole, and Dropped where it has none on purpose.
        """
        records, are_elements = self.flattener.records(payload)
        if not are_elements:
            (record,) = records
            if isinstance(record, Reject):
                raise record
            return [self._point(record, origin, payload)], None
        if not records:
            self._no_fields("no field has a value")
        points: list[Point] = []
        bad: list[tuple[int, Reject]] = []
        size = 0
        for number, record in enumerate(records, 1):
            try:
                if isinstance(record, Reject):
                    raise record
                points.append(self._point(record, origin, payload))
            except Dropped:
                continue
            except TooComplex:
                raise
            except Reject as reject:
                bad.append((number, reject))
                continue
            size += points[-1].size
            self.flattener.limits.check_bytes(size)
        if not points and not bad:
            raise Dropped
        return points, _of_elements(bad, self.config.explode)

    def _point(self, record: Record, origin: Origin, payload: bytes) -> Point:
        renamed, bucket = self.router.route(record, payload, origin) if self.router is not None else ("", "")
        measurement, tags, moved, leads = self.heads.head(record, origin, renamed)
        fields = self.fields(record)
        if not fields:
            self._no_fields("no field has a value")
        if not leads.isdisjoint(fields):
            self.notices.clash(f"{shown(min(leads & fields.keys())[:-1])} is a tag and a field")
        if moved:
            for lead in moved.keys() & fields.keys():
                self.notices.clash(f"{shown(lead[:-1])} is a field, and a tag over the limit becomes it")
            fields |= moved
        if self.guard is not None:
            fields = self._guarded(bucket, measurement, fields)
        head = measurement + tags
        if self.long_keys or len(head) > SHORT_CHARS:
            self.check_keys(head, fields)
        return Point(head, fields, self.time(record, origin), bucket)

    def _guarded(self, bucket: str, measurement: str, fields: dict[str, str]) -> dict[str, str]:
        """The fields with the types that were decided for them. Raises Reject, and Dropped."""
        left_out: list[str] | None = [] if self.config.on_bad_value == "drop_field" else None
        fields = self.guard_of(bucket).converted(measurement, fields, left_out)
        if left_out:
            self.notices.note("type_conflict", f"{left_out[0]}; the field is left out (on_bad_value)")
            if not fields:
                self._no_fields(f"no field has a value of its type: {left_out[0]}")
        return fields

    def guard_of(self, bucket: str) -> TypeGuard:
        """The type guard of a bucket ("": the configured one), where types are guarded."""
        if bucket not in self._guards and self._make_guard is not None:
            self._guards[bucket] = self._make_guard(bucket)
        return self._guards[bucket]

    def _no_fields(self, detail: str) -> None:
        if self.config.on_no_fields == "drop":
            raise Dropped
        raise Reject("no_fields", detail)


def _of_elements(bad: list[tuple[int, Reject]], path: str) -> Reject | None:
    """One reject for a message of whose elements some are bad."""
    if not bad:
        return None
    number, first = bad[0]
    return Reject(first.reason, f"element {number} of {path}: {first.detail}{and_more(len(bad))}")
