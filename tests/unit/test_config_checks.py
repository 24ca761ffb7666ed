"""What contradicts, has no effect or is there twice is refused at the start: file, key, and what to do."""

from pathlib import Path

import pytest
import trustme

from pipeline.commands.config import load_config
from pipeline.config.checks import config_warnings
from pipeline.config.connection_checks import same_server
from pipeline.config.load import DATABASE
from pipeline.config.schema import Config
from pipeline.errors import ConfigError

BASE = """
[[topics]]
stream = "s"
topic = "t"
"""
V2 = BASE + '[influxdb]\norg = "o"\nbucket = "b"\n'
MAPPED = V2 + "[mapping]\n"
LONG = "ü" * 128  # 256 bytes


def load(folder: Path, text: str, unused: tuple[str, ...] = ()) -> Config:
    """The configuration in a text."""
    path = folder / "pipeline.toml"
    path.write_text(text)
    return load_config(str(path), {}, unused=unused)


def problems(folder: Path, text: str) -> list[str]:
    """The mistakes in a text; there must be some."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return caught.value.problems


@pytest.mark.parametrize(("lines", "key"), [
    ('timestamp_field = "ts"', "timestamp_field"),
    ('tag_fields = ["time"]', "tag_fields"),
    ('tag_fields = ["a.b"]\nflatten_separator = ""\ntag_renames = { "a.b" = "time" }', "tag_fields"),
    ('tag_fields = ["a"]\ntag_renames = { b = "c" }', "tag_renames"),
    ('tag_map_field = "labels"\ntag_renames = { owner = "who" }', "tag_renames"),
    ('tag_fields = ["a"]\nfield_renames = { a = "c" }', "field_renames"),
    ('field_strategy = "explicit"\nfield_names = ["a"]\nfield_renames = { b = "c" }', "field_renames"),
    ('timestamp_from = "field"\ntimestamp_field = "ts"\nfield_renames = { ts = "c" }', "field_renames"),
    ('measurement_from = "field"\nmeasurement_field = "m"\ntypes = { m = "string" }', "types"),
    ('tag_fields = ["a"]\ntypes = { a = "string" }', "types"),
    ('types = { "^a" = "float" }', "types"),
    ('tag_fields = ["tags.*"]', "tag_fields"), ('tag_fields = ["$.site"]', "tag_fields"),
    ('field_names = ["*"]\nfield_strategy = "explicit"', "field_names"),
    ('field_names = ["a"]', "field_names"), ('format = "csv"\ncsv_delimiter = "\\""', "csv_delimiter"),
    ('format = "csv"\ncsv_header = ["a"]\ntag_fields = ["b"]', "tag_fields"),
    ('format = "text"\ntag_fields = ["b"]', "tag_fields"),
    ('format = "line_protocol"\nconstant_tags = { a = "b" }', "constant_tags"),
    ('format = "line_protocol"\ntag_fields = ["a"]', "tag_fields"),
    ('format = "line_protocol"\ntimestamp_from = "field"\ntimestamp_field = "ts"', "timestamp_from"),
    ('timestamp_from = "field"\ntimestamp_field = ["a", "a"]', "timestamp_field"),
    ('timestamp_from = "field"\ntimestamp_field = []', "timestamp_field"),
    ('timestamp_from = "field"\ntimestamp_field = "a"\ntimestamp_format = []', "timestamp_format"),
    ('timestamp_from = "field"\ntimestamp_field = "a"\ntimestamp_format = ["iso8601", "unix"]', "timestamp_format"),
    ('timestamp_from = "field"\ntimestamp_field = "a"\ntimestamp_format = ["iso8601", "%H:%M"]', "timestamp_format"),
    ('timestamp_from = "field"\ntimestamp_field = "a"\ntimestamp_format = "gps_week"', "timestamp_rest_field"),
    ('timestamp_from = "field"\ntimestamp_field = "a"\ntimestamp_rest_field = "a"', "timestamp_rest_field"),
    ('timestamp_from = "field"\ntimestamp_field = "a"\ntimestamp_rest_field = "b"', "timestamp_format"),
    ('timestamp_rest_field = "b"', "timestamp_rest_field"),
    ('timestamp_not_before = "2020-01-01"', "timestamp_not_before"),
    ('timestamp_from = "field"\ntimestamp_field = "a"\ntimestamp_not_before = "soon"', "timestamp_not_before"),
    ('max_tag_values = 0\non_high_cardinality = "reject"', "on_high_cardinality"),
    ('tag_fields = ["a", "a"]', "tag_fields"), ('metadata_tags = ["topic", "topic"]', "metadata_tags"),
    ('bucket_template = "{a}"\nallowed_buckets = ["x", "x"]', "allowed_buckets"),
    ('rules = [{ when = "a", then = "drop" }, { when = "a", then = "drop" }]', "rules[1].when"),
])
def test_names_without_effect_in_a_mapping_are_refused(tmp_path: Path, lines: str, key: str) -> None:
    assert any(problem.startswith(f"mapping.{key}: ") for problem in problems(tmp_path, MAPPED + lines))


def test_all_mistakes_of_a_mapping_are_told_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, MAPPED + 'timestamp_field = "ts"\ntag_fields = ["time", "$.a"]\n'
                                        'types = { "$.x" = "float" }')
    assert [problem.partition(":")[0] for problem in found] == [
        "mapping.timestamp_field", "mapping.tag_fields", "mapping.tag_fields", "mapping.types"]


@pytest.mark.parametrize("lines", [
    'explode = "values"\ntypes = { values = "float" }',
    'types = { "a.b" = "float", "ok?" = "boolean", "x[0]" = "float" }',
    'tag_map_field = "labels"\ntag_renames = { "labels.owner" = "who" }\ntag_fields = ["labels.x"]',
    'tag_fields = ["time"]\ntag_renames = { time = "at" }', 'field_renames = { time = "at" }',
    'format = "line_protocol"\non_no_fields = "drop"\nline_protocol_precision = "s"\ntypes = { v = "float" }',
    'timestamp_from = "origin_timestamp"\non_missing_timestamp = "iggy_timestamp"',
    'nested = "json"\nfield_renames = { "cpu.load" = "load" }'])
def test_names_that_have_an_effect_are_allowed(tmp_path: Path, lines: str) -> None:
    load(tmp_path, MAPPED + lines)


@pytest.mark.parametrize(("lines", "key"), [
    ('version = "v2"\nbucket = "b"\ndatabase = "d"', "database"),
    ('version = "v1"\nbucket = "b"\ndatabase = "d"', "bucket"),
    ('version = "v3"\nbucket = "b"\ndatabase = "d"', "bucket"),
    ('version = "v1"\ndatabase = "d"\norg = "o"', "org"), ('version = "v1"\ndatabase = "d"\nno_sync = true', "no_sync"),
    ('version = "v2"\nbucket = "b"\nretention_policy = "r"', "retention_policy"),
    ('version = "v3"\ndatabase = "d"\nconsistency = "all"', "consistency"),
    ('bucket = "b"\norg = "o"\norg_id = "0123456789abcdef"', "org_id"), ('database = "d"\norg = "o"', "org"),
    ('bucket = "b"\ntoken = "t"\nusername = "u"', "username"), ('bucket = "b"\npassword = "p"', "password"),
    ('bucket = "b"\ntoken = "Token abc"', "token"), ('bucket = "b"\ntoken = "a\\nb"', "token"),
    ('bucket = "b"\ntoken = "t"\nheaders = { authorization = "x" }', "headers.authorization"),
    ('bucket = "b"\nheaders = { X-A = "x", x-a = "y" }', "headers"),
    ('bucket = "b"\nheaders = { Content-Length = "1" }', "headers.Content-Length"),
    ('bucket = "b"\nreplication = "mirror"', "urls"),
    ('bucket = "b"\nreplication = "mirror"\nurls = ["http://a:1"]', "urls"),
    ('bucket = "b"\nreplication = "mirror"\nurls = ["http://a:1", "http://b:1", "http://A:1/"]', "urls[2]"),
    ('bucket = "b"\nurls = ["http://a", "HTTP://a.:80"]', "urls[1]"),
    ('bucket = "b"\nurl = "http://127.0.0.1:8086"\nurls = ["http://a"]', "urls"), ('bucket = "b"\nurl = ""', "url"),
    ('bucket = "b"\nurl = "http://host:8086/write?x=1"', "url"), ('bucket = "b"\nurl = "http://host:8086/#x"', "url"),
    ('bucket = "b"\nurl = "http://host:8086/api/v2/write"', "url"), ('bucket = "b"\nurl = "http://host:99999"', "url"),
    ('bucket = "b"\nurl = "http://[::1"', "url"), ('bucket = "b"\nurl = "http://ho st"', "url"),
    ('bucket = "b"\nurl = "http://a..b"', "url"), ('bucket = "b"\nurl = "http://:8086"', "url"),
    ('bucket = "b"\nurl = "influx:8086"', "url"), ('bucket = "b"\nproxy = "socks5://proxy:1080"', "proxy"),
    ('bucket = "b"\nca_file = "/dev"', "ca_file"),
    ('bucket = "b"\nca_file = "/dev/null"\ninsecure_skip_verify = true', "insecure_skip_verify"),
    ('bucket = "b"\nretry_backoff_ms = 2_000\nretry_backoff_max_ms = 1_000', "retry_backoff_max_ms"),
])
def test_options_of_a_database_that_contradict_are_refused(tmp_path: Path, lines: str, key: str) -> None:
    found = problems(tmp_path, BASE + f"[influxdb]\n{lines}")
    assert any(problem.startswith(f"influxdb.{key}: ") for problem in found), found


@pytest.mark.parametrize("lines", [
    'bucket = "b"\ndatabase = "d"\norg = "o"', 'version = "v2"\norg = "o"\nbucket = "b"\nurl = "https://host:443/influx/"',
    'bucket = "b"\nurls = ["http://[::1]:8086", "http://[::1]:8087"]', 'bucket = "b"\nusername = "u"',
    'bucket = "b"\nproxy = "http://user:secret@proxy:3128"', 'bucket = "b"\nurl = "http://my_host:8086"'])
def test_options_of_a_database_that_agree_are_allowed(tmp_path: Path, lines: str) -> None:
    load(tmp_path, BASE + f"[influxdb]\n{lines}")


@pytest.mark.parametrize(("one", "other"), [
    ("http://a", "http://A:80/"), ("https://a:443//", "https://a."), ("http://[::1]:8086", "http://[::1]:8086/")])
def test_equivalent_spellings_are_one_server(one: str, other: str) -> None:
    assert same_server(one) == same_server(other)
    assert same_server(one) != same_server(one.rstrip("/") + "/x")


@pytest.mark.parametrize(("text", "key"), [
    (V2 + '[iggy]\naddress = "iggy://u:p@h:8090"', "iggy.address"), (V2 + '[iggy]\naddress = "h:0"', "iggy.address"),
    (V2 + '[iggy]\naddress = "::1:8090"', "iggy.address"), (V2 + '[iggy]\naddress = "h/x:8090"', "iggy.address"),
    (V2 + '[iggy]\naddress = "h:99999"', "iggy.address"), (V2 + '[iggy]\naddress = "h:²"', "iggy.address"),
    (V2 + f'[iggy]\nconsumer = "{LONG}"', "iggy.consumer"),
    (V2 + f'[iggy]\nconsumer_group = "{LONG}"', "iggy.consumer_group"),
    (V2 + f'[iggy]\nusername = "{LONG}"', "iggy.username"), (V2 + f'[iggy]\npassword = "{LONG}"', "iggy.password"),
    (V2.replace('"s"', f'"{LONG}"'), "topics[0].stream"), (V2.replace('"t"', f'"{LONG}"'), "topics[0].topic"),
    (V2 + f'[dead_letters]\ntopic = "{LONG}"', "dead_letters.topic"),
    (V2 + f'[dead_letters]\nstream = "{LONG}"', "dead_letters.stream"),
    (V2 + '[dead_letters]\nstores = []\ntopic = "x"', "dead_letters.topic"),
    (V2 + "[dead_letters]\nmax_files = 3", "dead_letters.max_files"),
    (V2 + '[dead_letters]\nstores = ["iggy", "iggy"]', "dead_letters.stores"),
    (V2 + '[dead_letters]\nstores = ["file"]\nfile = "/"', "dead_letters.file"),
    (V2 + "[network]\nport = 9", "network.port"),
    (V2 + "[pipeline]\nwindow_bytes = 99999999999999999999", "pipeline.window_bytes"),
    (V2 + "[pipeline]\ndrain_timeout_ms = nan", "pipeline.drain_timeout_ms"),
    (V2 + "[pipeline]\ndrain_timeout_ms = inf", "pipeline.drain_timeout_ms"),
    (V2 + '[pipeline]\nruntime_dir = "/dev/null"', "pipeline.runtime_dir"),
    (V2 + '[pipeline]\nruntime_dir = "/dev/null/below"', "pipeline.runtime_dir"),
    (V2 + '[pipeline]\nruntime_dir = "a\\u0000b"', "pipeline.runtime_dir"),
    (V2 + f'[pipeline]\nruntime_dir = "/tmp/{"x" * 90}"', "pipeline.runtime_dir"),
    (V2 + "[[topics]]\nstream = 's'\ntopic = 'u'\nstart_from = 99999999999999999999", "topics[1].start_from"),
    (V2 + "[[topics]]\nstream = 's'\ntopic = 'u'\nstart_from = '1969-12-31T00:00:00Z'", "topics[1].start_from"),
    (V2 + "[[topics]]\nstream = 's'\ntopic = 'u'\npartitions = [4294967296]", "topics[1].partitions[0]"),
    (V2 + "[[tests]]\nname = 'x'\nmessage = { a = 99999999999999999999 }", "tests[0].message.a"),
    (V2 + "[[tests]]\nname = 'x'\ntimestamp_us = 9999999999999999999", "tests[0].timestamp_us"),
])
def test_what_iggy_and_the_system_can_not_take_is_refused(tmp_path: Path, text: str, key: str) -> None:
    found = problems(tmp_path, text)
    assert any(problem.startswith(f"{key}: ") for problem in found), found


SOURCE = """
[[sources]]
name = "n"
state_file = "{state}"
{source}
[sources.influxdb]
{influxdb}
[sources.output]
stream = "o"
{output}
"""


@pytest.mark.parametrize(("parts", "key"), [
    ({"state": "/tmp"}, "sources[0].state_file"), ({"source": 'measurements = ["a", "a"]'}, "sources[0].measurements"),
    ({"influxdb": 'database = "d"\nurl = "http://h?x=1"'}, "sources[0].influxdb.url"),
    ({"influxdb": 'database = "d"\npassword = "p"'}, "sources[0].influxdb.password"),
    ({"influxdb": 'version = "v1"\ndatabase = "d"\nbucket = "b"'}, "sources[0].influxdb.bucket"),
    ({"influxdb": 'database = "d"\nca_file = "/tmp"'}, "sources[0].influxdb.ca_file"),
    ({"output": f'dead_letter_topic = "{LONG}"'}, "sources[0].output.dead_letter_topic"),
    ({"output": '[dead_letters]\ntopic = "x"'}, "dead_letters"),
])
def test_the_same_holds_for_sources(tmp_path: Path, parts: dict[str, str], key: str) -> None:
    found = problems(tmp_path, SOURCE.format(**{"state": "x.json", "source": "", "influxdb": 'database = "d"',
                                                "output": "", **parts}))
    assert any(problem.startswith(f"{key}: ") for problem in found), found


def test_a_token_file_must_hold_a_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    text = V2 + 'token_file = "token"\n'
    assert problems(tmp_path, text) == [f'influxdb.token_file: "{file}" cannot be read']
    file.touch(0o600)
    for content, wrong in ((b"", "is empty"), (b" \n", "is empty"), (b"a\nb\n", "line break"),
                           (b"x" * 70_000, "is larger than"), (b"Bearer x", "write the token alone")):
        file.write_bytes(content)
        assert wrong in problems(tmp_path, text)[0]
    file.write_bytes(b"secret\n")
    assert load(tmp_path, text).influxdb.token_file == str(file)
    assert load(tmp_path, V2 + 'token_file = "gone"\n', DATABASE).influxdb.token_file == str(tmp_path / "gone")


def test_files_of_tls_must_be_pem_and_belong_together(tmp_path: Path) -> None:
    (tmp_path / "text").touch(0o600)
    (tmp_path / "text").write_text("no certificate")
    tls = V2 + 'url = "https://h"\n'
    assert "holds no certificate in PEM" in problems(tmp_path, tls + 'ca_file = "text"')[0]
    assert problems(tmp_path, tls + 'client_cert_file = "text"')[0].startswith("influxdb.client_cert_file: ")
    authority = trustme.CA()
    for name in ("a", "b"):
        certificate = authority.issue_cert("localhost")
        (tmp_path / f"{name}.key").touch(0o600)
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    load(tmp_path, tls + 'ca_file = "a.pem"\nclient_cert_file = "a.pem"\nclient_key_file = "a.key"')
    assert problems(tmp_path, tls + 'client_cert_file = "a.pem"\nclient_key_file = "b.key"')


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "token").touch(0o600)
    (tmp_path / "etc" / "token").write_text("t")
    monkeypatch.chdir(tmp_path)
    config = load(tmp_path / "etc", V2 + 'token_file = "token"\n[dead_letters]\nstores = ["file"]\n'
                                         'file = "../d/x.ndjson"\n[pipeline]\nruntime_dir = "run"\n')
    assert config.influxdb.token_file == str(tmp_path / "etc" / "token")
    assert Path(config.dead_letters.file).resolve() == tmp_path / "d" / "x.ndjson"
    assert config.pipeline.runtime_dir == str(tmp_path / "etc" / "run")
    assert load_config("etc/pipeline.toml", {}).influxdb.token_file == str(tmp_path / "etc" / "token")


def test_options_that_harm_nothing_are_only_warned_of(tmp_path: Path) -> None:
    config = load(tmp_path, SOURCE.format(state="x.json", source="max_fingerprints = 5", influxdb='database = "d"',
                                          output="[pipeline]\nwriters = 3\n"))
    assert [warning.partition(":")[0] for warning in config_warnings(config)] == [
        "pipeline.writers", "sources[0].max_fingerprints"]
    config = load(tmp_path, MAPPED + 'constant_tags = { a = "", b = "c" }\nfield_strategy = "explicit"\n'
                                     'field_names = ["v"]\nexclude_fields = ["w"]')
    assert [warning.partition(": no ")[0] for warning in config_warnings(config)] == [
        "sink main: mapping.exclude_fields", "sink main: mapping.constant_tags.a"]
    sink = '[[sinks]]\nname = "{0}"\nconsumer = "{0}"\n[[sinks.topics]]\nstream = "s"\ntopic = "t"\n' \
        '[sinks.influxdb]\nbucket = "b"\n'
    assert "sink two: s/t is also read by sink one" in config_warnings(
        load(tmp_path, sink.format("one") + sink.format("two")))[0]
    config = load(tmp_path, V2 + "insecure_skip_verify = true")
    assert [warning.partition(": no ")[0] for warning in config_warnings(config)] == [
        "sink main: influxdb.insecure_skip_verify"]
    config = load(tmp_path, MAPPED + 'timestamp_format = "rfc3339"\narray_join_separator = ";"\ncsv_delimiter = ";"\n'
                                     'text_field = "line"\nline_protocol_precision = "s"\n'
                                     'on_missing_timestamp = "arrival"\n')
    assert [warning.partition(" without ")[0] for warning in config_warnings(config)] == [
        f"sink main: mapping.{option}: no effect" for option in (
            "timestamp_format", "array_join_separator", "csv_delimiter", "text_field", "line_protocol_precision")] + [
        'sink main: mapping.on_missing_timestamp: no effect with timestamp_from = "iggy_timestamp"']
