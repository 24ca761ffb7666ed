"""The configuration's schema of the source direction, InfluxDB to Iggy: `[[sources]]` and the tables in it."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from pipeline.config.connection_schema import ConnectionConfig
from pipeline.config.scalars import DayMilliseconds, FilePath, NonEmpty, YearMilliseconds
from pipeline.config.steps_schema import AnyStep
from pipeline.points.field_type import FieldType

Format = Literal["json", "line_protocol", "msgpack"]


class SourceInfluxConfig(ConnectionConfig, frozen=True, kw_only=True):
    """`[sources.influxdb]`: the database to read from."""

    #: "flight": Arrow Flight, which only InfluxDB 3 serves; `url` is then where it is served. Needs the extra `flight`.
    transport: Literal["http", "flight"] = "http"
    #: Longest wait for the next bytes of an answer.
    read_timeout_ms: DayMilliseconds = 60_000


class OutputConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[sources.output]`: the messages, and their topic."""

    #: Name of the stream, created if missing; may contain {measurement}, {source} and {retention_policy}.
    stream: NonEmpty
    #: Name of the topic, created if missing; may contain the same.
    topic: NonEmpty = "{measurement}"
    #: Partitions of a topic that is created.
    partitions: Annotated[int, Meta(ge=1, le=1_000)] = 1
    #: Format of the messages. Only "line_protocol" distinguishes unsigned integers.
    format: Literal["json", "line_protocol", "msgpack"] = "json"
    #: "wide": all fields of a point together; "long": one message for each field.
    shape: Literal["wide", "long"] = "wide"
    #: Points in one message: lines of text, or a MessagePack array.
    batch_points: Annotated[int, Meta(ge=1, le=100_000)] = 1
    #: Compression of messages with several points.
    compression: Literal["none", "gzip"] = "none"
    #: "series": all points of a series are in one partition, in order of time; "balanced": Iggy chooses a partition for
    #: each send; "fixed": always `partition`.
    partitioning: Literal["series", "balanced", "fixed"] = "series"
    #: The partition, with partitioning = "fixed".
    partition: Annotated[int, Meta(ge=0, le=4_294_967_295)] = 0
    #: User headers of every message; values may contain {measurement}, {source} and {retention_policy}.
    headers: dict[str, str] = {}
    #: Tags that every point gets which has no tag of this name; values may contain the same.
    constant_tags: dict[NonEmpty, NonEmpty] = {}
    #: Most messages in one request to Iggy, which has at most 4 MB, or one larger message.
    messages_per_send: Annotated[int, Meta(ge=1, le=100_000)] = 5_000
    #: Largest message. A larger one with several points is divided, one with a single point is rejected.
    max_message_bytes: Annotated[int, Meta(ge=1_024, le=64_000_000)] = 1_000_000
    #: Topic in the same stream, created if missing, for rows that cannot become messages; "" only logs them.
    dead_letter_topic: str = ""


class SourceConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True,
                   rename={"from_": "from"}):
    """`[[sources]]`: measurements of one database, to Iggy."""

    #: Unique name, shown in logs; replaces {source}.
    name: NonEmpty
    #: File of the watermarks and fingerprints, created at the first start. Either this or `state_topic` is required.
    state_file: FilePath = ""
    #: Topic of Iggy for them, "stream/topic", with one partition and nothing else in it.
    state_topic: str = ""
    #: Measurements to read: names, or patterns with * and ?. New ones are found while the source runs.
    measurements: tuple[NonEmpty, ...] = ("*",)
    #: Measurements to leave out: names, or patterns.
    exclude_measurements: tuple[NonEmpty, ...] = ()
    #: Retention policies to read, with InfluxQL: names, or patterns with * and ?; ["*"]: all. New ones are found while
    #: the source runs. Without it, `influxdb.retention_policy` or the database's default one is read.
    retention_policies: tuple[NonEmpty, ...] = ()
    #: Fields to read: names, or patterns. A point that has none of them is not sent.
    fields: tuple[NonEmpty, ...] = ("*",)
    #: Fields to leave out: names, or patterns.
    exclude_fields: tuple[NonEmpty, ...] = ()
    #: Tag -> values: only points whose tags have one of these, names or patterns, for each tag that is given. A pattern
    #: does not match a missing tag, the value "" does.
    tag_values: dict[NonEmpty, tuple[str, ...]] = {}
    #: Tag -> values: no points whose tags have one of these, for any tag that is given.
    exclude_tag_values: dict[NonEmpty, tuple[str, ...]] = {}
    #: Custom query, instead of `measurements`, with $from (inclusive) and $to (exclusive), and a column for the time.
    query: str = ""
    #: Measurement of the points of `query`.
    measurement: str = ""
    #: Columns of `query` that are tags, if the answer does not mark them.
    tags: tuple[NonEmpty, ...] = ()
    #: Field -> type that it is converted to; a name with `*` and `?` is for all that match it, and the first one that
    #: matches counts. With `query`: types of its columns, by their names, if the answer does not have them.
    types: dict[str, FieldType] = {}
    #: Steps that change each point before it is sent: `[[sources.steps]]`. A step sees a point as {"measurement",
    #: "tags", "fields", "time"}.
    steps: tuple[AnyStep, ...] = ()
    #: Windows of `query` end at multiples of this since 1970: the interval that the query groups by.
    window_align_ms: Annotated[int, Meta(ge=0, le=31_622_400_000)] = 0
    #: Time zone, such as "Europe/Berlin", whose clocks show those multiples: that of the query's groups. "": UTC.
    window_align_zone: str = ""
    #: "auto": influxql for v1 and v2 (flux with `query`, or if no database of v2 has the name), sql for v3.
    #: Measurements of v3 are always read with sql; influxql applies to `query` only.
    language: Literal["auto", "influxql", "flux", "sql"] = "auto"
    #: Where to start with a measurement that is not in the state: "earliest", "now", or an RFC 3339 time.
    from_: NonEmpty = "earliest"
    #: Where to end, RFC 3339, exclusive; "" never ends. With it, the source keeps a separate state.
    to: str = ""
    #: Only with `to`: where that is in the future, points in the future are read at once, and not once their time has
    #: come.
    read_future_points: bool = False
    #: Interval of queries after everything was read.
    poll_interval_ms: DayMilliseconds = 5_000
    #: Longest interval of queries for a measurement that has no new points. Without any for a time t, it is asked again
    #: after t / 8, at least `poll_interval_ms` and at most this; its next points are read that much later.
    idle_interval_ms: DayMilliseconds = 30_000
    #: Points younger than this are read later, since others of the same time may still be written.
    buffer_duration_ms: YearMilliseconds = 10_000
    #: This much of the past is read again each time; new and changed points in it are sent.
    overlap_ms: YearMilliseconds = 0
    #: So long after points were read, the database counts them once more: what it has more is late, was missed, and is
    #: counted. Windows 12 and 288 times as wide are counted once more 12 and 288 times as late. 0: never.
    late_check_ms: DayMilliseconds = 300_000
    #: Most points of each measurement that are compared for the overlap; beyond that, the oldest are sent again.
    max_fingerprints: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    #: Most rows in one page.
    page_size: Annotated[int, Meta(ge=1, le=200_000)] = 50_000
    #: Most bytes of one page.
    max_page_bytes: Annotated[int, Meta(ge=1_024, le=1_000_000_000)] = 32_000_000
    #: Most pages in flight; with the size of a page it limits the memory.
    pages_in_flight: Annotated[int, Meta(ge=1, le=1_000)] = 6
    #: Queries at a time.
    max_parallel_queries: Annotated[int, Meta(ge=1, le=64)] = 2
    #: Windows of one measurement that are read at a time, for backfills; at most `max_parallel_queries` and
    #: `pages_in_flight`.
    parallel_windows: Annotated[int, Meta(ge=1, le=64)] = 1
    #: With `parallel_windows`: whether pages are sent in the order of time, so that every series keeps its order. With
    #: false, each is sent once it is read.
    keep_order: bool = True
    #: Widest window of a query, unless the windows before it had no points; 0 is no limit.
    max_window_ms: YearMilliseconds = 0
    #: Windows end where a shard of the database ends, so that a query for points opens one shard. InfluxQL only.
    windows_by_shard: bool = False
    #: Interval in which new measurements are looked for.
    discovery_interval_ms: DayMilliseconds = 60_000
    #: The database: `[sources.influxdb]`.
    influxdb: SourceInfluxConfig = SourceInfluxConfig()
    #: The messages: `[sources.output]`.
    output: OutputConfig
