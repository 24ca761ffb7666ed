"""Control messages between encoders and the coordinator's field registry: types of fields, distinct values of tags."""

from msgspec import Struct

from pipeline.points.field_type import FieldType
from pipeline.wire.common import Index


class FieldTypesRequest(Struct, frozen=True, tag=True):
    """Encoder -> coordinator, before it sends the first line with these fields: the types that it would give them."""

    #: Where the lines go: `pipeline.fields.types.namespace_of`.
    namespace: str
    measurement: str
    types: dict[str, FieldType]


class FieldTypes(Struct, frozen=True, tag=True):
    """Coordinator -> encoder, answers FieldTypesRequest: the types that the fields have."""

    namespace: str
    measurement: str
    types: dict[str, FieldType]


class TagCardinalities(Struct, frozen=True, tag=True):
    """Encoder -> coordinator, about every 5 s: the HyperLogLog sketches of tags that have new values."""

    #: Index into `Config.all_sinks()`.
    sink: Index
    #: Tag key -> registers of `pipeline.fields.hyperloglog`.
    registers: dict[str, bytes]


class OverLimit(Struct, frozen=True, tag=True):
    """Coordinator -> every encoder: tags over `max_tag_values`, unless `on_high_cardinality` is "warn"."""

    sink: Index
    tags: list[str]
