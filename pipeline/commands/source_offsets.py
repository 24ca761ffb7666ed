"""`pipeline offsets` for sources: shows, sets and resets the marks in their states, in files or in topics of Iggy."""

import asyncio
import functools
import logging
import time

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.config.schema import Config
from pipeline.config.source_schema import SourceConfig
from pipeline.errors import PipelineError
from pipeline.iggy.retry import retry_on_disconnect
from pipeline.points.times import MIN_TIME, TimeOutOfRange, format_time, parse_time
from pipeline.points.windows import floor
from pipeline.printable import printable
from pipeline.source_coordinator.state import SourceState
from pipeline.source_coordinator.state_store import StateStore, store_of, this_command


def show_marks(config: Config) -> None:
    """Prints a table: for each measurement the time up to which all is in Iggy. Raises StateError, IggyError."""
    table = Table()
    for heading in ("source", "measurement", "mark", "state"):
        table.add_column(heading)

    def add(*cells: str) -> None:
        table.add_row(*(Text(printable(cell)) for cell in cells))

    async def rows() -> None:
        for source in config.sources:
            store, state = await _loaded(config, source)
            for measurement, mark in sorted(state.watermarks.items()):
                add(source.name, measurement, _shown(mark), store.where)
            if not state.watermarks:
                add(source.name, "-", f"begins at {source.from_}", store.where)

    asyncio.run(rows())
    Console(width=None if Console().is_terminal else 200).print(table)


def set_mark(config: Config, name: str, measurement: str, to: str) -> None:
    """Stores one mark: reading begins at `to` ("earliest", "latest" or RFC 3339). Raises PipelineError."""
    source = next((source for source in config.sources if source.name == name), None)
    if source is None:
        raise PipelineError(f"no source {name}; there is " + ", ".join(source.name for source in config.sources))
    mark = _mark(source, to)

    async def change() -> None:
        store, state = await _loaded(config, source)
        state.watermarks[measurement] = mark
        state.fingerprints.pop(measurement, None)
        await store.save(state)

    asyncio.run(change())


def reset_marks(config: Config, to: str) -> None:
    """Has every measurement that is known begin at `to`. Raises PipelineError."""
    marks = [_mark(source, to) for source in config.sources]

    async def change() -> None:
        for source, mark in zip(config.sources, marks, strict=True):
            store, state = await _loaded(config, source)
            state.watermarks = dict.fromkeys(state.watermarks, mark)
            state.fingerprints = {}
            await store.save(state)

    asyncio.run(change())


async def _loaded(config: Config, source: SourceConfig) -> tuple[StateStore, SourceState]:
    """Where the state of a source is kept, and the state."""
    store = store_of(config, source, this_command(), logging.getLogger("offsets"))
    return store, await retry_on_disconnect(functools.partial(store.load, time.time_ns()))


def _mark(source: SourceConfig, to: str) -> int:
    align = max(1, source.window_align_ms * 1_000_000)
    if to == "earliest":
        mark = MIN_TIME
    elif to == "latest":
        mark = time.time_ns() - source.buffer_duration_ms * 1_000_000
    else:
        try:
            mark = parse_time(to)
        except TimeOutOfRange as error:
            raise PipelineError(f"{error}; give earliest, latest or a time between") from None
        except ValueError:
            raise PipelineError(f"{to}: for sources give earliest, latest or a time like "
                                "2026-01-31T00:00:00Z") from None
        if mark > time.time_ns():
            raise PipelineError(f"{to} is in the future by this machine's clock, and no mark may be; to leave out what "
                                "is there, give latest")
    return floor(mark, align)


def _shown(mark: int) -> str:
    return "earliest" if mark <= MIN_TIME else format_time(mark)
