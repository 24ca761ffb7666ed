"""`pipeline config check`: every mistake of a configuration, and with `--connect` what both ends answer."""

import json

import click
import msgspec

from pipeline.commands.config import examine
from pipeline.commands.configuration.connection import ConnectionCheck, check_connections
from pipeline.config.checks import config_warnings
from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import Examined
from pipeline.config.schema import Config
from pipeline.config.secrets import secrets_of
from pipeline.errors import ConfigError
from pipeline.exit import print_error
from pipeline.logs import clean, setup_logging
from pipeline.printable import printable_json

#: Exit codes: a server does not do what is needed; the configuration is wrong.
_FAILED, _WRONG = 1, 2


def check_config(inputs: ConfigInputs, connect: bool, as_json: bool) -> int:
    """Checks, prints the result, and returns the exit code."""
    examined = examine(inputs)
    config = examined.config
    warnings = [*examined.warnings, *(warnings_of(config) if config is not None else [])]
    checks: list[ConnectionCheck] = []
    if config is not None and connect:
        setup_logging("check", "warning", secrets_of(config))
        checks = check_connections(config)
    code = _WRONG if examined.problems else _FAILED if any(not check.ok for check in checks) else 0
    if as_json:
        _print_json(examined, warnings, checks, code)
        return code
    for warning in warnings:
        click.echo(f"pipeline: warning: {clean(warning)}", err=True)
    if config is None:
        print_error(ConfigError(inputs, examined.problems))
        places = len({problem.place for problem in examined.problems})
        count = len(examined.problems)
        click.echo(f"pipeline: {count} mistake{'s' * (count > 1)} in {places} place{'s' * (places > 1)}; nothing was "
                   "started", err=True)
        return code
    _print_checks(checks)
    failed = sum(not check.ok for check in checks)
    servers = "no server was asked (--connect)" if not connect else \
        f"{failed} of {len(checks)} checks of the servers failed" if failed else "all checks of the servers passed"
    click.echo(f"{inputs}: no mistakes; {_summary(config)}; {servers}")
    return code


def warnings_of(config: Config) -> list[str]:
    """Options that have no effect, or may not do what was meant."""
    # Imported here, because it imports the whole mapping.
    from stages.mapping.check import mapping_warnings

    return [*config_warnings(config), *(line for sink in config.all_sinks() for line in mapping_warnings(
        sink.mapping, f"sink {sink.name}: mapping", sink.influxdb.precision))]


def _summary(config: Config) -> str:
    parts = [(len(config.all_sinks()), "sink"), (len(config.subscriptions()), "topic"), (len(config.sources), "source")]
    return ", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in parts if count)


def _print_checks(checks: list[ConnectionCheck]) -> None:
    for check in checks:
        mark = click.style("ok    ", fg="green") if check.ok else click.style("failed", fg="red", bold=True)
        detail = clean(check.detail.removeprefix(f"{check.server}: "))
        click.echo(f"{mark} {clean(check.server)}: {clean(check.what)}" + (f": {detail}" if detail else ""))


def _print_json(examined: Examined, warnings: list[str], checks: list[ConnectionCheck], code: int) -> None:
    click.echo(printable_json(json.dumps({
        "ok": not code,
        "problems": [{"file": problem.place, "line": problem.line or None, "key": problem.key,
                      "problem": clean(problem.text.removeprefix(f"{problem.key}: "))}
                     for problem in examined.problems],
        "warnings": [clean(warning) for warning in warnings],
        "checks": [{**msgspec.structs.asdict(check), "detail": clean(check.detail)} for check in checks],
    }, ensure_ascii=False, indent=2)))
