"""A VictoriaMetrics of today (1.151), which `VICTORIA_TEST_URL` names; started with -retentionPeriod=100y."""

import json
import logging
import os
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import requests

from pipeline.compression import compress
from pipeline.config.schema import InfluxConfig
from pipeline.testbed.harness.waiting import wait_until
from stages.write.job import WriteJob
from stages.write.transport import Transport
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, send

URL = os.environ.get("VICTORIA_TEST_URL", "")
pytestmark = pytest.mark.skipif(not URL, reason="VICTORIA_TEST_URL names no server")
#: What was written can be read some seconds later.
SEEN_SECONDS = 60.0


def exported(name: str) -> list[dict[str, Any]]:
    """All series of a metric."""
    requests.get(f"{URL}/internal/force_flush", timeout=60)
    text = requests.get(f"{URL}/api/v1/export", params={"match[]": name}, timeout=60).text
    return [json.loads(line) for line in text.splitlines()]


def samples(name: str) -> int:
    """How many values a metric has, those written twice twice."""
    return sum(len(one["values"]) for one in exported(name))


def test_names_and_numbers_beside_strings_of_several_lines_are_stored(
        sandbox: SandboxIggy, stream: str, start_sink: Callable[..., Sink]) -> None:
    name = f"test{uuid.uuid4().hex[:12]}"
    devices = ["x\\y", "\\\\host\\share", "a\\,b", "é😀", "plain"]
    now = time.time_ns()
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [
        json.dumps({"device": device, "text": "one\ntwo \\ \"three\"", "value": n, "ts": now - n * 1_000_000}).encode()
        for n, device in enumerate(devices)])
    sink = start_sink(sandbox.address, stream, SandboxInflux(URL), target='database = "db"\nprecision = "ms"',
                      mapping=f'measurement_from = "static"\nmeasurement_name = "{name}"')
    status = sink.settles(len(devices))
    assert (status.written, status.rejected) == (len(devices), 0)
    wait_until(lambda: samples(f"{name}_value") == len(devices), "the values", SEEN_SECONDS)
    assert {one["metric"]["device"] for one in exported(f"{name}_value")} == set(devices)
    assert sink.stop() == 0


@pytest.mark.parametrize("gzip", [True, False])
def test_the_line_that_it_quotes_is_refused_alone(gzip: bool) -> None:
    name = f"test{uuid.uuid4().hex[:12]}"
    lines = [f"{name},n={n} f={n} {time.time_ns() // 1_000_000}".encode() for n in range(5_000)]
    bad = [10, 2_500, 4_990]
    for number in bad:
        lines[number] = f'{name},n={number} f=1 zz'.encode()
    body = b"".join(line + b"\n" for line in lines)
    config = InfluxConfig(url=URL, database="db", precision="ms", gzip=gzip)
    transport = Transport(config, config.servers(), logging.getLogger("test"))
    job, requests_sent = WriteJob(compress(body) if gzip else body, len(lines), gzip), 0
    while piece := job.take():
        requests_sent += 1
        answer = transport.post(piece.body or b"", "")
        job.may_repeat = transport.may_repeat
        job.answered(piece, answer, requests_sent)
    assert sorted(line.line for line in job.refused) == bad and not job.may_repeat
    assert all("zz" in line.message for line in job.refused) and requests_sent < 20
    wait_until(lambda: samples(f"{name}_f") >= len(lines) - len(bad), "the values", SEEN_SECONDS)
    assert samples(f"{name}_f") == len(lines) - len(bad)
