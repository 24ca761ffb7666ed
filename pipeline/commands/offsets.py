"""`pipeline offsets`: shows, sets and resets what is stored in Iggy for a configuration's consumer.

And for its sources, the marks in their states: in files, or in topics of Iggy.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import click
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.commands.config import load_config
from pipeline.commands.source_offsets import reset_marks, set_mark, show_marks
from pipeline.config.load import DATABASE, SOURCE_CONNECTION
from pipeline.config.schema import Config, Subscription, start_position
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyNotFound
from pipeline.locks import Locked, Locks, lock_offsets
from pipeline.logs import clean
from pipeline.options import Group, config_option
from pipeline.printable import printable
from pipeline.source_coordinator.state_store import lock_states

#: Tables and keys that offsets have nothing to do with.
_UNUSED = (*DATABASE, *SOURCE_CONNECTION, "mapping", "dead_letters", "network", "pipeline", "tests")


class Place(Struct, frozen=True):
    """What is stored for one partition, and where its log ends; -1: nothing stored, or nothing there."""

    source: Subscription
    partition: int
    stored: int
    end: int

    @property
    def lag(self) -> int:
        """Messages after the stored one, those that have expired among them."""
        return max(0, self.end - self.stored)


async def places(iggy: IggyConnection, topics: tuple[Subscription, ...]) -> list[Place]:
    """All partitions of all topics that are there; the others are told of. Raises IggyMissing where none is."""
    found = []
    missing = []
    for source in topics:
        try:
            details = await iggy.topic(source)
        except IggyNotFound as error:
            missing.append(error)
            continue
        for partition in sorted(details.partitions, key=lambda p: p.id):
            if source.partitions and partition.id not in source.partitions:
                continue
            end = partition.current_offset if partition.messages_count or partition.current_offset else -1
            found.append(Place(source, partition.id, await iggy.stored_offset(source, partition.id), end))
    if missing and len(missing) == len(topics):
        raise missing[0]
    for absent in missing:
        click.echo(f"pipeline: warning: {clean(str(absent))}", err=True)
    return found


def subscriptions_of(found: list[Place]) -> tuple[Subscription, ...]:
    """The topics that places are in."""
    return tuple(dict.fromkeys(place.source for place in found))


async def put(iggy: IggyConnection, place: Place, offset: int) -> int:
    """Stores an offset, or the log's last where it is beyond; -1 removes it. Returns what is stored then."""
    offset = min(offset, place.end)
    if offset < 0:
        await iggy.delete_offset(place.source, place.partition)
    else:
        await iggy.store_offset(place.source, place.partition, offset)
    return offset


async def target(iggy: IggyConnection, place: Place, to: str | int) -> int:
    """The offset to store so that reading begins at `to`: "earliest", "latest", a number, or a time.

    To begin with the first message, 0 is stored where there is one: it is then read once more (nothing stored would
    mean `start_from`).
    """
    kind, value = start_position(to)
    if kind == "latest":
        return place.end
    if kind == "timestamp":
        first = await iggy.first_since(place.source, place.partition, value)
        value = first.offset() if first is not None else place.end + 1
    return max(0, value - 1)


@contextlib.contextmanager
def unlocked(config: Config, force: bool) -> Iterator[None]:
    """Keeps pipelines out meanwhile. Raises Locked when one runs, unless forced."""
    locks = Locks()
    try:
        lock_offsets(locks, config)
        lock_states(locks, config)
    except Locked as error:
        if not force:
            raise Locked(f"{error}; or change its offsets under it with --force: it will not notice before its next "
                         "start, and may store its own again") from None
    try:
        yield
    finally:
        locks.release()


@contextlib.asynccontextmanager
async def membership(iggy: IggyConnection, topics: tuple[Subscription, ...]) -> AsyncIterator[None]:
    """Joins the groups meanwhile: only a member may store. Raises PipelineError when there are other members."""
    groups = [source for source in topics if source.group]
    for source in groups:
        if members := len(await iggy.members(source)):
            raise PipelineError(
                f"the group {source.consumer} of {source.label()} has {members} members, and only they "
                "may store its offsets: stop its pipelines. Members that are no pipelines are connections from before "
                "a restart of Iggy; `pipeline offsets regroup` removes them")
        await iggy.join(source)
    try:
        yield
    finally:
        for source in groups:
            await iggy.leave(source)


async def _regroup(iggy: IggyConnection, source: Subscription, found: list[Place]) -> None:
    """Makes a group anew, without members, and with the offsets it had."""
    await iggy.delete_group(source)
    await iggy.join(source)
    for place in found:
        if place.source == source and place.stored >= 0:
            await put(iggy, place, place.stored)
    await iggy.leave(source)


def _run(config: Config, work: Callable[[IggyConnection, list[Place]], Awaitable[None]]) -> None:
    """Connects, looks at all partitions, and does the work on them."""
    async def connected() -> None:
        iggy = IggyConnection(config.iggy)
        await iggy.ensure_connected()
        await work(iggy, await places(iggy, config.subscriptions()))

    asyncio.run(connected())


