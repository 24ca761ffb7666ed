"""Query: asks the InfluxDB of each source for the windows it is told to, and sends the answers on as they came.

One thread owns all state; a few others do nothing but one query at a time. What it has sent on it keeps no copy of: the
coordinator orders what gets lost once more.
"""

import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import NamedTuple

import zmq

from pipeline.backoff import Backoff
from pipeline.config.plan import Plan
from pipeline.config.source_schema import SourceConfig
from pipeline.logs import RepeatFilter
from pipeline.sockets.control_link import ControlLink
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.source_rules import SourceRules
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire
from pipeline.wire.frames import cut
from stages.influxdb.answers import Accepted, OperatorNeeded, Retry
from stages.influxdb.concurrency import ConcurrencyLimiter
from stages.query.channel import Failed
from stages.query.reader import PageRead, PageTooFull, Reader

#: How long one wait takes at most, milliseconds.
POLL_MILLISECONDS = 1_000
#: Seconds until a page of a measurement is asked for again that the server has refused.
REFUSED_SECONDS = 5.0
#: Pages queued for a converter, at most.
HIGH_WATER_MARK = 1

_Order = source_wire.Read | source_wire.Discover
_Found = PageRead | PageTooFull | tuple[list[str], bool] | Failed


class _Outcome(NamedTuple):
    """A query that was answered, or failed."""

    source: "_Source"
    order: _Order
    found: _Found
    seconds: float


class _Source:
    """One source: its servers, what it is to ask them, and how they do."""

    def __init__(self, config: SourceConfig, logger: logging.Logger) -> None:
        influxdb = config.influxdb
        self.config = config
        self.reader = Reader(config, logger)
        self.orders: deque[_Order] = deque()
        backoff = Backoff.of(influxdb)
        self.pace = ConcurrencyLimiter(config.parallel, backoff, influxdb.retry_after_max_ms / 1000)
        self.failures = RepeatFilter()
        #: The log tells of a failure since the last success.
        self.said = False
        #: What the server refuses while it answers the rest: when it is asked for again, seconds, monotonic.
        self.refused: list[tuple[float, source_wire.Read]] = []
        #: The server's words, by measurement.
        self.refusals: dict[str, str] = {}

    def forget(self) -> None:
        """The orders of an older coordinator don't count any more."""
        self.orders.clear()
        self.refused.clear()
        self.refusals.clear()

    def recall(self, now: float) -> float:
        """Orders again what was refused long enough ago. Returns when that is to be done next, seconds, monotonic."""
        self.orders.extend(order for due, order in self.refused if due <= now)
        self.refused = [(due, order) for due, order in self.refused if due > now]
        return min((due for due, _ in self.refused), default=float("inf"))

    @property
    def problem(self) -> str:
        """What is wrong outside, "" while all is well."""
        return "; ".join(filter(None, (self.pace.problem, *self.refusals.values())))


