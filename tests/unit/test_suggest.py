"""`pipeline mapping suggest`: which keys become tags, fields and the time, and how it answers what it cannot read."""

import base64
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.config.presets import preset, preset_names
from stages.mapping.suggest.inputs import UnknownFormat, detect_files, detect_messages
from stages.mapping.suggest.suggest import About, Suggestion, as_toml, suggest


def suggestion(messages: Sequence[Any]) -> Suggestion:
    """The suggestion for JSON messages."""
    return suggest(detect_messages([msgspec.json.encode(message) for message in messages]), "telemetry", "sensors")


def options(messages: Sequence[Any]) -> dict[str, Any]:
    """The options that are proposed for JSON messages."""
    found = suggestion(messages)
    assert found.trial.problems == []
    return found.proposal.options


def said(messages: Sequence[Any]) -> str:
    """All reasons."""
    proposal = suggestion(messages).proposal
    return "\n".join([reason for reasons in proposal.reasons.values() for reason in reasons] + proposal.notes)


def test_texts_of_few_values_are_tags_and_the_rest_is_not_with_the_reason() -> None:
    messages = [{"host": f"h{n % 3}", "firmware": "1.2.3", "request_id": str(uuid.uuid4()), "order": f"o-{n}",
                 "note": "the pump was started again", "state": "ON" if n % 2 else "OFF", "flow": n / 7, "ok": True,
                 "ref": f"{n:032x}", "who": f"user{n}"} for n in range(60)]
    assert options(messages)["tag_fields"] == ["host", "firmware"]
    reasons = said(messages)
    for name, why in [("host", "3 values in 60 messages"), ("request_id", "identifies one message"),
                      ("order", "too many to be a tag"), ("note", "free text"), ("state", "a state, which changes"),
                      ("ref", "random identifier"), ("who", "too many to be a tag")]:
        assert any(line.startswith(f"{name}: ") and why in line for line in reasons.split("\n")), (name, reasons)


