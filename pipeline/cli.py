"""The command line: its commands by name, and how an error of one ends the process."""

import importlib
from typing import Any, Final, NoReturn

import click

from pipeline import __version__
from pipeline.errors import PipelineError
from pipeline.exit import print_error, print_unexpected, run_and_exit
from pipeline.files import keep_private
from pipeline.interrupts import end_on_interrupt
from pipeline.options import CONTEXT, Group, summary

#: Commands in the groups of `pipeline --help`: the module that defines each. Modules are imported when their command is
#: used: every process of a pipeline imports this module.
_GROUPS: Final = (
    ("Configure", {
        "config": "pipeline.commands.configuration.group",
        "preview": "pipeline.commands.preview",
        "test": "pipeline.commands.mapping_tests",
        "mapping": "pipeline.commands.mapping",
    }),
    ("Run", {
        "start": "pipeline.commands.start",
        "stage": "pipeline.commands.remote",
        "keys": "pipeline.commands.keys",
    }),
    ("Operate", {
        "status": "pipeline.commands.status",
        "top": "pipeline.commands.top",
        "tap": "pipeline.commands.tap",
        "reload": "pipeline.commands.reload",
        "pause": "pipeline.commands.control",
        "resume": "pipeline.commands.control",
        "drain": "pipeline.commands.control",
        "skip": "pipeline.commands.control",
        "log-level": "pipeline.commands.control",
        "offsets": "pipeline.commands.offsets",
        "source": "pipeline.commands.source",
        "verify": "pipeline.commands.verify",
        "dlq": "pipeline.commands.dlq",
        "dashboards": "pipeline.commands.dashboards",
    }),
    ("Try out and measure", {
        "demo": "pipeline.commands.demo",
        "sandbox": "pipeline.commands.sandbox",
        "load": "pipeline.commands.load",
        "bench": "pipeline.commands.bench",
    }),
    ("Install", {
        "install-service": "pipeline.commands.install_service",
        "completion": "pipeline.commands.completion",
        "man": "pipeline.commands.man",
    }),
)
_COMMANDS: Final = {name: module for _, commands in _GROUPS for name, module in commands.items()}


class _Group(Group):
    """Imports a command's module when the command is used; turns a PipelineError into lines and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of their groups."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; None where there is none."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands in their groups, with the whole first sentence of each."""
        width = max(map(len, _COMMANDS))
        for title, names in _GROUPS:
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl([(f"{name:{width}}", summary(command)) for name, command in commands if command])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; exits with the error's code when it raises one."""
        try:
            return super().invoke(ctx)
        except PipelineError as error:
            ctx.exit(print_error(error))
        except EOFError as error:
            # click would only say "Aborted!".
            print_unexpected(error)
            ctx.exit(1)
        except click.Abort:
            ctx.exit(print_error(PipelineError("no answer; nothing was done")))


def run() -> NoReturn:
    """The `pipeline` command."""
    end_on_interrupt()
    run_and_exit(lambda: main(prog_name="pipeline"))


@click.group(cls=_Group, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="pipeline")
def main() -> None:
    """Moves telemetry from Apache Iggy to InfluxDB, and loses none of it."""
    keep_private()
