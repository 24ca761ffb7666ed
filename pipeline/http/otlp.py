"""Sends the metrics by the OpenTelemetry protocol (OTLP over HTTP, protobuf) to a collector."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterable
from itertools import pairwise

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import export as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.core import Metric as Family

from pipeline import __version__
from pipeline.config.otlp_schema import OtlpConfig
from pipeline.http.exposition import exposition
from pipeline.http.site import Site
from pipeline.logs import RepeatFilter

#: Seconds between two log lines about the same failure.
LOG_SECONDS = 60.0
NANO = 1_000_000_000


class OtlpExport:
    """Exports at intervals. What cannot be sent is not kept: counters are totals, and the next export has them."""

    def __init__(self, site: Site, config: OtlpConfig, logger: logging.Logger) -> None:
        self._site = site
        self._config = config
        self._logger = logger
        self._repeats = RepeatFilter(LOG_SECONDS)
        self._failing = False
        self._said = _LastLine()
        library = logging.getLogger("opentelemetry")
        library.propagate = False
        library.handlers[:] = [self._said]
        self._exporter = OTLPMetricExporter(
            endpoint=config.endpoint, headers=dict(config.headers), timeout=config.timeout_ms / 1000,
            compression=Compression.Gzip if config.gzip else Compression.NoCompression,
            certificate_file=config.ca_file or None)
        self._resource = Resource({**config.attributes, "service.name": "iggy-influxdb-pipeline",
                                   "service.version": __version__,
                                   "service.instance.id": f"{socket.gethostname()}:{os.getppid()}"})

    async def run(self) -> None:
        """Exports until cancelled."""
        seconds = self._config.interval_ms / 1000
        while True:
            await asyncio.sleep(seconds - time.time() % seconds)
            snapshot = self._site.feeds.read()
            families = exposition(self._site.plan, snapshot, self._site.usage(snapshot))
            data = metrics_data(families, self._resource, time.time_ns())
            try:
                result = await asyncio.to_thread(self._exporter.export, data)
                self._took(result is otel.MetricExportResult.SUCCESS, self._said.text)
            except Exception as error:  # of the library; the metrics must not end the process
                self._took(False, f"{type(error).__name__}: {error}")

    def _took(self, succeeded: bool, why: str) -> None:
        """Logs a failure, and the end of failures."""
        if succeeded and self._failing:
            self._logger.info("metrics are sent to %s again", self._config.endpoint)
        elif not succeeded and self._repeats.allows(why, time.monotonic()):
            self._logger.warning("metrics cannot be sent to otlp.endpoint %s, next try in %g s: %s",
                                 self._config.endpoint, self._config.interval_ms / 1000, why or "no reason was given")
        self._failing = not succeeded


class _LastLine(logging.Handler):
    """Keeps the last line that the library logs, which is the only place where it says why it failed."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a line."""
        self.text = record.getMessage()


def metrics_data(families: Iterable[Family], resource: Resource, now: int) -> otel.MetricsData:
    """Prometheus' families as OpenTelemetry has them. `now`: nanoseconds since 1970."""
    scope = InstrumentationScope("iggy-influxdb-pipeline", __version__)
    metrics = [otel.Metric(family.name, family.documentation, "s" if family.name.endswith("_seconds") else
                           "By" if family.name.endswith("_bytes") else "", _data(family, now)) for family in families]
    return otel.MetricsData([otel.ResourceMetrics(resource, [otel.ScopeMetrics(scope, metrics, "")], "")])


def _data(family: Family, now: int) -> otel.Sum | otel.Gauge | otel.Histogram:
    if family.type == "histogram":
        return otel.Histogram(_histogram_points(family, now), otel.AggregationTemporality.CUMULATIVE)
    created = {tuple(sample.labels.items()): round(sample.value * NANO) for sample in family.samples
               if sample.name.endswith("_created")}
    points = [otel.NumberDataPoint(sample.labels, created.get(tuple(sample.labels.items()), 0), now,
                                   float(sample.value))
              for sample in family.samples if not (family.type == "counter" and sample.name.endswith("_created"))]
    return otel.Sum(points, otel.AggregationTemporality.CUMULATIVE, True) if family.type == "counter" else \
        otel.Gauge(points)


def _histogram_points(family: Family, now: int) -> list[otel.HistogramDataPoint]:
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        if sample.name.endswith("_bucket"):
            buckets.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[labels] = sample.value
    points = []
    for labels, found in buckets.items():
        counts = [round(after[1] - before[1]) for before, after in pairwise([(0.0, 0.0), *found])]
        points.append(otel.HistogramDataPoint(dict(labels), 0, now, sum(counts), sums.get(labels, 0.0), counts,
                                              [bound for bound, _ in found[:-1]], 0.0, 0.0))
    return points
