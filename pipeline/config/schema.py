"""The configuration's schema: one frozen Struct a TOML table; defaults, units and ranges live here.

`pipeline.config.load` reads a file into these and reports every error at once.
"""

import re
from datetime import UTC, datetime
from string import Formatter
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from pipeline.config.connection_schema import ConnectionConfig
from pipeline.config.scalars import FilePath, Milliseconds, NonEmpty, PositiveInt
from pipeline.config.source_schema import SourceConfig
from pipeline.points.field_type import FieldType

Precision = Literal["ns", "us", "ms", "s"]
#: `mapping.timestamp_format` of numbers.
EPOCH_FORMATS = ("epoch_ns", "epoch_us", "epoch_ms", "epoch_s")


class IggyConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[iggy]`: the server to read from, and who we are there."""

    #: host:port of the server's TCP transport.
    address: NonEmpty = "127.0.0.1:8090"
    username: NonEmpty = "iggy"
    password: str = "iggy"
    #: Name under which the offsets are stored (`Consumer.Single`).
    consumer: NonEmpty = "pipeline"
    #: Instead of `consumer`: a consumer group, which deals the partitions out to all pipelines that name it.
    consumer_group: str = ""
    #: Longest wait for any answer; after it the connection is given up, and a new one made.
    call_timeout_ms: Milliseconds = 15_000


#: What to do when a partition's log ends before our position, or its topic was deleted and made again:
#: go on with the first message stored after the last one that was read; read all that is there; or stop.
OnTruncation = Literal["resume_from_end", "reread", "stop"]


class TopicConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[topics]]`: one topic to read."""

    stream: NonEmpty
    topic: NonEmpty
    #: Where to begin when no offset is stored: "earliest", "latest", an offset (integer), or an RFC 3339 time.
    start_from: str | int = "earliest"
    #: Only these partitions, where several pipelines share a topic by hand; empty: all.
    partitions: tuple[Annotated[int, Meta(ge=0, le=4_294_967_295)], ...] = ()
    #: `pipeline.on_truncation` when empty.
    on_truncation: Literal["", "resume_from_end", "reread", "stop"] = ""


#: A type in `mapping.types`: one of a field, or "json", for a string that holds the value as JSON.
DeclaredType = Literal[FieldType, "json"]


class RuleConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[mapping.rules]]`: what becomes of the messages that meet a condition. The first rule that fits counts."""

    #: The condition, e.g. "status == 'test' and not (temperature > 5)"; its grammar is in docs/reference/mapping.rst.
    when: NonEmpty
    #: "drop" leaves the message out. Exactly one of `then`, `measurement` and `bucket` is given.
    then: Literal["", "drop"] = ""
    #: Measurement instead of the one that `measurement_from` gives.
    measurement: str = ""
    #: Bucket (or database) instead of the configured one.
    bucket: str = ""


class MappingConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[mapping]`: how a message becomes a point.

    A path names a JSON key, or by dots one inside nested objects: `"site"`, `"location.city"`.
    """

    measurement_from: Literal["static", "field", "topic", "stream", "template"] = "topic"
    #: The measurement, with measurement_from = "static".
    measurement_name: str = ""
    #: Path of the measurement, with measurement_from = "field".
    measurement_field: str = ""
    #: With measurement_from = "template": text with {path}, {topic}, {stream}.
    measurement_template: str = ""
    #: Paths that become tags. Missing, null and empty values are left out.
    tag_fields: tuple[str, ...] = ()
    #: path -> tag key, for tags that are not to be called like their path.
    tag_renames: dict[str, str] = {}
    #: Path of an object whose members all become tags.
    tag_map_field: str = ""
    #: Tags that every point gets.
    constant_tags: dict[str, str] = {}
    #: Tags from where the message was: "offset" makes a series a message, and is warned of.
    metadata_tags: tuple[Literal["stream", "topic", "partition", "offset"], ...] = ()
    #: Iggy user header -> tag key.
    header_tags: dict[str, str] = {}
    #: "remaining": everything that is not a tag, the measurement or the time; "explicit": only `field_names`.
    field_strategy: Literal["remaining", "explicit"] = "remaining"
    field_names: tuple[str, ...] = ()
    #: path -> field key.
    field_renames: dict[str, str] = {}
    #: Paths that are left out, with all that is in an object or array there: no fields, and no tags of `tag_map_field`.
    exclude_fields: tuple[str, ...] = ()
    #: Objects inside: opened ("flatten", keys joined by `flatten_separator`), kept as JSON text, or dropped.
    nested: Literal["flatten", "json", "drop"] = "flatten"
    flatten_separator: str = "_"
    #: Arrays: one string field of JSON text, a field for each element, one string of all elements, or dropped.
    arrays: Literal["json", "index", "join", "drop"] = "json"
    array_join_separator: str = ","
    #: Path of an array: each element becomes a point of its own, with the rest of the message.
    explode: str = ""
    #: path -> type, for fields that have one; values are converted, and rejected where that would lose something.
    types: dict[str, DeclaredType] = {}
    #: "float": every JSON number is written as a float; "as_written": `20` is an integer field, `20.0` a float.
    integers: Literal["float", "as_written"] = "float"
    #: A number that its type cannot hold, an infinity: reject the message, leave the field out, or write a string.
    on_bad_value: Literal["reject", "drop_field", "string"] = "reject"
    #: Two different values of a message that have one field key or tag key: reject the message, or write the last one
    #: and say so.
    on_name_clash: Literal["reject", "keep_last"] = "reject"
    #: A message none of whose fields has a value.
    on_no_fields: Literal["reject", "drop"] = "reject"
    #: "iggy_timestamp": when the server took the message; "origin_timestamp": when its producer made it, by the
    #: producer's clock; "arrival": when it was read; "field". At precision "ns", times that are not from a field are
    #: told apart by the messages' places in the log (`stages.mapping.records.message_times`).
    timestamp_from: Literal["field", "iggy_timestamp", "origin_timestamp", "arrival"] = "iggy_timestamp"
    #: Path of the time, with timestamp_from = "field".
    timestamp_field: str = ""
    #: epoch_ns, epoch_us, epoch_ms, epoch_s, rfc3339, iso8601, or a strptime format such as "%d/%m/%Y %H:%M:%S".
    timestamp_format: str = "epoch_ms"
    #: Zone of times without an offset, with iso8601 and strptime formats: "UTC", "+01:00" or a name, "Europe/Berlin".
    timestamp_zone: str = "UTC"
    #: Abbreviation -> offset, for %Z in a strptime format: { CET = "+01:00" }. UTC and GMT are known.
    timestamp_zone_names: dict[str, str] = {}
    #: A message whose time is missing or null; or 0, with timestamp_from = "origin_timestamp".
    on_missing_timestamp: Literal["reject", "iggy_timestamp", "arrival"] = "reject"
    #: Points of one batch with the same measurement, tags and time become one; later fields win.
    merge_duplicates: bool = True
    #: One type for each field of each measurement, whichever message had it first; integers become floats where needed.
    type_guard: bool = True
    #: Distinct values of one tag, about; 0 does not count them.
    max_tag_values: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 100_000
    #: What is done to a tag with more: only a warning, written as the string field `<tag>_value`, or messages that
    #: have the tag rejected.
    on_high_cardinality: Literal["warn", "to_field", "reject"] = "warn"
    #: What the payloads are. Each format is turned into JSON objects first, and then mapped like these.
    format: Literal["json", "ndjson", "msgpack", "line_protocol", "text", "csv", "avro", "protobuf"] = "json"
    #: Key that the payload has as a text, with format = "text".
    text_field: NonEmpty = "message"
    #: Column names, with format = "csv"; when empty, the first line of each payload has them.
    csv_header: tuple[str, ...] = ()
    csv_delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    #: Take the white space around names and cells away, with format = "csv".
    csv_trim: bool = False
    #: File of the schema (JSON), with format = "avro"; without it, payloads are object container files.
    avro_schema: FilePath = ""
    #: File of a FileDescriptorSet (`protoc --descriptor_set_out --include_imports`), with format = "protobuf".
    protobuf_descriptor: FilePath = ""
    #: Full name of the message in it, such as "telemetry.Reading".
    protobuf_message: str = ""
    #: Of the payloads' own times, with format = "line_protocol".
    line_protocol_precision: Precision = "ns"
    #: How payloads are compressed; "auto" sees it by their first bytes (gzip, zstd, lz4 and snappy frames).
    compression: Literal["none", "auto", "gzip", "zstd", "lz4", "snappy"] = "none"
    #: Largest payload, after decompression; a larger one is rejected.
    max_payload_bytes: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 10_000_000
    #: What one message may be, at most; one over a limit is rejected. Objects and arrays within each other.
    max_depth: Annotated[int, Meta(ge=1, le=200)] = 64
    #: Keys of one point, with those in opened objects and arrays.
    max_keys: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    #: Points of one message: elements, records or lines, bad ones too.
    max_points: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    #: Values in all points of one message; those that its points share count with each.
    max_values: Annotated[int, Meta(ge=1, le=100_000_000)] = 1_000_000
    #: Bytes that one message becomes on its way to line protocol, or in it.
    max_expanded_bytes: Annotated[int, Meta(ge=1_000, le=4_000_000_000)] = 32_000_000
    #: CPU time that an encoder spends on one message, milliseconds.
    max_message_cpu_ms: Annotated[int, Meta(ge=100, le=3_600_000)] = 5_000
    rules: tuple[RuleConfig, ...] = ()
    #: Bucket (or database) by a template with {path}, {topic}, {stream}; what it gives must be in `allowed_buckets`.
    bucket_template: str = ""
    #: Buckets that `bucket_template` may give.
    allowed_buckets: tuple[NonEmpty, ...] = ()

    def needs_timestamps(self) -> bool:
        """Whether Iggy's times of the messages are asked for."""
        return (self.timestamp_from in ("iggy_timestamp", "origin_timestamp")
                or self.on_missing_timestamp == "iggy_timestamp" or self.lacks_year())

    def lacks_year(self) -> bool:
        """Whether the times have no year: it is the one that puts them nearest to Iggy's time of the message."""
        directives = re.findall("%(.)", self.timestamp_format, re.DOTALL)
        return self.timestamp_from == "field" and bool(directives) and not set(directives) & set("YyGcx")

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
    precision: Precision = "ns"
    #: With v3: store the good lines of a request that has bad ones.
    accept_partial: bool = True
    #: With v3: the server answers before its write-ahead log is synced; a crash of the server then loses points.
    no_sync: bool = False
    #: Longest time for a whole request, from connecting to the last byte of the answer; after it the request is
    #: repeated. 0: connect_timeout_ms + read_timeout_ms.
    request_timeout_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 0
    #: Most requests at a time, for each writer process. 0: 4, and 32 with InfluxDB 3, which answers a request only when
    #: it next flushes its write-ahead log, once a second.
    max_requests_in_flight: Annotated[int, Meta(ge=0, le=64)] = 0
    #: "partition": a write that needs a retry holds back later ones of its partition; "none": it does not.
    ordering: Literal["partition", "none"] = "partition"
    #: Whether stored batches may be written once more, to keep that order and to tell poison lines from a failing
    #: server; "auto": not to QuestDB and VictoriaMetrics, which keep both copies. "yes" is right where each table of
    #: QuestDB has DEDUP UPSERT KEYS.
    repeat_writes: Literal["auto", "yes", "no"] = "auto"

    def url_sets(self) -> list[tuple[str, ...]]:
        """The servers in sets: every point is written to each set, and in a set to the first server that works."""
        return [(url,) for url in self.servers()] if self.replication == "mirror" else [self.servers()]


class DeadLetterConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[dead_letters]`: where messages go that can't be written. Empty `stores` only logs them."""

    stores: tuple[Literal["iggy", "file"], ...] = ("iggy",)
    #: The topic, made if it is missing; the stream of each message's own topic when `stream` is empty.
    stream: str = ""
    topic: NonEmpty = "influxdb-dlq"
    #: NDJSON file; with "file".
    file: FilePath = ""
    #: The file is closed and numbered at this size; at most so many are kept.
    max_file_bytes: Annotated[int, Meta(ge=10_000, le=1_000_000_000_000)] = 100_000_000
    max_files: Annotated[int, Meta(ge=1, le=10_000)] = 10


class PipelineConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[pipeline]`: batches, windows and processes."""

    #: Encoder processes; 0 means one a core.
    workers: Annotated[int, Meta(ge=0, le=256)] = 0
    writers: Annotated[int, Meta(ge=1, le=64)] = 2
    #: Processes that read Iggy; they share the partitions, and the window.
    readers: Annotated[int, Meta(ge=1, le=16)] = 1
    #: A batch ends at the first of these three.
    batch_size: Annotated[int, Meta(ge=1, le=100_000)] = 5_000
    max_batch_bytes: Annotated[int, Meta(ge=1_024, le=256_000_000)] = 5_000_000
    flush_interval_ms: Milliseconds = 1_000
    #: Read but not yet written, at most: where the window is full, reading stops.
    window_messages: PositiveInt = 400_000
    window_bytes: PositiveInt = 64_000_000
    #: Memory of what each encoder remembers of series, names and types, at most; when it is full, the largest part is
    #: forgotten, and made again as it is needed.
    encoder_cache_bytes: Annotated[int, Meta(ge=1_000_000, le=100_000_000_000)] = 128_000_000
    commit_interval_ms: Milliseconds = 200
    #: Longest time for finishing what is in flight at a stop.
    drain_timeout_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 30_000
    #: A range not settled for so long is read again, unless a writer is waiting for the database.
    redelivery_timeout_ms: Annotated[int, Meta(ge=1_000, le=86_400_000)] = 60_000
    #: See `OnTruncation`.
    on_truncation: OnTruncation = "resume_from_end"
    #: A process that was not heard of for so long is killed and started again.
    heartbeat_timeout_ms: Annotated[int, Meta(ge=3_000, le=3_600_000)] = 15_000
    #: More restarts than this within the window stop the pipeline.
    max_restarts: Annotated[int, Meta(ge=0, le=10_000)] = 10
    restart_window_ms: Annotated[int, Meta(ge=1_000, le=86_400_000)] = 60_000
    #: Folder for the sockets; made anew under the system's temporary folder when empty.
    runtime_dir: FilePath = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class SinkConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[sinks]]`: topics with a mapping and a database of their own."""

    #: Unique; appears in logs and metrics.
    name: NonEmpty
    #: Name under which this sink's offsets are stored; `iggy.consumer` when empty.
    consumer: str = ""
    topics: tuple[TopicConfig, ...]
    mapping: MappingConfig = MappingConfig()
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

    def label(self, partition: int | None = None) -> str:
        """Names the topic, or one of its partitions, for people: "stream/topic", "stream/topic partition 0"."""
        return f"{self.stream}/{self.topic}" + ("" if partition is None else f" partition {partition}")


class CaseConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[tests]]`: a message and what the mapping has to make of it; run by `pipeline test`."""

    name: NonEmpty
    #: The payload as a text, or a table that becomes JSON.
    message: str | dict[str, Any] = ""
    #: The payload in Base64, instead.
    message_base64: str = ""
    #: Sink and topic whose mapping it is; the first ones by default.
    sink: str = ""
    topic: str = ""
    partition: Annotated[int, Meta(ge=0, le=4_294_967_295)] = 0
    offset: Annotated[int, Meta(ge=0, le=9_223_372_036_854_775_807)] = 0
    #: Iggy's time of the message, and that of reading it: microseconds since 1970.
    timestamp_us: Annotated[int, Meta(ge=-9_223_372_036_854_775, le=9_223_372_036_854_775)] = 1_700_000_000_000_000
    headers: dict[str, str] = {}
    #: The lines expected.
    lines: tuple[str, ...] = ()
    #: Bucket that the lines are expected to go to; "" is the configured one.
    bucket: str = ""
    #: Class of the reject expected, or the class and the beginning of its words: "bad_field: v: 1.5".
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
        """Every topic of every sink, in order; `wire.Partition.topic` counts these."""
        group = self.iggy.consumer_group
        return tuple(Subscription(index, topic.stream, topic.topic, topic.start_from,
                                  sink.consumer or group or self.iggy.consumer, bool(group), topic.partitions,
                                  topic.on_truncation or self.pipeline.on_truncation)
                     for index, sink in enumerate(self.all_sinks()) for topic in sink.topics)
