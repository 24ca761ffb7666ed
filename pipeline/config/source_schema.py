"""The configuration's schema of the other direction, InfluxDB to Iggy: `[[sources]]` and the tables in it."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from pipeline.config.connection_schema import ConnectionConfig
from pipeline.config.scalars import DayMilliseconds, FilePath, NonEmpty, YearMilliseconds
from pipeline.points.field_type import FieldType

Format = Literal["json", "line_protocol", "msgpack"]


class SourceInfluxConfig(ConnectionConfig, frozen=True, kw_only=True):
    """`[sources.influxdb]`: the database to read from."""

    #: "flight": Arrow Flight, which only InfluxDB 3 serves; `url` is then where it is served. Needs the extra `flight`.
    transport: Literal["http", "flight"] = "http"
    #: Longest wait for the next bytes of an answer.
    read_timeout_ms: DayMilliseconds = 60_000


class OutputConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[sources.output]`: the messages, and where they go."""

    #: Made if they are missing. {measurement} and {source} are replaced.
    stream: NonEmpty
    topic: NonEmpty = "{measurement}"
    #: Of a topic that is made.
    partitions: Annotated[int, Meta(ge=1, le=1_000)] = 1
    #: See stages/convert/payloads.py. Only "line_protocol" tells unsigned integers from others.
    format: Literal["json", "line_protocol", "msgpack"] = "json"
    #: "wide": all fields of a point together; "long": a message for each field.
    shape: Literal["wide", "long"] = "wide"
    #: Points in one message: lines of text, or a MessagePack array.
    batch_points: Annotated[int, Meta(ge=1, le=100_000)] = 1
    #: Of messages with several points.
    compression: Literal["none", "gzip"] = "none"
    #: "series": all points of a series go to one partition, in the order of time; "balanced": the broker chooses for
    #: each send; "fixed": `partition`.
    partitioning: Literal["series", "balanced", "fixed"] = "series"
    partition: Annotated[int, Meta(ge=0, le=4_294_967_295)] = 0
    #: User headers of every message; {measurement} and {source} are replaced.
    headers: dict[str, str] = {}
    #: Messages in one request to Iggy.
    messages_per_send: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    #: A larger message is rejected; one of several points is made smaller.
    max_message_bytes: Annotated[int, Meta(ge=1_024, le=64_000_000)] = 1_000_000
    #: Where rows go that no message can be made of, in the same stream, made if it is missing; "" only logs them.
    dead_letter_topic: str = ""


class SourceConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True,
                   rename={"from_": "from"}):
    """`[[sources]]`: measurements of one database, to Iggy."""

    #: Unique; appears in logs, and in {source}.
    name: NonEmpty
    #: Where is kept what has been sent; made at the first start, written whenever Iggy has confirmed something. One of
    #: the two: a file, or a topic of Iggy, "stream/topic", with one partition and nothing else in it.
    state_file: FilePath = ""
    state_topic: str = ""
    #: Patterns of measurements, with * and ?; new ones are found while it runs.
    measurements: tuple[NonEmpty, ...] = ("*",)
    exclude_measurements: tuple[NonEmpty, ...] = ()
    #: Instead of `measurements`: a query of one's own with $from (inside) and $to (outside), and a column for the time.
    query: str = ""
    #: What the points of `query` are called.
    measurement: str = ""
    #: Columns of `query` that are tags, and the types of others, as far as the answer does not tell.
    tags: tuple[NonEmpty, ...] = ()
    types: dict[str, FieldType] = {}
    #: Windows of `query` end at multiples of this since 1970: the width of what it groups by.
    window_align_ms: Annotated[int, Meta(ge=0, le=31_622_400_000)] = 0
    #: "auto": influxql for v1 and v2 (flux with `query`, or where v2 knows no database of the name), sql for v3, whose
    #: measurements are read in sql whatever stands here: influxql is for a `query` there.
    language: Literal["auto", "influxql", "flux", "sql"] = "auto"
    #: Where to begin while the state knows nothing of a measurement: "earliest", "now", or an RFC 3339 time.
    from_: NonEmpty = "earliest"
    #: Where to end, RFC 3339 and not included; "" goes on for ever. With it, the state is kept in a file of its own.
    to: str = ""
    poll_interval_ms: DayMilliseconds = 5_000
    #: Points younger than this are left for later: what is still being written.
    buffer_duration_ms: YearMilliseconds = 10_000
    #: So much of what was read is read again each time; what is new or changed in it is sent.
    overlap_ms: YearMilliseconds = 0
    #: Points remembered for that, for each measurement; of more, the oldest would be sent again.
    max_fingerprints: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    #: Rows and bytes in one page, and pages on their way: they bound the memory.
    page_size: Annotated[int, Meta(ge=1, le=200_000)] = 50_000
    max_page_bytes: Annotated[int, Meta(ge=1_024, le=1_000_000_000)] = 32_000_000
    pages_in_flight: Annotated[int, Meta(ge=1, le=1_000)] = 6
    #: Measurements asked for at a time.
    max_parallel_queries: Annotated[int, Meta(ge=1, le=64)] = 2
    discovery_interval_ms: DayMilliseconds = 60_000
    influxdb: SourceInfluxConfig = SourceInfluxConfig()
    output: OutputConfig
