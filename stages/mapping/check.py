"""Checks of a mapping that need the mapping's own code: conditions, formats, and names that cannot be written."""

from msgspec.structs import replace

from pipeline.config.mapping_schema import EPOCH_FORMATS, OTHER_NUMBER_FORMATS, TEXT_FORMATS
from pipeline.config.schema import MappingConfig, Precision, template_paths
from pipeline.points import escape
from stages.mapping.formats import placed_transcoder, transcoder
from stages.mapping.formats.compression import decompressor
from stages.mapping.formats.errors import BadFormat
from stages.mapping.records.conditions import BadCondition, compile_condition
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.record import is_within
from stages.mapping.records.time_field import moment_of
from stages.mapping.records.time_formats import BadTimeFormat, time_format
from stages.mapping.reject import Reject
from stages.mapping.steps.check import step_problems


def mapping_problems(mapping: MappingConfig, key: str, topics: list[tuple[str, str]],
                     is_consistent: bool = True) -> list[str]:
    """One text for each mistake; `key` is the mapping's table, `topics` are the (stream, topic) that use it.

    A mapping that has contradictions (`is_consistent` is False) is not compiled.
    """
    problems = (_rule_problems(mapping, key) + _format_problems(mapping, key, is_consistent)
                + _exclusion_problems(mapping, key) + _time_problems(mapping, key) + step_problems(mapping, key))
    try:
        template_paths(mapping.bucket_template)
    except ValueError as error:
        problems.append(f'{key}.bucket_template: "{mapping.bucket_template}": {error}')
    if bool(mapping.bucket_template) != bool(mapping.allowed_buckets):
        problems.append(f"{key}.allowed_buckets: required with, and only with, bucket_template")
    if mapping.max_expanded_bytes < 3 * mapping.max_payload_bytes:
        problems.append(f"{key}.max_expanded_bytes: must be at least three times max_payload_bytes: "
                        f"{3 * mapping.max_payload_bytes}")
    return problems or (_unwritable_names(mapping, key, topics) if is_consistent else [])


def _rule_problems(mapping: MappingConfig, key: str) -> list[str]:
    problems = []
    for index, rule in enumerate(mapping.rules):
        where = f"{key}.rules[{index}]"
        try:
            compile_condition(rule.when)
        except BadCondition as error:
            problems.append(f"{where}.when: {error}")
        if bool(rule.then) == bool(rule.measurement or rule.bucket):
            problems.append(f'{where}: give then = "drop", or measurement or bucket or both')
        try:
            escape.measurement(rule.measurement or "m")
        except escape.Unwritable as error:
            problems.append(f"{where}.measurement: {error}")
    return problems


def _exclusion_problems(mapping: MappingConfig, key: str) -> list[str]:
    """Excluded paths that other options need."""
    needed = {"tag_fields": mapping.tag_fields, "field_names": mapping.field_names,
              "measurement_field": (mapping.measurement_field,), "timestamp_field": mapping.time_paths(),
              "timestamp_rest_field": (mapping.timestamp_rest_field,),
              "explode": (mapping.explode,), "tag_map_field": (mapping.tag_map_field,)}
    excluded = frozenset(mapping.exclude_fields)
    return [f'{key}.exclude_fields: leaves out "{path}", which {key}.{option} needs'
            for option, paths in needed.items() for path in paths if path and is_within(path, excluded)]


def _time_problems(mapping: MappingConfig, key: str) -> list[str]:
    forms = mapping.time_formats()
    problems = []
    if not any(form in ("iso8601", "rfc3164", "ole_date") or "%" in form for form in forms):
        given = {"timestamp_zone": mapping.timestamp_zone != "UTC",
                 "timestamp_zone_names": bool(mapping.timestamp_zone_names)}
        problems += [f'{key}.{option}: only with timestamp_format = "iso8601", "rfc3164", "ole_date" or a strptime '
                     "format" for option, is_given in given.items() if is_given]
    elif mapping.timestamp_zone_names and not any("%Z" in form for form in forms):
        problems.append(f"{key}.timestamp_zone_names: only with %Z in timestamp_format")
    known = (*EPOCH_FORMATS, *OTHER_NUMBER_FORMATS, *TEXT_FORMATS)
    for form in forms:
        if form not in known and "%" not in form:
            continue  # said elsewhere
        try:
            time_format(form, mapping.timestamp_zone, mapping.timestamp_zone_names)
        except BadTimeFormat as error:
            problems.append(f"{key}.{error.option}: {error}")
    try:
        moment_of(mapping.timestamp_not_before)
    except BadTimeFormat as error:
        problems.append(f"{key}.{error.option}: {error}")
    return list(dict.fromkeys(problems))


