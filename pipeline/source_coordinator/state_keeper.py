"""Loads the states of all sources, and stores those that have changed."""

import asyncio
import logging
import os
import time

from pipeline.config.plan import Plan
from pipeline.config.source_schema import SourceConfig
from pipeline.errors import PipelineError
from pipeline.iggy.errors import IggyError
from pipeline.log_formats import facts
from pipeline.logs import RepeatFilter
from pipeline.points.times import format_time
from pipeline.sockets.peers import Peers
from pipeline.source_coordinator.source import Source
from pipeline.source_coordinator.state import StateError
from pipeline.source_coordinator.state_store import StateStore, store_of, writer_of
from pipeline.source_coordinator.state_topic import StateTaken
from pipeline.wire import common

#: Pause before a state is loaded again, seconds.
RETRY_SECONDS = 0.5
#: The name under which failures are reported as being retried.
NAME = "source-coordinator"


class StateKeeper:
    """Part of the source coordinator. A state that cannot be stored is stored later; watermarks never move back."""

    def __init__(self, plan: Plan, peers: Peers, logger: logging.Logger) -> None:
        self._plan = plan
        self._peers = peers
        self._logger = logger
        self._failures = RepeatFilter()

    async def load(self, epoch: int) -> list[Source]:
        """All sources with their states. Waits while Iggy is unavailable. Raises StateError."""
        writer = writer_of("pipeline start", os.getpid(), self._plan.run)
        return [await self._load(index, config, epoch, store_of(self._plan.config, config, writer, self._logger))
                for index, config in enumerate(self._plan.config.sources)]

    async def _load(self, index: int, config: SourceConfig, epoch: int, store: StateStore) -> Source:
        """A source with its state. Raises StateError.

        The state is stored at once: it exists from now on, "now" keeps its meaning, and with a topic other pipelines
        see that this one runs.
        """
        while True:
            try:
                now = time.time_ns()
                source = Source(index, config, epoch, now, store, await store.load(now))
                await store.save(source.snapshot())
                break
            except IggyError as error:
                self._failed(error)
                await asyncio.sleep(RETRY_SECONDS)
        self._peers.retrying(NAME, common.Retrying(""))
        self.log_moved_back(source)
        if source.state.watermarks:
            self._logger.info("source %s: continuing at the stored watermarks of %d measurements", config.name,
                              len(source.state.watermarks), extra=facts(source=config.name))
        else:
            self._logger.info("source %s: starting at %s; its state is stored in %s", config.name, config.from_,
                              store.where, extra=facts(source=config.name))
        return source

    def log_moved_back(self, source: Source) -> None:
        """Logs that watermarks in the future were moved back, if any were."""
        measurement, watermark, back = source.moved_back
        if measurement:
            self._logger.error(
                "source %s: the watermark of %s is %s, which is in the future: a clock was ahead, or this machine's is "
                "behind. Reading continues at %s, and likewise for every watermark in the future; points may be sent "
                "twice. Set the clock; see docs/reference/source.rst", source.config.name, measurement,
                format_time(watermark), format_time(back),
                extra=facts(source=source.config.name, measurement=measurement))

    async def store(self, source: Source) -> str:
        """Stores the state of a source. Returns why the pipeline must stop, or "". Failures are retried by the
        caller."""
        changes, at_goal = source.changes, source.at_goal
        try:
            await source.store.save(source.snapshot())
        except StateTaken as error:
            return str(error)
        except (StateError, IggyError) as error:
            self._failed(error)
            source.changed(time.monotonic())  # so that it is tried again
            return ""
        source.stored = changes
        source.goal_stored |= at_goal
        self._peers.retrying(NAME, common.Retrying(""))
        return ""

    def _failed(self, error: PipelineError) -> None:
        """Reports that a state cannot be stored or loaded for now."""
        self._peers.retrying(NAME, common.Retrying(str(error), paused=isinstance(error, StateError)))
        if self._failures.allows(str(error), time.monotonic()):
            self._logger.error("source state cannot be loaded or stored: %s; retrying, nothing is lost", error)
