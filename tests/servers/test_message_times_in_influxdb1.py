"""Points made of Iggy's times in a real InfluxDB 1.6: every message of one send is one, also when it is read again."""

import asyncio
import json
import os
import signal
from collections.abc import Callable

import pytest
import requests

from pipeline.testbed.bench.influxd import DATABASE
from pipeline.testbed.harness.influxd import Influxd
from tests.support.iggy_calls import connected, send
from tests.support.iggy_servers import RunningIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink

MESSAGES = 50_000
CONFIG = """
[iggy]
address = "{iggy}"
[[topics]]
stream = "{stream}"
topic = "readings"
[mapping]
tag_fields = ["device"]
{mapping}
[influxdb]
url = "{influxdb}"
{target}
retry_backoff_max_ms = 200
[pipeline]
runtime_dir = "{folder}"
"""


def values(url: str) -> list[float]:
    """The values of all points, in the order of time."""
    query = {"db": DATABASE, "epoch": "ns", "q": f'SELECT "v" FROM {TOPIC}'}
    series = requests.get(f"{url}/query", params=query, timeout=60).json()["results"][0]["series"]
    return [value for _, value in series[0]["values"]]


@pytest.mark.parametrize("victim", ["", "encode-0", "coordinator"])
@pytest.mark.parametrize("mapping", ["", 'timestamp_from = "origin_timestamp"'], ids=["default", "origin"])
def test_every_message_of_one_send_and_one_series_is_a_point(
        iggy: RunningIggy, stream: str, own_influxdb1: Influxd, start_sink: Callable[..., Sink], mapping: str,
        victim: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)

    async def at_once() -> None:
        await send(await connected(iggy), stream,
                   [json.dumps({"device": "d1", "v": number}).encode() for number in range(MESSAGES)])

    sink = start_sink(iggy.address, stream, SandboxInflux(own_influxdb1.url, "v1"), config=CONFIG, mapping=mapping,
                      target=f'version = "v1"\ndatabase = "{DATABASE}"')
    sink.wait_for(lambda status: status.ready)
    os.kill(own_influxdb1.pid, signal.SIGSTOP)  # so that it happens while requests are on their way
    asyncio.run(at_once())
    sink.wait_for(lambda status: status.in_flight >= 10_000)
    if victim:
        sink.kill(victim)
        sink.wait_for_log(f"{victim} died")
    os.kill(own_influxdb1.pid, signal.SIGCONT)
    status = sink.settles(MESSAGES)
    assert values(own_influxdb1.url) == list(range(MESSAGES)), "every one, in the order in which they were sent"
    assert status.overwritten == 0
    assert sink.stop() == 0
