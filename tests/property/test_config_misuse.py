"""Whatever a configuration holds, it is read, or every mistake is a line with the file and the key. Nothing else."""

import copy
import datetime
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.config import load_config
from pipeline.config.schema import Config
from pipeline.errors import ConfigError

GOOD: dict[str, Any] = {
    "sinks": [{"name": "one", "topics": [{"stream": "s", "topic": "t"}], "influxdb": {"bucket": "b", "org": "o"}}],
    "sources": [{"name": "two", "state_file": "state.json", "influxdb": {"database": "d"}, "output": {"stream": "o"}}],
    "tests": [{"name": "x", "message": "{}", "dropped": True}],
}
#: Values that some keys take and others don't.
ODD: list[Any] = [
    "", "x", "$X", "${X", "${NONE}", "a\0b", "ü" * 300, "../" * 90, "http://user:pw@h:1/?q#f", "\x1b[31m", "*", "%",
    "{", "{}", "2026-01-31T00:00:00Z", "9" * 30, "/", "\\", "=", ",", "\n", "earliest",
    0, 1, -1, 2**31, 2**63, 2**64, -2**70, 10**4000, 0.5, -0.5, 1e308, float("inf"), float("nan"), True, False,
    [], [""], ["a", "a"], [1], [[]], [{}], [True],
    {}, {"": ""}, {"a": 1}, {"a": "b"}, {"time": "time"}, {"*": "float"}, {"a": {"b": {"c": [1]}}},
    datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC), datetime.datetime(2026, 1, 31), datetime.date(2026, 1, 31),
    datetime.time(1, 2),
]


def keys(expected: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every key of the schema, in a table each."""
    if typing.get_origin(expected) is tuple:
        yield from keys(typing.get_args(expected)[0], (*path, 0))
    elif isinstance(expected, type) and issubclass(expected, msgspec.Struct):
        for field in msgspec.structs.fields(expected):
            yield (*path, field.encode_name)
            yield from keys(field.type, (*path, field.encode_name))


KEYS = sorted({path for path in keys(Config)}, key=str)
#: Each key gets every so many'th of the values, neighbours others.
EVERY = 5


def toml(value: Any) -> str:
    """A value as TOML has it, tables in one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(name))} = {toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return hex(value) if isinstance(value, int) and value > 2**64 else str(value)


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """GOOD with another value at a path; tables on the way are made."""
    tables = copy.deepcopy(GOOD)
    here: Any = tables
    for step, following in zip(path, path[1:], strict=False):
        if isinstance(here, list):
            here.extend([{}] * (not here))
            here = here[0]
        else:
            here = here.setdefault(step, [] if following == 0 else {})
    if isinstance(here, list):
        here[:] = [value]
    else:
        here[path[-1]] = value
    return tables


def read(folder: Path, content: bytes) -> list[str]:
    """The mistakes found in a configuration; nothing but ConfigError may be raised."""
    file = folder / "pipeline.toml"
    file.write_bytes(content)
    try:
        config = load_config(str(file), {"SECRET": "hunter2-secret"})
    except ConfigError as error:
        assert error.problems
        assert str(error).startswith(f"{file}:")
        assert "hunter2" not in str(error)
        return error.problems
    # It crosses processes, and names of topics go to Iggy.
    msgspec.msgpack.encode(config)
    assert all(len(name.encode()) <= 255 for topic in config.subscriptions() for name in (topic.stream, topic.topic))
    return []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where configurations are written."""
    return tmp_path_factory.mktemp("misuse")


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(map(str, path)))
def test_every_key_takes_odd_values_or_names_itself(folder: Path, path: tuple[str | int, ...]) -> None:
    key = ".".join(map(str, path)).replace(".0", "[0]")
    for value in ODD[KEYS.index(path) % EVERY::EVERY]:
        tables = changed(path, value)
        found = read(folder, "\n".join(f"{name} = {toml(item)}" for name, item in tables.items()).encode())
        # The mistake names the key, or one that contradicts it in the same or another table.
        assert all(": " in problem for problem in found)
        if found and isinstance(value, datetime.time) and path[0] != "tests":
            assert any(problem.startswith(key) for problem in found), (key, found)


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(ODD)), min_size=1, max_size=6))
def test_several_odd_values_together_are_no_surprise(
        folder: Path, changes: list[tuple[tuple[str | int, ...], Any]]) -> None:
    tables = copy.deepcopy(GOOD)
    for path, value in changes:
        for name, table in changed(path, value).items():
            tables[name] = {**tables[name], **table} if isinstance(tables.get(name), dict) and isinstance(table, dict) \
                else table
    read(folder, "\n".join(f"{name} = {toml(item)}" for name, item in tables.items()).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_a_mistake(folder: Path, content: bytes) -> None:
    read(folder, content)


@pytest.mark.parametrize("content", [
    b"", b"\0", b"\xef\xbb\xbf[pipeline]", b"\xff\xfe[\0", b"a = " + b"[" * 50_000, b"a = " + b"9" * 5_000,
    b"a = 0x" + b"f" * 5_000, b".".join([b"a"] * 3_000) + b" = 1", b"[" + b"a." * 3_000 + b"b]", b"x" * 11_000_000,
    b'"\\u001b[31m" = 1', b'influxdb = { url = "${SECRET}", bucket = "b" }', b'pipeline = { workers = "${SECRET}" }'])
def test_a_file_that_is_no_configuration_is_one(folder: Path, content: bytes) -> None:
    assert read(folder, content)
