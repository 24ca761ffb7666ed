"""What is looked at before sources start: their state, their server, and a query of one's own."""

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
from pipeline.iggy.retry import retry_on_disconnect
from pipeline.interrupts import end_on_interrupt, start_blocked
from pipeline.logs import setup_logging
from pipeline.source_coordinator.state_store import store_of, writer_of
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.query.reader import SourceReader
from stages.query.transport import QueryFailed


async def make_topics(config: Config) -> None:
    """Makes the topics that a source fills and a sink of the same configuration reads: both may start at once.

    Raises IggyError.
    """
    read = {(topic.stream, topic.topic) for topic in config.subscriptions()}
    iggy = IggyConnection(config.iggy)
    for source in config.sources:
        where = source.output.stream, source.output.topic
        if where in read:
            await iggy.ensure_connected()
            await iggy.make_topic(*where, source.output.partitions)


async def check_states(config: Config, logger: logging.Logger) -> None:
    """Raises StateError for a state that can't be used, and IggyError when Iggy, which has it, can't be asked."""
    for source in config.sources:
        store = store_of(config, source, writer_of("pipeline start", os.getpid()), logger)
        await retry_on_disconnect(functools.partial(store.load, time.time_ns()))
        for warning in store.warnings:
            logger.warning("%s", warning)


def check_sources(config: Config, logger: logging.Logger) -> None:
    """Raises PipelineError for a query that the server refuses.

    A server that can't be reached, or refuses for another reason, is waited for: that is only said.
    """
    for source in config.sources:
        if source.influxdb.insecure_skip_verify:
            logger.warning("source %s: influxdb.insecure_skip_verify: anybody on the way can read and change what is "
                           "read", source.name)
        answer = _checked_apart(source, config) if source.influxdb.transport == "flight" else _checked(source, logger)
        if isinstance(answer, OperatorNeeded) and answer.reason == "refused":
            what = f"query {' '.join(source.query.split())}" if source.query else "list of measurements"
            raise PipelineError(f"source {source.name}: {what}: {answer.message}; correct it, or the source's "
                                "influxdb table")
        if answer is not None:
            logger.warning("source %s: %s; starting, and waiting for it", source.name, answer.message)


def _checked(source: SourceConfig, logger: logging.Logger) -> Retry | OperatorNeeded | None:
    """What is wrong. Raises PipelineError for a file that can't be used."""
    try:
        SourceReader(source, logger).check()
    except QueryFailed as failed:
        return failed.answer
    return None


def _checked_apart(source: SourceConfig, config: Config) -> Retry | OperatorNeeded | None:
    """`_checked` in a process of its own: this one is to spawn others, and shall have no threads of gRPC in it."""
    context = multiprocessing.get_context("spawn")
    found, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_check_and_end, args=(source, config, theirs))
    start_blocked(process)
    theirs.close()
    try:
        answer: Retry | OperatorNeeded | str | None = found.recv()
    except EOFError:
        answer = Retry("server_error", "the check ended before it had an answer")
    process.join()
    if isinstance(answer, str):
        raise PipelineError(f"source {source.name}: {answer}")
    return answer


def _check_and_end(source: SourceConfig, config: Config, theirs: Connection) -> None:
    """Ends without the interpreter's own shutdown: threads of gRPC may still be calling into it."""
    end_on_interrupt("")
    try:
        logger = setup_logging("check", config.pipeline.log_level, secrets_of(config))
        theirs.send(_checked(source, logger))
    except PipelineError as error:
        theirs.send(str(error))
    os._exit(0)
