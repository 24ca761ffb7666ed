"""`pipeline offsets` for sources: shows, sets and resets the marks in their state files."""

import time

from rich.console import Console
from rich.table import Table

from pipeline.errors import PipelineError
from pipeline.schema import Config
from pipeline.source_schema import SourceConfig
from pipeline.source_state import load_state, save_state, state_path
from stages.source.times import MIN_TIME, format_time, parse_time


def show_marks(config: Config) -> None:
    """Prints a table: for each measurement the time up to which all is in Iggy. Raises StateError."""
    table = Table()
    for heading in ("source", "measurement", "mark", "state file"):
        table.add_column(heading)
    for source in config.source:
        state = load_state(source, 0)
        for measurement, mark in sorted(state.marks.items()):
            table.add_row(source.name, measurement, _shown(mark), str(state_path(source)))
        if not state.marks:
            table.add_row(source.name, "-", f"begins at {source.from_}", str(state_path(source)))
    Console(width=None if Console().is_terminal else 200).print(table)


def set_mark(config: Config, name: str, measurement: str, to: str) -> None:
    """Stores one mark: reading begins at `to` ("earliest", "latest" or RFC 3339). Raises PipelineError."""
    source = next((source for source in config.source if source.name == name), None)
    if source is None:
        raise PipelineError(f"no source {name}; there is " + ", ".join(source.name for source in config.source))
    state = load_state(source, time.time_ns())
    state.marks[measurement] = _mark(source, to)
    state.prints.pop(measurement, None)
    save_state(source, state)


def reset_marks(config: Config, to: str) -> None:
    """Has every measurement that is known begin at `to`. Raises PipelineError."""
    marks = [_mark(source, to) for source in config.source]
    for source, mark in zip(config.source, marks, strict=True):
        state = load_state(source, time.time_ns())
        state.marks = dict.fromkeys(state.marks, mark)
        state.prints = {}
        save_state(source, state)


def _mark(source: SourceConfig, to: str) -> int:
    align = max(1, source.align_ms * 1_000_000)
    if to == "earliest":
        mark = MIN_TIME
    elif to == "latest":
        mark = time.time_ns() - source.buffer_duration_ms * 1_000_000
    else:
        try:
            mark = parse_time(to)
        except ValueError:
            raise PipelineError(f"{to}: for sources give earliest, latest or a time like "
                                "2026-01-31T00:00:00Z") from None
    return mark - mark % align


def _shown(mark: int) -> str:
    return "earliest" if mark <= MIN_TIME else format_time(mark)
