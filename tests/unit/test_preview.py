"""`pipeline preview` and `pipeline test`: what they show, and how they end."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.commands.config import load_config
from pipeline.commands.preview import report_on
from pipeline.commands.preview_samples import Sample

CONFIG = """
[[topics]]
stream = "telemetry"
topic = "sensors"
[mapping]
tag_fields = ["site"]
timestamp_from = "field"
timestamp_field = "ts"
{mapping}
[influxdb]
org = "o"
bucket = "b"
precision = "s"
{more}
"""
RULES = """
[[mapping.rules]]
when = "v > 100"
bucket = "alarms"
[[mapping.rules]]
when = "site == 'test'"
then = "drop"
"""
MESSAGES = """\
{"site":"a","v":1,"ts":1700000000000}
{"site":"a","v":2,"ts":1700000000500}
{"site":"b","v":200,"ts":1700000000000}

{"site":"test","v":1,"ts":1700000000000}
{"site":"c","ts":1700000000000}
"""


def run(folder: Path, *arguments: str, mapping: str = RULES, more: str = "", messages: str = MESSAGES) -> Result:
    """Runs a command on a configuration in `folder`, with the messages as its input."""
    config = folder / "pipeline.toml"
    config.write_text(CONFIG.format(mapping=mapping, more=more))
    command, *rest = arguments
    return CliRunner().invoke(main, [command, "-c", str(config), *rest], input=messages)


def test_a_preview_shows_lines_rejects_and_what_is_left_out(tmp_path: Path) -> None:
    result = run(tmp_path, "preview")
    assert result.exit_code == 0, result.output
    assert result.output == """\
