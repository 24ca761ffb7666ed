"""Where shards of InfluxDB 1 and 2 end. Pure.

Sources: InfluxDB, `services/meta/data.go`: a shard group starts at `timestamp.Truncate(ShardGroupDuration)`; Go,
package time: Truncate counts from the year 1, and `Duration.String`.
"""

import re
from typing import Final

from pipeline.points.times import SECOND

#: From the beginning of the year 1 to 1970, nanoseconds.
_YEAR_1: Final = 62_135_596_800 * SECOND
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def shard_start(time: int, width: int) -> int:
    """The start of the shard of that time; nanoseconds since 1970, and nanoseconds."""
    return time - (time + _YEAR_1) % width


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration in whole seconds as Go writes it, 168h0m0s; 0 for another text."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return 0
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return (hours * 3_600 + minutes * 60 + seconds) * SECOND