#: Options that belong to one format: (option, format).
_OF_FORMAT = (*((option, "csv") for option in (
    "csv_header", "csv_encoding", "csv_trim", "csv_comment", "csv_skip_lines", "csv_skip_after_names", "csv_decimal",
    "csv_none", "csv_quote")), ("avro_schema", "avro"), ("protobuf_descriptor", "protobuf"),
    ("protobuf_message", "protobuf"), ("sparkplug_topic", "sparkplug"), ("sparkplug_births", "sparkplug"))
_DEFAULTS = MappingConfig()


def _format_problems(mapping: MappingConfig, key: str, is_consistent: bool) -> list[str]:
    problems = [f'{key}.{option}: only with format = "{name}"' for option, name in _OF_FORMAT
                if getattr(mapping, option) != getattr(_DEFAULTS, option) and mapping.format != name]
    wrong_schemas = _schema_problems(mapping, key)
    problems += wrong_schemas
    if mapping.format == "sparkplug" and not mapping.sparkplug_header() and mapping.sparkplug_topic != "topic()":
        problems.append(f"{key}.sparkplug_topic: \"{mapping.sparkplug_topic}\" is not allowed; give header('NAME') or "
                        "topic()")
    if mapping.format == "line_protocol" and (mapping.rules or mapping.bucket_template):
        problems.append(f'{key}.rules, bucket_template: not with format = "line_protocol", whose lines pass through')
    if not wrong_schemas and (is_consistent or mapping.format != "csv"):
        try:
            transcoder(mapping)
            placed_transcoder(mapping, "")
            if mapping.compression != "none":
                decompressor(mapping.compression, 1)
        except BadFormat as error:
            problems.append(f"{key}.{error.option}: {error}")
    return problems


def _schema_problems(mapping: MappingConfig, key: str) -> list[str]:
    """Which schemas are required, and by what payloads name them."""
    problems = []
    has_header, has_folder = mapping.schema_header != "none", bool(mapping.schema_folder)
    if has_header and mapping.format not in ("avro", "protobuf", "json"):
        problems.append(f'{key}.schema_header: only with format = "avro", "protobuf" or "json"')
    if has_folder and (not has_header or mapping.format == "json"):
        problems.append(f'{key}.schema_folder: only with schema_header = "confluent", and format = "avro" or '
                        '"protobuf"')
    if mapping.format == "avro" and has_header and not (has_folder or mapping.avro_schema):
        problems.append(f'{key}.avro_schema: required with schema_header = "confluent", or schema_folder')
    if mapping.format == "protobuf":
        if has_folder and mapping.protobuf_descriptor:
            problems.append(f"{key}.protobuf_descriptor: not with schema_folder, which has the descriptors")
        if not has_folder and not mapping.protobuf_descriptor:
            problems.append(f'{key}.protobuf_descriptor: required with format = "protobuf"')
        if not has_header and not mapping.protobuf_message:
            problems.append(f'{key}.protobuf_message: required with format = "protobuf"')
    return problems


def _unwritable_names(mapping: MappingConfig, key: str, topics: list[tuple[str, str]]) -> list[str]:
    for stream, topic in topics:
        try:
            RecordMapper(replace(mapping, rules=()), "ns", stream, topic)
        except (escape.Unwritable, Reject) as error:
            return [f"{key}: its names cannot be written for topic {stream}/{topic}: {error}"]
    return []


def mapping_warnings(mapping: MappingConfig, key: str, precision: Precision) -> list[str]:
    """Warnings about settings that are allowed but seldom intended; `precision` is that of `[influxdb]`."""
    if mapping.format == "sparkplug" and not mapping.sparkplug_births:
        return [f"{key}.sparkplug_births is not set: after a restart, and with several encoders, messages with aliases "
                "are rejected until the next birth of their node is read by the same encoder. Give a folder"]
    if "offset" in mapping.metadata_tags:
        return [f"{key}.metadata_tags has offset: every message becomes a series of its own, and InfluxDB's memory "
                "grows with them"]
    # Lines of line protocol mostly have times of their own.
    if precision != "ns" and mapping.timestamp_from != "field" and mapping.format != "line_protocol":
        return [f'{key}.timestamp_from is "{mapping.timestamp_from}", which messages of one send share, and the '
                f'precision is "{precision}": of messages with the same tags only the last one remains. Set '
                '[influxdb] precision = "ns", which makes the times distinct']
    return []
