"""Finds the time among the values of messages, and its format. Pure."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from stages.mapping.records import timestamps
from stages.mapping.records.time_formats import Reader, time_format
from stages.mapping.records.timestamps import BadTimestamp
from stages.mapping.suggest import names
from stages.mapping.suggest.profile import PathProfile, Table, kind_of, plain

#: Distinct values that are tried, of each path; and which part of the values must be times.
_TRIED: Final = 300
_MOST: Final = 0.95
#: Seconds of a time that is plausible: 2001-01-01 to 2099-12-31; one before that is of a clock that was not set.
_EARLIEST: Final = 978_307_200
_LATEST: Final = 4_102_444_799
#: The same moment for `timestamp_not_before`.
NOT_BEFORE: Final = "2001-01-01"
_UNITS: Final = ("s", "ms", "us", "ns")
#: Formats of texts that are tried after iso8601, in this order; of two that fit all texts the first is taken.
_FORMATS: Final = (
    "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M:%S.%f", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S.%f", "%d.%m.%Y %H:%M",
    "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S.%f", "%m/%d/%Y %H:%M:%S.%f", "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %I:%M:%S %p", "%d-%m-%Y %H:%M:%S", "%m-%d-%Y %H:%M:%S",
    "%d-%m-%Y %H:%M", "%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y-%m-%d-%H:%M:%S", "%Y-%m-%d_%H:%M:%S", "%Y-%m-%d_%H-%M-%S",
    "%Y.%m.%d %H:%M:%S", "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y",
    "%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S GMT", "%d %b %Y %H:%M:%S %z", "%d %b %Y %H:%M:%S",
    "%d-%b-%Y %H:%M:%S", "%b %d %Y %H:%M:%S", "%b %d, %Y %H:%M:%S", "rfc3164", "%y/%m/%d %H:%M:%S",
    "%d.%m.%y %H:%M:%S", "dotnet_date")
#: Formats that any row of digits may have: they need a name.
_DIGITS_ONLY: Final = ("%Y%m%d%H%M%S", "%Y%m%d%H%M")
#: Formats whose times have a zone.
_WITH_ZONE: Final = ("%z", "GMT", "dotnet_date")
#: The time of a message whose time has no year: 2023-11-14.
_NEAR: Final = 1_700_000_000_000_000
#: Last word in the name of the rest of a time -> its unit.
_REST_UNITS: Final = {"nsec": "ns", "nsecs": "ns", "nanos": "ns", "nanosec": "ns", "nanoseconds": "ns", "ns": "ns",
                      "usec": "us", "usecs": "us", "micros": "us", "microseconds": "us", "us": "us",
                      "msec": "ms", "msecs": "ms", "millis": "ms", "milliseconds": "ms", "ms": "ms"}
_MOST_IN_REST: Final = {"ns": 999_999_999, "us": 999_999, "ms": 999}
_CLOCK: Final = re.compile(r"[0-2]?[0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]+)?")
_DATES: Final = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%Y%m%d")
_ISO_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class FoundTime(NamedTuple):
    """A path whose values are times."""

    path: str
    #: As in `timestamp_format`, which may have several.
    formats: tuple[str, ...]
    #: An example, as it is written.
    example: str
    #: How much speaks for its being the message's own time.
    score: float
    #: Records with a value.
    filled: int
    #: Values that are no times of the formats, and those of clocks that were not set.
    bad: int = 0
    unset: int = 0
    #: Another format that fits as well, "" if there is none; and whether no text has an offset.
    other: str = ""
    lacks_offset: bool = False
    #: The rest of the time, and its unit.
    rest: str = ""
    unit: str = ""


class _Value(NamedTuple):
    """A value, and how often it occurs."""

    kind: str
    text: str
    many: int


def find_times(table: Table) -> list[FoundTime]:
    """The paths whose values are times, the most likely one first."""
    found = [_with_rest(time, table) for profile in table.paths.values() if (time := _time_at(profile)) is not None]
    if not any(time.score > 0 for time in found):
        found += _dates_and_clocks(table)
    order = {path: at for at, path in enumerate(table.paths)}
    return sorted(found, key=lambda time: (-time.score, -time.filled, order[time.path]))


def _time_at(profile: PathProfile) -> FoundTime | None:
    if not profile.values or profile.kinds["object"] or profile.kinds["array"]:
        return None
    named = names.time_score(profile.path)
    values = [_Value(kind_of(text), plain(text), count) for text, count in list(profile.values.items())[:_TRIED]]
    values = [value for value in values if value.text]
    total = sum([value.many for value in values])
    if not total or not all(value.kind in ("number", "text") for value in values):
        return None
    filled = profile.count - profile.kinds["null"] - profile.empty_texts
    score = named + 0.5 - 0.2 * min(profile.path.count("."), 5)
    example = next((value.text for value in values if value.text.strip("0.:-") != ""), values[0].text)
    found = FoundTime(profile.path, (), example, score, filled)
    units, by_number, unset = _numbers(values)
    texts = [value for value in values if value.kind == "text" and not _is_number(value.text)]
    iso, unset_iso = _matching(texts, "iso8601")
    if not any(":" in value.text or "T" in value.text for value in texts):
        iso = unset_iso = 0
    if iso + by_number and iso + by_number + unset + unset_iso >= _MOST * total and by_number + iso > unset:
        if by_number and named <= 0:
            return None
        numeric = () if not units else (f"epoch_{units[0]}",) if len(units) == 1 else ("epoch_auto",)
        return found._replace(
            formats=numeric + (("iso8601",) if iso else ()), unset=unset + unset_iso,
            bad=total - iso - by_number - unset - unset_iso,
            lacks_offset=bool(iso) and not any(_has_offset(value.text) for value in texts))
    return _of_other_texts(found, [value for value in values if value.kind == "text"], total, named)


def _of_other_texts(found: FoundTime, texts: list[_Value], total: int, named: int) -> FoundTime | None:
    if named < 0 or not texts:
        return None
    fitting = [form for form in _FORMATS if sum(_matching(texts, form)) >= _MOST * total]
    if not fitting or fitting[0] in _DIGITS_ONLY and named <= 0:
        return None
    good, unset = _matching(texts, fitting[0])
    return found._replace(formats=(fitting[0],), bad=total - good - unset, unset=unset,
                          other=next(iter(fitting[1:]), ""),
                          lacks_offset=not any(zone in fitting[0] for zone in _WITH_ZONE))


def _numbers(values: Iterable[_Value]) -> tuple[list[str], int, int]:
    """Units of numbers since 1970, how many are plausible, and how many are of clocks that were not set."""
    by_unit = dict.fromkeys(_UNITS, 0)
    unset = 0
    for value in values:
        if not _is_number(value.text):
            continue
        seconds = {unit: _seconds(value.text, unit) for unit in _UNITS}
        unit = next((unit for unit in _UNITS if _EARLIEST <= seconds[unit] <= _LATEST), "")
        if unit:
            by_unit[unit] += value.many
        elif 0 <= seconds["s"] < _EARLIEST:
            unset += value.many
    units = [unit for unit in _UNITS if by_unit[unit]]
    return units, sum(by_unit.values()), unset


def _seconds(text: str, unit: str) -> float:
    try:
        return timestamps.parse_epoch(text, unit) / 1e9
    except BadTimestamp:
        return -1.0


def _is_number(text: str) -> bool:
    return len(text) <= 40 and bool(re.fullmatch(r"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?", text.strip()))


def _matching(texts: Iterable[_Value], form: str) -> tuple[int, int]:
    """How many of the texts are plausible times of a format, and how many are of clocks that were not set."""
    read = _reader(form)
    found = unset = misses = 0
    for value in texts:
        try:
            seconds = read(value.text, _NEAR) / 1e9
        except (BadTimestamp, ValueError, OverflowError):
            misses += 1
            if misses > 20:  # most likely no times at all
                return 0, 0
            continue
        if _EARLIEST <= seconds <= _LATEST:
            found += value.many
        elif seconds < _EARLIEST:
            unset += value.many
    return found, unset


@lru_cache(maxsize=100)
def _reader(form: str) -> Reader:
    return time_format(form, "UTC", {}).read


def _has_offset(text: str) -> bool:
    tail = text[10:].strip()
    return tail[-1:] in ("Z", "z") or "+" in tail or "-" in tail or tail.endswith(("UTC", "GMT"))


def _with_rest(time: FoundTime, table: Table) -> FoundTime:
    """A time in whole seconds with the key that has their fraction, if there is one beside it."""
    profile = table.paths[time.path]
    if time.formats != ("epoch_s",) or profile.fractions:
        return time
    for path, other in table.paths.items():
        unit = _REST_UNITS.get(next(iter(names.words(path)[-1:]), ""))
        if (unit and path.rpartition(".")[0] == time.path.rpartition(".")[0] and other.only("number")
                and not other.fractions and not other.negative and not other.has_more
                and all(int(text) <= _MOST_IN_REST[unit] for text in other.values if text.isdigit())):
            return time._replace(rest=path, unit=unit)
    return time


def _dates_and_clocks(table: Table) -> list[FoundTime]:
    """Dates whose time of day stands in another key."""
    clocks = [path for path, profile in table.paths.items() if profile.only("text") and not profile.empty_texts
              and all(_CLOCK.fullmatch(plain(text)) for text in profile.values)]
    found = []
    for path, profile in table.paths.items():
        beside = [clock for clock in clocks if clock.rpartition(".")[0] == path.rpartition(".")[0]]
        if not beside or not profile.only("text") or profile.empty_texts:
            continue
        dates = [plain(text) for text in profile.values][:_TRIED]
        has_fraction = any("." in plain(text) for text in table.paths[beside[0]].values)
        form = "iso8601" if all(map(_ISO_DATE.fullmatch, dates)) else next(
            (f"{date} %H:%M:%S{'.%f' if has_fraction else ''}" for date in _DATES
             if _matching([_Value("text", text, 1) for text in dates], f"{date}")[0] == len(dates)), "")
        if form and dates:
            found.append(FoundTime(path, (form,), f"{dates[0]} {plain(next(iter(table.paths[beside[0]].values)))}", 2.5,
                                   profile.count - profile.kinds["null"], lacks_offset=True, rest=beside[0]))
    return found


def replaces(time: FoundTime, other: FoundTime, table: Table) -> bool:
    """Whether the records that lack one time have another one in its place."""
    lacking = [row for row in table.rows if time.path not in row]
    return bool(lacking) and not time.rest and not other.rest and sum(
        [other.path in row for row in lacking]) >= 0.5 * len(lacking) and sum(
        [other.path in row and time.path in row for row in table.rows]) <= 0.05 * len(table.rows)
