"""Mistakes in the keys of `[[sources]]` that choose what is read, and change it."""

from collections.abc import Iterator

from pipeline.config.patterns import is_pattern
from pipeline.config.source_schema import SourceConfig
from pipeline.config.steps_schema import METADATA_IN_CONDITION, FunctionStep, OnlyChangedStep, SetStep, names_of

#: Tags that Flux has for itself.
_FLUX_NAMES = frozenset({"_measurement", "_field", "_value", "_time", "_start", "_stop"})


def policy_problems(source: SourceConfig, key: str) -> list[str]:
    """A line for each mistake in `retention_policies`, and in `{retention_policy}`."""
    problems = []
    influxdb, output = source.influxdb, source.output
    templates = (output.stream, output.topic, *output.headers.values(), *output.constant_tags.values())
    shown = any("{retention_policy}" in template for template in templates)
    if not source.retention_policies:
        if shown and not influxdb.retention_policy:
            problems.append(f"{key}.output: {{retention_policy}} only with retention_policies, or "
                            "influxdb.retention_policy")
        return problems
    here = f"{key}.retention_policies"
    if source.query:
        problems.append(f"{here}: not beside query, which names the policies itself")
    if influxdb.retention_policy:
        problems.append(f"{here}: not beside influxdb.retention_policy; give one of them")
    if influxdb.version == "v3" or influxdb.transport == "flight":
        problems.append(f"{here}: only with InfluxDB 1, or InfluxDB 2 in InfluxQL; InfluxDB 3 has none")
    elif source.language not in ("auto", "influxql"):
        problems.append(f'{here}: only with language = "influxql" or "auto"; in Flux each policy is a bucket')
    several = len(source.retention_policies) > 1 or is_pattern(source.retention_policies[0])
    if several and not shown:
        problems.append(f"{key}.output: {{retention_policy}} must be in the stream, the topic, a header or a tag, so "
                        "that points of the same series and time in two policies can be told apart; for example "
                        'headers = { retention_policy = "{retention_policy}" }')
    return problems


def choice_problems(source: SourceConfig, key: str) -> list[str]:
    """A line for each mistake in the choice of fields and tags, and in `steps`."""
    problems = []
    if source.query:
        problems += [f"{key}.{option}: not beside query, which chooses itself" for option, default in (
            ("fields", ("*",)), ("exclude_fields", ()), ("tag_values", {}), ("exclude_tag_values", {}))
            if getattr(source, option) != default]
    for option in ("tag_values", "exclude_tag_values"):
        for tag, values in getattr(source, option).items():
            here = f"{key}.{option}.{tag}"
            if tag in _FLUX_NAMES:
                problems.append(f"{here}: is not the name of a tag")
            if not values:
                problems.append(f"{here}: is empty; give at least one value" + (
                    ", or exclude the measurements" if option == "tag_values" else ""))
            problems += [f'{here}: "{value}" occurs twice' for index, value in enumerate(values)
                         if value in values[:index]]
    return problems + list(_step_problems(source, key))


def _step_problems(source: SourceConfig, key: str) -> Iterator[str]:
    """Steps that need what only messages from Iggy have. The steps' own mistakes are found where they are compiled."""
    for index, step in enumerate(source.steps):
        here = f"{key}.steps[{index}]"
        if isinstance(step, OnlyChangedStep | FunctionStep):
            yield f'{here}: do = "{step.__struct_config__.tag}" is only for messages from Iggy, in [[mapping.steps]]'
        template = step.template if isinstance(step, SetStep) else ""
        named = [name for name in names_of(step) if name.endswith(")") and not name.startswith("value(")]
        for name in (*named, *(f"{name}" for _, name in METADATA_IN_CONDITION.findall(template) if name)):
            yield f"{here}: {name} is only known of messages from Iggy; a point has measurement, tags, fields and time"
