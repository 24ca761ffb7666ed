"""Finds the time among the values of messages, and its format. Pure."""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from stages.mapping.records import timestamps
from stages.mapping.records.time_formats import Reader, time_reader
from stages.mapping.records.timestamps import BadTimestamp
from stages.mapping.suggest import names
from stages.mapping.suggest.profile import PathProfile, Table, kind_of, plain

#: Texts that are tried, of each path; and which part of them must be times.
_TRIED: Final = 300
_MOST: Final = 0.95
#: Seconds of a time that is plausible: 2000-01-01 to 2099-12-31.
_EARLIEST: Final = 946_684_800
_LATEST: Final = 4_102_444_799
_UNITS: Final = ("s", "ms", "us", "ns")
#: Formats of texts that are tried after iso8601, in this order; of two that fit all texts the first is taken.
_FORMATS: Final = (
    "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M:%S.%f", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S.%f", "%d.%m.%Y %H:%M",
    "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S.%f", "%m/%d/%Y %H:%M:%S.%f", "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %I:%M:%S %p", "%d-%m-%Y %H:%M:%S", "%m-%d-%Y %H:%M:%S",
    "%d-%m-%Y %H:%M", "%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y-%m-%d-%H:%M:%S", "%Y-%m-%d_%H:%M:%S", "%Y-%m-%d_%H-%M-%S",
    "%Y.%m.%d %H:%M:%S", "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y",
    "%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S GMT", "%d %b %Y %H:%M:%S %z", "%d %b %Y %H:%M:%S",
    "%d-%b-%Y %H:%M:%S", "%b %d %Y %H:%M:%S", "%b %d, %Y %H:%M:%S", "%b %d %H:%M:%S", "%y/%m/%d %H:%M:%S",
    "%d.%m.%y %H:%M:%S")
#: The time in a record of which the year is not written: 2023-11-14.
_NEAR: Final = 1_700_000_000_000_000


class FoundTime(NamedTuple):
    """A path whose values are times."""

    path: str
    #: As in `timestamp_format`.
    format: str
    #: An example, as it is written.
    example: str
    #: How much speaks for its being the message's own time.
    score: float
    #: Records with a value.
    filled: int
    #: Values that are no times of this format, or 0, which is a clock that is not set.
    bad: int
    #: Another format that fits as well, "" if there is none; and whether no text has an offset.
    other: str = ""
    lacks_offset: bool = False


def find_times(table: Table) -> list[FoundTime]:
    """The paths whose values are times, the most likely one first."""
    found = [time for profile in table.paths.values() if (time := _time_at(profile)) is not None]
    order = {path: at for at, path in enumerate(table.paths)}
    return sorted(found, key=lambda time: (-time.score, -time.filled, order[time.path]))


def _time_at(profile: PathProfile) -> FoundTime | None:
    if not profile.values or profile.kinds["object"] or profile.kinds["array"]:
        return None
    named = names.time_score(profile.path)
    texts = [(kind_of(text), plain(text), count) for text, count in list(profile.values.items())[:_TRIED]]
    total = sum([count for _, _, count in texts])
    epoch = _epoch(texts, total)
    if epoch is not None:
        unit, bad = epoch
        if named <= 0:
            return None
        return _found(profile, f"epoch_{unit}", texts, named, bad)
    if not profile.only("text"):
        return None
    written = [(text, count) for _, text, count in texts if text]
    iso = _matching(written, _reader("iso8601"))
    if iso >= _MOST * total and any(":" in text or "T" in text for text, _ in written):
        lacks = not any(_has_offset(text) for text, _ in written)
        return _found(profile, "iso8601", texts, named, total - iso, lacks_offset=lacks)
    if named < 0:
        return None
    fitting = [form for form in _FORMATS if _matching(written, _reader(form)) >= _MOST * total]
    if not fitting or fitting[0] in ("%Y%m%d%H%M%S", "%Y%m%d%H%M") and named <= 0:
        return None
    return _found(profile, fitting[0], texts, named, 0, next(iter(fitting[1:]), ""), "%z" not in fitting[0])


def _found(profile: PathProfile, form: str, texts: list[tuple[str, str, int]], named: int, bad: int, other: str = "",
           lacks_offset: bool = False) -> FoundTime:
    example = next((text for _, text, _ in texts if text not in ("", "0")), "")
    score = named + 0.5 - 0.2 * min(profile.path.count("."), 5)
    return FoundTime(profile.path, form, example, score, profile.count - profile.kinds["null"], bad, other,
                     lacks_offset and "GMT" not in form)


def _epoch(texts: list[tuple[str, str, int]], total: int) -> tuple[str, int] | None:
    """Unit and number of bad values where these are numbers since 1970."""
    by_unit = dict.fromkeys(_UNITS, 0)
    zeros = 0
    for kind, text, count in texts:
        if kind not in ("number", "text") or len(text) > 40:
            continue
        if text in ("0", "0.0"):
            zeros += count
        for unit in _UNITS:
            try:
                seconds = timestamps.parse_epoch(text, unit) / 1e9
            except BadTimestamp:
                continue
            by_unit[unit] += count * (_EARLIEST <= seconds <= _LATEST)
    unit, most = max(by_unit.items(), key=lambda item: item[1])
    if not most or most + zeros < _MOST * total:
        return None
    return unit, total - most


def _reader(form: str) -> Callable[[], Reader]:
    return lambda: time_reader(form, "UTC", {})


def _matching(texts: Iterable[tuple[str, int]], reader: Callable[[], Reader]) -> int:
    """How many of the texts are plausible times."""
    read = reader()
    found = misses = 0
    for text, count in texts:
        try:
            found += count * (_EARLIEST <= read(text, _NEAR) / 1e9 <= _LATEST)
        except (BadTimestamp, ValueError, OverflowError):
            misses += 1
            if misses > 20:  # most likely no times at all
                return 0
    return found


def _has_offset(text: str) -> bool:
    tail = text[10:].strip()
    return tail[-1:] in ("Z", "z") or "+" in tail or "-" in tail or tail.endswith(("UTC", "GMT"))
