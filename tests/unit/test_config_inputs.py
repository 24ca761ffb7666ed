"""A configuration of several files, folders, environment variables and `--set`: what wins, and where mistakes are."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.config import load_config
from pipeline.config.compare import changed_keys
from pipeline.config.inputs import ConfigInputs, Document
from pipeline.config.schema import Config
from pipeline.config.toml_text import key_lines, scan
from pipeline.errors import ConfigError

BASE = '[[topics]]\nstream = "s"\ntopic = "t"\n[influxdb]\norg = "o"\nbucket = "b"\n'


def load(folder: Path, *settings: str, environ: dict[str, str] | None = None, **files: str) -> Config:
    """The configuration of these files (name -> text) in this order, with BASE before them."""
    paths = []
    for name, text in {"base": BASE, **files}.items():
        (folder / f"{name}.toml").write_text(text)
        paths.append(str(folder / f"{name}.toml"))
    return load_config(ConfigInputs(tuple(paths), settings), environ or {})


def problems(folder: Path, *settings: str, environ: dict[str, str] | None = None, **files: str) -> list[str]:
    """The mistakes, with their places, without the folder."""
    with pytest.raises(ConfigError) as caught:
        load(folder, *settings, environ=environ, **files)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.located]


def test_tables_of_several_files_merge_and_arrays_of_tables_append(tmp_path: Path) -> None:
    config = load(tmp_path, a='[[topics]]\nstream = "s"\ntopic = "u"\n[mapping]\nconstant_tags = { a = "1" }',
                  b='influxdb.precision = "ms"\nmapping.constant_tags.b = "2"\ninfluxdb.org = "o"')
    assert [topic.topic for topic in config.topics] == ["t", "u"]
    assert config.mapping.constant_tags == {"a": "1", "b": "2"}
    assert (config.influxdb.precision, config.influxdb.bucket) == ("ms", "b")


def test_a_key_with_two_values_names_both_files_and_lines(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, a='# another\n[influxdb]\nbucket = "other"')
    assert problem.startswith("a.toml:3: influxdb.bucket: given twice with different values; ")
    assert f"{tmp_path}/base.toml:6" in problem.replace("base.toml", f"{tmp_path}/base.toml")
    assert "other" not in problem.replace("another one", "")


def test_a_folder_is_read_in_the_order_of_bytes_without_hidden_and_backup_files(tmp_path: Path) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    for name, topic in (("b.toml", "2"), ("B.toml", "1"), ("ä.toml", "3")):
        (folder / name).write_text(f'[[topics]]\nstream = "s"\ntopic = "t{topic}"\n')
    for name in (".hidden.toml", "b.toml~", "b.toml.bak", "#b.toml", "README"):
        (folder / name).write_text("[")
    (tmp_path / "elsewhere").write_text(BASE.partition("[influxdb]")[1] + BASE.partition("[influxdb]")[2])
    (folder / "z.toml").symlink_to(tmp_path / "elsewhere")
    config = load_config(str(folder), {})
    assert [topic.topic for topic in config.topics] == ["t1", "t2", "t3"]


def test_what_cannot_be_read_is_one_sentence_each_and_the_rest_is_checked(tmp_path: Path) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "a.toml").mkdir()
    (folder / "b.toml").write_bytes(b"x = '\xff'")
    (folder / "c.toml").write_bytes(b"iggy = {}\nb = '\0'")
    (folder / "d.toml").symlink_to(tmp_path / "nowhere")
    (folder / "e.toml").write_text("[iggy]\nadress = 1\n")
    (folder / "f.toml").write_text("[" + "a." * 200 + "b]")
    with pytest.raises(ConfigError) as caught:
        load_config(str(folder), {})
    found = [str(problem).removeprefix(f"{folder}/") for problem in caught.value.located]
    for start in ("a.toml: is a folder", "b.toml:1: is not UTF-8 text", "c.toml:2: is not valid TOML",
                  "d.toml: cannot be read: No such file", "e.toml:2: iggy.adress: unknown key; did you mean address?",
                  "f.toml: is not valid TOML: nested too deep"):
        assert len([line for line in found if line.startswith(start)]) == 1, (start, found)
    assert len(found) == 6


@pytest.mark.parametrize(("paths", "problem"), [
    (("none.toml",), "none.toml: cannot be read: No such file"), (("empty",), "empty: has no file *.toml"),
    (("base.toml", "base.toml"), "base.toml: is given twice"),
    (("base.toml", "link.toml"), "link.toml: is given twice"),
])
def test_paths_that_cannot_be_meant_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: tuple[str, ...],
                                              problem: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "base.toml").write_text(BASE)
    (tmp_path / "link.toml").symlink_to("base.toml")
    with pytest.raises(ConfigError) as caught:
        load_config(ConfigInputs(paths), {})
    assert str(caught.value).startswith(problem)


def test_after_a_syntax_error_the_rest_of_the_file_and_the_others_are_checked(tmp_path: Path) -> None:
    assert [line.partition("; ")[0] for line in problems(
        tmp_path, a="[pipeline]\nlog_level = debug\nbatchsize = 1\nworkers 5\n", b="[iggy]\nx = [1\n",
        c="influxdb.tokn = 1")] == [
        "a.toml:2: is not valid TOML: Invalid value (at line 2, column 13)",
        "a.toml:3: pipeline.batchsize: unknown key",
        "a.toml:4: is not valid TOML: Expected '=' after a key in a key/value pair (at line 4, column 9)",
        "b.toml: is not valid TOML: Unclosed array (at end of document)" if "document" in str(_unclosed()) else
        "b.toml:3: is not valid TOML: Unclosed array (at line 3, column 1)",
        "c.toml:1: influxdb.tokn: unknown key"]


def test_a_table_that_is_there_twice_is_named_and_its_keys_are_checked(tmp_path: Path) -> None:
    found = problems(tmp_path, a="[pipeline]\nworkers = 1\n[iggy]\n[pipeline]\nworkers = 2\nworker = 3\n[iggy]\nx = 1")
    assert [line.partition(";")[0].partition(" (at")[0] for line in found] == [
        "a.toml:4: is not valid TOML: Cannot declare ('pipeline',) twice",
        "a.toml:5: pipeline.workers: given twice with different values",
        "a.toml:6: pipeline.worker: unknown key",
        "a.toml:7: is not valid TOML: [iggy] is there twice",
        "a.toml:8: iggy.x: unknown key"]
    assert len(problems(tmp_path, a="[iggy]\n" * 100)) == 99
    (problem,) = problems(tmp_path, a="[[topics]]\nstream='s'\ntopic='x'\n[topics.x]\n[topics.x]\ny = 1\n")
    assert problem.startswith("a.toml:5: is not valid TOML: Cannot declare ('topics', 'x') twice")


@pytest.mark.parametrize(("text", "mistakes"), [
    ("[influxdb]\nbucke = 'x'", ["a.toml:2"]), ("[influxdb]\nversion = 'v4'", ["a.toml:2"]),
    ("[mapping]\nmeasurement_from = 'sttic'\nmeasurement_name = 'x'", ["a.toml:2"]),
    ("[mapping]\ntimestamp_from = field\ntimestamp_field = 'ts'", ["a.toml:2"]),
    ("[[mapping.rules]]\nwhen = 'a'\nthne = 'drop'", ["a.toml:3"]),
    ("[[topics]]\nstream = s\ntopic = 't'", ["a.toml:2"]),
    ("[[mapping.steps]]\ndo = 'splt'\npath = 'a'", ["a.toml:2"]),
    ("[dead_letters]\nstores = ['fil']\nfile = 'x'", ["a.toml:2"]),
    ("[[tests]]\nname = 'a'\nmesage = '{}'\ndropped = true", ["a.toml:3"]),
    ("[network]\nlistn = '0.0.0.0'\nkeys = 'k'", ["a.toml:2"]),
])
def test_one_mistake_is_told_once_and_not_what_follows_from_it(tmp_path: Path, text: str, mistakes: list[str]) -> None:
    found = [line.partition(": ")[0] for line in problems(tmp_path, a=text)]
    assert found == mistakes


@pytest.mark.parametrize("text", [
    "".join(f"key{index} = {index}\n" for index in range(3_000)), "[pipeline]\nworkers = [" + "-1, " * 3_000 + "]",
    "topics = [" + "{}, " * 3_000 + "]", "mapping.tag_fields = [" + "1, " * 3_000 + "]"])
def test_a_file_with_very_many_mistakes_has_the_first_of_them_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "many.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(str(path), {})
    assert len(caught.value.problems) <= 1_001
    assert caught.value.problems[-1] == "these are the first 1,000 mistakes" or "workers" in text


@pytest.mark.parametrize("text", [
    "[" + "a." * 50_000 + "b]", "a." * 50_000 + "b = 1", "x = {" + "a." * 50_000 + "b = 1}", "x = " + "{a=" * 50_000,
    "x = " + "[" * 50_000 + "]" * 50_000])
def test_a_file_that_is_nested_very_deep_is_one_mistake(text: str) -> None:
    document = Document("a.toml", "/", text)
    assert document.is_broken
    (problem,) = document.problems
    assert str(problem).startswith("a.toml: is not valid TOML: nested too deep")


def test_a_key_of_another_table_is_told_where_it_belongs(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, a="[influxdb]\nflush_interval_ms = 5")
    assert problem == "a.toml:2: influxdb.flush_interval_ms: unknown key; it belongs to [pipeline]"


def test_after_a_mistake_keys_have_their_lines_and_a_header_without_its_brackets_is_one(tmp_path: Path) -> None:
    found = problems(tmp_path, a="[pipeline]\nworkers 5\n\n[iggy  # here\nadress = 'x'\n"
                                 "[[topics]\nstream = 's'\nnam = 1\n")
    starts = ["a.toml:2: is not valid TOML: ", "a.toml:4: is not valid TOML: Expected ']' at the end of a table",
              "a.toml:5: iggy.adress: unknown key; did you mean address?",
              "a.toml:6: is not valid TOML: Expected ']]' at the end of an array", "a.toml:6: topics[1].topic: missing",
              "a.toml:8: topics[1].nam: unknown key"]
    assert [line[:len(start)] for line, start in zip(found, starts, strict=False)] == starts


def _unclosed() -> tomllib.TOMLDecodeError:
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads("[iggy]\nx = [1\n")
    return caught.value


def test_flags_win_over_the_environment_and_that_over_files(tmp_path: Path) -> None:
    environ = {"PIPELINE_INFLUXDB__BUCKET": "environment", "PIPELINE_INFLUXDB__ORG": "environment",
               "PIPELINE_PIPELINE__WORKERS": "3", "OTHER": "x"}
    config = load(tmp_path, "influxdb.bucket=flag", environ=environ, a="pipeline.workers = 2\npipeline.writers = 4")
    assert (config.influxdb.bucket, config.influxdb.org) == ("flag", "environment")
    assert (config.pipeline.workers, config.pipeline.writers) == (3, 4)


@pytest.mark.parametrize(("key", "value", "wanted"), [
    ("topics.0.topic", "other", "other"), ("topics[0].topic", '"quoted"', "quoted"), ("topics.0.start_from", "5", 5),
    ("topics.0.start_from", "2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z"), ("influxdb.username", "1234", "1234"),
    ("influxdb.gzip", "false", False), ("influxdb.urls", "http://a:1,http://b:2", ("http://a:1", "http://b:2")),
    ("influxdb.urls", '["http://a:1"]', ("http://a:1",)), ("mapping.constant_tags.Site", "x", {"Site": "x"}),
    ("mapping.constant_tags", '{ "a.b" = "c" }', {"a.b": "c"}), ('mapping.constant_tags."a.b"', "c", {"a.b": "c"}),
    ("topics.0.partitions", "1,2", (1, 2)), ("influxdb.retry_backoff_multiplier", "3", 3),
    ("mapping.tag_fields", "[]", ()), ("influxdb.org", "a=b", "a=b"),
])
def test_a_setting_takes_the_place_of_a_key(tmp_path: Path, key: str, value: str, wanted: Any) -> None:
    steps = [step for step in key.replace("[0]", ".0").replace('."a.b"', "").split(".") if step != "Site"]
    for config in (load(tmp_path, f"{key}={value}"),
                   load(tmp_path, environ={f"PIPELINE_{'__'.join(steps[:-1]).upper()}__{steps[-1].upper()}": value})
                   if '"a' not in key and "Site" not in key else None):
        found: Any = config
        for step in steps if config is not None else ():
            found = found[int(step)] if step.isdigit() else getattr(found, step)
        assert config is None or found == wanted


def test_elements_are_named_by_number_or_name_and_can_be_added(tmp_path: Path) -> None:
    sinks = "".join(f'[[sinks]]\nname = "{name}"\ntopics = [{{ stream = "s", topic = "{name}" }}]\n'
                    'influxdb = { org = "o", bucket = "b" }\n' for name in ("one", "two-b"))
    path = tmp_path / "sinks.toml"
    path.write_text(sinks)
    config = load_config(ConfigInputs((str(path),), ("sinks.two-b.influxdb.bucket=set",)),
                         {"PIPELINE_SINKS__ONE__INFLUXDB__BUCKET": "named",
                          "PIPELINE_SINKS__TWO_B__TOPICS__0__TOPIC": "numbered",
                          "PIPELINE_SINKS__0__TOPICS__1__TOPIC": "added", "PIPELINE_SINKS__0__TOPICS__1__STREAM": "s"})
    assert [sink.influxdb.bucket for sink in config.sinks] == ["named", "set"]
    assert [topic.topic for sink in config.sinks for topic in sink.topics] == ["one", "added", "numbered"]


def test_a_text_of_the_environment_is_taken_as_it_is(tmp_path: Path) -> None:
    environ = {"PIPELINE_INFLUXDB__TOKEN": "a$$b${X}$Y"}
    assert load(tmp_path, environ=environ).influxdb.token == "a$$b${X}$Y"
    assert load(tmp_path, "influxdb.token=${X}", environ={"X": "from-x"}).influxdb.token == "from-x"


@pytest.mark.parametrize(("setting", "problem"), [
    ("influxdb.bucke=x", "--set: influxdb.bucke: unknown key; did you mean bucket?"),
    ("pipeline.workers=many", '--set: pipeline.workers: "many" is not allowed; give an integer from 0 to 256'),
    ("topics.7.topic=x", "--set: topics.7.topic: topics has 1 elements; give a number from 0 to 1"),
    ("topics.x.topic=x", "--set: topics.x.topic: topics has no element of that name"),
    ("influxdb.bucket.x=1", "--set: influxdb.bucket.x: influxdb.bucket is a value, and holds no keys"),
    ("a." * 5_000 + "b=1", "--set: a.a."),
    ("tests.0.message=" + "{a=" * 150 + "1" + "}" * 150, "--set: tests.0.message: "),
    ("influxdb.org=\udcff", "--set: influxdb.org: is not UTF-8 text"),
    ("influxdb", "--set: is not KEY=VALUE"), ("=x", "--set: is not KEY=VALUE"), ("a..b=x", "--set: is not KEY=VALUE"),
])
def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, setting: str, problem: str) -> None:
    assert any(line.startswith(problem) for line in problems(tmp_path, setting))


@pytest.mark.parametrize("setting", [
    "influxdb.token=hunter2-secret", "iggy.password=hunter2-secret", 'influxdb={token="hunter2-secret"}',
    "influxdb.headers.Authorization=hunter2-secret", "influxdb.proxy=http://me:hunter2-secret@host:1",
    'influxdb.headers={X-Api-Key="hunter2-secret"}', "iggy.connection_string=iggy+tcp://hunter2-secret@host:1",
    "iggy.address=iggy://hunter2-secret@host:1"])
def test_a_secret_in_an_argument_is_refused_and_not_shown(tmp_path: Path, setting: str) -> None:
    (problem,) = problems(tmp_path, setting)
    assert "visible to every user" in problem and "PIPELINE_" in problem and "hunter2" not in problem


def test_a_wrong_value_of_the_environment_is_named_and_not_shown(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, environ={"PIPELINE_PIPELINE__WORKERS": "hunter2-secret"})
    assert problem.startswith("PIPELINE_PIPELINE__WORKERS: pipeline.workers: ") and "hunter2" not in problem
    (problem,) = problems(tmp_path, environ={"PIPELINE_IGGY__ADRESS": "hunter2-secret"})
    assert problem == "PIPELINE_IGGY__ADRESS: iggy.adress: unknown key; did you mean address?"


def test_bytes_of_the_environment_that_are_no_text_are_named(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, environ={"PIPELINE_INFLUXDB__ORG": "\udcff"})
    assert problem == "PIPELINE_INFLUXDB__ORG: influxdb.org: is not UTF-8 text"


def test_relative_paths_are_relative_to_their_own_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    secret = tmp_path / "etc" / "token"
    secret.write_text("t")
    secret.chmod(0o600)
    (tmp_path / "etc" / "two.toml").write_text('influxdb.token_file = "token"')
    (tmp_path / "base.toml").write_text(BASE)
    config = load_config(ConfigInputs((str(tmp_path / "base.toml"), str(tmp_path / "etc" / "two.toml"))), {})
    assert config.influxdb.token_file == str(secret)


def test_what_differs_between_two_configurations_is_named(tmp_path: Path) -> None:
    old = load(tmp_path)
    assert changed_keys(old, load(tmp_path)) == []
    new = load(tmp_path, "mapping.tag_fields=a", "influxdb.bucket=c", "topics.0.topic=u")
    assert changed_keys(old, new) == ["topics[0].topic", "mapping.tag_fields", "influxdb.bucket"]
    assert changed_keys(old, load(tmp_path, "topics.1={stream='s', topic='v'}")) == ["topics"]


ODD = r'''
a.b."c d" = 1            # x = 2
"q" = { y = 1, 'z z' = [1, {w = """x
]}"""""}, [], [{v = 'a#b'}]] }
[t] # [u]
at = 1979-05-27 07:32:00
m = """\
[no]
x = 1"""
[[r]]
n = '''+"'''"+'''
[[r]]
n = 1'''+"'''"+'''
[r.sub]
p = [
  # ]
  "a", # b
]
[[r]]
[[r.in]]
v = -1
[[r.in]]
"\\u0076" = "\\"="
[x.y.z]
[x]
e = []
'''


def paths_of(value: object, key: str = "") -> set[str]:
    """The paths of all that a document holds."""
    found = {key} - {""}
    for name, item in value.items() if isinstance(value, dict) else ():
        found |= paths_of(item, f"{key}.{name}".lstrip("."))
    for index, item in enumerate(value if isinstance(value, list) else ()):
        found |= paths_of(item, f"{key}[{index}]")
    return found


def test_every_key_of_odd_toml_has_its_line() -> None:
    lines = key_lines(ODD)
    assert set(lines) == paths_of(tomllib.loads(ODD))
    text = ODD.split("\n")
    for key, start in {"a.b.c d": "a.b", "q.z z[1].w": '"q"', "q.z z[3][0].v": "]}", "t": "[t]", "t.at": "at",
                       "t.m": "m =", "r": "[[r]]", "r[0].n": "n =", "r[0].sub.p[0]": '  "a"', "r[1]": "[[r]]",
                       "r[1].in[1].v": '"\\u0076"', "x": "[x]", "x.y": "[x.y.z]", "x.e": "e ="}.items():
        assert text[lines[key] - 1].startswith(start), (key, lines[key])
    for place in scan(ODD):
        value = ODD[slice(*place.value)]
        assert not value or tomllib.loads(f"value = {value}")


_NAMES = st.sampled_from(["a", "b-1", "é", "a b", "x.y", '"', "'", "#", "1"])
_LEAVES = st.one_of(st.integers(-9, 9), st.booleans(), st.text('ab"\'\\\n#[]{},= ', max_size=6))
_VALUES = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
                       max_leaves=6)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """TOML texts of headers, keys and odd spaces."""
    text = ""
    for name, table in draw(st.dictionaries(_NAMES, st.dictionaries(_NAMES, _VALUES, max_size=3), max_size=4)).items():
        header = draw(st.sampled_from(["[{}]\n", "[ {} ] # [x]\n", "[[{}]]\n", "\n\n[top.{}.z]\r\n"]))
        text += header.format(quoted(name))
        for key, value in table.items():
            text += draw(st.sampled_from(["{}={}\n", " {} = {} # c\n", "k.{}\t=\t{}\r\n"])).format(
                quoted(key), written(value, draw(st.booleans())))
    return text


def quoted(name: str) -> str:
    """A key, quoted if it must be."""
    return name if name.isascii() and name.replace("-", "").isalnum() else written(name, False)


def written(value: object, wide: bool) -> str:
    """A value; `wide`: arrays over several lines, and multi-line strings."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"""{escaped}"""' if wide else '"' + escaped.replace("\n", "\\n") + '"'
    if isinstance(value, list):
        return "[" + (",\n # ]\n" if wide else ", ").join(written(item, wide) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {written(item, wide)}" for key, item in value.items()) + "}"
    return str(value)


@given(documents())
def test_any_toml_has_a_line_for_each_key(text: str) -> None:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        scan(text)
        return
    assert set(key_lines(text)) == paths_of(tables)


@given(st.text('[]{}.,="\'\\\n#ab 1', max_size=40))
def test_any_text_can_be_scanned(text: str) -> None:
    scan(text)
