"""Several sinks in one pipeline: each with its own mapping, database and offsets, also on one topic."""

import re
from collections.abc import Callable
from pathlib import Path

from tests.support.iggy_servers import RunningIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sinks import TARGETS, TOPIC, SandboxInflux, Sink, message, numbers, send

CONFIG = """
[iggy]
address = "{iggy}"
[[sinks]]
name = "plant"
[[sinks.topics]]
stream = "{stream}"
topic = "readings"
[sinks.mapping]
tag_fields = ["device"]
timestamp_from = "field"
timestamp_field = "ts"
timestamp_format = "epoch_ns"
[sinks.influxdb]
url = "{influxdb}"
{target}
[[sinks]]
name = "archive"
consumer = "archive"
[[sinks.topics]]
stream = "{stream}"
topic = "readings"
[sinks.mapping]
measurement_from = "static"
measurement_name = "raw"
field_strategy = "explicit"
field_names = ["value"]
types = {{ value = "integer" }}
timestamp_from = "field"
timestamp_field = "ts"
timestamp_format = "epoch_ns"
[sinks.influxdb]
url = "{second}"
{second_target}
retry_backoff_max_ms = 200
[pipeline]
flush_interval_ms = 20
runtime_dir = "{folder}"
"""


def test_two_sinks_read_one_topic_each_at_its_own_pace(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    iggy.create_topic(stream, TOPIC, 2)
    send(iggy.address, stream, [message(n) for n in range(2_000)], 2)
    with running_influxdb(flavour="v1") as server:
        second = SandboxInflux(server.url, "v1")
        sink = start_sink(iggy.address, stream, influxdb, config=CONFIG.replace("{second}", second.url).replace(
            "{second_target}", TARGETS["v1"]))
        sink.settles(4_000)
        assert numbers(influxdb.points()) == list(range(2_000))
        stored = second.points()
        assert {p["measurement"] for p in stored} == {"raw"}
        assert [(p["time"] - 1_000, p["fields"]) for p in stored] == [(n, {"value": n}) for n in range(2_000)]
        assert all(p["types"] == {"value": "integer"} and p["tags"] == [] for p in stored)
        assert sink.stop() == 0
        sink.start()
        assert sink.wait_for(lambda status: status.ready).read == 0


def test_the_example_archives_every_message(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    iggy.create_topic(stream, TOPIC, 3)
    send(iggy.address, stream, [message(n, site="a") for n in range(12_005)], 3)
    example = (Path(__file__).parents[2] / "configs" / "several-sinks.toml").read_text()
    with running_influxdb(flavour="v1") as server:
        for old, new in (("127.0.0.1:8090", "{iggy}"), ("telemetry", "{stream}"), ("sensors", TOPIC),
                         ("my-org", "sandbox"), ("http://127.0.0.1:8086", "{influxdb}"),
                         ("http://127.0.0.1:8087", server.url), ('bucket = "plant"', 'bucket = "sandbox"'),
                         ('"archive"\n', '"sandbox"\n')):
            example = example.replace(old, new)
        example = re.sub(r'"\$\{INFLUX_TOKEN.*', '"sandbox-token"', example)
        start_sink(iggy.address, stream, influxdb, config=f'{example}[pipeline]\nflush_interval_ms = 20\n'
                   'runtime_dir = "{folder}"\n').settles(2 * 12_005)
        assert SandboxInflux(server.url, "v1").count() == 12_005
        assert influxdb.count() == 12_005
