"""The command line: its commands by name, and how an error of one ends the process."""

import importlib
from typing import Any, NoReturn

import click

from pipeline import __version__
from pipeline.errors import PipelineError
from pipeline.exit import print_error, run_and_exit
from pipeline.files import keep_private
from pipeline.interrupts import end_on_interrupt
from pipeline.options import CONTEXT, Group

#: Command -> the module that defines it. Modules are imported when their command is used: every process of a pipeline
#: imports this module.
_COMMANDS = {"bench": "pipeline.commands.bench", "demo": "pipeline.commands.demo", "dlq": "pipeline.commands.dlq",
             "keys": "pipeline.commands.keys", "load": "pipeline.commands.load", "mapping": "pipeline.commands.mapping",
             "offsets": "pipeline.commands.offsets", "preview": "pipeline.commands.preview",
             "sandbox": "pipeline.commands.sandbox",
             "stage": "pipeline.commands.remote", "start": "pipeline.commands.start",
             "status": "pipeline.commands.status",
             "test": "pipeline.commands.mapping_tests"}


class _Group(Group):
    """Imports a command's module when the command is used; turns a PipelineError into lines and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None where there is none."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; exits with the error's code when it raises one."""
        try:
            return super().invoke(ctx)
        except PipelineError as error:
            ctx.exit(print_error(error))


def run() -> NoReturn:
    """The `pipeline` command."""
    end_on_interrupt()
    run_and_exit(lambda: main(prog_name="pipeline"))


@click.group(cls=_Group, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="pipeline")
def main() -> None:
    """Moves telemetry from Apache Iggy to InfluxDB, and loses none of it."""
    keep_private()
