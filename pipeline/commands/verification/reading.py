"""Reads what is compared: the points of a database, encoded as the source sends them, and the messages in Iggy."""

import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from apache_iggy import ReceiveMessage

from pipeline.config.schema import Subscription
from pipeline.config.source_names import alignment_of
from pipeline.config.source_schema import SourceConfig
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.retry import retry_on_disconnect
from pipeline.iggy.topic_details import Details
from pipeline.points.fingerprints import Fingerprints
from pipeline.source_coordinator.ledger import Page, WatermarkLedger
from pipeline.source_coordinator.stride import SEARCHED_WIDTH, Stride
from pipeline.wire.source import Language
from stages.convert.encoders import SourceEncoder
from stages.convert.payloads import PageMessages
from stages.influxdb.answers import Retry
from stages.languages.choice import dialect_of
from stages.languages.language import Dialect, QueryError
from stages.query.reader import QueryPage, SourceReader, WindowOverflow
from stages.query.transport import QueryFailed, is_too_heavy

#: Tries of a query that fails, and the pause between them, seconds.
TRIES, PAUSE_SECONDS = 5, 1.0
#: Messages in one poll.
POLL_MESSAGES = 1_000
T = TypeVar("T")


class DatabasePoints:
    """Reads a source's database, a page at a time."""

    def __init__(self, config: SourceConfig, logger: logging.Logger) -> None:
        """Raises PipelineError if the token file or a certificate cannot be read."""
        self._config = config
        self._reader = SourceReader(config, logger)
        self._dialects: dict[Language, Dialect] = {}
        self._encoder = SourceEncoder(config)
        self._ordered: bool | None = None
        #: Rows that are not points, which the source rejects, too.
        self.rejected = 0

    def read(self, measurement: str, start: int, end: int) -> Iterator[bytes]:
        """The points of one measurement in [start, end), as they are sent; by the name that the source keeps it under.
        Raises PipelineError."""
        for messages in self.messages(measurement, start, end):
            yield from messages.payloads

    def messages(self, measurement: str, start: int, end: int) -> Iterator[PageMessages]:
        """The messages of those points, each time some. Raises PipelineError."""
        if self._ordered is None:
            self._ordered = self._tried(self._reader.discover).ordered
        searches = not self._ordered and not self._config.query and end - start > SEARCHED_WIDTH
        stride = Stride(self._ordered, alignment_of(self._config), searches=searches)
        ledger = WatermarkLedger(start, stride, self._config.page_size, 0, start, Fingerprints(1))
        while ledger.behind(end):
            page = ledger.next(end)
            while page is not None:
                found = self._page(measurement, page)
                if isinstance(found, WindowOverflow):
                    page = ledger.overflow(page.seq, page.attempt, found.one_time, found.first, slow=found.slow)
                    continue
                yield from self._messages(measurement, found)
                ledger.page_read(page.seq, page.attempt, found.end, found.rows, found.first, size=len(found.body))
                ledger.confirm(page.seq, page.attempt, [])
                page = None

    def _page(self, measurement: str, page: Page) -> QueryPage | WindowOverflow:
        limits = self._reader.limits(page.rows, page.size, page.whole)
        try:
            return self._tried(functools.partial(self._reader.read, measurement, page.window, limits))
        except QueryFailed as failed:  # too heavy
            if page.whole or page.window.width <= 1:
                raise PipelineError(str(failed)) from None
            return WindowOverflow(one_time=False, first=page.window.start, slow=True)

    @staticmethod
    def _tried(query: Callable[[], T]) -> T:
        """The result of a query, which is repeated. Raises QueryFailed if it is too heavy, otherwise PipelineError."""
        for attempt in range(TRIES):
            try:
                return query()
            except QueryFailed as failed:
                if is_too_heavy(failed.answer) and attempt:
                    raise
                if not isinstance(failed.answer, Retry) or attempt == TRIES - 1:
                    raise PipelineError(f"the database cannot be read: {failed}") from None
                time.sleep(PAUSE_SECONDS)
        raise AssertionError

    def _messages(self, measurement: str, page: QueryPage) -> Iterator[PageMessages]:
        if not page.body:
            return
        dialect = self._dialects.get(page.language)
        if dialect is None:
            dialect = self._dialects[page.language] = dialect_of(self._config, page.language)
        try:
            for table in dialect.tables(measurement, page.columns, page.body, page.end):
                messages = PageMessages()
                self._encoder.encode(measurement, table, None, messages)
                self.rejected += len(messages.bad)
                yield messages
        except QueryError as error:
            raise PipelineError(f"the database cannot be read: {error.message}") from None


async def messages_of(iggy: IggyConnection, stream: str, topic: str) -> AsyncIterator[bytes]:
    """The payloads of a topic, up to its end at the start; none when it is missing. Raises IggyError."""
    details = await retry_on_disconnect(functools.partial(_details, iggy, stream, topic))
    subscription = Subscription(0, stream, topic, 0, iggy.consumer)
    for partition in details.partitions if details is not None else []:
        if not partition.messages_count:
            continue
        position, end = 0, partition.current_offset
        while position <= end:
            polled = await retry_on_disconnect(functools.partial(_poll, iggy, subscription, partition.id, position))
            if not polled:
                break
            for message in polled:
                if message.offset() <= end:
                    yield message.payload()
            position = polled[-1].offset() + 1


async def _details(iggy: IggyConnection, stream: str, topic: str) -> Details | None:
    await iggy.ensure_connected()
    return await iggy.details(stream, topic)


async def _poll(iggy: IggyConnection, subscription: Subscription, partition: int, offset: int) -> list[ReceiveMessage]:
    await iggy.ensure_connected()
    return await iggy.poll(subscription, partition, offset, POLL_MESSAGES)
