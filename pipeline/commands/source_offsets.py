"""`pipeline offsets` for sources: shows, sets and resets the watermarks in their states."""

import asyncio
import functools
import logging
import time

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.config.schema import Config
from pipeline.config.source_names import alignment_of
from pipeline.config.source_schema import SourceConfig
from pipeline.errors import PipelineError
from pipeline.iggy.retry import retry_on_disconnect
from pipeline.points.times import MIN_TIME, TimeOutOfRange, format_time, parse_time
from pipeline.printable import printable
from pipeline.source_coordinator.state import SourceState
from pipeline.source_coordinator.state_store import StateStore, store_of, this_command


def print_watermarks(config: Config) -> None:
    """Prints for each measurement the time up to which all points are in Iggy. Raises StateError and IggyError."""
    table = Table()
    for heading in ("source", "measurement", "watermark", "state"):
        table.add_column(heading)

    def add(*cells: str) -> None:
        table.add_row(*(Text(printable(cell)) for cell in cells))

    async def rows() -> None:
        for source in config.sources:
            store, state = await _loaded(config, source)
            for measurement, watermark in sorted(state.watermarks.items()):
                add(source.name, measurement, shown_watermark(watermark), store.where)
            if not state.watermarks:
                add(source.name, "-", f"starts at {source.from_}", store.where)

    asyncio.run(rows())
    Console(width=None if Console().is_terminal else 200).print(table)


def set_watermark(config: Config, name: str, measurement: str, to: str) -> None:
    """Stores the watermark of one measurement, at which reading starts: "earliest", "latest" or RFC 3339.

    Raises PipelineError.
    """
    source = next((source for source in config.sources if source.name == name), None)
    if source is None:
        known = ", ".join(source.name for source in config.sources)
        raise PipelineError(f"no source {name}; the configuration has {known}")
    watermark = watermark_of(source, to)

    async def change() -> None:
        store, state = await _loaded(config, source)
        state.restart(measurement, watermark)
        await store.save(state)

    asyncio.run(change())


def reset_watermarks(config: Config, to: str) -> None:
    """Stores `to` as the watermark of every measurement that a state has. Raises PipelineError."""
    watermarks = [watermark_of(source, to) for source in config.sources]

    async def change() -> None:
        for source, watermark in zip(config.sources, watermarks, strict=True):
            store, state = await _loaded(config, source)
            for measurement in list(state.watermarks):
                state.restart(measurement, watermark)
            await store.save(state)

    asyncio.run(change())


async def _loaded(config: Config, source: SourceConfig) -> tuple[StateStore, SourceState]:
    """The store of a source's state, and the state. Raises StateError and IggyError."""
    store = store_of(config, source, this_command(), logging.getLogger("offsets"))
    return store, await retry_on_disconnect(functools.partial(store.load, time.time_ns()))


def watermark_of(source: SourceConfig, to: str) -> int:
    """The watermark for "earliest", "latest" or an RFC 3339 time. Raises PipelineError."""
    if to == "earliest":
        watermark = MIN_TIME
    elif to == "latest":
        watermark = time.time_ns() - source.buffer_duration_ms * 1_000_000
    else:
        try:
            watermark = parse_time(to)
        except TimeOutOfRange as error:
            raise PipelineError(f"{error}; give earliest, latest or a time between") from None
        except ValueError:
            raise PipelineError(f"{to}: for sources give earliest, latest or a time like "
                                "2026-01-31T00:00:00Z") from None
        if watermark > time.time_ns():
            raise PipelineError(f"{to} is in the future by this machine's clock; a watermark must not be. To leave out "
                                "the existing points, give latest")
    return alignment_of(source).floor(watermark)


def shown_watermark(watermark: int) -> str:
    """A watermark for people."""
    return "earliest" if watermark <= MIN_TIME else format_time(watermark)
