"""`${VAR}` in a configuration: replaced, converted, and what looks like it is never taken for text."""

from pathlib import Path

import pytest

from pipeline.commands.config import load_config
from pipeline.config.schema import Config
from pipeline.config.variables import expand
from pipeline.errors import ConfigError

ENVIRON = {"TOKEN": "s3cret-token", "HOST": "db", "EMPTY": "", "N": "7", "F": "2.5", "YES": "True",
           "URLS": "http://b:1, http://c:1", "TAGS": '["site", "device, id"]', "WORDS": "many"}
GOOD = """
[[topics]]
stream = "s"
topic = "t"
[influxdb]
org = "o"
bucket = "b"
"""


def load(folder: Path, text: str, unused: tuple[str, ...] = ()) -> Config:
    """The configuration in a text after GOOD."""
    path = folder / "pipeline.toml"
    path.write_text(GOOD + text)
    return load_config(str(path), ENVIRON, unused=unused)


@pytest.mark.parametrize(("raw", "text"), [
    ("plain", "plain"), ("${TOKEN}", "s3cret-token"), ("http://${HOST}:8086", "http://db:8086"), ("${NONE:-x}", "x"),
    ("${EMPTY:-x}", "x"), ("${EMPTY}", ""), ("${NONE:-}", ""), ("pa$$word", "pa$$word"), ("pa$word", "pa$word"),
    ("cost: 5$", "cost: 5$"), ("$${TOKEN}", "${TOKEN}"), ("$$TOKEN", "$TOKEN"), ("a $$TOKEN b", "a $TOKEN b"),
    ("${HOST}$1", "db$1")])
def test_variables_are_replaced_and_dollar_signs_are_kept(raw: str, text: str) -> None:
    found = expand(raw, ENVIRON)
    assert (found.text, found.unset, found.problems) == (text, [], [])


@pytest.mark.parametrize("raw", ["$TOKEN", "Bearer $TOKEN", "${TOKEN", "a${", "${}", "${1A}", "${A-b}", "${A:-${B}}",
                                 "${A:+x}"])
def test_what_looks_like_a_variable_is_a_mistake(raw: str) -> None:
    assert expand(raw, ENVIRON).problems


def test_a_dollar_sign_is_a_variable_in_an_address_and_not_in_a_query() -> None:
    assert expand("http://$HOST:1", ENVIRON, "address").problems
    assert not expand("x$HOST", ENVIRON, "text").problems
    for query in ("time >= $from", 'from(bucket: "b") |> map(fn: (r) => "${r.host}")', "$from"):
        assert expand(query, ENVIRON, "data").text == query


def test_numbers_booleans_and_lists_come_from_variables(tmp_path: Path) -> None:
    config = load(tmp_path, """gzip = "${YES}"
urls = "${URLS}"
retry_backoff_multiplier = "${F}"
[mapping]
tag_fields = "${TAGS}"
[pipeline]
workers = "${N}"
drain_timeout_ms = "${N}"
batch_size = "${NONE:-1_000}"
[iggy]
consumer = "${N}"
""")
    assert (config.influxdb.gzip, config.influxdb.retry_backoff_multiplier) == (True, 2.5)
    assert config.influxdb.urls == ("http://b:1", "http://c:1")
    assert config.mapping.tag_fields == ("site", "device, id")
    assert (config.pipeline.workers, config.pipeline.drain_timeout_ms, config.pipeline.batch_size) == (7, 7, 1_000)
    assert config.iggy.consumer == "7"


def test_an_offset_comes_from_a_variable_and_a_time_of_toml_is_a_time(tmp_path: Path) -> None:
    more = '[[topics]]\nstream = "s"\ntopic = "u"\nstart_from = '
    assert load(tmp_path, more + '"${N}"').topics[1].start_from == 7
    assert load(tmp_path, more + "2026-01-31T00:00:00Z").topics[1].start_from == "2026-01-31T00:00:00+00:00"


@pytest.mark.parametrize(("line", "problem"), [
    ('[pipeline]\nworkers = "${WORDS}"', 'pipeline.workers: "${WORDS}", as the environment has it, is not allowed; '
                                         "give an integer from 0 to 256"),
    ('[pipeline]\nworkers = "${TOKEN}"', 'pipeline.workers: "${TOKEN}", as the environment has it, is not allowed'),
    ('url = "${TOKEN}"', 'influxdb.url: "${TOKEN}" is not allowed; give http://host:port'),
    ('version = "${TOKEN}"', 'influxdb.version: "${TOKEN}", as the environment has it, is not allowed'),
    ('token = "$TOKEN"', "influxdb.token: $TOKEN is not replaced; write ${TOKEN}"),
    ('token = "${TOKEN"', "influxdb.token: ${ begins no variable"),
    ('headers = { "${HOST}" = "x" }', "influxdb.headers.${HOST}: variables are replaced in values only"),
    ('token = "${NONE:?make one}"', "influxdb.token: environment variable NONE is not set: make one"),
])
def test_a_mistake_names_the_variable_and_not_its_value(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, line)
    assert problem in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_variables_that_a_command_does_not_use_may_be_unset(tmp_path: Path) -> None:
    text = ('token = "${NONE}"\nurl = "${NONE}"\n'
            '[[sources]]\nname = "a"\nstate_file = "${NONE}"\n[sources.output]\nstream = "${NONE}"')
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert len(caught.value.problems) == 5
    assert load(tmp_path, text, ("influxdb.token", "influxdb.url", "sources")).influxdb.token == ""
    with pytest.raises(ConfigError, match="influxdb.url"):
        load(tmp_path, text, ("influxdb.token", "sources"))
