"""Mistakes that only show when keys are seen together: contradictions, keys without effect, duplicates.

One function a table. Files that a configuration names are read; no server is asked.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from pipeline.config.connection_checks import connection_warnings
from pipeline.config.feedback import feedback_problems
from pipeline.config.http_checks import http_problems, http_warnings
from pipeline.config.iggy_checks import address_problems, iggy_problems, iggy_warnings
from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.influxdb_checks import influxdb_problems
from pipeline.config.mapping_checks import mapping_contradictions, mapping_option_warnings
from pipeline.config.otlp_checks import otlp_problems
from pipeline.config.patterns import is_pattern
from pipeline.config.schema import (
    Config,
    DeadLetterConfig,
    NetworkConfig,
    PipelineConfig,
    SinkConfig,
    TopicConfig,
    start_position,
)
from pipeline.config.source_schema import SourceConfig
from pipeline.config.values import Used, shown

#: Longest name of a stream, topic, consumer, group or user, bytes of UTF-8. Source: Iggy's binary protocol,
#: identifiers.
MAX_NAME_BYTES: Final = 255
#: Longest path of a Unix socket on Linux, without the terminating NUL.
MAX_SOCKET_PATH: Final = 107
#: The longest name of a socket in `runtime_dir`: that of the fork server.
LONGEST_SOCKET: Final = "listener-12345678"
#: Options of `[pipeline]` that only sinks use.
_SINK_OPTIONS: Final = ("writers", "readers", "batch_size", "max_batch_bytes", "delivery", "flush_interval_ms",
                        "window_messages", "window_bytes", "redelivery_timeout_ms", "on_truncation")


def config_problems(config: Config, used: Used) -> list[str]:
    """A line for each mistake: key, and what is allowed. Files are read only for keys that are `used`."""
    problems = _top_level_problems(config) + _sink_problems(config, used)
    if config.sources:
        # Imported here, because every process reads the configuration and few have sources.
        from pipeline.config.source_checks import source_problems
        problems += source_problems(config.sources, used)
    problems += _overlap_problems(config) + feedback_problems(config) + _iggy_problems(config, used)
    problems += _dead_letter_problems(config.dead_letters, bool(config.all_sinks()), used)
    problems += [*http_problems(config.http, used), *otlp_problems(config.otlp, used)]
    problems += _network_problems(config.network, bool(config.all_sinks()))
    return problems + _pipeline_problems(config.pipeline, used)


def config_warnings(config: Config) -> list[str]:
    """A line for each option that has no effect, or is unsafe: key, and why."""
    return [*iggy_warnings(config.iggy), *_sink_warnings(config), *_pipeline_warnings(config),
            *_source_warnings(config), *http_warnings(config.http)]


def changed_options(table: msgspec.Struct, default: msgspec.Struct, options: Sequence[str]) -> list[str]:
    """Those of the options that differ from the default."""
    return [option for option in options if getattr(table, option) != getattr(default, option)]


def name_problems(key: str, name: str) -> list[str]:
    """What is wrong with the name of a stream, topic, consumer or user."""
    size = len(name.encode("utf-8", "surrogatepass"))
    return [f"{key}: {size} bytes long; Iggy takes at most {MAX_NAME_BYTES}"] if size > MAX_NAME_BYTES else []


def _top_level_problems(config: Config) -> list[str]:
    """Tables of one sink at the top level, where there are `[[sinks]]` or no sinks at all."""
    tables = changed_options(config, Config(), ("topics", "mapping", "influxdb"))
    if config.sinks and tables:
        return [f"{tables[0]}: not beside [[sinks]]; each sink has its own topics, mapping and influxdb"]
    if not config.all_sinks() and tables:
        return [f"{tables[0]}: no effect without [[topics]], which make a sink; a source has its own "
                "[sources.influxdb] and [sources.output]"]
    return []


def _sink_problems(config: Config, used: Used) -> list[str]:
    problems = []
    #: (stream, topic, consumer) of the topics so far.
    seen: set[tuple[str, str, str]] = set()
    for index, sink in enumerate(config.all_sinks()):
        key = f"sinks[{index}]." if config.sinks else ""
        if sink.name in [other.name for other in config.sinks[:index]]:
            problems.append(f"{key}name: {shown(sink.name)} occurs twice")
        problems += name_problems(f"{key}consumer", sink.consumer)
        if not sink.topics:
            problems.append(f"{key}topics: at least one [[{'sinks.' if config.sinks else ''}topics]] table is required")
        for number, topic in enumerate(sink.topics):
            problems += _topic_problems(topic, f"{key}topics[{number}]", config.iggy)
            problems += _consumer_problems(sink, topic, f"{key}topics[{number}]", config.iggy, seen)
        problems += mapping_contradictions(sink.mapping, f"{key}mapping")
        problems += influxdb_problems(sink.influxdb, f"{key}influxdb", used, config.iggy.servers()[0])
    return problems


def _topic_problems(topic: TopicConfig, key: str, iggy: IggyConfig) -> list[str]:
    problems = name_problems(f"{key}.stream", topic.stream) + name_problems(f"{key}.topic", topic.topic)
    if is_pattern(topic.stream) or is_pattern(topic.topic):
        if topic.partitions:
            problems.append(f"{key}.partitions: not with a pattern; name one topic")
    elif topic.exclude:
        problems.append(f"{key}.exclude: only with a pattern (* or ?) in {key}.topic or {key}.stream")
    if topic.partitions and iggy.consumer_group:
        problems.append(f"{key}.partitions: not with iggy.consumer_group; the group assigns the partitions")
    if len(set(topic.partitions)) < len(topic.partitions):
        problems.append(f"{key}.partitions: a partition occurs twice")
    try:
        start_position(topic.start_from)
    except ValueError:
        problems.append(f"{key}.start_from: {shown(topic.start_from)} is not allowed; give "
                        '"earliest", "latest", an offset of 0 or more, or a time like 2026-01-31T00:00:00Z')
    return problems


def _consumer_problems(sink: SinkConfig, topic: TopicConfig, key: str, iggy: IggyConfig,
                       seen: set[tuple[str, str, str]]) -> list[str]:
    """A topic that is read twice under one consumer's name; adds it to `seen`."""
    consumer = sink.consumer or iggy.consumer_group or iggy.consumer
    identity = topic.stream, topic.topic, consumer
    if identity in seen:
        return [f"{key}: {topic.stream}/{topic.topic} occurs twice for the consumer {shown(consumer)}; give one of "
                "the sinks another consumer"]
    seen.add(identity)
    return []


