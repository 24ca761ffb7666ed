"""The whole sink with real processes: every message arrives as it should, whatever happens in between."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import RunningIggy
from tests.support.sinks import TARGETS, TOPIC, SandboxInflux, Sink, message, numbers, read_topic, send

Start = Callable[..., Sink]


def test_every_message_is_stored_as_expected_and_its_offset_committed(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 3)
    send(iggy.address, stream, [message(n) for n in range(5_000)], 3)
    sink = start_sink(iggy.address, stream, influxdb)
    status = sink.settles(5_000)
    assert numbers(influxdb.points()) == list(range(5_000))
    assert (status.read, status.written, status.rejected) == (5_000, 5_000, 0)
    assert sorted(p.committed + 1 for p in status.partitions) == [1_500, 1_500, 2_000]
    assert sink.stop() == 0
    assert "every offset committed" in sink.log()
    assert f"{influxdb.url} is InfluxDB OSS 2.7.12; writing to {influxdb.url}/api/v2/write?org=sandbox" in sink.log()


def test_messages_sent_while_it_runs_arrive_within_the_flush_interval(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 2)
    sink = start_sink(iggy.address, stream, influxdb)
    sink.wait_for(lambda status: status.ready)
    for first in range(0, 50, 10):
        send(iggy.address, stream, [message(n) for n in range(first, first + 10)])
        sink.settles(first + 10)
    assert numbers(influxdb.points()) == list(range(50))


def test_what_is_in_flight_is_part_of_the_lag_of_the_same_moment(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 2)
    influxdb.fail({"status": 503})
    sink = start_sink(iggy.address, stream, influxdb)
    sink.wait_for(lambda status: status.ready)
    send(iggy.address, stream, [message(n) for n in range(3_000)], 2)
    # The first status that has them in flight comes before the next look at the topic.
    status = sink.wait_for(lambda status: status.in_flight > 0)
    assert sum(partition.lag for partition in status.partitions) >= status.in_flight
    influxdb.fail()
    status = sink.settles(3_000)
    assert sum(partition.lag for partition in status.partitions) == 0


def test_a_restart_continues_from_the_committed_offset(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 2)
    send(iggy.address, stream, [message(n) for n in range(2_000)], 2)
    sink = start_sink(iggy.address, stream, influxdb)
    sink.settles(2_000)
    assert sink.stop() == 0
    send(iggy.address, stream, [message(n) for n in range(2_000, 3_000)], 2)
    sink.start()
    status = sink.settles(3_000)
    assert status.read == 1_000
    assert numbers(influxdb.points()) == list(range(3_000))


@pytest.mark.parametrize("victim", ["ingest", "encode-0", "encode-1", "write-0", "write-1", "coordinator",
                                    "dead-letter"])
def test_killing_a_process_loses_nothing(iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start,
                                         victim: str) -> None:
    iggy.create_topic(stream, TOPIC, 2)
    send(iggy.address, stream, [message(n) for n in range(20_000)], 2)
    influxdb.stall_after(4)
    sink = start_sink(iggy.address, stream, influxdb, options="writers = 2" if victim == "write-1" else "")
    sink.wait_for(lambda status: status.ready)
    wait_until(lambda: influxdb.count() >= 500, "the first points")
    sink.kill(victim)
    sink.wait_for_log(f"{victim} died")
    influxdb.fail()
    sink.settles(20_000)
    assert numbers(influxdb.points()) == list(range(20_000))
    assert sink.stop() == 0


def test_a_bad_message_costs_one_dead_letter_and_never_its_batch(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    payloads = [message(n) for n in range(1_000)]
    payloads[10], payloads[500], payloads[999] = b"no json", b'\xff\x00', b'{"device":"d","ts":1}'
    send(iggy.address, stream, payloads)
    sink = start_sink(iggy.address, stream, influxdb)
    status = sink.settles(1_000)
    assert status.rejected == 3
    assert numbers(influxdb.points()) == [n for n in range(1_000) if n not in (10, 500, 999)]
    letters = {letter["offset"]: letter for letter in map(json.loads, read_topic(iggy.address, stream, "influxdb-dlq"))}
    assert {offset: letter["reason"] for offset, letter in letters.items()} == {
        10: "not_json", 500: "not_json", 999: "no_fields"}
    assert letters[10]["payload"] == "no json"
    assert letters[500]["payload_base64"] == "/wA="
    assert letters[10]["stage"] == "encode"
    assert letters[10]["iggy_timestamp"] > 0
    # The first one of each reason is logged: which is first, the encoders beside each other decide.
    assert re.search(rf"rejected {stream}/readings partition 0 offset (10|500): not_json", sink.log())


def test_reading_stops_at_the_window_while_the_database_is_unavailable(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, [message(n) for n in range(10_000)])
    influxdb.fail({"status": 503})
    sink = start_sink(iggy.address, stream, influxdb, options="window_messages = 2_000")
    status = sink.wait_for(lambda status: status.read >= 2_000 and status.retrying)
    assert status.read == 2_000
    influxdb.fail()
    sink.settles(10_000)
    assert numbers(influxdb.points()) == list(range(10_000))


def test_a_second_signal_stops_at_once_and_says_what_is_left(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, [message(n) for n in range(1_000)])
    influxdb.fail({"status": 503})
    sink = start_sink(iggy.address, stream, influxdb)
    sink.wait_for(lambda status: status.read == 1_000 and status.retrying)
    sink.process.terminate()
    sink.wait_for_log("a second signal stops at once")
    assert sink.stop() == 1
    assert f"{stream}/readings partition 0: offsets 0 to 999" in sink.log()


def test_a_drain_has_a_time_limit(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, [message(n) for n in range(100)])
    influxdb.fail({"status": 503})
    sink = start_sink(iggy.address, stream, influxdb, arguments=["--drain-timeout-ms", "500"])
    sink.wait_for(lambda status: status.read == 100)
    assert sink.stop() == 1
    assert "not committed, and read again at the next start" in sink.log()


@pytest.mark.parametrize(("start_from", "expected"), [
    ('"earliest"', range(1_100)), ("700", range(700, 1_100)), ('"latest"', range(1_000, 1_100))])
def test_start_from_says_where_to_begin_when_no_offset_is_stored(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, start_from: str,
        expected: range) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, [message(n) for n in range(1_000)])
    sink = start_sink(iggy.address, stream, influxdb, topic=f"start_from = {start_from}")
    sink.wait_for(lambda status: status.ready)
    send(iggy.address, stream, [message(n) for n in range(1_000, 1_100)])
    sink.settles(1_100)
    assert numbers(influxdb.points()) == list(expected)


def test_each_process_has_its_name_in_ps_and_no_secret(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    sink = start_sink(iggy.address, stream, influxdb)
    status = sink.wait_for(lambda status: status.ready)
    assert set(status.pids) == {"coordinator", "ingest", "encode-0", "encode-1", "write-0", "dead-letter"}
    assert len(set(status.pids.values())) == 6
    for name, pid in {**status.pids, "supervisor": sink.process.pid}.items():
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert title.startswith(f"pipeline: {name}".encode())
        assert b"sandbox-token" not in title


def test_start_from_a_time_begins_with_the_first_message_since(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, [message(n) for n in range(100)])
    between = datetime.now(UTC)
    wait_until(lambda: datetime.now(UTC) > between + timedelta(milliseconds=5), "the clock")
    send(iggy.address, stream, [message(n) for n in range(100, 150)])
    since = (between + timedelta(milliseconds=2)).isoformat()
    sink = start_sink(iggy.address, stream, influxdb, topic=f'start_from = "{since}"')
    sink.settles(150)
    assert numbers(influxdb.points()) == list(range(100, 150))


def test_batches_that_are_larger_than_a_frame_arrive(iggy: RunningIggy, stream: str, influxdb: SandboxInflux,
                                                     start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    texts = [chr(97 + n % 26) * 50_000 for n in range(100)]
    for first in range(0, 100, 20):
        send(iggy.address, stream, [message(n, text=texts[n]) for n in range(first, first + 20)])
    sink = start_sink(iggy.address, stream, influxdb, target=TARGETS["v2"] + "\ngzip = false")
    sink.settles(100)
    assert sorted((p["time"] - 1_000, p["fields"]["text"]) for p in influxdb.points()) == list(enumerate(texts))
    assert "dropped" not in sink.log()
    assert sink.stop() == 0
