"""Steps on documents of any kind: nothing but rejects, exact numbers, and what simple functions say."""

import base64
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.about import About, header_texts
from pipeline.config.schema import MappingConfig
from pipeline.config.steps_schema import AnyStep, OnlyChangedStep
from stages.mapping.batch import BatchOrigin
from stages.mapping.cpu_limit import CpuLimit
from stages.mapping.limits import Limits
from stages.mapping.notices import Notices
from stages.mapping.records.series import Origin
from stages.mapping.reject import Reject
from stages.mapping.steps.documents import decoded, encoded
from stages.mapping.steps.errors import StepFailed
from stages.mapping.steps.paths import Kept, Path
from stages.mapping.steps.runner import Steps
from stages.mapping.steps.values import number

LIMITS = Limits.of(MappingConfig())
#: Steps of every verb, with paths that meet what `documents` makes.
STEPS = [msgspec.convert(step, AnyStep, strict=True) for step in (
    {"do": "split", "from": "a", "to": ["x", "...", "y.z"], "separator": "b"},
    {"do": "split", "from": "header('h')", "to": ["x", "y"], "on_missing": "skip"},
    {"do": "match", "from": "b", "pattern": "(?P<a>.)(?P<q>[^0-9]*)"},
    {"do": "copy", "from": ["a.b", "c", "topic()"], "to": "b.c"},
    {"do": "move", "from": ["c", "a.b.c"], "to": "a"},
    {"do": "set", "to": "b.c", "value": 0.5},
    {"do": "rename", "names": {"*.a": "a.*", "b?": "*", "c": "a.b.c"}},
    {"do": "include", "path": ["a", "*.b", "**.c"]},
    {"do": "exclude", "path": ["a.*", "**.b"]},
    {"do": "exclude", "path": "**.*", "when": "value() > 1 or value() like 'a*'"},
    {"do": "unwrap", "path": "a", "keep": ["b.*"]},
    {"do": "explode", "path": "a", "key": "i"},
    {"do": "explode", "path": "a.b", "to": "e"},
    {"do": "explode", "path": "a.*", "key": "i", "on_missing": "skip"},
    {"do": "explode", "path": "*", "on_error": "drop"},
    {"do": "zip", "names": {"a": "x", "b": "y"}},
    {"do": "pivot", "path": "a", "name": "b", "value": ["c", "a"]},
    {"do": "pivot", "name": "a", "value": "b"},
    {"do": "parse", "path": ["a", "**.b"], "as": ["number", "json", "base64_json", "hex"]},
    {"do": "parse", "path": "*", "as": "number", "decimal": ",", "on_error": "exclude"},
    {"do": "scale", "path": "**.a", "factor": 0.1, "offset": -273.15, "digits": 3},
    {"do": "lookup", "path": "*", "values": {"a": 1, "true": 0, "1": "one"}, "default": "?"},
    {"do": "drop", "when": "a > 1 or exists(b.c) and topic() == 't'"},
    {"do": "set", "to": "t", "template": "{a}-{b.c}", "if_missing": True},
    {"do": "pairs", "path": "b", "separator": "/", "url": True},
    {"do": "unpack", "path": "a", "as": "hex", "format": ">B", "to": ["u"]},
    {"do": "replace", "path": "**.*", "pattern": "(a|1)", "with": "[\\1]", "case": "upper", "when": "exists(a)"},
    {"do": "only_changed", "by": ["a"], "ignore": ["b.c"]},
    {"do": "jq", "program": ".a"},
    {"do": "jq", "program": "(.. | objects), $about"},
)]
keys = st.sampled_from(["a", "b", "c", "a.b", "b1", "", "é", "*", "a\u0000"])
numbers = st.one_of(
    st.integers(-10, 10), st.integers(-2**70, 2**70),
    st.sampled_from(["-0", "-0.0", "1.50", "1e5", "1E-400", "1e400", "0.1000", "123456789012345678901234567890.5"]))
texts = st.one_of(st.text(max_size=5), st.sampled_from(
    ["1,5", "21.5 °C", '{"a":[1]}', "eyJhIjoxfQ==", "0x1f", "a/b", "1.234,5", "NaN", "\u0000NaN"]))


class Written(msgspec.Struct, frozen=True):
    """A number as it is written."""

    text: str


leaves = st.one_of(numbers.map(lambda value: Written(str(value))), texts, st.booleans(), st.none())
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
                      max_leaves=8)
documents = st.dictionaries(keys, values, max_size=4)


