"""What is known at one time as the metrics of `prometheus_client`."""

import heapq
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from pipeline import __version__
from pipeline.config.plan import Plan
from pipeline.http.feeds import Snapshot
from pipeline.http.health import readiness
from pipeline.http.metrics import BY_NAME, MAX_MEASUREMENTS, MAX_PARTITIONS, MAX_TOPICS, METRICS, PREFIX
from pipeline.http.procs import Usage
from pipeline.wire.measures import BYTES, MESSAGES, SECONDS, Histogram
from pipeline.wire.sink import PartitionStatus, SinkMeasures, Status
from pipeline.wire.source import SourceStatus

#: Counters of a topic: metric -> field of TopicStatus.
_TOPIC_COUNTERS: Final = {
    "messages_read": "read", "read_bytes": "read_bytes", "points_encoded": "encoded", "points_written": "written",
    "points_overwritten": "overwritten", "messages_filtered": "filtered", "messages_dead_lettered": "dead_lettered",
    "batches": "batches", "sent_bytes": "sent_bytes"}
#: Counters of a source: metric -> field of SourceTotals.
_SOURCE_COUNTERS: Final = {
    "source_rows": "rows", "source_points": "points", "source_messages": "messages", "source_sent_bytes": "sent_bytes",
    "source_rows_rejected": "rejected", "source_points_repeated": "repeated", "source_pages": "pages",
    "source_windows_narrowed": "narrowed", "source_points_late": "late"}


class Exposition:
    """The families of all metrics, with the samples that were added. Families without a sample are left out."""

    def __init__(self, with_created: bool = True) -> None:
        """`with_created`: counters have the time of their start, which only the OpenMetrics format has a place for."""
        self._families: dict[str, Family] = {}
        self._with_created = with_created

    def __iter__(self) -> Iterator[Family]:
        """The families, in the order of METRICS."""
        return (self._families[metric.name] for metric in METRICS if metric.name in self._families)

    def add(self, name: str, value: float, *labels: str, created: float | None = None) -> None:
        """Adds a sample of a counter or gauge. `created`: when the counter was 0, seconds since 1970."""
        family = self._family(name)
        if isinstance(family, CounterMetricFamily):
            family.add_metric(labels, value, created=created if self._with_created else None)
        else:
            assert isinstance(family, GaugeMetricFamily)
            family.add_metric(labels, value)

    def add_histogram(self, name: str, found: Histogram, bounds: tuple[float, ...], *labels: str) -> None:
        """Adds the samples of a histogram."""
        family = self._family(name)
        assert isinstance(family, HistogramMetricFamily)
        family.add_metric(labels, [(_text(bound), float(count)) for bound, count in
                                   found.cumulative(bounds)], found.sum)

    def add_info(self, name: str, *values: str) -> None:
        """Adds an info."""
        family = self._family(name)
        assert isinstance(family, InfoMetricFamily)
        family.add_metric([], dict(zip(BY_NAME[name].labels, values, strict=True)))

    def _family(self, name: str) -> Family:
        found = self._families.get(name)
        if found is None:
            metric = BY_NAME[name]
            text = f"{metric.help[0].upper()}{metric.help[1:]}."
            kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
            found = self._families[name] = InfoMetricFamily(PREFIX + name, text) if metric.kind == "info" else \
                kinds[metric.kind](PREFIX + name, text, labels=metric.labels)
        return found


def exposition(plan: Plan, snapshot: Snapshot, usage: Mapping[int, Usage], with_created: bool = True) -> Exposition:
    """All metrics at one time. A direction that is not heard from has none."""
    out = Exposition(with_created)
    if snapshot.sink is not None:
        _add_sink(out, plan, snapshot.sink, snapshot.time)
    if snapshot.source is not None:
        _add_source(out, snapshot.source, snapshot.time)
    ready = readiness(plan, snapshot)
    out.add("ready", float(ready.ready))
    for status in (snapshot.sink, snapshot.source):
        for one in status.waiting if status is not None else ():
            out.add("waiting_seconds", max(0.0, snapshot.time - one.since), one.process, one.name,
                    "true" if one.paused else "false")
    _add_processes(out, snapshot, usage)
    out.add_info("build", __version__, platform.python_version())
    return out


def encoded(found: Iterable[Family], accept: str) -> tuple[bytes, str]:
    """The metrics in the format that an Accept header asks for, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(list(found)))
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


class _Collected(Collector):
    """A collector of what was collected."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        """The families."""
        return self._families


def _text(bound: float) -> str:
    """A bucket's bound as Prometheus has it."""
    text: str = floatToGoString(bound)  # type: ignore[no-untyped-call]
    return text


def _add_sink(out: Exposition, plan: Plan, status: Status, now: float) -> None:
    since = status.started_at or None
    for topic in status.topics:
        labels = (topic.sink, topic.stream, topic.topic)
        for name, field in _TOPIC_COUNTERS.items():
            out.add(name, getattr(topic, field), *labels, created=since)
        for reason, count in topic.rejected.items():
            out.add("messages_rejected", count, *labels, reason, created=since)
    for name, value in (("messages_missed", status.missed), ("log_truncations", status.truncations),
                        ("batches_redelivered", status.redelivered), ("frames_dropped", status.dropped),
                        ("mapping_code_made", status.ways.compiled), ("mapping_code_forgotten", status.ways.forgotten)):
        out.add(name, value, created=since)
    for way in ("uniform", "general", "exact"):
        out.add("mapping_messages", getattr(status.ways, way), way, created=since)
    for name, value in (("in_flight_messages", status.in_flight), ("in_flight_bytes", status.in_flight_bytes),
                        ("window_messages", plan.config.pipeline.window_messages),
                        ("window_bytes", plan.config.pipeline.window_bytes)):
        out.add(name, value)
    for tag in status.tags:
        out.add("tag_values", tag.values, tag.sink, tag.tag)
    _add_partitions(out, status, now)
    if status.measures is not None:
        _add_measures(out, status.measures, since)


