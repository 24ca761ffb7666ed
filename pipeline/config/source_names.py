"""Names of a source: under which it keeps measurements of several retention policies, and in its templates. Pure.

A source that reads policies by name has a measurement once for each of them, as `"policy"."measurement"`: InfluxQL's
own spelling, which no two of them share. Any other source has plain names, whatever they look like.
"""

import re
from typing import NamedTuple

from pipeline.config.source_schema import SourceConfig
from pipeline.points.alignment import Alignment

_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_QUALIFIED = re.compile(rf"{_QUOTED}\.{_QUOTED}", re.DOTALL)
_PLACE = re.compile(r"\{(measurement|source|retention_policy)\}")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def alignment_of(config: SourceConfig) -> Alignment:
    """Where the windows of a source end."""
    return Alignment(max(1, config.window_align_ms * 1_000_000), config.window_align_zone)


class Measurement(NamedTuple):
    """A measurement, and the retention policy whose points are read; "" for the database's default one."""

    policy: str
    name: str


def quoted(name: str) -> str:
    """An identifier of InfluxQL in quotes. Source: "InfluxQL reference", identifiers."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def qualified(policy: str, name: str) -> str:
    """The name under which a measurement of a policy is kept."""
    return f"{quoted(policy)}.{quoted(name)}"


def measurement_of(config: SourceConfig, kept: str) -> Measurement:
    """The measurement that a source keeps under this name. A name that is none of them is taken as it is."""
    return parts_of(kept) if config.retention_policies else Measurement(config.influxdb.retention_policy, kept)


def parts_of(kept: str) -> Measurement:
    """Takes a name of `qualified` apart; any other has no policy."""
    found = _QUALIFIED.fullmatch(kept)
    if found is None:
        return Measurement("", kept)
    return Measurement(*(_ESCAPE.sub(lambda one: {"n": "\n"}.get(one[1], one[1]), part) for part in found.groups()))


def template_names(config: SourceConfig, kept: str) -> dict[str, str]:
    """What stands for each name in braces in a template of `[sources.output]`, for the measurement kept as `kept`."""
    policy, name = measurement_of(config, kept)
    return {"measurement": name, "source": config.name, "retention_policy": policy}


def substitute_names(template: str, names: dict[str, str]) -> str:
    """A template with {measurement} and the like replaced. Braces inside the names are not replaced again."""
    return _PLACE.sub(lambda place: names[place[1]], template)


def constant_tags(config: SourceConfig, kept: str) -> dict[str, str]:
    """`output.constant_tags` for the measurement kept as `kept`."""
    names = template_names(config, kept)
    found = {key: substitute_names(text, names) for key, text in config.output.constant_tags.items()}
    return {key: value for key, value in found.items() if value}
