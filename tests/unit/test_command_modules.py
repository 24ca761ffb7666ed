"""Every command is where the command line looks for it."""

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.options import summary


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_every_command_shows_its_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage:")


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_every_command_has_one_full_line(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert any(line.startswith(f"  {name} ") and line.endswith(summary(command))
               for line in CliRunner().invoke(main, ["--help"]).output.splitlines())
    for below, one in command.commands.items() if isinstance(command, click.Group) else ():
        help_text = " ".join(CliRunner().invoke(main, [name, "--help"]).output.split())
        assert f"{below} {summary(one)}" in help_text


def test_the_reference_lists_every_command_in_the_order_of_the_help() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "configuration.rst").read_text()
    table = page[page.index("Command line\n---"):page.index("``-h`` or ``--help``")]
    assert re.findall(r"^``pipeline ([\w-]+)", table, re.MULTILINE) == \
        main.list_commands(click.Context(main))
