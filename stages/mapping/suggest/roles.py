"""Which values are tags and which are fields, of which type, and why. Pure."""

import re
from collections.abc import Collection
from typing import Final, Literal, NamedTuple

from pipeline.points import escape
from stages.mapping.suggest import names
from stages.mapping.suggest.profile import MAX_VALUES, PathProfile, Table, kind_of, plain
from stages.mapping.suggest.times import FoundTime

#: Most values of a tag that is not known by its name, and most of them for each message.
_MOST_VALUES: Final = 100
_MOST_SHARE: Final = 0.2
#: Most characters of a tag's values, and most spaces between words.
_TAG_CHARS: Final = 100
_TAG_SPACES: Final = 3
#: Messages from which on their number says something about values that repeat.
_ENOUGH: Final = 5
#: Share of the texts of a path that must be numbers for it to be one.
_MOST_NUMBERS: Final = 0.8
_TRUE_FALSE: Final = frozenset(("true", "false", "t", "f", "yes", "no", "y", "n", "on", "off", "1", "0"))
_UUID: Final = re.compile(r"\{?[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}\}?")
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_HEX: Final = re.compile(r"(?:0x)?(?=[0-9a-fA-F]*[0-9])[0-9a-fA-F]{16,}")
_RANDOM: Final = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Z]*[A-Z])(?=[^a-z]*[a-z])[A-Za-z0-9+/_=-]{20,}")


class Role(NamedTuple):
    """What becomes of the single values at one path."""

    kind: Literal["tag", "field"]
    #: Declared type of a field; "" leaves it as it is.
    type: str = ""
    #: The reason, for people; "" where it goes without saying.
    why: str = ""
    #: Whether the type cannot hold some of the values.
    has_bad: bool = False


def role_of(profile: PathProfile, table: Table, times: Collection[FoundTime] = (), in_element: bool = False) -> Role:
    """The role of the single values of a profile; `times` are all times found in the same table.

    `in_element` says that the table is one of elements of an array, of which each becomes a point.
    """
    if profile.only("text", "not_number") or profile.only("text"):
        return _of_text(profile, table, times, in_element)
    if profile.only("number") and _is_number_of_thing(profile, table, in_element):
        return Role("tag", why=f"the number of a thing, {_values(profile)}")
    return _of_values(profile)


def _of_text(profile: PathProfile, table: Table, times: Collection[FoundTime], in_element: bool) -> Role:
    filled = profile.kinds["text"] - profile.empty_texts
    if profile.kinds["not_number"] or filled and not names.is_code(profile.path) and (
            profile.number_texts >= _MOST_NUMBERS * filled and not profile.zero_texts
            and not (names.is_identity(profile.path) and profile.distinct <= 20)):
        return _of_values(profile)
    if any(time.path == profile.path for time in times):
        return Role("field", why="a time, but not the one of the point")
    why = _why_no_tag(profile, in_element and table.unique is not None and profile.path in table.unique)
    if why:
        return Role("field", why=why)
    if in_element and table.unique is not None and profile.path in table.unique:
        return Role("tag", why=f"tells the elements of one message apart, {_values(profile)}")
    if names.is_thing(profile.path) or names.is_identity(profile.path) and profile.singles < _ENOUGH:
        return Role("tag", why=f"what the point belongs to, {_values(profile)}")
    return Role("tag", why=f"a text of few values: {_values(profile)}")


def _why_no_tag(profile: PathProfile, tells_apart: bool) -> str:
    """Why a path of texts is no tag; "" if it is one."""
    count, distinct = profile.singles, profile.distinct
    repeats = distinct <= max(1, _MOST_SHARE * count)
    if names.is_single(profile.path) and not (repeats and names.is_thing(profile.path)):
        return f"identifies one message, {_values(profile)}: as a tag, each would be a series of its own"
    if _are_random(profile) and not names.is_hardware(profile.path) and not (count >= _ENOUGH and repeats):
        return f"looks like a random identifier (UUID, hash), {_values(profile)}: as a tag, each would be a series"
    if names.is_free_text(profile.path) or profile.longest > _TAG_CHARS or profile.spaces > _TAG_SPACES:
        return f"free text or content, {_values(profile)}"
    if profile.bad_for_tag:
        return "has texts that no tag can hold: with a line break, or a backslash at the end"
    if profile.has_more:
        return f"more than {MAX_VALUES:,} values: as a tag, each would be a series of its own"
    if names.time_score(profile.path) > 1:
        return "called a time, and none that can be read"
    if names.is_state(profile.path):
        return f"a state, which changes while the rest of the series stays: {_values(profile)}; add it to " \
               "tag_fields if you group by it"
    if tells_apart or names.is_thing(profile.path):
        return ""
    if count < _ENOUGH:
        if names.is_identity(profile.path) or count > 1 and distinct == 1:
            return ""
        return f"{plural(count, 'message')} cannot tell whether its values repeat; make it a tag if it names what " \
               "the point belongs to"
    if distinct > _MOST_VALUES or not repeats and distinct > 2:
        return f"{_values(profile)}: too many to be a tag unless their number stays bounded"
    return ""


