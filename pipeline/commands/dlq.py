"""`pipeline dlq`: lists the dead letters, shows them, replays them, purges them.

What else is in their topic or file is counted, said on standard error, and left out; `purge` removes it, too.
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

#: Of a letter's detail, what a table shows.
SHOWN_CHARACTERS = 70
#: Letters, topics or reasons that an error names.
NAMED = 10
#: Letters replayed at once.
LETTERS_AT_ONCE = 500
#: Bytes of one tombstone, about.
TOMBSTONE_BYTES = 500_000


class Filter(msgspec.Struct, frozen=True):
    """Which letters are meant; empty values mean all."""

    reason: str = ""
    topic: str = ""
    since: str = ""
    until: str = ""
    #: As `matching_ids` takes it.
    id: str = ""

    def __call__(self, letter: DeadLetter) -> bool:
        """Whether a letter is meant, but for `id`."""
        return (self.reason in ("", letter.reason) and self.topic in ("", *topics_of(letter))
                and (not self.since or letter.at >= datetime.fromisoformat(self.since))
                and (not self.until or letter.at < datetime.fromisoformat(self.until)))


def topics_of(letter: DeadLetter) -> tuple[str, str]:
    """What --topic may say of a letter."""
    return letter.topic, f"{letter.stream}/{letter.topic}"


def chosen_letters(contents: list[Contents], chosen: Filter, configured: set[str]) -> list[list[DeadLetter]]:
    """The letters that a filter means, by store. `configured`: topics of the configuration, with and without stream.

    Raises PipelineError where the filter names a reason or a topic that there isn't, or an id that fits several.
    """
    everything = [letter for one in contents for letter in one.letters]
    _check_name("reason", chosen.reason, Counter(letter.reason for letter in everything), REASONS)
    _check_name("topic", chosen.topic, Counter(name for letter in everything for name in topics_of(letter)), configured)
    found = [[letter for letter in one.letters if chosen(letter)] for one in contents]
    if not chosen.id:
        return found
    ids = matching_ids((letter.id for some in found for letter in some), chosen.id)
    if len(ids) > 1:
        raise PipelineError(f"{printable(chosen.id)} may be {len(ids):,} letters: " + _some(
            [f"{short_id(id_)} ({printable(id_)})" for id_ in ids]) + "; give more of one")
    return [[letter for letter in some if letter.id in ids] for some in found]


def _check_name(what: str, given: str, there: Counter[str], known: Collection[str]) -> None:
    """Raises PipelineError for a name that nothing has and nothing can have; says on stderr what there is instead."""
    if not given or given in there:
        return
    have = _some([f"{printable(name)} ({count:,})" for name, count in there.most_common()]) or "none"
    if given not in known:
        raise PipelineError(f"--{what} {printable(given)}: there is no such {what}; the letters have: {have}"
                            + (f"; possible are: {', '.join(sorted(known))}" if known else ""))
    click.echo(f"no letter has the {what} {printable(given)}; they have: {have}", err=True)


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f", and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def _time(_: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        if value and datetime.fromisoformat(value).tzinfo is None:
            raise ValueError
    except ValueError:
        raise click.BadParameter(f"{value} is not a time like 2026-01-31T00:00:00Z", param=parameter) from None
    return value


#: Tables and keys of the configuration that commands don't use: `replay`, and the others.
_UNUSED = {"replay": ("sources", "network", "tests")}
_NO_DATABASE = (*DATABASE, "mapping", *_UNUSED["replay"])


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """-c, --from and the filters, for every command; they arrive as `letters: _Letters`."""

    @config_option
    @log_level_option
    @click.option("--from", "kind", type=click.Choice(["iggy", "file"]),
                  help="Where the letters are kept, if in both.")
    @click.option("--reason", default="", help="Only letters with this reason, e.g. type_conflict.")
    @click.option("--topic", default="", help="Only letters of messages from this topic, or stream/topic.")
    @click.option("--since", default="", callback=_time, metavar="TIME", help="Only letters given up at or after this.")
    @click.option("--until", default="", callback=_time, metavar="TIME", help="Only letters given up before this.")
    @click.option("--id", "id_", default="", metavar="ID", help="Only this letter: its id as listed, or enough of it.")
    @wraps(command)
    def wrapped(path: str, log_level: str | None, kind: str | None, reason: str, topic: str, since: str, until: str,
                id_: str, **others: Any) -> None:
        config = load_config(path, options={"log_level": log_level}, unused=_UNUSED.get(command.__name__, _NO_DATABASE))
        command(letters=_Letters(config, kind, Filter(reason, topic, since, until, id_)), **others)

    return wrapped


class _Letters:
    """The stores of a configuration and the letters in them that are meant."""

    def __init__(self, config: Config, kind: str | None, chosen: Filter) -> None:
        self.config = config
        self.chosen = chosen
        self.iggy = IggyConnection(config.iggy)
        kinds = stores(config, self.iggy, logging.getLogger("dlq"))
        if not kinds or kind is not None and kind not in kinds:
            raise PipelineError("no dead letters are kept there; see [dead_letters] in the configuration")
        self.stores = kinds[kind] if kind is not None else next(iter(kinds.values()))

    async def read(self) -> list[tuple[DeadLetterStore, Contents, list[DeadLetter]]]:
        """Each store, all that it holds, and the letters in it that are meant, without payloads. Tells of bad records.

        Raises PipelineError.
        """
        contents = []
        for store in self.stores:
            contents.append(found := await read_contents(store))
            if found.bad:
                click.echo(f"pipeline: warning: {printable(store.name)}: {found.bad:,} records are no dead letters of "
                           f"ours, and are left out; the first is {found.example}", err=True)
        topics = self.config.subscriptions()
        configured = {name for one in topics for name in (one.topic, f"{one.stream}/{one.topic}")}
        meant = chosen_letters(contents, self.chosen, configured)
        return list(zip(self.stores, contents, meant, strict=True))

    async def whole(self) -> list[DeadLetter]:
        """The letters that are meant, with their payloads."""
        return [letter for store, _, meant in await self.read()
                async for some in read_letters(store, [letter.id for letter in meant], LETTERS_AT_ONCE)
                for letter in some]


async def _mark(store: DeadLetterStore, kind: str, letters: list[DeadLetter]) -> None:
    """Marks letters "replayed" or "purged"."""
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
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="How many are shown.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, without payloads.")
def list_letters(letters: _Letters, limit: int, as_json: bool) -> None:
    """Shows the letters that have been neither replayed nor purged, the newest last."""

    async def work() -> None:
        found = [letter for _, _, some in await letters.read() for letter in some]
        if as_json:
            for letter in found[-limit:]:
                ids = {"id": letter.id, "short_id": short_id(letter.id)}
                click.echo(json.dumps({**msgspec.to_builtins(letter), **ids}))
            return
        table = Table()
        table.add_column("id", no_wrap=True, min_width=SHORT_ID_DIGITS)
        for heading in ("message", "given up", "reason", "status", "detail"):
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
    """Shows everything of the letters that are meant; usually one, with --id."""

    async def work() -> None:
        found = await letters.whole()
        if not found:
            raise PipelineError("there is no such letter; `pipeline dlq list` shows what there is")
        for letter in found:
            shown = {"id": letter.id, "short_id": short_id(letter.id), **msgspec.to_builtins(letter)}
            click.echo(printable_json(json.dumps(shown, indent=2, ensure_ascii=False)))

    _run(work())


@dlq.command()
@_options
@click.option("--dry-run", is_flag=True, help="Only says what would be done.")
def replay(letters: _Letters, dry_run: bool) -> None:
    """Writes the letters' messages again, through the mapping as it is now; marks those that are stored."""
    from pipeline.commands.dlq_replay import Replay

    async def work() -> None:
        stored = failed = overwritten = 0
        reasons: Counter[str] = Counter()
        writer = Replay(letters.config, setup_logging("replay", letters.config.pipeline.log_level,
                                                      secrets_of(letters.config)))
        for store, _, meant in await letters.read():
            if dry_run:
                click.echo(f"{printable(store.name)}: {len(meant):,} letters would be replayed")
                continue
            with Progress(console=Console(stderr=True, markup=False), disable=not sys.stderr.isatty()) as progress:
                task = progress.add_task("replay", total=len(meant))
                async for some in read_letters(store, [letter.id for letter in meant], LETTERS_AT_ONCE):
                    for outcome in writer.run([await find_payload(letter, letters.iggy) for letter in some]):
                        await _mark(store, "replayed", outcome.stored)
                        stored, failed = stored + len(outcome.stored), failed + len(outcome.failed)
                        progress.advance(task, len(outcome.stored) + len(outcome.failed))
                        overwritten += outcome.overwritten
                        reasons.update(why for _, why in outcome.failed)
        if not dry_run:
            for why, count in reasons.most_common(20):
                click.echo(f"{count:,} still can't be written: {printable(why)}", err=True)
            click.echo(f"{stored:,} stored and marked, {failed:,} still dead"
                       + (f"; {overwritten:,} points overwritten by others" if overwritten else ""))
            if failed:
                raise PipelineError(f"{failed:,} letters still can't be written; they are kept")

    _run(work())


@dlq.command()
@_options
@click.option("--dry-run", is_flag=True, help="Only says what would be done.")
@click.option("--yes", is_flag=True, help="Doesn't ask.")
def purge(letters: _Letters, dry_run: bool, yes: bool) -> None:
    """Removes the letters: all for good, with whatever else is there; or those that filters choose by a mark."""

    async def work() -> None:
        for store, contents, meant in await letters.read():
            everything = letters.chosen == Filter()
            what = f"{len(meant):,} letters" + (f" and {contents.bad:,} other records"
                                                if everything and contents.bad else "")
            if dry_run:
                click.echo(f"{printable(store.name)}: {what} would be purged")
                continue
            if not yes and not click.confirm(f"Purge {what} of {printable(store.name)}?"):
                raise PipelineError("nothing was purged")
            if everything:
                await store.clear()
            else:
                await _mark(store, "purged", meant)
            click.echo(f"{printable(store.name)}: {what} purged")

    _run(work())
