"""`pipeline source`: shows and resets the states of sources, those of backfills included."""

import asyncio
import difflib
import itertools
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

import click
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.commands.config import load_config
from pipeline.commands.source_offsets import shown_watermark, watermark_of
from pipeline.commands.status import span
from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import DATABASE, SOURCE_CONNECTION
from pipeline.config.schema import Config
from pipeline.config.source_names import alignment_of, measurement_of
from pipeline.config.source_schema import SourceConfig
from pipeline.errors import PipelineError
from pipeline.locks import Locked, Locks
from pipeline.options import Group, config_option
from pipeline.points.times import parse_time
from pipeline.printable import printable
from pipeline.source_coordinator.state import SourceState, StateError, begin_of
from pipeline.source_coordinator.state_store import lock_state, state_holder, this_command
from pipeline.source_coordinator.stored_states import StoredState, stored_states

#: Tables and keys that are not used here.
_UNUSED: Final = (*DATABASE, *SOURCE_CONNECTION, "mapping", "dead_letters", "network", "http", "otlp", "pipeline",
                  "tests")
#: Measurements that a reset shows one by one.
_SHOWN: Final = 20
_LOGGER: Final = logging.getLogger("source")
_COMMAND: Final = "pipeline source"


class Reset(Struct, frozen=True):
    """What becomes of one measurement. Times in nanoseconds since 1970."""

    measurement: str
    before: int
    #: Where reading begins.
    after: int
    #: The watermark that is stored; None: none, and the measurement begins where the source does.
    stored: int | None


@click.group(cls=Group, short_help="Shows and resets what sources have read")
def source() -> None:
    """Shows and resets what sources have read: their states, those of backfills included."""


@source.command()
@config_option
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def state(path: ConfigInputs, name: str | None, as_json: bool) -> None:
    """Shows up to where each measurement of the sources, or of the source NAME, is in Iggy.

    The states of backfills are found beside the others. The pipeline may run meanwhile; its states are then at most
    pipeline.commit_interval_ms old. Exit code 1 if a state cannot be used.
    """
    config = load_config(path, unused=_UNUSED)
    chosen = [_chosen(config, name)] if name is not None else list(config.sources)
    if not chosen:
        raise PipelineError(f"{path}: has no [[sources]], and so no state of a source")
    found = asyncio.run(_all_states(config, chosen))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({"states": [_as_json(one) for one in found]})).decode())
    else:
        for one in found:
            _print_state(one)
    if any(one.problem for one in found):
        raise SystemExit(1)


@source.command()
@config_option
@click.argument("name")
@click.option("--measurement", "measurements", multiple=True, metavar="NAME",
              help="Only this one; may be given several times. All of the state by default.")
@click.option("--to", metavar="earliest|latest|TIME", help="Where reading begins; where the source begins (`from`) by "
              "default.")
@click.option("--state", "state_", metavar="FILE|TOPIC", help="The state of a backfill, as `pipeline source state` "
              "names it; that of the source by default.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(path: ConfigInputs, name: str, measurements: tuple[str, ...], to: str | None, state_: str | None,
          yes: bool) -> None:
    """Has measurements of the source NAME read again, or not read, from another time on.

    Says what will happen, and asks. Points that are read again come to Iggy a second time. The pipeline must not run.
    """
    config = load_config(path, unused=_UNUSED)
    of = _chosen(config, name)
    watermark = None if to is None else watermark_of(of, to)

    async def work() -> None:
        stored = _one_of(await stored_states(config, of, this_command(_COMMAND), _LOGGER), state_)
        locks = Locks()
        try:
            try:
                lock_state(locks, config, stored.config)
            except Locked:
                holder = state_holder(config, stored.config) or "?"
                raise Locked(f"{stored.label}: a pipeline (process {holder}) runs with {stored.store.where}, and would "
                             "overwrite a change; stop it, reset, and start it again") from None
            # It may have changed until it was locked.
            state = await stored.store.load(time.time_ns())
            resets = planned(stored.config, state, measurements, watermark)
            for line in described(stored, resets):
                click.echo(printable(line))
            if not any(one.before != one.after or one.stored is None for one in resets):
                raise PipelineError("nothing is to be changed")
            if not yes and not click.confirm("Reset?"):
                raise PipelineError("nothing was reset")
            for one in resets:
                state.restart(one.measurement, one.stored)
            await stored.store.save(state)
        finally:
            locks.release()
        many = f"{len(resets)} measurement{'' if len(resets) == 1 else 's'}"
        click.echo(printable(f"reset {many} in {stored.store.where}"))

    asyncio.run(work())


async def _all_states(config: Config, chosen: Sequence[SourceConfig]) -> list[StoredState]:
    return [found for one in chosen for found in await stored_states(config, one, this_command(_COMMAND), _LOGGER)]


def _chosen(config: Config, name: str) -> SourceConfig:
    found = next((one for one in config.sources if one.name == name), None)
    if found is None:
        known = ", ".join(one.name for one in config.sources)
        raise PipelineError(f"there is no source {name}; " + (f"the configuration has {known}" if known else
                                                              "the configuration has no [[sources]]"))
    return found


def _one_of(found: Sequence[StoredState], name: str | None) -> StoredState:
    """The state with that name, or path, or file name; the source's own one without. Raises PipelineError."""
    chosen = found[:1] if name is None else [one for one in found if name in (one.name, one.name.rpartition("/")[2])]
    if not chosen:
        raise PipelineError(f"source {found[0].config.name} has no state {name}; it has "
                            + ", ".join(one.name for one in found))
    if chosen[0].problem:
        raise StateError(chosen[0].problem)
    if chosen[0].state is None:
        others = [one.name for one in found[1:]]
        raise PipelineError(f"{chosen[0].label} has no state in {chosen[0].store.where} yet: nothing was read, and it "
                            f"begins at `from` = {chosen[0].config.from_}"
                            + (f". --state chooses one of its backfills: {', '.join(others)}" if others else ""))
    return chosen[0]


