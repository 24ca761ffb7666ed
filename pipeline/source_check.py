"""What is looked at before sources start: their state, their server, and a query of one's own."""

import logging
import time

from pipeline.errors import PipelineError
from pipeline.iggy import IggyConnection
from pipeline.schema import Config
from pipeline.source_state import load_state
from stages.influxdb.answers import Paused
from stages.source.reader import Failed, Reader


async def make_topics(config: Config) -> None:
    """Makes the topics that a source fills and a sink of the same configuration reads: both may start at once.

    Raises IggyError.
    """
    read = {(topic.stream, topic.topic) for topic in config.subscriptions()}
    iggy = IggyConnection(config.iggy)
    for source in config.source:
        where = source.output.stream, source.output.topic
        if where in read:
            await iggy.connected()
            await iggy.make_topic(*where, source.output.partitions)


def check_sources(config: Config, logger: logging.Logger) -> None:
    """Raises PipelineError for a state that can't be used, and for a query that the server refuses.

    A server that can't be reached, or refuses for another reason, is waited for: that is only said.
    """
    for source in config.source:
        load_state(source, time.time_ns())
        if source.influxdb.insecure_skip_verify:
            logger.warning("source %s: influxdb.insecure_skip_verify: anybody on the way can read and change what is "
                           "read", source.name)
        try:
            Reader(source, logger).check()
        except Failed as failed:
            answer = failed.answer
            if isinstance(answer, Paused) and answer.reason == "refused":
                what = f"query {' '.join(source.query.split())}" if source.query else "list of measurements"
                raise PipelineError(f"source {source.name}: {what}: {answer.words}; correct it, or the source's "
                                    "influxdb table") from None
            logger.warning("source %s: %s; starting, and waiting for it", source.name, answer.words)
