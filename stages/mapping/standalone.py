"""An encoder outside a running pipeline, with its own field type registry: for previews, tests and replays."""

from collections.abc import Mapping

from msgspec.structs import replace

from pipeline.config.schema import Config
from pipeline.fields.types import FieldTypeRegistry, declared_types, namespace_of
from pipeline.points.field_type import FieldType
from stages.mapping.encoder import Encoder
from stages.mapping.records.type_guard import TypeGuard


def local_encoder(config: Config, subscription: int, merge: bool | None = None) -> Encoder:
    """The encoder of one of `config.subscriptions()`; `merge` replaces `merge_duplicates`."""
    topic = config.subscriptions()[subscription]
    sink = config.all_sinks()[topic.sink]
    book = FieldTypeRegistry(declared_types(config))
    mapping = sink.mapping if merge is None else replace(sink.mapping, merge_duplicates=merge)

    def guard(bucket: str) -> TypeGuard:
        def ask(measurement: str, kinds: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
            return book.decide(namespace_of(config, topic.sink, bucket), measurement, kinds)[0]

        return TypeGuard(ask)

    return Encoder(mapping, sink.influxdb.precision, topic.stream, topic.topic, guard if mapping.type_guard else None)
