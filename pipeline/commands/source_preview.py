"""What a source would send: its measurements, their series and points by windows of time, and some of the messages.

Nothing is written, neither to Iggy nor to the state.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pipeline.commands.preview import MOST_MEASUREMENTS
from pipeline.commands.verification.reading import DatabasePoints
from pipeline.config.patterns import matches_any
from pipeline.config.schema import Config
from pipeline.config.source_names import measurement_of
from pipeline.config.source_schema import SourceConfig
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError
from pipeline.iggy.retry import retry_on_disconnect
from pipeline.logs import clean
from pipeline.points.times import MAX_TIME, MIN_TIME, SECOND, format_time, parse_time
from pipeline.points.windows import TimeWindow
from pipeline.printable import printable, printable_json
from pipeline.source_coordinator.state import SourceState, StateError, begin_of, identity_of
from pipeline.source_coordinator.state_store import store_of, this_command
from stages.influxdb.answers import Retry
from stages.languages.language import PointCount
from stages.produce.batching import make_sends
from stages.produce.samples import SHOWN_CHARACTERS, payload_text
from stages.produce.sender import batch_options_of, headers_of, topic_of
from stages.query.reader import SourceReader
from stages.query.transport import QueryFailed

#: Default of `--count`: sample messages of each measurement.
SAMPLE_MESSAGES: Final = 3
#: Windows of time that are shown of each measurement, at most.
MOST_WINDOWS: Final = 12
#: Rows of the pages that samples are read by: more are read where one time has more.
SAMPLE_ROWS: Final = 1_000
DAY: Final = 86_400 * SECOND
#: Widths of windows, nanoseconds.
_WIDTHS: Final = tuple(seconds * SECOND for seconds in (
    1, 10, 60, 600, 3_600, 6 * 3_600, 86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400, 3_650 * 86_400))
#: Tries of a query that fails, and the pause between them, seconds.
_TRIES, _PAUSE_SECONDS = 3, 1.0
_LOGGER: Final = logging.getLogger("preview")
T = TypeVar("T")


class SampleMessage(Struct, frozen=True):
    """One message that would be sent."""

    #: None: Iggy chooses.
    partition: int | None
    size: int
    #: The payload, not compressed; Base64 if it is not text.
    text: str
    #: What the payload is where it is not text.
    encoding: str = ""


class PartCount(Struct, frozen=True):
    """The points of one window."""

    start: str
    points: int


class MeasurementPreview(Struct, frozen=True):
    """What would be sent of one measurement."""

    measurement: str
    stream: str
    topic: str
    #: None: it is not known.
    exists: bool | None
    partitions: int
    headers: dict[str, str]
    #: Where reading begins, and whether that is a stored watermark.
    begin: str
    is_stored: bool
    #: In the database; None where the server does not tell.
    series: int | None
    #: At least so many points, if they have different fields; None where the server does not tell.
    points: int | None
    windows: list[PartCount]
    window_seconds: int
    samples: list[SampleMessage]
    #: Of the rows from which the samples were made: those that would be rejected, with the reason.
    rejected: list[str]
    #: Why it could not be read; "" if it could.
    problem: str = ""


class SourcePreview(Struct, frozen=True):
    """What one source would send."""

    source: str
    database: str
    state: str
    end: str
    #: All that match.
    measurement_count: int
    measurements: list[MeasurementPreview]
    warnings: list[str]


def preview_source(config: Config, source: SourceConfig, names: Sequence[str], count: int) -> SourcePreview:
    """Looks at a source. `names`: measurements, or patterns of them; without, the first ones. `count`: sample messages
    of each. Raises PipelineError if the database cannot be asked."""
    seen: dict[str, logging.LogRecord] = {}
    # Samples have readers of their own, each of which says what the first one has said.
    _LOGGER.filters[:] = [lambda record: seen.setdefault(record.getMessage(), record) is record]
    reader = SourceReader(source, _LOGGER)
    found = _tried(source, reader.discover)
    chosen = [name for name in found.measurements if not names or matches_any(name, tuple(names))
              or matches_any(measurement_of(source, name).name, tuple(names))]
    if names and not chosen:
        known = ", ".join(found.measurements[:5])
        raise PipelineError(f"source {source.name}: no measurement matches {', '.join(names)}; there are "
                            f"{len(found.measurements)}{f', such as {known}' if known else ''}")
    state, where, warnings = asyncio.run(_state(config, source))
    shown = chosen if names else chosen[:MOST_MEASUREMENTS]
    topics, more = asyncio.run(_partitions(config, {topic_of(source, name) for name in shown}))
    end = _end(source)
    previews = []
    for number, name in enumerate(shown):
        if number and number % 10 == 0:
            click.echo(f"pipeline: looked at {number} of {len(shown)} measurements", err=True)
        begin = state.watermarks.get(name, begin_of(source, state.begun))
        window = TimeWindow(begin, max(begin, end))
        previews.append(_measurement(source, reader, name, window, name in state.watermarks, count,
                                     topics.get(topic_of(source, name))))
    database = "/".join(filter(None, (source.influxdb.database or source.influxdb.bucket,
                                      source.influxdb.retention_policy)))
    return SourcePreview(source.name, f"{', '.join(source.influxdb.servers())}, {database}", where, format_time(end),
                         len(chosen), previews, [*warnings, *more])


def _end(source: SourceConfig) -> int:
    """Up to where a source would read now, nanoseconds since 1970."""
    last = parse_time(source.to) if source.to else MAX_TIME
    if source.to and source.read_future_points:
        return last
    return min(last, time.time_ns() - source.buffer_duration_ms * 1_000_000)


async def _state(config: Config, source: SourceConfig) -> tuple[SourceState, str, list[str]]:
    """The state, as if it were new where it cannot be read; where it is; and warnings."""
    store = store_of(config, source, this_command("pipeline preview"), _LOGGER)
    now = time.time_ns()
    try:
        return await retry_on_disconnect(functools.partial(store.load, now)), store.where, list(store.warnings)
    except (StateError, IggyError) as error:
        return SourceState(identity_of(source), now), store.where, [
            f"{error}; this preview is of a source that begins at `from` = {source.from_}"]


async def _partitions(config: Config,
                      topics: set[tuple[str, str]]) -> tuple[dict[tuple[str, str], int], list[str]]:
    """The number of partitions of each topic, 0 for one that does not exist; and warnings. Empty without Iggy."""
    iggy = IggyConnection(config.iggy)

    async def found() -> dict[tuple[str, str], int]:
        await iggy.ensure_connected()
        return {topic: await iggy.partitions(*topic) for topic in topics}

    try:
        return await retry_on_disconnect(found), []
    except IggyError as error:
        return {}, [f"{error}; the topics are taken for missing"]


def _measurement(source: SourceConfig, reader: SourceReader, name: str, window: TimeWindow, is_stored: bool,
                 count: int, partitions: int | None) -> MeasurementPreview:
    """What would be sent of one measurement in a window."""
    stream, topic = topic_of(source, name)
    series, counts, width, problem = None, None, 0, ""
    samples: list[SampleMessage] = []
    rejected: list[str] = []
    number = partitions or source.output.partitions
    try:
        if window.end > window.start:
            series = _tried(source, lambda: reader.series(name, window))
            counts, width = _counted(source, reader, name, window)
            first = window.start if counts is None else max(window.start, min(counts, default=window.end))
            if count and first < window.end:
                samples, rejected = _samples(source, name, TimeWindow(first, window.end), count, number)
    except PipelineError as error:
        problem = str(error)
    return MeasurementPreview(
        name, stream, topic, None if partitions is None else partitions > 0, number, headers_of(source, name),
        "earliest" if window.start <= MIN_TIME else format_time(window.start), is_stored, series,
        None if counts is None else sum(one.points for one in counts.values()),
        [PartCount(format_time(max(MIN_TIME, start)), one.points) for start, one in sorted((counts or {}).items())],
        width // SECOND, samples, rejected, problem)


def _counted(source: SourceConfig, reader: SourceReader, name: str,
             window: TimeWindow) -> tuple[dict[int, PointCount] | None, int]:
    """The points of a window by parts of it, and the width of these in nanoseconds; None where they cannot be
    counted. Raises PipelineError."""
    width = DAY
    counts = _tried(source, lambda: reader.count(name, window, width))
    while counts:
        begin, end = min(counts), min(max(counts) + width, window.end)
        better = next((one for one in _WIDTHS if (end - begin) // one < MOST_WINDOWS), _WIDTHS[-1])
        if better >= width:
            return merged(counts, better), better
        width, before = better, counts
        part = TimeWindow(max(window.start, begin), end)
        counts = _tried(source, lambda part=part, width=width: reader.count(name, part, width))  # type: ignore[misc]
        if not counts:
            return before, DAY
    return counts, width


def merged(counts: dict[int, PointCount], width: int) -> dict[int, PointCount]:
    """Counts by windows of a greater width, which begin at its multiples."""
    found: dict[int, PointCount] = {}
    for start, one in counts.items():
        part = start - start % width
        before = found.get(part, PointCount(0, 0))
        found[part] = PointCount(before.points + one.points, before.rows + one.rows)
    return found


def _samples(source: SourceConfig, name: str, window: TimeWindow, count: int,
             partitions: int) -> tuple[list[SampleMessage], list[str]]:
    """The first messages of a window, and why rows before them would be rejected. Raises PipelineError."""
    rows = min(source.page_size, max(SAMPLE_ROWS, count * source.output.batch_points))
    payloads: list[bytes] = []
    series: list[int] = []
    rejected: list[str] = []
    needed = count * source.output.batch_points
    for messages in DatabasePoints(replace(source, page_size=rows), _LOGGER).messages(name, window.start, window.end):
        payloads += messages.payloads
        series += messages.series
        rejected += [f"{row.reason}: {row.detail}: {row.row}" for row in messages.bad]
        if len(payloads) >= needed or len(rejected) >= needed:
            break
    sends = make_sends(payloads[:needed], series[:needed], partitions, batch_options_of(source.output))
    found = [_sample(source, send.partition, payload) for send in sends for payload in send.payloads]
    return found[:count], rejected[:count]


def _sample(source: SourceConfig, partition: int | None, payload: bytes) -> SampleMessage:
    text, encoding = payload_text(source.output, payload)
    return SampleMessage(partition, len(payload), text, encoding)


def _tried(source: SourceConfig, query: Callable[[], T]) -> T:
    """The result of a query, which is repeated. Raises PipelineError."""
    for attempt in range(_TRIES):
        try:
            return query()
        except QueryFailed as failed:
            if not isinstance(failed.answer, Retry) or attempt == _TRIES - 1:
                raise PipelineError(f"source {source.name}: the database cannot be read: {failed}") from None
            time.sleep(_PAUSE_SECONDS)
    raise AssertionError


def print_previews(previews: Sequence[SourcePreview], as_json: bool) -> None:
    """Prints messages as they would be sent, and the rest as comments that begin with #."""
    for one in previews:
        if as_json:
            click.echo(printable_json(msgspec.json.encode(one).decode()))
        else:
            for warning in one.warnings:
                click.echo(f"pipeline: warning: {clean(warning)}", err=True)
            for line in _lines(one):
                click.echo(printable(line))


