"""Mistakes in `[[sources]]` that only show when its keys are seen together. Looks at files; asks no server."""

import importlib.util
import os
import re
import string
from collections.abc import Sequence
from urllib.parse import urlsplit

from pipeline.config.connection_checks import VersionOptions, connection_problems
from pipeline.config.schema import Config
from pipeline.config.source_choice_checks import choice_problems, policy_problems
from pipeline.config.source_schema import OutputConfig, SourceConfig
from pipeline.config.values import Used
from pipeline.errors import missing_package
from pipeline.points.alignment import UnknownZone, zone_of
from pipeline.points.times import TimeOutOfRange, parse_time

#: Longest name of a stream or topic, bytes. Source: Iggy's binary protocol, identifiers.
MAX_NAME_BYTES = 255
#: Longest ending of a backfill's state topic. Source: `source_coordinator.state.state_name`.
BACKFILL_BYTES = 32
#: Names that may stand in braces in a template of `[sources.output]`.
_TEMPLATE_NAMES = ("measurement", "source", "retention_policy")
#: Options that only some query APIs use: InfluxQL of InfluxDB 2 has databases and retention policies.
_VERSION_OPTIONS: VersionOptions = (
    ("bucket", ("v2",)), ("org", ("v2",)), ("org_id", ("v2",)), ("database", ("v1", "v2", "v3")),
    ("retention_policy", ("v1", "v2")))
#: All offsets of time zones are multiples of this, so that windows of its parts end at the same times in all of them.
ZONE_STEP_MS = 900_000
#: How a custom query asks for the clocks of a time zone: InfluxQL, Flux, SQL; and its name.
_TIME_ZONE = re.compile(r"\btz\s*\(|timezone\.|\blocation\s*:|\bat\s+time\s+zone\b", re.IGNORECASE)
_ZONE_NAME = re.compile(r"""(?:\btz\s*\(\s*|timezone\.location\(\s*name:\s*|\bat\s+time\s+zone\s+)['"]([\w/+-]+)['"]""",
                        re.IGNORECASE)
#: What gRPC accepts as the name and the value of a header. Source: "gRPC over HTTP2", Custom-Metadata.
HEADER_NAME, HEADER_VALUE = re.compile(r"[0-9a-z_.-]+"), re.compile(r"[\x20-\x7e]*")


def fed_by_sources(config: Config) -> bool:
    """Whether a sink reads a topic that a source of the same configuration writes to, or may write to later."""
    return any(may_be(source.output.stream, topic.stream) and may_be(source.output.topic, topic.topic)
               for source in config.sources for topic in config.subscriptions())


def may_be(template: str, name: str) -> bool:
    """Whether a template with {measurement} and {source} can give this name."""
    return re.fullmatch(".*".join(map(re.escape, re.split(r"\{\w+\}", template))), name, re.DOTALL) is not None


def source_problems(sources: tuple[SourceConfig, ...], used: Used) -> list[str]:
    """A line for each mistake: key, and what is allowed. Files are read only for keys that are `used`."""
    problems = []
    for index, source in enumerate(sources):
        key = f"sources[{index}]"
        others = sources[:index]
        if source.name in [other.name for other in others]:
            problems.append(f'{key}.name: "{source.name}" occurs twice')
        problems += _state_problems(source, others, key, used)
        problems += _shared_topic_problems(source, sources, key)
        problems += _window_problems(source, key)
        problems += _query_problems(source, key) + _time_problems(source, key) + _output_problems(source.output, key)
        problems += policy_problems(source, key) + choice_problems(source, key)
        for option in ("measurements", "exclude_measurements", "tags", "retention_policies", "fields",
                       "exclude_fields"):
            problems += _duplicate_problems(f"{key}.{option}", getattr(source, option))
        # The transport itself reads a source's ca_file before anything starts.
        problems += connection_problems(source.influxdb, f"{key}.influxdb", used, _VERSION_OPTIONS, read_ca_file=False)
        if source.influxdb.transport == "flight":
            problems += _flight_problems(source, key)
    return problems


def _duplicate_problems(key: str, names: Sequence[str]) -> list[str]:
    return [f'{key}: "{name}" occurs twice' for index, name in enumerate(names) if name in names[:index]]


def _state_problems(source: SourceConfig, others: tuple[SourceConfig, ...], key: str,
                    used: Used) -> list[str]:
    if bool(source.state_file) == bool(source.state_topic):
        return [f"{key}.state_file: not beside state_topic; the state is kept in one of them" if source.state_file else
                f'{key}.state_file: missing; give it, or state_topic = "stream/topic"']
    if source.state_topic:
        return _state_topic_problems(source, others, f"{key}.state_topic")
    problems = []
    path = os.path.abspath(source.state_file)
    if path in [os.path.abspath(other.state_file) for other in others if other.state_file]:
        problems.append(f'{key}.state_file: "{source.state_file}" is another source\'s already')
    if not used(f"{key}.state_file"):
        return problems
    if os.path.isdir(path):
        problems.append(f'{key}.state_file: "{path}" is a folder; give a file')
    elif not os.access(os.path.dirname(path), os.W_OK):
        problems.append(f'{key}.state_file: the folder "{os.path.dirname(path)}" is missing, or cannot be written to')
    return problems


