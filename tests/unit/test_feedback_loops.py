"""A pipeline that would read what it writes itself is refused, and one that doesn't is not."""

from pathlib import Path

import pytest

from pipeline.commands.config import load_config
from pipeline.errors import ConfigError

DATABASE = '[influxdb]\nbucket = "b"\n'
SOURCE = """
[[sources]]
name = "s"
state_file = "{folder}/state.json"
{source}
[sources.influxdb]
url = "http://localhost:8086"
bucket = "b"
[sources.output]
stream = "copy"
topic = "points"
"""


def problems(folder: Path, text: str) -> list[str]:
    """What is wrong with a configuration."""
    path = folder / "pipeline.toml"
    path.write_text(text)
    try:
        load_config(str(path), {})
    except ConfigError as error:
        return error.problems
    return []


def topic(stream: str, name: str, table: str = "topics") -> str:
    """`[[topics]]`."""
    return f'[[{table}]]\nstream = "{stream}"\ntopic = "{name}"\n'


def sink(name: str, *topics: str) -> str:
    """`[[sinks]]`."""
    return (f'[[sinks]]\nname = "{name}"\n' + "".join(topics) + '[sinks.influxdb]\nbucket = "b"\n')


@pytest.mark.parametrize(("text", "keys"), [
    (topic("s", "influxdb-dlq") + DATABASE, ["topics[0]"]),
    (topic("s", "data") + topic("s", "influxdb-dlq") + DATABASE, ["topics[1]"]),
    (topic("s", "data") + topic("s", "letters") + DATABASE + '[dead_letters]\ntopic = "letters"', ["topics[1]"]),
    (topic("s", "data") + topic("x", "letters") + DATABASE + '[dead_letters]\nstream = "x"\ntopic = "letters"',
     ["topics[1]"]),
    (topic("s", "Influxdb-DLQ") + DATABASE, ["topics[0]"]),
    (topic("s", " influxdb-dlq ") + DATABASE, ["topics[0]"]),
    (topic("s", "data") + topic("S", "letters") + DATABASE + '[dead_letters]\ntopic = "letters"', ["topics[1]"] * 2),
    (sink("a", topic("s", "data", "sinks.topics")) + sink("b", topic("s", "influxdb-dlq", "sinks.topics")),
     ["sinks[1].topics[0]"]),
    (sink("a", topic("s", "data", "sinks.topics")) + sink("b", topic("x", "data", "sinks.topics"))
     + sink("c", topic("x", "influxdb-dlq", "sinks.topics")), ["sinks[2].topics[0]"]),
])
def test_a_sink_may_not_read_where_dead_letters_go(text: str, keys: list[str], tmp_path: Path) -> None:
    found = problems(tmp_path, text)
    assert [problem.partition(": ")[0] for problem in found] == keys
    assert all("dead_letters.topic" in problem for problem in found)


@pytest.mark.parametrize("text", [
    topic("s", "data") + topic("other", "letters") + DATABASE + '[dead_letters]\nstream = "s"\ntopic = "letters"',
    topic("s", "influxdb-dlq") + DATABASE + '[dead_letters]\nstores = ["file"]\nfile = "letters.ndjson"',
    topic("s", "influxdb-dlq") + DATABASE + "[dead_letters]\nstores = []",
    topic("s", "influxdb-dlq") + DATABASE + '[dead_letters]\ntopic = "letters-of-letters"',
])
def test_any_other_topic_may_be_read(text: str, tmp_path: Path) -> None:
    assert problems(tmp_path, text) == []


@pytest.mark.parametrize("name", ["7", "+7", "007"])
def test_a_name_that_iggys_client_takes_for_an_id_is_refused(name: str, tmp_path: Path) -> None:
    (found,) = problems(tmp_path, topic("s", name) + DATABASE)
    assert found.startswith("topics[0].topic: ") and "id" in found


def with_source(folder: Path, rest: str, source: str = "") -> list[str]:
    """What is wrong with a sink that reads what a source sends."""
    return problems(folder, SOURCE.format(folder=folder, source=source) + topic("copy", "points") + rest)


def test_a_source_may_not_read_back_what_a_sink_writes_of_it(tmp_path: Path) -> None:
    (found,) = with_source(tmp_path, '[influxdb]\nurl = "http://127.0.0.1:8086/"\nbucket = "b"\n')
    assert found.startswith("topics[0]: points of sources[0]")
    static = '[mapping]\nmeasurement_from = "static"\nmeasurement_name = "copy"\n'
    assert with_source(tmp_path, static + DATABASE) != []


@pytest.mark.parametrize(("rest", "source"), [
    ('[influxdb]\nbucket = "other"\n', ""),
    ('[influxdb]\nurl = "http://localhost:8087"\nbucket = "b"\n', ""),
    ('[influxdb]\nbucket = "b/week"\n', ""),
    (DATABASE, 'exclude_measurements = ["points"]'),
    (DATABASE, 'measurements = ["raw*"]'),
    (DATABASE, 'query = "SELECT mean(v) FROM m WHERE time >= $from AND time < $to"\nmeasurement = "m"'),
])
def test_a_source_and_a_sink_may_share_a_server(rest: str, source: str, tmp_path: Path) -> None:
    assert with_source(tmp_path, rest, source) == []


def test_points_and_states_are_not_sent_to_where_dead_letters_go(tmp_path: Path) -> None:
    letters = '[influxdb]\nbucket = "x"\n[dead_letters]\nstream = "copy"\ntopic = "{}"\n'
    assert any(found.startswith("sources[0].output.topic: ")
               for found in with_source(tmp_path, letters.format("points")))
    text = SOURCE.format(folder=tmp_path, source="").replace(f'state_file = "{tmp_path}/state.json"',
                                                             'state_topic = "copy/letters"')
    assert any(found.startswith("sources[0].state_topic: ")
               for found in problems(tmp_path, text + topic("s", "t") + letters.format("letters")))
