"""A running pipeline answers on its local socket and over HTTP what it does; and hostile clients do no harm."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlencode

import requests
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families

from pipeline.commands.config import load_config
from pipeline.http.client import request
from pipeline.http.metrics import PREFIX
from pipeline.testbed.harness.procfs import is_alive
from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import RunningIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, send

TOKEN = "t0ken-of-the-status-page"
Start = Callable[..., Sink]


def http_of(sink: Sink) -> dict[str, Any]:
    """What is known of its HTTP process."""
    found: list[dict[str, Any]] = request(load_config(str(sink.config)), "GET", "/status")["processes"]
    return next(one for one in found if one["name"] == "http")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def check_metrics(answer: requests.Response, parse: Callable[[str], Iterable[Metric]]) -> None:
    """Whether the metrics have what was sent, and the parser accepts them."""
    answer.raise_for_status()
    samples = {(one.name.removeprefix(PREFIX), one.labels.get("partition", "") or one.labels.get("reason", "")):
               one.value for family in parse(answer.text) for one in family.samples if "process" not in one.labels}
    expected = {("messages_read_total", ""): 1_001, ("points_written_total", ""): 1_000,
                ("messages_rejected_total", "not_json"): 1, ("messages_dead_lettered_total", ""): 1,
                ("partition_lag_messages", "0"): 0, ("partition_lag_messages", "1"): 0, ("ready", ""): 1,
                ("points_encoded_total", ""): 1_000, ("append_to_written_seconds_count", ""): None}
    found = {name: samples.get(name) for name in expected}
    assert {**found, ("append_to_written_seconds_count", ""): None} == expected
    assert samples["batch_encode_seconds_count", ""] >= samples["batches_total", ""] > 0
    assert samples["request_seconds_count", ""] > 0 and samples["append_to_written_seconds_count", ""] > 0


def test_health_status_and_a_dead_http_process(iggy: RunningIggy, stream: str, influxdb: SandboxInflux,
                                               start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 2)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    sink = start_sink(iggy.address, stream, influxdb, options="max_restarts = 0",
                      http=f'listen = "127.0.0.1:{port}"\ntoken = "{TOKEN}"')
    sink.wait_for(lambda status: status.ready)
    send(iggy.address, stream, [*(message(n) for n in range(1_000)), b"no json: s3cret-of-a-message"], 2)
    sink.settles(1_001)
    config = load_config(str(sink.config))

    # The local socket shows everything, but for the secrets.
    wait_until(lambda: request(config, "GET", "/status")["state"] == "running", "it runs")
    document = request(config, "GET", "/status")
    assert document["readiness"] == {"ready": True, "reasons": []}
    assert (document["sink"]["read"], document["sink"]["rejected"]) == (1_001, 1)
    assert [(one["partition"], one["lag"], one["lag_seconds"]) for one in document["sink"]["partitions"]] == [
        (0, 0, 0.0), (1, 0, 0.0)]
    assert document["sink"]["dead_letters"][0]["reason"] == "not_json"
    letter = document["sink"]["dead_letters"][0]
    query = {name: letter[name] for name in ("stream", "topic", "partition", "offset")}
    text = "no json: s3cret-of-a-message"
    assert request(config, "GET", f"/payload?{urlencode(query)}") == {"size": len(text), "text": text}
    assert requests.get(f"{url}/payload", {**query, "offset": 0}, auth=("", TOKEN), timeout=60).status_code == 404
    assert requests.get(f"{url}/payload", query, timeout=60).status_code == 401
    assert {one["name"] for one in document["processes"]} == {
        "supervisor", "http", "coordinator", "dead-letter", "ingest", "encode-0", "encode-1", "write-0"}
    assert all(one["pid"] and one["rss_bytes"] > 1_000_000 for one in document["processes"])
    assert document["config"]["http"]["token"] == document["config"]["influxdb"]["token"] == "(hidden)"
    assert TOKEN not in json.dumps(document) and "sandbox-token" not in json.dumps(document)

    # So does the command.
    shown = subprocess.run([sys.executable, "-m", "pipeline", "status", "-c", str(sink.config)], capture_output=True,
                           text=True, timeout=60, check=True).stdout
    assert shown.startswith("running, version ") and "encode-1: process" in shown

    # Over the port, the token is needed for all but the health.
    assert requests.get(f"{url}/livez", timeout=60).json() == {"alive": True}
    assert requests.get(f"{url}/readyz", timeout=60).json() == {"ready": True}
    for path in ("/status", "/version", "/no-such-path"):
        assert requests.get(url + path, timeout=60).status_code == 401
    for authorization in ("Bearer wrong", "Bearer", "Basic ====", "Basic OnQwa2Vu", f"Digest {TOKEN}",
                          f"Bearer {TOKEN}x"):
        answer = requests.get(f"{url}/status", headers={"Authorization": authorization}, timeout=60)
        assert answer.status_code == 401, authorization
    assert requests.get(f"{url}/status", auth=("anybody", TOKEN), timeout=60).json()["pid"] == sink.process.pid
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert "version" in requests.get(f"{url}/version", headers=bearer, timeout=60).json()
    assert requests.get(f"{url}/livez", headers={"Host": "evil.example"}, timeout=60).status_code == 421

    # Writers report once a second.
    wait_until(lambda: f"{PREFIX}requests_total{{" in requests.get(f"{url}/metrics", headers=bearer, timeout=60).text,
               "a report of a writer")
    answer = requests.get(f"{url}/metrics", headers=bearer, timeout=60)
    check_metrics(answer, text_string_to_metric_families)
    lint = subprocess.run(["promtool", "check", "metrics"], input=answer.text, capture_output=True, text=True,
                          timeout=60)
    assert (lint.returncode, lint.stderr) == (0, ""), lint.stdout
    as_open_metrics = {**bearer, "Accept": "application/openmetrics-text; version=1.0.0"}
    answer = requests.get(f"{url}/metrics", headers=as_open_metrics, timeout=60)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    check_metrics(answer, open_metrics_families)

    # When it dies it is started again, and the others go on: this is none of the restarts that are counted.
    before = http_of(sink)
    os.kill(before["pid"], signal.SIGKILL)
    wait_until(lambda: not is_alive(before["pid"]), "its end")
    after = http_of(sink)
    assert (after["restarts"], after["last_death"]) == (1, "signal SIGKILL") and after["pid"] != before["pid"]

    # A failure of the database is told, with the sink and since when.
    influxdb.fail({"status": 401})
    send(iggy.address, stream, [message(1_000)], 2)
    sink.wait_for(lambda status: status.paused)
    wait_until(lambda: requests.get(f"{url}/readyz", headers=bearer, timeout=60).status_code == 503, "it is not ready")
    reason = requests.get(f"{url}/readyz", headers=bearer, timeout=60).json()["reasons"][0]
    assert reason["process"].startswith("write-") and reason["name"] == "main" and reason["paused"]
    assert "401" in reason["reason"] and abs(time.time() - reason["since"]) < 60
    influxdb.fail()
    sink.settles(1_002)
    assert sink.stop() == 0
    assert "Traceback" not in sink.log() and f"health, metrics and status at {url}" in sink.log()
