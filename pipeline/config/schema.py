"""The configuration's schema: one frozen Struct for each TOML table, with defaults, units and ranges.

`pipeline.config.load` reads a file into these Structs and reports all mistakes at once. The `#:` comments are also the
text of the documentation's page of all keys (`docs/options.py`), so they are written for users.
"""

import re
from datetime import UTC, datetime
from string import Formatter
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from pipeline.about import EVERYTHING
from pipeline.config.connection_schema import ConnectionConfig
from pipeline.config.http_schema import HttpConfig
from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.log_schema import LogLevel, LogLevels
from pipeline.config.mapping_schema import DeclaredType, TimeConfig
from pipeline.config.mapping_schema import Precision as Precision
from pipeline.config.otlp_schema import OtlpConfig
from pipeline.config.patterns import is_pattern, matches_any
from pipeline.config.scalars import FilePath, Milliseconds, NonEmpty, PositiveInt
from pipeline.config.source_schema import SourceConfig
from pipeline.config.steps_schema import AnyStep, OnlyChangedStep, headers_in, names_of, needs_everything
from pipeline.log_formats import LogFormat

#: Reaction when a partition's log ends before the position of ingest, or its topic was deleted and made again.
OnTruncation = Literal["resume_from_end", "reread", "stop"]


class TopicConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[topics]]`: one topic to read, or all those that match a pattern."""

    #: Name of the stream, or a pattern with `*` (any text) and `?` (any character).
    stream: NonEmpty
    #: Name of the topic, or a pattern. Topics that match are found while the pipeline runs, too, and read from
    #: `start_from`. Never one that this configuration writes to, such as that of the dead letters: name it to read it.
    topic: NonEmpty
    #: Topics that a pattern leaves out; patterns, too.
    exclude: tuple[NonEmpty, ...] = ()
    #: Where to start if no offset is stored: "earliest", "latest", an offset (integer), or an RFC 3339 time.
    start_from: str | int = "earliest"
    #: Read only these partitions; for several pipelines that divide a topic by hand. Empty: all.
    partitions: tuple[Annotated[int, Meta(ge=0, le=4_294_967_295)], ...] = ()
    #: As `pipeline.on_truncation`, for this topic; "" uses that one.
    on_truncation: Literal["", "resume_from_end", "reread", "stop"] = ""


#: A header that a condition names.
_HEADER: Final = re.compile(r"""\bheader\(\s*(?:'([^'\\]*)'|"([^"\\]*)"|([\w.\-]+))\s*\)""")


class RuleConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[mapping.rules]]`: what becomes of the messages that meet a condition. The first rule that fits counts."""

    #: The condition, e.g. "status == 'test' and not (temperature > 5)"; its grammar is in docs/reference/mapping.rst.
    when: NonEmpty
    #: "drop" leaves the message out. Either this is given, or `measurement`, `bucket` or both.
    then: Literal["", "drop"] = ""
    #: Measurement, instead of the one of `measurement_from`.
    measurement: str = ""
    #: Bucket (or database), instead of the configured one.
    bucket: str = ""


class MappingConfig(TimeConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[mapping]`: how a message becomes a point.

    A path names a JSON key, or with dots a key inside nested objects: `"site"`, `"location.city"`.
    """

    #: Where the measurement comes from.
    measurement_from: Literal["static", "field", "topic", "stream", "template"] = "topic"
    #: The measurement, with measurement_from = "static".
    measurement_name: str = ""
    #: Path of the measurement, with measurement_from = "field".
    measurement_field: str = ""
    #: Text with {path}, {topic} and {stream}, with measurement_from = "template".
    measurement_template: str = ""
    #: Paths that become tags. Missing, null and empty values are left out.
    tag_fields: tuple[str, ...] = ()
    #: path -> tag key, for tags that are not named like their path.
    tag_renames: dict[str, str] = {}
    #: Path of an object whose members all become tags.
    tag_map_field: str = ""
    #: Tags of every point.
    constant_tags: dict[str, str] = {}
    #: What to do with a tag that line protocol cannot hold, such as one with a line break: reject the message, or write
    #: it cleaned, a line break as \\n in two characters, without a backslash at the end.
    on_bad_tag: Literal["reject", "clean"] = "reject"
    #: Tags from the message's place. "offset" makes every message a series of its own; a warning says so.
    metadata_tags: tuple[Literal["stream", "topic", "partition", "offset"], ...] = ()
    #: Iggy user header -> tag key.
    header_tags: dict[str, str] = {}
    #: "remaining": everything that is not a tag, the measurement or the time; "explicit": only `field_names`.
    field_strategy: Literal["remaining", "explicit"] = "remaining"
    #: Paths that become fields, with field_strategy = "explicit".
    field_names: tuple[str, ...] = ()
    #: path -> field key, for fields that are not named like their path.
    field_renames: dict[str, str] = {}
    #: Paths that are left out with everything inside them: as fields, and as tags of `tag_map_field`.
    exclude_fields: tuple[str, ...] = ()
    #: Nested objects: a field for each member ("flatten"), kept as JSON text, or dropped.
    nested: Literal["flatten", "json", "drop"] = "flatten"
    #: Text that joins the keys of flattened objects and of array elements.
    flatten_separator: str = "_"
    #: Arrays: kept as JSON text, a field for each element ("index"), one string of all elements ("join"), or dropped.
    arrays: Literal["json", "index", "join", "drop"] = "json"
    #: Text that joins the elements, with arrays = "join".
    array_join_separator: str = ","
    #: Path of an array of which each element becomes a point, together with the rest of the message.
    explode: str = ""
    #: path -> type; a path with `*` (any text) and `?` (any character) is for all that match it, and the first one that
    #: matches counts. Values are converted; see `on_bad_value` for those that a type cannot hold. "number": texts that
    #: look like a number are one, other texts stay texts.
    types: dict[str, DeclaredType] = {}
    #: Type of numbers without a declared type: always a float, or "as_written": `20` is an integer, `20.0` a float.
    integers: Literal["float", "as_written"] = "float"
    #: What to do with a value that its type cannot hold, or that differs from the type that its field has had, NaN and
    #: infinities: reject the message, leave the field out, or write a string.
    on_bad_value: Literal["reject", "drop_field", "string"] = "reject"
    #: What to do if two different values of a message get the same field key or tag key: reject the message, or write
    #: the last value with a warning.
    on_name_clash: Literal["reject", "keep_last"] = "reject"
    #: What to do with a message without any field: reject it, or leave it out.
    on_no_fields: Literal["reject", "drop"] = "reject"
    #: Merge points of one batch with the same measurement, tags and time; later fields win.
    merge_duplicates: bool = True
    #: Keep each field of a measurement to one type over all encoders: the declared or the first one. Numbers are
    #: converted if nothing is lost.
    type_guard: bool = True
    #: Most distinct values of one tag (estimated); 0 disables counting.
    max_tag_values: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 100_000
    #: Action for a tag above `max_tag_values`: a warning, writing it as the string field `<tag>_value`, or rejecting
    #: messages that have the tag.
    on_high_cardinality: Literal["warn", "to_field", "reject"] = "warn"
    #: Deepest nesting of objects and arrays; a message over this, or over one of the next limits, is rejected.
    max_depth: Annotated[int, Meta(ge=1, le=200)] = 64
    #: Most keys of one point, with those of flattened objects and arrays.
    max_keys: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    #: Most points of one message: elements, records or lines, including bad ones.
    max_points: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    #: Most values in all points of one message; values that points share count for each of them.
    max_values: Annotated[int, Meta(ge=1, le=100_000_000)] = 1_000_000
    #: Most bytes of one message as JSON or line protocol.
    max_expanded_bytes: Annotated[int, Meta(ge=1_000, le=4_000_000_000)] = 32_000_000
    #: Longest CPU time that an encoder spends on one message, milliseconds.
    max_message_cpu_ms: Annotated[int, Meta(ge=100, le=3_600_000)] = 5_000
    #: A program of jq that changes the decoded messages, before `steps`; needs the extra `jq`.
    jq: str = ""
    #: Steps that change the decoded messages, in order, before they are mapped: `[[mapping.steps]]`.
    steps: tuple[AnyStep, ...] = ()
    #: A Python function that changes the messages after `steps`, "module:function".
    transform: str = ""
    #: Folder of its module, if it is not installed.
    transform_path: FilePath = ""
    #: Longest time of one call of such a function; then the message is rejected.
    transform_timeout_ms: Annotated[int, Meta(ge=10, le=600_000)] = 5_000
    #: Rules that drop or route messages: `[[mapping.rules]]`.
    rules: tuple[RuleConfig, ...] = ()
    #: Template of the bucket (or database) with {path}, {topic} and {stream}; its result must be in `allowed_buckets`.
    bucket_template: str = ""
    #: Buckets that `bucket_template` may result in.
    allowed_buckets: tuple[NonEmpty, ...] = ()

    def needs_timestamps(self) -> bool:
        """Whether the mapping needs Iggy's times of the messages."""
        return (self.timestamp_from in ("iggy_timestamp", "origin_timestamp")
                or self.on_missing_timestamp == "iggy_timestamp" or self.needs_own_time()
                or any("timestamp()" in names_of(step) for step in self.steps) or self.needs_order())

    def header_names(self) -> tuple[str, ...]:
        """The headers of messages that the mapping needs: those of `point_headers` first, in order."""
        everything = [EVERYTHING] if needs_everything(self.steps, self.jq, self.transform) else []
        in_payloads = [self.sparkplug_header()] if self.sparkplug_header() else []
        return tuple(dict.fromkeys([*self.point_headers(), *headers_in(self.steps), *in_payloads, *everything]))

    def needs_order(self) -> bool:
        """Whether all batches of a partition should go to one encoder, which remembers what it has written, or read."""
        return self.format == "sparkplug" or any(isinstance(step, OnlyChangedStep) for step in self.steps)

    def has_steps(self) -> bool:
        """Whether messages are changed before they are mapped."""
        return bool(self.steps or self.jq or self.transform)

    def point_headers(self) -> tuple[str, ...]:
        """Those that points need, whatever steps need: those of `header_tags` first, in order."""
        found = [match[match.lastindex or 0] for rule in self.rules for match in _HEADER.finditer(rule.when)]
        return tuple(dict.fromkeys([*self.header_tags, *found]))

    def template_paths(self) -> list[str]:
        """The paths that `measurement_template` holds."""
        return template_paths(self.measurement_template) if self.measurement_from == "template" else []

    def bucket_paths(self) -> list[str]:
        """The paths that `bucket_template` holds."""
        return template_paths(self.bucket_template)


