"""Mistakes in `[[sources]]` are all named: file, key, and what is allowed."""

import sys
import textwrap
from pathlib import Path

import pytest

from pipeline.commands.config import load_config
from pipeline.config.source_checks import fed_by_sources
from pipeline.config.source_schema import OutputConfig, SourceConfig
from pipeline.errors import ConfigError

ROOT = Path(__file__).parents[2]
GOOD = """
[[sources]]
name = "weather"
state_file = "{folder}/weather.json"
{source}
[sources.influxdb]
version = "v1"
database = "db"
{influxdb}
[sources.output]
stream = "s"
{output}
{rest}
"""


def problems(folder: Path, source: str = "", influxdb: str = "", output: str = "", rest: str = "") -> list[str]:
    """What is wrong with a configuration; without its path."""
    path = folder / "pipeline.toml"
    path.write_text(GOOD.format(folder=folder, source=source, influxdb=influxdb, output=output, rest=rest))
    try:
        load_config(str(path), {})
    except ConfigError as error:
        return error.problems
    return []


def test_a_source_alone_is_a_configuration_and_has_no_sink(tmp_path: Path) -> None:
    assert problems(tmp_path) == []
    config = load_config(str(tmp_path / "pipeline.toml"), {})
    assert [source.name for source in config.sources] == ["weather"]
    assert config.all_sinks() == () and config.subscriptions() == ()


def test_a_source_and_a_sink_may_be_in_one_file(tmp_path: Path) -> None:
    rest = '[[topics]]\nstream = "s"\ntopic = "t"\n[influxdb]\nbucket = "b"\n'
    assert problems(tmp_path, rest=rest) == []
    config = load_config(str(tmp_path / "pipeline.toml"), {})
    assert len(config.all_sinks()) == len(config.sources) == 1


