"""`pipeline verify`: whether Iggy has every point of a source's database, by measurement and window of time."""

import asyncio
import functools
import itertools
import logging
import time
from collections.abc import AsyncIterator, Iterator

import click
import msgspec
from msgspec import Struct

from pipeline.commands.config import load_config
from pipeline.commands.verification.points import Comparison, Details, PointReader, Sums, Window, hash_of
from pipeline.commands.verification.reading import DatabasePoints, messages_of
from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import DATABASE
from pipeline.config.schema import Config
from pipeline.config.source_names import alignment_of, measurement_of, substitute_names, template_names
from pipeline.config.source_schema import SourceConfig
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.retry import retry_on_disconnect
from pipeline.options import Command, config_option
from pipeline.points.times import MIN_TIME, format_time, parse_time
from pipeline.printable import excerpt, printable
from pipeline.source_coordinator.state import SourceState
from pipeline.source_coordinator.state_store import store_of, this_command
from stages.produce.sender import fit_name
from stages.query.reader import is_selected

#: Tables that are not used here.
_UNUSED = (*DATABASE, "mapping", "dead_letters", "network", "http", "otlp", "tests")
#: Points that are compared one by one in one more pass, unless a window has more; most such passes; and most points
#: that are shown.
DETAIL_POINTS, DETAIL_PASSES, SHOWN_POINTS = 300_000, 5, 10
#: Most windows that are shown.
SHOWN_WINDOWS = 20
#: Stream and topic.
Topic = tuple[str, str]


class WindowResult(Struct, frozen=True):
    """A window in which database and Iggy differ. Points."""

    measurement: str
    start: str
    database: int
    iggy: int
    #: -1: not looked at one by one.
    missing: int
    changed: int
    repeated: int
    only_in_iggy: int


class Verified(Struct, frozen=True):
    """The result of a comparison."""

    source: str
    measurements: int
    windows: int
    database_points: int
    iggy_points: int
    rejected_rows: int
    missing: int
    changed: int
    repeated: int
    only_in_iggy: int
    differing: list[WindowResult]
    #: Some of the points that are missing, or have other values in Iggy, as they should be there.
    examples: list[str]

    @property
    def is_equal(self) -> bool:
        """Whether Iggy has all points of the database."""
        return not self.missing and not self.changed and all(one.missing >= 0 for one in self.differing)


