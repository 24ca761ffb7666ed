"""The metrics, by name: what `/metrics` answers and docs/reference/metrics describes.

Names follow Prometheus' conventions: base units, `_total` for counters. A counter starts at 0 with the coordinator that
counts it, whose start is the counter's creation time.
"""

from types import MappingProxyType
from typing import Final, Literal

from msgspec import Struct

#: Before every name.
PREFIX: Final = "iggy_influxdb_"
#: Partitions and topics whose lag is exported, at most: those with the largest one; and measurements of sources.
MAX_PARTITIONS, MAX_TOPICS, MAX_MEASUREMENTS = 2_000, 1_000, 1_000

Kind = Literal["counter", "gauge", "histogram", "info"]


class Metric(Struct, frozen=True):
    """One metric."""

    #: Without PREFIX, and without the suffixes that its kind has.
    name: str
    kind: Kind
    #: What it is, for people; one sentence, that begins small.
    help: str
    labels: tuple[str, ...] = ()


_TOPIC = ("sink", "stream", "topic")
_PARTITION = (*_TOPIC, "partition")
_TARGET = ("sink", "url")
_PROCESS = ("process", "kind")

#: In the order of the page: sinks, sources, processes.
METRICS: Final = (
    Metric("messages_read", "counter", "messages that were read from Iggy", _TOPIC),
    Metric("read_bytes", "counter", "bytes of their payloads", _TOPIC),
    Metric("points_encoded", "counter", "points that the mapping made of messages, also those read again", _TOPIC),
    Metric("points_written", "counter", "points that the database has acknowledged", _TOPIC),
    Metric("points_overwritten", "counter", "points that replaced others of the same series and time", _TOPIC),
    Metric("messages_filtered", "counter", "messages that the mapping left out on purpose", _TOPIC),
    Metric("messages_rejected", "counter", "messages that could not be written, whole or in part, by the reason of "
           "their dead letters", (*_TOPIC, "reason")),
    Metric("messages_dead_lettered", "counter", "messages that were stored as dead letters", _TOPIC),
    Metric("batches", "counter", "batches that were settled", _TOPIC),
    Metric("sent_bytes", "counter", "bytes sent to the database, after compression; of a request that several topics "
           "share, they count for one of them", _TOPIC),
    Metric("messages_missed", "counter", "messages that expired in Iggy before they were read"),
    Metric("log_truncations", "counter", "logs that ended before the position of the pipeline, or were made again"),
    Metric("batches_redelivered", "counter", "batches that were read again: a process died, or they were overdue"),
    Metric("frames_dropped", "counter", "messages between processes that were dropped because they did not fit"),
    Metric("mapping_messages", "counter", "objects by their way through the mapping: uniform, general, or exact, which "
           "is the slow one", ("way",)),
    Metric("mapping_code_made", "counter", "how often code was made for messages of new shapes"),
    Metric("mapping_code_forgotten", "counter", "how often such code was forgotten"),
    Metric("partition_lag_messages", "gauge", "messages in Iggy that are not committed", _PARTITION),
    Metric("partition_lag_seconds", "gauge", "age of the oldest message that is not committed, by Iggy's clock",
           _PARTITION),
    Metric("partition_committed_offset", "gauge", "last offset that is stored in Iggy", _PARTITION),
    Metric("partition_end_offset", "gauge", "last offset in the log", _PARTITION),
    Metric("partition_first_offset", "gauge", "oldest offset that is left in the log", _PARTITION),
    Metric("partition_overtaken_in_seconds", "gauge", "time until Iggy deletes messages that are not committed, if "
           "reading and the retention of the topic go on as now; only where that is to be expected", _PARTITION),
    Metric("partitions_unread", "gauge", "partitions that no process of this pipeline reads: group (another member of "
           "the consumer group has them), ghost (and that member commits nothing), none (no member has them), "
           "configured (the configuration leaves them out), or missing (they do not exist)",
           ("stream", "topic", "why")),
    Metric("topic_lag_messages", "gauge", "messages in Iggy that are not committed, of all partitions", _TOPIC),
    Metric("topic_lag_seconds", "gauge", "age of the oldest message that is not committed, of all partitions", _TOPIC),
    Metric("topic_partitions", "gauge", "partitions that this pipeline reads", _TOPIC),
    Metric("in_flight_messages", "gauge", "messages that were read and are not settled"),
    Metric("in_flight_bytes", "gauge", "bytes of their payloads"),
    Metric("window_messages", "gauge", "most messages in flight: pipeline.window_messages"),
    Metric("window_bytes", "gauge", "most bytes in flight: pipeline.window_bytes"),
    Metric("batch_wait_seconds", "histogram", "time from the dispatch of a batch to the start of its encoding"),
    Metric("batch_encode_seconds", "histogram", "time that the encoding of a batch took"),
    Metric("append_to_written_seconds", "histogram", "time from the moment when Iggy stored the newest message of a "
           "batch to the moment when the batch was settled; the clocks of two machines may differ"),
    Metric("batch_messages", "histogram", "messages of a batch"),
    Metric("batch_bytes", "histogram", "payload bytes of a batch"),
    Metric("request_seconds", "histogram", "duration of a write request", _TARGET),
    Metric("request_body_bytes", "histogram", "size of a write request, after compression", _TARGET),
    Metric("requests", "counter", "write requests by HTTP status (2xx for any success, none where no answer came) and "
           "outcome", (*_TARGET, "status", "outcome")),
    Metric("request_retries", "counter", "write requests that are sent again, by reason", (*_TARGET, "reason")),
    Metric("writer_batches", "gauge", "batches that a writer has in hand", ("process",)),
    Metric("writer_batches_limit", "gauge", "most batches that a writer takes in hand", ("process",)),
    Metric("writer_requests_in_flight", "gauge", "write requests in flight", ("process",)),
    Metric("writer_requests_limit", "gauge", "most write requests at a time, which adapts to the database",
           ("process",)),
    Metric("tag_values", "gauge", "distinct values of a tag, estimated; the tags with most values of each sink",
           ("sink", "tag")),
    Metric("source_rows", "counter", "rows that were read from the database", ("source",)),
    Metric("source_points", "counter", "points that were sent to Iggy", ("source",)),
    Metric("source_messages", "counter", "messages that were sent to Iggy", ("source",)),
    Metric("source_sent_bytes", "counter", "bytes of their payloads", ("source",)),
    Metric("source_rows_rejected", "counter", "rows that could not be converted", ("source",)),
    Metric("source_points_repeated", "counter", "points of an overlap that had been sent before, and were not sent "
           "again", ("source",)),
    Metric("source_points_late", "counter", "points that were written after their time was read, and so were "
           "missed, as far as they were counted (late_check_ms)", ("source",)),
    Metric("source_pages", "counter", "pages that Iggy has confirmed", ("source",)),
    Metric("source_windows_narrowed", "counter", "windows of time that were made narrower, because they had more rows "
           "than a page or took too long", ("source",)),
    Metric("source_pages_in_flight", "gauge", "pages that were requested and are not confirmed", ("source",)),
    Metric("source_pages_redelivered", "counter", "pages that were read again"),
    Metric("source_points_in_future", "gauge", "points in the future, which are not read yet"),
    Metric("source_watermark_timestamp_seconds", "gauge", "time before which all points of a measurement are in Iggy, "
           "seconds since 1970", ("source", "measurement")),
    Metric("source_watermark_age_seconds", "gauge", "age of the oldest watermark of a source", ("source",)),
    Metric("source_caught_up", "gauge", "1 when all that there was at the start is in Iggy"),
    Metric("source_progress_ratio", "gauge", "share of the time up to the start that is in Iggy, 0 to 1: the mean of "
           "the measurements, each from its first point on", ("source",)),
    Metric("source_catch_up_seconds", "gauge", "about how long a source takes to catch up with what there was at the "
           "start, if it goes on as in the last minutes; only where that can be told", ("source",)),
    Metric("ready", "gauge", "1 when messages are moved: as /readyz"),
    Metric("waiting_seconds", "gauge", "time since a process began to retry something outside of the pipeline; paused "
           "is true when an operator has to act", ("process", "name", "paused")),
    Metric("process_up", "gauge", "1 while a process runs", _PROCESS),
    Metric("process_restarts", "counter", "how often a process was started again because it had died", _PROCESS),
    Metric("process_cpu_seconds", "counter", "CPU time of a process since its start", _PROCESS),
    Metric("process_resident_memory_bytes", "gauge", "memory of a process, with pages that it shares with others",
           _PROCESS),
    Metric("process_start_time_seconds", "gauge", "when a process was started last, seconds since 1970", _PROCESS),
    Metric("build", "info", "version of the pipeline, and of Python", ("version", "python")),
)
BY_NAME: Final = MappingProxyType({metric.name: metric for metric in METRICS})
