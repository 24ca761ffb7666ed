"""The command line."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from pipeline import __version__
from pipeline.commands.config import load_config
from pipeline.config.renamed import RENAMED_OPTIONS
from pipeline.errors import PipelineError
from pipeline.exit import print_error, run_and_exit
from pipeline.files import keep_private
from pipeline.interrupts import end_on_interrupt
from pipeline.options import CONTEXT, Group, config_option, log_level_option, renamed_options

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping

    from pipeline.config.plan import Until
    from pipeline.config.schema import Config
    from pipeline.locks import Locks

#: Commands that are imported when they are used: every process of a pipeline imports this module.
_LAZY = {"bench": "pipeline.commands.bench", "dlq": "pipeline.commands.dlq", "keys": "pipeline.commands.keys",
         "load": "pipeline.commands.load", "offsets": "pipeline.commands.offsets",
         "preview": "pipeline.commands.preview", "stage": "pipeline.commands.remote",
         "test": "pipeline.commands.mapping_tests"}


class _Group(Group):
    """Knows commands whose modules are imported when they are used; turns PipelineErrors into lines."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted({*super().list_commands(ctx), *_LAZY})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        if cmd_name in _LAZY:
            command: click.Command = getattr(importlib.import_module(_LAZY[cmd_name]), cmd_name)
            return command
        return super().get_command(ctx, cmd_name)

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


def _describe_databases(config: Config, logger: logging.Logger) -> None:
    """Says which InfluxDB each sink writes to, and what is wrong with the configured version for it."""
    from stages.write.transport import describe

    for sink in config.all_sinks():
        if sink.topics:
            mapping = sink.mapping
            describe(sink.influxdb, logger, mapping.measurement_name if mapping.measurement_from == "static" else
                     sink.topics[0].topic if mapping.measurement_from == "topic" and len(sink.topics) == 1 else "")


@main.command()
@config_option
@click.option("--workers", type=click.IntRange(1, 256), help="Encoder processes; the cores by default.")
@click.option("--writers", type=click.IntRange(1, 64), help="Writer processes.")
@click.option("--readers", type=click.IntRange(1, 16), help="Processes that read Iggy.")
@click.option("--drain-timeout-ms", type=click.IntRange(0, 3_600_000), help="Time limit for finishing at a stop.")
@renamed_options(RENAMED_OPTIONS)
@log_level_option
@click.option("--until-caught-up", "until", flag_value="caught-up", help="Stop when all that is there now is written.")
@click.option("--once", "until", flag_value="once", help="Stop when one batch of each partition is written.")
@click.option("--from", "begin", metavar="TIME", help="With --to: read the sources from here (RFC 3339).")
@click.option("--to", "end", metavar="TIME", help="Read the sources up to here, run no sinks, and stop.")
def start(path: str, workers: int | None, writers: int | None, readers: int | None, drain_timeout_ms: int | None,
          log_level: str | None, until: Until | None, begin: str | None, end: str | None) -> None:
    """Runs the pipeline until SIGTERM or SIGINT, then finishes what is in flight."""
    import setproctitle

    from pipeline.config.secrets import secrets_of
    from pipeline.logs import setup_logging
    from pipeline.supervisor.process import Supervisor
    from pipeline.supervisor.resources import check_resources

    options = {"drain_timeout_ms": drain_timeout_ms, "readers": readers, "log_level": log_level,
               "workers": workers, "writers": writers}
    config = _backfill(path, options, begin, end) if begin or end else \
        load_config(path, options=options, unused=("tests",))
    setproctitle.setproctitle("pipeline: supervisor")
    logger = setup_logging("supervisor", config.pipeline.log_level, secrets_of(config))
    workers = config.pipeline.workers or len(os.sched_getaffinity(0))
    # The coordinators, produce, query and dead-letter, and what there is one or more of.
    check_resources(5 + 2 * workers + config.pipeline.writers + config.pipeline.readers)
    locks = _prepare(config, logger, until or "")
    # Beside the start: a database that is away must not hold it up.
    threading.Thread(target=_describe_databases, args=(config, logger), daemon=True).start()
    code = Supervisor(config, workers, config.pipeline.writers, logger, until or "").run()
    locks.release()
    sys.exit(code)


