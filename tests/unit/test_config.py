"""Reading a configuration: what is right is taken, what is wrong is named, all of it at once."""

from pathlib import Path

import pytest

from pipeline.commands.config import load_config
from pipeline.config.schema import start_position
from pipeline.errors import ConfigError

GOOD = """
[[topics]]
stream = "s"
topic = "t"
[influxdb]
org = "o"
bucket = "b"
token = "${TOKEN:-none}"
"""


def write(folder: Path, text: str) -> str:
    """A configuration file with this text."""
    path = folder / "pipeline.toml"
    path.write_text(text)
    return str(path)


def test_a_good_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD), {"TOKEN": "secret"})
    assert config.influxdb.token == "secret"
    assert config.pipeline.batch_size == 5_000
    assert load_config(write(tmp_path, GOOD), {}).influxdb.token == "none"


@pytest.mark.parametrize(("line", "problem"), [
    ("[pipeline]\nbatchsize = 1", "pipeline.batchsize: unknown key; did you mean batch_size?"),
    ("[pipeline]\nbatch_size = 0", "pipeline.batch_size: 0 is not allowed; give an integer from 1 to 100000"),
    ('[pipeline]\nbatch_size = "many"', 'pipeline.batch_size: "many" is not allowed; give an integer from 1 to 100000'),
    ('[mapping]\nmeasurement_from = "static"', "mapping.measurement_name: required"),
    ('[mapping]\ntag_fields = ["a"]\nfield_strategy = "explicit"\nfield_names = ["a"]', "a key is a tag or a field"),
    ('[iggy]\naddress = "nowhere"', 'iggy.address: "nowhere" is not allowed; give host:port'),
    ('[iggy]\npassword = "${NOT_SET}"', "iggy.password: environment variable NOT_SET is not set"),
    ('[[mapping.rules]]\nwhen = "a = 1"\nthen = "drop"',
     "mapping.rules[0].when: column 3: '=' is not expected here\n  a = 1\n    ^"),
    ('[[mapping.rules]]\nwhen = "a == 1"', 'mapping.rules[0]: give then = "drop", or measurement or bucket'),
    ('[mapping]\nconstant_tags = { time = "x" }', "tag key is time"),
    ('[mapping]\nmeasurement_from = "template"\nmeasurement_template = "{a!r}"', "mapping.measurement_template"),
    ('[mapping]\nformat = "xml"', 'mapping.format: "xml" is not allowed; give "json" or "ndjson"'),
    ('[iggy]\nconsumer = "a"\nconsumer_group = "b"', "iggy.consumer: not beside iggy.consumer_group"),
    ('[iggy]\nconsumer_group = "b"\n[[topics]]\nstream = "x"\ntopic = "y"\npartitions = [1]',
     "topics[1].partitions: not with iggy.consumer_group"),
    ('[[topics]]\nstream = "x"\ntopic = "y"\npartitions = [1, 1]', "topics[1].partitions: a partition occurs twice"),
    ('[[topics]]\nstream = "x"\ntopic = "y"\non_truncation = "wait"', "topics[1].on_truncation"),
    ("[pipeline]\nreaders = 4\nbatch_size = 5_000\nwindow_messages = 19_999",
     "pipeline.window_messages: must be at least pipeline.batch_size for each of the 4 ingest processes"),
    ("[pipeline]\nheartbeat_timeout_ms = 2_999", "pipeline.heartbeat_timeout_ms"),
    ("[[topics]]\nstream = \"x\"", "topics[1].topic: missing; it is required"),
    ('[[topics]]\nstream = "x"\ntopic = "y"\nstart_from = "noon"', "topics[1].start_from"),
])
def test_a_mistake_is_named_with_its_key(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, GOOD + line), {})
    assert problem in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_all_mistakes_are_named_at_once_and_secrets_are_not_shown(tmp_path: Path) -> None:
    text = 'topics = 3\n[iggy]\npassword = 12345\n[influxdb]\nprecision = "m"\nnope = 1'
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text), {})
    assert len(caught.value.problems) == 5
    assert "12345" not in str(caught.value)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read: No such file"):
        load_config(str(tmp_path / "nothing.toml"))


def test_start_position_takes_words_offsets_and_times() -> None:
    assert start_position("earliest") == ("earliest", 0)
    assert start_position(5) == ("offset", 5)
    assert start_position("1970-01-01T00:00:01+00:00") == ("timestamp", 1_000_000)


def test_every_example_configuration_loads() -> None:
    examples = sorted(path for path in (Path(__file__).parents[2] / "configs").glob("*.toml")
                      if path.name != "broken-on-purpose.toml")
    assert examples
    for example in examples:
        load_config(str(example), {"INFLUX_TOKEN": "t", "IGGY_PASSWORD": "p", "HTTP_TOKEN": "h"},
                    unused=("iggy.token_file", "iggy.tls.ca_file"))


@pytest.mark.parametrize("text", [
    '[[influxdb]]\ntoken = "hunter2-secret"', 'influxdb = ["hunter2-secret"]', 'iggy = {password = ["hunter2-secret"]}',
    '[influxdb]\nheaders = ["hunter2-secret"]', '[influxdb.headers]\nAuthorization = ["hunter2-secret"]',
    '[influxdb]\nheaders = "Bearer hunter2-secret"', '[influxdb]\nurl = "ftp://me:hunter2-secret@host"',
    '[influxdb]\nurl = "http://me:hunter2-secret@host"', '[influxdb]\ntoken = "hunter2-secret\\nx"',
    '[influxdb]\nurls = ["me:hunter2-secret@host"]', '[influxdb]\nproxy = "http://me:hunter2-secret@h\\n:1"',
    '[influxdb]\ntoken = {a = "hunter2-secret"}', '[influxdb]\ntoken_file = ["hunter2-secret"]',
    '[[sources]]\nname="s"\n[sources.influxdb]\npassword = 4711\ntoken = "hunter2-secret\\n"'])
def test_no_mistake_shows_a_secret(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(f'{text}\n')
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    assert "hunter2" not in str(caught.value)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize("option", ["token_file", "client_key_file", "client_cert_file"])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, option: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2-secret")
    text = GOOD.replace('token = "${TOKEN:-none}"', "") + f'{option} = "{secret}"\n'
    if option == "client_key_file":
        text += f'client_cert_file = "{secret}"\n'
    secret.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text), {})
    (problem,) = caught.value.problems
    assert problem.startswith(f"influxdb.{option}: ") and f"chmod 600 {secret}" in problem
    secret.chmod(0o600)
    load_config(write(tmp_path, text), {})
