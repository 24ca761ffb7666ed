"""One database that a sink writes to: the jobs for it, in order, and its state."""

import logging
import time
from collections.abc import Hashable

from pipeline.backoff import Backoff
from pipeline.config.changes import CREDENTIALS
from pipeline.config.schema import InfluxConfig
from pipeline.errors import PipelineError
from pipeline.log_formats import facts
from stages.influxdb.answers import Answer, OperatorNeeded, Retry
from stages.influxdb.concurrency import ConcurrencyLimiter
from stages.influxdb.outage_log import OutageLog
from stages.write.batch import Batch, BatchJob, Work
from stages.write.chunk import Chunk
from stages.write.doubt import Evidence
from stages.write.ordering import Entry, WriteOrder
from stages.write.server import limits_of
from stages.write.slow_requests import SlowRequests
from stages.write.transport import Transport


class Target:
    """The state of one database in this writer."""

    def __init__(self, config: InfluxConfig, urls: tuple[str, ...], logger: logging.Logger) -> None:
        """Raises PipelineError if the token file can't be read."""
        self.config = config
        self.transport = Transport(config, urls, logger)
        self.limiter = ConcurrencyLimiter(self.transport.max_in_flight, Backoff.of(config),
                                          config.retry_after_max_ms / 1000)
        #: The deadline of a request, at all of its servers together, seconds.
        self.seconds = limits_of(config).seconds * len(urls)
        self.slow: SlowRequests[tuple[BatchJob, Chunk]] = SlowRequests(self.seconds)
        self._logger = logger
        self._outages = OutageLog(logger, self.limiter)
        self._order: WriteOrder[BatchJob] = WriteOrder()
        #: By bucket: each may be set up correctly, or not.
        self._evidence: dict[str, Evidence] = {}

    def replace_credentials(self, config: InfluxConfig) -> None:
        """Uses the credentials of `config` from the next request on; one that was paused for the old ones is due."""
        changed = any(getattr(config, name) != getattr(self.config, name) for name in CREDENTIALS)
        self.config = config
        if not changed:
            return
        try:
            self.transport = Transport(config, self.transport.urls, self._logger)
        except PipelineError as error:
            self._logger.error("%s; requests go on with the credentials used so far", error)
        self.limiter.retry_now()

    @property
    def has_jobs(self) -> bool:
        """Whether any batch has lines for it."""
        return bool(self._order)

    def problem(self, now: float) -> str:
        """What fails at `now` (seconds, monotonic); "" if nothing does."""
        if self.limiter.problem or not self.slow.any(now):
            return self.limiter.problem
        return f"{self.transport.urls[0]} has not answered a write completely for long"

    def add(self, batch: Batch, content: list[bytes]) -> None:
        """Makes the jobs of a batch; `content` has the body of each of its groups."""
        for index, (group, body) in enumerate(zip(batch.lines.buckets, content, strict=True)):
            batch.open_jobs += 1
            evidence = self._evidence.setdefault(group.bucket, Evidence())
            job = BatchJob(batch, index, body, self.config, self.limiter.max_bytes, evidence)
            self._order.add(self._places(batch), job)

    def _places(self, batch: Batch) -> dict[Hashable, tuple[int, int, int]]:
        """The place of a batch in the order of each of its partitions; with ordering = "none" in one of its own."""
        if self.config.ordering == "none":
            return {object(): (0, 0, 0)}
        ranges = [part.range for part in batch.lines.parts]
        return {range_.partition: (range_.epoch, range_.generation, range_.first) for range_ in ranges}

    def abandon(self, batch: Batch) -> None:
        """Drops the jobs of a batch."""
        for entry in self._order.entries():
            if entry.job.batch is batch:
                self._order.remove(entry)

    def finished(self, entry: Entry[BatchJob]) -> list[BatchJob]:
        """A job has nothing left to send. Returns the jobs that are done with that."""
        return self._order.finished(entry, entry.job.may_repeat)

    def next_chunk(self, now: float, work: Work) -> tuple[Entry[BatchJob], Chunk | None] | None:
        """The next request to send at `now` (seconds, monotonic), the partitions in turn; None while there is none.

        Without a chunk if a job is done without a request: the times of its lines are known to be refused.
        """
        startable = self._order.startable()
        # Jobs in doubt come last: they wait for something else to be stored.
        for in_doubt in (False, True):
            for entry in startable:
                if entry.job.in_doubt != in_doubt:
                    continue
                with work.on(entry.job.batch):
                    chunk = entry.job.take(now)
                if chunk is not None or entry.job.done:
                    self._order.served(entry)
                    entry.started = True
                    return entry, chunk
        return None

    def started(self, job: BatchJob, chunk: Chunk, now: float) -> None:
        """A request is in flight from `now` on (seconds, monotonic)."""
        self.limiter.started()
        self.slow.started((job, chunk), now)

    def answered(self, chunk: Chunk, answer: Answer, seconds: float) -> None:
        """Takes what an answer, which came after `seconds`, means for the database; logs outages."""
        now = time.monotonic()
        self.limiter.answered(answer, len(chunk.body or b""), seconds, now)
        if isinstance(answer, Retry | OperatorNeeded):
            self._outages.failed("writing", answer, now, url=self.transport.urls[0])
        elif self._outages.recovered():
            url = self.transport.urls[0]
            self._logger.info("%s accepts writes again", url, extra=facts(url=url))
