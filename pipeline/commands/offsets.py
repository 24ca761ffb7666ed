"""`pipeline offsets`: shows, sets and resets the offsets that Iggy stores for a configuration's consumer.

For sources it does the same with the watermarks in their states.
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
from pipeline.commands.source_offsets import print_watermarks, reset_watermarks, set_watermark
from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import DATABASE, SOURCE_CONNECTION
from pipeline.config.schema import Config, Subscription, start_position
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyNotFound
from pipeline.iggy.topic_patterns import with_found_topics
from pipeline.locks import Locked, Locks, lock_offsets
from pipeline.logs import clean
from pipeline.options import Group, config_option
from pipeline.printable import printable
from pipeline.source_coordinator.state_store import lock_states
from pipeline.topic_configs import unmatched

#: Tables and keys that are not used here.
_UNUSED = (*DATABASE, *SOURCE_CONNECTION, "mapping", "dead_letters", "network", "http", "otlp", "pipeline",
           "tests")


class PartitionOffset(Struct, frozen=True):
    """The offset stored for one partition, and where the partition's log ends."""

    topic: Subscription
    partition: int
    #: -1: none is stored.
    stored: int
    #: Offset of the last message; -1: there is none.
    end: int

    @property
    def lag(self) -> int:
        """Messages after the stored offset, including those that have expired."""
        return max(0, self.end - self.stored)


async def read_offsets(iggy: IggyConnection, topics: tuple[Subscription, ...]) -> list[PartitionOffset]:
    """All partitions of all topics that exist; prints a warning for the others. Raises IggyNotFound if none exists."""
    found = []
    missing = []
    for topic in topics:
        try:
            details = await iggy.topic(topic)
        except IggyNotFound as error:
            missing.append(error)
            continue
        for partition in sorted(details.partitions, key=lambda p: p.id):
            if topic.partitions and partition.id not in topic.partitions:
                continue
            end = partition.current_offset if partition.messages_count or partition.current_offset else -1
            found.append(PartitionOffset(topic, partition.id, await iggy.stored_offset(topic, partition.id), end))
    if missing and len(missing) == len(topics):
        raise missing[0]
    for absent in missing:
        click.echo(f"pipeline: warning: {clean(str(absent))}", err=True)
    return found


def topics_of(found: list[PartitionOffset]) -> tuple[Subscription, ...]:
    """The topics of the partitions."""
    return tuple(dict.fromkeys(one.topic for one in found))


async def store_offset(iggy: IggyConnection, where: PartitionOffset, offset: int) -> None:
    """Stores an offset, at most the last one of the log; -1 removes the stored one."""
    offset = min(offset, where.end)
    if offset < 0:
        await iggy.delete_offset(where.topic, where.partition)
    else:
        await iggy.store_offset(where.topic, where.partition, offset)


async def offset_before(iggy: IggyConnection, where: PartitionOffset, to: str | int) -> int:
    """The offset to store so that reading starts at `to`: "earliest", "latest", a number, or a time.

    For the first message it is 0, so that this message is read twice: with no offset stored, `start_from` would apply.
    """
    kind, value = start_position(to)
    if kind == "latest":
        return where.end
    if kind == "timestamp":
        first = await iggy.first_since(where.topic, where.partition, value)
        value = first.offset() if first is not None else where.end + 1
    return max(0, value - 1)


@contextlib.contextmanager
def unlocked(config: Config, force: bool) -> Iterator[None]:
    """Holds the locks of a pipeline, so that none starts meanwhile. Raises Locked if one runs, unless forced."""
    locks = Locks()
    try:
        lock_offsets(locks, config)
        lock_states(locks, config)
    except Locked as error:
        if not force:
            raise Locked(f"{error}; or use --force to change the offsets of a running pipeline: it reads them at its "
                         "next start, and may overwrite them before") from None
    try:
        yield
    finally:
        locks.release()


@contextlib.asynccontextmanager
async def membership(iggy: IggyConnection, topics: tuple[Subscription, ...]) -> AsyncIterator[None]:
    """Joins the consumer groups for a while: only a member may store. Raises PipelineError if there are members."""
    groups = [topic for topic in topics if topic.group]
    for topic in groups:
        if members := len(await iggy.members(topic)):
            raise PipelineError(
                f"the group {topic.consumer} of {topic.label()} has {members} members, and only they may "
                "store its offsets: stop its pipelines. Members that are no longer running are connections from before "
                "a restart of Iggy; `pipeline offsets regroup` removes them")
        await iggy.join(topic)
    try:
        yield
    finally:
        for topic in groups:
            await iggy.leave(topic)


async def _regroup(iggy: IggyConnection, topic: Subscription, found: list[PartitionOffset]) -> None:
    """Deletes a consumer group and creates it again, without members and with the same offsets."""
    await iggy.delete_group(topic)
    await iggy.join(topic)
    for one in found:
        if one.topic == topic and one.stored >= 0:
            await store_offset(iggy, one, one.stored)
    await iggy.leave(topic)


def _run(config: Config, work: Callable[[IggyConnection, list[PartitionOffset]], Awaitable[None]]) -> None:
    """Connects to Iggy, reads the offsets of all partitions, and does the work on them."""
    async def connected() -> None:
        iggy = IggyConnection(config.iggy)
        await iggy.ensure_connected()
        found = await with_found_topics(iggy, config)
        for pattern in unmatched(config, found):
            click.echo(f"pipeline: warning: no topic matches {printable(pattern.label())} yet", err=True)
        await work(iggy, await read_offsets(iggy, found.subscriptions()))

    asyncio.run(connected())


