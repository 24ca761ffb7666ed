"""Mappings for well-known formats, by name: `preset = "senml"` in `[mapping]`.

Each is a file beside this one, with a table `[mapping]` and the cases that it passes. A key that a mapping has itself
replaces that of its preset as a whole, and so do those that belong to its value.
"""

import tomllib
from importlib import resources
from typing import Any, Final

from pipeline.config.merging import Merged, Origin
from pipeline.config.toml_text import joined
from pipeline.errors import Problem

#: Options that belong to the value of another: where a mapping has another value of that than its preset, those of the
#: preset do not apply.
_DEPENDENT: Final = {
    "measurement_from": ("measurement_name", "measurement_field", "measurement_template"),
    "field_strategy": ("field_names",),
    "timestamp_from": ("timestamp_field", "timestamp_format", "timestamp_rest_field", "timestamp_rest_unit",
                       "timestamp_not_before", "timestamp_zone", "on_missing_timestamp")}


def preset_names() -> list[str]:
    """The presets that there are."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def preset(name: str) -> dict[str, Any]:
    """The content of a preset's file: `mapping` and `tests`. Raises KeyError for one that there is not."""
    if name not in preset_names():
        raise KeyError(name)
    return tomllib.loads(preset_text(name))


def preset_text(name: str) -> str:
    """The same as TOML, with its comments."""
    return (resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8")


def apply_presets(merged: Merged) -> list[Problem]:
    """Puts the keys of presets into the mappings that name them, where these have none of their own.

    Returns a line for each preset that there is not.
    """
    problems = []
    for key, mapping in _mappings(merged.tables):
        name = mapping.get("preset", "")
        if not isinstance(name, str) or not name:
            continue
        try:
            keys = preset(name)["mapping"]
        except KeyError:
            origin = merged.origin(joined(key, "preset"))
            problems.append(Problem(
                origin.place if origin is not None else "", origin.line if origin is not None else 0,
                joined(key, "preset"), f'{key}.preset: "{name}" is not known; give one of {", ".join(preset_names())}'))
            continue
        moot = {option for other, options in _DEPENDENT.items()
                if other in mapping and mapping[other] != keys.get(other) for option in options}
        for option, value in keys.items():
            if option not in mapping and option not in moot:
                mapping[option] = value
                merged.record(joined(key, option), value, Origin(f"preset {name}", ""))
    return problems


def _mappings(tables: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The mappings of a configuration, whatever else it holds."""
    found = [("mapping", tables.get("mapping"))]
    sinks = tables.get("sinks")
    for index, sink in enumerate(sinks if isinstance(sinks, list) else []):
        if isinstance(sink, dict):
            found.append((f"sinks[{index}].mapping", sink.get("mapping")))
    return [(key, mapping) for key, mapping in found if isinstance(mapping, dict)]