def _state_topic_problems(source: SourceConfig, others: tuple[SourceConfig, ...], key: str) -> list[str]:
    problems = []
    stream, _, topic = source.state_topic.partition("/")
    if not stream or not topic:
        problems.append(f'{key}: "{source.state_topic}" is not allowed; give "stream/topic"')
    longest = MAX_NAME_BYTES - BACKFILL_BYTES
    if len(stream.encode()) > MAX_NAME_BYTES or len(topic.encode()) > longest:
        problems.append(f"{key}: longer than {MAX_NAME_BYTES} bytes for the stream, or {longest} for the topic")
    if source.state_topic in [other.state_topic for other in others]:
        problems.append(f'{key}: "{source.state_topic}" is another source\'s already')
    return problems


def _shared_topic_problems(source: SourceConfig, sources: tuple[SourceConfig, ...], key: str) -> list[str]:
    stream, _, topic = source.state_topic.partition("/")
    if any(stream == one.output.stream and (may_be(one.output.topic, topic) or topic == one.output.dead_letter_topic)
           for one in sources):
        return [f"{key}.state_topic: points may be sent to it; give a topic that nothing else is sent to"]
    return []


def _query_problems(source: SourceConfig, key: str) -> list[str]:
    problems = []
    if source.query:
        for place in ("$from", "$to"):
            if not re.search(re.escape(place) + r"(?!\w)", source.query):
                problems.append(f"{key}.query: has no {place}; it must ask for times from $from (inside) to $to "
                                "(outside)")
        if not source.measurement:
            problems.append(f"{key}.measurement: required with query: what its points are called")
        if source.measurements != ("*",) or source.exclude_measurements:
            problems.append(f"{key}.measurements: not beside query")
    for option in ("measurement", "tags", "window_align_ms", "window_align_zone"):
        if getattr(source, option) and not source.query:
            problems.append(f"{key}.{option}: only with query")
    problems += _zone_problems(source, f"{key}.window_align_zone")
    for name in sorted(set(source.tags) & set(source.types)):
        problems.append(f'{key}.types: "{name}" is also in tags; a column is a tag or a field')
    version, language = source.influxdb.version, source.language
    needed = {"flux": "v2", "sql": "v3"}.get(language)
    if needed and version not in ("auto", needed):
        problems.append(f'{key}.language: "{language}" only with influxdb.version = "{needed}" or "auto"')
    if source.query and source.types and (language == "flux" or (language == "auto" and version == "v2")):
        problems.append(f"{key}.types: not with a query in Flux, whose answers have the types in them")
    return problems


def _window_problems(source: SourceConfig, key: str) -> list[str]:
    problems = []
    for option in ("max_parallel_queries", "pages_in_flight"):
        most = getattr(source, option)
        if source.parallel_windows > most:
            problems.append(f"{key}.parallel_windows: more than {option} = {most}; raise that, too")
    if not source.keep_order and source.parallel_windows == 1:
        problems.append(f"{key}.keep_order: only with parallel_windows of 2 or more; one window is always read "
                        "in order")
    if source.windows_by_shard and source.query:
        problems.append(f"{key}.windows_by_shard: not beside query, whose windows end at multiples of window_align_ms")
    elif source.windows_by_shard and (source.language in ("flux", "sql") or source.influxdb.version == "v3"
                                      or source.influxdb.transport == "flight"):
        problems.append(f"{key}.windows_by_shard: only in InfluxQL, of InfluxDB 1 and 2")
    if 0 < source.max_window_ms < source.window_align_ms:
        problems.append(f"{key}.max_window_ms: less than window_align_ms = {source.window_align_ms}, the narrowest "
                        "window")
    return problems