class QueryStage:
    """One per pipeline; asks for all sources."""

    def __init__(self, name: str, plan: Plan, logger: logging.Logger) -> None:
        self.logger = logger
        self.rules = SourceRules(plan)
        self.sources = [_Source(config, logger) for config in plan.config.source]
        self.epoch = 0
        queries = sum(config.parallel for config in plan.config.source)
        self._pool = ThreadPoolExecutor(queries, thread_name_prefix="query")
        self._outcomes: SimpleQueue[_Outcome] = SimpleQueue()
        self._reported = ("", False)
        endpoints = Endpoints(plan.folder)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.link = ControlLink(self._context, endpoints, endpoints.source_control, name)
        self.push = self._context.socket(zmq.PUSH)
        self.push.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        endpoints.bind(self.push, endpoints.pages)
        self._wakeup = self._context.socket(zmq.PULL)
        self._wakeup.bind("inproc://found")
        self._wakeup_senders: SimpleQueue[zmq.Socket[bytes]] = SimpleQueue()
        for _ in range(queries):
            sender = self._context.socket(zmq.PUSH)
            sender.connect("inproc://found")
            self._wakeup_senders.put(sender)

    def run(self) -> None:
        """Asks until the process is killed."""
        poller = zmq.Poller()
        poller.register(self.link.socket, zmq.POLLIN)
        poller.register(self._wakeup, zmq.POLLIN)
        while True:
            self.link.beat()
            wait = self._start_queries()
            ready = dict(poller.poll(min(POLL_MILLISECONDS, max(1, round(wait * 1000)))))
            if self.link.socket in ready:
                self._receive()
            if self._wakeup in ready:
                self._wakeup.recv()
                self._answered(self._outcomes.get())

    def _receive(self) -> None:
        """Takes an order in; what is none is dropped."""
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
        """Queues an order. A new coordinator's first one ends what an older one wanted."""
        if not isinstance(message, source_wire.Read | source_wire.Discover):
            return
        epoch = message.epoch if isinstance(message, source_wire.Discover) else message.id.epoch
        if epoch > self.epoch:
            self.epoch = epoch
            for source in self.sources:
                source.forget()
        if epoch == self.epoch:
            index = message.source if isinstance(message, source_wire.Discover) else message.id.lane.source
            orders = self.sources[index].orders
            # While the server is away, one look for measurements waits and not many.
            if isinstance(message, source_wire.Read) or message not in orders:
                orders.append(message)

    def _start_queries(self) -> float:
        """Asks what may be asked now. Returns the seconds until that may be more by itself."""
        now = time.monotonic()
        wait = POLL_MILLISECONDS / 1000
        for source in self.sources:
            wait = min(wait, source.recall(now) - now)
            while source.orders and source.pace.allows(now):
                source.pace.started()
                self._pool.submit(self._query, source, source.orders.popleft())
            if source.orders and (left := source.pace.wait(now)):
                wait = min(wait, left)
        return wait

    def _query(self, source: _Source, order: _Order) -> None:
        """One query; runs in a thread of the pool."""
        began = time.monotonic()
        found: _Found
        try:
            if isinstance(order, source_wire.Discover):
                found = source.reader.discover()
            else:
                found = source.reader.read(order.id.lane.measurement, order.window, order.whole)
        except Failed as failed:
            found = failed
        except Exception as error:  # a thread that dies silently would lose the order
            self.logger.debug("an answer that is not understood", exc_info=error)
            found = Failed(Retry("server_error", f"the answer is not understood ({type(error).__name__}: "
                                                 f"{str(error)[:200]})"))
        self._outcomes.put(_Outcome(source, order, found, time.monotonic() - began))
        sender = self._wakeup_senders.get()
        sender.send(b"")
        self._wakeup_senders.put(sender)

    def _answered(self, outcome: _Outcome) -> None:
        source, order, found, seconds = outcome
        failures = source.pace.failures
        if isinstance(found, Failed):
            self._failed(source, order, found.answer, seconds)
        else:
            source.pace.answered(Accepted(), 0, seconds, time.monotonic())
            if failures and not source.pace.failures:
                if source.said:
                    self.logger.info("source %s: %s answers again, after %d failures", source.config.name,
                                     source.config.influxdb.url, failures)
                source.said = False
            if isinstance(order, source_wire.Read) and source.refusals.pop(order.id.lane.measurement, ""):
                self.logger.info("source %s: %s is read again", source.config.name, order.id.lane.measurement)
            self._send_on(order, found)
        self._report()

    def _failed(self, source: _Source, order: _Order, answer: Retry | OperatorNeeded, seconds: float) -> None:
        """Has it asked again: first of all, once the server answers; or beside others, when only this is refused."""
        now = time.monotonic()
        epoch = order.epoch if isinstance(order, source_wire.Discover) else order.id.epoch
        if isinstance(order, source_wire.Read) and isinstance(answer, OperatorNeeded) and answer.reason == "refused":
            source.pace.answered(Accepted(), 0, seconds, now)
            if epoch == self.epoch:
                source.refusals[order.id.lane.measurement] = answer.words
                source.refused.append((now + REFUSED_SECONDS, order))
        else:
            source.pace.answered(answer, 0, seconds, now)
            if epoch == self.epoch:
                source.orders.appendleft(order)
        self._log_failure(source, order, answer, now)

    def _send_on(self, order: _Order, found: PageRead | PageTooFull | tuple[list[str], bool]) -> None:
        """Tells the coordinator, and then gives the page to a converter."""
        if isinstance(order, source_wire.Discover):
            assert isinstance(found, tuple)
            self.link.send(source_wire.Discovered(order.epoch, order.source, *found))
        elif isinstance(found, PageTooFull):
            self.link.send(source_wire.PageOverflow(order.id, found.one_time, found.first))
        elif isinstance(found, PageRead):
            self.link.send(source_wire.PageRead(order.id, found.end, found.rows, len(found.body), found.first))
            page = source_wire.Page(order.id, found.language, found.columns, found.end, order.past)
            while not self.push.poll(POLL_MILLISECONDS, zmq.POLLOUT):
                self.link.beat()
            self.push.send_multipart(cut([common.encode(page), found.body]), copy=False)

    def _log_failure(self, source: _Source, order: _Order, answer: Retry | OperatorNeeded, now: float) -> None:
        if not source.failures.allows(answer.words, now):
            return
        source.said = True
        what = "the list of measurements" if isinstance(order, source_wire.Discover) \
            else f"{order.id.lane.measurement}"
        if isinstance(answer, OperatorNeeded):
            self.logger.error("source %s: reading %s is paused, nothing is lost: %s; %s", source.config.name, what,
                              answer.words, _ADVICE[answer.reason])
        else:
            self.logger.warning("source %s: reading %s failed (%d in a row), next try in %.1f s: %s",
                                source.config.name, what, source.pace.failures, source.pace.wait(now), answer.words)

    def _report(self) -> None:
        """Tells the coordinator when what is wrong outside has changed."""
        wrong = "; ".join(source.problem for source in self.sources if source.problem)
        told = wrong, any(source.pace.paused or source.refusals for source in self.sources)
        if told != self._reported:
            self._reported = told
            self.link.send(common.Retrying(*told))


_ADVICE = {
    "unauthorized": "correct the token (or token_file), user or password, and its right to read this bucket",
    "not_found": "create the bucket or database, or correct its name, the organization or the URL",
    "refused": "correct the query, or the [source.influxdb] table",
}
