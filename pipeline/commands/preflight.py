"""Checks before sources start: their states, their servers, and custom queries."""

import functools
import logging
import multiprocessing
import os
import time
from multiprocessing.connection import Connection

from pipeline.config.schema import Config
from pipeline.config.secrets import secrets_of
from pipeline.config.source_schema import SourceConfig
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyForbidden
from pipeline.iggy.retry import retry_on_disconnect
from pipeline.iggy.rights import lacks_everywhere
from pipeline.interrupts import end_on_interrupt, start_blocked
from pipeline.logs import setup_logging
from pipeline.points.times import parse_time
from pipeline.source_coordinator.state_store import store_of, writer_of
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.query.reader import SourceReader
from stages.query.transport import QueryFailed


async def make_topics(config: Config) -> None:
    """Creates the topics that a source writes and a sink of the same configuration reads, so that both can start.

    Raises IggyError.
    """
    read = {(topic.stream, topic.topic) for topic in config.subscriptions()}
    iggy = IggyConnection(config.iggy)
    for source in config.sources:
        where = source.output.stream, source.output.topic
        if where in read:
            await iggy.ensure_connected()
            await iggy.make_topic(*where, source.output.partitions)


async def check_outputs(config: Config) -> None:
    """Whether the user may send what the sources produce, as far as topics with fixed names exist. Raises IggyError."""
    iggy = IggyConnection(config.iggy)
    for source in config.sources:
        output = source.output
        if "{" in output.stream + output.topic:
            continue
        await iggy.ensure_connected()
        await iggy.full_details(output.stream, output.topic)  # its partitions are needed, to use them all
        permissions = await iggy.permissions()
        if permissions is not None and lacks_everywhere(permissions, "send_messages"):
            raise IggyForbidden(f"source {source.name}: the user of the pipeline lacks the right send_messages on "
                                f"{output.stream}/{output.topic}; grant it, or give a user who has it")


async def check_states(config: Config, logger: logging.Logger) -> None:
    """Loads every state, and logs its warnings. Raises StateError for an unusable state, IggyError if Iggy fails."""
    for source in config.sources:
        store = store_of(config, source, writer_of("pipeline start", os.getpid()), logger)
        await retry_on_disconnect(functools.partial(store.load, time.time_ns()))
        for warning in store.warnings:
            logger.warning("%s", warning)


def check_sources(config: Config, logger: logging.Logger) -> None:
    """Tries the query of each source. Raises PipelineError for one that the server refuses.

    Every other failure is logged as a warning: the query process retries it.
    """
    for source in config.sources:
        if source.influxdb.insecure_skip_verify:
            logger.warning("source %s: influxdb.insecure_skip_verify: TLS certificates are not verified, so traffic "
                           "can be intercepted and altered; give ca_file instead", source.name)
        if source.to and parse_time(source.to) > time.time_ns():
            logger.warning("source %s: `to` = %s is in the future: %s", source.name, source.to,
                           "points up to it are read at once, and points written later are not" if
                           source.read_future_points else "the source waits until then, and reads what is written; set "
                           "read_future_points to read the points that are there now, and end")
        answer = source_failure(source, config, logger)
        if isinstance(answer, OperatorNeeded) and answer.reason == "refused":
            what = f"query {' '.join(source.query.split())}" if source.query else "list of measurements"
            raise PipelineError(f"source {source.name}: {what}: {answer.message}; correct it, or the source's "
                                "influxdb table")
        if answer is not None:
            logger.warning("source %s: %s; starting, and retrying it", source.name, answer.message)


def source_failure(source: SourceConfig, config: Config, logger: logging.Logger,
                   warns: bool = False) -> Retry | OperatorNeeded | None:
    """Why the query of a source fails; None if it succeeds. `warns`: logs that it reads no measurement (not over
    Flight). Raises PipelineError for an unusable file."""
    return _checked_apart(source, config) if source.influxdb.transport == "flight" else _checked(source, logger, warns)


def _checked(source: SourceConfig, logger: logging.Logger, warns: bool = False) -> Retry | OperatorNeeded | None:
    """Why the query fails; None if it succeeds. Raises PipelineError for an unusable file."""
    try:
        if not SourceReader(source, logger).check() and warns:
            logger.warning("source %s: no measurement of the database matches `measurements`: nothing is read yet",
                           source.name)
    except QueryFailed as failed:
        return failed.answer
    return None


def _checked_apart(source: SourceConfig, config: Config) -> Retry | OperatorNeeded | None:
    """`_checked` in another process: this one forks later, and must not have gRPC's threads."""
    context = multiprocessing.get_context("spawn")
    results, sender = context.Pipe(duplex=False)
    process = context.Process(target=_check_and_end, args=(source, config, sender))
    start_blocked(process)
    sender.close()
    try:
        answer: Retry | OperatorNeeded | str | None = results.recv()
    except EOFError:
        answer = Retry("server_error", "the process that checks the query ended without an answer")
    process.join()
    if isinstance(answer, str):
        raise PipelineError(f"source {source.name}: {answer}")
    return answer


def _check_and_end(source: SourceConfig, config: Config, sender: Connection) -> None:
    """Sends the result, and exits without the interpreter's shutdown, which gRPC's threads can crash."""
    end_on_interrupt("")
    try:
        logger = setup_logging("check", config.pipeline.log_level, secrets_of(config))
        sender.send(_checked(source, logger))
    except PipelineError as error:
        sender.send(str(error))
    os._exit(0)