@pytest.mark.parametrize(("where", "text", "expected"), [
    ("source", 'measurments = ["a"]', "sources[0].measurments: unknown key; did you mean measurements?"),
    ("source", "page_size = 0", "sources[0].page_size: 0 is not allowed; give an integer from 1 to 200000"),
    ("source", 'from = "yesterday"', 'sources[0].from: "yesterday" is not allowed; give "earliest", "now", or a time '
                                     "like 2026-01-31T00:00:00Z"),
    ("source", 'from = "1600-01-01T00:00:00Z"', "sources[0].from: 1600-01-01T00:00:00Z is outside the times of "
     'InfluxDB, 1677-09-21T00:12:43.145224194Z to 2262-04-11T23:47:16.854775806Z; give "earliest"'),
    ("source", 'to = "2300-01-01T00:00:00Z"', "sources[0].to: 2300-01-01T00:00:00Z is outside the times of InfluxDB, "
     "1677-09-21T00:12:43.145224194Z to 2262-04-11T23:47:16.854775806Z"),
    ("source", 'from = "2026-02-01T00:00:00Z"\nto = "2026-01-01T00:00:00Z"', "sources[0].to: must be later than from"),
    ("source", 'from = "now"\nto = "2026-01-01T00:00:00Z"',
     'sources[0].from: "now" not with to; give a time, or "earliest"'),
    ("source", 'query = "SELECT 1 WHERE time >= $from"\nmeasurement = "m"',
     "sources[0].query: has no $to; it must ask for times from $from (inside) to $to (outside)"),
    ("source", 'query = "$from $to"', "sources[0].measurement: required with query: what its points are called"),
    ("source", 'query = "$from $to"\nmeasurement = "m"\nexclude_measurements = ["x"]',
     "sources[0].measurements: not beside query"),
    ("source", 'query = "SELECT 1 WHERE $from $to GROUP BY time(1d) tz(\'Europe/Berlin\')"\nmeasurement = "m"\n'
     "window_align_ms = 86_400_000",
     "sources[0].window_align_zone: required, since the query groups by the clocks of a time zone and windows would "
     'cut its groups in two; give that zone: window_align_zone = "Europe/Berlin"'),
    ("source", 'query = "SELECT 1 WHERE $from $to GROUP BY time(1d) tz(\'Asia/Kolkata\')"\nmeasurement = "m"\n'
     'window_align_ms = 86_400_000\nwindow_align_zone = "Europe/Berlin"',
     'sources[0].window_align_zone: "Europe/Berlin", and the query names Asia/Kolkata; both must be the same'),
    ("source", 'query = "$from $to tz(\'Europe/Berlin\')"\nmeasurement = "m"\nwindow_align_ms = 86_400_000\n'
     'window_align_zone = "Europe/Bonn"',
     'sources[0].window_align_zone: there is no time zone "Europe/Bonn"; give a name such as "Europe/Berlin"'),
    ("source", 'query = "$from $to"\nmeasurement = "m"\nwindow_align_zone = "Europe/Berlin"',
     "sources[0].window_align_zone: only with window_align_ms"),
    ("source", 'window_align_zone = "Europe/Berlin"', "sources[0].window_align_zone: only with query"),
    ("source", 'tags = ["a"]', "sources[0].tags: only with query"),
    ("source", 'fields = ["a"]\nquery = "$from $to"\nmeasurement = "m"',
     "sources[0].fields: not beside query, which chooses itself"),
    ("source", "tag_values = { site = [] }", "sources[0].tag_values.site: is empty; give at least one value, or "
                                             "exclude the measurements"),
    ("source", 'exclude_tag_values = { site = ["a", "a"] }', 'sources[0].exclude_tag_values.site: "a" occurs twice'),
    ("source", 'tag_values = { _field = ["a"] }', "sources[0].tag_values._field: is not the name of a tag"),
    ("source", '[[sources.steps]]\ndo = "scale"\npath = "fields.a"',
     "sources[0].steps[0].factor: nothing is changed; give factor, offset or digits"),
    ("source", '[[sources.steps]]\ndo = "only_changed"',
     'sources[0].steps[0]: do = "only_changed" is only for messages from Iggy, in [[mapping.steps]]'),
    ("source", '[[sources.steps]]\ndo = "copy"\nfrom = "topic()"\nto = "tags.t"',
     "sources[0].steps[0]: topic() is only known of messages from Iggy; a point has measurement, tags, fields and "
     "time"),
    ("source", 'types = { a = "number" }', "sources[0].types.a"),
    ("source", "window_align_ms = 5", "sources[0].window_align_ms: only with query"),
    ("source", "parallel_windows = 4",
     "sources[0].parallel_windows: more than max_parallel_queries = 2; raise that, too"),
    ("source", "parallel_windows = 8\nmax_parallel_queries = 8",
     "sources[0].parallel_windows: more than pages_in_flight = 6; raise that, too"),
    ("source", 'query = "$from $to"\nmeasurement = "m"\nwindows_by_shard = true',
     "sources[0].windows_by_shard: not beside query, whose windows end at multiples of window_align_ms"),
    ("source", 'language = "flux"\nwindows_by_shard = true',
     "sources[0].windows_by_shard: only in InfluxQL, of InfluxDB 1 and 2"),
    ("source", "keep_order = false",
     "sources[0].keep_order: only with parallel_windows of 2 or more; one window is always read in order"),
    ("source", 'query = "$from $to"\nmeasurement = "m"\nwindow_align_ms = 60_000\nmax_window_ms = 1_000',
     "sources[0].max_window_ms: less than window_align_ms = 60000, the narrowest window"),
    ("source", 'language = "sql"', 'sources[0].language: "sql" only with influxdb.version = "v3" or "auto"'),
    ("influxdb", 'precision = "ms"', "sources[0].influxdb.precision: unknown key; did you mean version?"),
    ("influxdb", 'url = "localhost"', 'sources[0].influxdb.url: "localhost" is not allowed; give http://host:port or '
                                      "https://host:port"),
    ("influxdb", 'ca_file = "/nowhere"', 'sources[0].influxdb.ca_file: "/nowhere" cannot be read'),
    ("output", 'topic = "{site}"', 'sources[0].output.topic: "{site}" is not allowed; only {measurement}, {source} '
                                   "and {retention_policy} may stand in braces"),
    ("output", 'constant_tags = { p = "{site}" }', 'sources[0].output.constant_tags.p: "{site}" is not allowed; only '
     "{measurement}, {source} and {retention_policy} may stand in braces"),
    ("output", 'topic = "{retention_policy}"', "sources[0].output: {retention_policy} only with retention_policies, or "
                                               "influxdb.retention_policy"),
    ("source", 'retention_policies = ["*"]', "sources[0].output: {retention_policy} must be in the stream, the topic, "
                                             "a header or a tag"),
    ("source", 'retention_policies = ["a"]\nlanguage = "flux"', "sources[0].retention_policies: only with language = "
                                                                '"influxql" or "auto"'),
    ("source", 'retention_policies = ["a"]\nquery = "$from $to"\nmeasurement = "m"',
     "sources[0].retention_policies: not beside query, which names the policies itself"),
    ("source", 'retention_policies = ["a", "a"]', 'sources[0].retention_policies: "a" occurs twice'),
    ("output", "partition = 3", 'sources[0].output.partition: only with partitioning = "fixed"'),
    ("output", 'compression = "gzip"', "sources[0].output.compression: only with batch_points of 2 or more"),
    ("output", 'topic = "t"\ndead_letter_topic = "t"',
     "sources[0].output.dead_letter_topic: must be another than topic"),
    ("rest", '[mapping]\ntag_fields = ["a"]', "mapping: no effect without [[topics]]"),
])
def test_a_mistake_is_named_with_what_is_allowed(tmp_path: Path, where: str, text: str, expected: str) -> None:
    found = problems(tmp_path, **{where: text})
    assert expected in found or any(line.startswith(expected) for line in found), found