def show_places(found: list[Place]) -> None:
    """Prints a table."""
    table = Table()
    for heading in ("stream", "topic", "partition", "stored", "end", "lag"):
        table.add_column(heading, justify="left" if heading in ("stream", "topic") else "right")
    for place in found:
        table.add_row(Text(printable(place.source.stream)), Text(printable(place.source.topic)), str(place.partition),
                      str(place.stored) if place.stored >= 0 else "-", str(place.end) if place.end >= 0 else "-",
                      f"{place.lag:,}")
    Console(width=None if Console().is_terminal else 200).print(table)


_FORCE = click.option("--force", is_flag=True, help="Also while a pipeline runs.")


@click.group(cls=Group)
def offsets() -> None:
    """Shows and changes the offsets stored in Iggy."""


@offsets.command()
@config_option
def show(path: str) -> None:
    """What is stored for each partition, where its log ends, and how many messages are between."""
    async def work(_: IggyConnection, found: list[Place]) -> None:
        show_places(found)

    config = load_config(path, unused=_UNUSED)
    if config.subscriptions():
        _run(config, work)
    if config.sources:
        show_marks(config)


@offsets.command(name="set")
@config_option
@click.option("--topic", "name", metavar="STREAM/TOPIC")
@click.option("--partition", type=click.IntRange(0))
@click.option("--offset", type=click.IntRange(0), help="The last one that counts as dealt with.")
@click.option("--source", metavar="NAME", help="Instead of a topic: a source, with --measurement and --time.")
@click.option("--measurement")
@click.option("--time", "begin", metavar="earliest|latest|TIME", help="Where reading of the measurement begins.")
@_FORCE
def set_(path: str, name: str | None, partition: int | None, offset: int | None, source: str | None,
         measurement: str | None, begin: str | None, force: bool) -> None:
    """Stores one offset, after which reading begins; or one measurement's mark, at which it does."""
    config = load_config(path, unused=_UNUSED)
    of_topic, of_source = (name, partition, offset), (source, measurement, begin)
    if source is not None and measurement is not None and begin is not None and of_topic == (None, None, None):
        with unlocked(config, force):
            set_mark(config, source, measurement, begin)
        click.echo(f"{source} {measurement}: reading begins at {begin}")
        return
    if name is None or partition is None or offset is None or of_source != (None, None, None):
        raise click.UsageError("give --topic, --partition and --offset, or --source, --measurement and --time")

    async def work(iggy: IggyConnection, found: list[Place]) -> None:
        place = next((p for p in found if p.source.label() == name
                      and p.partition == partition), None)
        if place is None:
            known = ", ".join(sorted({p.source.label() for p in found}))
            raise PipelineError(f"{name} partition {partition}: not in {path}, which has {known}")
        if offset > place.end:
            raise PipelineError(f"{name} partition {partition} ends at offset {place.end}; give that or less")
        async with membership(iggy, (place.source,)):
            await put(iggy, place, offset)

    with unlocked(config, force):
        _run(config, work)
    click.echo(f"{name} partition {partition}: reading begins at offset {offset + 1 if offset else 0}")


@offsets.command()
@config_option
@click.option("--to", required=True, metavar="earliest|latest|TIME|NUMBER",
              help="The first message to read; a time like 2026-01-31T00:00:00Z.")
@_FORCE
def reset(path: str, to: str, force: bool) -> None:
    """Has all partitions of all topics, and all measurements of all sources, begin somewhere else."""
    config = load_config(path, unused=_UNUSED)
    try:
        where = int(to) if to.isascii() and to.isdigit() else to
        start_position(where)
    except ValueError:
        raise click.BadParameter(f"{to}: give earliest, latest, a number or a time like 2026-01-31T00:00:00Z",
                                 param_hint="--to") from None

    async def work(iggy: IggyConnection, found: list[Place]) -> None:
        async with membership(iggy, subscriptions_of(found)):
            for place in found:
                await put(iggy, place, await target(iggy, place, where))
        show_places(await places(iggy, subscriptions_of(found)))

    with unlocked(config, force):
        if config.sources:
            reset_marks(config, to)
            show_marks(config)
        if config.subscriptions():
            _run(config, work)


@offsets.command()
@config_option
def regroup(path: str) -> None:
    """Makes the consumer group anew with the offsets it has: without members from before a restart of Iggy.

    Stop the pipelines of the group before.
    """
    config = load_config(path, unused=_UNUSED)
    if not config.iggy.consumer_group:
        raise PipelineError(f"{path} has no iggy.consumer_group")

    async def work(iggy: IggyConnection, found: list[Place]) -> None:
        show_places(found)
        for source in subscriptions_of(found):
            await _regroup(iggy, source, found)
        show_places(await places(iggy, subscriptions_of(found)))

    _run(config, work)
