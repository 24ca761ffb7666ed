"""Write: POSTs bodies to InfluxDB, several at a time, and repeats each until its lines are stored or refused.

One thread owns all state: targets, batches, jobs. The threads of a pool run one HTTP request each.
"""

import logging
import time
import zlib
from typing import NamedTuple

import msgspec
import zmq

from pipeline.config.plan import Plan
from pipeline.config.schema import InfluxConfig
from pipeline.log_formats import facts
from pipeline.plan_updates import PlanUpdates
from pipeline.sockets.call_pool import CallPool
from pipeline.sockets.control_link import ControlLink
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.sink_rules import WireRules
from pipeline.sockets.tap_socket import TapPublisher
from pipeline.subscriptions import Subscriptions
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.work_file import WorkFile
from stages.influxdb.answers import Answer, OperatorNeeded, Retry
from stages.write.batch import Batch, BatchJob, Work
from stages.write.chunk import Chunk
from stages.write.measures import RequestMeasures
from stages.write.ordering import Entry
from stages.write.sampling import samples_of
from stages.write.target import Target
from stages.write.transport import MAX_IN_FLIGHT_V3

#: Longest wait for an event, milliseconds.
POLL_MILLISECONDS = 1_000
#: Batches queued for this writer from each encoder, at most. With 1, nothing ever arrives through an authenticated
#: socket (libzmq 4.3.5: the handshake takes a place).
HIGH_WATER_MARK = 2
#: Batches in hand for each request that may be in flight: those that were stored early wait for older ones that fail.
BATCHES_PER_REQUEST = 2


class _Outcome(NamedTuple):
    """The answer to a request."""

    target: Target
    entry: Entry[BatchJob]
    chunk: Chunk
    answer: Answer
    seconds: float


def run(name: str, index: int, plan: Plan, logger: logging.Logger, updates: PlanUpdates) -> None:
    """Runs a writer until the process is killed."""
    WriteStage(name, index, plan, logger, updates).run()


