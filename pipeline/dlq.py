"""`pipeline dlq`: looks at the dead letters, replays them, throws them away."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import wraps
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pipeline.config import load_config
from pipeline.dead_letters import DeadLetter, Place, mark, open_letters, places
from pipeline.errors import PipelineError
from pipeline.iggy import IggyConnection
from pipeline.logs import setup_logging
from pipeline.schema import Config
from pipeline.secrets import secrets_of

#: Of a letter's detail, what a table shows.
SHOWN_CHARACTERS = 70


class Filter(msgspec.Struct, frozen=True):
    """Which letters are meant; empty values mean all."""

    reason: str = ""
    topic: str = ""
    since: str = ""
    until: str = ""
    id: str = ""

    def __call__(self, letter: DeadLetter) -> bool:
        """Whether a letter is meant."""
        at = datetime.fromisoformat(letter.time)
        topics = letter.topic, f"{letter.stream}/{letter.topic}"
        return (self.reason in ("", letter.reason) and self.topic in ("", *topics)
                and self.id in ("", letter.id) and (not self.since or at >= datetime.fromisoformat(self.since))
                and (not self.until or at < datetime.fromisoformat(self.until)))


def _time(_: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        if value and datetime.fromisoformat(value).tzinfo is None:
            raise ValueError
    except ValueError:
        raise click.BadParameter(f"{value} is not a time like 2026-01-31T00:00:00Z", param=parameter) from None
    return value


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """-c, --from and the filters, for every command; they arrive as `letters: _Letters`."""

    @click.option("-c", "--config", "path", required=True, metavar="FILE", help="Configuration, TOML.")
    @click.option("--from", "kind", type=click.Choice(["iggy", "file"]),
                  help="Where the letters are kept, if in both.")
    @click.option("--reason", default="", help="Only letters with this reason, e.g. type_conflict.")
    @click.option("--topic", default="", help="Only letters of messages from this topic, or stream/topic.")
    @click.option("--since", default="", callback=_time, metavar="TIME", help="Only letters given up at or after this.")
    @click.option("--until", default="", callback=_time, metavar="TIME", help="Only letters given up before this.")
    @click.option("--id", "id_", default="", help="Only this letter.")
    @wraps(command)
    def wrapped(path: str, kind: str | None, reason: str, topic: str, since: str, until: str, id_: str,
                **others: Any) -> None:
        command(letters=_Letters(load_config(path), kind, Filter(reason, topic, since, until, id_)), **others)

    return wrapped


class _Letters:
    """The places of a configuration and the letters in them that are meant."""

    def __init__(self, config: Config, kind: str | None, chosen: Filter) -> None:
        self.config = config
        self.chosen = chosen
        kinds = places(config, IggyConnection(config.iggy))
        if not kinds or kind is not None and kind not in kinds:
            raise PipelineError("no dead letters are kept there; see [dead_letters] in the configuration")
        self.places = kinds[kind] if kind is not None else next(iter(kinds.values()))

    async def read(self) -> list[tuple[Place, list[DeadLetter]]]:
        """The open letters that are meant, by place."""
        return [(place, list(filter(self.chosen, open_letters(await place.read())))) for place in self.places]


def _run(work: Awaitable[None]) -> None:
    async def awaited() -> None:
        await work

    try:
        asyncio.run(awaited())
    except OSError as error:
        raise PipelineError(f"dead letters: {error}") from None


@click.group()
def dlq() -> None:
    """Dead letters: messages that could not be written."""


@dlq.command("list")
@_options
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="How many are shown.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, without payloads.")
def list_letters(letters: _Letters, limit: int, as_json: bool) -> None:
    """Shows the letters that have been neither replayed nor purged, the newest last."""

    async def work() -> None:
        found = [letter for _, some in await letters.read() for letter in some]
        if as_json:
            for letter in found[-limit:]:
                fields = {**msgspec.to_builtins(letter), "id": letter.id}
                click.echo(json.dumps({key: fields[key] for key in fields if not key.startswith("payload")}))
            return
        table = Table("id", "reason", "status", "detail")
        for letter in found[-limit:]:
            table.add_row(letter.id, letter.reason, str(letter.status or ""), letter.detail[:SHOWN_CHARACTERS])
        console = Console(width=None if sys.stdout.isatty() else 200)
        console.print(table)
        console.print(f"{len(found):,} letters, {min(limit, len(found)):,} shown")

    _run(work())


@dlq.command()
@_options
def show(letters: _Letters) -> None:
    """Shows everything of the letters that are meant; usually one, with --id."""

    async def work() -> None:
        found = [letter for _, some in await letters.read() for letter in some]
        if not found:
            raise PipelineError("there is no such letter; `pipeline dlq list` shows what there is")
        for letter in found:
            click.echo(json.dumps({"id": letter.id, **msgspec.to_builtins(letter)}, indent=2, ensure_ascii=False))

    _run(work())


@dlq.command()
@_options
@click.option("--dry-run", is_flag=True, help="Only says what would be done.")
def replay(letters: _Letters, dry_run: bool) -> None:
    """Writes the letters' messages again, through the mapping as it is now; marks those that are stored."""
    from pipeline.replay import Replay

    async def work() -> None:
        stored = failed = 0
        reasons: dict[str, int] = {}
        for place, found in await letters.read():
            if dry_run:
                click.echo(f"{place.name}: {len(found):,} letters would be replayed")
                continue
            writer = Replay(letters.config, setup_logging("replay", letters.config.pipeline.log_level,
                                                                  secrets_of(letters.config)))
            with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
                task = progress.add_task(place.name, total=len(found))
                for outcome in writer.run(found):
                    await place.append(mark("replayed", outcome.stored))
                    stored, failed = stored + len(outcome.stored), failed + len(outcome.failed)
                    progress.advance(task, len(outcome.stored) + len(outcome.failed))
                    for _, why in outcome.failed:
                        reasons[why] = reasons.get(why, 0) + 1
        if not dry_run:
            for why, count in sorted(reasons.items(), key=lambda item: -item[1])[:20]:
                click.echo(f"{count:,} still can't be written: {why}", err=True)
            click.echo(f"{stored:,} stored and marked, {failed:,} still dead")
            if failed:
                raise PipelineError(f"{failed:,} letters still can't be written; they are kept")

    _run(work())


@dlq.command()
@_options
@click.option("--dry-run", is_flag=True, help="Only says what would be done.")
@click.option("--yes", is_flag=True, help="Doesn't ask.")
def purge(letters: _Letters, dry_run: bool, yes: bool) -> None:
    """Throws the letters away: all for good, or those that filters choose by a mark."""

    async def work() -> None:
        for place, found in await letters.read():
            if dry_run:
                click.echo(f"{place.name}: {len(found):,} letters would be purged")
                continue
            if not yes and not click.confirm(f"Purge {len(found):,} letters of {place.name}?"):
                raise PipelineError("nothing was purged")
            if letters.chosen == Filter():
                await place.clear()
            else:
                await place.append(mark("purged", found))
            click.echo(f"{place.name}: {len(found):,} letters purged")

    _run(work())
