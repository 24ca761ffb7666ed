"""What the compiled ways know of a mapping: the one list. With an option that is not in it all goes by the rules."""

from typing import Final

from msgspec import structs

from pipeline.config.schema import MappingConfig
from stages.mapping.records.conditions import METADATA_PREFIX, all_paths_of
from stages.mapping.records.mapper import RecordMapper

#: Options that have done their work before messages come to the mapping: decoding, steps, presets.
_BEFORE: Final = frozenset((
    "preset", "format", "text_field", "csv_header", "csv_delimiter", "csv_encoding", "csv_trim", "csv_comment",
    "csv_skip_lines", "csv_skip_after_names", "csv_decimal", "csv_none", "csv_quote", "avro_schema",
    "protobuf_descriptor", "protobuf_message", "schema_header", "schema_folder", "sparkplug_topic", "sparkplug_births",
    "line_protocol_precision", "compression", "max_payload_bytes", "jq", "steps", "transform", "transform_path",
    "transform_timeout_ms"))
#: Options that the compiled ways do themselves, or ask the rules for.
_COMPILED: Final = frozenset((
    "timestamp_from", "timestamp_field", "timestamp_format", "timestamp_not_before", "timestamp_zone",
    "timestamp_zone_names", "on_missing_timestamp", "measurement_from", "measurement_name", "measurement_field",
    "measurement_template", "tag_fields", "tag_renames", "tag_map_field", "constant_tags", "on_bad_tag",
    "metadata_tags", "header_tags", "field_strategy", "field_names", "field_renames", "exclude_fields", "nested",
    "flatten_separator", "arrays", "array_join_separator", "explode", "types", "integers", "on_bad_value",
    "on_name_clash", "on_no_fields", "merge_duplicates", "type_guard", "max_tag_values", "on_high_cardinality",
    "max_depth", "max_keys", "max_points", "max_values", "max_expanded_bytes", "max_message_cpu_ms", "rules",
    "bucket_template", "allowed_buckets"))
#: Options of times that only the rules read: `TimeField.only_format` is "" with them.
_BY_RULES: Final = frozenset(("timestamp_rest_field", "timestamp_rest_unit"))
KNOWN: Final = _BEFORE | _COMPILED | _BY_RULES


def unknown_options(config: MappingConfig) -> list[str]:
    """The options of a mapping that the compiled ways do not know."""
    return [field.name for field in structs.fields(config)
            if field.name not in KNOWN and getattr(config, field.name) not in (field.default, {})]


def can_go_generally(rules: RecordMapper) -> bool:
    """Whether messages can go the general way under a mapping.

    Not with the offset as a tag or in a condition, nor with times that depend on the message's own time, or stand
    in two keys.
    """
    config = rules.config
    asks_for_offset = any(f"{METADATA_PREFIX}offset()" in all_paths_of(rule.when) for rule in config.rules)
    return not (unknown_options(config) or "offset" in config.metadata_tags or asks_for_offset
                or rules.time_path and not rules.times.is_single)


def can_have_templates(rules: RecordMapper) -> bool:
    """Whether messages can have templates under a mapping: not with exploded arrays."""
    return can_go_generally(rules) and not rules.config.explode
