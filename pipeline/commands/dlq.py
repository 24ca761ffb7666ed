"""`pipeline dlq`: lists dead letters, shows them, replays them, purges them.

Records in their topic or file that are not dead letters are counted and reported on standard error; `purge` without
filters removes them, too.
"""

import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from functools import wraps
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pipeline.commands.config import load_config
from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import DATABASE
from pipeline.config.schema import Config
from pipeline.config.secrets import secrets_of
from pipeline.dead_letters.letters import SHORT_ID_DIGITS, DeadLetter, matching_ids, short_id, tombstones
from pipeline.dead_letters.stores import Contents, DeadLetterStore, find_payload, read_contents, read_letters, stores
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.logs import setup_logging
from pipeline.options import Group, config_option, log_level_option
from pipeline.printable import printable, printable_json
from pipeline.reasons import REASONS

#: Characters of a letter's detail that a table shows.
SHOWN_CHARACTERS = 70
#: Most letters, topics or reasons that an error names.
MAX_NAMED = 10
#: Letters read with their payloads, and replayed, in one batch.
LETTERS_AT_ONCE = 500
#: Largest record of tombstones, bytes, in about.
TOMBSTONE_BYTES = 500_000
#: Most reasons of failures that a replay prints.
MAX_REASONS = 20


class Filter(msgspec.Struct, frozen=True):
    """Selects letters; an empty value selects all."""

    reason: str = ""
    topic: str = ""
    since: str = ""
    until: str = ""
    #: An id, or the beginning of one; see `matching_ids`.
    id: str = ""

    def __call__(self, letter: DeadLetter) -> bool:
        """Whether a letter is selected by all but `id`."""
        return (self.reason in ("", letter.reason) and self.topic in ("", *topics_of(letter))
                and (not self.since or letter.at >= datetime.fromisoformat(self.since))
                and (not self.until or letter.at < datetime.fromisoformat(self.until)))


def topics_of(letter: DeadLetter) -> tuple[str, str]:
    """The values of --topic that select a letter."""
    return letter.topic, f"{letter.stream}/{letter.topic}"


def select_letters(contents: list[Contents], chosen: Filter, configured: set[str]) -> list[list[DeadLetter]]:
    """The letters that a filter selects, by store. `configured`: topics of the configuration, with and without stream.

    Raises PipelineError for a reason or a topic that does not exist, and for an id that several letters match.
    """
    everything = [letter for one in contents for letter in one.letters]
    _check_name("reason", chosen.reason, Counter(letter.reason for letter in everything), REASONS)
    _check_name("topic", chosen.topic, Counter(name for letter in everything for name in topics_of(letter)), configured)
    found = [[letter for letter in one.letters if chosen(letter)] for one in contents]
    if not chosen.id:
        return found
    ids = matching_ids((letter.id for some in found for letter in some), chosen.id)
    if len(ids) > 1:
        raise PipelineError(f"--id {printable(chosen.id)} matches {len(ids):,} letters: " + _some(
            [f"{short_id(id_)} ({printable(id_)})" for id_ in ids]) + "; give more digits of one")
    return [[letter for letter in some if letter.id in ids] for some in found]


def _check_name(what: str, given: str, found: Counter[str], known: Collection[str]) -> None:
    """Prints to stderr that no letter has this reason or topic; raises PipelineError if none can have it."""
    if not given or given in found:
        return
    existing = _some([f"{printable(name)} ({count:,})" for name, count in found.most_common()]) or "none"
    if given not in known:
        raise PipelineError(f"--{what} {printable(given)}: there is no such {what}; the letters have: {existing}"
                            + (f"; possible are: {', '.join(sorted(known))}" if known else ""))
    click.echo(f"no letter has the {what} {printable(given)}; they have: {existing}", err=True)


