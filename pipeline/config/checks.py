"""Mistakes that only show when keys are seen together: contradictions, keys without effect, duplicates. One function a
table. Files that a configuration names are looked at; no server is asked.
"""

import os
import stat
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from pipeline.config.feedback import feedback_problems
from pipeline.config.influxdb_checks import influxdb_option_warnings, influxdb_problems
from pipeline.config.mapping_checks import mapping_contradictions, mapping_option_warnings
from pipeline.config.schema import (
    Config,
    DeadLetterConfig,
    IggyConfig,
    NetworkConfig,
    PipelineConfig,
    SourceTopic,
    start_position,
)
from pipeline.config.source_schema import SourceConfig
from pipeline.config.target_checks import target_problems
from pipeline.config.values import shown

#: Longest name of a stream, topic, consumer, group or user, bytes of UTF-8. Source: Iggy's binary protocol,
#: identifiers.
MAX_NAME_BYTES: Final = 255
#: Longest path of a Unix socket on Linux, less the terminating NUL, and the longest name of one in `runtime_dir`: the
#: fork server's.
MAX_SOCKET_PATH: Final = 107
LONGEST_SOCKET: Final = "listener-12345678"

#: Whether a key such as "sinks[0].influxdb.token" is used by the command.
Used = Callable[[str], bool]


def config_problems(config: Config, used: Used) -> list[str]:
    """A line for each mistake: key, and what is allowed. Of what is not `used`, no file is looked at."""
    problems = _sink_problems(config, used)
    if config.sources:
        # Only those who have a source pay for its code.
        from pipeline.config.source_checks import source_problems
        problems += source_problems(config.sources, influxdb_problems, used)
    problems += feedback_problems(config) + _iggy_problems(config)
    problems += _dead_letter_problems(config.dead_letters, bool(config.all_sinks()), used)
    problems += _network_problems(config.network, bool(config.all_sinks()))
    return problems + _pipeline_problems(config.pipeline, used)


def config_warnings(config: Config) -> list[str]:
    """Options that have no effect, and harm nothing: key, and what is without effect."""
    pipeline, default = config.pipeline, PipelineConfig()
    problems = [warning for sink in config.all_sinks()
                for warning in (*mapping_option_warnings(sink.mapping, f"sink {sink.name}: mapping"),
                                *influxdb_option_warnings(sink.influxdb, f"sink {sink.name}: influxdb"))]
    if not config.all_sinks():
        problems += [f"pipeline.{option}: no effect without a sink" for option in _OF_SINKS
                     if getattr(pipeline, option) != getattr(default, option)]
    if not pipeline.max_restarts and pipeline.restart_window_ms != default.restart_window_ms:
        problems.append("pipeline.restart_window_ms: no effect with max_restarts = 0")
    for index, sink in enumerate(config.sinks):
        topics = {(topic.stream, topic.topic) for topic in sink.topics}
        problems += [f"sink {sink.name}: {topic.stream}/{topic.topic} is written where sink {other.name} writes it, by "
                     "the same mapping: every point twice" for other in config.sinks[:index]
                     if (other.mapping, other.influxdb) == (sink.mapping, sink.influxdb)
                     for topic in other.topics if (topic.stream, topic.topic) in topics]
    for index, source in enumerate(config.sources):
        plain = SourceConfig(name=source.name, output=source.output)
        problems += [f"sources[{index}].{option}: no effect with query" for option in
                     given(source, plain, ("max_parallel_queries", "discovery_interval_ms") if source.query else ())]
        problems += [f"sources[{index}].{option}: no effect without overlap_ms" for option in
                     given(source, plain, ("max_fingerprints",) if not source.overlap_ms else ())]
    return problems


#: Options of `[pipeline]` that only sinks have a use for.
_OF_SINKS: Final = ("writers", "readers", "batch_size", "max_batch_bytes", "flush_interval_ms", "window_messages",
                    "window_bytes", "redelivery_timeout_ms", "on_truncation")


