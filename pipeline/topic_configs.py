"""Configurations with topics in place of their patterns. Pure."""

from msgspec.structs import replace

from pipeline.config.patterns import is_pattern
from pipeline.config.schema import Config, Subscription, TopicConfig
from pipeline.wire.sink import FoundTopic


def with_topics(config: Config, found: list[FoundTopic]) -> Config:
    """The configuration with these topics in place of its patterns."""
    by_pattern: dict[int, list[FoundTopic]] = {}
    for one in found:
        by_pattern.setdefault(one.pattern, []).append(one)
    index = -1
    sinks = []
    for sink in config.all_sinks():
        topics: list[TopicConfig] = []
        for topic in sink.topics:
            index += 1
            if is_pattern(topic.stream) or is_pattern(topic.topic):
                topics += [replace(topic, stream=one.stream, topic=one.topic, exclude=())
                           for one in by_pattern.get(index, [])]
            else:
                topics.append(topic)
        sinks.append(replace(sink, topics=tuple(topics)))
    if config.sinks:
        return replace(config, sinks=tuple(sinks))
    return replace(config, topics=sinks[0].topics) if sinks else config


def unmatched(config: Config, expanded: Config) -> list[Subscription]:
    """The patterns of a configuration that no topic of the expanded one is from."""
    topics = expanded.subscriptions()
    return [one for one in config.subscriptions() if one.is_pattern and not any(
        one.sink == topic.sink and one.matches(topic.stream, topic.topic) for topic in topics)]


def as_topic(config: Config, subscription: int, stream: str, topic: str) -> Config:
    """The configuration with this topic in place of the one pattern; all subscriptions keep their indices."""
    index = -1
    sinks = []
    for sink in config.all_sinks():
        topics = []
        for one in sink.topics:
            index += 1
            topics.append(replace(one, stream=stream, topic=topic, exclude=()) if index == subscription else one)
        sinks.append(replace(sink, topics=tuple(topics)))
    return replace(config, sinks=tuple(sinks)) if config.sinks else replace(config, topics=sinks[0].topics)
