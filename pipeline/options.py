"""What all commands share: `-c`, `--set`, `--log-level` and `-h`, and the check that an option is given once."""

import functools
import os
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from pipeline.config.inputs import ConfigInputs
from pipeline.config.variables import CONFIG_VARIABLE

F = TypeVar("F", bound=Callable[..., Any])

#: Settings of the outermost command; its subcommands inherit them.
CONTEXT: Final = {"help_option_names": ["-h", "--help"]}



class _Paths(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on
    """Paths, several of which are separated by colons in an environment variable."""

    name = "path"
    envvar_list_splitter = os.pathsep


def complete_file(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Has the shell complete names of files and folders."""
    return [CompletionItem(incomplete, type="file")]


def _complete_key(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from pipeline.config.settings import keys_beginning_with

    return [CompletionItem(f"{key}=") for key in keys_beginning_with(incomplete)]


def config_option(command: F) -> F:
    """Has a command take its configuration, `-c` and `--set`, several times each: as `path`, a `ConfigInputs`."""
    @functools.wraps(command)
    def with_inputs(*arguments: Any, paths: tuple[str, ...], settings: tuple[str, ...], **options: Any) -> Any:
        return command(*arguments, path=ConfigInputs(paths, settings), **options)

    decorated = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", shell_complete=_complete_key,
                             help="Instead of a key of the files: influxdb.url=http://host:8086. Several times.")(
        with_inputs)
    return cast(F, click.option("-c", "--config", "paths", required=True, multiple=True, metavar="FILE|FOLDER",
                                shell_complete=complete_file, type=_Paths(), envvar=CONFIG_VARIABLE, show_envvar=True,
                                help="Configuration: a TOML file, a folder with *.toml, or - for standard input. "
                                     "Several times: they are put together.")(decorated))


log_level_option = click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
                                help="Instead of pipeline.log_level.")


def renamed_options(renamed: Iterable[tuple[str, str]]) -> Callable[[F], F]:
    """Has a command answer the old name of an option, the first of each pair, with what to write instead."""
    def decorate(command: F) -> F:
        for old, new in renamed:
            command = click.option(old, hidden=True, expose_value=False, callback=_answer_with(f"{old} is now {new}"))(
                command)
        return command

    return decorate


def _answer_with(text: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def refuse(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(text, ctx)

    return refuse


class Command(click.Command):
    """A command that refuses an option given twice, since it is unclear which value is meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises UsageError."""
        _check_once(self, ctx, args)
        return super().parse_args(ctx, args)


class Group(click.Group):
    """A group of commands that do the same."""

    command_class = Command
    group_class = type

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands, each with a whole sentence."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(command)) for name, command in commands
                                if command is not None and not command.hidden])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises UsageError."""
        _check_once(self, ctx, args)
        return super().parse_args(ctx, args)


def _check_once(command: click.Command, ctx: click.Context, args: list[str]) -> None:
    if ctx.resilient_parsing:
        return
    _, _, order = command.make_parser(ctx).parse_args(list(args))
    seen: dict[str | None, click.Option] = {}
    for parameter in order:
        if not isinstance(parameter, click.Option) or parameter.multiple:
            continue
        other = seen.setdefault(parameter.name, parameter)
        if other is not parameter:
            raise click.UsageError(f"{other.opts[-1]} and {parameter.opts[-1]} exclude each other", ctx)
        if not parameter.is_flag and order.count(parameter) > 1:
            raise click.UsageError(f"{parameter.opts[-1]} is given twice; give it once", ctx)


def summary(command: click.Command) -> str:
    """What a command does, in one line: its short help, or the first sentence of its help."""
    if command.short_help:
        return command.short_help
    text = " ".join((command.help or "").partition("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".") if text else ""
