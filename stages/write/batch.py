"""The batches that a writer has in hand, and their jobs: one for each bucket and database."""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

from pipeline.config.schema import InfluxConfig
from pipeline.wire import sink as wire
from pipeline.work_file import WorkFile
from stages.influxdb.retention import UNITS
from stages.write.doubt import Evidence
from stages.write.job import WriteJob


class Batch:
    """The lines of one or several ranges that travel together, and what has become of them so far."""

    def __init__(self, lines: wire.Lines) -> None:
        self.lines = lines
        self.ranges = [part.range for part in lines.parts]
        #: Jobs that are not done.
        self.open_jobs = 0
        #: A body was invalid: the batch is not written, and will be read again.
        self.abandoned = False
        self._sent_bytes = 0
        #: Of each part, its rejects by offset.
        self._rejects: list[dict[int, wire.Reject]] = [{reject.offset: reject for reject in part.rejects}
                                                       for part in lines.parts]
        #: Of each part, the index of its first message.
        self._firsts = list(accumulate([part.messages for part in lines.parts], initial=0))
        #: Lines that any database refused, as (index of the group, line in it). A message may have several lines, or
        #: be one of several of a line.
        self._refused_lines: set[tuple[int, int]] = set()

    def locate(self, message: int) -> tuple[int, int]:
        """The part of a message, and its offset."""
        part = bisect_right(self._firsts, message) - 1
        return part, self.lines.parts[part].offset(message - self._firsts[part])

    def add(self, job: "BatchJob") -> None:
        """Takes the outcome of a job that is done."""
        self.open_jobs -= 1
        self._sent_bytes += job.sent_bytes
        for part, reject in job.rejects():
            self._rejects[part].setdefault(reject.offset, reject)
        self._refused_lines.update((job.index, line.line) for line in job.refused)

    def settled(self) -> list[wire.Settled]:
        """The reports for the coordinator, once all jobs are done. The bytes are in the first one."""
        points = [part.points for part in self.lines.parts]
        for group, line in self._refused_lines:
            message = self.lines.buckets[group].messages_of(line)[0]
            points[self.locate(message)[0]] -= 1
        return [wire.Settled(part.range, points[index], 0 if index else self._sent_bytes,
                             list(self._rejects[index].values()), part.overwritten)
                for index, part in enumerate(self.lines.parts)]


class BatchJob(WriteJob):
    """The job of one group of a batch's lines, for one database."""

    def __init__(self, batch: Batch, index: int, content: bytes, config: InfluxConfig, max_bytes: int | None,
                 evidence: Evidence) -> None:
        """`index` is that of the group in the batch; `config`, `max_bytes` and `evidence` are the database's."""
        self.batch = batch
        self.index = index
        self.group = batch.lines.buckets[index]
        super().__init__(content, self.group.points, config.gzip, max_bytes, evidence, UNITS[config.precision])
        self.delayed = any(part.redelivered for part in batch.lines.parts)

    def rejects(self) -> list[tuple[int, wire.Reject]]:
        """The messages that the refused lines come from, each with the part that it is in."""
        found = []
        for line in self.refused:
            for message in self.group.messages_of(line.line):
                part, offset = self.batch.locate(message)
                found.append((part, wire.Reject(offset, line.reason, line.message, "write", line.status, line.attempts,
                                                line.text)))
        return found


class Work:
    """The work file of a writer. It names the ranges that a process dies of: all those of one body."""

    def __init__(self, file: WorkFile) -> None:
        self._file = file

    @contextmanager
    def on(self, batch: Batch) -> Iterator[None]:
        """While the block lasts, the process works on this batch."""
        self._file.begin(batch.ranges)
        try:
            yield
        finally:
            self._file.end()
