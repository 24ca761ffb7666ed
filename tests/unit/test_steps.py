"""Steps: mistakes found at the start, policies, limits, and what is said of messages."""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.commands.config import load_config
from pipeline.config.schema import MappingConfig
from pipeline.config.steps_schema import AnyStep
from pipeline.errors import ConfigError
from stages.mapping.batch import BatchOrigin, Encoded
from stages.mapping.encoder import Encoder
from stages.mapping.steps.check import step_problems

TEXT = """
[[topics]]
stream = "telemetry"
topic = "sensors"
[influxdb]
org = "o"
bucket = "b"
"""


def mapping(*steps: dict[str, Any], **options: Any) -> MappingConfig:
    """A mapping with steps, as a configuration has them."""
    return MappingConfig(steps=msgspec.convert(steps, tuple[AnyStep, ...], strict=True), merge_duplicates=False,
                         **options)


def encode(config: MappingConfig, *payloads: bytes) -> Encoded:
    """The payloads as one batch."""
    encoder = Encoder(config, "ns", "telemetry", "sensors")
    return encoder.encode(payloads, BatchOrigin(timestamps=[1_700_000_000_000_000] * len(payloads)))


def fields(encoded: Encoded) -> list[str]:
    """The field sets of the lines."""
    return [line.split(" ", 1)[1].rpartition(" ")[0] for line in encoded.body.decode().splitlines()]


@pytest.mark.parametrize(("step", "problem"), [
    ({"do": "split", "from": "a", "to": ["", "..."]}, "to: names no part"),
    ({"do": "split", "from": "a", "to": ["x", "x"]}, "to: has a path twice"),
    ({"do": "split", "from": "a", "to": ["...", "x", "..."]}, 'to: has "..." twice'),
    ({"do": "split", "from": "a.*", "to": ["x"]}, 'from: "a.*": wildcards are not allowed here'),
    ({"do": "split", "from": "topics()", "to": ["x"]}, 'from: "topics()" is not known; there are stream(), topic()'),
    ({"do": "split", "from": "a", "to": ["x.*"]}, 'to: "x.*": wildcards are not allowed here'),
    ({"do": "match", "from": "a", "pattern": "(x"}, "pattern: not a regular expression (RE2): missing )"),
    ({"do": "match", "from": "a", "pattern": "(?=x)"}, "pattern: not a regular expression (RE2): "),
    ({"do": "match", "from": "a", "pattern": "(x)"}, "pattern: has no named group"),
    ({"do": "parse", "path": "a", "as": []}, "as: is empty"),
    ({"do": "parse", "path": "a", "as": "json", "decimal": ","}, 'decimal: only with as = "number"'),
    ({"do": "parse", "path": "a", "as": ["number", "json"], "unit_to": "u"},
     'unit_to: only with as = "number" alone'),
    ({"do": "parse", "path": "a.*", "as": "number", "unit_to": "u"}, "unit_to: only with a path of one value"),
    ({"do": "parse", "path": ["a", "b"], "as": "json", "to": "c"}, "to: only with a path of one value"),
    ({"do": "unwrap", "path": "a..b"}, 'path: "a..b" has an empty part'),
    ({"do": "exclude", "path": "a.**"}, 'path: "a.**" ends with "**"'),
    ({"do": "exclude", "path": "**.**.a"}, 'path: "**.**.a" has "**" twice'),
    ({"do": "exclude", "path": "a**.b"}, 'path: "a**.b" has "**" beside other characters'),
    ({"do": "exclude", "path": "a\\"}, 'path: "a\\" ends with a backslash'),
    ({"do": "exclude", "path": "a", "when": "value( > 5"}, "when: column"),
    ({"do": "drop", "when": "a >"}, "when: column 4: the condition ends here"),
    ({"do": "explode", "path": "*.a"}, 'path: "*.a": wildcards are allowed in the last part only'),
    ({"do": "zip", "names": {"a": "b"}}, "names: needs two arrays or more"),
    ({"do": "rename", "names": {}}, "names: is empty"),
    ({"do": "rename", "names": {"a_*": "b"}}, 'names: "b" has 0 stars, and a_* has 1 wildcards; give as many'),
    ({"do": "scale", "path": "a"}, "factor: nothing is changed; give factor, offset or digits"),
    ({"do": "scale", "path": "a", "factor": float("nan")}, "factor: is not a finite number"),
    ({"do": "lookup", "path": "a", "values": {}}, "values: is empty"),
    ({"do": "lookup", "path": "a", "values": {"A": 1, "a": 2}, "ignore_case": True}, "values: has a key twice"),
    ({"do": "only_changed", "path": ["a"], "ignore": ["b"]}, "ignore: not with path"),
    ({"do": "set", "to": "a"}, "value: give either value or template"),
    ({"do": "set", "to": "a", "value": 1, "template": "{b}"}, "value: give either value or template"),
    ({"do": "set", "to": "a", "template": "{b"}, "template: expected '}' before end of string"),
    ({"do": "set", "to": "a", "template": "{b!r}"}, "template: give a path in each pair of braces"),
    ({"do": "replace", "path": "a", "pattern": "(x)", "with": "\\2"}, "with: there is no group 2 in the pattern"),
    ({"do": "replace", "path": "a", "pattern": "x", "with": "\\g<y>"}, "with: there is no group y in the pattern"),
    ({"do": "replace", "path": "a", "pattern": "x", "with": "\\"}, "with: has a backslash that begins no group"),
    ({"do": "unpack", "path": "a", "as": "hex", "format": "hh", "to": ["x", "y"]}, 'format: begins with ">"'),
    ({"do": "unpack", "path": "a", "as": "hex", "format": ">zz", "to": ["x", "y"]}, "format: is no format of Python's"),
    ({"do": "unpack", "path": "a", "as": "hex", "format": ">hh", "to": ["x"]}, "to: has 1 paths for the 2 values"),
    ({"do": "copy", "from": "a", "to": "b", "when": "a >"}, "when: column 4"),
])
def test_a_step_that_is_wrong_is_found_at_the_start(step: dict[str, Any], problem: str) -> None:
    (found,) = step_problems(mapping(step), "mapping")
    assert found.startswith(f"mapping.steps[0].{problem}")


