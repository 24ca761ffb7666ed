"""Checks of a mapping that need the mapping's own code: conditions, formats, and names that cannot be written."""

from msgspec.structs import replace

from pipeline.config.schema import MappingConfig, Precision, template_paths
from pipeline.points import escape
from stages.mapping.formats import transcoder
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
    for form in forms:
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
_OF_FORMAT = (("csv_header", "csv"), ("csv_trim", "csv"), ("avro_schema", "avro"), ("protobuf_descriptor", "protobuf"),
              ("protobuf_message", "protobuf"))


def _format_problems(mapping: MappingConfig, key: str, is_consistent: bool) -> list[str]:
    problems, lacks_option = [], False
    for option, name in _OF_FORMAT:
        given = bool(getattr(mapping, option))
        if given and mapping.format != name:
            problems.append(f'{key}.{option}: only with format = "{name}"')
        if not given and mapping.format == name == "protobuf":
            problems.append(f'{key}.{option}: required with format = "protobuf"')
            lacks_option = True
    if mapping.format == "line_protocol" and (mapping.rules or mapping.bucket_template):
        problems.append(f'{key}.rules, bucket_template: not with format = "line_protocol", whose lines pass through')
    if not lacks_option and (is_consistent or mapping.format != "csv"):
        try:
            transcoder(mapping)
            if mapping.compression != "none":
                decompressor(mapping.compression, 1)
        except BadFormat as error:
            problems.append(f"{key}.{error.option}: {error}")
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
    if "offset" in mapping.metadata_tags:
        return [f"{key}.metadata_tags has offset: every message becomes a series of its own, and InfluxDB's memory "
                "grows with them"]
    # Lines of line protocol mostly have times of their own.
    if precision != "ns" and mapping.timestamp_from != "field" and mapping.format != "line_protocol":
        return [f'{key}.timestamp_from is "{mapping.timestamp_from}", which messages of one send share, and the '
                f'precision is "{precision}": of messages with the same tags only the last one remains. Set '
                '[influxdb] precision = "ns", which makes the times distinct']
    return []
