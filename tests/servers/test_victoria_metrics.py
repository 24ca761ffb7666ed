"""The whole pipeline into a real VictoriaMetrics, by both of the write endpoints that it has."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, send
from tests.support.victoria import running_victoria

MESSAGES = 3_000
#: VictoriaMetrics keeps milliseconds, and nothing that is older than its retention.
FIRST_MS = 1_760_000_000_000


@pytest.fixture
def victoria(tmp_path: Path) -> Iterator[str]:
    """The URL of an empty VictoriaMetrics."""
    with running_victoria(tmp_path) as url:
        yield url


def exported(url: str, name: str) -> list[dict[str, Any]]:
    """All series of a metric, with their values and times."""
    requests.get(f"{url}/internal/force_flush", timeout=60)
    text = requests.get(f"{url}/api/v1/export", params={"match[]": name}, timeout=60).text
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("target", ['version = "v1"\ndatabase = "db"', 'version = "v2"\nbucket = "b"\norg = "o"',
                                    'bucket = "b"'])
def test_every_value_reads_back(victoria: str, sandbox: SandboxIggy, stream: str, start_sink: Callable[..., Sink],
                                target: str) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [
        json.dumps({"device": f"d{n % 7}", "value": n, "level": n / 4, "ts": (FIRST_MS + n) * 1_000_000}).encode()
        for n in range(MESSAGES)], 2)
    sink = start_sink(sandbox.address, stream, SandboxInflux(victoria), target=f'{target}\nprecision = "ms"')
    sink.settles(MESSAGES)
    for name, scale in (("readings_value", 1.0), ("readings_level", 0.25)):
        series = exported(victoria, name)
        assert {one["metric"]["device"] for one in series} == {f"d{n}" for n in range(7)}
        found = sorted(pair for one in series for pair in zip(one["timestamps"], one["values"], strict=True))
        assert found == [(FIRST_MS + n, n * scale) for n in range(MESSAGES)]
    assert sink.stop() == 0


def test_backslashes_in_tags_are_stored_as_they_are(
        victoria: str, sandbox: SandboxIggy, stream: str, start_sink: Callable[..., Sink]) -> None:
    devices = ["x\\y", "\\\\host\\share", "a\\,b", "a\\\\=b"]
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [
        json.dumps({"device": device, "value": 1, "ts": (FIRST_MS + n) * 1_000_000}).encode()
        for n, device in enumerate(devices)])
    sink = start_sink(sandbox.address, stream, SandboxInflux(victoria), target='database = "db"\nprecision = "ms"')
    sink.settles(len(devices))
    found = {one["metric"]["device"] for one in exported(victoria, "readings_value")}
    assert found == set(devices)
    assert sink.stop() == 0
