"""Query: reads the windows that the coordinator orders from InfluxDB, and pushes the raw answers to convert.

One thread owns all state; the threads of a pool run one query each. No copies of answers are kept: the coordinator
orders lost pages again.
"""

import logging
import time
from collections import deque
from typing import NamedTuple

import zmq

from pipeline.backoff import Backoff
from pipeline.config.plan import Plan
from pipeline.config.source_names import alignment_of
from pipeline.config.source_schema import SourceConfig
from pipeline.log_formats import facts
from pipeline.logs import RepeatFilter
from pipeline.plan_updates import PlanUpdates
from pipeline.points.times import format_time
from pipeline.sockets.call_pool import CallPool
from pipeline.sockets.control_link import ControlLink
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.source_rules import SourceRules
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire
from pipeline.wire.frames import cut
from stages.influxdb.answers import Accepted, OperatorNeeded, Retry
from stages.influxdb.concurrency import ConcurrencyLimiter
from stages.influxdb.failures import with_advice
from stages.influxdb.outage_log import OutageLog
from stages.query.reader import Found, QueryPage, SourceReader, WindowOverflow
from stages.query.recounts import Recounts, recount
from stages.query.transport import QueryFailed, is_too_heavy, unreadable

#: Longest wait for an event, milliseconds.
POLL_MILLISECONDS = 1_000
#: Pause before a refused query is retried, seconds.
REFUSED_SECONDS = 5.0
#: Failures of a query in a row, of whatever kind, after which it is repeated with a smaller window.
MAX_FAILED_READS = 3
#: Most databases have no points before this time (2000-01-01), nanoseconds since 1970.
EARLIEST_LIKELY = 946_684_800_000_000_000
#: Pages queued for each converter, at most.
HIGH_WATER_MARK = 1

#: Measurement and number of a page.
_PageKey = tuple[str, int]
_Order = source_wire.Read | source_wire.Discover | source_wire.Probe | source_wire.Recount
#: A set: the measurements that were probed and have no points.
_Found = QueryPage | WindowOverflow | Found | set[str] | Recounts


class _Outcome(NamedTuple):
    """The result of a query: an answer or a failure."""

    source: "_Source"
    order: _Order
    found: _Found | QueryFailed
    seconds: float


class _Source:
    """One source: its reader, queued orders, and failures."""

    def __init__(self, config: SourceConfig, logger: logging.Logger) -> None:
        influxdb = config.influxdb
        self.config = config
        self.reader = SourceReader(config, logger)
        self.orders: deque[_Order] = deque()
        backoff = Backoff.of(influxdb)
        self.limiter = ConcurrencyLimiter(config.max_parallel_queries, backoff, influxdb.retry_after_max_ms / 1000)
        self.outages = OutageLog(logger, self.limiter)
        #: Orders that the server refuses while others succeed, and when they are due: monotonic seconds.
        self.refused: list[tuple[float, source_wire.Read]] = []
        #: Page -> failures of its query in a row.
        self.failed_reads: dict[_PageKey, int] = {}
        self.overflows = RepeatFilter()
        #: Page -> why the server refuses it.
        self.refusals: dict[_PageKey, str] = {}

    def clear_orders(self) -> None:
        """Drops the orders of an older coordinator."""
        self.orders.clear()
        self.refused.clear()
        self.refusals.clear()
        self.failed_reads.clear()

    def requeue_refused(self, now: float) -> float:
        """Queues refused orders that are due. Returns when the next one is due, in monotonic seconds."""
        self.orders.extend(order for due, order in self.refused if due <= now)
        self.refused = [(due, order) for due, order in self.refused if due > now]
        return min((due for due, _ in self.refused), default=float("inf"))

    @property
    def problem(self) -> str:
        """Why the source cannot be read; "" while it can."""
        return "; ".join(filter(None, (self.limiter.problem, *dict.fromkeys(self.refusals.values()))))


def run(name: str, index: int, plan: Plan, logger: logging.Logger, _updates: PlanUpdates) -> None:
    """Runs the stage until the process is killed."""
    QueryStage(name, plan, logger).run()


