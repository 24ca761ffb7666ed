"""Shapes of messages that the mapping's options alone cannot describe, and the steps that make records of them. Pure.

Each shape is looked for by itself. What one step makes of the messages is looked at again: shapes lie in each other.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from stages.mapping.suggest import names
from stages.mapping.suggest.profile import PathProfile, Table, kind_of, plain

#: Steps that are proposed at most.
MOST_STEPS: Final = 6
#: Share of the values of a path that must have a shape.
_MOST: Final = 0.95
#: Distinct values that are looked at.
_LOOKED_AT: Final = 100
_NAME_KEYS: Final = frozenset(("name", "n", "type", "key", "measurand", "metric", "tag", "field", "code",
                               "parameter", "label", "variable", "property"))
_VALUE_KEYS: Final = ("value", "v", "val", "reading", "data")
#: Keys that may stand beside name and value without making a point of each pair.
_BESIDE: Final = frozenset(("unit", "u", "units", "uom", "quality", "q", "datatype", "description",
                            "format", "location", "context", "phase"))
#: A number with its unit, and one with a decimal comma; no leading zeros.
_UNIT: Final = re.compile(
    r"\s*[-+]?(?:[1-9][0-9]{0,2}(?:[.,\s][0-9]{3})+|0|[1-9][0-9]*)(?:[.,][0-9]+)?\s*([^\s0-9.,:/_-][^0-9:_]{0,7})")
_COMMA: Final = re.compile(
    r"\s*[-+]?(?:[1-9][0-9]{0,2}(?:[.\s][0-9]{3})+|0|[1-9][0-9]*),[0-9]+\s*([^\s0-9.,:/_-][^0-9:_]{0,7})?")
#: Most units of one path.
_MOST_UNITS: Final = 3
_NUMBERED: Final = re.compile(r"(.*?)[0-9]+")


class Shape(NamedTuple):
    """A shape that was found: the steps that undo it, and why."""

    steps: list[dict[str, Any]]
    why: str
    #: Options of the mapping that go with them.
    options: dict[str, Any] = {}


def find_shape(table: Table, done: frozenset[str]) -> tuple[str, Shape] | None:
    """The first shape that a profile has, and its name, which is then `done`; None where there is none left."""
    for name, find in _SHAPES.items():
        if name.endswith("*") or name not in done:
            shape = find(table)
            if shape is not None and (mark := f"{name}{shape.steps[0].get('path', '')}") not in done:
                return mark if name.endswith("*") else name, shape
    return None


def _telegraf(table: Table) -> Shape | None:
    rest: list[dict[str, Any]] = [
            {"do": "rename", "names": {"name": "metric.name", "tags": "metric.tags", "timestamp": "metric.timestamp"}},
            {"do": "unwrap", "path": "fields", "keep": ["metric"]}]
    options = {"measurement_from": "field", "measurement_field": "metric.name", "tag_map_field": "metric.tags"}
    why = "Telegraf's JSON: the fields are the message, beside name, tags and time"
    if _is_metric(table):
        return Shape(rest, why, options)
    metrics = table.paths.get("metrics")
    if metrics is not None and metrics.elements is not None and metrics.only("array") and _is_metric(metrics.elements):
        return Shape([{"do": "explode", "path": "metrics"}, *rest], why, options)
    return None


def _is_metric(table: Table) -> bool:
    return all(key in table.paths and table.paths[key].only("object") and table.paths[key].count == table.records
               for key in ("fields", "tags")) and "timestamp" in table.paths and (
        "name" in table.paths and table.paths["name"].only("text"))


def _tags_and_fields(table: Table) -> Shape | None:
    """Objects called tags and fields, in a list or at the top."""
    for path, profile in table.paths.items():
        if profile.elements is not None and profile.only("array") and _is_exact(path) and _has_both(profile.elements):
            return Shape([{"do": "explode", "path": path}], f"{path}: a list of points with tags and fields")
    if not _has_both(table):
        return None
    keep = [key for key in table.paths if "." not in key and key != "fields" and _is_exact(key)]
    return Shape([{"do": "unwrap", "path": "fields", "keep": keep}], "fields: its members are the fields")


def _has_both(table: Table) -> bool:
    return all(_is_object(table.paths.get(key)) and table.paths[key].count == table.records
               for key in ("fields", "tags"))


def _vector(table: Table) -> Shape | None:
    values = [f"{kind}.value" for kind in ("gauge", "counter") if f"{kind}.value" in table.paths]
    if not values or not all(key in table.paths and table.paths[key].only("text") for key in ("name", "kind")):
        return None
    return Shape([{"do": "move", "from": values, "to": "value"}, {"do": "exclude", "path": ["kind", "namespace"]}],
                 "Vector's metrics as JSON", {"measurement_from": "field", "measurement_field": "name"})


def _envelope(table: Table) -> Shape | None:
    paths = table.paths
    if "op" in paths and "before" in paths and _is_object(paths.get("after")):
        row = [key for key in ("op", "ts_ms", "ts_us", "ts_ns") if key in paths]
        return Shape([{"do": "drop", "when": "not exists(after)"}, {"do": "unwrap", "path": "after", "keep": row}],
                     "change events of a database: the row after the change is the message, and deletions are left out")
    if "specversion" in paths and _is_object(paths.get("data")):
        keep = [key for key in ("type", "source", "subject", "time") if key in paths]
        return Shape([{"do": "unwrap", "path": "data", "keep": keep}],
                     "CloudEvents: the data are the message, with what says where it is from")
    if _is_object(paths.get("payload")) and "schema" in paths and "payload.schema" not in paths:
        return Shape([{"do": "unwrap", "path": "payload"}], "Kafka Connect's envelope: the payload is the message")
    for reported in ("current.state.reported", "state.reported"):
        if _is_object(paths.get(reported)):
            beside = [key for key in ("timestamp", "thing") if key in paths]
            return Shape([{"do": "unwrap", "path": reported, "keep": beside}],
                         "a device shadow: what the thing reports is the message")
    return None


def _is_object(profile: PathProfile | None) -> bool:
    return profile is not None and profile.only("object") and profile.count >= 1


def _json_text(table: Table) -> Shape | None:
    for path, profile in table.paths.items():
        filled = profile.kinds["text"] - profile.empty_texts
        if not filled or not profile.only("text") or not _is_exact(path):
            continue
        if profile.json_texts >= _MOST * filled:
            return Shape(_opened(path, "json"), f"{path}: a text that holds JSON: its members become keys")
        if profile.base64_texts >= _MOST * filled:
            return Shape(_opened(path, "base64_json"), f"{path}: a text that holds JSON in Base64: its members become "
                                                        "keys")
        if profile.json_texts + profile.base64_texts >= _MOST * filled:
            return Shape(_opened(path, ["json", "base64_json"]), f"{path}: texts that hold JSON, some in Base64: their "
                                                                  "members become keys")
    return None


def _opened(path: str, form: str | list[str]) -> list[dict[str, Any]]:
    return [{"do": "parse", "path": path, "as": form, "on_error": "skip"},
            {"do": "unwrap", "path": path, "keep": ["*"], "on_error": "skip", "on_missing": "skip"}]


def _names_and_values(table: Table) -> Shape | None:
    for path, profile in table.paths.items():
        elements = profile.elements
        if elements is None or not profile.only("array") or set(profile.element_kinds) != {"object"} \
                or not _is_exact(path):
            continue
        found = _name_and_value(elements)
        if found is not None:
            name, values = found
            value: Any = values[0] if len(values) == 1 else values
            return Shape([{"do": "pivot", "path": path, "name": name, "value": value, "on_missing": "skip"}],
                         f"{path}: a list of names and values, which become keys and values of one point")
    return None


def _name_and_value(elements: Table) -> tuple[str, list[str]] | None:
    """The paths of the name and of the values in elements that have little else."""
    keys = {key: profile for key, profile in elements.paths.items() if "." not in key}
    values = [key for key in keys if key.lower() in _VALUE_KEYS or key.lower().startswith(("value_", "value"))]
    candidates = [key for key, profile in keys.items()
                  if {key.lower(), *names.words(key)[-1:]} & _NAME_KEYS and profile.only("text")
                  and profile.count == elements.records and not profile.empty_texts and profile.distinct <= 200
                  and (elements.unique is None or key in elements.unique)]
    if not values or not candidates or any(keys[key].kinds["object"] or keys[key].kinds["array"] for key in values):
        return None
    rest = set(keys) - set(values) - {candidates[0]}
    return (candidates[0], values) if all(key.lower() in _BESIDE for key in rest) else None


def _map_by_id(table: Table) -> Shape | None:
    """Objects whose members are numbered objects alike: {"device0": {...}, "device1": {...}}."""
    for parent in ("", *table.members):
        prefix = f"{parent}." if parent else ""
        inside = [path for path, profile in table.paths.items() if path.startswith(prefix)
                  and "." not in path[len(prefix):] and profile.only("object")]
        groups: dict[str, list[str]] = {}
        for path in inside:
            if match := _NUMBERED.fullmatch(path[len(prefix):]):
                groups.setdefault(match[1], []).append(path)
        for start, paths in groups.items():
            if len(paths) < 2 or not _are_alike([set(table.members.get(path, ())) for path in paths]) \
                    or not re.fullmatch(r"[\w:-]*", start):
                continue
            key = start.rstrip("_-: ") or "id"
            if not start and all(_is_epoch(path[len(prefix):]) for path in paths):
                return Shape([{"do": "explode", "path": parent, "key": "timestamp"}] if parent else
                             [{"do": "explode", "path": "*", "key": "timestamp"}],
                             f"{parent or 'the message'}: an object whose keys are times; each member becomes a point")
            if key in table.paths:
                key = f"{key}_id"
            return Shape([{"do": "explode", "path": f"{prefix}{start}*", "key": key}],
                         f"{prefix}{start}*: objects alike under numbered keys; each becomes a point, with its key as "
                         "a tag", {"tag_fields": [key]})
    return None


def _is_epoch(text: str) -> bool:
    """Whether a key is a number of seconds or milliseconds since 1970."""
    return text.isascii() and text.isdigit() and (
        978_307_200 <= int(text) <= 4_102_444_799 or 978_307_200_000 <= int(text) <= 4_102_444_799_999)


def _are_alike(members: list[set[str]]) -> bool:
    union = set.union(*members)
    return bool(union) and len(set.intersection(*members)) >= 0.5 * len(union)


def _side_by_side(table: Table) -> Shape | None:
    """Arrays of the same lengths, one of them of times."""
    by_parent: dict[str, list[PathProfile]] = {}
    for path, profile in table.paths.items():
        if profile.only("array") and set(profile.element_kinds) <= {"number", "text", "boolean", "null"} and max(
                profile.lengths) > 1:
            by_parent.setdefault(path.rpartition(".")[0], []).append(profile)
    for profiles in by_parent.values():
        times = [profile for profile in profiles if names.time_score(profile.path.rstrip("s")) > 0]
        alike = [profile for profile in profiles if times and profile.lengths == times[0].lengths]
        if times and len(alike) > 1 and all(_is_exact(profile.path) for profile in alike):
            keys = {profile.path: _singular(names.last(profile.path)) for profile in alike}
            return Shape([{"do": "zip", "names": keys}],
                         f"{', '.join(keys)}: arrays side by side; each row becomes a point")
    return None


def _singular(name: str) -> str:
    return name[:-1] if len(name) > 3 and name.endswith("s") and not name.endswith("ss") else name


def _nameless_elements(table: Table) -> Shape | None:
    """An array of objects that nothing tells apart: the index does."""
    for path, profile in table.paths.items():
        elements = profile.elements
        if elements is None or not profile.only("array") or set(profile.element_kinds) != {"object"} \
                or not _is_exact(path) or names.is_about_transport(path):
            continue
        inner = [nested for nested, other in elements.paths.items() if other.elements is not None]
        if inner:
            deep = f"{path}.{inner[0]}"
            return Shape([{"do": "explode", "path": deep}], f"{deep}: arrays in arrays; each element becomes a point")
        if max(profile.lengths) < 2:
            continue
        distinct = [key for key in elements.unique or () if elements.paths[key].only("text")
                    or names.time_score(key) > 0 or names.is_numbered(key)]
        if not distinct:
            key = "index" if "index" not in {*table.paths, *elements.paths} else "element_index"
            return Shape([{"do": "explode", "path": path, "key": key}],
                         f"{path}: an array of objects that nothing in them tells apart; the index does",
                         {"tag_fields": [key]})
    return None


def _written_numbers(table: Table) -> Shape | None:
    """Texts of numbers with a unit or a decimal comma."""
    paths: list[str] = []
    comma = False
    for path, profile in table.paths.items():
        values = list(profile.values)[:_LOOKED_AT]
        texts = [text for value in values if kind_of(value) == "text" and (text := plain(value))]
        if not profile.only("text", "number") or not texts or not _is_exact(path) or names.is_code(path):
            continue
        has_comma = any(_COMMA.fullmatch(text) for text in texts)
        found = [(_COMMA if has_comma else _UNIT).fullmatch(text) or _UNIT.fullmatch(text) for text in texts]
        bare = [text for text, match in zip(texts, found, strict=True)
                if match is None and not text.strip().lstrip("-").isdigit()]
        units = {match[1] for match in found if match is not None}
        if any(found) and not bare and len(units) <= _MOST_UNITS and (has_comma == comma or not paths):
            paths.append(path)
            comma = has_comma
    if not paths:
        return None
    step: dict[str, Any] = {"do": "parse", "path": paths[0] if len(paths) == 1 else paths, "as": "number",
                            "on_error": "skip"}
    if comma:
        step["decimal"] = ","
    return Shape([step], f"{', '.join(paths)}: numbers with {'a decimal comma' if comma else 'a unit'}")


def _is_exact(path: str) -> bool:
    """Whether a step can name a path as it stands."""
    return bool(path) and not set(path) & set("*?\\\0") and all(path.split(".")) and path.isprintable()


#: In the order in which they are looked for. A star: more than once.
_SHAPES: Final[dict[str, Callable[[Table], Shape | None]]] = {
    "telegraf": _telegraf, "tags_and_fields*": _tags_and_fields, "vector": _vector, "envelope": _envelope,
    "json_text*": _json_text, "names_and_values*": _names_and_values,
    "map_by_id": _map_by_id, "side_by_side": _side_by_side, "nameless_elements": _nameless_elements,
    "written_numbers": _written_numbers}
