"""Fields that a source converts, and points that go through its steps."""

import json
from typing import Any

import msgspec
import pytest

from pipeline.config.source_schema import SourceConfig
from pipeline.points.field_type import FieldType
from pipeline.points.table import Column, Table, Value
from stages.convert.encoders import SourceEncoder
from stages.convert.payloads import Dedupe, PageMessages
from stages.convert.types import converted
from stages.mapping.records.values import BadValue

COLUMNS = (Column("site", "tag", "string"), Column("f", "field", "float"), Column("i", "field", "integer"),
           Column("s", "field", "string"), Column("u", "field", "unsigned"))
ROW = ("x", 20.0, 3, "21.5 C", 2**64 - 1)


def encoded(rows: list[tuple[Value, ...]], output: str = "json", columns: tuple[Column, ...] = COLUMNS,
            dedupe: Dedupe | None = None, **options: Any) -> PageMessages:
    """The messages of some rows, which have the times 7, 8, ..."""
    shape = options.pop("shape", "wide")
    config = msgspec.convert({"name": "n", "output": {"stream": "s", "format": output, "shape": shape}, **options},
                             SourceConfig)
    out = PageMessages()
    table = Table("m", columns, [(7 + number, *row) for number, row in enumerate(rows)])
    SourceEncoder(config).encode("m", table, dedupe, out)
    return out


@pytest.mark.parametrize(("value", "kind", "expected"), [
    (3, "float", 3.0), ("21.5", "float", 21.5), (True, "float", 1.0), (21.0, "integer", 21), (" +7 ", "integer", 7),
    (True, "integer", 1), (2**64 - 1, "unsigned", 2**64 - 1), ("on", "boolean", True), (0, "boolean", False),
    (20.0, "string", "20.0"), (False, "string", "false"), ('q"\n', "string", 'q"\n')])
def test_a_value_is_converted_without_loss(value: Any, kind: FieldType, expected: Value) -> None:
    found = converted(value, kind)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(("value", "kind"), [
    (21.5, "integer"), (2**53 + 1, "float"), (-1, "unsigned"), (2**63, "integer"), ("21.5 C", "float"),
    ("maybe", "boolean")])
def test_a_value_that_does_not_fit_is_refused(value: Any, kind: FieldType) -> None:
    with pytest.raises(BadValue):
        converted(value, kind)


def test_fields_are_converted_by_name_and_pattern_and_bad_rows_cost_only_themselves() -> None:
    columns = (Column("f", "field", "integer"), Column("f", "field", "string"), Column("g", "field", "float"))
    out = encoded([(1, None, 2.5), (None, "2", None), (None, "two", 1.0), (None, None, 4.0)], columns=columns,
                  types={"f": "float", "*": "string"})
    assert [json.loads(payload)["fields"] for payload in out.payloads] == [
        {"f": 1.0, "g": "2.5"}, {"f": 2.0}, {"g": "4.0"}]
    assert [row.detail for row in out.bad] == ["f: two as float: not a number"]


STEPS: list[dict[str, Any]] = [
    {"do": "rename", "names": {"fields.*": "fields.my_*", "tags.site": "tags.place"}},
    {"do": "scale", "path": "fields.my_f", "factor": 0.5},
    {"do": "parse", "path": "fields.my_s", "as": "number", "unit_to": "tags.unit"},
    {"do": "set", "to": "measurement", "template": "new_{measurement}"}]


def test_a_point_goes_through_steps_and_keeps_the_types_of_its_fields() -> None:
    out = encoded([ROW], steps=STEPS)
    assert out.payloads == [b'{"measurement":"new_m","tags":{"place":"x","unit":"C"},"fields":{"my_f":10.0,"my_i":3,'
                            b'"my_s":21.5,"my_u":18446744073709551615},"time":7}']
    line = encoded([ROW], "line_protocol", steps=STEPS, types={"my_u": "unsigned"})
    assert line.payloads == [b"new_m,place=x,unit=C my_f=10.0,my_i=3i,my_s=21.5,my_u=18446744073709551615u 7"]
    assert "give its type in `types`" in encoded([ROW], "line_protocol", steps=STEPS).bad[0].detail
    assert msgspec.msgpack.decode(encoded([ROW], "msgpack", steps=STEPS).payloads[0])["fields"]["my_f"] == 10.0


