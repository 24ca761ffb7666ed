"""Process `write`: POSTs bodies to InfluxDB, several at a time, until every line is acknowledged or refused.

One thread owns all state (jobs, partition orders, concurrency limiters). Each thread of a pool sends one HTTP request
at a time.
"""

import logging
import time
import zlib
from typing import NamedTuple

import msgspec
import zmq

from pipeline.backoff import Backoff
from pipeline.config.plan import Plan
from pipeline.config.schema import InfluxConfig
from pipeline.sockets.call_pool import CallPool
from pipeline.sockets.control_link import ControlLink
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.sink_rules import WireRules
from pipeline.wire import sink as wire
from pipeline.work_file import WorkFile
from stages.influxdb.answers import Answer, OperatorNeeded, Retry
from stages.influxdb.concurrency import ConcurrencyLimiter
from stages.influxdb.outage_log import OutageLog
from stages.influxdb.retention import UNITS
from stages.write.job import Chunk, Evidence, WriteJob
from stages.write.ordering import Entry, PartitionOrder
from stages.write.requests_watch import RequestsWatch
from stages.write.transport import MAX_IN_FLIGHT_V3, Transport, limits_of

#: Longest wait for events, milliseconds.
POLL_MILLISECONDS = 1_000
#: Most batches queued for this writer from each encoder. With 1, nothing ever arrives through an authenticated socket
#: (libzmq 4.3.5: the handshake takes a place).
HIGH_WATER_MARK = 2
#: Batches accepted for each request that may be in flight: batches that are stored early wait for older ones that fail.
HELD_PER_REQUEST = 2


class _Batch:
    """One batch of lines, and the number of its unfinished jobs."""

    def __init__(self, lines: wire.Lines) -> None:
        self.lines = lines
        self.open = 0
        self.given_up = False
        self.sent_bytes = 0
        self.rejects: dict[int, wire.Reject] = {reject.offset: reject for reject in lines.rejects}
        #: Lines that a database refused, as (index of the bucket's lines, line): a message may have several lines.
        self.refused_lines: set[tuple[int, int]] = set()


class _BatchJob(WriteJob):
    """A job with its batch, the lines of one bucket, and its target."""

    def __init__(self, batch: _Batch, index: int, target: "_Target", content: bytes) -> None:
        """`index` is the index of the bucket's lines in the batch."""
        group = batch.lines.buckets[index]
        super().__init__(content, group.points, target.config.gzip, target.pace.max_bytes,
                         target.evidence.setdefault(group.bucket, Evidence()), UNITS[target.config.precision])
        self.batch = batch
        self.index = index
        self.group = group
        self.delayed = batch.lines.redelivered

    def rejects(self) -> list[wire.Reject]:
        """The messages that the refused lines come from."""
        lines = self.batch.lines
        return [wire.Reject(lines.offsets[index] if lines.offsets else lines.first + index, line.reason, line.message,
                            "write", line.status, line.attempts, line.text)
                for line in self.refused
                for index in self.group.messages_of(line.line)]


class _Target:
    """One database that has to store every line of a sink."""

    def __init__(self, config: InfluxConfig, urls: tuple[str, ...], logger: logging.Logger) -> None:
        self.config = config
        self.transport = Transport(config, urls, logger)
        backoff = Backoff.of(config)
        self.pace = ConcurrencyLimiter(self.transport.most_requests, backoff, config.retry_after_max_ms / 1000)
        self.lanes: dict[object, PartitionOrder[_BatchJob]] = {}
        #: By bucket: each may exist or not.
        self.evidence: dict[str, Evidence] = {}
        #: Index of the partition that was served last, so that all are served in turn.
        self.turn = 0
        #: Longest time of one write over all servers, seconds; and the requests in flight.
        self.seconds = limits_of(config).seconds * len(urls)
        self.watch: RequestsWatch[tuple[_BatchJob, Chunk]] = RequestsWatch(self.seconds)
        self.outages = OutageLog(logger, self.pace)

    def problem(self, now: float) -> str:
        """The problem of the database at `now` (seconds, monotonic); "" if there is none."""
        if self.pace.problem or not self.watch.has_long(now):
            return self.pace.problem
        return f"{self.transport.urls[0]} has not completely answered a write for a long time"

    def lane(self, batch: _Batch) -> PartitionOrder[_BatchJob]:
        """The lane of a batch's partition; with ordering = "none" each batch has its own."""
        key: object = batch.lines.range.partition if self.config.ordering == "partition" else object()
        return self.lanes.setdefault(key, PartitionOrder())

    def next_piece(self, now: float, work: WorkFile
                   ) -> tuple[PartitionOrder[_BatchJob], Entry[_BatchJob], Chunk | None] | None:
        """The next request to send at `now` (seconds, monotonic), partitions in turn.

        The piece is None if a job is done without a request, because the times of all its lines are known to be
        refused.
        """
        lanes = list(self.lanes.items())
        # Jobs in doubt come last: they wait until something else is stored.
        for in_doubt in (False, True):
            for step in range(len(lanes)):
                at = (self.turn + 1 + step) % len(lanes)
                key, lane = lanes[at]
                if not lane.entries:
                    self.lanes.pop(key, None)
                for entry in lane.startable():
                    if entry.job.in_doubt != in_doubt:
                        continue
                    work.begin(entry.job.batch.lines.range)
                    piece = entry.job.take(now)
                    work.end()
                    if piece is not None or entry.job.done:
                        self.turn = at
                        return lane, entry, piece
        return None


