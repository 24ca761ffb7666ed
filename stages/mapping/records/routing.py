"""Where a record goes, if not to the configured measurement and bucket: `[[mapping.rules]]` and `bucket_template`."""

from collections.abc import Mapping
from string import Formatter
from typing import Any, NamedTuple

import msgspec

from pipeline.config.schema import MappingConfig
from pipeline.points import escape
from stages.mapping.records.conditions import METADATA_PREFIX, Condition, compile_condition, header_of
from stages.mapping.records.record import NOT_NUMBERS, Record, compact, loads, quote_not_numbers
from stages.mapping.records.series import Origin, SeriesKeyBuilder
from stages.mapping.reject import Dropped, Reject

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Route(NamedTuple):
    """What the rules say of one record; "" is what is configured."""

    #: Escaped.
    measurement: str
    bucket: str


class Router:
    """The rules of one mapping, compiled."""

    def __init__(self, config: MappingConfig, heads: SeriesKeyBuilder) -> None:
        """Raises `conditions.BadCondition` and `escape.Unwritable`."""
        self.rules: list[tuple[Condition, bool, Route]] = [
            (compile_condition(rule.when), rule.then == "drop",
             Route(escape.measurement(rule.measurement) if rule.measurement else "", rule.bucket))
            for rule in config.rules]
        self._template = list(Formatter().parse(config.bucket_template))
        self._allowed = frozenset(config.allowed_buckets)
        self._heads = heads
        self._headers = config.point_headers()
        #: Of the message whose record came last.
        self._facts = _Facts(b"", {})

    def route(self, record: Record, payload: bytes, origin: Origin) -> Route:
        """Raises Dropped where a rule says so, and Reject where the bucket is not among those allowed."""
        if self._facts.payload is not payload or self._facts.origin is not origin:
            self._facts = _Facts(payload, self._heads.names)
            self._facts.origin = origin
            self._facts.headers = dict(zip(self._headers, origin.headers, strict=False))
        facts = self._facts
        facts.record = record
        found = Route("", "")
        for condition, drops, route in self.rules:
            if condition(facts.value):
                if drops:
                    raise Dropped
                found = route
                break
        return self.with_bucket(found, record)

    def with_bucket(self, route: Route, record: Record) -> Route:
        """The route with the template's bucket where it has none. Raises Reject where that is not allowed."""
        if not self._template or route.bucket:
            return route
        bucket = self._heads.fill(self._template, record, "bad_bucket")
        if bucket not in self._allowed:
            raise Reject("bad_bucket", f"{bucket} is not one of allowed_buckets")
        return route._replace(bucket=bucket)


class _Container:
    """An object or array, equal to another with the same JSON text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Container) and compact(self._text) == compact(other._text)

    __hash__ = None  # type: ignore[assignment]


class _Facts:
    """The values of a message's records by path; those that a record does not hold, such as objects, from the message.

    What its records share is read once: the texts are the same objects.
    """

    def __init__(self, payload: bytes, names: Mapping[str, str]) -> None:
        """`names` are those of topic and stream."""
        self.payload = payload
        self.record: Record = {}
        self.origin = Origin()
        self.headers: dict[str, str] = {}
        self._names = names
        self._read: dict[str, tuple[str, Any]] = {}
        self._in_message: dict[str, Any] = {}

    def value(self, path: str) -> Any:
        """The value at a path of `record`; None where it is missing."""
        entry = self.record.get(path)
        if entry is None:
            if path.startswith(METADATA_PREFIX):
                return self._metadata(path)
            if path not in self._in_message:
                self._in_message[path] = self._found(path)
            return self._in_message[path]
        _, text = entry
        known, value = self._read.get(path, ("", None))
        if known is not text:
            value = value_of(text)
            self._read[path] = text, value
        return value

    def _metadata(self, path: str) -> Any:
        if header := header_of(path):
            return self.headers.get(header) or None
        name = path[len(METADATA_PREFIX):-2]
        return {"partition": self.origin.partition, "offset": self.origin.offset}.get(name, self._names.get(name))

    def _found(self, path: str) -> Any:
        raw: bytes | msgspec.Raw = quote_not_numbers(self.payload)
        try:
            for name in path.split("."):
                raw = _object.decode(raw)[name]
            return value_of(str(raw, "utf-8"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
            return None


def value_of(text: str) -> Any:
    """What conditions compare, from its JSON text."""
    if text in NOT_NUMBERS:
        return float("nan")
    if text[0] in "{[":
        return _Container(text)
    try:
        return loads(text)
    except Reject:
        return None
