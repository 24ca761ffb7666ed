"""`pipeline config`: what is shown, described, made and renewed."""

import datetime
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.commands.config import load_config
from pipeline.commands.configuration.show import HIDDEN
from pipeline.config.compare import changed_keys
from pipeline.config.json_schema import config_schema
from pipeline.config.load import examine_config, file_keys
from pipeline.config.renamed import RENAMED_KEYS
from pipeline.config.secret_keys import is_secret
from pipeline.config.toml_values import toml_key, toml_value

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "configs").rglob("*.toml") if path.name != "broken-on-purpose.toml")
BASE = """[[topics]]
stream = "s"
topic = "t"
[influxdb]
org = "o"
bucket = "b"
token = "hunter2-secret"
proxy = "http://me:hunter2-secret@proxy:1"
headers = { X-Api-Key = "hunter2-secret", X-Scope = "seen" }
"""


def run(*arguments: str, environ: dict[str, str] | None = None) -> Result:
    """The command's result."""
    return CliRunner().invoke(main, ["config", *arguments], env=environ)


def test_show_has_every_value_with_its_origin_and_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(BASE + '[pipeline]\nlog_level = "${LEVEL:-info}"\n')
    shown = run("show", "-c", str(path), "--set", "pipeline.workers=3",
                environ={"PIPELINE_IGGY__PASSWORD": "hunter2-secret", "LEVEL": "debug"})
    assert shown.exit_code == 0, shown.output
    assert "hunter2" not in shown.output
    tables = tomllib.loads(shown.output)
    assert tables["influxdb"]["token"] == tables["iggy"]["password"] == HIDDEN
    assert tables["influxdb"]["headers"] == {"X-Api-Key": HIDDEN, "X-Scope": "seen"}
    assert tables["influxdb"]["proxy"] == "http://me:***@proxy:1"
    assert tables["topics"] == [{"stream": "s", "topic": "t", "exclude": [], "start_from": "earliest", "partitions": [],
                                 "on_truncation": ""}]
    lines = {line.partition(" = ")[0]: line.rpartition("# ")[2] for line in shown.output.splitlines()}
    assert lines["bucket"] == f"{path}:6"
    assert (lines["workers"], lines["batch_size"]) == ("--set", "default")
    assert lines["log_level"] == f"{path}:11, LEVEL"
    changed = run("show", "-c", str(path), "--changed").output
    assert "bucket" in changed and "# default" not in changed
    rows = [json.loads(line) for line in run("show", "-c", str(path), "--json").output.splitlines()]
    assert {"key": "topics[0].topic", "value": "t", "from": f"{path}:3"} in rows
    rows = [json.loads(line) for line in run("show", "-c", str(path), "--json", environ={
        "PIPELINE_IGGY__PASSWORD": "hunter2-secret"}).output.splitlines()]
    assert {"key": "iggy.password", "value": HIDDEN, "from": "PIPELINE_IGGY__PASSWORD"} in rows


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_show_of_an_example_is_a_configuration_again(path: Path, tmp_path: Path) -> None:
    variables = re.findall(r"\$\{([A-Z_]*(?:TOKEN|PASSWORD))(?:\}|:\?)", path.read_text())
    shown = run("show", "-c", str(path), environ=dict.fromkeys(variables, "a-long-enough-text"))
    assert shown.exit_code == 0, shown.output
    tables = tomllib.loads(shown.output)
    assert all("do" in step for step in tables.get("mapping", {}).get("steps", []))
    again = tmp_path / "shown.toml"
    again.write_text(shown.output)
    config, same = (examine_config(str(one), dict.fromkeys(variables, HIDDEN), unused=("tests", *file_keys())).config
                    for one in (path, again))
    assert config is not None and same is not None
    assert [key for key in changed_keys(config, same) if not is_secret(key)
            and not key.endswith((".url", ".address", "tests"))] == []


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    """The printed schema."""
    schema = json.loads(run("schema").output)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def plain(value: Any) -> Any:
    """TOML's times as editors have them."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_valid_by_the_schema(validator: jsonschema.Draft202012Validator, path: Path) -> None:
    assert [error.message for error in validator.iter_errors(plain(tomllib.loads(path.read_text())))] == []


@pytest.mark.parametrize("text", [
    "[iggy]\nadress = 1", "pipeline.workers = -1", 'pipeline.workers = "many"', 'influxdb.version = "v4"',
    'mapping.types = { a = "decimal" }', "topics = 3", '[[topics]]\nstream = "s"', 'mapping.csv_delimiter = ";;"'])
def test_the_schema_refuses_what_is_wrong(validator: jsonschema.Draft202012Validator, text: str) -> None:
    assert list(validator.iter_errors(tomllib.loads(text)))


def test_the_schema_describes_every_key_and_takes_variables(validator: jsonschema.Draft202012Validator) -> None:
    schema = config_schema()
    missing = [f"{name}.{key}" for name, table in schema["$defs"].items() if "properties" in table
               for key, value in table["properties"].items() if "description" not in value]
    assert missing == []
    for text in ('pipeline.workers = "${N}"', 'influxdb.gzip = "${G:-true}"', 'influxdb.urls = "${U}"'):
        assert not list(validator.iter_errors(tomllib.loads(text)))


@pytest.mark.parametrize(("sink", "source", "every_key"), [
    *((sink, "", every) for every in (False, True)
      for sink in ("v1", "v2", "v3", "cloud", "victoriametrics", "questdb")),
    *(("", source, every) for source in ("v1", "v2", "v3", "cloud") for every in (False, True)),
    ("v2", "v2", True), ("v1", "v3", False), ("cloud", "cloud", False)])
def test_a_new_configuration_checks(tmp_path: Path, sink: str, source: str, every_key: bool) -> None:
    assert run("init").exit_code == 2
    path = tmp_path / "new.toml"
    options = [*(["--sink", sink] if sink else []), *(["--source", source] if source else []),
               *(["--all"] if every_key else [])]
    made = run("init", *options, "--to", str(path))
    assert made.exit_code == 0, made.output
    checked = run("check", "-c", str(path), "--json")
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.output)["problems"] == []
    again = run("init", *options, "--to", str(path))
    assert again.exit_code == 1 and "exists" in again.output


def test_check_names_all_in_one_object(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(BASE + "[pipeline]\nworker = 1\nbatch_size = 0\n")
    checked = run("check", "-c", str(path), "--json", environ={"PIPELINE_IGGY_ADDRESS": "x"})
    assert checked.exit_code == 2
    found = json.loads(checked.output)
    assert [(one["file"], one["line"], one["key"]) for one in found["problems"]] == [
        (str(path), 11, "pipeline.worker"), (str(path), 12, "pipeline.batch_size")]
    assert found["problems"][0]["problem"] == "unknown key; did you mean workers?"
    assert "did you mean PIPELINE_IGGY__ADDRESS?" in found["warnings"][0]
    assert "hunter2" not in checked.output


def test_the_environment_names_files_where_no_option_does(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(BASE)
    (tmp_path / "b.toml").write_text("[pipeline]\nworker = 1\n")
    environ = {"PIPELINE_CONFIG": f"{tmp_path / 'a.toml'}:{tmp_path / 'b.toml'}"}
    assert "b.toml:2: pipeline.worker: unknown key" in run("check", environ=environ).output
    assert run("check", "-c", str(tmp_path / "a.toml"), environ=environ).exit_code == 0
    assert run("check").exit_code == 2 and "--config" in run("check").output
    assert "PIPELINE_CONFIG" in run("check", "--help").output


def test_kubernetes_variables_of_a_service_called_pipeline_are_not_named(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(BASE)
    checked = run("check", "-c", str(path), "--json", environ={
        "PIPELINE_SERVICE_HOST": "x", "PIPELINE_PORT": "tcp://x", "PIPELINE_PORT_8080_TCP_ADDR": "x",
        "PIPELINE_SERVICE_PORT_HTTP": "1", "PIPELINE_TRACEBACK": ""})
    assert json.loads(checked.output)["warnings"] == []


OLD = """# kept
[pipeline]  # comment
drain_seconds = 30   # half a minute
restart_window_seconds=1.5
heartbeat_timeout_seconds = "${SECONDS}"
'ingest' = 2

