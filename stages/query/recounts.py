"""Counts the rows of windows that were read once more, for late points."""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.log_formats import facts
from pipeline.points.windows import TimeWindow
from stages.influxdb.answers import OperatorNeeded
from stages.query.reader import SourceReader
from stages.query.transport import QueryFailed


class Recounts(NamedTuple):
    """The rows of windows; see `source_wire.Recounted`."""

    counts: list[tuple[str, TimeWindow, int]]
    uncountable: list[str]


def recount(reader: SourceReader, windows: Sequence[tuple[str, TimeWindow, int]]) -> Recounts:
    """How many rows windows have by now of which so many were read. Raises QueryFailed where not even the first count
    succeeds, unless the server refuses it."""
    empty = _known_empty(reader, [(name, window) for name, window, rows in windows if not rows])
    found = Recounts([], [])
    for name, window, rows in windows:
        if name in empty:
            found.counts.append((name, window, 0))
            continue
        try:
            counted = _rows_by_now(reader, name, window, rows)
        except QueryFailed as failed:
            if isinstance(failed.answer, OperatorNeeded) and failed.answer.reason == "refused":
                reader.logger.warning("source %s: late points of %s are not counted: %s", reader.config.name, name,
                                      failed.answer.message, extra=facts(source=reader.config.name, measurement=name))
                counted = None
            elif found.counts or found.uncountable:
                break  # the others are asked for again
            else:
                raise
        if counted is None:
            found.uncountable.append(name)
        else:
            found.counts.append((name, window, counted))
    return found


def _known_empty(reader: SourceReader, windows: list[tuple[str, TimeWindow]]) -> set[str]:
    """The measurements that have no points in their windows, as far as one query tells. Raises QueryFailed."""
    if not windows or not reader.may_probe:
        return set()
    try:
        return reader.probe(windows)
    except QueryFailed as failed:
        if failed.answer.reason == "refused":
            return set()
        raise


def _rows_by_now(reader: SourceReader, name: str, window: TimeWindow, rows: int) -> int | None:
    """The rows of a window, as far as they are known; None where they cannot be counted. Raises QueryFailed.

    A server that counts the values of each field counts fewer than the rows where points have different fields. A
    window of few rows is then read once more.
    """
    counts = reader.count(name, window)
    if counts is None:
        return None
    by_points = bool(reader.config.overlap_ms)
    counted = sum(one.points if by_points else one.rows for one in counts.values())
    is_exact = all(one.is_exact for one in counts.values())
    if not is_exact and max(rows, counted) <= reader.config.page_size:
        found = reader.rows(name, window)
        return counted if found is None else max(counted, found)
    return counted