def _overlap_problems(config: Config) -> list[str]:
    """Patterns that match a topic which another sink reads under the same consumer: it can have one position only."""
    sinks, subscriptions = config.all_sinks(), config.subscriptions()
    return [f"sink {sinks[one.sink].name}: the pattern {one.label()} matches {other.label()}, which sink "
            f"{sinks[other.sink].name} reads for the same consumer {shown(one.consumer)}; give one of the sinks "
            "another consumer, or exclude the topic"
            for one in subscriptions if one.is_pattern for other in subscriptions
            if not other.is_pattern and other.sink != one.sink and other.consumer == one.consumer
            and one.matches(other.stream, other.topic)]


def _iggy_problems(config: Config, used: Used) -> list[str]:
    iggy = config.iggy
    problems = iggy_problems(iggy, used)
    for option in ("username", "consumer", "consumer_group"):
        problems += name_problems(f"iggy.{option}", getattr(iggy, option))
    own = iggy.consumer != IggyConfig().consumer
    if iggy.consumer_group and own:
        problems.append("iggy.consumer: not beside iggy.consumer_group; offsets are stored under the group's name")
    for option, is_given in (("consumer", own), ("consumer_group", bool(iggy.consumer_group))):
        if is_given and config.sinks and all(sink.consumer for sink in config.sinks):
            problems.append(f"iggy.{option}: no effect; each of the sinks has its own consumer")
    return problems


def _dead_letter_problems(letters: DeadLetterConfig, has_sinks: bool, used: Used) -> list[str]:
    default = DeadLetterConfig()
    if not has_sinks and letters != default:
        return ["dead_letters: no effect without a sink; a source has output.dead_letter_topic"]
    problems = []
    if len(set(letters.stores)) < len(letters.stores):
        problems.append("dead_letters.stores: a store occurs twice")
    if ("file" in letters.stores) != bool(letters.file):
        problems.append('dead_letters.file: required with, and only with, "file" in dead_letters.stores')
    for store, options in (("iggy", ("stream", "topic")), ("file", ("max_file_bytes", "max_files"))):
        if store not in letters.stores:
            problems += [f'dead_letters.{option}: only with "{store}" in dead_letters.stores'
                         for option in changed_options(letters, default, options)]
    if used("dead_letters.file") and letters.file and os.path.isdir(letters.file):
        problems.append(f"dead_letters.file: {shown(letters.file)} is a folder; give a file")
    return (problems + name_problems("dead_letters.stream", letters.stream)
            + name_problems("dead_letters.topic", letters.topic))