def _are_random(profile: PathProfile) -> bool:
    texts = [plain(text) for text in list(profile.values)[:100]]
    return bool(texts) and all(_UUID.fullmatch(text) or _ULID.fullmatch(text) or _HEX.fullmatch(text)
                               or _RANDOM.fullmatch(text) for text in texts)


def _is_number_of_thing(profile: PathProfile, table: Table, in_element: bool) -> bool:
    """Whether integers are the number of a thing rather than a value."""
    if profile.fractions or profile.has_more or not names.is_numbered(profile.path):
        return False
    if in_element and table.unique is not None and profile.path in table.unique:
        return True
    if profile.singles < _ENOUGH:
        return names.is_thing(profile.path) or profile.distinct < profile.singles
    return profile.distinct <= _MOST_VALUES and profile.distinct <= max(1, _MOST_SHARE * profile.singles)


def _of_values(profile: PathProfile) -> Role:
    """A field of numbers, booleans, or mixed values."""
    kinds = {kind for kind in profile.kinds if kind not in ("null", "object")}
    texts, numbers, booleans = (profile.kinds[kind] for kind in ("text", "number", "boolean"))
    filled = texts - profile.empty_texts
    if "array" in kinds:
        return Role("field", "string", "sometimes an array, sometimes not") if len(kinds) > 1 else Role("field")
    if kinds == {"number"}:
        return _of_numbers(profile)
    if kinds <= {"number", "text", "not_number"}:
        bad = profile.kinds["not_number"] + texts - profile.number_texts
        if profile.number_texts + numbers >= _MOST_NUMBERS * (filled + numbers) and not profile.zero_texts:
            words = "texts that hold numbers" if not numbers else "numbers, some of them as texts"
            if not texts:
                words = "numbers and NaN or infinity, which a field cannot hold"
            return Role("field", "" if not texts and numbers else "float", words
                        + (f"; {bad} values are none ({_example(profile)})" if bad and texts else ""), bool(bad))
    if kinds == {"boolean"}:
        return Role("field")
    if kinds == {"number", "boolean"}:
        if {text for text in profile.values if kind_of(text) == "number"} <= {"0", "1"} and not profile.has_more:
            return Role("field", "boolean", "true and false, sometimes as 1 and 0")
        return Role("field", "float", "numbers, sometimes true and false, which become 1 and 0")
    if kinds <= {"boolean", "text", "number"} and booleans and not profile.has_more and all(
            plain(text).strip().lower() in _TRUE_FALSE for text in profile.values):
        return Role("field", "boolean", "true and false, sometimes as words or numbers")
    if kinds == {"text"}:
        return Role("field")
    return Role("field", "string", f"mixed: {_mixed(profile)}; a field has one type", bool(profile.kinds["not_number"]))


def _of_numbers(profile: PathProfile) -> Role:
    if not profile.beyond_53:
        return Role("field")
    if not profile.fractions and not profile.beyond_i64:
        return Role("field", "integer", "integers of more than the 53 bits that a float holds exactly")
    if not profile.fractions and not profile.beyond_u64 and not profile.negative:
        return Role("field", "unsigned", "integers of 64 bits without a sign (InfluxDB 2 and 3)")
    return Role("field", why="numbers of more digits than a float holds; types = \"string\" keeps them all")


def _mixed(profile: PathProfile) -> str:
    words = {"number": "numbers", "text": "texts", "boolean": "true/false", "not_number": "NaN or infinity"}
    return ", ".join(f"{profile.kinds[kind]} {word}" for kind, word in words.items() if profile.kinds[kind])


def _example(profile: PathProfile) -> str:
    """A text of a path that is no number, or an empty one."""
    from stages.mapping.records.values import BadValue, written_number

    for text in profile.values:
        if kind_of(text) == "not_number":
            return "NaN or infinity"
        if kind_of(text) == "text":
            try:
                written_number(plain(text))
            except BadValue:
                return f'"{plain(text)[:20]}"'
    return "such as an empty text"


def _values(profile: PathProfile) -> str:
    distinct = f"more than {MAX_VALUES:,}" if profile.has_more else f"{profile.distinct:,}"
    return f"{distinct} {'value' if distinct == '1' else 'values'} in {plural(profile.singles, 'message')}"


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def is_writable(path: str) -> bool:
    """Whether a path can be a field key as it stands."""
    try:
        escape.field_key(path)
    except escape.Unwritable:
        return False
    return path != "time"


def is_nameable(path: str) -> bool:
    """Whether a configuration can name a path: patterns and other languages' paths are refused there."""
    return (bool(path) and path[0] != "^" and not path.startswith("$.") and len(path) <= 500
            and not set(path) & set("*?[\0") and path.encode(errors="ignore").decode() == path)