def given(table: msgspec.Struct, default: msgspec.Struct, options: Sequence[str]) -> list[str]:
    """Those of the options that are not as by default."""
    return [option for option in options if getattr(table, option) != getattr(default, option)]


def name_problems(key: str, name: str) -> list[str]:
    """What is wrong with the name of a stream, topic, consumer or user."""
    size = len(name.encode("utf-8", "surrogatepass"))
    return [f"{key}: {size} bytes long; Iggy takes at most {MAX_NAME_BYTES}"] if size > MAX_NAME_BYTES else []


def _sink_problems(config: Config, used: Used) -> list[str]:
    problems = []
    default = Config()
    tops = given(config, default, ("topics", "mapping", "influxdb"))
    if config.sinks and tops:
        problems.append(f"{tops[0]}: not beside [[sinks]]; each sink has its own topics, mapping and influxdb")
    if not config.all_sinks() and tops:
        problems.append(f"{tops[0]}: without [[topics]] there is no sink that it is for; a source has its own "
                        "[sources.influxdb] and [sources.output]")
    seen: set[tuple[str, str, str]] = set()
    for index, sink in enumerate(config.all_sinks()):
        key = f"sinks[{index}]." if config.sinks else ""
        if sink.name in [other.name for other in config.sinks[:index]]:
            problems.append(f"{key}name: {shown(sink.name)} is there twice")
        problems += name_problems(f"{key}consumer", sink.consumer)
        if not sink.topics:
            problems.append(f"{key}topics: at least one [[{'sinks.' if config.sinks else ''}topics]] table is required")
        for number, topic in enumerate(sink.topics):
            problems += _topic_problems(topic, f"{key}topics[{number}]", config.iggy)
            consumer = sink.consumer or config.iggy.consumer_group or config.iggy.consumer
            identity = topic.stream, topic.topic, consumer
            if identity in seen:
                problems.append(f"{key}topics[{number}]: {topic.stream}/{topic.topic} is there twice for the consumer "
                                f"{shown(consumer)}; give one of the sinks another consumer")
            seen.add(identity)
        problems += mapping_contradictions(sink.mapping, f"{key}mapping")
        problems += influxdb_problems(sink.influxdb, f"{key}influxdb", used)
        problems += target_problems(sink.influxdb, f"{key}influxdb", config.iggy.address)
    return problems


def _topic_problems(topic: SourceTopic, key: str, iggy: IggyConfig) -> list[str]:
    problems = name_problems(f"{key}.stream", topic.stream) + name_problems(f"{key}.topic", topic.topic)
    if topic.partitions and iggy.consumer_group:
        problems.append(f"{key}.partitions: not with iggy.consumer_group; the group deals the partitions out")
    if len(set(topic.partitions)) < len(topic.partitions):
        problems.append(f"{key}.partitions: a partition is there twice")
    try:
        start_position(topic.start_from)
    except ValueError:
        problems.append(f"{key}.start_from: {shown(topic.start_from)} is not allowed; give "
                        '"earliest", "latest", an offset of 0 or more, or a time like 2026-01-31T00:00:00Z')
    return problems


def _iggy_problems(config: Config) -> list[str]:
    iggy = config.iggy
    problems = address_problems("iggy.address", iggy.address)
    for option in ("username", "consumer", "consumer_group"):
        problems += name_problems(f"iggy.{option}", getattr(iggy, option))
    if len(iggy.password.encode()) > MAX_NAME_BYTES:
        problems.append(f"iggy.password: longer than {MAX_NAME_BYTES} bytes")
    own = iggy.consumer != IggyConfig().consumer
    if iggy.consumer_group and own:
        problems.append("iggy.consumer: not beside iggy.consumer_group; the offsets are the group's")
    for option, is_given in (("consumer", own), ("consumer_group", bool(iggy.consumer_group))):
        if is_given and config.sinks and all(sink.consumer for sink in config.sinks):
            problems.append(f"iggy.{option}: no effect; every one of the sinks has a consumer of its own")
    return problems