def planned(source: SourceConfig, state: SourceState, measurements: Sequence[str],
            watermark: int | None) -> list[Reset]:
    """What a reset to a watermark (None: to where the source begins) changes. Raises PipelineError for measurements
    that the state does not have. A plain name stands for the measurement in every retention policy that is read."""
    kept = {name: [name] if name in state.watermarks else
            [one for one in sorted(state.watermarks) if measurement_of(source, one).name == name]
            for name in measurements}
    for name, found in kept.items():
        if not found:
            similar = difflib.get_close_matches(name, state.watermarks, 5) or sorted(state.watermarks)[:5]
            raise PipelineError(f"source {source.name} has read no measurement {name}; it has read " + (
                f"{len(state.watermarks)}, such as {', '.join(similar)}" if similar else "none"))
    begin = begin_of(source, state.begun)
    after = begin if watermark is None else watermark
    return [Reset(name, state.watermarks[name], after, watermark)
            for name in dict.fromkeys(itertools.chain(*kept.values()) if measurements else sorted(state.watermarks))]


def described(stored: StoredState, resets: Sequence[Reset]) -> list[str]:
    """What a reset will do, for people."""
    lines = [f"{stored.label}: {stored.store.where}"]
    if not resets:
        return [*lines, "  it has no measurement yet"]
    for one in resets[:_SHOWN]:
        before, after = shown_watermark(one.before), shown_watermark(one.after)
        if one.after < one.before:
            what = f"from {before} back to {after}; points between are read again, and come to Iggy a second time"
        elif one.after > one.before:
            what = f"from {before} forward to {after}; points between are NOT read"
        else:
            what = f"stays at {before}"
        lines.append(f"  {one.measurement}: {what}")
    if len(resets) > _SHOWN:
        lines.append(f"  and {len(resets) - _SHOWN} more, likewise")
    if stored.config.overlap_ms and any(stored.state.fingerprints.get(one.measurement)
                                        for one in resets if stored.state is not None):
        lines.append("  what was sent of the overlap (overlap_ms) is forgotten: its points come a second time, too")
    if resets[0].stored is None:
        lines.append(f"  they begin at `from` = {stored.config.from_}, as if they had not been read yet")
    if stored.config.to:
        lines.append(f"  at the next: pipeline start --from {stored.config.from_} --to {stored.config.to}")
    return lines


def _end(stored: StoredState) -> int | None:
    """Where the backfill of a state ends, nanoseconds since 1970; None without."""
    if not stored.config.to:
        return None
    return alignment_of(stored.config).floor(parse_time(stored.config.to))


def _as_json(stored: StoredState) -> dict[str, Any]:
    state, end = stored.state, _end(stored)
    watermarks = state.watermarks if state is not None else {}
    return {"source": stored.config.name, "state": stored.name, "where": stored.store.where,
            "exists": state is not None, "problem": stored.problem, "written": stored.written,
            "process": stored.holder or None, "from": stored.config.from_, "to": stored.config.to or None,
            "begun": shown_watermark(state.begun) if state is not None else None,
            "complete": end is not None and bool(watermarks) and min(watermarks.values()) >= end,
            "measurements": [{"measurement": name, "watermark": shown_watermark(watermark), "nanoseconds": watermark,
                              "complete": end is not None and watermark >= end,
                              "fingerprints": len(state.fingerprints.get(name, {})) if state is not None else 0}
                             for name, watermark in sorted(watermarks.items())]}


def _print_state(stored: StoredState) -> None:
    say = Console(width=None if Console().is_terminal else 200, highlight=False)
    if stored.problem:
        say.print(Text(printable(stored.problem)), soft_wrap=True)
        return
    used = f"; process {stored.holder} uses it" if stored.holder else ""
    if stored.state is None:
        say.print(Text(printable(f"{stored.label}: no state in {stored.store.where} yet; it begins at `from` = "
                                 f"{stored.config.from_}{used}")), soft_wrap=True)
        return
    say.print(Text(printable(f"{stored.label}: {stored.store.where}, written {stored.written}{used}")), soft_wrap=True)
    end, watermarks = _end(stored), stored.state.watermarks
    if end is not None:
        complete = sum(watermark >= end for watermark in watermarks.values())
        say.print(Text(printable(
            f"  {complete} of {len(watermarks)} measurements are complete" + (
                "" if watermarks and complete == len(watermarks) else "; it goes on with: pipeline start --from "
                f"{stored.config.from_} --to {stored.config.to}"))), soft_wrap=True)
    if not watermarks:
        say.print("  no measurement was read yet")
        return
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    for heading in ("  measurement", "watermark", "behind", "fingerprints"):
        table.add_column(heading, justify="right" if heading == "fingerprints" else "left", overflow="fold")
    until = time.time_ns() if end is None else end
    for name, watermark in sorted(watermarks.items()):
        table.add_row(*(Text(printable(cell)) for cell in (
            f"  {name}", shown_watermark(watermark), _behind(watermark, until, end is not None),
            f"{len(stored.state.fingerprints.get(name, {})):,}")))
    say.print(table)


def _behind(watermark: int, until: int, is_backfill: bool) -> str:
    if shown_watermark(watermark) == "earliest":
        return "not begun"
    if watermark >= until:
        return "complete" if is_backfill else "0 s"
    return span((until - watermark) / 1e9)
