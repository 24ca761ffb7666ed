"""Convert: turns answers of queries into messages. CPU-bound; one process a core."""

import logging
from collections.abc import Iterator

import msgspec
import zmq

from pipeline.config.plan import Plan
from pipeline.config.source_schema import SourceConfig
from pipeline.log_formats import facts
from pipeline.plan_updates import PlanUpdates
from pipeline.points.fingerprints import pack, unpack_known
from pipeline.sockets.control_link import ControlLink
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.source_rules import SourceRules
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire
from pipeline.wire.frames import cut
from pipeline.wire.source import Language
from stages.convert.encoders import SourceEncoder
from stages.convert.payloads import Dedupe, PageMessages
from stages.languages.choice import dialect_of, language_of
from stages.languages.language import Dialect, QueryError

#: Longest wait for a socket, milliseconds; in between the process sends a heartbeat.
POLL_MILLISECONDS = 1_000
#: Pages queued in each socket, at most.
HIGH_WATER_MARK = 1


def run(name: str, index: int, plan: Plan, logger: logging.Logger, _updates: PlanUpdates) -> None:
    """Runs a converter until the process is killed."""
    ConvertStage(name, plan, logger).run()


class ConvertStage:
    """One converter process: pulls pages from query and pushes messages to produce."""

    def __init__(self, name: str, plan: Plan, logger: logging.Logger) -> None:
        self.logger = logger
        self.rules = SourceRules(plan)
        self.sources = plan.config.sources
        self._dialects: dict[tuple[int, str], Dialect] = {}
        self._encoders = [SourceEncoder(config) for config in self.sources]
        #: Measurements and ends of windows whose answers were not understood.
        self._not_understood: set[tuple[source_wire.MeasurementId, int]] = set()
        endpoints = Endpoints(plan.folder)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.link = ControlLink(context, endpoints, endpoints.source_control, name)
        self.pull = context.socket(zmq.PULL)
        self.pull.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        endpoints.connect(self.pull, endpoints.pages)
        self.push = context.socket(zmq.PUSH)
        self.push.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        # Queue only for a connected produce: messages queued for a dead one would wait for its successor.
        self.push.setsockopt(zmq.IMMEDIATE, 1)
        endpoints.connect(self.push, endpoints.messages)
        for index, config in enumerate(self.sources):
            if config.influxdb.transport == "flight":
                # Loads pyarrow now rather than with the first page.
                self._dialect(index, config, language_of(config, "v3"))

    def run(self) -> None:
        """Converts until the process is killed."""
        while True:
            self.link.beat()
            if self.pull.poll(self.link.milliseconds_to_beat()):
                self._receive()

    def _receive(self) -> None:
        """Converts one page. Drops what is not a valid page."""
        try:
            page, body = source_wire.read_page(self.pull.recv_multipart())
            wrong = self.rules.page(page)
        except wire.Malformed as error:
            wrong = str(error)
        if wrong:
            self.link.dropped.drop("query", wrong)
        else:
            self._convert(page, body)

    def _convert(self, page: source_wire.Page, body: bytes) -> None:
        window = page.id.measurement, page.before
        try:
            try:
                if window in self._not_understood:
                    for _ in self._parts(page, body):  # nothing may be sent again and again of what fails at its end
                        self.link.beat()
                for number, (messages, is_last) in enumerate(self._parts(page, body)):
                    self._send(page, messages, number, is_last)
                self._not_understood.discard(window)
            except QueryError:
                raise
            except Exception as error:  # the server may have sent anything
                self.logger.debug("an answer could not be parsed", exc_info=error)
                raise QueryError(f"the answer is not understood ({type(error).__name__}: {str(error)[:200]})") from None
        except QueryError as error:
            # Its end is not sent on, so the watermark stays: once the query is corrected, the window is read again.
            self._not_understood.add(window)
            name = self.sources[page.id.measurement.source].name
            self.logger.error("source %s: reading %s is paused, nothing is lost: %s; correct the query and restart "
                              "the pipeline", name, page.id.measurement.name, error.message,
                              extra=facts(source=name, measurement=page.id.measurement.name))
            self.link.send(common.Retrying(f"{name}: {error.message}", paused=True))

    def _send(self, page: source_wire.Page, messages: PageMessages, part: int, is_last: bool) -> None:
        """Pushes a part of a page to produce, once that has room."""
        head = source_wire.Messages(page.id, page.before, messages.points, messages.repeated, messages.bad,
                                    pack(messages.fingerprints), messages.settled, part, is_last)
        bulk = msgspec.msgpack.encode((messages.payloads, messages.series))
        while not self.push.poll(POLL_MILLISECONDS, zmq.POLLOUT):
            self.link.beat()
        self.push.send_multipart(cut([common.encode(head), bulk]), copy=False)

    def _parts(self, page: source_wire.Page, body: bytes) -> Iterator[tuple[PageMessages, bool]]:
        """The messages of a page, in parts of at most `page_size` rows, and which is the last. Raises QueryError if the
        answer as a whole cannot be read."""
        measurement = page.id.measurement
        config = self.sources[measurement.source]
        overlap = page.overlap
        dedupe = Dedupe(overlap.seen_until, unpack_known(overlap.known), overlap.remember_from) if overlap else None
        messages, rows = PageMessages(), 0
        if body:
            dialect = self._dialect(measurement.source, config, page.language)
            for table in dialect.tables(measurement.name, page.columns, body, page.before):
                for piece in table.pieces(config.page_size):
                    if rows and rows + len(piece.rows) > config.page_size:
                        yield messages, False
                        messages, rows = PageMessages(), 0
                    rows += len(piece.rows)
                    messages.settled += len(piece.bad) + (len(piece.rows) if overlap is None else sum(
                        row[0] < overlap.remember_from for row in piece.rows))  # type: ignore[operator]
                    self._encoders[measurement.source].encode(measurement.name, piece, dedupe, messages)
        yield messages, True

    def _dialect(self, index: int, config: SourceConfig, language: Language) -> Dialect:
        found = self._dialects.get((index, language))
        if found is None:
            found = self._dialects[index, language] = dialect_of(config, language)
        return found
