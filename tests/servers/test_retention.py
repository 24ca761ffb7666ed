"""Lines outside the retention of a real InfluxDB 1.6.7, and of the InfluxDB 2 that `INFLUXDB2_TEST_URL` names."""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import requests

from tests.support import influxdb_servers
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, read_topic, send

Start = Callable[..., Sink]
URL = os.environ.get("INFLUXDB2_TEST_URL", "")
TOKEN = os.environ.get("INFLUXDB2_TEST_TOKEN", "")
ORG = os.environ.get("INFLUXDB2_TEST_ORG", "my-org")
ask2 = partial(influxdb_servers.ask, URL, f"Token {TOKEN}")
#: One device of five has a wrong clock.
MESSAGES, EVERY = 20_000, 5
HOUR_NS = 3_600_000_000_000


def messages(now_ns: int) -> list[bytes]:
    """Points of the last minutes, but for those of one device, which are a day old."""
    return [json.dumps({"device": f"d{n % EVERY}", "value": n,
                        "ts": now_ns - (24 * HOUR_NS if n % EVERY == 0 else 0) - n * 1_000_000}).encode()
            for n in range(MESSAGES)]


def check(sink: Sink, sandbox: SandboxIggy, stream: str) -> None:
    """Exactly the old ones are dead letters, most of them without having been sent."""
    status = sink.settles(MESSAGES)
    assert (status.written, status.rejected) == (MESSAGES - MESSAGES // EVERY, MESSAGES // EVERY)
    letters: list[dict[str, Any]] = [json.loads(one) for one in read_topic(sandbox.address, stream, "influxdb-dlq")]
    assert sorted(letter["offset"] for letter in letters) == list(range(0, MESSAGES, EVERY))
    assert {letter["reason"] for letter in letters} == {"outside_retention"}
    assert all("the oldest accepted" in letter["detail"] for letter in letters)
    assert sum(letter["attempts"] == 0 for letter in letters if "attempts" in letter) + sum(
        "attempts" not in letter for letter in letters) > len(letters) // 2
    assert sink.stop() == 0


def test_a_fifth_outside_the_retention_of_influxdb_1(influxdb1: str, sandbox: SandboxIggy, stream: str,
                                                     start_sink: Start) -> None:
    name = f"retention-{uuid.uuid4().hex[:8]}"
    requests.post(f"{influxdb1}/query", data={"q": f'CREATE DATABASE "{name}" WITH DURATION 1h'},
                  timeout=60).raise_for_status()
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, messages(time.time_ns()))
    sink = start_sink(sandbox.address, stream, SandboxInflux(influxdb1), target=f'version = "v1"\ndatabase = "{name}"')
    check(sink, sandbox, stream)
    found = requests.get(f"{influxdb1}/query", params={"db": name, "q": f"SELECT count(value) FROM {TOPIC}"},
                         timeout=60).json()
    assert found["results"][0]["series"][0]["values"][0][1] == MESSAGES - MESSAGES // EVERY


@pytest.fixture
def bucket() -> Iterator[str]:
    """A bucket of the real InfluxDB 2 that keeps an hour."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    org = ask2("GET", "/api/v2/orgs", params={"org": ORG}).json()["orgs"][0]["id"]
    made = ask2("POST", "/api/v2/buckets", json={"orgID": org, "name": name, "retentionRules": [
        {"type": "expire", "everySeconds": 3_600}]}).json()
    yield name
    ask2("DELETE", f"/api/v2/buckets/{made['id']}")


@pytest.mark.skipif(not URL, reason="INFLUXDB2_TEST_URL names no server")
def test_a_fifth_outside_the_retention_of_influxdb_2(bucket: str, sandbox: SandboxIggy, stream: str,
                                                     start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, messages(time.time_ns()))
    sink = start_sink(sandbox.address, stream, SandboxInflux(URL),
                      target=f'version = "v2"\norg = "{ORG}"\nbucket = "{bucket}"\ntoken = "{TOKEN}"')
    check(sink, sandbox, stream)
