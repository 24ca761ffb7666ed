"""Where a record goes, if not to the configured measurement and bucket: `[[mapping.rules]]` and `bucket_template`."""

from string import Formatter
from typing import Any, NamedTuple

import msgspec

from pipeline.schema import MappingConfig
from stages.mapping import escape
from stages.mapping.conditions import Condition, compile_condition
from stages.mapping.head import HeadMaker
from stages.mapping.record import NOT_NUMBERS, Record, loads, quote_not_numbers
from stages.mapping.reject import Dropped, Reject

_object = msgspec.json.Decoder(dict[str, Any])


class Route(NamedTuple):
    """What the rules say of one record; "" is what is configured."""

    #: Escaped.
    measurement: str
    bucket: str


class Router:
    """The rules of one mapping, compiled."""

    def __init__(self, config: MappingConfig, heads: HeadMaker) -> None:
        """Raises `conditions.BadCondition` and `escape.Unwritable`."""
        self._rules: list[tuple[Condition, bool, Route]] = [
            (compile_condition(rule.when), rule.then == "drop",
             Route(escape.measurement(rule.measurement) if rule.measurement else "", rule.bucket))
            for rule in config.rules]
        self._template = list(Formatter().parse(config.bucket_template))
        self._allowed = frozenset(config.allowed_buckets)
        self._heads = heads

    def route(self, record: Record, payload: bytes) -> Route:
        """Raises Dropped where a rule says so, and Reject where the bucket is not among those allowed."""
        facts = _Facts(record, payload)
        found = Route("", "")
        for condition, drops, route in self._rules:
            if condition(facts.value):
                if drops:
                    raise Dropped
                found = route
                break
        if not self._template or found.bucket:
            return found
        bucket = self._heads.fill(self._template, record, "bad_bucket")
        if bucket not in self._allowed:
            raise Reject("bad_bucket", f"{bucket} is not one of allowed_buckets")
        return found._replace(bucket=bucket)


class _Facts:
    """The values of a record by path; those that it does not hold, such as objects, from the message itself."""

    def __init__(self, record: Record, payload: bytes) -> None:
        self._record = record
        self._payload = payload
        self._message: dict[str, Any] | None = None

    def value(self, path: str) -> Any:
        """The value at a path; None where it is missing."""
        entry = self._record.get(path)
        if entry is None:
            return self._in_message(path)
        _, text = entry
        if text in NOT_NUMBERS:
            return float("nan")
        try:
            return loads(text)
        except Reject:
            return None

    def _in_message(self, path: str) -> Any:
        if self._message is None:
            try:
                self._message = _object.decode(quote_not_numbers(self._payload))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._message = {}
        found: Any = self._message
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found
