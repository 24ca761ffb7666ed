"""The queries of the dashboard and of the alerts have answers, of a pipeline's metrics that VictoriaMetrics has
stored."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.commands.dashboards import content_of
from pipeline.http.metrics import BY_NAME, PREFIX
from pipeline.testbed.harness.waiting import free_port, wait_until
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, send
from tests.support.victoria import running_victoria

#: A source beside the sink: it reads what the sink has written.
SOURCE = """
[[sources]]
name = "back"
state_file = "{folder}/state.json"
poll_interval_ms = 100
discovery_interval_ms = 500
[sources.influxdb]
url = "{url}"
version = "v2"
org = "sandbox"
bucket = "sandbox"
token = "sandbox-token"
[sources.output]
stream = "{stream}"
topic = "out"
"""
DASHBOARD = json.loads(content_of("grafana-dashboard.json"))
#: What a working pipeline does not have, or has only where Iggy tells it.
ABSENT = {"partition_overtaken_in_seconds", "partitions_unread"}


@pytest.fixture
def stored(tmp_path: Path, sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
           start_sink: Callable[..., Sink]) -> Iterator[str]:
    """The URL of a VictoriaMetrics with the metrics of a pipeline at two times."""
    sandbox.create_topic(stream, TOPIC, 2)
    address = f"127.0.0.1:{free_port()}"
    sink = start_sink(sandbox.address, stream, influxdb, http=f'listen = "{address}"',
                      options=SOURCE.format(folder=tmp_path, url=influxdb.url, stream=stream))
    with running_victoria(tmp_path) as victoria:
        now = round(time.time() * 1_000)

        def store(milliseconds: int) -> None:
            answer = requests.get(f"http://{address}/metrics", timeout=60)
            answer.raise_for_status()
            requests.post(f"{victoria}/api/v1/import/prometheus", data=answer.content, timeout=60, params={
                "extra_label": ["instance=here", "job=test"], "timestamp": str(milliseconds)}).raise_for_status()

        def has(*names: str) -> None:
            wait_until(lambda: all(f"{PREFIX}{name}{{" in requests.get(f"http://{address}/metrics", timeout=60).text
                                   for name in names), "the metrics of what was caused")

        sink.wait_for(lambda status: status.ready)
        store(now - 90_000)
        send(sandbox.address, stream, [*(message(n, site="a") for n in range(1_000)), b"no json"], 2)
        sink.settles(1_001)
        has("request_seconds_bucket")
        store(now - 60_000)
        influxdb.fail({"status": 503})
        send(sandbox.address, stream, [message(1_001)], 2)
        has("request_retries_total", "waiting_seconds", "tag_values", "source_watermark_age_seconds")
        store(now - 30_000)
        store(now)
        requests.get(f"{victoria}/internal/force_flush", timeout=60)
        yield victoria


def answer(victoria: str, query: str) -> list[dict[str, Any]]:
    found = requests.get(f"{victoria}/api/v1/query", params={"query": query, "nocache": "1"}, timeout=60)
    assert found.ok, f"{query}: {found.text}"
    result: list[dict[str, Any]] = found.json()["data"]["result"]
    return result


def panel_queries() -> list[str]:
    return [target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
            for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def alert_queries() -> list[str]:
    text = content_of("alert-rules.yaml").decode()
    return [re.sub(r"\s+", " ", found) for found in
            re.findall(r"expr: (?:>-\n)?(.*?)\n +(?:for|labels):", text, re.DOTALL)]


def test_every_query_of_the_dashboard_and_of_the_alerts_has_an_answer(stored: str) -> None:
    queries = panel_queries()
    assert len(queries) > 40 and len(alert_queries()) == 10
    assert [query for query in queries if not answer(stored, query)
            and not set(re.findall(rf"{PREFIX}(\w+)", query)) <= ABSENT] == []
    for query in alert_queries():
        answer(stored, query)
        for name in re.findall(rf"{PREFIX}(\w+)", query):
            assert answer(stored, f"{PREFIX}{name}") or name in ABSENT, name
    # Grafana's list of pipelines.
    assert answer(stored, f"{PREFIX}build_info")[0]["metric"]["instance"] == "here"


def test_the_queries_name_metrics_that_there_are() -> None:
    suffixes = re.compile(r"_(total|bucket|sum|count|info)$")
    names = {suffixes.sub("", name) for query in (*panel_queries(), *alert_queries())
             for name in re.findall(rf"{PREFIX}(\w+)", query)}
    assert names - set(BY_NAME) == set()


def test_each_alert_fires_for_what_it_is_about(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["dashboards", "--to", str(tmp_path / "new")])
    assert result.exit_code == 0 and "grafana-dashboard.json: import it" in result.output
    shutil.copy(Path(__file__).parents[1] / "data" / "alert-rules-test.yaml", tmp_path / "new" / "test.yaml")
    for arguments in (["check", "rules", "alert-rules.yaml"], ["test", "rules", "test.yaml"]):
        found = subprocess.run(["promtool", *arguments], cwd=tmp_path / "new", capture_output=True, text=True,
                               timeout=60)
        assert found.returncode == 0, found.stdout + found.stderr
    # What somebody has changed is not replaced.
    (tmp_path / "new" / "alert-rules.yaml").write_text("mine")
    result = CliRunner().invoke(main, ["dashboards", "--to", str(tmp_path / "new")])
    assert result.exit_code != 0 and (tmp_path / "new" / "alert-rules.yaml").read_text() == "mine"
