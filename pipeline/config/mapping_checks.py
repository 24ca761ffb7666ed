"""Mistakes in `[mapping]` that only show when keys are seen together: names without effect, above all. Pure."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Final

from pipeline.config.mapping_schema import EPOCH_FORMATS, OTHER_NUMBER_FORMATS, TEXT_FORMATS
from pipeline.config.patterns import is_pattern
from pipeline.config.schema import MappingConfig, template_paths
from pipeline.config.values import shown

_DEFAULTS: Final = MappingConfig()
#: Options that belong to one value of another: (option, the other, its value).
_ONLY_WITH: Final = (("timestamp_field", "timestamp_from", "field"),
                     ("timestamp_rest_field", "timestamp_from", "field"), ("field_names", "field_strategy", "explicit"))
#: The same for details of another option, which do no harm without it.
_DETAILS: Final = (("timestamp_format", "timestamp_from", "field"), ("array_join_separator", "arrays", "join"),
                   ("csv_delimiter", "format", "csv"), ("text_field", "format", "text"),
                   ("line_protocol_precision", "format", "line_protocol"))
#: Options for what a line that passes through has already.
_NOT_OF_LINES: Final = ("measurement_from", "tag_fields", "tag_renames", "tag_map_field", "constant_tags",
                        "metadata_tags", "header_tags", "on_bad_tag", "field_strategy", "field_names", "field_renames",
                        "exclude_fields", "nested", "flatten_separator", "arrays", "explode", "integers",
                        "timestamp_field", "timestamp_rest_field")
#: Delimiters that a CSV reader cannot distinguish from other characters of a line.
_NO_DELIMITERS: Final = ("\n", "\r", "\0")


def mapping_contradictions(mapping: MappingConfig, key: str) -> list[str]:
    """A line for each mistake of one mapping: key, and what is allowed."""
    problems = _measurement_problems(mapping, key) + _time_problems(mapping, key)
    for option, other, value in _ONLY_WITH:
        if getattr(mapping, option) != getattr(_DEFAULTS, option) and getattr(mapping, other) != value:
            problems.append(f'{key}.{option}: only with {other} = "{value}"')
    for option in ("tag_fields", "field_names", "exclude_fields", "metadata_tags", "csv_header", "csv_none",
                   "allowed_buckets"):
        names = getattr(mapping, option)
        if len(set(names)) < len(names):
            problems.append(f"{key}.{option}: a name occurs twice")
    problems += _csv_problems(mapping, key)
    if not mapping.max_tag_values and mapping.on_high_cardinality != "warn":
        problems.append(f"{key}.on_high_cardinality: no effect with max_tag_values = 0, which counts no values")
    whens = [rule.when for rule in mapping.rules]
    problems += [f"{key}.rules[{index}].when: occurs twice; only the first rule applies"
                 for index, when in enumerate(whens) if when in whens[:index]]
    if mapping.format == "line_protocol":
        return problems + _line_problems(mapping, key)
    wrong = _wrong_paths(mapping)
    problems += [f"{key}.{option}: {shown(path)} {why}" for (option, path), why in wrong.items()]
    return problems + _field_problems(mapping, key) + _role_problems(mapping, key, wrong)


def mapping_option_warnings(mapping: MappingConfig, key: str) -> list[str]:
    """Options of one mapping that have no effect, and harm nothing."""
    warnings = [f'{key}.{option}: no effect without {other} = "{value}"' for option, other, value in _DETAILS
                if getattr(mapping, option) != getattr(_DEFAULTS, option) and getattr(mapping, other) != value]
    if mapping.timestamp_from in ("iggy_timestamp", "arrival") and mapping.on_missing_timestamp != "reject":
        warnings.append(f'{key}.on_missing_timestamp: no effect with timestamp_from = "{mapping.timestamp_from}"')
    if mapping.exclude_fields and mapping.field_strategy == "explicit" and not mapping.tag_map_field:
        warnings.append(f'{key}.exclude_fields: no effect with field_strategy = "explicit", which names all fields')
    warnings += [f"{key}.constant_tags.{tag}: no effect: it is empty, and no tag is written"
                 for tag, value in mapping.constant_tags.items() if not value]
    return warnings


def _csv_problems(mapping: MappingConfig, key: str) -> list[str]:
    problems = []
    if mapping.csv_delimiter in (*_NO_DELIMITERS, '"', mapping.csv_quote):
        problems.append(f"{key}.csv_delimiter: must not be a quotation mark, a line break or NUL")
    if mapping.csv_quote in _NO_DELIMITERS:
        problems.append(f"{key}.csv_quote: must not be a line break or NUL")
    if mapping.csv_comment and (mapping.csv_comment[0].isspace() or "\n" in mapping.csv_comment):
        problems.append(f"{key}.csv_comment: must not begin with white space or contain a line break")
    if mapping.csv_skip_after_names and mapping.csv_header:
        problems.append(f"{key}.csv_skip_after_names: no effect with csv_header, as no line has names; give "
                        "csv_skip_lines")
    return problems


def _measurement_problems(mapping: MappingConfig, key: str) -> list[str]:
    problems = []
    for kind, option in (("static", "measurement_name"), ("field", "measurement_field"),
                         ("template", "measurement_template")):
        is_given = bool(getattr(mapping, option))
        if (mapping.measurement_from == kind) != is_given:
            problems.append(f'{key}.{option}: {"only" if is_given else "required"} with measurement_from = "{kind}"')
    try:
        mapping.template_paths()
    except ValueError as error:
        problems.append(f"{key}.measurement_template: {shown(mapping.measurement_template)}: {error}")
    return problems


def _time_problems(mapping: MappingConfig, key: str) -> list[str]:
    problems = []
    if mapping.timestamp_from == "field" and not mapping.time_paths():
        problems.append(f'{key}.timestamp_field: required with timestamp_from = "field"')
    known = (*EPOCH_FORMATS, *OTHER_NUMBER_FORMATS, *TEXT_FORMATS)
    forms = mapping.time_formats()
    if not forms:
        problems.append(f"{key}.timestamp_format: give at least one format")
    problems += [f"{key}.timestamp_format: {shown(form)} is not allowed; give {', '.join(known)} or a strptime format"
                 for form in forms if form not in known and "%" not in form]
    for option, names in (("timestamp_field", mapping.time_paths()), ("timestamp_format", forms)):
        if len(set(names)) < len(names):
            problems.append(f"{key}.{option}: a name occurs twice")
    return problems + _rest_problems(mapping, key) + _not_before_problems(mapping, key)


def _rest_problems(mapping: MappingConfig, key: str) -> list[str]:
    """Mistakes in the second key of a time."""
    forms = mapping.time_formats()
    if not mapping.timestamp_rest_field:
        return [f'{key}.timestamp_rest_field: required with timestamp_format = "gps_week": the time of the week'
                ] if "gps_week" in forms else []
    if mapping.timestamp_rest_field in mapping.time_paths():
        return [f"{key}.timestamp_rest_field: {shown(mapping.timestamp_rest_field)} is also timestamp_field"]
    if len(forms) == 1 and forms[0] in EPOCH_FORMATS and forms[0] != "epoch_s":
        return [f'{key}.timestamp_format: "{forms[0]}" not with timestamp_rest_field, beside which a number is whole '
                'seconds; give "epoch_s"']
    return []


def _not_before_problems(mapping: MappingConfig, key: str) -> list[str]:
    if mapping.timestamp_not_before and mapping.timestamp_from in ("iggy_timestamp", "arrival"):
        return [f'{key}.timestamp_not_before: only with timestamp_from = "field" or "origin_timestamp"']
    return []


def _field_problems(mapping: MappingConfig, key: str) -> list[str]:
    problems = []
    if mapping.field_strategy == "explicit" and not mapping.field_names:
        problems.append(f'{key}.field_names: required with field_strategy = "explicit"')
    for name in sorted(set(mapping.tag_fields) & set(mapping.field_names)):
        problems.append(f"{key}.field_names: {shown(name)} is also in tag_fields; a key is a tag or a field")
    return problems


def _line_problems(mapping: MappingConfig, key: str) -> list[str]:
    """Options without effect on lines, which keep their measurement, tags, fields and times."""
    problems = [f'{key}.{option}: no effect with format = "line_protocol", whose lines pass through as they are'
                for option in _NOT_OF_LINES if getattr(mapping, option) != getattr(_DEFAULTS, option)]
    if mapping.timestamp_from == "field":
        problems.append(f'{key}.timestamp_from: "field" not with format = "line_protocol"; it says which time lines '
                        "without one get")
    return problems


def _paths(mapping: MappingConfig) -> Iterator[tuple[str, str]]:
    """Every path that the mapping names, and the option that names it."""
    for option in ("measurement_field", "tag_map_field", "explode", "timestamp_rest_field"):
        if path := getattr(mapping, option):
            yield option, path
    yield from (("timestamp_field", path) for path in mapping.time_paths())
    for option in ("tag_fields", "tag_renames", "field_names", "field_renames", "exclude_fields", "types"):
        yield from ((option, path) for path in getattr(mapping, option))
    for option in ("measurement_template", "bucket_template"):
        with suppress(ValueError):  # reported elsewhere
            yield from [(option, path) for path in template_paths(getattr(mapping, option))]


def _wrong_paths(mapping: MappingConfig) -> dict[tuple[str, str], str]:
    """Why no message has a path: (option, path) -> the reason."""
    wrong = {}
    known = {"csv": set(mapping.csv_header), "text": {mapping.text_field}}.get(mapping.format)
    if mapping.has_steps():
        known = None  # they may add any path
    for option, path in _paths(mapping):
        if option == "types" and is_pattern(path):
            continue
        if "*" in path or path.startswith("^"):
            wrong[option, path] = ("looks like a pattern, and patterns are not supported; give each path"
                                   + _instead_of_pattern(option))
        elif path.startswith("$."):
            wrong[option, path] = f"looks like JSONPath; give {shown(path[2:])}"
        elif known and path not in known:
            wrong[option, path] = "is in no message: there is " + ", ".join(map(shown, sorted(known)))
    return wrong


def _instead_of_pattern(option: str) -> str:
    return {"types": ', or integers = "as_written" for all of them', "tag_fields": ", or tag_map_field for all members "
            "of an object", "field_names": ', or field_strategy = "remaining"'}.get(option, "")


def _role_problems(mapping: MappingConfig, key: str, wrong: Collection[tuple[str, str]]) -> list[str]:
    """Mistakes in renames and types of paths that are neither tags nor fields, and tags that cannot be written."""
    problems = []
    roles = _Roles(mapping)
    for path in mapping.tag_fields:
        if mapping.tag_renames.get(path, path.replace(".", mapping.flatten_separator)) == "time":
            problems.append(f'{key}.tag_fields: {shown(path)} would be a tag called "time", which InfluxDB keeps for '
                            "itself; give it another name in tag_renames, or take it for timestamp_field")
        if path == mapping.tag_map_field:
            problems.append(f"{key}.tag_fields: {shown(path)} is tag_map_field, an object, which cannot be a tag")
    for path in mapping.tag_renames:
        if not roles.is_tag(path) and ("tag_renames", path) not in wrong:
            problems.append(f"{key}.tag_renames: {shown(path)} is not a tag; give a path of tag_fields"
                            + (f", or {shown(f'{mapping.tag_map_field}.{path}')}" if mapping.tag_map_field else ""))
    for option in ("field_renames", "types"):
        problems += [f"{key}.{option}: {shown(path)} {why}" for path in getattr(mapping, option)
                     if (why := roles.why_no_field(path)) and (option, path) not in wrong]
    return problems


class _Roles:
    """Which paths become tags, and why others cannot be fields."""

    def __init__(self, mapping: MappingConfig) -> None:
        self._mapping = mapping
        self._map_prefix = f"{mapping.tag_map_field}." if mapping.tag_map_field else ""

    def is_tag(self, path: str) -> bool:
        """Whether the value at a path is a tag."""
        return path in self._mapping.tag_fields or bool(self._map_prefix) and path.startswith(self._map_prefix)

    def why_no_field(self, path: str) -> str:
        """Why the value at a path cannot be a field; "" if it can."""
        mapping = self._mapping
        if is_pattern(path):
            return ""
        if self.is_tag(path):
            return "is a tag, and no field"
        if mapping.field_strategy == "explicit":
            return "" if path in mapping.field_names else "is not in field_names"
        if path in mapping.all_time_paths():
            return "is timestamp_field, and no field"
        if path == mapping.measurement_field:
            return "is measurement_field, and no field"
        if path == mapping.tag_map_field:
            return "is tag_map_field, whose members are tags"
        return ""
