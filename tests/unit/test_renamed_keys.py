"""Every old key and option is answered with the new one, all of them at once, and nothing is read under an old name."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from pipeline.commands.config import load_config
from pipeline.commands.start import start
from pipeline.config.renamed import RENAMED_KEYS, RENAMED_OPTIONS, RenamedKey
from pipeline.config.schema import Config
from pipeline.errors import ConfigError

#: Old key -> value; of all others 2, which is right for a count and for a time.
VALUES = {
    "mapping.separator": '"."', "mapping.array_separator": '";"', "influxdb.targets": '"mirror"',
    "influxdb.more_urls": '["http://b:8086"]', "sources.influxdb.more_urls": '["http://b:8086"]',
    "dead_letters.to": '["iggy"]', "sources.exclude": '["a"]',
}
#: Old key -> what the answer has in it: the new value where the unit changed, and what else there is to do.
ADVICE = {
    "pipeline.drain_seconds": "drain_timeout_ms = 2000",
    "pipeline.reread_after_seconds": "redelivery_timeout_ms = 2000",
    "pipeline.heartbeat_timeout_seconds": "heartbeat_timeout_ms = 2000",
    "pipeline.restart_window_seconds": "restart_window_ms = 2000",
    "mapping.max_message_seconds": "max_message_cpu_ms = 2000",
    "influxdb.more_urls": "remove url", "sources.influxdb.more_urls": "remove url",
}
KEYS = [renamed for renamed in RENAMED_KEYS if renamed.old != "source"]
SINK = '[[topics]]\nstream = "s"\ntopic = "t"\n{mapping}[influxdb]\nbucket = "b"\n{influxdb}'
SOURCE = """[[{sources}]]
name = "n"
state_file = "n.json"
{sources_}
[{sources}.influxdb]
database = "d"
{sources_influxdb}
[{sources}.output]
stream = "o"
{sources_output}
"""


def problems(folder: Path, text: str) -> list[str]:
    """The mistakes in a configuration; there must be some."""
    path = folder / "pipeline.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(str(path), {})
    return caught.value.problems


def with_old_keys(*keys: RenamedKey, sources: str = "sources") -> str:
    """A configuration that is right but for these old keys."""
    tables: dict[str, str] = {}
    for key in keys:
        table, _, name = key.old.rpartition(".")
        tables[table] = tables.get(table, "") + f"{name} = {VALUES.get(key.old, '2')}\n"
    text = SINK.format(mapping=f"[mapping]\n{tables.get('mapping', '')}", influxdb=tables.get("influxdb", ""))
    text += SOURCE.format(sources=sources, sources_=tables.get("sources", ""),
                          sources_influxdb=tables.get("sources.influxdb", ""),
                          sources_output=tables.get("sources.output", ""))
    return text + "".join(f"[{table}]\n{tables.get(table, '')}" for table in ("dead_letters", "pipeline"))


def type_of(key: str) -> object:
    """The type that the schema has for a key with its tables. Raises KeyError for an unknown key."""
    expected: object = Config
    for name in key.split("."):
        assert isinstance(expected, type)
        expected = {field.encode_name: field for field in msgspec.structs.fields(expected)}[name].type
        expected = getattr(expected, "__args__", (expected,))[0]
    return expected


def key_of(problem: str) -> str:
    """The key that a mistake names, without indexes."""
    return problem.partition(": ")[0].replace("[0]", "")


@pytest.mark.parametrize("renamed", KEYS, ids=lambda renamed: renamed.old)
def test_an_old_key_is_answered_with_the_new_one(tmp_path: Path, renamed: RenamedKey) -> None:
    (found,) = problems(tmp_path, with_old_keys(renamed))
    assert key_of(found) == renamed.old
    assert f"is now {renamed.name}" in found
    assert ADVICE.get(renamed.old, "") in found


@pytest.mark.parametrize("renamed", RENAMED_KEYS, ids=lambda renamed: renamed.old)
def test_the_new_key_is_in_the_schema_and_the_old_one_is_not(renamed: RenamedKey) -> None:
    type_of(renamed.new)
    with pytest.raises(KeyError):
        type_of(renamed.old)
    assert renamed.old.rpartition(".")[0] == renamed.new.rpartition(".")[0]


def test_all_old_keys_are_answered_at_once_also_in_a_table_with_an_old_name(tmp_path: Path) -> None:
    expected = sorted(key.old for key in KEYS)
    assert sorted(map(key_of, problems(tmp_path, with_old_keys(*KEYS)))) == expected
    found = sorted(map(key_of, problems(tmp_path, with_old_keys(*KEYS, sources="source"))))
    assert found == sorted(["source", *(key.replace("sources.", "source.") for key in expected)])


def test_a_table_with_an_old_name_is_checked_like_one_with_the_new_name(tmp_path: Path) -> None:
    text = with_old_keys(sources="source").replace('database = "d"', 'database = "d"\npage_size = 1')
    assert [key_of(problem) for problem in problems(tmp_path, text)] == ["source", "source.influxdb.page_size"]


def test_old_keys_of_several_sinks_are_answered(tmp_path: Path) -> None:
    text = '[[sinks]]\nname = "a"\n[[sinks.topics]]\nstream = "s"\ntopic = "t"\n[sinks.influxdb]\nbucket = "b"\n'
    (found,) = problems(tmp_path, text + "max_in_flight = 3\n")
    assert found == "sinks[0].influxdb.max_in_flight: is now max_requests_in_flight"


@pytest.mark.parametrize(("value", "answer"), [
    ("0.5", "drain_timeout_ms = 500"), ("30", "drain_timeout_ms = 30000"),
    ('"${SECONDS:-5}"', "multiply the value by 1000"), ("inf", "multiply the value by 1000")])
def test_a_value_whose_unit_changed_is_converted(tmp_path: Path, value: str, answer: str) -> None:
    (found,) = problems(tmp_path, with_old_keys() + f"drain_seconds = {value}\n")
    assert answer in found


@pytest.mark.parametrize(("old", "new"), RENAMED_OPTIONS)
def test_an_old_option_is_answered_with_the_new_one(old: str, new: str) -> None:
    result = CliRunner().invoke(start, ["-c", "nowhere.toml", old, "2"])
    assert result.exit_code == 2
    assert f"{old} is now {new}" in result.output
    assert old not in CliRunner().invoke(start, ["--help"]).output
