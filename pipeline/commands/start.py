"""`pipeline start`: reads the configuration, checks what it needs, and runs the supervisor."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Mapping
from functools import partial

import click
import msgspec
import setproctitle

from pipeline.commands.config import load_config
from pipeline.config.changes import changes_between
from pipeline.config.checks import config_warnings
from pipeline.config.inputs import ConfigInputs
from pipeline.config.patterns import is_pattern
from pipeline.config.plan import Until, level_of
from pipeline.config.renamed import RENAMED_OPTIONS
from pipeline.config.schema import Config
from pipeline.config.secrets import secrets_of
from pipeline.dead_letters.stores import check_stores
from pipeline.errors import PipelineError
from pipeline.http.listeners import check_port
from pipeline.iggy.retry import check_iggy
from pipeline.locks import Locks, lock_offsets
from pipeline.logs import setup_logging
from pipeline.options import Command, config_option, log_level_option, renamed_options
from pipeline.points.times import TimeOutOfRange, parse_time
from pipeline.supervisor.process import Supervisor
from pipeline.supervisor.reload import ReloadInputs
from pipeline.supervisor.resources import check_resources
from stages.mapping.check import mapping_warnings

#: Processes of which there is one, at most: two coordinators, dead-letter, query, produce and http.
SINGLE_PROCESSES = 6


@click.command(cls=Command, short_help="Runs the pipeline until SIGTERM or SIGINT")
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
@click.option("--dry-run", is_flag=True, help="Only show what the sources would send: measurements, series, points by "
              "window of time, and some messages.")
@click.option("--watch", is_flag=True, help="Reload the configuration when one of its files has changed.")
def start(path: ConfigInputs, workers: int | None, writers: int | None, readers: int | None,
          drain_timeout_ms: int | None, log_level: str | None, until: Until | None, begin: str | None,
          end: str | None, dry_run: bool, watch: bool) -> None:
    """Runs the pipeline until SIGTERM or SIGINT, then finishes what is in flight."""
    options = {"drain_timeout_ms": drain_timeout_ms, "readers": readers, "log_level": log_level,
               "workers": workers, "writers": writers}
    config = _load_backfill(path, options, begin, end) if begin or end else \
        load_config(path, options=options, unused=("tests",))
    if dry_run:
        _show_sources(config)
        return
    setproctitle.setproctitle("pipeline: supervisor")
    logger = setup_logging("supervisor", level_of(config.pipeline, "supervisor"), secrets_of(config),
                           config.pipeline.log_format)
    encoders = config.pipeline.workers or len(os.sched_getaffinity(0))
    # With sources there are as many converters as encoders.
    check_resources(SINGLE_PROCESSES + 2 * encoders + config.pipeline.writers + config.pipeline.readers)
    locks = prepare(config, logger, until or "")
    # On a thread: a database that cannot be reached must not delay the start.
    threading.Thread(target=_describe_databases, args=(config, logger), daemon=True).start()
    reload = None if begin or end else ReloadInputs(path, partial(load_again, path, dict(os.environ), options),
                                                    partial(_lock, locks), partial(_lock_only, locks), watch)
    code = Supervisor(config, encoders, config.pipeline.writers, logger, until or "", reload).run()
    locks.release()
    sys.exit(code)


def _show_sources(config: Config) -> None:
    """What the sources would send. Raises PipelineError."""
    # Imported here, because it is rarely used.
    from pipeline.commands.source_preview import previews_of, print_previews

    if not config.sources:
        raise click.UsageError("--dry-run is for [[sources]]; pipeline preview shows the lines that messages become")
    for source in config.sources:
        print_previews(previews_of(config, [source], (), None), as_json=False)
    if config.all_sinks():
        click.echo("# pipeline preview shows the lines that messages of the topics become")


def _load_backfill(path: ConfigInputs, options: Mapping[str, object], begin: str | None, end: str | None) -> Config:
    """The configuration's sources alone, from `begin` to `end`. Raises UsageError and ConfigError."""
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
        raise click.UsageError("--from and --to are for sources: a [[sources]] table and --to are needed")
    return msgspec.structs.replace(config, topics=(), sinks=())


def prepare(config: Config, logger: logging.Logger, until: Until) -> Locks:
    """What precedes the first process: locks, warnings, and checks of Iggy and of the sources' servers.

    Returns the locks, which are held while the pipeline runs. Raises PipelineError.
    """
    locks = Locks()
    _lock(locks, config)
    _log_warnings(config, logger)
    if config.sources:
        # Imported here, because most configurations have no sources.
        from pipeline.commands.preflight import check_outputs, check_sources, check_states, make_topics
        asyncio.run(check_states(config, logger))
        check_sources(config, logger)
        asyncio.run(make_topics(config))
        asyncio.run(check_outputs(config))
    asyncio.run(check_stores(config, logger))
    asyncio.run(check_iggy(config.iggy, config.subscriptions(), all_needed=bool(until)))
    return locks


def _lock(locks: Locks, config: Config) -> None:
    """Locks the offsets and states of a configuration; those that are locked stay so. Raises PipelineError."""
    lock_offsets(locks, config)
    if config.sources:
        from pipeline.source_coordinator.state_store import lock_states
        lock_states(locks, config)


def _lock_only(locks: Locks, config: Config) -> None:
    """Releases what is locked and not needed by a configuration. Raises PipelineError."""
    locks.keep_only(partial(_lock, locks, config))


def load_again(inputs: ConfigInputs, environ: Mapping[str, str], options: Mapping[str, object],
               running: Config) -> Config:
    """Reads a configuration again, and checks what the pipeline needs that runs with another one. Logs warnings.

    Raises PipelineError for one that cannot be used.
    """
    config = load_config(inputs, environ, options, unused=("tests",))
    changes = changes_between(running, config)
    if changes.refused:
        raise PipelineError(changes.refused)
    if changes.http:
        check_port(running.http, config.http)
    _log_warnings(config, logging.getLogger("reload"))
    if changes.sources and config.sources:
        from pipeline.commands.preflight import check_outputs, make_topics
        asyncio.run(make_topics(config))
        asyncio.run(check_outputs(config))
    if changes.sinks and config.all_sinks():
        asyncio.run(check_stores(config, logging.getLogger("reload")))
        asyncio.run(check_iggy(config.iggy, config.subscriptions(), all_needed=False))
    return config


def _log_warnings(config: Config, logger: logging.Logger) -> None:
    """Logs the options that have no effect and those that may not do what was meant."""
    for warning in config_warnings(config):
        logger.warning("%s", warning)
    for sink in config.all_sinks():
        for warning in mapping_warnings(sink.mapping, f"sink {sink.name}: mapping", sink.influxdb.precision):
            logger.warning("%s", warning)


def _describe_databases(config: Config, logger: logging.Logger) -> None:
    """Logs which InfluxDB each sink writes to, and whether it fits the configured version."""
    # Imported here, beside the start: it takes a while.
    from stages.write.startup_check import log_servers

    for sink in config.all_sinks():
        if sink.topics:
            mapping = sink.mapping
            log_servers(sink.influxdb, logger, mapping.measurement_name if mapping.measurement_from == "static" else
                        sink.topics[0].topic if mapping.measurement_from == "topic" and len(sink.topics) == 1
                        and not is_pattern(sink.topics[0].topic) else "")