def template_paths(template: str) -> list[str]:
    """The paths in a template such as "{topic}_{site}", but for topic and stream.

    Raises ValueError for unbalanced braces, for `{}`, and for conversions and formats such as {site!r} and {site:>5}.
    """
    paths = []
    for _, name, form, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name or form or conversion:
            raise ValueError("give a path in each pair of braces, and nothing else")
        if name not in ("topic", "stream"):
            paths.append(name)
    return paths


def start_position(start_from: str | int) -> tuple[str, int]:
    """`start_from` as ("earliest", 0), ("latest", 0), ("offset", n) or ("timestamp", microseconds since 1970).

    Raises ValueError for anything else.
    """
    if isinstance(start_from, int):
        if not 0 <= start_from < 2**63:
            raise ValueError(start_from)
        return "offset", start_from
    if start_from in ("earliest", "latest"):
        return start_from, 0
    time = datetime.fromisoformat(start_from)
    if time.tzinfo is None or time < datetime(1970, 1, 1, tzinfo=UTC):
        raise ValueError(start_from)
    return "timestamp", round(time.timestamp() * 1_000_000)


class InfluxConfig(ConnectionConfig, frozen=True, kw_only=True):
    """`[influxdb]`: the database to write to."""

    #: With several `urls`: "failover" writes a point to the first server that works, "mirror" to every one.
    replication: Literal["failover", "mirror"] = "failover"
    #: With v1, in a cluster: how many nodes must have stored the points; "" is the server's default.
    consistency: Literal["", "any", "one", "quorum", "all"] = ""
    #: Unit of the times that are written. Points of one series that are equal in it overwrite each other.
    precision: Precision = "ns"
    #: With v3: store the good lines of a request that has bad ones.
    accept_partial: bool = True
    #: With v3: the server answers before its write-ahead log is synced; a crash of the server then loses points.
    no_sync: bool = False
    #: Longest time for a whole request, from connecting to the last byte of the answer; after that the request is
    #: repeated. 0: connect_timeout_ms + read_timeout_ms.
    request_timeout_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 0
    #: Most requests of each writer process at a time. 0: 8, or 64 with InfluxDB 3, which answers a request only when it
    #: next flushes its write-ahead log, once a second.
    max_requests_in_flight: Annotated[int, Meta(ge=0, le=64)] = 0
    #: "partition": later batches of a partition wait for one that is retried, so that newer values remain; "none": they
    #: do not wait.
    ordering: Literal["partition", "none"] = "partition"
    #: Whether stored batches may be written once more, to keep that order and to tell a bad line from a failing server.
    #: "auto": not to QuestDB and VictoriaMetrics, which keep both copies. "yes" is right if each table of QuestDB has
    #: DEDUP UPSERT KEYS.
    repeat_writes: Literal["auto", "yes", "no"] = "auto"

    def url_sets(self) -> list[tuple[str, ...]]:
        """The servers in sets: every point is written to each set, and in a set to the first server that works."""
        return [(url,) for url in self.servers()] if self.replication == "mirror" else [self.servers()]


class DeadLetterConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[dead_letters]`: where messages are stored that cannot be written."""

    #: Where dead letters are stored: in a topic, a file, or both. Empty: they are only logged.
    stores: tuple[Literal["iggy", "file"], ...] = ("iggy",)
    #: Stream of the topic; "" uses the stream of each message's own topic.
    stream: str = ""
    #: Name of the topic, with "iggy"; created if missing.
    topic: NonEmpty = "influxdb-dlq"
    #: NDJSON file, with "file".
    file: FilePath = ""
    #: The file is renamed to a numbered one before it exceeds this size.
    max_file_bytes: Annotated[int, Meta(ge=10_000, le=1_000_000_000_000)] = 100_000_000
    #: Most numbered files that are kept; the oldest is deleted.
    max_files: Annotated[int, Meta(ge=1, le=10_000)] = 10


class PipelineConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[pipeline]`: batches, windows and processes."""

    #: Encoder (and convert) processes; 0: one for each core.
    workers: Annotated[int, Meta(ge=0, le=256)] = 0
    #: Writer processes. Each writes its part of the partitions with requests of its own, so more of them make more and
    #: smaller requests. One is enough for 3,000,000 messages a second.
    writers: Annotated[int, Meta(ge=1, le=64)] = 1
    #: Ingest processes, which share the partitions and the window.
    readers: Annotated[int, Meta(ge=1, le=16)] = 1
    #: Most messages of a batch.
    batch_size: Annotated[int, Meta(ge=1, le=100_000)] = 5_000
    #: Most payload bytes of a batch.
    max_batch_bytes: Annotated[int, Meta(ge=1_024, le=256_000_000)] = 5_000_000
    #: Longest time for which messages wait for a batch to fill. Small batches of a sink share a write request.
    flush_interval_ms: Milliseconds = 1_000
    #: "batched": a batch is written when it is full or the flush interval has passed. "low_latency": also as soon as
    #: nothing is in flight, some 10 ms after a message; this costs a write request for every few messages, and a third
    #: of a core at 100 messages/s.
    delivery: Literal["batched", "low_latency"] = "batched"
    #: Most messages that are read and not yet written; reading stops when the window is full.
    window_messages: PositiveInt = 400_000
    #: Most payload bytes that are read and not yet written.
    window_bytes: PositiveInt = 64_000_000
    #: Most memory of each encoder's caches of series, names and types; when it is full, the largest cache is emptied
    #: and filled again as needed.
    encoder_cache_bytes: Annotated[int, Meta(ge=1_000_000, le=100_000_000_000)] = 128_000_000
    #: Interval in which offsets are stored in Iggy, and states of sources. For many partitions it grows: 100 ms for
    #: each with new offsets, at most 10 s.
    commit_interval_ms: Milliseconds = 200
    #: Longest time for finishing what is in flight at a stop.
    drain_timeout_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 30_000
    #: A range that is not settled after this time is read again, unless a writer is waiting for the database.
    redelivery_timeout_ms: Annotated[int, Meta(ge=1_000, le=86_400_000)] = 60_000
    #: After Iggy lost messages in a crash, or a topic was made again: "resume_from_end" continues with the first
    #: message stored after the last one that was read, "reread" reads everything that exists, "stop" ends with exit
    #: code 1.
    on_truncation: OnTruncation = "resume_from_end"
    #: A process without a heartbeat for this time is killed and started again.
    heartbeat_timeout_ms: Annotated[int, Meta(ge=3_000, le=3_600_000)] = 15_000
    #: More restarts than this within `restart_window_ms` stop the pipeline.
    max_restarts: Annotated[int, Meta(ge=0, le=10_000)] = 10
    #: The window for `max_restarts`.
    restart_window_ms: Annotated[int, Meta(ge=1_000, le=86_400_000)] = 60_000
    #: Private folder for the sockets; "" makes a new one in the system's temporary folder.
    runtime_dir: FilePath = ""
    #: Least severe records that are logged.
    log_level: LogLevel = "info"
    #: The same for single stages, such as `{ ingest = "debug" }`.
    log_levels: LogLevels = LogLevels()
    #: How the log is written to standard error: "text", "json" (a JSON object a line, with what it is about as fields),
    #: "journal" (with systemd's priorities). "auto" is "journal" where systemd reads it, and else "text".
    log_format: LogFormat = "auto"


class SinkConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[sinks]]`: topics with their own mapping and database, for several sinks in one configuration."""

    #: Unique name, shown in logs and dead letters.
    name: NonEmpty
    #: Name under which this sink's offsets are stored; "" uses `iggy.consumer`.
    consumer: str = ""
    #: As `[[topics]]`.
    topics: tuple[TopicConfig, ...]
    #: As `[mapping]`.
    mapping: MappingConfig = MappingConfig()
    #: As `[influxdb]`.
    influxdb: InfluxConfig = InfluxConfig()


class NetworkConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[network]`: for encoders on other machines."""

    #: Address of this machine to listen on; empty: this machine only.
    listen: str = ""
    #: The first of 100 ports: one for control, the rest for ingest processes and writers.
    port: Annotated[int, Meta(ge=1, le=65_435)] = 7_400
    #: Folder with the keys that `pipeline keys` makes.
    keys: FilePath = ""


class Subscription(Struct, frozen=True):
    """One topic that one sink reads."""

    #: Index into `Config.all_sinks()`.
    sink: int
    stream: str
    topic: str
    start_from: str | int
    #: Name under which the offsets are stored: of a single consumer, or of a group.
    consumer: str
    group: bool = False
    #: Only these; empty: all.
    partitions: tuple[int, ...] = ()
    on_truncation: OnTruncation = "resume_from_end"
    #: Names of topics that a pattern leaves out.
    exclude: tuple[str, ...] = ()

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for all topics that match."""
        return is_pattern(self.stream) or is_pattern(self.topic)

    def matches(self, stream: str, topic: str) -> bool:
        """Whether the pattern, or the name, fits a topic, which is not excluded."""
        return (matches_any(stream, [self.stream]) and matches_any(topic, [self.topic])
                and not matches_any(topic, self.exclude))

    def label(self, partition: int | None = None) -> str:
        """Names the topic, or one of its partitions, for people: "stream/topic", "stream/topic partition 0"."""
        return f"{self.stream}/{self.topic}" + ("" if partition is None else f" partition {partition}")


class CaseConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[tests]]`: a message and the expected result of the mapping; run by `pipeline test`."""

    #: Name of the case, shown when it fails.
    name: NonEmpty
    #: The payload as a text, or a table that becomes JSON.
    message: str | dict[str, Any] = ""
    #: The payload in Base64, instead of `message`.
    message_base64: str = ""
    #: Sink whose mapping is used; "" is the first one.
    sink: str = ""
    #: Topic whose mapping is used; "" is the first one.
    topic: str = ""
    #: Partition of the message.
    partition: Annotated[int, Meta(ge=0, le=4_294_967_295)] = 0
    #: Offset of the message.
    offset: Annotated[int, Meta(ge=0, le=9_223_372_036_854_775_807)] = 0
    #: Iggy's time of the message, and the time when it is read, microseconds since 1970.
    timestamp_us: Annotated[int, Meta(ge=-9_223_372_036_854_775, le=9_223_372_036_854_775)] = 1_700_000_000_000_000
    #: User headers of the message.
    headers: dict[str, str] = {}
    #: The expected lines.
    lines: tuple[str, ...] = ()
    #: Expected bucket of the lines; "" is the configured one.
    bucket: str = ""
    #: Expected reason of the reject, or reason and beginning of the detail: "bad_field: v: 1.5".
    reject: str = ""
    #: The message is expected to be left out.
    dropped: bool = False


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole configuration file: one sink at the top level, or several as `[[sinks]]`; and sources, if there are."""

    iggy: IggyConfig = IggyConfig()
    topics: tuple[TopicConfig, ...] = ()
    mapping: MappingConfig = MappingConfig()
    influxdb: InfluxConfig = InfluxConfig()
    sinks: tuple[SinkConfig, ...] = ()
    sources: tuple[SourceConfig, ...] = ()
    dead_letters: DeadLetterConfig = DeadLetterConfig()
    network: NetworkConfig = NetworkConfig()
    http: HttpConfig = HttpConfig()
    otlp: OtlpConfig = OtlpConfig()
    pipeline: PipelineConfig = PipelineConfig()
    #: Cases for `pipeline test`.
    tests: tuple[CaseConfig, ...] = ()

    def all_sinks(self) -> tuple[SinkConfig, ...]:
        """The sinks: those of `[[sinks]]`, or the one at the top level, called "main"; none beside a source alone."""
        if self.sources and not self.sinks and not self.topics:
            return ()
        return self.sinks or (
            SinkConfig(name="main", topics=self.topics, mapping=self.mapping, influxdb=self.influxdb),)

    def subscriptions(self) -> tuple[Subscription, ...]:
        """Every topic, or pattern of topics, of every sink, in order. See `pipeline.subscriptions`."""
        group = self.iggy.consumer_group
        return tuple(Subscription(index, topic.stream, topic.topic, topic.start_from,
                                  sink.consumer or group or self.iggy.consumer, bool(group), topic.partitions,
                                  topic.on_truncation or self.pipeline.on_truncation, topic.exclude)
                     for index, sink in enumerate(self.all_sinks()) for topic in sink.topics)