@pytest.mark.parametrize(("more", "expected"), [
    ({"influxdb": ""}, 'sources[0].influxdb.transport: "flight" only with version = "v3" or "auto"'),
    ({"source": 'language = "flux"'}, 'sources[0].language: "flux" not with influxdb.transport = "flight"'),
    ({"influxdb": 'url = "http://h:1/x"'}, 'sources[0].influxdb.url: "http://h:1/x" has a path, and Flight has none; '
                                           "give http://host:port"),
    ({"influxdb": 'proxy = "socks5://h:1"'}, "sources[0].influxdb.proxy: for Flight it must be an HTTP proxy that "
                                             "takes CONNECT; give http://host:port"),
    ({"influxdb": 'headers = {"a b" = "x"}'}, 'sources[0].influxdb.headers: "a b" cannot be sent over gRPC; give a '
                                              "name of letters, digits, -, _ and ., that does not begin with grpc-"),
    ({"influxdb": 'headers = {"X-Grpc" = "ü"}'}, "sources[0].influxdb.headers.X-Grpc: cannot be sent over gRPC; give "
                                                 "printable ASCII, and a name that does not end in -bin"),
])
def test_what_flight_has_no_use_for_is_refused(tmp_path: Path, more: dict[str, str], expected: str) -> None:
    influxdb = 'transport = "flight"\n' + more.get("influxdb", "")
    version = "v1" if more == {"influxdb": ""} else "v3"
    path = tmp_path / "pipeline.toml"
    path.write_text(GOOD.format(folder=tmp_path, source=more.get("source", ""), influxdb=influxdb, output="", rest="")
                    .replace('"v1"', f'"{version}"'))
    with pytest.raises(ConfigError) as found:
        load_config(str(path), {})
    assert expected in found.value.problems


def test_flight_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert problems(tmp_path, influxdb='transport = "flight"')[0] == (
        'sources[0].influxdb.transport: "flight" needs the package pyarrow, which is not installed; install it with '
        "pip install 'iggy-influxdb-pipeline[flight]'")


def test_two_sources_need_two_names_and_two_state_files(tmp_path: Path) -> None:
    again = GOOD.format(folder=tmp_path, source="", influxdb="", output="", rest="")
    assert problems(tmp_path, rest=again) == [
        'sources[1].name: "weather" occurs twice',
        f'sources[1].state_file: "{tmp_path}/weather.json" is another source\'s already']


