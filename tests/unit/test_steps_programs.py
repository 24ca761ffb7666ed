"""jq and Python functions: what they may give, what becomes of their errors, and what is found at the start."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.about import About, header_texts
from pipeline.config.schema import MappingConfig
from pipeline.config.steps_schema import AnyStep, FunctionStep, JqStep
from stages.mapping.batch import BatchOrigin, Encoded
from stages.mapping.cpu_limit import CpuLimit, TooSlow
from stages.mapping.encoder import Encoder
from stages.mapping.steps.check import step_problems

WRITTEN = {
    "good.py": "def same(message, about):\n    return message\n",
    "several.py": """
import datetime
import math
from decimal import Decimal

def several(message, about):
    kind = message.pop("kind")
    if kind == "two":
        return [{"v": 1}, {"w": 2}]
    if kind == "none":
        return None
    if kind == "empty":
        return []
    if kind == "raises":
        raise ValueError("no such thing")
    if kind == "number":
        return 5
    if kind == "bad element":
        return [{"v": 1}, 7]
    if kind == "object":
        return {"v": object()}
    if kind == "cycle":
        message["self"] = message
    if kind == "exits":
        raise SystemExit(3)
    if kind == "types":
        return {"b": b"ab", "t": datetime.datetime(2023, 11, 14, tzinfo=datetime.UTC), "d": Decimal("1.20"),
                "s": (1, 2), 5: True, "n": message["n"], "big": message["big"], "half": message["n"] / 2}
    if kind == "about":
        return {"a": repr(about)}
    return message
""",
    "waits.py": """
import time

def waits(message, about):
    time.sleep(message["seconds"])
    return message