def _network_problems(network: NetworkConfig, has_sinks: bool) -> list[str]:
    problems = []
    if bool(network.listen) != bool(network.keys):
        problems.append("network.keys: required with, and only with, network.listen; make keys with: pipeline keys")
    if not network.listen and network.port != NetworkConfig().port:
        problems.append("network.port: only with network.listen")
    if network.listen:
        problems += [line for line in address_problems("network.listen", f"{network.listen}:{network.port}")
                     if not problems]
        if not has_sinks:
            problems.append("network.listen: no effect without a sink; remote encoders encode for sinks only")
    return problems


def _pipeline_problems(pipeline: PipelineConfig, used: Used) -> list[str]:
    problems = []
    shares = f" for each of the {pipeline.readers} ingest processes" if pipeline.readers > 1 else ""
    if pipeline.batch_size * pipeline.readers > pipeline.window_messages:
        problems.append(f"pipeline.window_messages: must be at least pipeline.batch_size{shares}")
    if pipeline.max_batch_bytes * pipeline.readers > pipeline.window_bytes:
        problems.append(f"pipeline.window_bytes: must be at least pipeline.max_batch_bytes{shares}")
    if pipeline.runtime_dir and used("pipeline.runtime_dir"):
        problems += [f"pipeline.runtime_dir: {wrong}" for wrong in _wrong_with_folder(pipeline.runtime_dir)]
    return problems


def _wrong_with_folder(folder: str) -> Iterator[str]:
    """What is wrong with a folder for sockets; a missing folder is made at the start."""
    if len(os.fsencode(os.path.join(os.path.abspath(folder), LONGEST_SOCKET))) > MAX_SOCKET_PATH:
        yield f"{shown(folder)} is too long for the path of a socket; give a shorter folder"
        return
    existing = os.path.abspath(folder)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    try:
        is_folder = stat.S_ISDIR(os.stat(existing).st_mode)
    except OSError as error:
        yield f"{shown(existing)}: {error.strerror}; give another folder"
        return
    if not is_folder:
        yield f"{shown(existing)} is not a folder; give another one"
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield f"{shown(folder)} cannot be made or written to; give a folder that you may write to"


def _sink_warnings(config: Config) -> Iterator[str]:
    for sink in config.all_sinks():
        yield from mapping_option_warnings(sink.mapping, f"sink {sink.name}: mapping")
        yield from connection_warnings(sink.influxdb, f"sink {sink.name}: influxdb")
    for index, sink in enumerate(config.sinks):
        topics = {(topic.stream, topic.topic) for topic in sink.topics}
        for other in config.sinks[:index]:
            if (other.mapping, other.influxdb) == (sink.mapping, sink.influxdb):
                yield from (f"sink {sink.name}: {topic.stream}/{topic.topic} is also read by sink {other.name}, with "
                            "the same mapping and database: every point is written twice"
                            for topic in other.topics if (topic.stream, topic.topic) in topics)


def _pipeline_warnings(config: Config) -> Iterator[str]:
    pipeline, default = config.pipeline, PipelineConfig()
    if not config.all_sinks():
        yield from (f"pipeline.{option}: no effect without a sink"
                    for option in changed_options(pipeline, default, _SINK_OPTIONS))
    if not pipeline.max_restarts and pipeline.restart_window_ms != default.restart_window_ms:
        yield "pipeline.restart_window_ms: no effect with max_restarts = 0"


def _source_warnings(config: Config) -> Iterator[str]:
    for index, source in enumerate(config.sources):
        default = SourceConfig(name=source.name, output=source.output)
        if source.query:
            yield from (f"sources[{index}].{option}: no effect with query" for option in
                        changed_options(source, default, ("max_parallel_queries", "discovery_interval_ms")))
        if not source.overlap_ms:
            yield from (f"sources[{index}].{option}: no effect without overlap_ms" for option in
                        changed_options(source, default, ("max_fingerprints",)))
