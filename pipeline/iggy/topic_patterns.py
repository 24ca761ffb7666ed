"""The topics of a server that the patterns of a configuration match."""

from collections.abc import Awaitable, Callable, Iterable

from pipeline.config.feedback import is_id, written_topics
from pipeline.config.patterns import is_pattern, matches_any
from pipeline.config.schema import Config
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyNotFound
from pipeline.subscriptions import first_match
from pipeline.topic_configs import with_topics
from pipeline.wire.sink import FoundTopic


async def find_topics(iggy: IggyConnection, config: Config, seen: set[tuple[str, str]] | None = None,
                      skipped: Callable[[str], None] = lambda why: None,
                      topics_of: Callable[[str], Awaitable[Iterable[str]]] | None = None) -> list[FoundTopic]:
    """The topics that patterns match, and that this configuration does not write to.

    Those that were `seen`, as (stream, topic), are left out, and all are added there. `skipped` is told why one cannot
    be read. `topics_of` gives the names of a stream's topics. Raises IggyError, and IggyForbidden where the user may
    not list topics.
    """
    seen = set() if seen is None else seen
    configured = config.subscriptions()
    patterns = list(dict.fromkeys(one.stream for one in configured if one.is_pattern))
    streams = [name for name in patterns if not is_pattern(name)]
    if len(streams) < len(patterns):
        streams = [name for name in await iggy.streams() if matches_any(name, patterns)]
    writes = written_topics(config)
    found = []
    new: list[tuple[str, str]] = []
    for stream in streams:
        try:
            names = await (topics_of or iggy.topics_of)(stream)
        except IggyNotFound:
            continue  # there may be one later
        new += [(stream, topic) for topic in names if (stream, topic) not in seen]
    for stream, topic in new:
        matches = [] if writes(stream, topic) else list(first_match(configured, stream, topic))
        if matches and (is_id(stream) or is_id(topic)):
            skipped(f"{stream}/{topic} is not read: its name is a number, which Iggy's client reads as an id; rename "
                    "it in Iggy")
        else:
            found += matches
    seen.update(new)
    return found


async def with_found_topics(iggy: IggyConnection, config: Config) -> Config:
    """The configuration with the topics of the server in place of the patterns that match them. Raises IggyError."""
    return with_topics(config, await find_topics(iggy, config)) \
        if any(one.is_pattern for one in config.subscriptions()) else config


async def first_found(config: Config, subscription: int) -> tuple[str, str] | None:
    """Stream and name of the first topic of the server that one pattern is to read; None while there is none."""
    iggy = IggyConnection(config.iggy)
    await iggy.ensure_connected()
    found = [one for one in await find_topics(iggy, config) if one.pattern == subscription]
    return (found[0].stream, found[0].topic) if found else None