def catches(message, about):
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
""",
    "syntax.py": "def f(message, about)\n    return 1\n",
    "raises.py": "import os\nos.environ['no such variable']\n",
    "one.py": "def f(message):\n    return message\nvalue = 5\nasync def g(message, about):\n    return None\n",
    "json.py": "def f(message, about):\n    return message\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with modules."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name, text in WRITTEN.items():
        (tmp_path / name).write_text(text)
        if name != "json.py":
            monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    return str(tmp_path)


def encode(mapping: MappingConfig, *payloads: bytes) -> Encoded:
    """The payloads, encoded with all that may be known of them."""
    encoder = Encoder(mapping, "ns", "telemetry", "sensors")
    about = About(1_700_000_000_000_000, 1_600_000_000_000_000, {"h": "x"})
    names = mapping.header_names()
    return encoder.encode(payloads, BatchOrigin(
        3, 42, None, [1_700_000_000_000_000] * len(payloads), None, [header_texts(names, about)] * len(payloads)))


def fields(encoded: Encoded) -> list[str]:
    """The field sets of the lines, without their other parts."""
    return [line.split(b" ", 1)[1].rpartition(b" ")[0].decode() for line in encoded.body.splitlines()]


def several(folder: str, *payloads: bytes) -> Encoded:
    """What the function of several.py makes of messages."""
    return encode(MappingConfig(transform="several:several", transform_path=folder, merge_duplicates=False), *payloads)


def test_a_function_gives_one_message_or_several_or_none(folder: str) -> None:
    encoded = several(folder, b'{"kind":"two"}', b'{"kind":"none"}', b'{"kind":"one","v":1.50}')
    assert fields(encoded) == ["v=1", "w=2", "v=1.50"]
    assert (encoded.rejects, encoded.dropped) == ([], 1)


def test_an_empty_list_leaves_the_message_out(folder: str) -> None:
    assert several(folder, b'{"kind":"empty"}').dropped == 1


@pytest.mark.parametrize(("kind", "words"), [
    ("raises", "ValueError: no such thing (several.py:15)"),
    ("number", "several:several returned int, not a dict, a list of them, or None"),
    ("bad element", "several:several returned int in a list, not a dict"),
    ("object", "cannot be represented in JSON"),
    ("exits", "SystemExit: 3 (several.py:"),
])
def test_an_error_of_a_function_rejects_its_message_alone(folder: str, kind: str, words: str) -> None:
    encoded = several(folder, b'{"kind":"one","v":1}', b'{"kind":"%b"}' % kind.encode(), b'{"kind":"one","v":2}')
    assert fields(encoded) == ["v=1", "v=2"]
    ((at, reason, detail),) = encoded.rejects
    assert (at, reason) == (1, "step_failed")
    assert words in detail


def test_an_object_that_contains_itself_is_too_deep(folder: str) -> None:
    assert [reject.reason for reject in several(folder, b'{"kind":"cycle"}').rejects] == ["too_deep"]


def test_values_of_every_type_come_back_and_numbers_keep_their_digits(folder: str) -> None:
    encoded = several(folder, b'{"kind":"types","n":2.50,"big":12345678901234567890123}')
    assert fields(encoded) == [
        'b="YWI=",t="2023-11-14T00:00:00Z",d=1.20,s="[1,2]",5=true,n=2.50,big=12345678901234567890123,half=1.25']


def test_a_function_is_told_all_that_is_known(folder: str) -> None:
    (text,) = fields(several(folder, b'{"kind":"about"}'))
    assert text.replace('\\"', "'") == (
        "a=\"Message(stream='telemetry', topic='sensors', partition=3, offset=42, timestamp=1700000000000000, "
        "origin_timestamp=1600000000000000, headers={'h': 'x'})\"")


def test_a_function_that_waits_too_long_rejects_its_message_alone(folder: str) -> None:
    mapping = MappingConfig(transform="waits:waits", transform_path=folder, transform_timeout_ms=50,
                            merge_duplicates=False)
    encoder = Encoder(mapping, "ns", "telemetry", "sensors")
    with ticking(encoder.cpu.tick):
        encoded = encoder.encode([b'{"seconds":0}', b'{"seconds":60}', b'{"seconds":0.0}'],
                                 BatchOrigin(timestamps=[1_700_000_000_000_000] * 3))
    assert [(reject.at, reject.reason, reject.detail) for reject in encoded.rejects] == [
        (1, "too_slow", "waits:waits takes longer than transform_timeout_ms = 50")]
    assert encoded.points == 2


def test_a_function_that_catches_everything_counts_as_hung() -> None:
    limit = CpuLimit(5.0)
    limit.begin_call(-1.0, "it takes too long")
    for _ in range(3):
        assert not limit.is_stuck
        with pytest.raises(TooSlow):
            limit.tick()
    assert limit.is_stuck
    limit.end_call()
    assert not limit.is_stuck
    limit.tick()


class ticking:
    """Calls a function every 10 ms of the clock."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGALRM, lambda number, frame: self._tick())
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)

    def __exit__(self, *details: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


def test_a_slow_call_is_named(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.mapping.steps.functions.SLOW_SECONDS", 0.0)
    mapping = MappingConfig(transform="good:same", transform_path=folder)
    encoder = Encoder(mapping, "ns", "telemetry", "sensors")
    encoder.encode([b'{"v":1}'], BatchOrigin(timestamps=[1_700_000_000_000_000]))
    (notice,) = [each for each in encoder.rules.notices.take() if each.kind == "slow_function"]
    assert (notice.place, notice.detail) == ("partition 0 offset 0", "good:same took 0.0 s")


@pytest.mark.parametrize(("name", "words"), [
    ("nothing", 'mapping.transform: "nothing" is not "module:function"'),
    ("a b:c", 'mapping.transform: "a b:c" is not "module:function"'),
    ("no_such_module:f", 'mapping.transform: there is no module "no_such_module" in '),
    ("good:other", 'mapping.transform: there is no "other" in good ('),
    ("one:value", '"value" in one ('),
    ("one:f", "does not take two arguments; write def f(message, about)"),
    ("one:g", "is async or a generator"),
    ("syntax:f", "cannot be imported: SyntaxError: expected ':' (syntax.py:1)"),
    ("raises:f", "cannot be imported: KeyError: 'no such variable' (raises.py:2)"),
    ("json:f", "is also the name of another module"),
])
def test_a_function_is_checked_at_the_start(folder: str, name: str, words: str) -> None:
    (problem,) = step_problems(MappingConfig(transform=name, transform_path=folder), "mapping")
    assert words in problem


def test_a_folder_that_is_missing_is_named() -> None:
    (problem,) = step_problems(MappingConfig(transform="x:f", transform_path="/no/such/folder"), "mapping")
    assert problem == 'mapping.transform_path: there is no folder "/no/such/folder"'


def test_a_function_can_be_a_step(folder: str) -> None:
    steps: tuple[AnyStep, ...] = (FunctionStep(function="several:several"), JqStep(program=".v"))
    mapping = MappingConfig(steps=steps, transform_path=folder)
    encoded = encode(mapping, b'{"kind":"one","v":{"w":1}}', b'{"kind":"raises"}')
    assert fields(encoded) == ["w=1"]
    assert encoded.rejects[0].detail.startswith("step 1 (function): several:several: ValueError")
    (problem,) = step_problems(MappingConfig(steps=(FunctionStep(function="good:no"),), transform_path=folder), "m")
    assert problem.startswith('m.steps[0].function: there is no "no" in good (')


@pytest.mark.parametrize(("program", "found"), [
    (".", ["v=1.50,big=12345678901234567890123"]), ("{w: .v}, {x: .big}", ["w=1.50", "x=12345678901234567890123"]),
    ("[{w: .v}, {x: 1}]", ["w=1.50", "x=1"]), ("empty", []), ("null", []), ("select(.v > 2)", []), ("[]", []),
    ("{o: $about.offset, h: $about.headers.h, p: $about.partition}", ['o=42,h="x",p=3']),
    (". # a comment", ["v=1.50,big=12345678901234567890123"]), ("def f: {y: .v}; f", ["y=1.50"]),
])
def test_jq_gives_objects(program: str, found: list[str]) -> None:
    encoded = encode(MappingConfig(jq=program, merge_duplicates=False), b'{"v":1.50,"big":12345678901234567890123}')
    assert fields(encoded) == found
    assert (encoded.rejects, encoded.dropped) == ([], 0 if found else 1)


@pytest.mark.parametrize(("program", "words"), [
    (".v.x", "Cannot index number with"), (".v", "jq gave 1.5, not an object"), ("[.v]", "jq gave 1.5, not an object"),
    ('error("no\\nway")', "no\nway"), ("{w: .v}, error({a: 1})", '{"a": 1}'), ("repeat(.)", "points or more"),
])
def test_an_error_of_jq_rejects_its_message_alone(program: str, words: str) -> None:
    mapping = MappingConfig(jq=f"if .ok then . else ({program}) end", max_points=50)
    encoded = encode(mapping, b'{"v":1.5}', b'{"ok":true}')
    assert encoded.points == 1
    ((at, _, detail),) = encoded.rejects
    assert at == 0
    assert words in detail


@pytest.mark.parametrize(("program", "words"), [
    (".a +", "syntax error, unexpected end of file"), ("foo(1)", "foo/1 is not defined"), ("$x", "$x is not defined"),
    ('import "a" as a; .', "module not found"), (") | (", "syntax error"),
])
def test_a_program_that_does_not_compile_is_found_at_the_start(program: str, words: str) -> None:
    (problem,) = step_problems(MappingConfig(jq=program), "mapping")
    assert problem.startswith("mapping.jq: jq cannot compile it: ")
    assert words in problem
