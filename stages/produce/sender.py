"""Sends the pages of one measurement to Iggy, and retries until all of a page is there."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec
import xxhash
from msgspec import Struct

from pipeline.backoff import Backoff
from pipeline.config.source_checks import MAX_NAME_BYTES
from pipeline.config.source_names import substitute_names, template_names
from pipeline.config.source_schema import OutputConfig, SourceConfig
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError
from pipeline.log_formats import facts
from pipeline.logs import RepeatFilter
from pipeline.points.table import BadRow
from pipeline.printable import excerpt
from pipeline.sockets.tap_socket import TapPublisher
from stages.produce.batching import SEND_BYTES, BatchOptions, Send, make_sends, split_by_size
from stages.produce.samples import samples_of

#: First and longest pause between attempts while Iggy is unavailable, seconds.
RETRY_SECONDS, RETRY_MAX_SECONDS = 0.2, 10.0
#: What Rust parses as an unsigned integer, as Iggy's client does with names.
_NUMBER = re.compile(r"\+?[0-9]+")


class RowDeadLetter(Struct, frozen=True, kw_only=True):
    """A row that could not be converted, as it is sent to `dead_letter_topic`."""

    #: When it was rejected, RFC 3339.
    time: str
    source: str
    measurement: str
    reason: str
    detail: str
    row: str
    #: Version of this layout.
    version: int = 1


class Delivery(Struct, frozen=True):
    """What Iggy has confirmed of a page."""

    messages: int = 0
    size: int = 0


class _PreparedPage(Struct):
    """What is still to be sent of a page; requests that Iggy has confirmed are emptied."""

    sends: list[Send]
    dead_letters: list[bytes]


class IggyLink:
    """The connection to Iggy that all measurements share, with its rate-limited error log."""

    def __init__(self, iggy: IggyConnection, logger: logging.Logger, tap: TapPublisher | None = None) -> None:
        self.iggy = iggy
        #: For samples of what is sent.
        self.tap = tap
        self.logger = logger
        self._errors = RepeatFilter()
        #: Many measurements notice a lost connection at once; one of them makes the new one.
        self._connecting = asyncio.Lock()

    async def ensure_connected(self) -> None:
        """Connects if there is no connection. Raises IggyError."""
        async with self._connecting:
            await self.iggy.ensure_connected()

    def log_error(self, source: str, target: str, error: IggyError, pause: float) -> None:
        """Logs a failed attempt, unless the same error was logged recently."""
        if self._errors.allows(str(error), time.monotonic()):
            self.logger.error("source %s: sending messages to %s failed, nothing is lost, next attempt in %.1f s: %s%s",
                              source, target, pause, error, self._errors.times, extra=facts(source=source))


class PageSender:
    """Sends pages of one measurement. Use it from one task at a time."""

    def __init__(self, config: SourceConfig, measurement: str, link: IggyLink,
                 on_failure: Callable[[IggyError], Awaitable[None]]) -> None:
        """`on_failure` is awaited after each failed attempt."""
        names = template_names(config, measurement)
        output = config.output
        self.stream, self.topic = topic_of(config, measurement)
        self._headers = headers_of(config, measurement) or None
        if substitute_names(output.stream, names) != self.stream or substitute_names(output.topic, names) != self.topic:
            link.logger.warning("source %s: messages of the measurement %s go to %s/%s, because Iggy's names have at "
                                "most %d bytes, and a number is taken for an identifier", config.name,
                                excerpt(names["measurement"]), self.stream, self.topic, MAX_NAME_BYTES,
                                extra=facts(source=config.name, measurement=names["measurement"], stream=self.stream,
                                            topic=self.topic))
        self._config = config
        self._measurement = measurement
        self._options = batch_options_of(output)
        self._link = link
        self._on_failure = on_failure
        #: Of the topic; 0 until it is known.
        self._partitions = 0

    async def send(self, payloads: list[bytes], series: list[int], bad: list[BadRow]) -> Delivery:
        """Sends all messages of a page, and the dead letters of its bad rows, however long Iggy is unavailable."""
        backoff = Backoff(RETRY_SECONDS, 2.0, RETRY_MAX_SECONDS, lambda: 1.0)
        page: _PreparedPage | None = None
        delivery = Delivery()
        while True:
            try:
                await self._link.ensure_connected()
                if page is None:
                    page = await self._prepare(payloads, series, bad)
                    delivery = Delivery(sum(len(send.payloads) for send in page.sends),
                                        sum(sum(map(len, send.payloads)) for send in page.sends))
                await self._deliver(page)
                return delivery
            except IggyError as error:
                self._partitions = 0
                pause = backoff.next()
                await self._on_failure(error)
                self._link.log_error(self._config.name, f"{self.stream}/{self.topic}", error, pause)
                await asyncio.sleep(pause)

    async def _prepare(self, payloads: list[bytes], series: list[int], bad: list[BadRow]) -> _PreparedPage:
        """Groups messages into requests, which needs the topic's number of partitions. Raises IggyError."""
        sends = make_sends(payloads, series, await self._partition_count(), self._options) if payloads else []
        if self._link.tap is not None and self._link.tap.wants(time.monotonic()):
            self._link.tap.send(samples_of(self._config, self._measurement, (self.stream, self.topic), sends, bad))
        dead_letters = [self._dead_letter(row) for row in bad] if self._config.output.dead_letter_topic else []
        return _PreparedPage(sends, dead_letters)

    async def _partition_count(self) -> int:
        """The number of partitions of the topic, which is created if it is missing. Raises IggyError."""
        if not self._partitions:
            await self._link.iggy.make_topic(self.stream, self.topic, self._config.output.partitions)
            self._partitions = await self._link.iggy.partitions(self.stream, self.topic)
            if not self._partitions:
                raise IggyError(f"topic {self.stream}/{self.topic} was deleted")
        return self._partitions

    async def _deliver(self, page: _PreparedPage) -> None:
        """Sends what is left of a page: partitions concurrently, each in order. Raises IggyError."""
        queues: dict[int | None, list[Send]] = {}
        for send in page.sends:
            queues.setdefault(send.partition, []).append(send)
        results = await asyncio.gather(*map(self._deliver_in_order, queues.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        await self._deliver_dead_letters(page.dead_letters)

    async def _deliver_in_order(self, sends: list[Send]) -> None:
        """Sends the requests of one partition and empties those that Iggy has confirmed. Raises IggyError."""
        for send in sends:
            if send.payloads:
                await self._link.iggy.send(self.stream, self.topic, send.payloads, send.partition, self._headers)
                send.payloads.clear()

    async def _deliver_dead_letters(self, dead_letters: list[bytes]) -> None:
        """Sends dead letters and removes those that Iggy has confirmed. Raises IggyError."""
        topic = self._config.output.dead_letter_topic
        if dead_letters:
            await self._link.iggy.make_topic(self.stream, topic)
        for part in split_by_size(dead_letters, self._config.output.messages_per_send, SEND_BYTES):
            await self._link.iggy.send(self.stream, topic, part)
            del dead_letters[:len(part)]

    def _dead_letter(self, row: BadRow) -> bytes:
        return msgspec.json.encode(RowDeadLetter(
            time=datetime.now(UTC).isoformat(), source=self._config.name, measurement=self._measurement,
            reason=row.reason, detail=row.detail, row=row.row))


def topic_of(config: SourceConfig, measurement: str) -> tuple[str, str]:
    """Stream and topic of the messages of a measurement."""
    names = template_names(config, measurement)
    stream, topic = (fit_name(substitute_names(template, names), template)
                     for template in (config.output.stream, config.output.topic))
    return stream, topic


def headers_of(config: SourceConfig, measurement: str) -> dict[str, str]:
    """The user headers of the messages of a measurement."""
    names = template_names(config, measurement)
    return {key: shortened(substitute_names(text, names)) for key, text in config.output.headers.items()}


def fit_name(name: str, template: str) -> str:
    """The name of a stream or topic that a template gave, changed if Iggy would not allow or understand it.

    Iggy's client takes a number for the identifier of a stream or topic, so a hash is appended to a name that is one;
    unless the template is the number, which is then meant as the client reads it.
    """
    if name != template and _NUMBER.fullmatch(name):
        return name + _ending(name)
    return shortened(name)


def shortened(text: str) -> str:
    """A text of at most MAX_NAME_BYTES: a longer one is cut, with a hash of all of it, so that texts stay different."""
    encoded = text.encode()
    if len(encoded) <= MAX_NAME_BYTES:
        return text
    ending = _ending(text)
    return encoded[:MAX_NAME_BYTES - len(ending)].decode("utf-8", "ignore") + ending


def _ending(text: str) -> str:
    return f"~{xxhash.xxh64_hexdigest(text.encode())}"


def batch_options_of(output: OutputConfig) -> BatchOptions:
    """How the messages of an output are grouped."""
    return BatchOptions(partitioning=output.partitioning, partition=output.partition, batch_points=output.batch_points,
                        format=output.format, gzip=output.compression == "gzip",
                        messages_per_send=output.messages_per_send, max_bytes=output.max_message_bytes)