class WriteStage:
    """One writer process: the batches of its partitions, to every database of their sink."""

    def __init__(self, name: str, index: int, plan: Plan, logger: logging.Logger, updates: PlanUpdates) -> None:
        self.logger = logger
        self._updates = updates
        self.topics = Subscriptions(plan.config)
        self.rules = WireRules(plan.config, plan.ingests, self.topics)
        #: Of each sink, its databases.
        self.targets = [self._targets(sink.influxdb) for sink in plan.config.all_sinks()]
        self._names = [sink.name for sink in plan.config.all_sinks()]
        self._all_targets = [target for targets in self.targets for target in targets]
        self._measures = RequestMeasures(self.targets)
        self._batches = 0
        self.endpoints = Endpoints(plan.folder, plan.config.network)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.link = ControlLink(self._context, self.endpoints, self.endpoints.control, name)
        self.pull = self._context.socket(zmq.PULL)
        self.pull.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        self.endpoints.bind_writer(self.pull, index)
        self._tap = TapPublisher(self.endpoints, self.endpoints.tap(index))
        #: What this thread has in hand. Batches whose requests are in flight are not: an answer ends those.
        self._work = Work(WorkFile(plan.folder, name, logger))
        threads = sum(target.config.max_requests_in_flight or MAX_IN_FLIGHT_V3 for target in self._all_targets)
        self._pool: CallPool[_Outcome] = CallPool(self._context, threads, "post")

    def _targets(self, config: InfluxConfig) -> list[Target]:
        return [Target(config, urls, self.logger) for urls in config.url_sets()]

    def run(self) -> None:
        """Writes until the process is killed."""
        poller = zmq.Poller()
        poller.register(self._pool.wakeup, zmq.POLLIN)
        poller.register(self.link.socket, zmq.POLLIN)
        while True:
            self.link.beat()
            self._log_slow_requests()
            self._update()
            wait = self._start_requests()
            in_flight = sum([target.limiter.max_in_flight for target in self._all_targets])
            most_batches = BATCHES_PER_REQUEST * in_flight
            if (report := self._measures.report(self._batches, most_batches, time.monotonic())) is not None:
                self.link.send(report)
            poller.register(self.pull, zmq.POLLIN if self._batches < most_batches else 0)
            ready = dict(poller.poll(min(self.link.milliseconds_to_beat(), max(1, round(wait * 1000)))))
            if self._pool.wakeup in ready:
                self._answered(self._pool.take())
            if self.pull in ready:
                self._receive()
            if self.link.socket in ready:
                self._take_order()

    def _update(self) -> None:
        """Sends the credentials of a new plan from the next request on."""
        plan = self._updates.take()
        if plan is not None:
            for sink, targets in zip(plan.config.all_sinks(), self.targets, strict=True):
                for target in targets:
                    target.replace_credentials(sink.influxdb)

    def _receive(self) -> None:
        """Receives a batch. There may be none: a socket seems ready during a handshake, too."""
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

    def _take_order(self) -> None:
        """Follows an order of the coordinator, if there is one."""
        message = self.link.receive(0)
        if isinstance(message, wire.Allow):
            self.endpoints.admit(message.keys)
            self.link.send(wire.Allowed(message.keys))

    def _accept(self, lines: wire.Lines, bodies: list[bytes]) -> None:
        """Makes the jobs of a batch."""
        batch = Batch(lines)
        self._batches += 1
        with self._work.on(batch):
            targets = self.targets[self.topics[lines.parts[0].range.partition.topic].sink]
            for target in targets:
                target.add(batch, bodies)
            if self._tap.wants(time.monotonic()):
                self._tap.send(samples_of(batch, bodies, self.topics, self._names, targets[0].config.gzip))

    def _start_requests(self) -> float:
        """Sends what may be sent now. Returns the seconds until more may be sent without another answer."""
        now = time.monotonic()
        wait = POLL_MILLISECONDS / 1000
        for target in self._all_targets:
            while target.limiter.allows(now) and (found := target.next_chunk(now, self._work)):
                entry, chunk = found
                if chunk is None:
                    self._finished(target, entry)
                    continue
                target.started(entry.job, chunk, now)
                self._pool.submit(_request, target, entry, chunk)
            if target.has_jobs and (left := target.limiter.wait(now)):
                wait = min(wait, left)
        return wait

    def _answered(self, outcome: _Outcome) -> None:
        """Takes an answer: what it means for the job, and for the database."""
        target, entry, chunk, answer, seconds = outcome
        job = entry.job
        self._measures.answered(target, answer, len(chunk.body or b""), seconds)
        target.slow.ended((job, chunk))
        target.limiter.max_in_flight = target.transport.max_in_flight
        try:
            with self._work.on(job.batch):
                job.may_repeat = target.transport.may_repeat
                meaning = job.answered(chunk, answer, target.limiter.acknowledged, time.monotonic())
        except (ValueError, IndexError, zlib.error, EOFError) as error:
            target.limiter.answered(answer, len(chunk.body or b""), seconds, time.monotonic())
            self._abandon(job.batch, error)
            return
        if isinstance(meaning, OperatorNeeded) and meaning is not answer:
            meaning = msgspec.structs.replace(meaning, message=f"{target.transport.urls[0]}: {meaning.message}")
        target.answered(chunk, meaning, seconds)
        self._report()
        if job.done:
            self._finished(target, entry)

    def _finished(self, target: Target, entry: Entry[BatchJob]) -> None:
        """A job has nothing left to send."""
        for job in target.finished(entry):
            self._job_done(job)

    def _job_done(self, job: BatchJob) -> None:
        """A job is complete; with its batch's last one the range is settled."""
        job.batch.add(job)
        if job.batch.open_jobs == 0:
            self._batches -= 1
            self.link.send(wire.Reports(settled=job.batch.settled()))

    def _abandon(self, batch: Batch, error: Exception) -> None:
        """Drops a batch with an invalid body. Its range is read again when it is overdue."""
        if batch.abandoned:
            return
        batch.abandoned = True
        self.link.dropped.drop("encode", f"a body without valid lines: {type(error).__name__}")
        self._batches -= 1
        for target in self._all_targets:
            target.abandon(batch)

    def _log_slow_requests(self) -> None:
        """Logs slow requests with the messages that wait for them."""
        now = time.monotonic()
        for target in self._all_targets:
            for (job, chunk), seconds in target.slow.to_log(now):
                range_, *others = [part.range for part in job.batch.lines.parts]
                more = f" and {len(others)} more ranges" if others else ""
                topic = self.topics[range_.partition.topic]
                where = topic.label(range_.partition.number)
                self.logger.warning(
                    "%s has not answered a write completely for %.0f s; it is repeated after %g s: %s, offsets %d to "
                    "%d%s, %d bytes", target.transport.urls[0], seconds, target.seconds, where, range_.first,
                    range_.last, more, len(chunk.body or b""), extra=facts(
                        url=target.transport.urls[0], stream=topic.stream, topic=topic.topic,
                        partition=range_.partition.number, offset=range_.first, last_offset=range_.last))
        self._report()

    def _report(self) -> None:
        """Reports to the coordinator what fails outside of this process."""
        now = time.monotonic()
        self.link.report([common.Problem(name, problem, target.limiter.paused)
                          for name, targets in zip(self._names, self.targets, strict=True) for target in targets
                          if (problem := target.problem(now))])


def _request(target: Target, entry: Entry[BatchJob], chunk: Chunk) -> _Outcome:
    """One request; runs in a thread of the pool."""
    began = time.monotonic()
    group = entry.job.group
    try:
        answer = target.transport.post(chunk.body or b"", group.bucket, group.escapes)
    except Exception as error:  # else the chunk would never be sent again
        answer = Retry("no_connection", f"{type(error).__name__}: {error}")
    return _Outcome(target, entry, chunk, answer, time.monotonic() - began)