[mapping]
separator = "."

[influxdb]
url = "http://a:1"
more_urls = [ "http://b:2" ]  # and b
targets = "mirror"

[[source]]
name = "x"
parallel = 3
[source.output]
send_messages = 5
[[source]]
influxdb = { url = "http://c:3", more_urls = ["http://d:4"] }
"""
NEW = """# kept
[pipeline]  # comment
drain_timeout_ms = 30000   # half a minute
restart_window_ms=1500
heartbeat_timeout_ms = "${SECONDS}"
readers = 2

[mapping]
flatten_separator = "."

[influxdb]
urls = ["http://a:1",  "http://b:2" ]  # and b
replication = "mirror"

[[sources]]
name = "x"
max_parallel_queries = 3
[sources.output]
messages_per_send = 5
[[sources]]
influxdb = { url = "http://c:3", urls = ["http://d:4"] }
"""


def test_migrate_renews_keys_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text(OLD)
    path.chmod(0o640)
    printed = run("migrate", "-c", str(path))
    assert printed.exit_code == 0
    for line in ("-drain_seconds = 30   # half a minute", "+drain_timeout_ms = 30000   # half a minute"):
        assert line in printed.output.splitlines()
    assert "# kept" not in printed.output
    assert path.read_text() == OLD
    written = run("migrate", "-c", str(path), "--write")
    assert written.exit_code == 0 and path.read_text() == NEW and path.stat().st_mode & 0o777 == 0o640
    assert f"{path}:3: drain_seconds is now drain_timeout_ms (milliseconds)" in written.output
    assert "heartbeat_timeout_ms is in milliseconds: multiply its value by 1000" in written.output
    assert "list every server" in written.output
    assert "has no old keys" in run("migrate", "-c", str(path), "--write").output


@pytest.mark.parametrize("renamed", RENAMED_KEYS, ids=lambda renamed: renamed.old)
def test_every_old_key_is_renewed(tmp_path: Path, renamed: Any) -> None:
    path = tmp_path / "old.toml"
    table, _, name = renamed.old.rpartition(".")
    header = f"[[{table}]]" if table == "sources" else f"[{table}]" if table else ""
    path.write_text(f"{header}\n{name} = 2 # x\n")
    run("migrate", "-c", str(path), "--write")
    assert path.read_text() == f"{header}\n{renamed.name} = {2 * renamed.factor} # x\n"


@given(st.recursive(st.text() | st.integers(-2**63, 2**63 - 1) | st.booleans() | st.floats(allow_nan=False),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)))
def test_any_value_is_written_as_toml(value: Any) -> None:
    assert tomllib.loads(f"{toml_key('a b')} = {toml_value(value)}") == {"a b": value}


def test_a_migrated_file_of_every_kind_loads(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text(BASE + "[pipeline]\ndrain_seconds = 30\n[dead_letters]\nto = []\n")
    run("migrate", "-c", str(path), "--write")
    assert load_config(str(path), {}).pipeline.drain_timeout_ms == 30_000