def _some(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (f", and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else "")


def _time(_: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        if value and datetime.fromisoformat(value).tzinfo is None:
            raise ValueError
    except ValueError:
        raise click.BadParameter(f"{value} is not a time like 2026-01-31T00:00:00Z", param=parameter) from None
    return value


#: Tables and keys of the configuration that `replay` does not use, and those that the other commands do not use.
_UNUSED = {"replay": ("sources", "network", "http", "otlp", "tests")}
_NO_DATABASE = (*DATABASE, "mapping", *_UNUSED["replay"])


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """-c, --from and the filters, for every command; they arrive as `letters: _Letters`."""

    @config_option
    @log_level_option
    @click.option("--from", "kind", type=click.Choice(["iggy", "file"]),
                  help="The store, if there are both.")
    @click.option("--reason", default="", help="Only letters with this reason, e.g. type_conflict.")
    @click.option("--topic", default="", help="Only letters of messages from this topic, or stream/topic.")
    @click.option("--since", default="", callback=_time, metavar="TIME", help="Only letters since this time.")
    @click.option("--until", default="", callback=_time, metavar="TIME", help="Only letters before this time.")
    @click.option("--id", "id_", default="", metavar="ID", help="Only this letter: its id as listed, or enough of it.")
    @wraps(command)
    def wrapped(path: ConfigInputs, log_level: str | None, kind: str | None, reason: str, topic: str, since: str,
                until: str, id_: str, **others: Any) -> None:
        config = load_config(path, options={"log_level": log_level}, unused=_UNUSED.get(command.__name__, _NO_DATABASE))
        command(letters=_Letters(config, kind, Filter(reason, topic, since, until, id_)), **others)

    return wrapped


class _Letters:
    """The stores of a configuration, and the selected letters in them."""

    def __init__(self, config: Config, kind: str | None, chosen: Filter) -> None:
        self.config = config
        self.chosen = chosen
        self.iggy = IggyConnection(config.iggy)
        by_kind = stores(config, self.iggy, logging.getLogger("dlq"))
        if not by_kind or kind is not None and kind not in by_kind:
            raise PipelineError("the configuration has no such dead-letter store; see dead_letters.stores in it")
        self.stores = by_kind[kind] if kind is not None else next(iter(by_kind.values()))

    async def read(self) -> list[tuple[DeadLetterStore, Contents, list[DeadLetter]]]:
        """Each store, its contents, and its selected letters without payloads. Prints a warning about bad records.

        Raises PipelineError.
        """
        contents = []
        for store in self.stores:
            contents.append(found := await read_contents(store))
            if found.bad:
                click.echo(f"pipeline: warning: {printable(store.name)}: {found.bad:,} records are not dead letters of "
                           f"a pipeline, and are left out; the first is {found.example}", err=True)
        topics = self.config.subscriptions()
        configured = {name for one in topics for name in (one.topic, f"{one.stream}/{one.topic}")}
        selected = select_letters(contents, self.chosen, configured)
        return list(zip(self.stores, contents, selected, strict=True))

    async def read_whole(self) -> list[DeadLetter]:
        """The selected letters with their payloads. Raises PipelineError."""
        return [letter for store, _, selected in await self.read()
                async for batch in read_letters(store, [letter.id for letter in selected], LETTERS_AT_ONCE)
                for letter in batch]


async def _append_tombstones(store: DeadLetterStore, kind: str, letters: list[DeadLetter]) -> None:
    """Marks letters as "replayed" or "purged". Raises PipelineError."""
    for record in tombstones(kind, [letter.id for letter in letters], min(TOMBSTONE_BYTES, store.max_bytes)):
        await store.append([record])


def _run(work: Awaitable[None]) -> None:
    async def awaited() -> None:
        await work

    asyncio.run(awaited())


@click.group(cls=Group)
def dlq() -> None:
    """Dead letters: messages that could not be written."""


@dlq.command("list")
@_options
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="How many to show.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, without payloads.")
def list_letters(letters: _Letters, limit: int, as_json: bool) -> None:
    """Lists the letters that were neither replayed nor purged, the newest last."""

    async def work() -> None:
        found = [letter for _, _, selected in await letters.read() for letter in selected]
        if as_json:
            for letter in found[-limit:]:
                ids = {"id": letter.id, "short_id": short_id(letter.id)}
                click.echo(json.dumps({**msgspec.to_builtins(letter), **ids}))
            return
        table = Table()
        table.add_column("id", no_wrap=True, min_width=SHORT_ID_DIGITS)
        for heading in ("message", "time", "reason", "status", "detail"):
            table.add_column(heading, overflow="fold")
        for letter in found[-limit:]:
            table.add_row(*map(printable, (
                short_id(letter.id), f"{letter.stream}/{letter.topic}/{letter.partition}/{letter.offset}",
                letter.time[:19], letter.reason, str(letter.status or ""), _detail(letter))))
        console = Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False, emoji=False)
        console.print(table)
        console.print(f"{len(found):,} letters, {min(limit, len(found)):,} shown")

    _run(work())


def _detail(letter: DeadLetter) -> str:
    omitted = f"(payload of {letter.payload_length:,} bytes not kept) " if letter.payload_omitted else ""
    return omitted + (letter.detail if len(letter.detail) <= SHOWN_CHARACTERS
                      else letter.detail[:SHOWN_CHARACTERS - 1] + "…")


@dlq.command()
@_options
def show(letters: _Letters) -> None:
    """Shows letters with their payloads; usually one, with --id."""

    async def work() -> None:
        found = await letters.read_whole()
        if not found:
            raise PipelineError("there is no such letter; `pipeline dlq list` shows those that exist")
        for letter in found:
            shown = {"id": letter.id, "short_id": short_id(letter.id), **msgspec.to_builtins(letter)}
            click.echo(printable_json(json.dumps(shown, indent=2, ensure_ascii=False)))

    _run(work())


@dlq.command()
@_options
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
def replay(letters: _Letters, dry_run: bool) -> None:
    """Writes the letters' messages through the current mapping; marks those that are stored."""
    from pipeline.commands.dlq_replay import Replay

    async def work() -> None:
        stored = failed = overwritten = 0
        reasons: Counter[str] = Counter()
        writer = Replay(letters.config, setup_logging("replay", letters.config.pipeline.log_level,
                                                      secrets_of(letters.config)))
        for store, _, selected in await letters.read():
            if dry_run:
                click.echo(f"{printable(store.name)}: {len(selected):,} letters would be replayed")
                continue
            with Progress(console=Console(stderr=True, markup=False), disable=not sys.stderr.isatty()) as progress:
                task = progress.add_task("replay", total=len(selected))
                async for batch in read_letters(store, [letter.id for letter in selected], LETTERS_AT_ONCE):
                    for outcome in writer.run([await find_payload(letter, letters.iggy) for letter in batch]):
                        await _append_tombstones(store, "replayed", outcome.stored)
                        stored, failed = stored + len(outcome.stored), failed + len(outcome.failed)
                        progress.advance(task, len(outcome.stored) + len(outcome.failed))
                        overwritten += outcome.overwritten
                        reasons.update(why for _, why in outcome.failed)
        if not dry_run:
            for why, count in reasons.most_common(MAX_REASONS):
                click.echo(f"{count:,} still cannot be written: {printable(why)}", err=True)
            click.echo(f"{stored:,} stored and marked, {failed:,} still dead"
                       + (f"; {overwritten:,} points overwritten by others" if overwritten else ""))
            if failed:
                raise PipelineError(f"{failed:,} letters still cannot be written; they are kept")

    _run(work())


@dlq.command()
@_options
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(letters: _Letters, dry_run: bool, yes: bool) -> None:
    """Removes letters: without filters their topic or file is emptied, with filters they are marked as purged."""

    async def work() -> None:
        for store, contents, selected in await letters.read():
            everything = letters.chosen == Filter()
            what = f"{len(selected):,} letters" + (f" and {contents.bad:,} other records"
                                                if everything and contents.bad else "")
            if dry_run:
                click.echo(f"{printable(store.name)}: {what} would be purged")
                continue
            if not yes and not click.confirm(f"Purge {what} of {printable(store.name)}?"):
                raise PipelineError("nothing was purged")
            if everything:
                await store.clear()
            else:
                await _append_tombstones(store, "purged", selected)
            click.echo(f"{printable(store.name)}: {what} purged")

    _run(work())
