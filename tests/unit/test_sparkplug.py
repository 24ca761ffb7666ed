"""Sparkplug B: values of every type, aliases by births, and what is left out."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import MappingConfig
from stages.mapping.check import mapping_problems, mapping_warnings
from stages.mapping.encoder import BatchOrigin, Encoder
from stages.mapping.formats.sparkplug_births import Birth, Births, Sender
from stages.mapping.formats.sparkplug_payload import payload_class, shortest

PAYLOAD = payload_class()
TIME = 1_700_000_000_000
MAPPING: dict[str, Any] = {
    "format": "sparkplug", "tag_fields": ("_group", "_node", "_device"), "exclude_fields": ("_type",),
    "timestamp_from": "field", "timestamp_field": "_time", "on_missing_timestamp": "iggy_timestamp"}
NODE, DEVICE = "spBv1.0/G/{}/E", "spBv1.0/G/{}/E/D"


def payload(*metrics: dict[str, Any], time: int = TIME) -> bytes:
    """A payload; a metric is its Protobuf fields."""
    message = PAYLOAD(timestamp=time, seq=3)
    for metric in metrics:
        made = message.metrics.add()
        for name, value in metric.items():
            if callable(value):
                value(getattr(made, name))
            else:
                setattr(made, name, value)
    return bytes(message.SerializeToString())


def an_encoder(folder: str = "", **more: Any) -> Encoder:
    """An encoder of its own."""
    return Encoder(MappingConfig(**MAPPING, sparkplug_births=folder, **more), "ms", "s", "t")


def encoded(encoder: Encoder, *messages: tuple[str, bytes]) -> tuple[list[str], list[str], int]:
    """Lines, rejects as "reason: detail", and the number of messages left out; a message is its topic and payload."""
    found = encoder.encode([one for _, one in messages], BatchOrigin(
        timestamps=[TIME * 1_000] * len(messages), arrival=TIME * 1_000, headers=[(topic,) for topic, _ in messages]))
    return (found.body.decode().splitlines(), [f"{one.reason}: {one.detail}" for one in found.rejects], found.dropped)


def fields(encoder: Encoder, *metrics: dict[str, Any]) -> str:
    """The fields of one payload of a device."""
    lines, rejects, _ = encoded(encoder, (DEVICE.format("DDATA"), payload(*metrics)))
    assert rejects == []
    (line,) = lines
    head = "t,_device=D,_group=G,_node=E "
    assert line.startswith(head) and line.endswith(f" {TIME}")
    return line[len(head):-len(f" {TIME}")]


def a_dataset(dataset: Any) -> None:
    dataset.columns.extend(["a", "b"])
    dataset.types.extend([1, 12])
    row = dataset.rows.add()
    row.elements.add().int_value = 255
    row.elements.add().string_value = "x"


def a_template(template: Any) -> None:
    template.template_ref = "motor"
    template.metrics.add(name="rpm", datatype=2).int_value = 0xFFFF
    template.metrics.add(name="on", datatype=11).boolean_value = True


@pytest.mark.parametrize(("metric", "expected"), [
    ({"datatype": 1, "int_value": 0xFFFFFFFB}, "-5"), ({"datatype": 1, "int_value": 0xFB}, "-5"),
    ({"datatype": 2, "int_value": 0xFFFB}, "-5"), ({"datatype": 3, "int_value": 0xFFFFFFFB}, "-5"),
    ({"datatype": 4, "long_value": 2**64 - 5}, "-5"), ({"datatype": 5, "int_value": 200}, "200"),
    ({"datatype": 7, "int_value": 0xFFFFFFFB}, "4294967291"),
    ({"datatype": 8, "long_value": 2**64 - 1}, str(2**64 - 1)),
    ({"datatype": 7, "long_value": 7}, "7"), ({"datatype": 9, "float_value": 20.1}, "20.1"),
    ({"datatype": 10, "double_value": 0.1}, "0.1"), ({"datatype": 11, "boolean_value": False}, "false"),
    ({"datatype": 11, "int_value": 1}, "true"), ({"datatype": 12, "string_value": "hi"}, '"hi"'),
    ({"datatype": 13, "long_value": TIME}, str(TIME)), ({"datatype": 17, "bytes_value": b"hi"}, '"aGk="'),
    ({"int_value": 5}, "5"), ({"datatype": 23, "bytes_value": b"\xff\xff\x01\x00"}, '"[-1,1]"'),
    ({"datatype": 30, "bytes_value": b"\xcd\xcc\xa0\x41"}, '"[20.1]"'),
    ({"datatype": 32, "bytes_value": b"\x03\x00\x00\x00\xa0"}, '"[true,false,true]"'),
    ({"datatype": 33, "bytes_value": b"a\0bc\0"}, '"[\\"a\\",\\"bc\\"]"'),
    ({"datatype": 16, "dataset_value": a_dataset}, '"[{\\"a\\":-1,\\"b\\":\\"x\\"}]"'),
])
def test_a_value_of_each_type(metric: dict[str, Any], expected: str) -> None:
    assert fields(an_encoder(), {"name": "m", **metric}) == f"m={expected}"


def test_members_of_a_template_are_fields() -> None:
    metrics: list[dict[str, Any]] = [{"name": "M/1", "datatype": 19, "template_value": a_template}]
    assert fields(an_encoder(), *metrics) == "M/1_rpm=-1,M/1_on=true"


def test_what_is_left_out() -> None:
    encoder = an_encoder()
    metrics = ({"name": "bdSeq", "datatype": 8, "long_value": 1},
               {"name": "Node Control/Rebirth", "boolean_value": False}, {"name": "none", "datatype": 3},
               {"name": "null", "datatype": 3, "is_null": True})
    for topic in (NODE.format("NDATA"), NODE.format("NBIRTH"), DEVICE.format("DDATA")):
        assert encoded(encoder, (topic, payload(*metrics))) == ([], [], 1)
    some = payload({"name": "v", "datatype": 3, "int_value": 1})
    for topic in (NODE.format("NDEATH"), DEVICE.format("DDEATH"), NODE.format("NCMD"), DEVICE.format("DCMD"),
                  "spBv1.0/STATE/host"):
        assert encoded(encoder, (topic, some)) == ([], [], 1)


def test_metrics_with_times_of_their_own_are_points_of_their_own() -> None:
    lines, rejects, _ = encoded(an_encoder(), (NODE.format("NDATA"), payload(
        {"name": "a", "datatype": 3, "int_value": 1},
        {"name": "b", "datatype": 3, "int_value": 2, "timestamp": TIME - 5},
        {"name": "c", "datatype": 3, "int_value": 3})))
    assert (lines, rejects) == ([f"t,_group=G,_node=E a=1,c=3 {TIME}", f"t,_group=G,_node=E b=2 {TIME - 5}"], [])


BIRTH = (DEVICE.format("DBIRTH"), payload({"name": "temp", "alias": 1, "datatype": 9, "float_value": 20.0},
                                          {"name": "level", "alias": 2, "datatype": 2, "int_value": 0xFFFF}))
DATA = (DEVICE.format("DDATA"), payload({"alias": 1, "float_value": 21.5}, {"alias": 2, "int_value": 0xFFFB},
                                        time=TIME + 1))
LINES = ["t,_device=D,_group=G,_node=E temp=20.0,level=-1 1700000000000",
         "t,_device=D,_group=G,_node=E temp=21.5,level=-5 1700000000001"]


def test_aliases_stand_for_the_metrics_of_the_birth_which_has_their_types() -> None:
    assert encoded(an_encoder(), BIRTH, DATA) == (LINES, [], 0)


def test_without_the_birth_what_has_a_name_is_written_and_the_rest_is_a_dead_letter() -> None:
    other = (DEVICE.format("DDATA"), payload({"alias": 1, "float_value": 21.5}, {"name": "n", "int_value": 1},
                                             {"name": "big", "int_value": 2**32 - 1}))
    lines, rejects, _ = encoded(an_encoder(), other)
    assert lines == ["t,_device=D,_group=G,_node=E n=1 1700000000000"]
    assert rejects == ["no_birth: alias 1: the birth of G/E/D was not seen; ask the node for a rebirth, and replay "
                       "this message from the dead letters (and 1 more in this message)"]


def test_births_are_known_to_other_encoders_and_after_a_restart(tmp_path: Path) -> None:
    folder = str(tmp_path / "births")
    assert encoded(an_encoder(folder), BIRTH) == (LINES[:1], [], 0)
    assert encoded(an_encoder(folder), DATA) == (LINES[1:], [], 0)


def test_a_message_belongs_to_the_birth_before_it_whatever_the_order(tmp_path: Path) -> None:
    later = (DEVICE.format("DBIRTH"), payload({"name": "other", "alias": 1, "datatype": 9, "float_value": 1.0},
                                              time=TIME + 10))
    after = (DEVICE.format("DDATA"), payload({"alias": 1, "float_value": 2.0}, time=TIME + 11))
    encoder = an_encoder(str(tmp_path))
    encoded(encoder, BIRTH, later)
    lines, _, _ = encoded(encoder, after, DATA)
    assert lines == ["t,_device=D,_group=G,_node=E other=2.0 1700000000011", LINES[1]]


def test_a_birth_that_another_encoder_is_about_to_store_is_waited_for(tmp_path: Path) -> None:
    now, other = [0.0], Births(str(tmp_path))
    sender, birth = Sender("G", "E", "D"), Birth(TIME, {1: "temp"}, {"temp": 9})

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 0.5:
            other.add(sender, birth)

    births = Births(str(tmp_path), clock=lambda: now[0], sleep=sleep)
    assert births.wait(sender, lambda: births.at(sender, TIME) is not None)
    assert not births.wait(Sender("G", "x"), lambda: False)
    before = now[0]
    assert not births.wait(Sender("G", "x"), lambda: False) and now[0] == before, "only once in a while"


def test_a_damaged_file_of_births_is_none(tmp_path: Path) -> None:
    encoder = an_encoder(str(tmp_path))
    encoded(encoder, BIRTH)
    (file,) = tmp_path.glob("*.json")
    file.write_text('{"births": [7]}')
    _, rejects, _ = encoded(an_encoder(str(tmp_path)), DATA)
    assert [reject.partition(":")[0] for reject in rejects] == ["no_birth"]


def test_births_do_not_fill_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.mapping.formats.sparkplug_births._MAX_BYTES", 500)
    found = [encoded(an_encoder(str(tmp_path)), (f"spBv1.0/G/NBIRTH/E{number}", BIRTH[1])) for number in range(6)]
    assert [bool(rejects) for _, rejects, _ in found] == [False, False, False, True, True, True]
    assert found[5][1][0].startswith("no_birth: the birth of G/E5 is not stored: the files in sparkplug_births")
    assert encoded(an_encoder(str(tmp_path)), ("spBv1.0/G/NBIRTH/E1", BIRTH[1]))[1] == [], "it is there already"


@pytest.mark.parametrize(("topic", "words"), [
    ("", "is '', and not a topic of Sparkplug B"), ("plant/1", "not a topic"),
    ("spBv1.0/G/XDATA/E", "has not the form"), ("spBv1.0/G/DDATA/E", "has not the form"),
    ("spBv1.0/G/NDATA/E/D", "has not the form"), ("spBv1.0//NDATA/E", "form"),
    ("spBv1.0", "has not the form")])
def test_a_topic_that_is_none_rejects_the_message(topic: str, words: str) -> None:
    (reject,) = encoded(an_encoder(), (topic, DATA[1]))[1]
    assert reject.startswith("not_sparkplug: header('mqtt-topic') is ") and words in reject


def test_the_topic_may_be_that_of_iggy_and_have_something_before_it() -> None:
    mapping = MappingConfig(**MAPPING, sparkplug_topic="topic()")
    for name in ("spBv1.0/G/NDATA/E", "spBv1.0.G.NDATA.E"):
        found = Encoder(mapping, "ms", "s", name).encode(
            [payload({"name": "v", "datatype": 3, "int_value": 1})], BatchOrigin(timestamps=[TIME * 1_000]))
        assert found.body.decode().split(",", 1)[1] == f"_group=G,_node=E v=1 {TIME}\n"
    assert encoded(an_encoder(), ("bridge/spBv1.0/G/NDATA/E", payload({"name": "v", "int_value": 1})))[0]


def test_options_are_checked_at_the_start(tmp_path: Path) -> None:
    def problems(**options: Any) -> list[str]:
        return mapping_problems(MappingConfig(**{**MAPPING, **options}), "mapping", [("s", "t")])

    (tmp_path / "file").write_text("")
    assert problems() == []
    assert problems(sparkplug_topic="mqtt")[0].startswith('mapping.sparkplug_topic: "mqtt" is not allowed')
    assert problems(sparkplug_births=str(tmp_path / "file"))[0].startswith("mapping.sparkplug_births: ")
    assert problems(format="json", sparkplug_births="x")[0].startswith("mapping.sparkplug_births: only with")
    assert "sparkplug_births is not set" in mapping_warnings(MappingConfig(**MAPPING), "mapping", "ns")[0]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_shortest_decimal_of_a_float_is_that_float(value: float) -> None:
    import struct

    assert struct.unpack("<f", struct.pack("<f", shortest(value)))[0] == value
    assert len(repr(shortest(value))) <= len(repr(value))


SAMPLE = payload({"name": "x", "datatype": 16, "dataset_value": a_dataset},
                 {"name": "y", "datatype": 19, "template_value": a_template},
                 {"name": "z", "datatype": 32, "bytes_value": b"\x03\0\0\0\xa0"})


damage = st.tuples(st.sampled_from([BIRTH[1], SAMPLE]), st.integers(0, 500), st.integers(1, 255))


@given(st.one_of(st.binary(max_size=60), damage.map(lambda some: damaged(*some))), st.sampled_from(["NBIRTH", "NDATA"]))
def test_any_bytes_are_lines_rejects_or_left_out(data: bytes, kind: str) -> None:
    lines, rejects, dropped = encoded(an_encoder(), (NODE.format(kind), data))
    assert lines or rejects or dropped
    assert not any(reject.startswith("internal_error") for reject in rejects), rejects


def damaged(data: bytes, at: int, by: int) -> bytes:
    """A payload with one byte changed."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ by]) + data[at + 1:]
