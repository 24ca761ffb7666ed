"""`/metrics`: every metric of the table is exported, and no other; the page of the documentation has them all."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config.plan import Plan
from pipeline.config.schema import Config, InfluxConfig, TopicConfig
from pipeline.http.exposition import encoded, exposition
from pipeline.http.feeds import Snapshot
from pipeline.http.metrics import BY_NAME, MAX_PARTITIONS, METRICS, PREFIX
from pipeline.http.procs import Usage
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire
from pipeline.wire.common import Waiting
from pipeline.wire.measures import BYTES, MESSAGES, SECONDS, Histogram
from pipeline.wire.supervisor import ProcessStatus, SupervisorStatus

ODD = 'a "quoted"\\back\nslash, ünï'
PLAN = Plan(Config(topics=(TopicConfig(stream="s", topic="t"),), influxdb=InfluxConfig()), "/tmp", 1, 1)
COMMON: dict[str, Any] = {
    "epoch": 1, "ready": True, "drained": False, "rejected": 1, "sent_bytes": 10, "in_flight": 1, "redelivered": 1,
    "pids": {"coordinator": 2}, "startup_cpu": {}, "retrying": {}, "paused": True, "now": 100.0, "started_at": 1_000.0,
    "waiting": [Waiting("write-0", ODD, "refused", True, 1_050.0)]}


def histogram(value: float, bounds: tuple[float, ...]) -> Histogram:
    found = Histogram()
    found.observe(value, bounds)
    return found


def sink_status(partitions: int = 2) -> wire.Status:
    """A status in which everything has happened."""
    seconds = histogram(0.2, SECONDS)
    target = wire.TargetStatus("main", "http://h:8086", [
        wire.Outcome(200, "accepted", False, 5), wire.Outcome(0, "no_connection", True, 2)], seconds,
        histogram(1e9, BYTES))
    measures = wire.SinkMeasures(seconds, seconds, seconds, histogram(7, MESSAGES), histogram(70, BYTES), [target],
                                 [wire.WriterStatus("write-0", 1, 8, 2, 4)])
    return wire.Status(
        **COMMON, read=3, encoded=3, written=2, batches=1, in_flight_bytes=9, first_dispatched_at=1.0,
        last_settled_at=2.0, missed=1, truncations=1, measures=measures, tags=[wire.TagStatus("main", ODD, 7)],
        partitions=[wire.PartitionStatus("s", ODD, number, 5, 7, 9 + number, 1_000_000_000, "main", 3, 60.0)
                    for number in range(partitions)],
        unread=[wire.UnreadStatus("s", ODD, 7, "ghost", 5), wire.UnreadStatus("s", ODD, 8, "ghost")],
        topics=[wire.TopicStatus("main", "s", ODD, 3, 30, 3, 2, 1, 1, 1, {"not_json": 1}, 10, 1)])


def snapshot(partitions: int = 2) -> Snapshot:
    source = source_wire.SourceStatus(
        **COMMON, caught_up=True, rows=1, points=1, messages=1, repeated=1, pages=1, first_at=1.0, last_at=2.0,
        measurements=[source_wire.MeasurementStatus("source", ODD, 1_000_000_000_000, 1, 0.5)],
        totals=[source_wire.SourceTotals("source", 1, 1, 1, 1, 1, 1, 1, 1, 0.5, 90.0)], future=3)
    supervisor = SupervisorStatus(100.0, 1, 990.0, "", False,
                                  [ProcessStatus("write-0", "write", 7, 995.0, 2, "killed")])
    return Snapshot(100.5, 1_100.0, supervisor, sink_status(partitions), source)


def families(accept: str = "", partitions: int = 2) -> dict[str, Metric]:
    """The families that a client receives, by name."""
    text, kind = encoded(exposition(PLAN, snapshot(partitions), {7: Usage(1.5, 9), 1: Usage(2.5, 8)}), accept)
    parse = open_metrics_families if kind.startswith("application/openmetrics") else text_string_to_metric_families
    return {family.name.removeprefix(PREFIX): family for family in parse(text.decode())}


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=1.0.0", "application/openmetrics-text"])
def test_exactly_the_metrics_of_the_table_are_exported(accept: str) -> None:
    found = families(accept)
    assert set(found) == set(BY_NAME)
    for name, family in found.items():
        assert family.type == BY_NAME[name].kind
        assert all(set(sample.labels) - {"le"} == set(BY_NAME[name].labels) for sample in family.samples), name


def test_the_text_format_has_the_same_metrics() -> None:
    names = {name.removesuffix("_created").removesuffix("_info") for name in families("text/plain")}
    assert names == set(BY_NAME)


def test_values_and_odd_names_are_as_they_were() -> None:
    found = families("application/openmetrics-text")
    (topic,) = [one for one in found["messages_read"].samples if one.name.endswith("_total")]
    assert (topic.labels, topic.value) == ({"sink": "main", "stream": "s", "topic": ODD}, 3.0)
    (created,) = [one for one in found["messages_read"].samples if one.name.endswith("_created")]
    assert created.value == 1_000.0
    assert {one.labels["partition"]: one.value for one in found["partition_lag_messages"].samples} == {"0": 4, "1": 5}
    assert [one.value for one in found["partition_lag_seconds"].samples] == [100.0, 100.0]
    assert [one.value for one in found["source_watermark_age_seconds"].samples] == [100.0]
    buckets = {one.labels["le"]: one.value for one in found["request_body_bytes"].samples if "le" in one.labels}
    assert buckets["1e+08"] == 0.0 and buckets["+Inf"] == 1.0
    assert {(one.labels["status"], one.value) for one in found["requests"].samples if one.name.endswith("_total")} == {
        ("2xx", 5.0), ("none", 2.0)}


def test_partitions_beyond_the_limit_have_no_series_but_count() -> None:
    found = families(partitions=MAX_PARTITIONS + 500)
    shown = {int(one.labels["partition"]) for one in found["partition_lag_messages"].samples}
    assert len(shown) == MAX_PARTITIONS and min(shown) == 500
    assert found["topic_partitions"].samples[0].value == MAX_PARTITIONS + 500
    assert found["topic_lag_messages"].samples[0].value == sum(4 + number for number in range(MAX_PARTITIONS + 500))


def test_a_pipeline_that_is_not_heard_from_has_metrics_too() -> None:
    text, _ = encoded(exposition(PLAN, Snapshot(1.0, 2.0, None, None, None), {}), "")
    assert f"{PREFIX}ready 0.0" in text.decode()


def test_the_page_describes_every_metric() -> None:
    spec = importlib.util.spec_from_file_location("metrics_page", Path(__file__).parents[2] / "docs" / "metrics.py")
    assert spec is not None and spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    text = page.page()
    assert [metric.name for metric in METRICS if f"``{page.exported_name(metric)}``" not in text] == []