@pytest.mark.parametrize(("state", "expected"), [
    ('state_topic = "states/weather"', []),
    ("", ['sources[0].state_file: missing; give it, or state_topic = "stream/topic"']),
    ('state_file = "x"\nstate_topic = "states/weather"',
     ["sources[0].state_file: not beside state_topic; the state is kept in one of them"]),
    ('state_topic = "weather"', ['sources[0].state_topic: "weather" is not allowed; give "stream/topic"']),
    ('state_topic = "/weather"', ['sources[0].state_topic: "/weather" is not allowed; give "stream/topic"']),
    (f'state_topic = "states/{"x" * 224}"',
     ["sources[0].state_topic: longer than 255 bytes for the stream, or 223 for the topic"]),
    ('state_topic = "s/weather"',
     ["sources[0].state_topic: points may be sent to it; give a topic that nothing else is sent to"]),
])
def test_the_state_is_in_a_file_or_in_a_topic_of_its_own(tmp_path: Path, state: str, expected: list[str]) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(GOOD.format(folder=tmp_path, source="", influxdb="", output="", rest="").replace(
        f'state_file = "{tmp_path}/weather.json"', state))
    try:
        load_config(str(path), {})
    except ConfigError as error:
        assert error.problems == expected
    else:
        assert expected == []


def test_two_sources_need_two_state_topics(tmp_path: Path) -> None:
    one = GOOD.format(folder=tmp_path, source="", influxdb="", output="", rest="").replace(
        f'state_file = "{tmp_path}/weather.json"', 'state_topic = "states/weather"')
    path = tmp_path / "pipeline.toml"
    path.write_text(one + one.replace('name = "weather"', 'name = "other"'))
    with pytest.raises(ConfigError, match='sources\\[1\\].state_topic: "states/weather" is another source\'s already'):
        load_config(str(path), {})


def test_a_state_topic_takes_no_points_of_a_source_further_down(tmp_path: Path) -> None:
    one = GOOD.format(folder=tmp_path, source="", influxdb="", output="", rest="")
    first = one.replace(f'state_file = "{tmp_path}/weather.json"', 'state_topic = "other/weather"')
    second = one.replace("weather", "others").replace('stream = "s"', 'stream = "other"')
    assert second.count('"other"') == 1
    path = tmp_path / "pipeline.toml"
    path.write_text(first + second)
    with pytest.raises(ConfigError, match="sources\\[0\\].state_topic: points may be sent to it"):
        load_config(str(path), {})


def test_the_folder_of_the_state_must_be_there(tmp_path: Path) -> None:
    found = problems(tmp_path, rest=GOOD.format(folder="/nowhere", source="", influxdb="", output="", rest="").replace(
        '"weather"', '"other"'))
    assert found == ['sources[1].state_file: the folder "/nowhere" is missing, or cannot be written to']


@pytest.mark.parametrize(("template", "fed"), [
    ("points", True), ("{measurement}", True), ("{source}-{measurement}", False), ("p{measurement}s", True),
    ("point", False), ("point.", False)])
def test_it_is_known_whether_a_sink_reads_what_a_source_brings(tmp_path: Path, template: str, fed: bool) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(GOOD.format(folder=tmp_path, source="", influxdb="", output=f'topic = "{template}"', rest="""
[[topics]]
stream = "s"
topic = "points"
[influxdb]
org = "o"
bucket = "b"
"""))
    assert fed_by_sources(load_config(str(path), {})) == fed


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("source-*.toml")), ids=lambda path: path.stem)
def test_a_ready_configuration_loads_and_names_every_option_it_should(
        path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(str(path), {})
    assert config.sources
    if path.stem == "source-influxdb1":
        text = path.read_text()
        options = [*SourceConfig.__struct_encode_fields__, *OutputConfig.__struct_encode_fields__]
        elsewhere = {"query", "measurement", "tags", "types", "window_align_ms", "language", "influxdb", "output",
                     "compression", "partition", "state_topic", "retention_policies", "constant_tags",
                     "fields", "exclude_fields", "window_align_zone", "tag_values", "exclude_tag_values", "steps"}
        assert [option for option in options if f"\n{option} = " not in text and option not in elsewhere] == []
    if path.stem == "source-state-topic":
        assert (config.sources[0].state_file, config.sources[0].state_topic) == ("", "pipeline/telemetry-state")


def test_the_example_in_the_documentation_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "reference" / "source.rst").read_text()
    block = text.partition(".. code:: toml\n")[2].partition("\nComplete")[0]
    (tmp_path / "pipeline.toml").write_text(textwrap.dedent(block))
    assert load_config("pipeline.toml", {}).sources[0].output.topic == "{measurement}"