@pytest.mark.parametrize(("step", "problem"), [
    ('do = "splitt"', 'steps[0].do: "splitt" is not allowed; did you mean split?'),
    ('path = "a"', "steps[0].do: missing; give one of split, match, parse,"),
    ('do = "scale"', "steps[0].path: missing; it is required"),
    ('do = "scale"\npath = "a"\nfactr = 2', "steps[0].factr: unknown key; did you mean factor?"),
    ('do = "scale"\npath = ["a", 5]\nfactor = 2', "steps[0].path[1]: 5 is not allowed"),
    ('do = "drop"\nwhen = "a"\non_error = "exclude"', 'steps[0].on_error: "exclude" is not allowed'),
])
def test_keys_of_steps_are_checked_by_their_verb(tmp_path: Path, step: str, problem: str) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(f"{TEXT}\n[[mapping.steps]]\n{step}\n")
    with pytest.raises(ConfigError) as raised:
        load_config(str(path), {})
    assert f"mapping.{problem}" in str(raised.value)


def test_variables_are_replaced_in_steps(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(f'{TEXT}\n[[mapping.steps]]\ndo = "set"\nto = "site"\nvalue = "${{SITE}}"\n'
                    '[[mapping.steps]]\ndo = "exclude"\npath = ["${SITE}"]\n')
    steps = load_config(str(path), {"SITE": "b7"}).mapping.steps
    assert [msgspec.to_builtins(step) for step in steps] == [
        {"do": "set", "when": "", "on_error": "reject", "to": "site", "value": "b7", "template": "",
         "if_missing": False, "on_missing": "skip"},
        {"do": "exclude", "on_error": "reject", "path": ("b7",), "when": ""}]


@pytest.mark.parametrize(("policy", "found", "rejected", "dropped"), [
    ("reject", ["v=1"], 1, 0), ("skip", ["v=1", 'v="x",w=2'], 0, 0), ("exclude", ["v=1", "w=2"], 0, 0),
    ("drop", ["v=1"], 0, 1)])
def test_a_value_that_cannot_be_changed_is_treated_as_configured(policy: str, found: list[str], rejected: int,
                                                                 dropped: int) -> None:
    config = mapping({"do": "parse", "path": "v", "as": "number", "on_error": policy}, type_guard=False)
    encoded = encode(config, b'{"v":"1"}', b'{"v":"x","w":2}')
    assert (fields(encoded), len(encoded.rejects), encoded.dropped) == (found, rejected, dropped)


@pytest.mark.parametrize(("policy", "found", "rejected", "dropped"), [
    ("reject", ["x=1"], 1, 0), ("skip", ["x=1", "w=2"], 0, 0), ("drop", ["x=1"], 0, 1)])
def test_a_value_that_is_missing_is_treated_as_configured(policy: str, found: list[str], rejected: int,
                                                          dropped: int) -> None:
    config = mapping({"do": "unwrap", "path": "a", "on_missing": policy})
    encoded = encode(config, b'{"a":{"x":1}}', b'{"w":2}')
    assert (fields(encoded), len(encoded.rejects), encoded.dropped) == (found, rejected, dropped)


def test_a_step_that_is_skipped_leaves_the_message_as_it_was() -> None:
    steps: list[dict[str, Any]] = [
        {"do": "rename", "names": {"a": "b", "c": "d.e"}, "on_error": "skip"},
        {"do": "unwrap", "path": "o", "keep": ["*"], "on_error": "skip"},
        {"do": "pivot", "path": "p", "name": "n", "value": "v", "on_error": "skip"}]
    message = b'{"a":1.50,"c":2,"d":3,"o":{"a":4},"p":[{"n":"x","v":1},{"n":"x","v":2}]}'
    assert fields(encode(mapping(*steps), message)) == [
        'a=1.50,c=2,d=3,o_a=4,p="[{\\"n\\":\\"x\\",\\"v\\":1},{\\"n\\":\\"x\\",\\"v\\":2}]"']


@pytest.mark.parametrize(("step", "message"), [
    ({"do": "copy", "from": "b", "to": "a"}, b'{"a":1,"b":2}'),
    ({"do": "move", "from": "b", "to": "a"}, b'{"a":1,"b":2}'),
    ({"do": "rename", "names": {"b": "a"}}, b'{"a":1,"b":2}'),
    ({"do": "explode", "path": "b"}, b'{"a":1,"b":[{"a":2}]}'),
    ({"do": "unwrap", "path": "b", "keep": ["a"]}, b'{"a":1,"b":{"a":2}}'),
    ({"do": "split", "from": "b", "to": ["a"]}, b'{"a":1,"b":"2"}'),
    ({"do": "match", "from": "b", "pattern": "(?P<a>.)"}, b'{"a":1,"b":"2"}'),
    ({"do": "zip", "names": {"b": "a", "c": "c"}}, b'{"a":1,"b":[2],"c":[3]}'),
    ({"do": "pivot", "path": "b", "name": "n", "value": "v"}, b'{"a":1,"b":{"n":"a","v":2}}'),
])
def test_no_step_replaces_another_value_without_a_word(step: dict[str, Any], message: bytes) -> None:
    encoded = encode(mapping(step), message)
    (reject,) = encoded.rejects
    assert reject.reason == "step_failed"
    assert "a has another value already; exclude or rename it in a step before this one" in reject.detail
    same = message.replace(b"2", b"1").replace(b'"1"', b'1' if b'"b":[' in message else b'"1"')
    if step["do"] not in ("split", "match"):
        assert encode(mapping(step), same).rejects == []


def test_elements_of_one_message_share_nothing() -> None:
    config = mapping({"do": "explode", "path": "e"}, {"do": "scale", "path": "o.v", "factor": 2})
    assert fields(encode(config, b'{"o":{"v":1},"e":[{"n":1},{"n":2}]}')) == ["o_v=2,n=1", "o_v=2,n=2"]


def test_a_message_whose_steps_make_too_much_of_it_is_rejected_alone() -> None:
    explode = {"do": "explode", "path": "e"}
    lookup = {"do": "lookup", "path": "e.*", "values": {"1": "x" * 900}, "on_missing": "skip"}
    many = b'{"x":"%b","e":[%b]}' % (b"y" * 500, b",".join([b"1"] * 200))
    for steps, limit, reason in (
            ([explode], {"max_points": 100}, "too_many_points"), ([explode], {"max_values": 300}, "too_many_values"),
            ([explode], {"max_expanded_bytes": 100_000}, "too_expanded"),
            ([lookup], {"max_expanded_bytes": 100_000}, "too_expanded")):
        encoded = encode(mapping(*steps, **limit), b'{"x":1,"e":[1]}', many)
        assert [(reject.at, reject.reason) for reject in encoded.rejects] == [(1, reason)]
        assert encoded.points == 1


def test_a_text_may_not_hold_more_than_a_message() -> None:
    config = mapping({"do": "parse", "path": "v", "as": ["json", "base64_json"]}, max_values=100, max_depth=10)
    deep, wide = b"[" * 50 + b"]" * 50, b"[" + b"1," * 500 + b"1]"
    for text, reason in ((deep, "too_deep"), (wide, "too_many_values")):
        for inner in (text.decode(), base64.b64encode(text).decode()):
            encoded = encode(config, b'{"v":"1"}', json.dumps({"v": inner}).encode())
            assert [(reject.at, reject.reason) for reject in encoded.rejects] == [(1, reason)]


def test_a_key_that_is_there_twice_is_said_also_with_steps() -> None:
    encoder = Encoder(mapping({"do": "exclude", "path": "x"}), "ns", "telemetry", "sensors")
    payloads = [b'{"v":1,"v":2}', b'{"a":"12:30","b":{"c":"\\"d\\":1"}}', b'{"o":[{"k":1,"k":2}]}', b'{"t":"1:2"}']
    encoder.encode(payloads, BatchOrigin(timestamps=[1_700_000_000_000_000] * 4))
    notices = [notice for notice in encoder.rules.notices.take() if notice.kind == "duplicate_key"]
    assert [(notice.count, notice.place, notice.detail) for notice in notices] == [
        (2, "partition 0 offset 0", "the key v is there twice in one object; the last one counts")]


@pytest.mark.parametrize(("payload", "reason"), [
    (b"", "not_json"), (b"{", "not_json"), (b"5", "not_object"), (b'"x"', "not_object"), (b'{"v":01}', "not_json"),
    (b'{"v":"\xff"}', "not_json"), (b"[1]", "not_object"), (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "too_deep")])
def test_what_is_no_object_is_rejected_as_without_steps(payload: bytes, reason: str) -> None:
    encoded = encode(mapping({"do": "exclude", "path": "x"}), b'{"v":1}', payload)
    assert [(reject.at, reject.reason) for reject in encoded.rejects] == [(1, reason)]
    assert encoded.points == 1


def test_marks_and_numbers_that_are_none_are_taken_as_without_steps() -> None:
    config = mapping({"do": "exclude", "path": "x"}, on_bad_value="string")
    payloads = [b'\xef\xbb\xbf{"v":1}', b'{"v":NaN,"w":-Infinity,"x":1}', b'{"v":-0,"w":1e2,"i":123456789012345678901}']
    assert fields(encode(config, *payloads)) == [
        "v=1", 'v="NaN",w="-Infinity"', "v=-0,w=1E+2,i=123456789012345678901"]


def test_steps_are_not_for_line_protocol() -> None:
    config = mapping({"do": "exclude", "path": "x"}, format="line_protocol")
    assert step_problems(config, "mapping") == [
        'mapping.steps, jq, transform: not with format = "line_protocol", whose lines pass through']


def test_each_record_of_a_payload_has_its_steps() -> None:
    config = mapping({"do": "scale", "path": "v", "factor": 10}, format="csv")
    encoded = encode(config, b"v,w\n1,2\nx,3\n4,5\n")
    assert fields(encoded) == ["v=10,w=2", "v=40,w=5"]
    assert encoded.rejects[0].detail == 'line 3: step 1 (scale): v: "x" is not a number'


@pytest.mark.parametrize(("text", "found"), [
    ("a=1 b=2", 'a="1",b="2"'),
    (" a=1\t\nb= ", 'a="1",b=""'), ('a="x y" b="\\"="', 'a="x y",b="\\"="'), ("a==1", 'a="=1"'),
    ('a="x', 'a="\\"x"')])
def test_pairs_are_read_with_and_without_quotes(text: str, found: str) -> None:
    encoded = encode(mapping({"do": "pairs", "path": "m"}), json.dumps({"m": text, "z": 1}).encode())
    assert fields(encoded) == [f"z=1,{found}"]


@pytest.mark.parametrize("text", ["a", "=1", "a=1 b"])
def test_what_is_no_pair_is_rejected(text: str) -> None:
    encoded = encode(mapping({"do": "pairs", "path": "m"}), json.dumps({"m": text}).encode())
    assert "is no name and value" in encoded.rejects[0].detail


def test_a_replacement_that_grows_too_much_is_rejected_alone() -> None:
    config = mapping({"do": "replace", "path": "t", "pattern": "a", "with": "x" * 500}, max_expanded_bytes=100_000)
    encoded = encode(config, b'{"t":"ab"}', b'{"t":"%b"}' % (b"a" * 1_000))
    assert [(reject.at, reject.reason) for reject in encoded.rejects] == [(1, "too_expanded")]
    assert encoded.points == 1


def test_objects_and_arrays_that_a_step_empties_are_gone() -> None:
    steps: list[dict[str, Any]] = [{"do": "explode", "path": "points"},
                                   {"do": "rename", "names": {"points.0": "ts", "points.1": "v", "o.p.q": "w"}}]
    message = b'{"points":[[1,1.5],[2,1.7]],"o":{"p":{"q":3}}}'
    assert fields(encode(mapping(*steps), message)) == ["ts=1,v=1.5,w=3", "ts=2,v=1.7,w=3"]


def test_values_with_their_units_become_values() -> None:
    steps: list[dict[str, Any]] = [{"do": "exclude", "path": "*.unit"}, {"do": "rename", "names": {"*.value": "*"}}]
    assert fields(encode(mapping(*steps), b'{"t":{"value":21.5,"unit":"C"},"h":{"value":40,"unit":"%"},"n":1}')) == [
        "n=1,t=21.5,h=40"]


def test_a_condition_of_a_step_knows_headers() -> None:
    config = mapping({"do": "scale", "path": "v", "factor": 10, "when": "header('kind') == 'x' and v < 5"})
    assert config.header_names() == ("kind",)
    encoder = Encoder(config, "ns", "telemetry", "sensors")
    encoded = encoder.encode([b'{"v":1}', b'{"v":1}', b'{"v":6}'], BatchOrigin(
        timestamps=[1_700_000_000_000_000] * 3, headers=[("x",), ("y",), ("x",)]))
    assert fields(encoded) == ["v=10", "v=1", "v=6"]


def test_an_array_without_elements_is_treated_as_a_message_without_fields() -> None:
    step = {"do": "explode", "path": "e"}
    (reject,) = encode(mapping(step), b'{"e":[]}').rejects
    assert (reject.reason, "its arrays are empty" in reject.detail) == ("no_fields", True)
    assert encode(mapping(step, on_no_fields="drop"), b'{"e":[]}').dropped == 1
