"""Finds configurations with which a pipeline would read what it writes, in an endless loop. Pure; queries no server."""

import re
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from pipeline.config.patterns import is_pattern, matches_any
from pipeline.config.schema import Config, DeadLetterConfig, SinkConfig, Subscription
from pipeline.config.source_schema import SourceConfig

#: Names that Iggy's client reads as the id of a stream or topic. Source: `Identifier::from_str`.
_ID = re.compile(r"\+?[0-9]{1,10}", re.ASCII)
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # nosec B104  # only compared with


def feedback_problems(config: Config) -> list[str]:
    """A line for each loop: key, why, what to do."""
    keys = _keys(config)
    problems = _id_problems(config, keys)
    if "iggy" in config.dead_letters.stores and not config.dead_letters.stream:
        problems += [f"dead_letters.stream: required, because {key}.stream is a pattern: give the stream that the "
                     "dead letters of all matching streams go to"
                     for key, one in zip(keys, config.subscriptions(), strict=True) if is_pattern(one.stream)][:1]
    for stream, topic in dead_letter_topics(config):
        problems += [f"{key}: {stream}/{topic} is where the dead letters go (dead_letters.topic): each letter would be "
                     "read, be rejected, and become a letter again; give another dead_letters.topic, or do not read "
                     "this one"
                     for key, subscription in zip(keys, config.subscriptions(), strict=True)
                     if is_read_by(subscription, stream, topic)]
    return problems + (_source_problems(config, keys) if config.sources else [])


def dead_letter_topics(config: Config) -> list[tuple[str, str]]:
    """Stream and topic of the topics that dead letters may go to."""
    options = config.dead_letters
    if "iggy" not in options.stores:
        return []
    streams = [options.stream] if options.stream else [
        one.stream for one in config.subscriptions() if not is_pattern(one.stream)]
    return [(stream, options.topic) for stream in dict.fromkeys(streams)] if config.subscriptions() else []


def is_id(name: str) -> bool:
    """Whether Iggy's client reads a name as the id of a stream or topic."""
    return _ID.fullmatch(name) is not None


def written_topics(config: Config) -> Callable[[str, str], bool]:
    """Whether this configuration writes to a topic, given with its stream: a pattern never reads that.

    A topic with the name of the dead letters' is left out in every stream, whether it is this configuration's or not,
    and so is one with its default name: two pipelines that read each other's dead letters would never end.
    """
    names = {_plain(config.dead_letters.topic), _plain(DeadLetterConfig().topic)}
    states = {source.state_topic for source in config.sources if source.state_topic}
    outputs = [source.output for source in config.sources]

    def writes(stream: str, topic: str) -> bool:
        if _plain(topic) in names or f"{stream}/{topic}" in states:
            return True
        if not outputs:
            return False
        # Imported here, because most configurations have no sources.
        from pipeline.config.source_checks import may_be
        return any(may_be(output.stream, stream) and (
            may_be(output.topic, topic) or output.dead_letter_topic == topic) for output in outputs)

    return writes


def is_read_by(subscription: Subscription, stream: str, topic: str) -> bool:
    """Whether a subscription reads this topic. Names that differ only in case or outer spaces count as one."""
    return (_plain(subscription.stream), _plain(subscription.topic)) == (_plain(stream), _plain(topic))


def _plain(name: str) -> str:
    return name.strip().casefold()


def _keys(config: Config) -> list[str]:
    """The configuration key of each of `Config.subscriptions()`."""
    return [f"{f'sinks[{index}].' if config.sinks else ''}topics[{number}]"
            for index, sink in enumerate(config.all_sinks()) for number in range(len(sink.topics))]


def _id_problems(config: Config, keys: list[str]) -> list[str]:
    """Names of digits only: Iggy's client reads them as ids, and other parts of the protocol as names."""
    names = [(f"{key}.{option}", name) for key, one in zip(keys, config.subscriptions(), strict=True)
             for option, name in (("stream", one.stream), ("topic", one.topic))]
    names += [("dead_letters.stream", config.dead_letters.stream), ("dead_letters.topic", config.dead_letters.topic)]
    return [f'{key}: "{name}" is a number, which Iggy\'s client reads as an id; give the name, or rename it in Iggy'
            for key, name in names if is_id(name)]


def _source_problems(config: Config, keys: list[str]) -> list[str]:
    """Sources that write to the dead-letter topic, or read points that a sink writes from their own messages."""
    # Imported here, because most configurations have no sources.
    from pipeline.config.source_checks import may_be

    problems = []
    for index, source in enumerate(config.sources):
        for stream, topic in dead_letter_topics(config):
            if (source.output.stream, source.output.topic) == (stream, topic):
                problems.append(f"sources[{index}].output.topic: points are sent to {stream}/{topic}, where the dead "
                                "letters go (dead_letters.topic); give one of them another topic")
            if source.state_topic == f"{stream}/{topic}":
                problems.append(f"sources[{index}].state_topic: the dead letters go to {stream}/{topic} "
                                "(dead_letters.topic); give a topic that nothing else is sent to")
        for key, one in zip(keys, config.subscriptions(), strict=True):
            sink = config.all_sinks()[one.sink]
            if not one.is_pattern and may_be(source.output.stream, one.stream) and _same_database(source, sink) \
                    and may_be(source.output.topic, one.topic) and _may_read(source, sink, one):
                problems.append(f"{key}: points of sources[{index}] are written to the database that it reads: "
                                "every point would circulate endlessly; write to another bucket or database, or name "
                                "the measurement in the source's exclude_measurements")
    return problems


def _same_database(source: SourceConfig, sink: SinkConfig) -> bool:
    influxdb = sink.influxdb
    servers = {_server(url) for url in influxdb.servers()}
    names = (influxdb.bucket, influxdb.database, *sink.mapping.allowed_buckets,
             *(rule.bucket for rule in sink.mapping.rules))
    written = {_database(name, influxdb.retention_policy) for name in names if name}
    read = {_database(name, source.influxdb.retention_policy)
            for name in (source.influxdb.bucket, source.influxdb.database) if name}
    return (not servers.isdisjoint(_server(url) for url in source.influxdb.servers())
            and not written.isdisjoint(read))


def _server(url: str) -> tuple[str, int | None]:
    """Host and port of a URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return url, None
    return "localhost" if host in _LOCAL_HOSTS else host, port or (443 if parts.scheme == "https" else 80)


def _database(name: str, policy: str) -> tuple[str, str]:
    """Database and retention policy; a bucket may be called "database/policy"."""
    database, _, own = name.partition("/")
    return database, own or policy


def _may_read(source: SourceConfig, sink: SinkConfig, subscription: Subscription) -> bool:
    """Whether a source may read a measurement that a sink writes; False for a custom query, whose result is unknown."""
    if source.query:
        return False
    mapping = sink.mapping
    fixed = {"static": mapping.measurement_name, "topic": subscription.topic, "stream": subscription.stream}
    names = set(_measurements(fixed.get(mapping.measurement_from, ""), sink))
    return any(not name or matches_any(name, source.measurements) and not matches_any(name, source.exclude_measurements)
               for name in names)


def _measurements(fixed: str, sink: SinkConfig) -> Iterator[str]:
    """The measurements that a sink may write; "" stands for any."""
    yield "" if sink.mapping.format == "line_protocol" else fixed
    yield from (rule.measurement for rule in sink.mapping.rules if rule.measurement)
