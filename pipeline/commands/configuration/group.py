"""`pipeline config`: the group of its commands."""

import json
from pathlib import Path

import click

from pipeline.commands.config import examine
from pipeline.commands.configuration.files import write_new_file
from pipeline.config.inputs import STANDARD_INPUT, ConfigInputs
from pipeline.config.load import file_keys
from pipeline.errors import ConfigError, PipelineError
from pipeline.options import Group, config_option
from pipeline.printable import printable


@click.group(cls=Group)
def config() -> None:
    """Checks, shows and makes configurations."""


@config.command()
@config_option
@click.option("--connect", is_flag=True, help="Also ask Iggy and the databases: reachable, login, rights, topics, "
              "buckets. Nothing is written.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(path: ConfigInputs, connect: bool, as_json: bool) -> None:
    """Names every mistake, with file and line; exit code 2 if there are any."""
    from pipeline.commands.configuration.check import check_config

    click.get_current_context().exit(check_config(path, connect, as_json))


@config.command()
@config_option
@click.option("--changed", is_flag=True, help="Only what differs from the defaults.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a key.")
def show(path: ConfigInputs, changed: bool, as_json: bool) -> None:
    """Shows the values in effect, and where each comes from; secrets are hidden."""
    from pipeline.commands.configuration.show import shown_json, shown_toml

    examined = examine(path, unused=("tests", *file_keys()))
    if examined.config is None:
        raise ConfigError(path, examined.problems)
    for line in (shown_json if as_json else shown_toml)(examined.config, examined.merged, changed):
        click.echo(printable(line))


@config.command()
def schema() -> None:
    """Prints the JSON Schema of configurations, for editors."""
    from pipeline.config.json_schema import config_schema

    click.echo(json.dumps(config_schema(), indent=2))


@config.command()
@click.option("--sink", type=click.Choice(["v1", "v2", "v3", "cloud", "victoriametrics", "questdb"]),
              help="From Iggy to this database.")
@click.option("--source", type=click.Choice(["v1", "v2", "v3", "cloud"]), help="From this database to Iggy.")
@click.option("--all", "every_key", is_flag=True, help="With every key; those not needed as comments.")
@click.option("--to", metavar="FILE", help="Write it to a new file; printed otherwise.")
def init(sink: str | None, source: str | None, every_key: bool, to: str | None) -> None:
    """Makes a commented configuration to start with."""
    from pipeline.commands.configuration.init import new_config

    if not sink and not source:
        raise click.UsageError("give --sink, --source or both")
    text = new_config(sink, source, every_key)
    if to is None:
        click.echo(text, nl=False)
        return
    write_new_file(Path(to), text)
    click.echo(printable(f"{to}: written; check it with: pipeline config check -c {to}"))


@config.command()
@click.option("-c", "--config", "paths", required=True, multiple=True, metavar="FILE|FOLDER",
              help="The files to renew; several times.")
@click.option("--write", is_flag=True, help="Replace the files; otherwise what would change is printed.")
def migrate(paths: tuple[str, ...], write: bool) -> None:
    """Renews old keys of files, and keeps their comments and layout."""
    from pipeline.commands.configuration.migrate import migrate_files

    if STANDARD_INPUT in paths:
        raise PipelineError("standard input has no file that could be renewed; give files with -c")
    migrate_files(paths, write)