def _zone_problems(source: SourceConfig, key: str) -> list[str]:
    """Windows whose ends would be in the middle of the query's groups."""
    named = _ZONE_NAME.search(source.query)
    example = named[1] if named else "Europe/Berlin"
    if not source.window_align_zone:
        if source.window_align_ms and ZONE_STEP_MS % source.window_align_ms and _TIME_ZONE.search(source.query):
            return [f"{key}: required, since the query groups by the clocks of a time zone and windows would cut its "
                    f'groups in two; give that zone: window_align_zone = "{example}"']
        return []
    if not source.window_align_ms and source.query:
        return [f"{key}: only with window_align_ms"]
    try:
        zone_of(source.window_align_zone)
    except UnknownZone:
        return [f'{key}: there is no time zone "{source.window_align_zone}"; give a name such as "Europe/Berlin"']
    if source.window_align_ms % 1_000:
        return [f"{key}: only with a window_align_ms of whole seconds"]
    if source.query and (named[1] if named else "") != source.window_align_zone:
        return [f'{key}: "{source.window_align_zone}", and the query names '
                f'{named[1] if named else "none"}; both must be the same']
    return []


def _flight_problems(source: SourceConfig, key: str) -> list[str]:
    """Options that gRPC cannot honour."""
    problems = []
    influxdb = source.influxdb
    if importlib.util.find_spec("pyarrow") is None:
        problems.append(f'{key}.influxdb.transport: "flight" {missing_package("pyarrow", "flight")}')
    if influxdb.version not in ("auto", "v3"):
        problems.append(f'{key}.influxdb.transport: "flight" only with version = "v3" or "auto"')
    if source.language == "flux":
        problems.append(f'{key}.language: "flux" not with influxdb.transport = "flight"')
    for option, url in influxdb.named_servers():
        parts = urlsplit(url)
        if parts.path.strip("/") or parts.query:
            problems.append(f'{key}.influxdb.{option}: "{url}" has a path, and Flight has none; give http://host:port')
    proxy = urlsplit(influxdb.proxy)
    if influxdb.proxy and (proxy.scheme != "http" or not proxy.hostname):
        problems.append(f"{key}.influxdb.proxy: for Flight it must be an HTTP proxy that takes CONNECT; give "
                        "http://host:port")
    for name, value in influxdb.headers.items():
        if not HEADER_NAME.fullmatch(name.lower()) or name.lower().startswith("grpc-"):
            problems.append(f'{key}.influxdb.headers: "{name}" cannot be sent over gRPC; give a name of letters, '
                            "digits, -, _ and ., that does not begin with grpc-")
        elif name.lower().endswith("-bin") or not HEADER_VALUE.fullmatch(value):
            problems.append(f"{key}.influxdb.headers.{name}: cannot be sent over gRPC; give printable ASCII, and a "
                            "name that does not end in -bin")
    return problems


def _time_problems(source: SourceConfig, key: str) -> list[str]:
    problems = []
    times = {}
    for option, text, special in (("from", source.from_, ("earliest", "now")), ("to", source.to, ("",))):
        if text in special:
            continue
        try:
            times[option] = parse_time(text)
        except TimeOutOfRange as error:
            problems.append(f"{key}.{option}: {error}" + ('; give "earliest"' if option == "from" else ""))
        except ValueError:
            allowed = '"earliest", "now", or a time' if option == "from" else "a time"
            problems.append(f'{key}.{option}: "{text}" is not allowed; give {allowed} like 2026-01-31T00:00:00Z')
    if len(times) == 2 and times["from"] >= times["to"]:
        problems.append(f"{key}.to: must be later than from")
    if source.to and source.from_ == "now":
        problems.append(f'{key}.from: "now" not with to; give a time, or "earliest"')
    return problems


def _output_problems(output: OutputConfig, key: str) -> list[str]:
    problems = []
    key += ".output"
    for option, template in (("stream", output.stream), ("topic", output.topic),
                             *((f"headers.{name}", text) for name, text in output.headers.items()),
                             *((f"constant_tags.{name}", text) for name, text in output.constant_tags.items())):
        try:
            places = [(name, form, conversion) for _, name, form, conversion in string.Formatter().parse(template)
                      if name is not None]
        except ValueError:
            places = [("", "", None)]
        if any(name not in _TEMPLATE_NAMES or form or conversion for name, form, conversion in places):
            problems.append(f'{key}.{option}: "{template}" is not allowed; only {{measurement}}, {{source}} and '
                            "{retention_policy} may stand in braces")
        if len(template.encode()) > MAX_NAME_BYTES and not option.startswith("constant_tags."):
            problems.append(f"{key}.{option}: longer than {MAX_NAME_BYTES} bytes")
    if len(output.dead_letter_topic.encode()) > MAX_NAME_BYTES:
        problems.append(f"{key}.dead_letter_topic: longer than {MAX_NAME_BYTES} bytes")
    if output.partition and output.partitioning != "fixed":
        problems.append(f'{key}.partition: only with partitioning = "fixed"')
    if output.compression != "none" and output.batch_points == 1:
        problems.append(f"{key}.compression: only with batch_points of 2 or more; a single point does not get smaller")
    if output.dead_letter_topic == output.topic:
        problems.append(f"{key}.dead_letter_topic: must be another than topic")
    return problems