class _Verification:
    """One source: what is compared, and up to where."""

    def __init__(self, config: Config, source: SourceConfig, state: SourceState, begin: int, end: int | None,
                 width: int) -> None:
        self._iggy = IggyConnection(config.iggy)
        self._source = source
        self._alignment = alignment_of(source)
        begin = self._alignment.floor(begin)
        self._database = DatabasePoints(source, logging.getLogger("verify"))
        #: Label of what is compared (a measurement; where policies have topics of their own, that of one policy) -> the
        #: window of time that is compared; and its names in the state.
        self._spans: dict[str, tuple[int, int]] = {}
        self._kept: dict[str, list[str]] = {}
        #: Topic -> name in a message -> label.
        self._labels: dict[Topic, dict[str, str]] = {}
        grouped: dict[tuple[Topic, str], list[str]] = {}
        for kept, watermark in sorted(state.watermarks.items()):
            if (source.query or is_selected(source, kept)) and watermark > begin:
                grouped.setdefault((self._topic(kept), measurement_of(source, kept).name), []).append(kept)
        for (topic, name), all_kept in grouped.items():
            label = ", ".join(all_kept)
            last = min(state.watermarks[kept] for kept in all_kept)
            self._spans[label] = begin, last if end is None else min(end, last)
            self._kept[label] = all_kept
            self._labels.setdefault(topic, {})[name] = label
        self._reader = PointReader(source.output, {name for _, name in grouped})
        self._sums = Comparison(width)

    def _topic(self, kept: str) -> Topic:
        """Where the points of a measurement are sent to."""
        output, names = self._source.output, template_names(self._source, kept)
        return (fit_name(substitute_names(output.stream, names), output.stream),
                fit_name(substitute_names(output.topic, names), output.topic))

    async def run(self) -> Verified:
        """Compares sums, then the points of the windows whose sums differ."""
        for label, (start, end) in self._spans.items():
            known = self._labels[self._topic(self._kept[label][0])]
            for point in self._read(label, start, end):
                name, at = self._place(point)
                if known.setdefault(name, label) != label:
                    raise PipelineError(f"the steps of source {self._source.name} call points of {known[name]} and of "
                                        f"{label} {name}, in the same topic: they cannot be told apart")
                self._sums.database.setdefault(self._sums.window(label, at), Sums()).add(hash_of(point))
        async for window, point in self._iggy_points():
            self._sums.iggy.setdefault(window, Sums()).add(hash_of(point))
        rejected = self._database.rejected
        left = self._sums.differing()
        results: list[WindowResult] = []
        examples: list[str] = []
        for _ in range(DETAIL_PASSES):
            chosen, left = self._chosen(left)
            if chosen:
                results += await self._look_at(chosen, examples)
        results += [self._result(window, None, {}, {}) for window in left]
        sums = self._sums
        return Verified(self._source.name, len(self._spans), len(sums.database.keys() | sums.iggy.keys()),
                        sum(one.points for one in sums.database.values()),
                        sum(one.points for one in sums.iggy.values()), rejected,
                        sum(max(0, one.missing) for one in results), sum(max(0, one.changed) for one in results),
                        sum(max(0, one.repeated) for one in results), sum(max(0, one.only_in_iggy) for one in results),
                        results, examples)

    def _place(self, point: bytes) -> tuple[str, int]:
        """Measurement and time of a point of the database. Raises PipelineError."""
        try:
            return self._reader.place(point)
        except (ValueError, msgspec.MsgspecError) as error:
            raise PipelineError(f"the steps of source {self._source.name} make messages without the point's "
                                f"measurement and time, which are needed to compare them ({error}): {excerpt(point)}"
                                ) from None

    async def _iggy_points(self) -> AsyncIterator[tuple[Window, bytes]]:
        """(window, point) of all points in Iggy that are compared."""
        for (stream, topic), labels in sorted(self._labels.items()):
            async for message in messages_of(self._iggy, stream, topic):
                try:
                    points = [(self._reader.place(point), point) for point in self._reader.points(message)]
                except (ValueError, msgspec.MsgspecError):
                    continue  # of somebody else
                for (name, at), point in points:
                    label = labels.get(name)
                    start, end = self._spans[label] if label is not None else (0, 0)
                    if label is not None and start <= at < end:
                        yield self._sums.window(label, at), point

    def _key(self, window: Window, point: bytes) -> int:
        """A hash of what a point has in common with other values of itself, where it is compared."""
        return self._reader.key(point) ^ hash_of(window.measurement.encode())

    def _chosen(self, windows: list[Window]) -> tuple[list[Window], list[Window]]:
        """The windows for one pass, and those that are left."""
        points = count = 0
        for window in windows:
            points += max(one[window].points for one in (self._sums.database, self._sums.iggy) if window in one)
            if count and points > DETAIL_POINTS:
                break
            count += 1
        return windows[:count], windows[count:]

    async def _look_at(self, windows: list[Window], examples: list[str]) -> list[WindowResult]:
        """Compares the points of some windows; adds to `examples`."""
        details, wanted = Details(), set(windows)
        for window in windows:
            for point in self._in_database(window):
                details.expect(window, self._key(window, point), hash_of(point))
        async for window, point in self._iggy_points():
            if window in wanted:
                details.found(window, self._key(window, point), hash_of(point))
        missing, changed = details.missing(), details.changed()
        lacking, differing = details.by_window(missing), details.by_window(changed)
        for window in windows:
            if (lacking[window] or differing[window]) and len(examples) < SHOWN_POINTS:
                for point in self._in_database(window):
                    key = self._key(window, point)
                    if key in missing | changed and len(examples) < SHOWN_POINTS:
                        place = f" in {window.measurement}" if self._source.retention_policies else ""
                        examples.append(f"{'missing' if key in missing else 'changed'}{place}: {excerpt(point)}")
        return [self._result(window, details, lacking, differing) for window in windows]

    def _in_database(self, window: Window) -> Iterator[bytes]:
        """The points of a window. A query that groups by time is asked for whole intervals."""
        (start, end), last = self._spans[window.measurement], window.start + self._sums.width
        begin = max(start, self._alignment.floor(window.start))
        points = self._read(window.measurement, begin, min(end, self._alignment.after(self._alignment.floor(last - 1))))
        return (point for point in points if window.start <= self._place(point)[1] < last) \
            if self._source.query else points

    def _read(self, label: str, start: int, end: int) -> Iterator[bytes]:
        return itertools.chain.from_iterable(self._database.read(kept, start, end) for kept in self._kept[label])

    def _result(self, window: Window, details: Details | None, missing: dict[Window, int],
                changed: dict[Window, int]) -> WindowResult:
        database, iggy = (sums.get(window, Sums()).points for sums in (self._sums.database, self._sums.iggy))
        # Equal points of two policies in one topic have one key: their number tells what their keys do not.
        counts = (-1, -1, -1, -1) if details is None else (
            max(missing.get(window, 0), database - iggy), changed.get(window, 0), details.repeated[window],
            details.extra[window])
        return WindowResult(window.measurement, format_time(max(MIN_TIME, window.start)), database, iggy, *counts)


