"""The whole sink into the sandbox posing as QuestDB: rows are there once, and come out as they went in."""

import json
import random
from collections.abc import Callable

import pytest
import requests

from tests.support.iggy_servers import SandboxIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, read_topic, send

Start = Callable[..., Sink]
MESSAGES, BAD = 20_000, 20
TARGET = 'database = "sandbox"'


@pytest.mark.parametrize("target", [TARGET, 'version = "v1"\ndatabase = "sandbox"',
                                    'version = "v2"\nbucket = "sandbox"\norg = "o"'])
def test_bad_lines_among_good_ones_leave_each_good_row_once(
        sandbox: SandboxIggy, stream: str, start_sink: Start, target: str) -> None:
    bad = sorted(random.Random(5).sample(range(MESSAGES), BAD))
    payloads = [message(n, value="not a number") if n in bad else message(n) for n in range(MESSAGES)]
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, payloads)
    with running_influxdb(flavour="questdb") as server:
        requests.post(f"{server.url}/write", data=b"readings,device=d0 value=1,ok=true 1000\n",
                      timeout=60).raise_for_status()
        influxdb = SandboxInflux(server.url, "questdb")
        sink = start_sink(sandbox.address, stream, influxdb, target=target,
                          mapping="type_guard = false", options="window_messages = 4_000")
        status = sink.settles(MESSAGES)
        assert (status.rejected, status.written) == (BAD, MESSAGES - BAD)
        assert influxdb.count() == MESSAGES - BAD + 1
        letters = sorted(map(json.loads, read_topic(sandbox.address, stream, "influxdb-dlq")),
                         key=lambda letter: letter["offset"])
        assert [letter["offset"] for letter in letters] == bad
        assert {letter["reason"] for letter in letters} == {"type_conflict"}
        assert "DEDUP" in sink.log()
        assert sink.stop() == 0


def test_names_tags_and_strings_come_out_as_they_went_in(sandbox: SandboxIggy, stream: str, start_sink: Start) -> None:
    devices = ["c:\\dir", "\\\\host\\share", "a,b=c d", 'q"uote', "é😀漢", "x\\,y"]
    texts = ["one\ntwo", "back\\slash \\n", 'q"uote', "a\\\nb", "", "plain"]
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [json.dumps({"device": device, "text": text, "ts": 1_000_000 + n * 1_000}).encode()
                                   for n, (device, text) in enumerate(zip(devices, texts, strict=True))])
    with running_influxdb(flavour="questdb") as server:
        influxdb = SandboxInflux(server.url, "questdb")
        sink = start_sink(sandbox.address, stream, influxdb, target=TARGET)
        sink.settles(len(devices))
        found = sorted(influxdb.points(), key=lambda one: one["time"])
        assert [dict(one["tags"])["device"] for one in found] == devices
        assert [one["fields"]["text"] for one in found] == texts
        assert sink.stop() == 0


def test_a_field_that_questdb_would_drop_without_a_word_is_a_dead_letter(
        sandbox: SandboxIggy, stream: str, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [b'{"device":"a","value":1,"ts":1000000}', b'{"device":"a","v":1,"V":2,"ts":2000000}',
                                   b'{"device":"a","value":3,"ts":3000000}'])
    with running_influxdb(flavour="questdb") as server:
        influxdb = SandboxInflux(server.url, "questdb")
        sink = start_sink(sandbox.address, stream, influxdb, target=TARGET)
        status = sink.settles(3)
        assert (status.written, status.rejected, influxdb.count()) == (2, 1, 2)
        letter = json.loads(read_topic(sandbox.address, stream, "influxdb-dlq")[0])
        assert (letter["offset"], letter["reason"]) == (1, "refused") and "one column" in letter["detail"]
        assert sink.stop() == 0


def test_a_table_with_dedup_is_not_warned_of(sandbox: SandboxIggy, stream: str, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [message(n) for n in range(10)])
    with running_influxdb(flavour="questdb") as server:
        requests.post(f"{server.url}/write", data=b"readings,device=d0 value=1,ok=true 1000\n", timeout=60)
        query = "ALTER TABLE 'readings' DEDUP ENABLE UPSERT KEYS(timestamp, device)"
        requests.get(f"{server.url}/exec", params={"query": query}, timeout=60).raise_for_status()
        sink = start_sink(sandbox.address, stream, SandboxInflux(server.url, "questdb"), target=TARGET)
        sink.settles(10)
        assert sink.stop() == 0
        assert "QuestDB" in sink.log() and "DEDUP" not in sink.log()
