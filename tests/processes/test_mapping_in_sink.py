"""What the mapping needs of the whole pipeline, with real processes: headers, one memory of types, counted tags."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from apache_iggy import AutoLogin, IggyClient, Partitioning, SendMessage, TcpConfig

from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import RunningIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, read_topic, send

Start = Callable[..., Sink]


def payloads_of(messages: list[dict[str, Any]]) -> list[bytes]:
    """The messages as JSON, each with a time of its own."""
    return [json.dumps({"ts": 1_000 + index, **message}).encode() for index, message in enumerate(messages)]


def fields(influxdb: SandboxInflux) -> list[dict[str, Any]]:
    """The fields of all points by time."""
    return [point["fields"] for point in sorted(influxdb.points(), key=lambda point: point["time"])]


def test_user_headers_become_tags(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)

    async def send_with_headers() -> None:
        client = IggyClient(TcpConfig(server_address=iggy.address,
                                      auto_login=AutoLogin.username_password("iggy", "iggy")))
        await client.connect()
        headers: list[dict[Any, Any] | None] = [{"region": "eu west", "rack": 7}, None, {"region": "us", "hot": True}]
        await client.send_messages(stream, TOPIC, Partitioning.partition_id(0), [
            SendMessage(payload, user_headers=header)
            for payload, header in zip(payloads_of([{"v": n} for n in range(3)]), headers, strict=True)])

    asyncio.run(send_with_headers())
    sink = start_sink(iggy.address, stream, influxdb,
                      mapping='header_tags = { region = "region", rack = "rack_no", hot = "hot" }')
    sink.settles(3)
    points = sorted(influxdb.points(), key=lambda point: point["time"])
    assert [point["tags"] for point in points] == [
        [["rack_no", "7"], ["region", "eu west"]], [], [["hot", "true"], ["region", "us"]]]


def test_encoders_agree_on_a_type_also_after_the_coordinator_was_killed(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 2)
    send(iggy.address, stream, payloads_of([{"v": 0.5}]))
    sink = start_sink(iggy.address, stream, influxdb, mapping='integers = "as_written"')
    sink.settles(1)
    sink.kill("coordinator")
    sink.wait_for_log("coordinator died")
    more = payloads_of([{"v": 0.5}, *({"v": n} for n in range(2_000)), {"v": "warm"}])[1:]
    send(iggy.address, stream, more, 2)
    sink.settles(2_002)
    assert fields(influxdb) == [{"v": 0.5}, *({"v": float(n)} for n in range(2_000))]
    letters = [json.loads(letter) for letter in read_topic(iggy.address, stream, "influxdb-dlq")]
    assert [(letter["reason"], letter["stage"]) for letter in letters] == [("type_conflict", "encode")]


@pytest.mark.parametrize("policy", ["warn", "to_field"])
def test_a_tag_with_too_many_values_is_said_and_treated_as_configured(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, policy: str) -> None:
    iggy.create_topic(stream, TOPIC, 2)
    send(iggy.address, stream, payloads_of([{"device": f"d{n}", "v": n} for n in range(1_000)]), 2)
    sink = start_sink(iggy.address, stream, influxdb,
                      mapping=f'max_tag_values = 500\non_high_cardinality = "{policy}"')
    sink.settles(1_000)
    sink.wait_for_log("max_tag_values = 500")
    influxdb_before = influxdb.count()
    wait_until(lambda: _one_more(iggy, stream, influxdb, sink, influxdb_before, policy), "the consequence")


def _one_more(iggy: RunningIggy, stream: str, influxdb: SandboxInflux, sink: Sink, before: int, policy: str) -> bool:
    """Sends one more message, and says whether it was written as the policy has it."""
    time = 1_000_000 + influxdb.count()
    send(iggy.address, stream, [json.dumps({"device": "new", "v": 1, "ts": time}).encode()])
    sink.settles(1_000 + influxdb.count() - before + 1)
    (point,) = [point for point in influxdb.points() if point["time"] == time]
    expected = [] if policy == "to_field" else [["device", "new"]]
    return bool(point["tags"] == expected)


def test_rules_drop_and_route_and_what_is_dropped_is_committed(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, payloads_of([{"status": ["ok", "test", "alarm"][n % 3], "v": n} for n in range(300)]))
    sink = start_sink(iggy.address, stream, influxdb, mapping="""
[[mapping.rules]]
when = "status == 'test'"
then = "drop"
[[mapping.rules]]
when = "status == 'alarm' and v > 150"
measurement = "alarms"
""")
    sink.settles(300)
    status = sink.wait_for(lambda status: status.filtered == 100)
    assert (status.read, status.written, status.rejected) == (300, 200, 0)
    assert status.ways.uniform + status.ways.general + status.ways.exact >= 300 and status.ways.compiled
    assert len([point for point in influxdb.points() if point["measurement"] == "alarms"]) == 50


def test_points_of_merged_and_exploded_messages_are_counted_by_line(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, payloads_of([{"v": 1.5}]))
    sink = start_sink(iggy.address, stream, influxdb, mapping='type_guard = false\nexplode = "all"')
    sink.settles(1)
    equal: list[dict[str, Any]] = [{"ts": 2, "v": "warm"}, *({"ts": 2, f"w{n}": n} for n in range(9))]
    merged = [json.dumps(message).encode() for message in equal]
    elements = [{"device": "a", "v": 1}, {"device": "b", "v": "x"}, {"device": "c", "v": 3}]
    send(iggy.address, stream, [*merged, json.dumps({"ts": 3, "all": elements}).encode()])
    status = sink.settles(12)
    assert (status.written, status.rejected) == (3, 11)
    assert influxdb.count() == 3


def test_what_may_not_be_meant_is_warned_of_once_and_then_counted(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, [b'{"ts":%d,"a_b":1,"a":{"b":%d}}' % (n, n) for n in range(2, 302)])
    sink = start_sink(iggy.address, stream, influxdb, mapping='on_name_clash = "keep_last"')
    sink.settles(300)
    wait_until(lambda: sink.log().count("warning for ") >= 2, "the warnings")
    sink.stop()
    assert influxdb.count() == 300
    lines = sink.log().splitlines()
    assert any("implausible_time: ts: the time is 1970-01-01T00:00:00Z" in line for line in lines)
    warnings = [line for line in lines if "warning for" in line and "name_clash" in line]
    assert f"warning for {stream}/{TOPIC} partition 0 offset " in warnings[0]
    assert "a_b and a.b both become the field a_b; the last one counts" in warnings[0]
    assert len(warnings) <= 2


def test_the_offset_as_a_tag_is_warned_of(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    sink = start_sink(iggy.address, stream, influxdb, mapping='metadata_tags = ["offset"]')
    sink.wait_for(lambda status: status.ready)
    sink.wait_for_log("metadata_tags has offset")
