"""Whatever a user does with a command, it ends with an exit code and a sentence, never a traceback.

Random values for every option of every command, files that are no files, and surroundings that are not what they are.
"""

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pipeline.cli import main

CONFIG = """
[iggy]
address = "127.0.0.1:9"
call_timeout_ms = 1_000
[[topics]]
stream = "s"
topic = "t"
[influxdb]
url = "http://127.0.0.1:10"
bucket = "b"
org = "o"
"""
SOURCE = """
[iggy]
address = "127.0.0.1:9"
[[sources]]
name = "n"
state_file = "state.json"
[sources.influxdb]
url = "http://127.0.0.1:10"
database = "d"
[sources.output]
stream = "s"
"""
#: Values that no option, some options or all options take.
WORDS = [
    "", "-", "--", "0", "-1", "1", "2.5", "nan", "inf", "1e999", "9" * 30, "9" * 5_000, "x" * 300, "²", "1,,2", ",",
    "a b", "\n", "\x1b[31m", "ü" * 200, "\udcff", "/", "/dev/null", "/proc/self/mem", "no/such/file", "..", "%s", "{}",
    "$HOME", "*", "json", "earliest", "latest", "2026-01-31T00:00:00Z", "2026-01-31", "9999-12-31T23:59:59+14:00",
    "s/t", "host:port", "127.0.0.1:9", "127.0.0.1:99999", ":", "[::1]:9", "http://127.0.0.1:9", "iggy://h:1", "[1",
    "null", '{"status": 503}']
#: Random lists of options for each command.
TURNS = 25
#: Of commands that would run for long, or wait, once their options are right.
LONG = {"sandbox": ["--fault", "no JSON"], "demo": ["--messages", "0"], "bench": ["--check", "--messages", "0"]}


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield (*path, name), command


COMMANDS = dict(commands(main))


def files(folder: Path) -> list[str]:
    """Names of files that are a configuration, or anything but one."""
    contents = {"good.toml": CONFIG.encode(), "source.toml": SOURCE.encode(), "empty": b"",
                "binary": bytes(range(256)) * 40, "text": b"hello\n",
                "json": b'{"v": 1}\n', "lines": b"m v=1\n", "long": b"x" * 3_000_000,
                "secret.toml": b'[influxdb]\ntoken = "hunter2-secret"\nurl = "x://me:hunter2-secret@h"\n'}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir(exist_ok=True)
    return [*(str(folder / name) for name in contents), str(folder / "folder"), str(folder / "gone"), "/dev/null"]


def misused(chance: random.Random, command: click.Command, names: list[str]) -> list[str]:
    """Arguments for a command: some of its options, with odd values; a configuration mostly."""
    arguments: list[str] = []
    for parameter in command.params:
        is_config = "-c" in parameter.opts
        if chance.random() < (0.1 if is_config else 0.55):
            continue
        value = chance.choice(names) if is_config or chance.random() < 0.2 else chance.choice(WORDS)
        if not isinstance(parameter, click.Option):
            arguments.append(value)
        elif parameter.is_flag:
            arguments.append(parameter.opts[-1])
        else:
            arguments += [chance.choice(parameter.opts), value]
    if chance.random() < 0.1:
        arguments.append(chance.choice(WORDS))
    return arguments


