"""The whole pipeline, real processes, from the sandbox broker into a real InfluxDB 1.6."""

import os
import signal
from collections.abc import Callable

import pytest
import requests

from pipeline.testbed.bench.influxd import DATABASE
from pipeline.testbed.harness.influxd import Influxd
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, send

MESSAGES = 30_000


def values(url: str) -> list[tuple[int, float]]:
    """Time and value of every point, in the order of time."""
    query = {"db": DATABASE, "epoch": "ns", "q": f'SELECT "value" FROM {TOPIC}'}
    series = requests.get(f"{url}/query", params=query, timeout=60).json()["results"][0]["series"]
    return [(time, value) for time, value in series[0]["values"]]


@pytest.mark.parametrize("victim", ["", "encode-0", "write-0", "ingest", "coordinator"])
def test_every_message_is_stored_also_when_a_process_is_killed(
        sandbox: SandboxIggy, stream: str, own_influxdb1: Influxd, start_sink: Callable[..., Sink],
        victim: str) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    sink = start_sink(sandbox.address, stream, SandboxInflux(own_influxdb1.url, "v1"),
                      target=f'version = "v1"\ndatabase = "{DATABASE}"')
    sink.wait_for(lambda status: status.ready)
    os.kill(own_influxdb1.pid, signal.SIGSTOP)  # so that it happens while requests are on their way
    send(sandbox.address, stream, [message(n) for n in range(MESSAGES)], 2)
    sink.wait_for(lambda status: status.in_flight >= 5_000)
    if victim:
        sink.kill(victim)
        sink.wait_for_log(f"{victim} died")
    os.kill(own_influxdb1.pid, signal.SIGCONT)
    sink.settles(MESSAGES)
    assert values(own_influxdb1.url) == [(1_000 + n, n) for n in range(MESSAGES)]
    assert sink.stop() == 0
