"""Points made of Iggy's times, by the whole pipeline: every message is one, and what overwrites others is counted."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from apache_iggy import PollingStrategy

from stages.mapping.records.message_times import message_time
from tests.support.iggy_calls import connected, poll, send
from tests.support.iggy_servers import RunningIggy
from tests.support.sinks import TARGETS, TOPIC, SandboxInflux, Sink

Start = Callable[..., Sink]
CONFIG = """
[iggy]
address = "{iggy}"
[[topics]]
stream = "{stream}"
topic = "readings"
[mapping]
{mapping}
[influxdb]
url = "{influxdb}"
{target}
[dead_letters]
{dead_letters}
[pipeline]
flush_interval_ms = 20
runtime_dir = "{folder}"
{options}
"""
SEND = 4_000


def send_at_once(iggy: RunningIggy, stream: str, payloads: list[bytes], partition: int = 0) -> list[tuple[int, int]]:
    """One send; the messages' times when they are polled: Iggy's and those of origin, microseconds."""
    async def there_and_back() -> list[tuple[int, int]]:
        client = await connected(iggy)
        await send(client, stream, payloads, partition)
        polled = await poll(client, stream, PollingStrategy.First(), count=len(payloads), partition=partition)
        return [(message.timestamp(), message.origin_timestamp()) for message in polled]

    return asyncio.run(there_and_back())


def of_one_device(count: int) -> list[bytes]:
    """Messages without a time."""
    return [json.dumps({"device": "d1", "v": number}).encode() for number in range(count)]


def in_order(influxdb: SandboxInflux) -> list[tuple[int, object]]:
    """Time and value of all points, in the order of time."""
    return sorted((point["time"], point["fields"]["v"]) for point in influxdb.points())


def test_the_messages_of_one_send_have_one_time_and_own_origin_times(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    times = send_at_once(iggy, stream, of_one_device(500))
    origins = [origin for _, origin in times]
    assert len({time for time, _ in times}) == 1
    assert origins == sorted(origins) and len(set(origins)) > 1
    assert 0 <= times[0][0] - origins[-1] < 60_000_000, "it was taken after it was made"


@pytest.mark.parametrize("source", ["", 'timestamp_from = "origin_timestamp"', 'timestamp_from = "arrival"'],
                         ids=["default", "origin", "arrival"])
def test_every_message_of_one_send_and_one_series_is_a_point(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, source: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    times = send_at_once(iggy, stream, of_one_device(SEND))
    sink = start_sink(iggy.address, stream, influxdb, config=CONFIG, mapping=f'tag_fields = ["device"]\n{source}',
                      options="batch_size = 700")
    status = sink.settles(SEND)
    points = in_order(influxdb)
    assert {value for _, value in points} == set(range(SEND)) and len(points) == SEND
    if "arrival" not in source:  # which is the time of encoding, and encoders work side by side
        assert [value for _, value in points] == list(range(SEND))
        assert [time for time, _ in points] == [
            message_time(origin if source else time, 0, offset, "ns") for offset, (time, origin) in enumerate(times)]
    assert (status.written, status.overwritten) == (SEND, 0)
    assert sink.stop() == 0
    assert "overwrite" not in sink.log()


def test_log_lines_of_one_send_are_as_many_points(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    example = (Path(__file__).parents[2] / "configs" / "mapping" / "text.toml").read_text()
    mapping = example.partition("[mapping]\n")[2].partition("[influxdb]")[0]
    iggy.create_topic(stream, TOPIC, 1)
    send_at_once(iggy, stream, [b"disk full", b"fan stopped", b"door open"])
    start_sink(iggy.address, stream, influxdb, config=CONFIG, mapping=mapping).settles(3)
    points = sorted(influxdb.points(), key=lambda point: point["time"])
    assert [point["fields"] for point in points] == [
        {"line": "disk full"}, {"line": "fan stopped"}, {"line": "door open"}]


@pytest.mark.parametrize(("options", "merge", "written"), [
    ("batch_size = 1000", "true", 1), ("batch_size = 1000", "false", 100), ("batch_size = 10", "true", 10)])
def test_points_that_overwrite_others_are_counted_and_warned_of_once(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, options: str, merge: str,
        written: int) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    ((time, _), *_) = send_at_once(iggy, stream, of_one_device(100))
    sink = start_sink(iggy.address, stream, influxdb, config=CONFIG, options=options,
                      target=f'{TARGETS["v2"]}\nprecision = "ms"',
                      mapping=f'tag_fields = ["device"]\nmerge_duplicates = {merge}')
    status = sink.settles(100)
    assert influxdb.count() == 1
    assert status.written == written
    # Of two encoders each knows what it made itself.
    assert status.overwritten in ((99,) if "1000" in options else (98, 99))
    sink.wait_for_log("points overwrite others")
    assert sink.stop() == 0
    warning, = re.findall("points overwrite others: .*", sink.log())
    assert f"{stream}/{TOPIC} partition 0 offset" in warning
    assert f"both make the point {TOPIC},device=d1 at {time // 1_000}; " in warning
    assert 'precision = "ns"' in warning and '(now "ms")' in warning
    sink.wait_for_log(f"{written} points written, {status.overwritten} overwritten by others, 0 rejected")


@pytest.mark.parametrize("source", ["iggy_timestamp", "origin_timestamp"])
def test_a_replayed_dead_letter_is_the_point_of_its_message(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, source: str) -> None:
    iggy.create_topic(stream, TOPIC, 2)
    payloads = of_one_device(5)
    payloads[2] = payloads[2].replace(b"2}", b'"two"}')
    times = send_at_once(iggy, stream, payloads, partition=1)
    sink = start_sink(iggy.address, stream, influxdb, config=CONFIG,
                      mapping=f'timestamp_from = "{source}"\ntypes = {{ v = "float" }}')
    sink.wait_for(lambda status: status.rejected == 1 and status.written == 4 and not status.in_flight)
    assert sink.stop() == 0
    sink.config.write_text(sink.config.read_text().replace('types = { v = "float" }', 'field_renames = { v = "w" }'))
    done = subprocess.run([sys.executable, "-m", "pipeline", "dlq", "replay", "-c", str(sink.config)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "1 stored and marked, 0 still dead\n" in done.stdout
    replayed = [point["time"] for point in influxdb.points() if "w" in point["fields"]]
    assert replayed == [message_time(times[2][source != "iggy_timestamp"], 1, 2, "ns")]


def test_a_replay_tells_of_points_that_overwrite_others(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    send_at_once(iggy, stream, [b'{"v":"one"}', b'{"v":"two"}', b'{"v":"three"}'])
    sink = start_sink(iggy.address, stream, influxdb, config=CONFIG, mapping='types = { v = "float" }',
                      target=f'{TARGETS["v2"]}\nprecision = "s"')
    sink.wait_for(lambda status: status.rejected == 3 and not status.in_flight)
    assert sink.stop() == 0
    sink.config.write_text(sink.config.read_text().replace('types = { v = "float" }', ""))
    done = subprocess.run([sys.executable, "-m", "pipeline", "dlq", "replay", "-c", str(sink.config)],
                          capture_output=True, text=True, timeout=60)
    assert "3 stored and marked, 0 still dead; 2 points overwritten by others\n" in done.stdout
    assert influxdb.count() == 1
