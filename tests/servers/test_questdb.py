"""A real QuestDB, which `QUESTDB_TEST_URL` names: each row once, and as it went in."""

import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, send

Start = Callable[..., Sink]
URL = os.environ.get("QUESTDB_TEST_URL", "")
pytestmark = pytest.mark.skipif(not URL, reason="QUESTDB_TEST_URL names no server")
MESSAGES, BAD = 100_000, 50


def exec_(query: str) -> list[Any]:
    """The rows that a query gives."""
    answer = requests.get(f"{URL}/exec", params={"query": query}, timeout=60)
    found: list[Any] = json.loads(answer.text, strict=False).get("dataset", [])
    return found


def rows(table: str, query: str) -> list[Any]:
    """What a query gives once all that was written can be read."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        state = exec_(f"select writerTxn, sequencerTxn from wal_tables() where name = '{table}'")
        if state and state[0][0] == state[0][1]:
            return exec_(query)
        time.sleep(0.05)
    raise AssertionError(f"{table} does not come to rest")


@pytest.fixture
def table() -> Iterator[str]:
    """The name of a table that is not there; dropped after the test."""
    name = f"test{uuid.uuid4().hex[:12]}"
    yield name
    exec_(f"drop table if exists '{name}'")


def mapping(table: str) -> str:
    """More of `[mapping]`."""
    return f'measurement_from = "static"\nmeasurement_name = "{table}"\ntype_guard = false'


@pytest.mark.parametrize("bad_ones", [BAD, 5_000])
def test_bad_lines_among_100000_messages_leave_each_good_row_once(
        sandbox: SandboxIggy, stream: str, start_sink: Start, table: str, bad_ones: int) -> None:
    bad = set(random.Random(5).sample(range(MESSAGES), bad_ones))
    requests.post(f"{URL}/write", data=f"{table},device=d0 value=-1,ok=true 1000000\n", timeout=60).raise_for_status()
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [message(n, value="not a number") if n in bad else message(n)
                                   for n in range(MESSAGES)])
    sink = start_sink(sandbox.address, stream, SandboxInflux(URL), target='database = "x"', mapping=mapping(table),
                      options="window_messages = 20_000")
    status = sink.settles(MESSAGES, 200)
    assert (status.rejected, status.written) == (bad_ones, MESSAGES - bad_ones)
    for counted in (f"'{table}'", f"(select distinct value from '{table}')"):
        assert rows(table, f"select count() from {counted}") == [[MESSAGES - bad_ones + 1]]
    assert "DEDUP" in sink.log()
    assert sink.stop() == 0


def test_names_tags_and_strings_come_out_as_they_went_in(
        sandbox: SandboxIggy, stream: str, start_sink: Start, table: str) -> None:
    devices = ["c:\\dir", "\\\\host\\share", "a,b=c d", 'q"uote', "\u00e9\U0001f600\u6f22", "x\\,y"]
    texts = ["one\ntwo", "back\\slash \\n", 'q"uote', "a\\\nb", "", "plain"]
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [json.dumps({"device": device, "text": text, "ts": 1_000_000 + n * 1_000}).encode()
                                   for n, (device, text) in enumerate(zip(devices, texts, strict=True))])
    sink = start_sink(sandbox.address, stream, SandboxInflux(URL), target='database = "x"', mapping=mapping(table))
    sink.settles(len(devices))
    assert rows(table, f"select device, text from '{table}' order by timestamp") == [
        [device, text] for device, text in zip(devices, texts, strict=True)]
    assert sink.stop() == 0