@pytest.mark.parametrize(("name", "values", "form"), [
    ("ts", [1_700_000_000, 1_700_000_060], "epoch_s"),
    ("ts", [1_700_000_000.5, 1_700_000_060.25], "epoch_s"),
    ("timestamp", [1_700_000_000_000, "1700000060000"], "epoch_ms"),
    ("t", [1_700_000_000_000_000], "epoch_us"),
    ("eventTime", [1_700_000_000_000_000_000], "epoch_ns"),
    ("at", ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20.123456789+01:00"], "iso8601"),
    ("whatever", ["2023-11-14 22:13:20", "2023-11-14 22:13:21"], "iso8601"),
    ("date", ["14.11.2023 22:13:20", "15.11.2023 22:13:20"], "%d.%m.%Y %H:%M:%S"),
    ("time", ["11/14/2023 10:13:20 PM"], "%m/%d/%Y %I:%M:%S %p"),
    ("time", ["14/Nov/2023:22:13:20 +0000"], "%d/%b/%Y:%H:%M:%S %z"),
    ("time", ["Tue, 14 Nov 2023 22:13:20 GMT"], "%a, %d %b %Y %H:%M:%S GMT"),
    ("time", ["20231114221320"], "%Y%m%d%H%M%S"),
])
def test_what_looks_like_a_time_is_the_time(name: str, values: list[Any], form: str) -> None:
    found = options([{name: value, "v": 1} for value in values])
    assert (found["timestamp_from"], found["timestamp_field"]) == ("field", name)
    assert found.get("timestamp_format", "epoch_ms") == form
    assert suggestion([{name: value, "v": 1} for value in values]).trial.rejected == {}


def test_times_of_several_kinds_in_two_keys_and_of_clocks_that_are_not_set() -> None:
    def of(*messages: dict[str, Any]) -> dict[str, Any]:
        found = suggestion([{**message, "v": 1} for message in messages])
        assert found.trial.rejected == {}
        return {name: value for name, value in found.proposal.options.items() if "timestamp" in name}

    now = 1_700_000_000
    assert of({"ts": now * 1000}, {"ts": "2023-11-14T22:13:20Z"}) == {
        "timestamp_from": "field", "timestamp_field": "ts", "timestamp_format": ["epoch_ms", "iso8601"]}
    assert of({"ts": now * 1000}, {"ts": now})["timestamp_format"] == "epoch_auto"
    assert of({"device": "a", "ts": now * 1000}, {"deviceId": "b", "timestamp": now * 1000}) == {
        "timestamp_from": "field", "timestamp_field": ["ts", "timestamp"]}
    assert of({"time": {"sec": now, "nanos": 5}, "ts": now}, {"time": {"sec": now, "nanos": 6}, "ts": now})[
        "timestamp_field"] == "ts"
    assert of({"tv_ts": now, "tv_usec": 5}) == {
        "timestamp_from": "field", "timestamp_field": "tv_ts", "timestamp_format": "epoch_s",
        "timestamp_rest_field": "tv_usec", "timestamp_rest_unit": "us"}
    assert of({"date": "2023-11-14", "time": "22:13:20"}) == {
        "timestamp_from": "field", "timestamp_field": "date", "timestamp_format": "iso8601",
        "timestamp_rest_field": "time"}
    assert of({"date": "14.11.2023", "time": "22:13:20"})["timestamp_format"] == "%d.%m.%Y %H:%M:%S"
    assert of({"ts": now}, {"ts": now + 1}, {"ts": 0}) == {
        "timestamp_from": "field", "timestamp_field": "ts", "timestamp_format": "epoch_s",
        "timestamp_not_before": "2001-01-01", "on_missing_timestamp": "iggy_timestamp"}


@pytest.mark.parametrize("message", [
    {"total": 1_700_000_000}, {"uptime": 1_700_000_000}, {"time": "12:01", "v": 1}, {"ts": 12_345, "v": 1},
    {"duration_ms": 1_700_000_000_000}, {"response_time": 1_700_000_000},
])
def test_what_only_looks_like_a_time_is_none(message: dict[str, Any]) -> None:
    found = options([message] * 3)
    assert "timestamp_from" not in found
    assert suggestion([message] * 3).trial.rejected == {}


def test_of_several_times_the_messages_own_is_taken_and_a_missing_one_has_a_stand_in() -> None:
    messages: list[dict[str, Any]] = [
        {"created_at": "2020-01-01T00:00:00Z", "timestamp": "2023-11-14T22:13:20Z", "v": n} for n in range(5)]
    found = options([*messages, {"created_at": "2020-01-01T00:00:00Z", "v": 7}])
    assert found["timestamp_field"] == "timestamp"
    assert found["on_missing_timestamp"] == "iggy_timestamp"
    assert "also times: created_at" in said(messages)


@pytest.mark.parametrize(("values", "declared", "more"), [
    ([1, 2.5], None, {}),
    (["21.5", "22"], "float", {}),
    ([1, "2.5"], "float", {}),
    ([1, 2, 3, 4, "n/a"], "float", {"on_bad_value": "drop_field"}),
    ([True, 1, 0], "boolean", {}),
    ([True, 5], "float", {}),
    ([True, "off"], "boolean", {}),
    ([1, "open"], "string", {}),
    ([2**60, 1], "integer", {}),
    ([2**63 + 1, 1], "unsigned", {}), ([-2**63, 2**63 - 1], "integer", {}),
    (["007", "042"], None, {}),
    ([1, [2]], "string", {}),
])
def test_a_key_of_mixed_values_gets_a_type(values: list[Any], declared: str | None, more: dict[str, str]) -> None:
    found = options([{"x": value, "n": 1} for value in values])
    assert found.get("types", {}).get("x") == declared
    assert {name: found.get(name) for name in more} == more
    assert suggestion([{"x": value, "n": 1} for value in values]).trial.rejected == {}


def test_each_element_of_an_array_of_objects_is_a_point_with_what_tells_it_apart() -> None:
    messages = [{"id": "gw", "ts": 1_700_000_000 + n, "values": [{"id": "a", "v": n}, {"id": "b", "v": n + 1}],
                 "pos": [1.5, 2.5]} for n in range(4)]
    found = suggestion(messages)
    assert found.proposal.options["explode"] == "values"
    assert found.proposal.options["tag_fields"] == ["id", "values.id"]
    assert found.proposal.options["arrays"] == "index"
    assert (found.trial.lines, found.trial.rejected, found.trial.overwritten) == (8, {}, 0)


@pytest.mark.parametrize(("message", "lines"), [
    ('{"dev":"aq7","measures":[{"type":"CO2","value":411},{"type":"O3","value":0.03}]}', ["dev=aq7 CO2=411,O3=0.03"]),
    ('{"device0":{"n":0,"serial":"A1"},"device1":{"n":4,"serial":"B2"}}',
     ["device=device0,serial=A1 n=0", "device=device1,serial=B2 n=4"]),
    ('{"emeters":[{"power":364.5},{"power":35.5}],"total":400}',
     ["index=0 total=400,power=364.5", "index=1 total=400,power=35.5"]),
    ('{"cp":"c","m":[{"s":[{"measurand":"Power","value":"7200"},{"measurand":"Soc","value":"55"}]}]}',
     ["cp=c,measurand=Power value=7200", "cp=c,measurand=Soc value=55"]),
    ('{"id":"s1","data":{"timestamps":[1700000000000,1700000000000],"values":[1.5,1.7],"sites":["a","b"]}}',
     ["id=s1,site=a value=1.5", "id=s1,site=b value=1.7"]),
    (r'{"device":"d1","body":"{\"temp\": 20.5, \"hum\": 40}"}', ["device=d1 temp=20.5,hum=40"]),
    (json.dumps({"device": "d1", "body": json.dumps({"note": "x" * 500, "v": 1})}),
     [f'device=d1 note="{"x" * 500}",v=1']),
    ('{"device":"d1","body":"eyJ0ZW1wIjoyMC41LCJodW0iOjQwfQ=="}', ["device=d1 temp=20.5,hum=40"]),
    ('{"v":"21.5 °C","w":7}', ["v=21.5,w=7"]), ('{"v":"1.234,5"}', ["v=1234.5"]),
    ('{"metrics":[{"name":"cpu","tags":{"host":"h"},"fields":{"n":4},"timestamp":1700000000}]}', ["host=h n=4"]),
    ('{"specversion":"1.0","id":"8","source":"/p","time":"2023-11-14T22:13:20Z","data":{"temp":20.5}}',
     ["source=/p temp=20.5"]),
    ('[{"bn":"d1","bt":1700000000,"n":"temp","v":21.5},{"n":"hum","v":45.3}]', ["dev=d1 temp=21.5,hum=45.3"]),
    ('{"measurement":"w","b":[{"time":1700000000,"tags":{"a":"x"},"fields":{"f":1}}]}', ["a=x f=1"]),
    ('{"name":"up","tags":{"job":"p"},"timestamp":"2023-11-14T22:13:20Z","kind":"absolute","gauge":{"value":1.0}}',
     ["job=p value=1.0"]),
    ('{"before":null,"after":{"level":3.5},"op":"c","ts_ms":1700000000000}', ['op="c",level=3.5']),
    ('{"device":"a","data":{"1700000000":{"t":1},"1700000060":{"t":2}}}', ["device=a t=1", "device=a t=2"]),
    ('{"app_id":"a","fields":[{"sensorType":"temp","value":21.3},{"sensorType":"vdd","value":3}]}',
     ["app_id=a temp=21.3,vdd=3"]),
])
def test_shapes_that_need_steps_get_them(message: str, lines: list[str]) -> None:
    found = suggest(detect_messages([message.encode()]), "telemetry", "sensors")
    assert found.trial.problems == [] and found.trial.rejected == {}
    assert found.trial.example is not None
    written = [line.rpartition(" ")[0] for line in found.trial.example.lines]
    assert [line.partition("," if "," in line.partition(" ")[0] else " ")[2] for line in written] == lines


def test_labels_are_tags_a_measurement_is_one_and_keys_that_are_data_are_kept_together() -> None:
    found = options([{"metric": name, "labels": {"host": "a", "core": 1}, "value": 1.5} for name in ("cpu", "mem")])
    assert (found["measurement_from"], found["measurement_field"]) == ("field", "metric")
    assert found["tag_map_field"] == "labels"
    found = options([{"all": {f"user{n}-{m}": 1 for m in range(100)}, "v": 1} for n in range(5)])
    assert found["types"] == {"all": "json"}


def test_names_that_clash_messages_without_values_and_names_no_line_holds_reject_nothing() -> None:
    messages = [{"a_b": 1, "a": {"b": 2}}, {"v": None}, {"time": "noon", "x\ny": 1, "w": 1}]
    found = suggestion(messages)
    assert found.trial.rejected == {}
    assert found.proposal.options["flatten_separator"] == "."
    assert found.proposal.options["on_no_fields"] == "drop"
    assert found.proposal.options["exclude_fields"] == ["x\ny"]
    assert found.proposal.options["field_renames"] == {"time": "time_value"}


def test_headers_of_few_values_are_tags_too() -> None:
    detected = detect_messages([json.dumps({"v": n}).encode() for n in range(10)])
    headers = [{"x-region": "eu", "trace-id": f"{n:032x}"} for n in range(10)]
    found = suggest(detected._replace(headers=headers), "s", "t")
    assert found.proposal.options["header_tags"] == {"x-region": "x-region"}
    assert (found.trial.lines, found.trial.problems) == (10, [])


@pytest.mark.parametrize("name", preset_names())
def test_messages_of_a_known_format_get_its_preset(name: str) -> None:
    case = preset(name)["tests"][0]
    payload = base64.b64decode(case["message_base64"]) if "message_base64" in case else case["message"].encode()
    headers = case.get("headers", {})
    found = suggest(detect_messages([payload], [headers]), "s", "t")
    assert found.trial.lines > 0 and found.trial.problems == []
    assert found.proposal.preset == name


def test_the_parts_of_a_header_that_vary_are_tags(tmp_path: Path) -> None:
    headers = [{"mqtt-topic": f"plant1/l{n % 2}/d{n % 5}/climate"} for n in range(20)]
    detected = detect_messages([b'{"v":1}'] * 20)._replace(headers=headers)
    found = suggest(detected, "s", "t")
    assert found.proposal.options["tag_fields"] == ["part2", "part3"]
    assert (found.trial.rejected, found.trial.problems) == ({}, [])
    (tmp_path / "suggested.toml").write_text(as_toml(found, About("s/t", "s", "t", "pipeline preview")))
    tested = CliRunner().invoke(main, ["test", "-c", str(tmp_path / "suggested.toml")])
    assert tested.output.endswith("1 passed\n"), tested.output


@pytest.mark.parametrize(("content", "expected", "each"), [
    (b'{"v":1}\n{"v":2}\n', {}, "line"),
    (b'\xef\xbb\xbf{"v":1}\r\noops\r\n{"v":2}', {}, "line"),
    (b'{\n  "v": 1\n}\n', {}, "file"),
    (b'[{"v":1},{"v":2}]', {}, "line"),
    (b'[\n{"v":1},\n{"v":2}\n]', {}, "file"),
    (b"cpu,host=a v=1 1700000000\ncpu,host=b v=2 1700000001\n",
     {"format": "line_protocol", "line_protocol_precision": "s"}, "line"),
    (b"time;site;v\n2023-11-14 22:13:20; a;1.5\n2023-11-14 22:13:21;b;2\n",
     {"format": "csv", "csv_delimiter": ";", "csv_trim": True}, "file"),
    (b"# logger 7\n# exported\na;b;c\n1;2,5;NAN\n2;-3,5;NAN\n",
     {"format": "csv", "csv_delimiter": ";", "csv_comment": "#", "csv_decimal": ",", "csv_none": ["NAN"]}, "file"),
    (b"TOA5;CR1000\nname;v;w\na;1;2\nb;3;4\n", {"format": "csv", "csv_delimiter": ";", "csv_skip_lines": 1}, "file"),
    (b"1,2.5\n3,4.5\n", {"format": "csv", "csv_header": ["column1", "column2"]}, "file"),
    (b"the pump, again\nthe fan, too\n", {"format": "text"}, "line"),
    (b"\x82\xa1v\x01\xa1w\xa1x", {"format": "msgpack"}, "file"),
])
def test_the_format_is_found_out(content: bytes, expected: dict[str, Any], each: str) -> None:
    detected = detect_files([content])
    assert (detected.options, detected.each) == (expected, each)
    assert suggest(detected, "telemetry", "sensors").trial.lines > 0


@pytest.mark.parametrize(("content", "why"), [
    (b"\x08\x96\x01\x12\x03abc", "are binary"), (b"\xff\xfe{\x00", "UTF-16"), (b"\0\0\0\0\x01\x02\x08x", "Confluent"),
    (b"  \n ", "nothing but empty"), (b"\x1f\x8bxx", "cannot be decompressed"),
])
def test_what_is_not_recognised_is_named(content: bytes, why: str) -> None:
    with pytest.raises(UnknownFormat, match=why):
        detect_files([content])


def test_hostile_documents_are_bounded() -> None:
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    wide = json.dumps({f"k{n}": n for n in range(9_000)}).encode()
    found = suggest(detect_messages([b'{"v":1}', deep, wide, b"[" * 50_000, b'{"v":2}', b'{"v":3}', b'{"v":4}']), "s",
                    "t")
    assert found.trial.lines == 5
    assert set(found.trial.rejected) <= {"too_deep", "not_json"}
    assert found.more_paths > 0


def run(*arguments: str, text: str | bytes = b"") -> Result:
    """Runs the command."""
    return CliRunner().invoke(main, ["mapping", "suggest", *arguments], input=text)


def test_the_command_prints_a_configuration_that_preview_and_test_accept(tmp_path: Path) -> None:
    messages, config = tmp_path / "messages.ndjson", tmp_path / "suggested.toml"
    rows = [{"ts": 1_700_000_000_000 + n, "site": "a\\b", "say": '"\'\u202e', "v": n} for n in range(10)]
    messages.write_text("".join([json.dumps(row) + "\n" for row in rows]) + "online\n")
    result = run("--input", str(messages), "--topic", "plant/line1")
    assert result.exit_code == 0, result.output
    assert all(line.isprintable() for line in result.output.split("\n"))
    assert "1 by not_json" in result.output
    config.write_text(result.output)
    shown = CliRunner().invoke(main, ["preview", "-c", str(config), "--input", str(messages)])
    assert "# messages 11, lines 10, rejected 1, left out 0" in shown.output
    tested = CliRunner().invoke(main, ["test", "-c", str(config)])
    assert tested.output.endswith("1 passed\n"), tested.output
    row = json.loads(run("--json", text=messages.read_bytes()).output)
    assert (row["lines"], row["rejected"]["not_json"]["count"]) == (10, 1)
    assert row["mapping"]["timestamp_field"] == "ts"


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["--from-iggy"], 2, "give the configuration"), (["-c", "x"], 2, "only with --from-iggy"),
    (["--count", "5"], 2, "only with --from-iggy"), (["--input", "/no/such"], 1, "/no/such: cannot be read"),
    ([], 1, "there is no message"), (["--from-iggy", "-c", "x", "--input", "y"], 2, "exclude each other"),
])
def test_a_mistake_is_answered_with_what_to_do(arguments: list[str], code: int, words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert words in result.output
