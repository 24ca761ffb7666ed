"""The topics that a pipeline reads: those that its configuration names, and those that its patterns have found. Pure.

A topic of the first kind is known by its index in `Config.subscriptions()`. One of the second kind has an id that is
computed from its names, so that every process, and every successor of one, gives the same topic the same id without
asking another. What is sent about it has its definition (`wire.FoundTopic`) with it where the receiver may not know it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from pipeline.config.schema import Config, Subscription
from pipeline.wire.sink import FoundTopic, Partition

#: Ids of found topics are this or larger; no index is.
FIRST_ID: Final = 1 << 61
#: Topics that patterns find, at most: each costs memory in every process.
MAX_FOUND: Final = 10_000


class Subscriptions:
    """Subscriptions by their index or id. Those of one process share one."""

    def __init__(self, config: Config) -> None:
        self._configured = config.subscriptions()
        self._known = {index: one for index, one in enumerate(self._configured) if not one.is_pattern}
        self._found: dict[int, FoundTopic] = {}

    @property
    def patterns(self) -> list[tuple[int, Subscription]]:
        """The patterns, each with its index."""
        return [(index, one) for index, one in enumerate(self._configured) if one.is_pattern]

    def __getitem__(self, topic: int) -> Subscription:
        """The subscription of a topic that is known. Raises KeyError."""
        return self._known[topic]

    def __contains__(self, topic: int) -> bool:
        """Whether a topic is known."""
        return topic in self._known

    def __iter__(self) -> Iterator[int]:
        """The indices and ids of all topics that are known, in the order in which they became so."""
        return iter(list(self._known))

    def __len__(self) -> int:
        """How many they are."""
        return len(self._known)

    def learn(self, found: FoundTopic) -> int:
        """Adds a topic, if it is not known. Returns its id. Raises ValueError for one that cannot be."""
        id_ = id_of(found)
        if id_ not in self._known:
            pattern = self._configured[found.pattern] if found.pattern < len(self._configured) else None
            if pattern is None or not pattern.is_pattern or not pattern.matches(found.stream, found.topic):
                raise ValueError("it names a topic that no pattern of the configuration matches")
            if len(self._found) >= MAX_FOUND:
                raise ValueError(f"there are {MAX_FOUND} topics that patterns match already")
            self._known[id_] = as_subscription(pattern, found)
            self._found[id_] = found
        return id_

    def definition(self, topic: int) -> FoundTopic | None:
        """What others need to know of a topic that a pattern has found; None for one of the configuration."""
        return self._found.get(topic)

    def definitions(self) -> list[FoundTopic]:
        """The definitions of all topics that were found."""
        return list(self._found.values())

    def label(self, partition: Partition) -> str:
        """Names a partition for people, also one whose topic is not known yet."""
        topic = self._known.get(partition.topic)
        return topic.label(partition.number) if topic is not None else \
            f"a topic found by pattern, partition {partition.number}"

    def place(self, topic: int) -> tuple[int, str, str]:
        """Where a topic stands in lists for people: in the order of the configuration, found ones by name."""
        found = self._found.get(topic)
        return (topic, "", "") if found is None else (found.pattern, found.stream, found.topic)


def as_subscription(pattern: Subscription, found: FoundTopic) -> Subscription:
    """The subscription of a topic that a pattern has found."""
    return replace(pattern, stream=found.stream, topic=found.topic, exclude=())


def id_of(found: FoundTopic) -> int:
    """The id of a found topic, from 2^61 to 2^62 - 1. That two of 10,000 have the same is a chance of 10^-11."""
    names = "\0".join([str(found.pattern), found.stream, found.topic]).encode("utf-8", "surrogatepass")
    return FIRST_ID | int.from_bytes(hashlib.blake2b(names, digest_size=8).digest()) >> 3


def first_match(configured: Sequence[Subscription], stream: str, topic: str) -> Iterator[FoundTopic]:
    """The patterns that read a topic: of each consumer the first one that matches, unless it names the topic itself."""
    taken = {one.consumer for one in configured
             if not one.is_pattern and (one.stream, one.topic) == (stream, topic)}
    for index, one in enumerate(configured):
        if one.is_pattern and one.consumer not in taken and one.matches(stream, topic):
            taken.add(one.consumer)
            yield FoundTopic(index, stream, topic)
