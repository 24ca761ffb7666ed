"""The whole sink while the database refuses, fails and comes back: nothing lost, one bad line is one dead letter."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import RunningIggy, SandboxIggy
from tests.support.influxdb_servers import running_influxdb, running_influxdb1
from tests.support.sinks import TARGETS, TOPIC, SandboxInflux, Sink, message, numbers, read_topic, send

Start = Callable[..., Sink]
#: Of these messages so many hold a string where the database has a number.
MESSAGES, BAD = 20_000, 20
#: The mapping must not find these before the database does.
NO_GUARD = "type_guard = false"
SEED_LINE = b"readings,device=d0 value=1,ok=true 1\n"


def bad_and_good() -> tuple[list[bytes], list[int]]:
    """The messages, and the numbers of the bad ones."""
    bad = sorted(random.Random(5).sample(range(MESSAGES), BAD))
    payloads = [message(n) for n in range(MESSAGES)]
    for n in bad:
        payloads[n] = message(n, value="not a number")
    return payloads, bad


def letters(iggy: RunningIggy, stream: str) -> list[dict[str, Any]]:
    """The dead letters, by offset."""
    return sorted(map(json.loads, read_topic(iggy.address, stream, "influxdb-dlq")), key=lambda one: one["offset"])


def expect_letters(found: list[dict[str, Any]], payloads: list[bytes], bad: list[int]) -> None:
    """Exactly the bad messages have letters, with all that is known of them."""
    assert [letter["offset"] for letter in found] == bad
    for letter in found:
        assert letter["payload"].encode() == payloads[letter["offset"]]
        assert (letter["reason"], letter["stage"], letter["topic"]) == ("type_conflict", "write", TOPIC)
        assert letter["status"] in (400, 422)
        assert "not a number" in letter["line"]
        assert letter["detail"] and letter["attempts"] >= 1 and letter["time"] and letter["pipeline_version"]


@pytest.mark.parametrize("flavour", ["v1", "v2", "v3"])
def test_bad_lines_among_good_ones_are_dead_letters(
        sandbox: SandboxIggy, stream: str, start_sink: Start, flavour: str) -> None:
    payloads, bad = bad_and_good()
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, payloads)
    with running_influxdb(flavour=flavour) as server:
        path = {"v1": "/write?db=sandbox", "v2": "/api/v2/write?org=sandbox&bucket=sandbox",
                "v3": "/api/v3/write_lp?db=sandbox&precision=nanosecond"}[flavour]
        requests.post(server.url + path, data=SEED_LINE, timeout=60,
                      headers={"Authorization": "Bearer sandbox-token"}).raise_for_status()
        influxdb = SandboxInflux(server.url, flavour)  # type: ignore[arg-type]
        sink = start_sink(sandbox.address, stream, influxdb, mapping=NO_GUARD,
                          options="window_messages = 4_000")
        status = sink.settles(MESSAGES)
        assert (status.rejected, status.written) == (BAD, MESSAGES - BAD)
        expect_letters(letters(sandbox, stream), payloads, bad)
        found = [p for p in influxdb.points() if p["time"] != 1]
        assert numbers(found) == [n for n in range(MESSAGES) if n not in set(bad)]


def test_bad_lines_are_dead_letters_with_a_real_influxdb(
        sandbox: SandboxIggy, stream: str, start_sink: Start, tmp_path: Path) -> None:
    payloads, bad = bad_and_good()
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, payloads)
    folder = tmp_path / "influxdb"
    folder.mkdir()
    with running_influxdb1(folder) as url:
        requests.post(f"{url}/query", data={"q": "CREATE DATABASE sandbox"}, timeout=60)
        requests.post(f"{url}/write?db=sandbox", data=SEED_LINE, timeout=60).raise_for_status()
        sink = start_sink(sandbox.address, stream, SandboxInflux(url, "v1"), mapping=NO_GUARD)
        status = sink.settles(MESSAGES)
        assert (status.rejected, status.written) == (BAD, MESSAGES - BAD)
        expect_letters(letters(sandbox, stream), payloads, bad)
        query = {"db": "sandbox", "epoch": "ns", "q": 'SELECT "value" FROM readings WHERE time > 1'}
        values = requests.get(f"{url}/query", params=query, timeout=60).json()["results"][0]["series"][0]["values"]
        assert sorted(time - 1_000 for time, _ in values) == [n for n in range(MESSAGES) if n not in set(bad)]
        assert all(value == time - 1_000 for time, value in values)


@pytest.mark.parametrize("fault", [
    {"status": 500, "times": 30}, {"status": 502, "times": 30}, {"status": 429, "headers": {"Retry-After": "0"},
                                                                "times": 30},
    {"status": 503, "headers": {"Retry-After": "1"}, "times": 2}, {"reset": "before", "times": 8},
    {"reset": "middle", "times": 8}, {"reset": "after", "times": 8}, {"hang": True, "times": 2},
    {"status": 401, "times": 20}, {"status": 403, "times": 20}, {"status": 404, "times": 20}, {"refuse": 5.0},
    {"sequence": [500, 204, 503, 204, 401, 429, 204, 404, 500, 204, 502]},
], ids=lambda fault: json.dumps(fault))
def test_an_outage_of_each_kind_loses_nothing_and_ends_unaided(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, fault: dict[str, Any]) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    sink = start_sink(sandbox.address, stream, influxdb, target=TARGETS["v2"] + "\nread_timeout_ms = 500")
    # Once it runs: an outage of five seconds may be over before a pipeline has started.
    sink.wait_for(lambda status: status.ready)
    influxdb.fail(fault)
    send(sandbox.address, stream, [message(n) for n in range(5_000)], 2)
    status = sink.settles(5_000)
    assert numbers(influxdb.points()) == list(range(5_000))
    assert status.rejected == 0
    assert sink.stop() == 0
    if not fault.get("reset") == "after":
        assert "accepts writes again" in sink.log()


def test_a_line_that_makes_the_server_fail_is_found_while_others_pass(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    payloads = [message(n) for n in range(3_000)]
    payloads[1_234] = message(1_234, text="poison")
    send(sandbox.address, stream, payloads, 2)
    influxdb.fail({"status": 500, "match": "poison"})
    sink = start_sink(sandbox.address, stream, influxdb)
    sink.settles(3_000)
    assert numbers(influxdb.points()) == [n for n in range(3_000) if n != 1_234]
    (letter,) = letters(sandbox, stream)
    assert (letter["reason"], letter["status"]) == ("server_error", 500)
    assert json.loads(letter["payload"])["text"] == "poison"


def test_a_wrong_token_pauses_and_the_corrected_file_resumes(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("wrong-secret")
    token.chmod(0o600)
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [message(n) for n in range(1_000)])
    target = f'version = "v2"\norg = "sandbox"\nbucket = "sandbox"\ntoken_file = "{token}"'
    sink = start_sink(sandbox.address, stream, influxdb, target=target)
    status = sink.wait_for(lambda status: status.paused)
    assert not status.ready
    assert "401" in next(iter(status.retrying.values()))
    token.write_text("sandbox-token\n")
    status = sink.settles(1_000)
    assert numbers(influxdb.points()) == list(range(1_000))
    sink.wait_for(lambda status: status.ready)
    log = sink.log()
    assert log.count("writing is paused") <= 2
    assert "correct the token" in log
    assert "wrong-secret" not in log and "sandbox-token" not in log


def test_mirror_writes_to_every_server_and_waits_for_all(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(3_000)], 2)
    with running_influxdb() as second:
        other = SandboxInflux(second.url)
        other.fail({"status": 503})
        mirror = f'urls = ["{influxdb.url}", "{second.url}"]\nreplication = "mirror"'
        sink = start_sink(sandbox.address, stream, SandboxInflux(mirror))
        wait_until(lambda: influxdb.count() > 0, "the first server")
        assert all(p.committed < 0 for p in sink.wait_for(lambda status: status.read >= 3_000).partitions)
        other.fail()
        sink.settles(3_000)
        assert numbers(influxdb.points()) == numbers(other.points()) == list(range(3_000))


def test_nothing_is_committed_while_the_dead_letter_file_cannot_be_written(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, tmp_path: Path) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    folder = tmp_path / "letters"
    folder.mkdir()
    file = folder / "letters.ndjson"
    sink = start_sink(sandbox.address, stream, influxdb, dead_letters=f'stores = ["file"]\nfile = "{file}"')
    sink.wait_for(lambda status: status.ready)
    shutil.rmtree(folder)
    folder.write_text("a file where a folder should be")
    send(sandbox.address, stream, [message(0), b"bad", message(2)])
    status = sink.wait_for(lambda status: "dead-letter" in status.retrying)
    wait_until(lambda: influxdb.count() == 2, "the good messages")
    assert [p.committed for p in status.partitions] == [-1]
    folder.unlink()
    folder.mkdir()
    sink.settles(3)
    (letter,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert (letter["offset"], letter["reason"], letter["payload"]) == (1, "not_json", "bad")
    assert read_topic(sandbox.address, stream, "influxdb-dlq") == []
