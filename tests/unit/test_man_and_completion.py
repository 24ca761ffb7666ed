"""Manual pages and completion come from the commands themselves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.commands.man import command_pages, configuration_page
from pipeline.exit import EXIT_CODES

PAGES = {**command_pages(main), "pipeline.toml.5": configuration_page()}


def test_every_command_has_a_page_that_names_its_options() -> None:
    assert {f"pipeline-{name}.1" for name in main.list_commands(click.Context(main))} < PAGES.keys()
    for name in ("\\-\\-until\\-caught\\-up", "\\-\\-set KEY=VALUE"):
        assert name in PAGES["pipeline-start.1"]
    assert "pipeline-config-check.1" in PAGES
    for text in PAGES.values():
        assert all(part in text for part in (".TH ", ".SH NAME", ".SH SEE ALSO"))


def test_exit_codes_are_the_same_in_the_manual_and_the_reference() -> None:
    reference = (Path(__file__).parents[2] / "docs" / "reference" / "configuration.rst").read_text()
    table = reference.partition("Exit codes\n")[2].partition("Ctrl-C ends")[0]
    assert [int(line.split()[0]) for line in table.splitlines() if line[:1].isdigit()] == list(EXIT_CODES)
    assert all(f".B {code}" in PAGES["pipeline.1"] for code in EXIT_CODES)


def test_groff_has_nothing_to_say_about_any_page() -> None:
    if shutil.which("groff") is None:
        return
    said = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z"], input="\n".join(PAGES.values()), text=True,
                          capture_output=True, timeout=60)
    assert (said.returncode, said.stderr) == (0, "")


def test_pages_are_written_into_their_sections(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["man", "--to", str(tmp_path / "man")])
    assert result.exit_code == 0
    assert (tmp_path / "man" / "man1" / "pipeline-start.1").read_text() == PAGES["pipeline-start.1"]
    assert (tmp_path / "man" / "man5" / "pipeline.toml.5").exists()
    assert CliRunner().invoke(main, ["man", "--to", "/dev/null/x"]).exit_code == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_that_it_accepts(shell: str) -> None:
    script = CliRunner().invoke(main, ["completion", shell]).output
    assert "_PIPELINE_COMPLETE" in script
    if path := shutil.which(shell):
        subprocess.run([path, "-n"], input=script, text=True, check=True, timeout=60)


@pytest.mark.parametrize(("words", "wanted"), [
    ("pipeline conf", "plain,config"), ("pipeline config che", "plain,check"), ("pipeline start -c x", "file,x"),
    ("pipeline start --set influxdb.buc", "plain,influxdb.bucket="), ("pipeline start --log-level deb", "plain,debug")])
def test_words_are_completed(words: str, wanted: str) -> None:
    environ = {**os.environ, "_PIPELINE_COMPLETE": "bash_complete", "COMP_WORDS": words,
               "COMP_CWORD": str(len(words.split()) - 1)}
    said = subprocess.run([sys.executable, "-m", "pipeline"], env=environ, capture_output=True, text=True, timeout=60)
    assert said.stdout.splitlines() == [wanted]


def test_an_end_of_file_is_no_abort_without_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def end() -> None:
        raise EOFError("the other end was closed")

    monkeypatch.setattr(main.get_command(click.Context(main), "man"), "callback", lambda to: end())
    result = CliRunner().invoke(main, ["man", "--to", "x"])
    assert result.exit_code == 1
    assert "Aborted" not in result.output and "the other end was closed" in result.output