def _time(option: str, text: str) -> int:
    try:
        return parse_time(text)
    except ValueError as error:
        raise PipelineError(f"{option}: {text} is not a time like 2026-01-31T00:00:00Z ({error})") from None


def _text(found: Verified) -> str:
    lines = [f"source {printable(found.source)}: {found.database_points:,} points of {found.measurements:,} "
             f"measurements in the database, {found.iggy_points:,} in Iggy, in {found.windows:,} windows"]
    wrong = [one for one in found.differing if one.missing or one.changed]
    for one in wrong[:SHOWN_WINDOWS]:
        what = "not looked at one by one" if one.missing < 0 else (
            f"{one.missing:,} missing, {one.changed:,} changed, {one.repeated:,} repeated, "
            f"{one.only_in_iggy:,} only in Iggy")
        lines.append(f"  {printable(one.measurement)} from {one.start}: {one.database:,} points in the database, "
                     f"{one.iggy:,} in Iggy: {what}")
    if len(wrong) > SHOWN_WINDOWS:
        lines.append(f"  and {len(wrong) - SHOWN_WINDOWS:,} more windows; --json has all of them")
    lines += [f"  {printable(one)}" for one in found.examples]
    if found.rejected_rows:
        lines.append(f"{found.rejected_rows:,} rows of the database are rejected by the source, and were not compared")
    if found.repeated or found.only_in_iggy:
        lines.append(f"no errors: {found.repeated:,} points repeated (sent again, as after the death of a process), "
                     f"{found.only_in_iggy:,} only in Iggy (not, or no longer, in the database)")
    lines.append("equal: Iggy has every point" if found.is_equal else
                 f"NOT EQUAL: {found.missing:,} points are missing, {found.changed:,} have other values")
    return "\n".join(lines)


@click.command(cls=Command, short_help="Compares a source's database with Iggy")
@config_option
@click.option("--source", "name", metavar="NAME", help="Source; needed if there are several.")
@click.option("--from", "begin", metavar="TIME", help="First time that is compared; where the source began by default.")
@click.option("--to", "end", metavar="TIME", help="Compare up to this time, and not up to each watermark.")
@click.option("--window-ms", default=3_600_000, show_default=True, type=click.IntRange(1), help="Width of a window.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(path: ConfigInputs, name: str | None, begin: str | None, end: str | None, window_ms: int,
           as_json: bool) -> None:
    """Compares a source's database with Iggy: counts and checksums by measurement and window of time.

    Points up to each measurement's watermark are compared. Where a window differs, its points are compared one by one.
    Exit code 1 if points are missing or have other values. Nothing is written.
    """
    config = load_config(path, unused=_UNUSED)
    known = [source.name for source in config.sources]
    chosen = [source for source in config.sources if name in (None, source.name)]
    if len(chosen) != 1:
        raise PipelineError(f"no source {name}; the configuration has {', '.join(known)}" if name and known else
                            "the configuration has no sources" if not known else
                            f"give --source: one of {', '.join(known)}")
    source = chosen[0]

    async def compared() -> Verified:
        store = store_of(config, source, this_command(), logging.getLogger("verify"))
        state = await retry_on_disconnect(functools.partial(store.load, time.time_ns()))
        if not state.watermarks:
            raise PipelineError(f"source {source.name}: {store.where} has no watermarks: nothing was read yet")
        first = _time("--from", begin) if begin else {"earliest": MIN_TIME, "now": state.begun}.get(source.from_)
        first = parse_time(source.from_) if first is None else first
        last = _time("--to", end) if end else None
        return await _Verification(config, source, state, first, last, window_ms * 1_000_000).run()

    found = asyncio.run(compared())
    click.echo(msgspec.json.encode(found).decode() if as_json else _text(found))
    if not found.is_equal:
        raise SystemExit(1)
