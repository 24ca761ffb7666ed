"""Finds the topics that the patterns of the configuration match, and those that have changed since the last look."""

import logging

from pipeline.config.schema import Config
from pipeline.iggy.connection import IggyConnection, TopicState
from pipeline.iggy.errors import IggyForbidden, IggyNotFound
from pipeline.iggy.topic_patterns import find_topics
from pipeline.locks import FoundTopicLocks, Locked
from pipeline.subscriptions import Subscriptions, as_subscription
from pipeline.wire.sink import FoundTopic

#: Names that are logged of topics that were found at once, at most.
SHOWN_NAMES = 10


class Listing:
    """The topics of streams, asked for once in each refresh."""

    def __init__(self, iggy: IggyConnection) -> None:
        self._iggy = iggy
        self._known: dict[str, dict[str, TopicState]] = {}

    def clear(self) -> None:
        """A refresh begins."""
        self._known.clear()

    async def of(self, stream: str) -> dict[str, TopicState]:
        """The state of each topic of a stream, by name. Raises IggyNotFound, IggyForbidden, IggyError."""
        if stream not in self._known:
            self._known[stream] = await self._iggy.topics_of(stream)
        return self._known[stream]


class TopicFinder:
    """One per ingest process. They find the same topics; the first process logs them."""

    def __init__(self, index: int, config: Config, topics: Subscriptions, iggy: IggyConnection, listing: Listing,
                 logger: logging.Logger) -> None:
        """`index` is that of the ingest process."""
        self._levels = (logging.DEBUG, logging.DEBUG) if index else (logging.INFO, logging.WARNING)
        self._config = config
        self._topics = topics
        self._iggy = iggy
        self._logger = logger
        self._listing = listing
        #: None until there is a topic to lock.
        self._locks: FoundTopicLocks | None = None
        self._index = index
        #: Topics that match, and that another pipeline reads.
        self._taken: list[FoundTopic] = []
        #: All topics of the streams, whether they match or not.
        self._seen: set[tuple[str, str]] = set()
        #: What was logged once.
        self._logged: set[str] = set()

    async def find(self) -> list[int]:
        """The ids of the topics that were found now. Raises IggyError."""
        if not self._topics.patterns:
            return []
        new = []
        try:
            matches = await find_topics(self._iggy, self._config, self._seen, self._log_once, self._listing.of)
        except IggyForbidden as error:
            self._log_once(f"no topics can be found by pattern: {error}")
            return []
        taken, self._taken = self._taken, []
        for found in taken + matches:
            known = len(self._topics)
            try:
                self._lock(found)
                id_ = self._topics.learn(found)
            except ValueError as error:
                self._log_once(f"further topics that match are not read: {error}")
                continue
            except Locked as error:
                self._taken.append(found)
                self._log_once(f"{error}; it is not read here until that ends. Exclude it in one of them, or give one "
                               "another consumer")
                continue
            if len(self._topics) > known:
                new.append(id_)
        if new:
            names = [self._topics[id_].label() for id_ in new]
            more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
            self._logger.log(self._levels[0], "found by pattern: %s%s", ", ".join(names[:SHOWN_NAMES]), more)
        self._log_idle_patterns()
        return new

    def _lock(self, found: FoundTopic) -> None:
        """Sees to it that no other pipeline of this machine reads a topic for the same consumer. Raises Locked."""
        self._locks = self._locks or FoundTopicLocks(self._config, self._index)
        self._locks.take(as_subscription(self._config.subscriptions()[found.pattern], found))

    def _log_idle_patterns(self) -> None:
        matched = {found.pattern for found in [*self._topics.definitions(), *self._taken]}
        for index, pattern in self._topics.patterns:
            if index not in matched:
                self._log_once(f"no topic matches {pattern.label()} yet; those that do are read once they exist")

    def _log_once(self, text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            self._logger.log(self._levels[1], "%s", text)


class UnchangedTopics:
    """Which topics have not changed since they were looked at: many quiet ones cost one request for each stream."""

    #: Fewer topics of a stream are looked at one by one.
    MANY = 4
    #: A topic is looked at this often in any case, seconds.
    LOOK_SECONDS = 60.0

    def __init__(self, topics: Subscriptions, listing: Listing) -> None:
        self._topics = topics
        self._listing = listing
        #: By topic: its state before it was looked at, and when that was; seconds, monotonic.
        self._seen: dict[int, tuple[TopicState, float]] = {}

    async def states(self) -> dict[int, TopicState]:
        """The present states of the topics, as far as it pays to ask for them. Raises IggyError."""
        by_stream: dict[str, list[int]] = {}
        for topic in self._topics:
            if not self._topics[topic].group:  # members of a group may change without the topic
                by_stream.setdefault(self._topics[topic].stream, []).append(topic)
        found: dict[int, TopicState] = {}
        for stream, topics in by_stream.items():
            if len(topics) >= self.MANY:
                try:
                    states = await self._listing.of(stream)
                except (IggyNotFound, IggyForbidden):
                    continue
                found |= {topic: states[name] for topic in topics if (name := self._topics[topic].topic) in states}
        return found

    def is_unchanged(self, topic: int, states: dict[int, TopicState], now: float) -> bool:
        """Whether a topic is as it was when it was looked at."""
        state, at = self._seen.get(topic, (None, 0.0))
        return state is not None and states.get(topic) == state and now - at < self.LOOK_SECONDS

    def looked_at(self, topic: int, states: dict[int, TopicState], now: float) -> None:
        """A topic was looked at after `states` were asked for."""
        if topic in states:
            self._seen[topic] = states[topic], now

    def forget(self, topic: int) -> None:
        """A topic has to be looked at again."""
        self._seen.pop(topic, None)
