"""Registry of field types, shared by all encoders. Pure; the coordinator holds it."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from pipeline.config.patterns import is_pattern
from pipeline.config.schema import Config
from pipeline.points.field_type import FieldType

#: Memory for all types, bytes, at most. Beyond it, each message decides the type of a field that is not registered.
MAX_BYTES: Final = 100_000_000
#: Memory of a measurement and of a field, without the characters of their names, bytes, approximately.
MEASUREMENT_BYTES: Final = 450
FIELD_BYTES: Final = 150
#: Bytes of a character in a name that is not ASCII, at most.
CHARACTER_BYTES: Final = 4


class FieldTypeDecision(Struct, frozen=True, array_like=True):
    """One decision, as the coordinator writes it to the disk for its successor."""

    namespace: str
    measurement: str
    field: str
    type: FieldType


class FieldTypeRegistry:
    """Types by namespace, measurement and field. The first request decides a type, unless it is declared.

    Names are escaped as in line protocol.
    """

    def __init__(self, declared: Mapping[str, Mapping[str, FieldType]] | None = None,
                 max_bytes: int = MAX_BYTES) -> None:
        """`declared`: by namespace, the types of fields that the configuration declares for all measurements."""
        self._declared = declared or {}
        self._known: dict[tuple[str, str], dict[str, FieldType]] = {}
        self._room = max_bytes
        #: A field could not be registered because the memory is full.
        self.full = False

    def declare(self, declared: Mapping[str, Mapping[str, FieldType]]) -> None:
        """Replaces the types that the configuration declares, for fields that have none yet."""
        self._declared = declared

    def decide(self, namespace: str, measurement: str,
               types: Mapping[str, FieldType]) -> tuple[dict[str, FieldType], list[FieldTypeDecision]]:
        """The types that the fields in `types` have from now on, and the decisions among them that are new."""
        known = self._known.get((namespace, measurement), {})
        declared = self._declared.get(namespace, {})
        decided: dict[str, FieldType] = {}
        new = []
        for field, type_ in types.items():
            decided[field] = known.get(field) or declared.get(field, type_)
            if field in known:
                continue
            cost = FIELD_BYTES + _size(field) + (0 if known else MEASUREMENT_BYTES + _size(measurement))
            if cost > self._room:
                self.full = True
                continue
            self._room -= cost
            if not known:
                self._known[namespace, measurement] = known
            known[field] = decided[field]
            new.append(FieldTypeDecision(namespace, measurement, field, known[field]))
        return decided, new

    def restore(self, decisions: list[FieldTypeDecision]) -> None:
        """Registers the decisions of an earlier registry."""
        for decision in decisions:
            self.decide(decision.namespace, decision.measurement, {decision.field: decision.type})


def _size(name: str) -> int:
    """Bytes of a name in memory, approximately."""
    return len(name) if name.isascii() else CHARACTER_BYTES * len(name)


def namespace_of(config: Config, sink: int, bucket: str = "") -> str:
    """Where a sink's points are written to: within it a field of a measurement has one type."""
    influxdb = config.all_sinks()[sink].influxdb
    place = bucket or influxdb.bucket or influxdb.database
    return " ".join((influxdb.servers()[0], place, influxdb.org or influxdb.org_id, influxdb.retention_policy)).rstrip()


def declared_types(config: Config) -> dict[str, dict[str, FieldType]]:
    """The types that the mappings declare, by namespace and escaped field key."""
    from pipeline.points import escape

    found: dict[str, dict[str, FieldType]] = {}
    for index, sink in enumerate(config.all_sinks()):
        mapping = sink.mapping
        for bucket in {"", *mapping.allowed_buckets, *(rule.bucket for rule in mapping.rules)}:
            types = found.setdefault(namespace_of(config, index, bucket), {})
            for path, declared in mapping.types.items():
                if declared == "number" or is_pattern(path):
                    continue  # the first value decides
                key = escape.field_key(mapping.field_renames.get(path, path.replace(".", mapping.flatten_separator)))
                types[key] = "string" if declared == "json" else declared
    return found