# line 1
sensors,site=a v=2 1700000000
# line 2
# merged into the point of line 1
# line 3
# to bucket alarms:
sensors,site=b v=200 1700000000
# line 5
# left out
# line 6
# rejected: no_fields: no field has a value
# rule 1: v > 100: bucket alarms: 1 message (line 3)
# rule 2: site == 'test': left out: 1 message (line 5)
# the same point at precision s: line 1, line 2: sensors,site=a at 1700000000; of equal fields only the last stays
# 1 overwritten: InfluxDB keeps one point for each measurement, tag set and time, and the later value of each field; \
set [influxdb] precision = "ns" (now "s"), another timestamp_from (now "field"), or a tag that distinguishes them
# messages 5, lines 2, rejected 1, left out 1; nothing was written
"""


def test_a_preview_in_json_has_an_object_a_message_and_the_counts_last(tmp_path: Path) -> None:
    (tmp_path / "messages.ndjson").write_text(MESSAGES)
    result = run(tmp_path, "preview", "--json", "--input", str(tmp_path / "messages.ndjson"))
    *rows, counts = map(json.loads, result.output.splitlines())
    assert [row["message"].rpartition("messages.ndjson ")[2] for row in rows] == [
        "line 1", "line 2", "line 3", "line 5", "line 6"]
    assert rows[2]["lines"] == ["sensors,site=b v=200 1700000000"]
    assert rows[2]["buckets"] == ["alarms"]
    assert rows[4]["reject"] == "no_fields: no field has a value"
    assert {key: counts[key] for key in ("messages", "lines", "rejected", "dropped")} == {
        "messages": 5, "lines": 2, "rejected": 1, "dropped": 1}
    assert len(counts["collisions"]) == 1


def test_a_preview_prints_the_code_that_is_generated(tmp_path: Path) -> None:
    result = run(tmp_path, "preview", "--code", mapping="", messages=MESSAGES[:38])
    assert "# v: field v" in result.output
    assert "# ts: time" in result.output


def test_a_file_of_another_format_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("site,v,ts\na,1,1700000000000\nb,2,1700000000000\n")
    result = run(tmp_path, "preview", "--input", str(tmp_path / "a.csv"), mapping='format = "csv"')
    assert "sensors,site=a v=1 1700000000\nsensors,site=b v=2 1700000000\n# messages 1, lines 2" in result.output


def test_the_offset_as_a_tag_is_warned_of(tmp_path: Path) -> None:
    result = run(tmp_path, "preview", mapping='metadata_tags = ["offset"]')
    assert result.exit_code == 0
    assert "mapping.metadata_tags has offset" in result.stderr


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["preview"], 1, "there is no message to preview"),
    (["preview", "--input", "/no/such"], 1, "/no/such: cannot be read"),
    (["preview", "--topic", "x"], 1, "has no topic x; there are telemetry/sensors"),
    (["test"], 2, "tests: missing"),
])
def test_what_cannot_be_shown_is_said_in_one_line(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    result = run(tmp_path, *arguments, messages="")
    assert result.exit_code == code
    assert said in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize("source", ["iggy_timestamp", "origin_timestamp", "arrival"])
@pytest.mark.parametrize(("precision", "overwritten"), [("ns", 0), ("us", 2), ("ms", 2)])
def test_a_file_is_one_send_whose_messages_share_a_time(
        tmp_path: Path, source: str, precision: str, overwritten: int) -> None:
    config = tmp_path / "pipeline.toml"
    config.write_text(CONFIG.format(mapping="", more="").replace('"s"', f'"{precision}"').replace(
        'timestamp_from = "field"\ntimestamp_field = "ts"', f'timestamp_from = "{source}"'))
    sent = '{"site":"a","v":1}\n{"site":"a","v":2}\n{"site":"a","w":3}\n{"site":"a","v":4}\n{"site":"b","v":5}\n'
    for arguments in (["--json"], ["--json", "--input", "-"]):
        result = CliRunner().invoke(main, ["preview", "-c", str(config), *arguments], input=sent)
        *rows, counts = [json.loads(line) for line in result.stdout.splitlines()]
        assert counts["overwritten"] == overwritten
        assert counts["collisions"] == ([["line 1", "line 2", "line 4"]] if overwritten else [])
        assert len({line.rpartition(" ")[2] for row in rows for line in row["lines"]}) == (1 if overwritten else 5)
    warned = "which messages of one send share" in result.stderr
    assert warned == bool(overwritten)


def test_points_of_one_message_and_of_two_partitions_count_as_overwritten(tmp_path: Path) -> None:
    result = run(tmp_path, "preview", "--json", mapping='explode = "all"\non_missing_timestamp = "iggy_timestamp"',
                 messages='{"site":"a","all":[{"v":1},{"v":2}]}\n')
    counts = json.loads(result.stdout.splitlines()[-1])
    assert (counts["overwritten"], counts["collisions"]) == (1, [["line 1"]])
    config = load_config(str(tmp_path / "pipeline.toml"), {})
    report = report_on(config, 0, [Sample(f"partition {number}", b'{"v":1,"ts":5000}', number) for number in range(3)])
    assert report.overwritten == 2
    assert [collision.labels for collision in report.collisions] == [["partition 0", "partition 1", "partition 2"]]


LEFT_OUT = """
exclude_fields = ["debug", "meta.raw"]
on_bad_value = "drop_field"
types = { n = "integer" }
arrays = "drop"
explode = "all"
[[mapping.steps]]
do = "exclude"
path = "heap*"
[[mapping.steps]]
do = "drop"
when = "v == 99"
"""


def test_a_preview_says_which_keys_are_left_out_and_why_and_what_steps_did(tmp_path: Path) -> None:
    message = ('{"site":"","v":1,"ts":1700000000000,"debug":{"a":1},"meta":{"raw":1,"rssi":-70},"n":1.5,"none":null,'
               '"list":[1],"heap1":7,"all":[{"e":1,"f":null}]}')
    messages = f'{message}\n{{"v":99,"ts":1}}\n{message}\n'
    result = run(tmp_path, "preview", mapping=LEFT_OUT, messages=messages)
    assert [line for line in result.output.splitlines() if "key " in line or "step" in line] == [
        "# key site is left out: an empty tag: 2 messages (line 1, line 3)",
        "# key debug is left out: exclude_fields: 2 messages (line 1, line 3)",
        "# key meta.raw is left out: exclude_fields: 2 messages (line 1, line 3)",
        "# key n is left out: bad value (1.5): on_bad_value: 2 messages (line 1, line 3)",
        "# key none is left out: null: 2 messages (line 1, line 3)",
        '# key list is left out: arrays = "drop": 2 messages (line 1, line 3)',
        "# key f is left out: null: 2 messages (line 1, line 3)",
        "# key heap1 is left out: step 1 (exclude): 2 messages (line 1, line 3)",
        "# step 2: drop (v == 99): left out: 1 message (line 2)",
    ], result.output
    rows = [json.loads(line) for line in run(tmp_path, "preview", "--json", mapping=LEFT_OUT,
                                             messages=messages).stdout.splitlines()]
    assert rows[0]["left_out"]["n"] == "bad value (1.5): on_bad_value"
    assert "left_out" not in rows[1]
    assert rows[-1]["applied"] == [{"name": "step 2", "words": "drop (v == 99): left out", "labels": ["line 2"]}]
    explicit = 'field_strategy = "explicit"\nfield_names = ["v"]\nnested = "drop"'
    shown = run(tmp_path, "preview", mapping=explicit, messages='{"v":1,"w":2,"o":{"p":1},"ts":1}\n').output
    assert "# key w is left out: not in field_names: 1 message (line 1)" in shown
    assert '# key o is left out: nested = "drop": 1 message (line 1)' in shown


TESTS = """
[[tests]]
name = "a reading"
message = { site = "a", v = 1.5, ts = 1700000000000 }
lines = ["sensors,site=a v=1.5 1700000000"]
[[tests]]
name = "an alarm"
message = '{"v":101,"ts":1700000000000}'
lines = ["sensors v=101 1700000000"]
bucket = "alarms"
[[tests]]
name = "a test message"
message_base64 = "eyJzaXRlIjoidGVzdCIsInYiOjEsInRzIjoxfQ=="
dropped = true
[[tests]]
name = "no value"
message = '{"ts":1}'
reject = "no_fields"
"""


def test_cases_that_hold_are_reported_and_end_with_0(tmp_path: Path) -> None:
    result = run(tmp_path, "test", more=TESTS)
    assert result.exit_code == 0, result.output
    assert result.output == "ok    a reading\nok    an alarm\nok    a test message\nok    no value\n4 passed\n"


def test_a_case_that_fails_shows_what_was_expected_and_what_came(tmp_path: Path) -> None:
    result = run(tmp_path, "test", more=TESTS.replace("v=1.5 17", "v=2 17").replace("no_fields", "not_json"))
    assert result.exit_code == 1
    assert "FAILED a reading\n       expected: sensors,site=a v=2 1700000000\n            got: sensors,site=a v=1.5 " \
        "1700000000\n" in result.output
    assert "expected: [rejected] not_json\n            got: [rejected] no_fields: no field has a value" in result.output
    assert result.output.endswith("2 passed, 2 failed\n")


def test_cases_in_json_for_programs(tmp_path: Path) -> None:
    result = run(tmp_path, "test", "--json", more=TESTS)
    assert [json.loads(line)["ok"] for line in result.output.splitlines()] == [True] * 4


@pytest.mark.parametrize(("case", "said"), [
    ('name = "x"\nmessage = "{}"', "tests[0]: give what is expected"),
    ('name = "x"\nlines = ["a"]', "tests[0]: give message or message_base64"),
    ('name = "x"\nmessage_base64 = "?"\nlines = ["a"]', "tests[0]: message_base64 is not Base64"),
    ('name = "x"\nmessage = "{}"\nsink = "other"\ndropped = true', 'tests[0]: no sink "other"'),
    ('name = "x"\nmesage = "{}"', "tests[0].mesage: unknown key; did you mean message?"),
])
def test_a_mistake_in_a_case_ends_with_2(tmp_path: Path, case: str, said: str) -> None:
    result = run(tmp_path, "test", more=f"[[tests]]\n{case}\n")
    assert result.exit_code == 2
    assert said in result.output


HOSTILE = '{"site":"\\u001b[2J\\u202ex","v":"a\\nb\\u009b31m [red]","ts":1700000000000}\n\x1b]0;title\x07 not json\n'


@pytest.mark.parametrize("options", [(), ("--json",), ("--code",)])
def test_what_a_preview_shows_of_payloads_does_nothing_to_a_terminal(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = run(tmp_path, "preview", *options, mapping="", messages=HOSTILE)
    assert result.exit_code == 0, result.output
    assert all(line.isprintable() for line in result.output.split("\n"))
    if options == ("--json",):
        (line,) = json.loads(result.output.splitlines()[0])["lines"]
        assert line == 'sensors,site=\x1b[2J\u202ex v="a\nb\x9b31m [red]" 1700000000'


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_what_a_test_shows_of_payloads_does_nothing_to_a_terminal(tmp_path: Path, options: tuple[str, ...]) -> None:
    case = json.dumps(HOSTILE.split("\n")[0])
    more = f"[[tests]]\nname = \"n\\u001b[1m\"\nmessage = {case}\nlines = [\"x\"]\n"
    result = run(tmp_path, "test", *options, mapping="", more=more)
    assert result.exit_code == 1, result.output
    assert all(line.isprintable() for line in result.output.split("\n"))


def test_a_preview_warns_of_what_is_written_and_may_not_be_meant(tmp_path: Path) -> None:
    messages = '{"v":1,"v":2,"ts":1700000000000}\n{"v":3,"v":3,"ts":1700000001000}\n{"a_b":1,"a":{"b":2},"ts":1}\n'
    result = run(tmp_path, "preview", mapping="", messages=messages)
    assert ("# warning: line 1: duplicate_key: the key v is there twice in one object; the last one counts "
            "(2 messages)") in result.output
    assert "# rejected: name_clash: a_b and a.b both become the field a_b" in result.output
    result = run(tmp_path, "preview", "--json", mapping='on_name_clash = "keep_last"', messages=messages)
    warnings = json.loads(result.output.splitlines()[-1])["warnings"]
    assert [(warning["kind"], warning["count"], warning["place"]) for warning in warnings][:2] == [
        ("duplicate_key", 2, "line 1"), ("name_clash", 1, "line 3")]


def test_messages_of_a_file_get_the_headers_that_are_given(tmp_path: Path) -> None:
    mapping = 'header_tags = { kind = "kind" }\n[[mapping.steps]]\ndo = "split"\n' \
              "from = \"header('mqtt-topic')\"\nto = [\"site\", \"device\"]\n"
    result = run(tmp_path, "preview", "--header", "mqtt-topic=a/b=c", "--header", "kind=x", mapping=mapping,
                 messages='{"v":1,"ts":1700000000000}\n')
    assert ',kind=x,site=a v=1,device="b=c" ' in result.stdout, result.output
    assert "--header: kind is not NAME=VALUE" in run(tmp_path, "preview", "--header", "kind").output