def text_of(value: Any) -> str:
    """The JSON text of what the strategies make."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{text_of(member)}" for key, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text_of, value)) + "]"
    return json.dumps(value)


def exact(text: str | bytes) -> Any:
    """A JSON text with its numbers as they are written, but for the sign in an exponent."""
    return json.loads(text, parse_float=lambda number: Written(re.sub(r"[eE]\+?", "E", number)), parse_int=Written,
                      parse_constant=Written)


def run(steps: tuple[AnyStep, ...], *payloads: str) -> Iterator[tuple[str, bytes | Reject]]:
    """What steps make of messages, one after the other."""
    config = MappingConfig(steps=steps, max_points=1_000)
    made = Steps(config, "s", "t", Notices())
    headers = header_texts(config.header_names(), About(1, 2, {"h": "x/y"}))
    for index, payload in enumerate(payloads):
        yield from made.objects(iter([("", payload.encode())]), Origin(0, index, 1, 1, headers), CpuLimit(1.0))


def a_step(**keys: Any) -> AnyStep:
    """A step as a configuration has it."""
    return msgspec.convert(keys, AnyStep, strict=True)  # type: ignore[no-any-return]


def json_of(made: bytes | Reject) -> Any:
    """The object that was made."""
    assert isinstance(made, bytes), made
    return json.loads(made)


@given(documents, st.lists(st.sampled_from(STEPS), min_size=1, max_size=4), st.sampled_from(["reject", "skip", "drop"]))
def test_steps_give_objects_or_rejects_and_raise_nothing_else(document: dict[str, Any], steps: list[AnyStep],
                                                              policy: str) -> None:
    chosen = tuple([msgspec.structs.replace(step, on_error=policy) for step in steps])
    text = text_of(document)
    try:
        found = list(run(chosen, text, text))
    except Reject as reject:
        assert reject.reason.startswith("too_")
        return
    for name, made in found:
        if isinstance(made, Reject):
            assert made.reason in ("step_failed", "bad_field", "not_json") and made.detail, (name, made)
        else:
            assert isinstance(json.loads(made), dict)


@given(st.lists(documents, min_size=1, max_size=3), st.lists(st.sampled_from(STEPS), min_size=1, max_size=3),
       st.sampled_from(["reject", "skip", "drop"]))
def test_the_quick_way_gives_the_same_as_the_careful_one(some: list[dict[str, Any]], steps: list[AnyStep],
                                                         policy: str) -> None:
    config = MappingConfig(steps=tuple([msgspec.structs.replace(step, on_error=policy) for step in steps]))
    names = config.header_names()
    origin = BatchOrigin(0, 0, None, [1] * len(some), 1, [header_texts(names, About(1, 2, {"h": "x/y"}))] * len(some))
    texts = [text_of(document).encode() for document in some]
    quick, careful = Steps(config, "s", "t", Notices()), Steps(config, "s", "t", Notices())
    if not quick.is_single:
        return
    for index, found in enumerate(quick.singles(texts, origin, CpuLimit(1.0))):
        if found is None and any(isinstance(step, OnlyChangedStep) for step in steps):
            return  # the state is forgotten then
        try:
            expected = list(careful.objects(iter([("", texts[index])]), origin.of(index), CpuLimit(1.0)))
        except Reject:
            assert found is None
            continue
        if found is not None:  # otherwise it is not sure, and the careful way follows
            assert expected == ([("", found)] if found else [])


@given(documents)
def test_what_no_step_changes_is_exactly_what_it_was(document: dict[str, Any]) -> None:
    text = text_of(document)
    assert exact(encoded(decoded(text.encode(), LIMITS))) == exact(text)


@given(documents, st.lists(st.sampled_from(["a", "*", "b?", "**.c", "a.b", "*.*", "a.*.c", "**.*", "0"]), min_size=1,
                           max_size=2))
def test_include_and_exclude_part_a_message(document: dict[str, Any], paths: list[str]) -> None:
    found = decoded(text_of(document).encode(), LIMITS)
    inside = {path for path in leaves_of(found) if any(is_below(path, pattern) for pattern in paths)}
    assert set(leaves_of(Kept([Path(path) for path in paths])(found), filled=True)) == set(
        compacted(found, inside)), paths


def leaves_of(value: Any, path: tuple[str, ...] = (), filled: bool = False) -> list[tuple[str, ...]]:
    """The paths of the single values, and of empty objects and arrays."""
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, member in pairs for found in leaves_of(member, (*path, str(key)))]
    return [path] if path else []


def compacted(document: Any, inside: set[tuple[str, ...]], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of what stays, where elements of arrays move to the places of those that do not."""
    def stays(at: tuple[str, ...]) -> bool:
        return any(leaf[:len(at)] == at for leaf in inside)

    out: list[tuple[str, ...]] = []

    def walk(value: Any, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        if not isinstance(value, dict | list) or not value:
            if old in inside:
                out.append(new)
            return
        pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
        some = [(key, member) for key, member in pairs if stays((*old, str(key)))]
        for index, (key, member) in enumerate(some):
            walk(member, (*old, str(key)), (*new, str(index) if isinstance(value, list) else str(key)))

    walk(document, (), ())
    return out


def is_below(path: tuple[str, ...], pattern: str) -> bool:
    """Whether a value is at a path that the pattern fits, or below one: by trying every way."""
    parts = pattern.split(".")

    def fits(at: int, part: int) -> bool:
        if part == len(parts):
            return True
        if parts[part] == "**":
            return any(fits(later, part + 1) for later in range(at, len(path)))
        for end in range(at + 1, len(path) + 1):
            # A name with dots can be that of several parts without wildcards.
            count = path[at].count(".") + 1
            if end == at + 1 and count > 1 and parts[part:part + count] == path[at].split("."):
                return fits(at + 1, part + count)
        return at < len(path) and fnmatchcase(path[at], parts[part]) and fits(at + 1, part + 1)

    return fits(0, 0)


@given(st.fractions(max_denominator=1).map(int) | st.integers(-10**15, 10**15), st.integers(0, 6), st.integers(-99, 99))
def test_scale_counts_exactly(value: int, point: int, offset: int) -> None:
    factor = float(f"1e-{point}")
    step = a_step(**{"do": "scale", "path": "v", "factor": factor, "offset": offset / 4})
    if point == 0 and offset == 0:
        return
    ((_, made),) = run((step,), f'{{"v":{value}}}')
    assert isinstance(made, bytes)
    written = json.loads(made, parse_float=Fraction, parse_int=Fraction)["v"]
    assert written == Fraction(value, 10**point) + Fraction(offset, 4)


@given(st.integers(-10**9, 10**9), st.integers(0, 3), st.sampled_from([".", ","]), st.booleans(),
       st.sampled_from(["", " °C", "%", " kWh", "/min"]))
def test_a_number_is_read_as_it_was_written(value: int, digits: int, decimal: str, grouped: bool, unit: str) -> None:
    written = f"{value:,}" if grouped else str(value)
    if decimal == ",":
        written = written.replace(",", ".")
    fraction = f"{decimal}{'123'[:digits]}" if digits else ""
    expected = Fraction(abs(value)) + (Fraction(int("123"[:digits]), 10**digits) if digits else 0)
    found, rest = number(f"{written}{fraction}{unit}", decimal)
    assert Fraction(found) == (-expected if value < 0 else expected)
    assert rest == unit.strip()


@pytest.mark.parametrize("text", ["", "-", "n/a", "1.2.3", "1,2,3", "12 34", "2023-11-14", "12:30", "1.", "0x", "++1",
                                  "1e", "1 2", "٣", "1" * 500, ",", ".", "5,", "1__0", "0x1G", "NaN", "inf"])
def test_what_is_no_number_is_none(text: str) -> None:
    if text in ("1.", "1e"):
        assert number(text)[0] == 1
        return
    with pytest.raises(StepFailed):
        number(text)


@given(st.binary(max_size=30), st.booleans())
def test_base64_with_and_without_its_padding_is_read(raw: bytes, padded: bool) -> None:
    text = base64.b64encode(raw).decode()
    step = a_step(**{"do": "parse", "path": "v", "as": "base64"})
    ((_, made),) = run((step,), json.dumps({"v": text if padded else text.rstrip("=")}))
    try:
        expected = raw.decode()
    except UnicodeDecodeError:
        expected = ""
    assert isinstance(made, Reject) if not expected else json_of(made) == {"v": expected}


@given(st.lists(st.text(alphabet="ab/", max_size=4), min_size=1, max_size=4))
def test_split_takes_what_was_joined(parts: list[str]) -> None:
    step = a_step(**{"do": "split", "from": "t", "to": ["x", "...", "y"], "separator": "//"})
    text = "//".join(parts)
    ((_, made),) = run((step,), json.dumps({"t": text}))
    found = text.split("//")
    if len(found) < 2:
        assert isinstance(made, Reject)
    else:
        assert json_of(made) == {"t": text, "x": found[0], "y": found[-1]}


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3), st.integers(0, 9))
def test_explode_gives_each_element_with_what_is_beside_it(arrays: list[list[int]], beside: int) -> None:
    step = a_step(**{"do": "explode", "path": "outer.inner"})
    document = {"beside": beside, "outer": [{"n": index, "inner": inner} for index, inner in enumerate(arrays)]}
    found = [json_of(made) for _, made in run((step,), json.dumps(document))]
    assert found == [{"beside": beside, "n": index, "inner": value}
                     for index, inner in enumerate(arrays) for value in inner]


@given(st.dictionaries(st.text(alphabet="abu_1", min_size=1, max_size=6), st.integers(0, 9), max_size=5))
def test_rename_gives_what_a_regular_expression_would(members: dict[str, int]) -> None:
    step = a_step(**{"do": "rename", "names": {"a*_u": "v_*"}})
    ((_, made),) = run((step,), json.dumps(members))
    names = {name: re.sub("(?s)^a(.*?)_u$", r"v_\1", name) for name in members}
    if len(set(names.values())) < len(names):
        return  # a clash, unless the values are equal
    assert json_of(made) == {names[name]: value for name, value in members.items()}