def _backfill(path: str, options: Mapping[str, object], begin: str | None, end: str | None) -> Config:
    """The configuration's sources alone, from `begin` to `end`."""
    import msgspec

    from pipeline.points.times import TimeOutOfRange, parse_time

    for option, text in (("--from", begin), ("--to", end)):
        try:
            if text is not None and not (option == "--from" and text == "earliest"):
                parse_time(text)
        except TimeOutOfRange as error:
            raise click.BadParameter(str(error), param_hint=option) from None
        except ValueError:
            raise click.BadParameter(f"{text} is not a time like 2026-01-31T00:00:00Z", param_hint=option) from None
    config = load_config(path, options=options, sources={"from": begin, "to": end},
                         unused=("influxdb", "mapping", "dead_letters", "tests"))
    if not config.sources or not end:
        raise click.UsageError("--from and --to are for sources: a [[sources]] and --to are needed")
    return msgspec.structs.replace(config, topics=(), sinks=())


def _prepare(config: Config, logger: logging.Logger, until: Until) -> Locks:
    """What is done before any process is started: locks, warnings, a look at Iggy. Raises PipelineError."""
    from pipeline.config.checks import config_warnings
    from pipeline.dead_letters.stores import check_stores
    from pipeline.iggy.retry import check_iggy
    from pipeline.locks import Locks, lock_offsets
    from stages.mapping.check import mapping_warnings

    locks = Locks()
    lock_offsets(locks, config)
    for warning in config_warnings(config):
        logger.warning(warning)
    for sink in config.all_sinks():
        for warning in mapping_warnings(sink.mapping, f"sink {sink.name}: mapping", sink.influxdb.precision):
            logger.warning(warning)
    if config.sources:
        from pipeline.commands.preflight import check_sources, check_states, make_topics
        from pipeline.source_coordinator.state_store import lock_states
        lock_states(locks, config)
        asyncio.run(check_states(config, logger))
        check_sources(config, logger)
        asyncio.run(make_topics(config))
    asyncio.run(check_stores(config, logger))
    asyncio.run(check_iggy(config.iggy, config.subscriptions(), all_needed=bool(until)))
    return locks


@main.command()
@click.option("--iggy-port", default=8090, show_default=True, type=click.IntRange(0, 65_535),
              help="0 takes a free one.")
@click.option("--influx-port", default=8086, show_default=True, type=click.IntRange(0, 65_535),
              help="0 takes a free one.")
@click.option("--flavour", default="v2", show_default=True, type=click.Choice(["v1", "v2", "v3", "questdb"]),
              help="Which InfluxDB to pose as, or QuestDB.")
@click.option("--flight-port", default=None, type=click.IntRange(0, 65_535),
              help="With v3: serve Arrow Flight, too, on this port; 0 takes a free one.")
@click.option("--retention-seconds", default=0, type=click.IntRange(0), help="Refuse points older than this; 0: none.")
@click.option("--fault", "fault_texts", multiple=True, metavar="JSON",
              help='How InfluxDB is to fail, e.g. \'{"status": 503, "times": 3}\'; may be given again.')
def sandbox(iggy_port: int, influx_port: int, flavour: Literal["v1", "v2", "v3", "questdb"], flight_port: int | None,
            retention_seconds: int, fault_texts: tuple[str, ...]) -> None:
    """Runs a small Iggy and a small InfluxDB on loopback, for trying out; not for production."""
    from pipeline.testbed.sandbox.influxdb.faults import parse_rules
    from pipeline.testbed.sandbox.run import SandboxOptions, serve

    rules = tuple(rule for text in fault_texts for rule in parse_rules(text))
    asyncio.run(serve(SandboxOptions(iggy_port=iggy_port, influx_port=influx_port, flavour=flavour,
                                     flight_port=flight_port, retention_seconds=retention_seconds, rules=rules,
                                     announce=True)))


@main.command()
@click.option("--messages", default=100_000, show_default=True, type=click.IntRange(1), help="How many to send.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256), help="Encoder processes.")
@click.option("--plain", is_flag=True, help="Plain lines instead of the live view.")
def demo(messages: int, workers: int, plain: bool) -> None:
    """Shows the whole thing: sandbox, producer, pipeline, and a verdict. Needs no servers."""
    from pipeline.commands.demo import run_demo

    sys.exit(run_demo(messages, workers, plain))
