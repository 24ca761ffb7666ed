"""The one memory of what type each field of each measurement has. Pure; the coordinator keeps it for all encoders."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from pipeline.config.schema import Config
from pipeline.points.field_type import FieldType

#: Memory of all types, bytes, at most: beyond it a field that is not known keeps whatever type a message gives it.
MAX_BYTES: Final = 100_000_000
#: What a measurement and a field cost beside the characters of their names, bytes, about.
MEASUREMENT_BYTES: Final = 450
FIELD_BYTES: Final = 150
#: Most bytes of a character in a name.
CHARACTER_BYTES: Final = 4


class FieldTypeDecision(Struct, frozen=True, array_like=True):
    """One decision, as the coordinator writes it down for its successor."""

    namespace: str
    measurement: str
    field: str
    type: FieldType


class FieldTypeRegistry:
    """Types by space (where it is written to), measurement and field. The first one told stays; seeds come before all.

    Names are those of the line, with their escapes.
    """

    def __init__(self, seeds: Mapping[str, Mapping[str, FieldType]] | None = None, max_bytes: int = MAX_BYTES) -> None:
        """`seeds`: of each space, the types of fields that the configuration declares, whatever the measurement."""
        self._seeds = seeds or {}
        self._known: dict[tuple[str, str], dict[str, FieldType]] = {}
        self._room = max_bytes
        #: Some field was not remembered for want of room.
        self.full = False

    def decide(self, namespace: str, measurement: str,
               types: Mapping[str, FieldType]) -> tuple[dict[str, FieldType], list[FieldTypeDecision]]:
        """The types that the fields in `kinds` have from now on, and those of them that are new."""
        known = self._known.get((namespace, measurement), {})
        seeds = self._seeds.get(namespace, {})
        decided: dict[str, FieldType] = {}
        new = []
        for field, type_ in types.items():
            decided[field] = known.get(field) or seeds.get(field, type_)
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
        """Takes what an earlier book had decided."""
        for decision in decisions:
            self.decide(decision.namespace, decision.measurement, {decision.field: decision.type})


def _size(name: str) -> int:
    """Bytes of a name in memory, about."""
    return len(name) if name.isascii() else CHARACTER_BYTES * len(name)


def namespace_of(config: Config, sink: int, bucket: str = "") -> str:
    """Names where a sink's points go: within it a field has one type."""
    influxdb = config.all_sinks()[sink].influxdb
    return f"{influxdb.servers()[0]} {bucket or influxdb.bucket or influxdb.database}"


def declared_types(config: Config) -> dict[str, dict[str, FieldType]]:
    """The types that the mappings declare, by space and escaped field key."""
    from pipeline.points import escape

    seeds: dict[str, dict[str, FieldType]] = {}
    for index, sink in enumerate(config.all_sinks()):
        mapping = sink.mapping
        for bucket in {"", *mapping.allowed_buckets, *(rule.bucket for rule in mapping.rules)}:
            namespace = seeds.setdefault(namespace_of(config, index, bucket), {})
            for path, declared in mapping.types.items():
                key = escape.field_key(mapping.field_renames.get(path, path.replace(".", mapping.flatten_separator)))
                namespace[key] = "string" if declared == "json" else declared
    return seeds
