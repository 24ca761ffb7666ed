"""The batches that a writer has in hand, and their jobs: one for each bucket and database."""

from pipeline.config.schema import InfluxConfig
from pipeline.wire import sink as wire
from stages.influxdb.retention import UNITS
from stages.write.doubt import Evidence
from stages.write.job import WriteJob


class Batch:
    """The lines of one range, and what has become of them so far."""

    def __init__(self, lines: wire.Lines) -> None:
        self.lines = lines
        #: Jobs that are not done.
        self.open_jobs = 0
        #: A body was invalid: the batch is not written, and will be read again.
        self.abandoned = False
        self._sent_bytes = 0
        self._rejects: dict[int, wire.Reject] = {reject.offset: reject for reject in lines.rejects}
        #: Lines that any database refused, as (index of the group, line in it). A message may have several lines, or
        #: be one of several of a line.
        self._refused_lines: set[tuple[int, int]] = set()

    def add(self, job: "BatchJob") -> None:
        """Takes the outcome of a job that is done."""
        self.open_jobs -= 1
        self._sent_bytes += job.sent_bytes
        for reject in job.rejects():
            self._rejects.setdefault(reject.offset, reject)
        self._refused_lines.update((job.index, line.line) for line in job.refused)

    def settled(self) -> wire.Settled:
        """The report for the coordinator, once all jobs are done."""
        points = sum(group.points for group in self.lines.buckets) - len(self._refused_lines)
        return wire.Settled(self.lines.range, points, self._sent_bytes, list(self._rejects.values()),
                            self.lines.overwritten)


class BatchJob(WriteJob):
    """The job of one group of a batch's lines, for one database."""

    def __init__(self, batch: Batch, index: int, content: bytes, config: InfluxConfig, max_bytes: int | None,
                 evidence: Evidence) -> None:
        """`index` is that of the group in the batch; `config`, `max_bytes` and `evidence` are the database's."""
        self.batch = batch
        self.index = index
        self.group = batch.lines.buckets[index]
        super().__init__(content, self.group.points, config.gzip, max_bytes, evidence, UNITS[config.precision])
        self.delayed = batch.lines.redelivered

    def rejects(self) -> list[wire.Reject]:
        """The messages that the refused lines come from."""
        lines = self.batch.lines
        return [wire.Reject(lines.offsets[message] if lines.offsets else lines.first + message, line.reason,
                            line.message, "write", line.status, line.attempts, line.text)
                for line in self.refused for message in self.group.messages_of(line.line)]