def _add_partitions(out: Exposition, status: Status, now: float) -> None:
    """The lag: of the partitions with most of it, and of all together."""
    shown = heapq.nlargest(MAX_PARTITIONS, status.partitions, key=lambda one: one.lag) \
        if len(status.partitions) > MAX_PARTITIONS else status.partitions
    for one in shown:
        labels = (one.sink, one.stream, one.topic, str(one.partition))
        out.add("partition_lag_messages", one.lag, *labels)
        if (seconds := one.lag_seconds(now)) is not None:
            out.add("partition_lag_seconds", seconds, *labels)
        out.add("partition_committed_offset", one.committed, *labels)
        out.add("partition_end_offset", one.end, *labels)
        if one.first >= 0:
            out.add("partition_first_offset", one.first, *labels)
        if one.overtaken_in >= 0:
            out.add("partition_overtaken_in_seconds", one.overtaken_in, *labels)
    unread = Counter((one.stream, one.topic, one.why) for one in status.unread)
    for place, count in unread.items():
        out.add("partitions_unread", count, *place)
    topics: dict[tuple[str, str, str], list[PartitionStatus]] = {}
    for one in status.partitions:
        topics.setdefault((one.sink, one.stream, one.topic), []).append(one)
    for topic, partitions in heapq.nlargest(MAX_TOPICS, topics.items(), key=lambda item: sum(
            one.lag for one in item[1])) if len(topics) > MAX_TOPICS else topics.items():
        out.add("topic_partitions", len(partitions), *topic)
        out.add("topic_lag_messages", sum(one.lag for one in partitions), *topic)
        known = [seconds for one in partitions if (seconds := one.lag_seconds(now)) is not None]
        if known:
            out.add("topic_lag_seconds", max(known), *topic)


def _add_measures(out: Exposition, measures: SinkMeasures, since: float | None) -> None:
    for name, found, bounds in (("batch_wait_seconds", measures.wait, SECONDS),
                                ("batch_encode_seconds", measures.encode, SECONDS),
                                ("append_to_written_seconds", measures.settled, SECONDS),
                                ("batch_messages", measures.batch_messages, MESSAGES),
                                ("batch_bytes", measures.batch_bytes, BYTES)):
        out.add_histogram(name, found, bounds)
    for target in measures.targets:
        labels = (target.sink, target.url)
        out.add_histogram("request_seconds", target.seconds, SECONDS, *labels)
        out.add_histogram("request_body_bytes", target.body_bytes, BYTES, *labels)
        retries: dict[str, int] = {}
        for one in target.outcomes:
            status = {0: "none", 200: "2xx"}.get(one.status, str(one.status))
            out.add("requests", one.count, *labels, status, one.outcome, created=since)
            if one.retried:
                retries[one.outcome] = retries.get(one.outcome, 0) + one.count
        for reason, count in retries.items():
            out.add("request_retries", count, *labels, reason, created=since)
    for writer in measures.writers:
        for name, value in (("writer_batches", writer.batches), ("writer_batches_limit", writer.most_batches),
                            ("writer_requests_in_flight", writer.in_flight), ("writer_requests_limit", writer.limit)):
            out.add(name, value, writer.name)


def _add_source(out: Exposition, status: SourceStatus, now: float) -> None:
    since = status.started_at or None
    for totals in status.totals:
        for name, field in _SOURCE_COUNTERS.items():
            out.add(name, getattr(totals, field), totals.source, created=since)
        out.add("source_progress_ratio", totals.share, totals.source)
        if totals.seconds_left >= 0:
            out.add("source_catch_up_seconds", totals.seconds_left, totals.source)
    out.add("source_pages_redelivered", status.redelivered, created=since)
    out.add("source_points_in_future", status.future)
    out.add("source_caught_up", float(status.caught_up))
    oldest: dict[str, float] = {}
    in_flight = dict.fromkeys((totals.source for totals in status.totals), 0)
    for one in status.measurements:
        oldest[one.source] = min(oldest.get(one.source, one.watermark / 1e9), one.watermark / 1e9)
        in_flight[one.source] = in_flight.get(one.source, 0) + one.in_flight
    for source, watermark in oldest.items():
        out.add("source_watermark_age_seconds", max(0.0, now - watermark), source)
    for source, pages in in_flight.items():
        out.add("source_pages_in_flight", pages, source)
    for one in heapq.nsmallest(MAX_MEASUREMENTS, status.measurements, key=lambda one: one.watermark):
        out.add("source_watermark_timestamp_seconds", one.watermark / 1e9, one.source, one.measurement)


def _add_processes(out: Exposition, snapshot: Snapshot, usage: Mapping[int, Usage]) -> None:
    supervisor = snapshot.supervisor
    if supervisor is None:
        return
    processes = [("supervisor", "supervisor", supervisor.pid, supervisor.started_at, 0),
                 *((one.name, one.kind, one.pid, one.started_at, one.restarts) for one in supervisor.processes)]
    for name, kind, pid, started_at, restarts in processes:
        out.add("process_up", float(pid > 0), name, kind)
        out.add("process_restarts", restarts, name, kind, created=supervisor.started_at)
        if started_at:
            out.add("process_start_time_seconds", started_at, name, kind)
        if (used := usage.get(pid)) is not None:
            out.add("process_cpu_seconds", used.cpu_seconds, name, kind, created=started_at)
            out.add("process_resident_memory_bytes", used.rss_bytes, name, kind)
