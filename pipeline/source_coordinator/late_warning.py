"""The warning of points that were written after their time was read: how many, and how they come to Iggy. Pure."""

import shlex
from collections.abc import Mapping, Sequence

from pipeline.config.source_schema import SourceConfig
from pipeline.points.times import MIN_TIME, format_time
from pipeline.points.windows import TimeWindow
from pipeline.printable import excerpt


def late_warning(config: SourceConfig, found: Mapping[str, tuple[int, TimeWindow]], files: Sequence[str]) -> str:
    """The warning of late points, by measurement and with the window that they are in; `files`: of the
    configuration."""
    name, (late, window) = max(found.items(), key=lambda one: one[1][0])
    start = min(one.start for _, one in found.values())
    end = max(one.end for _, one in found.values())
    total = sum(count for count, _ in found.values())
    where = f"{excerpt(name)}" if len(found) == 1 else f"{len(found)} measurements ({late} of them of {excerpt(name)})"
    given = " ".join(f"-c {shlex.quote(file)}" for file in files) or "-c FILE"
    first = "earliest" if start <= MIN_TIME else format_time(start)
    option = f"raise overlap_ms = {config.overlap_ms}" if config.overlap_ms else \
        f"raise buffer_duration_ms = {config.buffer_duration_ms}, or set overlap_ms,"
    return (f"source {config.name}: {total} points of {where} were written after their time was read, and are missing "
            f"in Iggy: they are between {format_time(max(MIN_TIME, start))} and {format_time(end)}. All points of that "
            f"time are sent, again or for the first time, by: pipeline start {given} --from {first} --to "
            f"{format_time(end)}. To have such points read, {option} to as long as they may be late")