def print_offsets(found: list[PartitionOffset]) -> None:
    """Prints a table."""
    table = Table()
    for heading in ("stream", "topic", "partition", "stored", "end", "lag"):
        table.add_column(heading, justify="left" if heading in ("stream", "topic") else "right")
    for one in found:
        table.add_row(Text(printable(one.topic.stream)), Text(printable(one.topic.topic)), str(one.partition),
                      str(one.stored) if one.stored >= 0 else "-", str(one.end) if one.end >= 0 else "-",
                      f"{one.lag:,}")
    Console(width=None if Console().is_terminal else 200).print(table)


_FORCE = click.option("--force", is_flag=True, help="Even while a pipeline runs.")


@click.group(cls=Group)
def offsets() -> None:
    """Shows and changes the offsets stored in Iggy."""


@offsets.command()
@config_option
def show(path: ConfigInputs) -> None:
    """Shows the stored offset of each partition, where its log ends, and the lag."""
    async def work(_: IggyConnection, found: list[PartitionOffset]) -> None:
        print_offsets(found)

    config = load_config(path, unused=_UNUSED)
    if config.subscriptions():
        _run(config, work)
    if config.sources:
        print_watermarks(config)


@offsets.command(name="set")
@config_option
@click.option("--topic", "name", metavar="STREAM/TOPIC")
@click.option("--partition", type=click.IntRange(0))
@click.option("--offset", type=click.IntRange(0), help="The last offset that counts as settled.")
@click.option("--source", metavar="NAME", help="A source instead of a topic, with --measurement and --time.")
@click.option("--measurement")
@click.option("--time", "begin", metavar="earliest|latest|TIME", help="Where reading of the measurement starts.")
@_FORCE
def set_(path: ConfigInputs, name: str | None, partition: int | None, offset: int | None, source: str | None,
         measurement: str | None, begin: str | None, force: bool) -> None:
    """Stores one offset, after which reading starts; or one measurement's watermark, at which reading starts."""
    config = load_config(path, unused=_UNUSED)
    of_topic, of_source = (name, partition, offset), (source, measurement, begin)
    if source is not None and measurement is not None and begin is not None and of_topic == (None, None, None):
        with unlocked(config, force):
            set_watermark(config, source, measurement, begin)
        click.echo(f"{source} {measurement}: reading begins at {begin}")
        return
    if name is None or partition is None or offset is None or of_source != (None, None, None):
        raise click.UsageError("give --topic, --partition and --offset, or --source, --measurement and --time")

    async def work(iggy: IggyConnection, found: list[PartitionOffset]) -> None:
        chosen = next((one for one in found if one.topic.label() == name and one.partition == partition), None)
        if chosen is None:
            known = ", ".join(sorted({one.topic.label() for one in found}))
            raise PipelineError(f"{name} partition {partition}: not in {path}, which has {known}")
        if offset > chosen.end:
            raise PipelineError(f"{name} partition {partition} ends at offset {chosen.end}; give that or less")
        async with membership(iggy, (chosen.topic,)):
            await store_offset(iggy, chosen, offset)

    with unlocked(config, force):
        _run(config, work)
    click.echo(f"{name} partition {partition}: reading begins at offset {offset + 1 if offset else 0}")


@offsets.command()
@config_option
@click.option("--to", required=True, metavar="earliest|latest|TIME|NUMBER",
              help="The first message to read; a time like 2026-01-31T00:00:00Z.")
@_FORCE
def reset(path: ConfigInputs, to: str, force: bool) -> None:
    """Changes where reading starts: for all partitions of all topics, and all measurements of all sources."""
    config = load_config(path, unused=_UNUSED)
    try:
        position = int(to) if to.isascii() and to.isdigit() else to
        start_position(position)
    except ValueError:
        raise click.BadParameter(f"{to}: give earliest, latest, a number or a time like 2026-01-31T00:00:00Z",
                                 param_hint="--to") from None

    async def work(iggy: IggyConnection, found: list[PartitionOffset]) -> None:
        async with membership(iggy, topics_of(found)):
            for one in found:
                await store_offset(iggy, one, await offset_before(iggy, one, position))
        print_offsets(await read_offsets(iggy, topics_of(found)))

    with unlocked(config, force):
        if config.sources:
            reset_watermarks(config, to)
            print_watermarks(config)
        if config.subscriptions():
            _run(config, work)


@offsets.command()
@config_option
def regroup(path: ConfigInputs) -> None:
    """Creates the consumer group again, with its offsets and without members from before a restart of Iggy.

    Stop the group's pipelines first.
    """
    config = load_config(path, unused=_UNUSED)
    if not config.iggy.consumer_group:
        raise PipelineError(f"{path} has no iggy.consumer_group, and only groups have members")

    async def work(iggy: IggyConnection, found: list[PartitionOffset]) -> None:
        print_offsets(found)
        for topic in topics_of(found):
            await _regroup(iggy, topic, found)
        print_offsets(await read_offsets(iggy, topics_of(found)))

    _run(config, work)
