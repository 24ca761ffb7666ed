"""The metrics are sent to an OpenTelemetry collector, as they are; one that fails is logged, and harms nothing."""

import asyncio
import contextlib
import gzip
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.resources import Resource

from pipeline.config.otlp_checks import otlp_problems
from pipeline.config.otlp_schema import OtlpConfig
from pipeline.config.schema import Config
from pipeline.config.secrets import secrets_of
from pipeline.http import otlp
from pipeline.http.exposition import exposition
from pipeline.http.feeds import Snapshot
from pipeline.http.history import History
from pipeline.http.metrics import BY_NAME, PREFIX
from pipeline.http.otlp import OtlpExport
from pipeline.http.site import Site
from pipeline.testbed.harness.waiting import wait_until
from tests.unit.test_metrics import ODD, PLAN, snapshot


class Collector(HTTPServer):
    """Keeps what it receives, and answers with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.received: list[tuple[dict[str, str], ExportMetricsServiceRequest]] = []


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.received.append(({name.lower(): value for name, value in self.headers.items()},
                                     ExportMetricsServiceRequest.FromString(body)))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class OneSnapshot:
    """Feeds of a pipeline in which everything has happened."""

    def read(self) -> Snapshot:
        return snapshot()


@contextmanager
def exporting(config: OtlpConfig) -> Iterator[None]:
    """An export, in a thread."""
    site: Any = Site(PLAN, OneSnapshot(), History(), logging.getLogger("http"))  # type: ignore[arg-type]
    loop = asyncio.new_event_loop()
    task = loop.create_task(OtlpExport(site, config, logging.getLogger("http")).run())

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(60)


def test_a_collector_receives_every_metric_and_failures_are_said(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector()
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    config = OtlpConfig(endpoint=f"http://127.0.0.1:{collector.server_port}/v1/metrics", interval_ms=1_000,
                        timeout_ms=1_000, headers={"Authorization": "Bearer s3cret"}, attributes={"site": "a"})
    with caplog.at_level(logging.INFO), exporting(config):
        wait_until(lambda: collector.received, "an export")
        collector.status = 400
        wait_until(lambda: "metrics cannot be sent" in caplog.text, "the log line")
        collector.status = 200
        wait_until(lambda: "metrics are sent to" in caplog.text, "the end of it")
    collector.shutdown()
    headers, request = collector.received[0]
    assert headers["authorization"] == "Bearer s3cret" and headers["content-encoding"] == "gzip"
    (resource,) = request.resource_metrics
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert attributes["service.name"] == "iggy-influxdb-pipeline" and attributes["site"] == "a"
    found = {metric.name.removeprefix(PREFIX): metric for metric in resource.scope_metrics[0].metrics}
    assert set(found) == set(BY_NAME)
    for name, metric in found.items():
        expected = {"counter": "sum", "info": "gauge"}.get(BY_NAME[name].kind, BY_NAME[name].kind)
        assert metric.WhichOneof("data") == expected, name
    (read,) = found["messages_read"].sum.data_points
    assert (read.as_double, read.start_time_unix_nano) == (3.0, 1_000 * 10**9)
    assert {one.key: one.value.string_value for one in read.attributes} == {"sink": "main", "stream": "s", "topic": ODD}
    (wait,) = found["batch_wait_seconds"].histogram.data_points
    assert (wait.count, sum(wait.bucket_counts), len(wait.bucket_counts)) == (1, 1, len(wait.explicit_bounds) + 1)
    assert "400" in caplog.text and "s3cret" not in caplog.text


@pytest.mark.parametrize(("config", "problem"), [
    (OtlpConfig(), ""), (OtlpConfig(endpoint="http://h:4318/v1/metrics"), ""),
    (OtlpConfig(interval_ms=5_000), "otlp.endpoint: required"),
    (OtlpConfig(endpoint="h:4318"), "otlp.endpoint: is no URL"),
    (OtlpConfig(endpoint="http://u:s3cret@h:4318"), "otlp.endpoint: 'http://h:4318' has no path"),
    (OtlpConfig(endpoint="http://h/m", ca_file="/no/such"), "otlp.ca_file: /no/such does not exist"),
    (OtlpConfig(endpoint="http://h/m", interval_ms=1_000), "otlp.timeout_ms: must not be longer"),
    (OtlpConfig(endpoint="http://h/m", headers={"A": "s3cret\n"}), "otlp.headers.")])
def test_mistakes_are_found_at_the_start(config: OtlpConfig, problem: str) -> None:
    found = list(otlp_problems(config, lambda key: True))
    assert found[0].replace('"', "'").startswith(problem) if problem else not found
    assert "s3cret" not in "".join(found)


def test_headers_are_secret() -> None:
    config = msgspec.structs.replace(Config(), otlp=OtlpConfig(headers={"Authorization": "Bearer s3cret-token"}))
    assert "s3cret-token" in secrets_of(config)


def test_an_export_has_what_metrics_has() -> None:
    data = otlp.metrics_data(exposition(PLAN, snapshot(), {}), Resource({}), time.time_ns())
    names = [metric.name for metric in data.resource_metrics[0].scope_metrics[0].metrics]
    assert len(names) == len(set(names)) > 50
