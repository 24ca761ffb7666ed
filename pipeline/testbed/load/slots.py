"""Which values a message must have so that a mapping can read it: their paths, and what they are. Pure."""

import re
from collections.abc import Iterator
from typing import Final, Literal

from msgspec import Struct

from pipeline.config.schema import MappingConfig, template_paths

#: "site" and "device" identify the series; "number" is `NN.NN`; "constant" is the same in all messages.
Kind = Literal["site", "device", "number", "integer", "boolean", "text", "time", "constant"]

_OF_TYPES: Final[dict[str, Kind]] = {"integer": "integer", "unsigned": "integer", "string": "text",
                                     "boolean": "boolean"}
#: Of measurements, and whatever else a mapping needs and leaves open.
CONSTANT: Final = "load"


class Slot(Struct, frozen=True):
    """One value of a message."""

    #: Keys from the outside in, with dots between them.
    path: str
    kind: Kind
    #: Of a constant.
    text: str = ""


def slots_of(mapping: MappingConfig, time_path: str, fields: int) -> list[Slot]:
    """The values of a message for a mapping: tags, what the measurement is made of, at most `fields` fields, the time.

    Raises ValueError where one would have to be a value and an object.
    """
    constants = _constants(mapping)
    tags = list(mapping.tag_fields) or [f"{mapping.tag_map_field}{'.' * bool(mapping.tag_map_field)}{name}"
                                        for name in ("site", "device")]
    kinds: dict[str, Kind] = {path: "device" if path == tags[-1] else "site" for path in tags}
    kinds |= dict.fromkeys(constants, "constant")
    for name in _field_names(mapping, fields):
        kinds.setdefault(name, _OF_TYPES.get(mapping.types.get(name, ""), "number"))
    kinds[time_path] = "time"
    for path in kinds:
        if inner := next((other for other in kinds if other.startswith(f"{path}.")), ""):
            raise ValueError(f"the mapping names both {path} and {inner}: no message has a value and an object there")
    return [Slot(path, kind, constants.get(path, "") if kind == "constant" else "") for path, kind in kinds.items()]


def _field_names(mapping: MappingConfig, fields: int) -> tuple[str, ...]:
    if mapping.field_strategy == "explicit":
        return mapping.field_names[:fields]
    if mapping.format == "csv" and mapping.csv_header:
        return mapping.csv_header
    return tuple(f"f{number}" for number in range(fields))


def _constants(mapping: MappingConfig) -> dict[str, str]:
    """Values that decide where a point goes: of the measurement, and of the bucket."""
    paths = [*([mapping.measurement_field] if mapping.measurement_from == "field" else ()), *mapping.template_paths()]
    constants = {path: CONSTANT for path in paths if path not in mapping.tag_fields}
    return constants | dict(_of_bucket(mapping))


def _of_bucket(mapping: MappingConfig) -> Iterator[tuple[str, str]]:
    """The values with which `bucket_template` gives the first of the buckets that are allowed and can be."""
    paths = template_paths(mapping.bucket_template)
    pattern = "".join("(.+)" if part in paths else re.escape(part)
                      for part in re.split(r"\{([^}]*)\}", mapping.bucket_template))
    for bucket in mapping.allowed_buckets if paths else ():
        if found := re.fullmatch(pattern, bucket):
            yield from zip(paths, found.groups(), strict=True)
            return