def test_tags_are_texts_after_the_steps_and_numbers_of_jq_are_as_it_writes_them() -> None:
    tags = encoded([ROW], steps=[{"do": "lookup", "path": "tags.site", "values": {"x": 1}}])
    assert json.loads(tags.payloads[0])["tags"] == {"site": "1"}
    program = {"do": "jq", "program": ".fields = {i, x: (.fields.f * 2)} | .fields.i = 3"}
    assert encoded([ROW], "line_protocol", steps=[program]).payloads == [b"m,site=x i=3i,x=40i 7"]
    typed = encoded([ROW], "line_protocol", steps=[program], types={"x": "float"})
    assert typed.payloads == [b"m,site=x i=3i,x=40.0 7"]


def test_steps_leave_points_out_make_several_and_reject_some() -> None:
    drop = encoded([ROW, ("y", *ROW[1:])], steps=[{"do": "drop", "when": "tags.site == 'x'"}])
    assert [json.loads(payload)["tags"] for payload in drop.payloads] == [{"site": "y"}] and drop.points == 1
    several = encoded([ROW], steps=[{"do": "explode", "path": "fields", "key": "name", "to": "value"}])
    assert [json.loads(payload)["name"] for payload in several.payloads] == ["f", "i", "s", "u"]
    failed = encoded([ROW, ("x", 1.0, 1, "5", 1)], steps=[{"do": "parse", "path": "fields.s", "as": "number"},
                                                          {"do": "scale", "path": "fields.s", "factor": 2}],
                     columns=COLUMNS)
    assert len(failed.payloads) == 2 and not failed.bad
    bad = encoded([("x", 1.0, 1, "no number", 1), ROW], steps=[{"do": "scale", "path": "fields.s", "factor": 2}])
    assert len(bad.payloads) == 1 and bad.bad[0].reason == "step_failed" and "step 1 (scale)" in bad.bad[0].detail


def test_a_long_message_has_one_field_and_what_was_sent_is_not_sent_again() -> None:
    steps: list[dict[str, Any]] = [{"do": "exclude", "path": "fields.s"}]
    out = encoded([ROW], steps=steps, shape="long", dedupe=Dedupe(0, {}, 0))
    assert [sorted(json.loads(payload)["fields"]) for payload in out.payloads] == [["f"], ["i"], ["u"]]
    known = {one.point: one.content for one in out.fingerprints}
    again = encoded([ROW], steps=steps, shape="long", dedupe=Dedupe(100, known, 0))
    assert not again.payloads and again.repeated == 1
    assert len(set(out.series)) == 1


@pytest.mark.parametrize("steps", [[], [{"do": "exclude", "path": "fields.none"}]])
@pytest.mark.parametrize("format_", ["json", "msgpack", "line_protocol"])
def test_constant_tags_are_those_of_points_without_such_a_tag(format_: str, steps: list[dict[str, Any]]) -> None:
    config = msgspec.convert({"name": "n", "steps": steps, "output": {
        "stream": "s", "format": format_, "constant_tags": {"site": "{source}", "a": "{measurement}"}}}, SourceConfig)
    out = PageMessages()
    SourceEncoder(config).encode("m", Table("m", COLUMNS[:2], [(1, "x", 2.0), (2, None, 2.0)]), None, out)
    if format_ == "line_protocol":
        assert out.payloads == [b"m,a=m,site=x f=2.0 1", b"m,a=m,site=n f=2.0 2"]
    else:
        decode = msgspec.json.decode if format_ == "json" else msgspec.msgpack.decode
        assert [decode(payload)["tags"] for payload in out.payloads] == [
            {"a": "m", "site": "x"}, {"a": "m", "site": "n"}]