def address_problems(key: str, address: str) -> list[str]:
    """What is wrong with `host:port`."""
    scheme, separator, _ = address.partition("://")
    if separator:
        return [f"{key}: {shown(address)} is not allowed; give host:port, without {scheme}://"]
    host, _, port = address.rpartition(":")
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else "" if ":" in host else host
    if not name or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65_536 \
            or any(character in "/@[]?#\\" or not character.isprintable() or character.isspace() for character in name):
        return [f"{key}: {shown(address)} is not allowed; give host:port"]
    return []


def _dead_letter_problems(letters: DeadLetterConfig, has_sinks: bool, used: Used) -> list[str]:
    default = DeadLetterConfig()
    if not has_sinks and letters != default:
        return ["dead_letters: without a sink there are none; a source has output.dead_letter_topic"]
    problems = ["dead_letters.stores: a place is there twice"] if len(set(letters.stores)) < len(letters.stores) else []
    if ("file" in letters.stores) != bool(letters.file):
        problems.append('dead_letters.file: required with, and only with, "file" in dead_letters.stores')
    for kind, options in (("iggy", ("stream", "topic")), ("file", ("max_file_bytes", "max_files"))):
        if kind not in letters.stores:
            problems += [f'dead_letters.{option}: only with "{kind}" in dead_letters.stores'
                         for option in given(letters, default, options)]
    if used("dead_letters.file") and letters.file and os.path.isdir(letters.file):
        problems.append(f"dead_letters.file: {shown(letters.file)} is a folder; give a file")
    return (problems + name_problems("dead_letters.stream", letters.stream)
            + name_problems("dead_letters.topic", letters.topic))


def _network_problems(network: NetworkConfig, has_sinks: bool) -> list[str]:
    problems = []
    if bool(network.listen) != bool(network.keys):
        problems.append("network.keys: required with, and only with, network.listen; make some with: pipeline keys")
    if not network.listen and network.port != NetworkConfig().port:
        problems.append("network.port: only with network.listen")
    if network.listen:
        problems += [line for line in address_problems("network.listen", f"{network.listen}:{network.port}")
                     if not problems]
        if not has_sinks:
            problems.append("network.listen: without a sink nothing is encoded, here or elsewhere")
    return problems


def _pipeline_problems(pipeline: PipelineConfig, used: Used) -> list[str]:
    problems = []
    shares = f" for each of the {pipeline.readers} ingest processes" if pipeline.readers > 1 else ""
    if pipeline.batch_size * pipeline.readers > pipeline.window_messages:
        problems.append(f"pipeline.window_messages: must be at least pipeline.batch_size{shares}")
    if pipeline.max_batch_bytes * pipeline.readers > pipeline.window_bytes:
        problems.append(f"pipeline.window_bytes: must be at least pipeline.max_batch_bytes{shares}")
    if pipeline.runtime_dir and used("pipeline.runtime_dir"):
        problems += _folder_problems("pipeline.runtime_dir", pipeline.runtime_dir)
    return problems


def _folder_problems(key: str, folder: str) -> list[str]:
    """What is wrong with a folder for sockets, which is made where it is missing."""
    if len(os.fsencode(os.path.join(os.path.abspath(folder), LONGEST_SOCKET))) > MAX_SOCKET_PATH:
        return [f"{key}: {shown(folder)} is too long for a socket's name; give a shorter folder"]
    there = os.path.abspath(folder)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    try:
        is_folder = stat.S_ISDIR(os.stat(there).st_mode)
    except OSError as error:
        return [f"{key}: {shown(there)}: {error.strerror}; give another folder"]
    if not is_folder:
        return [f"{key}: {shown(there)} is no folder; give another one"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"{key}: {shown(folder)} can't be made or written to; give a folder of your own"]
    return []
