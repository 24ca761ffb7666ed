"""Steps and functions in a whole pipeline: what they remember, and what becomes of a call that does not end."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.iggy_servers import RunningIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, read_topic, send

FUNCTION = """
import time
from pipeline.api import JsonObject, Message

def changed(message: JsonObject, about: Message) -> JsonObject | None:
    if message["v"] == "raises":
        raise LookupError("no such device")
    if message["v"] == "waits":
        time.sleep(3_600)
    return {**message, "offset": about.offset}
"""
MAPPING = """
tag_fields = ["d"]
transform = "changes:changed"
transform_path = "{folder}"
transform_timeout_ms = 300
[[mapping.steps]]
do = "only_changed"
by = ["d"]
"""


def test_only_changes_are_written_and_a_call_that_waits_costs_its_message_alone(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink],
        tmp_path: Path) -> None:
    (tmp_path / "changes.py").write_text(FUNCTION)
    iggy.create_topic(stream, TOPIC, 2)
    messages = [json.dumps({"d": f"d{number % 4}", "v": number // 3_000}).encode() for number in range(6_000)]
    # Each 500 go to the partitions in turn, so that each has all devices, with both values.
    send(iggy.address, stream, [*messages, b'{"d":"a","v":"raises"}', b'{"d":"a","v":"waits"}', b'{"d":"a","v":5}'], 2)
    sink = start_sink(iggy.address, stream, influxdb, paths="", mapping=MAPPING.format(folder=tmp_path))
    sink.settles(6_003)
    points = influxdb.points()
    # Of each device and value one, in each partition; the batches of a partition had one encoder of the two.
    assert sorted((point["tags"][0][1], point["fields"]["v"]) for point in points) == sorted(
        [(f"d{device}", value) for device in range(4) for value in (0.0, 1.0) for _ in range(2)] + [("a", 5.0)])
    letters = [json.loads(letter) for letter in read_topic(iggy.address, stream, "influxdb-dlq")]
    assert sorted((letter["reason"], letter["detail"]) for letter in letters) == [
        ("step_failed", "transform: changes:changed: LookupError: no such device (changes.py:7)"),
        ("too_slow", "changes:changed takes longer than transform_timeout_ms = 300")]
    assert "died" not in sink.log()


def test_a_program_of_jq_that_does_not_end_costs_its_message_alone(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, [json.dumps({"v": number}).encode() for number in range(12)])
    sink = start_sink(iggy.address, stream, influxdb, paths="", options="max_restarts = 1", mapping=(
        "max_message_cpu_ms = 100\njq = 'def endless: endless; if .v == 7 then endless else . end'"))
    sink.settles(12)
    assert sorted([point["fields"]["v"] for point in influxdb.points()]) == [n for n in range(12) if n != 7]
    letters = [json.loads(letter) for letter in read_topic(iggy.address, stream, "influxdb-dlq")]
    assert [(letter["reason"], letter["offset"]) for letter in letters] == [("quarantined", 7)]
    assert "a program of jq took longer for one message than max_message_cpu_ms" in letters[0]["detail"]