class QueryStage:
    """One per pipeline; queries for all sources."""

    def __init__(self, name: str, plan: Plan, logger: logging.Logger) -> None:
        self.logger = logger
        self.rules = SourceRules(plan)
        self.sources = [_Source(config, logger) for config in plan.config.sources]
        self.epoch = 0
        queries = sum(config.max_parallel_queries for config in plan.config.sources)
        endpoints = Endpoints(plan.folder)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.link = ControlLink(self._context, endpoints, endpoints.source_control, name)
        self.push = self._context.socket(zmq.PUSH)
        self.push.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        endpoints.bind(self.push, endpoints.pages)
        self._pool: CallPool[_Outcome] = CallPool(self._context, queries, "query")

    def run(self) -> None:
        """Queries until the process is killed."""
        poller = zmq.Poller()
        poller.register(self.link.socket, zmq.POLLIN)
        poller.register(self._pool.wakeup, zmq.POLLIN)
        while True:
            self.link.beat()
            wait = self._start_queries()
            ready = dict(poller.poll(min(self.link.milliseconds_to_beat(), max(1, round(wait * 1000)))))
            if self.link.socket in ready:
                self._receive()
            if self._pool.wakeup in ready:
                self._answered(self._pool.take())

    def _receive(self) -> None:
        """Receives an order. Drops what is not a valid one."""
        try:
            message = source_wire.read_control(self.link.socket.recv_multipart())
            wrong = self.rules.control(message)
        except wire.Malformed as error:
            wrong = str(error)
        if wrong:
            self.link.dropped.drop("source-coordinator", wrong)
        else:
            self._accept(message)

    def _accept(self, message: source_wire.Control) -> None:
        """Queues an order. The first order of a new epoch drops those of the older one."""
        if not isinstance(message, source_wire.Read | source_wire.Discover | source_wire.Probe | source_wire.Recount):
            return
        epoch = message.id.epoch if isinstance(message, source_wire.Read) else message.epoch
        if epoch > self.epoch:
            self.epoch = epoch
            for source in self.sources:
                source.clear_orders()
        if epoch == self.epoch:
            index = message.id.measurement.source if isinstance(message, source_wire.Read) else message.source
            orders = self.sources[index].orders
            # While the server is unavailable, only one Discover is queued.
            if isinstance(message, source_wire.Read) or message not in orders:
                orders.append(message)

    def _start_queries(self) -> float:
        """Starts the queries that may run now. Returns the seconds until more may run."""
        now = time.monotonic()
        wait = POLL_MILLISECONDS / 1000
        for source in self.sources:
            wait = min(wait, source.requeue_refused(now) - now)
            while source.orders and source.limiter.allows(now):
                source.limiter.started()
                self._pool.submit(self._query, source, source.orders.popleft())
            if source.orders and (left := source.limiter.wait(now)):
                wait = min(wait, left)
        return wait

    def _query(self, source: _Source, order: _Order) -> _Outcome:
        """One query; runs in a thread of the pool."""
        began = time.monotonic()
        found: _Found | QueryFailed
        try:
            if isinstance(order, source_wire.Discover):
                found = source.reader.discover()
            elif isinstance(order, source_wire.Probe):
                found = source.reader.probe(order.windows)
            elif isinstance(order, source_wire.Recount):
                found = recount(source.reader, order.windows)
            else:
                limits = source.reader.limits(order.rows, order.size, order.whole)
                found = source.reader.read(order.id.measurement.name, order.window, limits)
        except QueryFailed as failed:
            found = self._overflow_of(source, order, failed) or failed
        except Exception as error:  # a thread that dies silently would lose the order
            self.logger.debug("an answer could not be parsed", exc_info=error)
            found = QueryFailed(unreadable(error))
        return _Outcome(source, order, found, time.monotonic() - began)

    def _overflow_of(self, source: _Source, order: _Order, failed: QueryFailed) -> WindowOverflow | None:
        """A query that is too heavy, or fails again and again, is to be repeated with a smaller window, if the server
        answers others. Runs in a thread of the pool.
        """
        if not isinstance(order, source_wire.Read) or order.whole:
            return None
        window, alignment = order.window, alignment_of(source.config)
        measurement = order.id.measurement.name
        again = isinstance(failed.answer, Retry) and source.failed_reads.get(_key(order), 0) >= MAX_FAILED_READS
        if window.end <= alignment.after(alignment.floor(window.start)) \
                or not (again or is_too_heavy(failed.answer)) or not source.reader.is_answering():
            return None
        if source.overflows.allows(measurement, time.monotonic()):
            self.logger.warning("source %s: reading %s from %s to %s failed, and is repeated with smaller windows: %s",
                                source.config.name, measurement, format_time(window.start), format_time(window.end),
                                failed.answer.message, extra=facts(source=source.config.name, measurement=measurement))
        first = EARLIEST_LIKELY if window.start < EARLIEST_LIKELY < window.end else window.start
        return WindowOverflow(one_time=False, first=first, slow=True)

    def _answered(self, outcome: _Outcome) -> None:
        source, order, found, seconds = outcome
        failures = source.limiter.failures
        if isinstance(found, QueryFailed):
            self._failed(source, order, with_advice(found.answer, "read"), seconds)
        else:
            source.limiter.answered(Accepted(), 0, seconds, time.monotonic())
            if failures and source.outages.recovered():
                self.logger.info("source %s: %s answers again after %d failures", source.config.name,
                                 ", ".join(source.config.influxdb.servers()), failures,
                                 extra=facts(source=source.config.name))
            if isinstance(order, source_wire.Read):
                source.failed_reads.pop(_key(order), None)
                name = order.id.measurement.name
                if source.refusals.pop(_key(order), "") and not any(name == other for other, _ in source.refusals):
                    self.logger.info("source %s: reading %s has resumed", source.config.name, name,
                                     extra=facts(source=source.config.name, measurement=name))
            self._send_on(order, found)
        self._report()

    def _failed(self, source: _Source, order: _Order, answer: Retry | OperatorNeeded, seconds: float) -> None:
        """Queues the order again: as the last one, or, if the server refuses only this query, after a pause."""
        now = time.monotonic()
        epoch = order.id.epoch if isinstance(order, source_wire.Read) else order.epoch
        if isinstance(order, source_wire.Read) and isinstance(answer, OperatorNeeded) and answer.reason == "refused":
            source.limiter.answered(Accepted(), 0, seconds, now)
            if epoch == self.epoch:
                if _key(order) in source.refusals:
                    self.link.send(source_wire.Refused(order.id, answer.message))
                source.refusals[_key(order)] = answer.message
                source.refused.append((now + REFUSED_SECONDS, order))
        elif isinstance(order, source_wire.Recount):
            source.limiter.answered(answer, 0, seconds, now)  # it is asked for again
        elif isinstance(order, source_wire.Probe):
            # Each is read then, and a measurement that cannot be read is named.
            refused = isinstance(answer, OperatorNeeded) and answer.reason == "refused"
            source.limiter.answered(Accepted() if refused else answer, 0, seconds, now)
            self._send_on(order, set())
            if refused:
                return
        else:
            source.limiter.answered(answer, 0, seconds, now)
            if epoch == self.epoch:
                # At the end of the queue: what fails must not hold up the others.
                source.orders.append(order)
                if isinstance(order, source_wire.Read):
                    source.failed_reads[_key(order)] = source.failed_reads.get(_key(order), 0) + 1
        what = order.id.measurement.name if isinstance(order, source_wire.Read) else \
            "the list of measurements" if isinstance(order, source_wire.Discover) else \
            "counts of late points" if isinstance(order, source_wire.Recount) else "idle measurements"
        about = {"measurement": what} if isinstance(order, source_wire.Read) else {}
        source.outages.failed(f"source {source.config.name}: reading {what}", answer, now,
                              source=source.config.name, **about)

    def _send_on(self, order: _Order, found: _Found) -> None:
        """Reports the result to the coordinator, then pushes the page to a converter."""
        if isinstance(order, source_wire.Discover):
            assert isinstance(found, Found)
            self.link.send(source_wire.Discovered(order.epoch, order.source, found.measurements, found.ordered,
                                                  found.probes, found.shard_widths))
        elif isinstance(order, source_wire.Recount):
            assert isinstance(found, Recounts)
            self.link.send(source_wire.Recounted(order.epoch, order.source, found.counts, found.uncountable))
        elif isinstance(order, source_wire.Probe):
            assert isinstance(found, set)
            self.link.send(source_wire.Probed(order.epoch, order.source,
                                              [one for one in order.windows if one[0] in found],
                                              [name for name, _ in order.windows if name not in found]))
        elif isinstance(found, WindowOverflow):
            self.link.send(source_wire.PageOverflow(order.id, found.one_time, found.first, found.slow))
        elif isinstance(found, QueryPage):
            self.link.send(source_wire.PageRead(order.id, found.end, found.rows, len(found.body), found.first,
                                                found.future))
            page = source_wire.Page(order.id, found.language, found.columns, found.end, order.overlap)
            while not self.push.poll(POLL_MILLISECONDS, zmq.POLLOUT):
                self.link.beat()
            self.push.send_multipart(cut([common.encode(page), found.body]), copy=False)

    def _report(self) -> None:
        """Reports problems to the coordinator."""
        self.link.report([common.Problem(source.config.name, source.problem,
                                         source.limiter.paused or bool(source.refusals))
                          for source in self.sources if source.problem])


def _key(order: source_wire.Read) -> _PageKey:
    return order.id.measurement.name, order.id.seq
