"""Finds times in messages that are far from the present: a clock that was not set, or a number in another unit. Pure.

They are written unchanged, with a warning, because nobody looks for a point in 1970.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from pipeline.config.schema import MappingConfig, Precision
from stages.mapping.batch import BatchOrigin, Encoded
from stages.mapping.records.timestamps import MAX_NS, UNIT_NS

#: The earliest plausible time: a billion seconds since 1970, 2001-09-09. From there to 2286 a time has the same number
#: of digits in each precision. And the latest, in seconds after the present: some forecasts go so far.
EARLIEST_SECONDS: Final = 1_000_000_000
AHEAD_SECONDS: Final = 30 * 86_400
#: Times at either end of a batch that are compared with the latest plausible one.
_SAMPLE: Final = 250


class Implausible(NamedTuple):
    """The implausible times of a batch."""

    #: How many, at least.
    points: int
    #: Index of the first of them.
    first: int


def implausible(times: Sequence[str], precision: Precision, now: int) -> Implausible | None:
    """Times of lines before the earliest or after the latest plausible time; `now` in microseconds since 1970.

    In large batches only the first and last times are compared with the latest: a time in the future is seldom alone.
    """
    if not times:
        return None
    earliest = str(EARLIEST_SECONDS * UNIT_NS["s"] // UNIT_NS[precision])
    digits = len(earliest)
    latest = str(min(now * 1_000 + AHEAD_SECONDS * UNIT_NS["s"], MAX_NS) // UNIT_NS[precision])
    # Texts with the same number of digits sort like their numbers; others are rare.
    if len("".join(times)) == digits * len(times) and (
            max(times[:_SAMPLE]) <= latest and max(times[-_SAMPLE:]) <= latest):
        return None
    found = [index for index, time in enumerate(times)
             if len(time) < digits or time[0] == "-" or len(time) > digits or time > latest]
    return Implausible(len(found), found[0]) if found else None


def message_of(encoded: Encoded, point: int) -> int:
    """Index of the (first) message that a batch's point comes from."""
    for group in encoded.groups:
        if point < group.points:
            return group.sources[point][0] if group.sources is not None else point
        point -= group.points
    raise IndexError(point)


def words(time: str, precision: Precision, config: MappingConfig, now: int) -> str:
    """The time as a date, and the unit that would make it a present time."""
    ns = int(time) * UNIT_NS[precision]
    passes = config.format == "line_protocol"
    forms = config.time_formats()
    unit = config.line_protocol_precision if passes else forms[0].removeprefix("epoch_") if len(forms) == 1 else ""
    hint = ""
    if unit in UNIT_NS:
        number = ns // UNIT_NS[unit]
        for other, size in UNIT_NS.items():
            if EARLIEST_SECONDS * UNIT_NS["s"] <= number * size <= now * 1_000 + AHEAD_SECONDS * UNIT_NS["s"]:
                option = f'line_protocol_precision = "{other}"' if passes else f'timestamp_format = "epoch_{other}"'
                hint = f"; with {option} it is {_shown(number * size)}"
    return f"{'the line' if passes else ' or '.join(config.time_paths())}: the time is {_shown(ns)}{hint}"


def look_at(encoded: Encoded, origin: BatchOrigin, config: MappingConfig, precision: Precision
            ) -> tuple[int, str, str] | None:
    """Number of points of a batch with implausible times, the place of the first one's message, and its time."""
    if config.timestamp_from != "field" and config.format != "line_protocol" or origin.arrival is None:
        return None
    found = implausible(encoded.written.times, precision, origin.arrival)
    if found is None:
        return None
    place = origin.of(message_of(encoded, found.first)).place
    return found.points, place, words(encoded.written.times[found.first], precision, config, origin.arrival)


def _shown(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // UNIT_NS['s'], UTC):%Y-%m-%dT%H:%M:%SZ}"