def is_a_sentence(code: int, output: str) -> None:
    """The command has ended as one that was misused may."""
    assert code in (0, 1, 2), output
    assert "Traceback" not in output and "fault in the pipeline" not in output
    assert "hunter2" not in output
    assert code == 0 or output.strip()


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_random_options_are_no_surprise(words: tuple[str, ...], tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    names = files(tmp_path)
    monkeypatch.chdir(tmp_path / "folder")
    chance = random.Random(" ".join(words))
    for _ in range(TURNS):
        arguments = misused(chance, COMMANDS[words], names)
        if words == ("keys",):  # which makes folders
            arguments = [argument for argument in arguments if os.path.abspath(argument).startswith(str(tmp_path))]
        result = CliRunner().invoke(main, [*words, *LONG.get(words[0], []), *arguments],
                                    input=chance.choice(["", "{}\n", "\x00"]))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError(f"{words} {arguments}") from result.exception
        is_a_sentence(result.exit_code, result.output)


def run(*arguments: str | bytes, stdin: bytes = b"", **options: Any) -> tuple[int, str]:
    """Exit code and standard error of a command as a process of its own."""
    process = subprocess.run([sys.executable, "-m", "pipeline", *arguments], input=stdin, timeout=60,
                             **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})
    return process.returncode, (process.stderr or b"").decode()


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A configuration that is right."""
    path = tmp_path / "good.toml"
    path.write_text(CONFIG)
    return str(path)


def test_a_reader_that_goes_away_is_no_error_of_ours(config: str) -> None:
    for command in (["preview", "-c", config, "--json"], ["preview", "-c", config], ["--help"], ["bench", "--help"]):
        process = subprocess.Popen([sys.executable, "-m", "pipeline", *command], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b'{"v":1}\n' * 20_000)
            process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(60) in (0, 1)
        process.stderr.close()


def test_a_full_disk_is_said(config: str) -> None:
    with open("/dev/full", "wb") as full:
        for arguments in (("preview", "-c", config), ("--help",)):
            code, said = run(*arguments, stdin=b'{"v":1}\n', stdout=full)
            assert code == 1 and said.startswith("pipeline: error: ") and said.endswith("No space left on device\n")


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1 2"])
def test_closed_streams_are_no_surprise(config: str, closed: str) -> None:
    shut = " ".join(f"{number}>&-" for number in closed.split())
    for command in ("preview", "test", "start", "offsets show"):
        script = f"exec {sys.executable} -m pipeline {command} -c {config} {shut}"
        process = subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        assert process.returncode in (0, 1, 2), process.stderr
        assert b"Traceback" not in process.stderr + process.stdout


@pytest.mark.parametrize("environ", [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LANG": "C"}, {"HOME": "/nonexistent"}, {},
    {"TMPDIR": "/nonexistent"}, {"TERM": "dumb", "COLUMNS": "3"}, {"COLUMNS": "x", "LINES": "-1"},
    {"PYTHONIOENCODING": "ascii"}, {"XDG_RUNTIME_DIR": "/dev/null"}])
def test_a_bare_environment_is_enough(config: str, environ: dict[str, str], tmp_path: Path) -> None:
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **environ}
    (tmp_path / "folder").mkdir()
    for arguments in (("preview", "-c", config), ("--help",), ("start", "-c", config),
                      ("offsets", "show", "-c", config)):
        code, said = run(*arguments, stdin='{"v":"ü€"}\n'.encode(), env=bare, cwd=tmp_path / "folder")
        assert code == (0 if arguments[0] in ("preview", "--help") else 1), said
        assert "Traceback" not in said and "fault in the pipeline" not in said


def test_names_that_are_no_text_are_shown_all_the_same(config: str) -> None:
    for arguments in ((b"start", b"-c", b"/no/\xff\xfe"), (b"\xff",),
                      (b"preview", b"-c", config.encode(), b"--input", b"\xff"),
                      (b"preview", b"-c", config.encode(), b"--topic", b"\xff\n"), (b"keys", b"/dev/null/\xff")):
        code, said = run(*arguments)
        assert code in (1, 2) and said and "Traceback" not in said


def test_a_working_directory_that_is_gone_or_closed(config: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    python = f"{sys.executable} -c 'from pipeline.__main__ import run; run()'"
    script = f"cd {gone} && rmdir {gone} && exec {python} test -c "
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for name, code in ((config, 2), ("good.toml", 2), ("-", 2)):
        process = subprocess.run(["bash", "-c", script + name], input=CONFIG.encode(), capture_output=True, timeout=60,
                                 env=environ)
        gone.mkdir()
        assert process.returncode == code, process.stderr
        assert b"Traceback" not in process.stderr


def test_a_configuration_from_standard_input(config: str, tmp_path: Path) -> None:
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text("t")
    text = CONFIG + 'token_file = "token"\n[[tests]]\nname = "x"\nmessage = "{}"\nreject = "no_fields"\n'
    assert run("test", "-c", "-", stdin=text.encode(), cwd=tmp_path) == (0, "")
    code, said = run("start", "-c", "-", stdin=text.encode(), cwd=tmp_path)
    assert code == 1 and "127.0.0.1:9 can't be reached" in said
    code, said = run("start", "-c", "-", stdin=b"[pipeline]\nworkers = -1")
    assert code == 2 and said.startswith("pipeline: error: standard input:2: pipeline.workers: -1 is not allowed")
    code, said = run("preview", "-c", "-", stdin=text.encode())
    assert code == 1 and "standard input is the configuration" in said


def test_endless_input_has_an_end(config: str) -> None:
    for arguments in (("preview", "-c", config, "--input", "/dev/zero"), ("preview", "-c", "/dev/zero")):
        code, said = run(*arguments)
        assert code in (1, 2) and "is larger than" in said


def test_an_option_is_given_once_and_what_excludes_each_other_is_refused(config: str) -> None:
    assert "good.toml: is given twice" in run("start", "-c", config, "-c", config)[1]
    assert "exclude each other" in run("start", "-c", config, "--once", "--until-caught-up")[1]
    assert run("start", "-c", config, "--log-level", "loud")[0] == 2
    assert run("offsets", "set", "-h")[0] == 0
    for arguments in (("offsets", "set", "--source", "n", "--measurement", "m", "--time", "latest", "--partition", "1"),
                      ("offsets", "set", "--topic", "s/t", "--partition", "0", "--offset", "1", "--time", "latest"),
                      ("preview", "--count", "3"), ("preview", "--from-iggy", "--each", "file"),
                      ("start", "--from", "earliest"), ("start", "--to", "tomorrow")):
        assert run(*arguments, "-c", config)[0] == 2


def test_commands_ask_for_nothing_that_they_do_not_use(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(CONFIG.replace("[influxdb]", '[dead_letters]\nstores = ["file"]\nfile = "${NONE}"\n[influxdb]\n'
                                                 'token = "${NONE:?make one}"\nca_file = "none.pem"')
                    .replace("call_timeout", 'password = "${NONE}"\ncall_timeout')
                    + '[[tests]]\nname = "x"\nmessage = "{}"\nreject = "no_fields"\n')
    assert run("test", "-c", str(path)) == (0, "")
    assert run("preview", "-c", str(path), stdin=b'{"v":1}') == (0, "")
    code, said = run("start", "-c", str(path))
    assert code == 2 and said.count("NONE is not set") == 3
    path.write_text(path.read_text().replace('password = "${NONE}"', ""))
    for command in (("offsets", "show"), ("load",), ("preview", "--from-iggy")):
        code, said = run(*command, "-c", str(path))
        assert code == 1 and "can't be reached" in said, said


def test_an_unforeseen_error_is_a_line_and_shows_its_place_on_demand(config: str) -> None:
    script = ("from pipeline.exit import run_and_exit\n"
              "def fail(): raise KeyError('x\\ny')\n"
              "run_and_exit(fail)")
    for environ, wanted in (({}, "KeyError"), ({"PIPELINE_TRACEBACK": "1"}, "Traceback")):
        process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
                                 env={**os.environ, **environ})
        assert process.returncode == 1 and wanted in process.stderr
        assert environ or len(process.stderr.splitlines()) == 1