def _lines(found: SourcePreview) -> list[str]:
    many = f"{found.measurement_count:,} measurement{'' if found.measurement_count == 1 else 's'}"
    lines = [f"# source {found.source}: {found.database}; state in {found.state}",
             f"# {many}, read up to {found.end}"]
    for one in found.measurements:
        lines += _measurement_lines(one)
    if (more := found.measurement_count - len(found.measurements)) > 0:
        lines.append(f"# and {more:,} more, not counted; --measurement NAME or PATTERN chooses, '*' all")
    return [*lines, "# nothing was sent"]


def _measurement_lines(one: MeasurementPreview) -> list[str]:
    exists = {True: "exists", False: "is created", None: "Iggy was not asked"}[one.exists]
    headers = "".join(f", header {key}: {value}" for key, value in one.headers.items())
    lines = [f"# measurement {one.measurement} to {one.stream}/{one.topic} ({exists}, {one.partitions} partition"
             f"{'' if one.partitions == 1 else 's'}{headers}), from {one.begin}"
             f"{', where it was read up to' if one.is_stored else ''}"]
    if one.problem:
        return [*lines, f"#   {one.problem}"]
    points = "points are not counted" if one.points is None else f"at least {one.points:,} points"
    lines.append(f"#   {points}" + ("" if one.series is None else f"; {one.series:,} series in the database"))
    if len(one.windows) > 1:
        lines += [f"#   {part.start[:19]}Z: {part.points:,}" for part in one.windows]
    for sample in one.samples:
        where = "a partition that Iggy chooses" if sample.partition is None else f"partition {sample.partition}"
        lines.append(f"# message of {sample.size:,} bytes to {where}"
                     + (f" ({sample.encoding})" if sample.encoding else ""))
        lines += [line[:SHOWN_CHARACTERS] for line in sample.text.rstrip("\n").split("\n")]
    return [*lines, *(f"# rejected: {reason}" for reason in one.rejected)]


def previews_of(config: Config, sources: Sequence[SourceConfig], names: Sequence[str],
                count: int | None) -> list[SourcePreview]:
    """As `preview_source`, of several sources."""
    number: Any = SAMPLE_MESSAGES if count is None else count
    return [preview_source(config, source, names, number) for source in sources]
