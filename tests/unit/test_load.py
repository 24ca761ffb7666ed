"""The load's schedule and messages."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.config import load_config
from pipeline.commands.load import time_form
from pipeline.config.schema import Config, MappingConfig
from pipeline.testbed.load.runner import summary
from pipeline.testbed.load.schedule import Schedule, Shape
from pipeline.testbed.load.sender import Sent
from pipeline.testbed.load.telemetry import MADE_FORMATS, Telemetry, TimeForm
from stages.mapping.batch import BatchOrigin
from stages.mapping.records.timestamps import UNIT_NS
from stages.mapping.standalone import local_encoder

SCHEDULES = st.builds(Schedule, st.floats(0.5, 5_000), st.floats(0.1, 20), st.sampled_from(["steady", "ramp", "burst"]))


@given(SCHEDULES)
def test_intended_times_rise_and_end_with_the_load(schedule: Schedule) -> None:
    times = [schedule.time_of(number) for number in range(min(schedule.messages, 500))]
    assert times == sorted(times)
    assert not times or times[0] == 0 and schedule.time_of(schedule.messages - 1) <= schedule.seconds + 1


@given(SCHEDULES, st.floats(0, 25))
def test_what_is_due_is_what_was_meant_to_be_sent_by_then(schedule: Schedule, seconds: float) -> None:
    due = schedule.due(seconds)
    assert due == schedule.messages or schedule.time_of(due) > seconds
    assert due == 0 or schedule.time_of(due - 1) <= seconds


@pytest.mark.parametrize(("shape", "messages", "due_at_half"), [("steady", 1_000, 501), ("ramp", 500, 126),
                                                               ("burst", 1_000, 501)])
def test_shapes(shape: Shape, messages: int, due_at_half: int) -> None:
    schedule = Schedule(100, 10, shape)
    assert schedule.messages == messages
    assert schedule.due(5) == due_at_half
    assert schedule.due(100) == messages


def test_a_burst_comes_at_the_beginning_of_its_second() -> None:
    schedule = Schedule(100, 3, "burst")
    assert schedule.due(0.11) == schedule.due(0.99) == 100
    assert schedule.due(1.0) == 101


CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("size", [0, 140, 300])
def test_messages_have_the_size_and_time_that_were_asked_for(size: int) -> None:
    telemetry = Telemetry(series=7, fields=5, size=size)
    seen = set()
    for number in range(20):
        payload = telemetry.message(number, 1_700_000_000_000_000 + number)
        message: dict[str, Any] = json.loads(payload)
        assert len(payload) == size or not size
        assert message["ts"] == 1_700_000_000_000_000 + number
        assert len([name for name in message if name.startswith("f")]) == 5
        seen.add(message["device"])
    assert len(seen) == 7


@pytest.mark.parametrize(("form", "expected"), [
    ("epoch_ns", 1_700_000_000_123_456_000), ("epoch_us", 1_700_000_000_123_456), ("epoch_ms", 1_700_000_000_123),
    ("epoch_s", 1_700_000_000), ("rfc3339", "2023-11-14T22:13:20.123456+00:00"),
    ("iso8601", "2023-11-14T22:13:20.123456+00:00"), ("%d/%m/%Y %H:%M:%S", "14/11/2023 22:13:20")])
def test_the_time_is_where_and_as_the_mapping_reads_it(form: str, expected: object) -> None:
    time = time_form(MappingConfig(timestamp_from="field", timestamp_field="at", timestamp_format=form))
    message = json.loads(Telemetry(1, 1, 0, time).message(0, 1_700_000_000_123_456))
    assert message["at"] == expected and "ts" not in message


def test_a_time_without_an_offset_is_that_of_the_zone() -> None:
    time = TimeForm("at", "%d/%m/%Y %H:%M:%S", "America/Los_Angeles")
    assert json.loads(Telemetry(1, 1, 0, time).message(0, 1_700_000_000_123_456))["at"] == "14/11/2023 14:13:20"


def test_where_the_mapping_reads_no_time_it_is_in_ts() -> None:
    assert time_form(MappingConfig()) == TimeForm("ts", "epoch_us")


def check_readable(config: Config, size: int = 0) -> None:
    """Every message for the first topic becomes points, at the time that it was made for; as many series as asked."""
    sink = config.all_sinks()[0]
    form = time_form(sink.mapping)
    telemetry = Telemetry(7, 3, size, form, sink.mapping)
    times = [1_700_000_000_000_000 + number * 1_000_000 for number in range(14)]
    payloads = [telemetry.message(number, time) for number, time in enumerate(times)]
    if size and sink.mapping.compression in ("none", "auto"):
        assert {len(payload) for payload in payloads} == {size}
    found = local_encoder(config, 0).encode(payloads, BatchOrigin(0, 0, timestamps=times, arrival=times[0]))
    assert [reject.detail for reject in found.rejects] == [] and found.dropped == 0
    lines = [line for group in found.groups for line in group.body.decode().splitlines()]
    assert len(lines) == 14
    if sink.mapping.timestamp_from == "field" or sink.mapping.format == "line_protocol":
        unit = UNIT_NS[sink.influxdb.precision]
        assert sorted(int(line.rpartition(" ")[2]) for line in lines) == [time * 1_000 // unit for time in times]
    if len(sink.mapping.tag_fields) > 0:
        assert len({line.split(" ")[0] for line in lines}) == 7


EXAMPLES = [path for path in sorted(CONFIGS.glob("**/*.toml")) if path.stem != "broken-on-purpose"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_mapping_reads_what_is_sent_for_it(path: Path) -> None:
    unused = ("network", "http", "otlp", "dead_letters", "sources", "pipeline", "iggy")
    config = load_config(str(path), {"INFLUX_TOKEN": "t"}, unused=unused)
    if not config.all_sinks():
        return
    mapping = config.all_sinks()[0].mapping
    if mapping.has_steps() or mapping.schema_header != "none" or mapping.csv_skip_lines \
            or mapping.format not in MADE_FORMATS:
        with pytest.raises(ValueError, match="cannot be made; give"):
            check_readable(config)
    else:
        check_readable(config)


@pytest.mark.parametrize("lines", [
    'tag_fields = ["location.city", "meta.device.id"]\ntimestamp_from = "field"\ntimestamp_field = "meta.at"',
    'timestamp_from = "field"\ntimestamp_field = "a.b"\ntimestamp_format = "rfc3339"\nformat = "msgpack"',
    'format = "csv"\ntag_fields = ["site"]\ntimestamp_from = "field"\ntimestamp_field = "at"',
    'format = "csv"\ncsv_header = ["id", "x", "at", "y"]\ncsv_delimiter = "\\t"\ntag_fields = ["id"]\n'
    'timestamp_from = "field"\ntimestamp_field = "at"\ntypes = { y = "integer" }',
    'format = "line_protocol"\nline_protocol_precision = "ms"', 'format = "text"',
    'format = "ndjson"\ncompression = "zstd"',
    'format = "msgpack"\ncompression = "gzip"', 'compression = "lz4"', 'compression = "snappy"', 'compression = "auto"',
    'tag_fields = ["id"]\nfield_strategy = "explicit"\nfield_names = ["a.n", "s", "b", "u"]\n'
    'types = { "a.n" = "integer", s = "string", b = "boolean", u = "unsigned" }',
    'tag_map_field = "labels"', 'measurement_from = "template"\nmeasurement_template = "{kind}-{labels.site}"',
    'measurement_from = "field"\nmeasurement_field = "meta.name"\nexplode = "readings"',
    'tag_fields = ["tenant", "id"]\nbucket_template = "t-{tenant}"\nallowed_buckets = ["x", "t-acme"]',
    'tag_fields = ["50%", "id"]\ntimestamp_from = "field"\ntimestamp_field = "%"\n'
    'timestamp_format = "%d.%m.%Y %H:%M:%S"'])
@pytest.mark.parametrize("size", [0, 400])
def test_messages_are_such_as_the_mapping_reads(tmp_path: Path, lines: str, size: int) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text('[[topics]]\nstream = "s"\ntopic = "t"\n[influxdb]\nbucket = "b"\nprecision = "s"\n[mapping]\n'
                    + lines)
    config = load_config(str(path), {})
    if size and config.mapping.csv_header:
        with pytest.raises(ValueError, match="leave --size out"):
            check_readable(config, size)
    else:
        check_readable(config, size if "boolean" not in lines else 0)


def test_what_no_message_can_be_is_said() -> None:
    with pytest.raises(ValueError, match="names both a and a.b"):
        Telemetry(1, 1, 0, mapping=MappingConfig(tag_fields=("a", "a.b")))
    with pytest.raises(ValueError, match="container files"):
        Telemetry(1, 1, 0, mapping=MappingConfig(format="avro"))


def test_a_size_that_is_too_small_says_how_small_it_may_be() -> None:
    with pytest.raises(ValueError, match="5 fields make messages of at least 1"):
        Telemetry(series=7, fields=5, size=60)


def test_a_load_that_came_late_was_not_held() -> None:
    held = summary([Sent(500, 0.1, 9.9), Sent(500, 0.2, 10.0)], 10)
    late = summary([Sent(500, 0.1, 9.9), Sent(500, 1.5, 12.5)], 10)
    assert (held.held, held.rate, held.messages) == (True, 100, 1_000)
    assert (late.held, late.rate) == (False, 80)
    assert "THE RATE WAS NOT HELD: sends were up to 1.5 s late" in late.summary()
    assert "NOT HELD" not in held.summary()
