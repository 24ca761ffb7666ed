"""Every command is where the command line looks for it."""

import click
import pytest
from click.testing import CliRunner

from pipeline.cli import main


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_every_command_shows_its_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage:")
