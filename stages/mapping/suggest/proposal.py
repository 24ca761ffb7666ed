"""From the profile of messages to the options of a mapping, each with its reasons. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pipeline.config.schema import MappingConfig
from pipeline.points import escape
from stages.mapping.suggest import names
from stages.mapping.suggest.profile import MAX_MEMBERS, MAX_VALUES, PathProfile, Table, plain
from stages.mapping.suggest.roles import Role, is_nameable, is_writable, plural, role_of
from stages.mapping.suggest.times import NOT_BEFORE, FoundTime, find_times, replaces

#: Most reasons of one kind that are listed.
MOST_REASONS: Final = 20
#: Most measurements that a key may give.
_MOST_MEASUREMENTS: Final = 100
#: Most elements of an array of numbers for which each is a field.
_MOST_INDEXED: Final = 16
#: Members of an object from which on its keys are data rather than names.
_MOST_NAMES: Final = 200


_WORDS: Final = {
    "epoch_s": "seconds since 1970, by their size", "epoch_ms": "milliseconds since 1970, by their size",
    "epoch_us": "microseconds since 1970, by their size", "epoch_ns": "nanoseconds since 1970, by their size",
    "epoch_auto": "numbers since 1970, of several units", "iso8601": "ISO 8601"}


class Proposal:
    """Options of a mapping, in the order of the documentation, and the reasons."""

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        self.options: dict[str, Any] = dict(options or {})
        #: Option -> its reasons. "types" and other tables have one for each key, as "key: reason".
        self.reasons: dict[str, list[str]] = {}
        #: What is said of values that no option names.
        self.notes: list[str] = []
        #: Key of a field -> the paths that become it.
        self.paths: dict[str, list[str]] = {}
        #: Name of the preset that the options are from, or "".
        self.preset = ""

    def set(self, option: str, value: Any, reason: str = "") -> None:
        """Sets an option."""
        self.options[option] = value
        if reason:
            self.reasons[option] = [reason]

    def add(self, option: str, value: str, reason: str = "") -> None:
        """Adds to an option that is a list."""
        held = self.options.setdefault(option, [])
        if value not in held:
            held.append(value)
            self.because(option, reason)

    def put(self, option: str, key: str, value: str, reason: str = "") -> None:
        """Adds to an option that is a table."""
        self.options.setdefault(option, {})[key] = value
        self.because(option, reason)

    def because(self, option: str, reason: str) -> None:
        """Adds a reason to an option."""
        if reason:
            self.reasons.setdefault(option, []).append(reason)

    def remove(self, option: str) -> None:
        """Takes an option back."""
        self.options.pop(option, None)
        self.reasons.pop(option, None)


class _Place(NamedTuple):
    """A table of records, and how the mapping names their paths."""

    table: Table
    #: Path of the exploded array, or "" for messages.
    array: str
    #: Paths that messages have, too, so that those of elements need the array's path before them.
    taken: frozenset[str]

    def name(self, path: str) -> str:
        """A path as the configuration names it."""
        return f"{self.array}.{path}" if self.array and path in self.taken else path


def propose(table: Table, proposal: Proposal) -> None:
    """Adds to a proposal what it says of messages of this profile."""
    explode = _explode(table, proposal)
    places = [_Place(table, "", frozenset())]
    if explode is not None and explode.elements is not None:
        places.append(_Place(explode.elements, explode.path, frozenset(table.paths)))
    _measurement(table, proposal)
    _tag_map(table, proposal)
    times = {place.array: find_times(place.table) for place in places}
    time = _time(places, times, proposal)
    for place in places:
        _roles(place, times[place.array], time if time is None or time[0] == place.array else None, proposal)
    _arrays(table, proposal)
    _explain_tags(proposal)


def _explode(table: Table, proposal: Proposal) -> PathProfile | None:
    """The array of objects of which each element is a point."""
    arrays = [profile for profile in table.paths.values()
              if profile.element_kinds["object"] and profile.only("array") and is_nameable(profile.path)
              and set(profile.element_kinds) <= {"object", "null"} and not names.is_about_transport(profile.path)]
    if not arrays:
        return None
    chosen = max(arrays, key=lambda profile: (profile.element_kinds["object"], -profile.path.count(".")))
    count = chosen.element_kinds["object"]
    proposal.set("explode", chosen.path, f"{chosen.path}: an array of objects, {count:,} in "
                 f"{plural(chosen.count, 'message')}; each becomes a point, together with the rest of the message")
    for other in arrays:
        if other is not chosen:
            proposal.notes.append(f"{other.path}: another array of objects, kept as JSON text: only one is exploded")
    return chosen


def _measurement(table: Table, proposal: Proposal) -> None:
    if "measurement_from" in proposal.options:
        return
    for path, profile in table.paths.items():
        if (names.is_measurement(path) and profile.only("text") and profile.count == table.records and is_nameable(path)
                and not (profile.empty_texts or profile.kinds["null"] or profile.has_more or profile.bad_texts)
                and profile.distinct <= _MOST_MEASUREMENTS and all(map(_is_measurement, map(plain, profile.values)))):
            proposal.set("measurement_from", "field", f"{path}: its name says so, and each message has one of "
                         f"{profile.distinct:,} names")
            proposal.set("measurement_field", path)
            return


def _is_measurement(text: str) -> bool:
    try:
        escape.measurement(text)
    except escape.Unwritable:
        return False
    return True


def _tag_map(table: Table, proposal: Proposal) -> None:
    """An object called tags or labels, with single values."""
    if "tag_map_field" in proposal.options:
        return
    for path, profile in table.paths.items():
        if not names.is_tag_map(path):
            continue
        inside = [other for other in table.paths.values() if other.path.startswith(f"{path}.")]
        if (profile.only("object") and is_nameable(path) and inside
                and all(other.only("text", "number", "boolean") or other.only("null") for other in inside)
                and not any(other.has_more or other.bad_for_tag for other in inside)
                and all(is_writable(other.path.removeprefix(f"{path}.")) for other in inside)):
            proposal.set("tag_map_field", path, f"{path}: an object whose members are tags by its name: "
                         + _listed([other.path.removeprefix(f"{path}.") for other in inside]))
            return


def _time(places: list[_Place], times: dict[str, list[FoundTime]], proposal: Proposal) -> tuple[str, FoundTime] | None:
    """The time of the points: (array, time)."""
    candidates = [(time.score + 2 * bool(place.array), place, time) for place in places for time in times[place.array]
                  if time.score > 0 and is_nameable(time.path)
                  and not _in_tag_map(time.path, proposal) and 2 * time.filled >= place.table.records]
    if not candidates:
        return None
    _, place, time = max(candidates, key=lambda candidate: candidate[0])
    path, missing = time.path, place.table.records - time.filled + time.unset
    paths = [time]
    for other in times[place.array]:
        if other is not time and other.score > 0 and is_nameable(other.path) and replaces(
                time, other, place.table) and len(paths) < 4:
            paths.append(other)
            missing -= other.filled
    if place.array and time.path in places[0].table.paths and any(
            other.path == time.path for other in times[""]):
        missing = 0  # an element without a time has the message's
    proposal.set("timestamp_from", "field", f"{path}: {_form(time)}, such as {time.example}")
    for other in paths[1:]:
        proposal.because("timestamp_from", f"{other.path}: where there is no {path}: {_form(other)}")
    proposal.set("timestamp_field", path if len(paths) == 1 else [other.path for other in paths])
    forms = list(dict.fromkeys([form for other in paths for form in other.formats]))
    if forms != ["epoch_ms"]:
        proposal.set("timestamp_format", forms[0] if len(forms) == 1 else forms)
    if time.rest:
        proposal.set("timestamp_rest_field", time.rest, f"{time.rest}: the rest of the time")
        if time.unit not in ("", "ns"):
            proposal.set("timestamp_rest_unit", time.unit)
    if any(other.unset for other in paths):
        proposal.set("timestamp_not_before", NOT_BEFORE, f"{sum([other.unset for other in paths]):,} times are before "
                     "that: of clocks that were not set; they count as missing")
    if time.other:
        proposal.because("timestamp_from", f'every value is also a time of "{time.other}": check which is meant')
    if time.lacks_offset:
        proposal.because("timestamp_from", 'it has no offset: UTC is assumed; otherwise set timestamp_zone, such as '
                         '"Europe/Berlin"')
    if time.bad:
        proposal.because("timestamp_from", f"{time.bad:,} values are no such time; those that cannot be read reject "
                         "their messages")
    if missing > 0:
        proposal.set("on_missing_timestamp", "iggy_timestamp", f"{missing:,} of {place.table.records:,} have no "
                     f"{path}: they get the time when Iggy received them")
    others = [other for array in times for other in times[array] if other not in paths and other.score > 0]
    if others:
        proposal.because("timestamp_from", f"also times: {_listed([other.path for other in others])}")
    return place.array, time


def _form(time: FoundTime) -> str:
    return " or ".join([_WORDS.get(form, "a time") for form in time.formats])


def _in_tag_map(path: str, proposal: Proposal) -> bool:
    prefix = proposal.options.get("tag_map_field", "")
    return bool(prefix) and path.startswith(f"{prefix}.")


def _roles(place: _Place, times: list[FoundTime], time: tuple[str, FoundTime] | None, proposal: Proposal) -> None:
    """Tags, types and names of the single values of one table."""
    used = {proposal.options.get("measurement_field"), proposal.options.get("tag_map_field"), None}
    if time is not None or not place.array:
        chosen = proposal.options.get("timestamp_field", [])
        used |= {*([chosen] if isinstance(chosen, str) else chosen), proposal.options.get("timestamp_rest_field")}
    data = _objects_with_data(place.table, proposal)
    for path, profile in place.table.paths.items():
        if path in used or _in_tag_map(path, proposal) or any(path.startswith(f"{prefix}.") for prefix in data):
            continue
        if not profile.singles and not profile.kinds["array"]:
            continue
        if not place.array and path == proposal.options.get("explode"):
            continue
        _role(place, profile, role_of(profile, place.table, times, bool(place.array)), proposal)


def _role(place: _Place, profile: PathProfile, role: Role, proposal: Proposal) -> None:
    path, key = place.name(profile.path), names.last(profile.path)
    if path in proposal.options.get("tag_fields", []):
        return
    flat = profile.path.replace(".", "_")
    if not is_writable(flat) and flat != "time" and is_nameable(path):
        proposal.add("exclude_fields", path, f"{path}: its name cannot stand in a line")
        return
    if not is_nameable(path):
        return
    renamed = f"{names.last(place.array)}_{flat}" if path != profile.path else ""
    if flat == "time" and not renamed:
        renamed = "time_value"
        proposal.because("field_renames", f"{path}: InfluxDB keeps the key time for itself, and this is not the time "
                                          "of the point")
    if role.kind == "tag" and not profile.kinds["object"]:
        proposal.add("tag_fields", path, f"{path}: {role.why}")
        if renamed:
            proposal.put("tag_renames", path, renamed)
        return
    if renamed:
        proposal.put("field_renames", path, renamed)
    proposal.paths.setdefault(renamed or flat, []).append(path)
    if role.type:
        proposal.put("types", path, role.type, f"{path}: {role.why}")
    elif role.why:
        proposal.notes.append(f"{path}: {role.why}")
    if role.has_bad and "on_bad_value" not in proposal.options:
        proposal.set("on_bad_value", "drop_field", f"{key}: some of its values are no {role.type or 'number'}: they "
                     "are left out, and the rest of the message is written")


def _objects_with_data(table: Table, proposal: Proposal) -> list[str]:
    """Paths of objects whose keys are no names, and whose members would be fields without number."""
    found: list[str] = []
    for path, members in table.members.items():
        profile = table.paths[path]
        many = len(members) >= MAX_MEMBERS or len(members) > _MOST_NAMES and len(members) > profile.kinds["object"] / 2
        if many and is_nameable(path) and not any(path.startswith(f"{outer}.") for outer in found):
            found.append(path)
            proposal.put("types", path, "json", f"{path}: its keys are data ({len(members):,} of them): as fields, "
                         "they would grow without end")
    return found


def _arrays(table: Table, proposal: Proposal) -> None:
    """What becomes of arrays of single values."""
    arrays = [profile for profile in table.paths.values() if profile.kinds["array"]
              and profile.path != proposal.options.get("explode")]
    if not arrays:
        return
    pure = all(profile.only("array") and set(profile.element_kinds) <= {"number", "null"}
               and len(profile.lengths) == 1 and max(profile.lengths) <= _MOST_INDEXED for profile in arrays)
    listed = _listed([profile.path for profile in arrays])
    if pure:
        proposal.set("arrays", "index", f"{listed}: arrays of numbers, always of the same length: a field for each "
                     "element")
    else:
        proposal.notes.append(f'{listed}: arrays, kept as JSON texts; arrays = "index" makes a field of each element, '
                              '"drop" leaves them out')


def propose_headers(proposal: Proposal, headers: Sequence[Mapping[str, str]]) -> None:
    """Adds tags for user headers of few values."""
    table = Table()
    for some in headers:
        table.add(json.dumps(some).encode())
    tags = {*proposal.options.get("tag_renames", {}).values(),
            *[path.replace(".", "_") for path in proposal.options.get("tag_fields", [])]}
    for name, profile in table.paths.items():
        if _split_header(name, profile, proposal):
            continue
        role = role_of(profile, table)
        if role.kind == "tag" and is_writable(name) and name not in tags:
            proposal.put("header_tags", name, name, f"header {name}: {role.why}")
        elif role.kind == "field":
            proposal.notes.append(f"header {name}: {role.why or 'a number, and headers can only be tags'}")


def _split_header(name: str, profile: PathProfile, proposal: Proposal) -> bool:
    """Adds a step that takes the parts of a header such as an MQTT topic; whether there is one."""
    texts = [plain(text) for text in profile.values]
    counts = {text.count("/") for text in texts}
    if len(counts) != 1 or not texts or "/" not in texts[0] or profile.has_more or not is_writable(name) or (
            set(name) & set("'\"()") or "://" in texts[0]):
        return False
    taken = {path for path in proposal.paths} | set(proposal.options.get("tag_fields", []))
    parts: list[str] = []
    for at, values in enumerate(zip(*[text.strip("/").split("/") for text in texts], strict=False), 1):
        part = f"part{at}"
        varies = len(set(values)) > 1 and len(set(values)) <= _MOST_MEASUREMENTS and part not in taken
        parts.append(part if varies else "")
    if not any(parts):
        return False
    proposal.options.setdefault("steps", []).append(
        {"do": "split", "from": f"header('{name}')", "to": parts, "on_missing": "skip", "on_error": "skip"})
    proposal.reasons.setdefault("steps", []).append(
        f"header {name}: {texts[0]}, ...: its parts that vary are tags; give them better names here and in tag_fields")
    for part in filter(None, parts):
        proposal.add("tag_fields", part, f"{part}: of the header {name}")
    return True


def _explain_tags(proposal: Proposal) -> None:
    if "tag_fields" not in proposal.options and "tag_map_field" not in proposal.options:
        proposal.notes.insert(0, "there is no tag: no text has few values, and repeats")


def check_no_tag_is_lonely(proposal: Proposal) -> None:
    """Makes fields of tags that no message has a field beside. For mappings that would leave no field at all."""
    tags = proposal.options.get("tag_fields", [])
    if tags:
        moved = max(tags, key=lambda path: (names.is_state(path), not names.is_identity(path), tags.index(path)))
        tags.remove(moved)
        if not tags:
            proposal.remove("tag_fields")
        proposal.options.get("tag_renames", {}).pop(moved, None)
        proposal.notes.append(f"{moved}: a field, since a point needs one and there is nothing else")


def _listed(paths: list[str]) -> str:
    some = ", ".join(paths[:MOST_REASONS])
    return some if len(paths) <= MOST_REASONS else f"{some} and {len(paths) - MOST_REASONS} more"


def config_of(proposal: Proposal) -> MappingConfig:
    """The mapping that a proposal makes. Raises msgspec.ValidationError."""
    import msgspec

    return msgspec.convert(proposal.options, MappingConfig)


__all__ = ["MAX_VALUES", "Proposal", "check_no_tag_is_lonely", "config_of", "propose"]