class _Outcome(NamedTuple):
    target: _Target
    lane: PartitionOrder[_BatchJob]
    entry: Entry[_BatchJob]
    piece: Chunk
    answer: Answer
    seconds: float


def run(name: str, index: int, plan: Plan, logger: logging.Logger) -> None:
    """Runs a writer until the process is killed."""
    WriteStage(name, index, plan, logger).run()


class WriteStage:
    """One writer process: the batches of its partitions, to every database of their sink."""

    def __init__(self, name: str, index: int, plan: Plan, logger: logging.Logger) -> None:
        self.logger = logger
        self.topics = plan.config.subscriptions()
        self.rules = WireRules(plan.config, plan.ingests)
        self.targets = [self._targets(sink.influxdb) for sink in plan.config.all_sinks()]
        self._all_targets = [target for targets in self.targets for target in targets]
        requests = sum(target.config.max_requests_in_flight or MAX_IN_FLIGHT_V3 for target in self._all_targets)
        self._held = 0
        self.endpoints = Endpoints(plan.folder, plan.config.network)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.link = ControlLink(self._context, self.endpoints, self.endpoints.control, name)
        self.pull = self._context.socket(zmq.PULL)
        self.pull.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        self.endpoints.bind_writer(self.pull, index)
        #: The range that this thread is working on. Ranges of requests in flight do not count: they wait for an answer.
        self._work = WorkFile(plan.folder, name, logger)
        self._pool: CallPool[_Outcome] = CallPool(self._context, requests, "post")

    def _targets(self, config: InfluxConfig) -> list[_Target]:
        return [_Target(config, urls, self.logger) for urls in config.url_sets()]

    def run(self) -> None:
        """Writes until the process is killed."""
        poller = zmq.Poller()
        poller.register(self._pool.wakeup, zmq.POLLIN)
        poller.register(self.link.socket, zmq.POLLIN)
        while True:
            self.link.beat()
            self._log_long_requests()
            wait = self._start_requests()
            has_room = self._held < HELD_PER_REQUEST * sum([target.pace.most for target in self._all_targets])
            poller.register(self.pull, zmq.POLLIN if has_room else 0)
            ready = dict(poller.poll(min(POLL_MILLISECONDS, max(1, round(wait * 1000)))))
            if self._pool.wakeup in ready:
                self._answered(self._pool.take())
            if self.pull in ready:
                self._receive()
            if self.link.socket in ready:
                self._handle_order()

    def _receive(self) -> None:
        """Receives a batch, if there is one: a handshake can make a socket appear ready, too."""
        try:
            lines, bodies = wire.read_lines(self.pull.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            return
        except wire.Malformed as error:
            self.link.dropped.drop("encode", str(error))
            return
        if wrong := self.rules.lines(lines, bodies):
            self.link.dropped.drop("encode", wrong)
        else:
            self._accept(lines, bodies)

    def _handle_order(self) -> None:
        """Handles a message of the coordinator, if there is one."""
        message = self.link.receive(0)
        if isinstance(message, wire.Allow):
            self.endpoints.admit(message.keys)
            self.link.send(wire.Allowed(message.keys))

    def _accept(self, lines: wire.Lines, bodies: list[bytes]) -> None:
        """Makes the jobs of a batch."""
        self._work.begin(lines.range)
        batch = _Batch(lines)
        self._held += 1
        for target in self.targets[self.topics[lines.range.partition.topic].sink]:
            for index, (_, content) in enumerate(zip(lines.buckets, bodies, strict=True)):
                batch.open += 1
                target.lane(batch).add(lines.range.first, _BatchJob(batch, index, target, content))
        self._work.end()

    def _start_requests(self) -> float:
        """Sends the requests that may be sent now. Returns the seconds until more may be sent without further
        answers."""
        now = time.monotonic()
        wait = POLL_MILLISECONDS / 1000
        for target in self._all_targets:
            while target.pace.allows(now) and (found := target.next_piece(now, self._work)):
                lane, entry, piece = found
                entry.started = True
                if piece is None:
                    self._finished(lane, entry)
                    continue
                target.pace.started()
                target.watch.sent((entry.job, piece), now)
                self._pool.submit(self._request, target, lane, entry, piece)
            if target.lanes and (left := target.pace.wait(now)):
                wait = min(wait, left)
        return wait

    def _request(self, target: _Target, lane: PartitionOrder[_BatchJob], entry: Entry[_BatchJob],
                 piece: Chunk) -> _Outcome:
        """One request; runs in a thread of the pool."""
        began = time.monotonic()
        try:
            answer = target.transport.post(piece.body or b"", entry.job.group.bucket,
                                           entry.job.group.escapes)
        except Exception as error:  # a thread that dies silently would block its batch for ever
            answer = Retry("no_connection", f"{type(error).__name__}: {error}")
        return _Outcome(target, lane, entry, piece, answer, time.monotonic() - began)

    def _answered(self, outcome: _Outcome) -> None:
        target, lane, entry, piece, answer, seconds = outcome
        now = time.monotonic()
        target.watch.ended((entry.job, piece))
        target.pace.most = target.transport.most_requests
        self._work.begin(entry.job.batch.lines.range)
        try:
            entry.job.may_repeat = target.transport.may_repeat
            verdict = entry.job.answered(piece, answer, target.pace.passed, now)
        except (ValueError, IndexError, zlib.error, EOFError) as error:
            target.pace.answered(answer, len(piece.body or b""), seconds, now)
            self._give_up(entry.job.batch, error)
            self._work.end()
            return
        self._work.end()
        if isinstance(verdict, OperatorNeeded) and verdict is not answer:
            verdict = msgspec.structs.replace(verdict, message=f"{target.transport.urls[0]}: {verdict.message}")
        answer = verdict
        target.pace.answered(answer, len(piece.body or b""), seconds, now)
        if isinstance(answer, Retry | OperatorNeeded):
            target.outages.failed("writing", answer, now)
        elif target.outages.recovered():
            self.logger.info("%s accepts writes again", target.transport.urls[0])
        self._report()
        if entry.job.done:
            self._finished(lane, entry)

    def _finished(self, lane: PartitionOrder[_BatchJob], entry: Entry[_BatchJob]) -> None:
        """Handles that a job has nothing left to send."""
        for job in lane.finished(entry, entry.job.may_repeat):
            self._job_done(job)

    def _log_long_requests(self) -> None:
        """Logs requests that take long, and the messages that wait for them."""
        now = time.monotonic()
        for target in self._all_targets:
            for (job, piece), seconds in target.watch.due(now):
                partition, range_ = job.batch.lines.range.partition, job.batch.lines.range
                topic = self.topics[partition.topic]
                self.logger.warning(
                    "%s has not completely answered a write for %.0f s; it is repeated after %g s: %s, "
                    "offsets %d to %d, %d bytes", target.transport.urls[0], seconds, target.seconds,
                    topic.label(partition.number), range_.first, range_.last, len(piece.body or b""))
        self._report()

    def _give_up(self, batch: _Batch, error: Exception) -> None:
        """Discards a batch with invalid bodies. Its messages are redelivered when the range is overdue."""
        if batch.given_up:
            return
        batch.given_up = True
        self.link.dropped.drop("encode", f"a body without lines: {type(error).__name__}")
        self._held -= 1
        for targets in self.targets:
            for target in targets:
                for lane in target.lanes.values():
                    lane.entries[:] = [entry for entry in lane.entries if entry.job.batch is not batch]

    def _job_done(self, job: _BatchJob) -> None:
        """Handles that a job is final. The last job of a batch settles the range."""
        batch = job.batch
        batch.open -= 1
        batch.sent_bytes += job.sent_bytes
        for reject in job.rejects():
            batch.rejects.setdefault(reject.offset, reject)
        batch.refused_lines.update((job.index, line.line) for line in job.refused)
        if batch.open == 0:
            self._held -= 1
            points = sum(group.points for group in batch.lines.buckets) - len(batch.refused_lines)
            self.link.send(wire.Settled(batch.lines.range, points, batch.sent_bytes, list(batch.rejects.values()),
                                        batch.lines.overwritten))

    def _report(self) -> None:
        """Reports the problems of the databases to the coordinator."""
        now = time.monotonic()
        wrong = "; ".join(filter(None, (target.problem(now) for target in self._all_targets)))
        self.link.report(wrong, any(target.pace.paused for target in self._all_targets))
