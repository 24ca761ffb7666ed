"""Asks a source's InfluxDB, one query at a time in each thread, and cuts the answers into pages."""

import fnmatch
import logging
import threading
import time

from msgspec import Struct

from pipeline.config.schema import InfluxConfig
from pipeline.config.source_schema import SourceConfig
from pipeline.points.table import Column
from pipeline.points.windows import TimeWindow, cut_before
from pipeline.wire.source import Language
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.influxdb.flavour import Flavour, Version
from stages.languages.choice import dialect_of, falls_back, language_of, mismatch, query_version
from stages.languages.language import Dialect, QueryAnswer, QueryError, QueryRequest
from stages.query.channel import MAX_ANSWER_BYTES, Channel, Failed, Reply, missing, said, understood
from stages.query.http import Http

#: Columns of a measurement are asked for again after so long, seconds, or for a window that ends later than they.
COLUMNS_SECONDS = 5.0
#: Longest silence while a source is checked before its start, seconds.
CHECK_SECONDS = 5.0
#: Largest answer about measurements or columns, bytes.
MAX_LIST_BYTES = 100_000_000


class PageRead(Struct, frozen=True):
    """A page: what the server said of a window up to `end`."""

    language: Language
    columns: tuple[Column, ...]
    body: bytes
    end: int
    rows: int
    first: int


class PageTooFull(Struct, frozen=True):
    """More rows than a page; see `source_wire.PageOverflow`."""

    one_time: bool
    first: int


class Reader:
    """One source's servers. Thread-safe."""

    def __init__(self, config: SourceConfig, logger: logging.Logger) -> None:
        """Raises PipelineError when the token file, or a certificate, can't be read."""
        self.config = config
        self.logger = logger
        self._channel = _channel(config)
        self._lock = threading.Lock()
        self._known: tuple[Version, Language, Dialect] | None = None
        #: measurement -> its columns, and when they were asked for: nanoseconds since 1970, and seconds, monotonic.
        self._columns: dict[str, tuple[tuple[Column, ...], int, float]] = {}

    @understood()
    def discover(self) -> tuple[list[str], bool]:
        """The measurements to read, and whether pages come in the order of time. Raises Failed."""
        _, _, dialect = self._dialect()
        if self.config.query:
            return [self.config.measurement], dialect.ordered
        body = self._list(dialect.measurements())
        try:
            found = dialect.read_measurements(body)
        except QueryError as error:
            raise said(error) from None
        return [name for name in found if wanted(self.config, name)], dialect.ordered

    @understood()
    def read(self, measurement: str, window: TimeWindow, whole: bool) -> PageRead | PageTooFull:
        """The page of a window. Raises Failed."""
        _, language, dialect = self._dialect()
        columns: tuple[Column, ...] = ()
        if self.config.query:
            asked = dialect.custom(self.config.query, window)
        else:
            columns = self._columns_of(measurement, window, dialect)
            if dialect.columns(measurement) and not any(column.kind == "field" for column in columns):
                return PageRead(language, columns, b"", window.end, 0, window.start)
            limit = self.config.page_size + 1 if dialect.ordered and not whole else 0
            asked = dialect.page(measurement, columns, window, limit)
        taken, full = self._take(asked, dialect, whole)
        if not full:
            return PageRead(language, columns, taken.body, window.end, taken.rows, taken.first or window.start)
        if not dialect.ordered:
            return PageTooFull(one_time=False, first=taken.first or window.start)
        try:
            end = cut_before(window, taken.last)
        except ValueError:
            return PageTooFull(one_time=True, first=taken.first)
        return PageRead(language, columns, taken.body, end, taken.rows, taken.first)

    def check(self) -> None:
        """Tries the query of one's own, or the listing of measurements, once and not for long. Raises Failed."""
        connect, silence = self._channel.timeout
        self._channel.timeout = min(connect, CHECK_SECONDS), min(silence, CHECK_SECONDS)
        if self.config.query:
            self.read(self.config.measurement, TimeWindow(0, max(1, self.config.align_ms * 1_000_000)), True)
        else:
            self.discover()

    def _dialect(self) -> tuple[Version, Language, Dialect]:
        """What to speak; with version = "auto" that is known once the server has been reached."""
        with self._lock:
            if self._known is None:
                flavour: Flavour | None = None
                if self.config.influxdb.version == "auto" and isinstance(self._channel, Http):
                    flavour = next(filter(None, map(self._channel.flavour, self._urls())), None)
                    if flavour is None:
                        raise Failed(Retry("no_connection", f"{self.config.influxdb.url}: no connection"))
                version = query_version(self.config, flavour)
                wrong = mismatch(self.config, version)
                if wrong:
                    raise Failed(OperatorNeeded("refused",
                                                f"{self.config.influxdb.url} is {flavour or version}: {wrong}"))
                language = language_of(self.config, version)
                if falls_back(self.config, version, language) and not self._has(language) and self._has("flux"):
                    language = "flux"
                    self.logger.warning("source %s: no database is mapped to the bucket, so Flux is spoken, in which "
                                        "some servers answer wrongly where strings are empty; map one (influx v1 dbrp "
                                        "create), or see docs/reference/source.rst, Languages", self.config.name)
                self._known = version, language, dialect_of(self.config, language)
                self.logger.info("source %s: %s, asked in %s", self.config.name, flavour or version, language)
            return self._known

    def _has(self, language: Language) -> bool:
        """Whether the server finds the bucket, or the database of its name, in that language. Raises Failed."""
        dialect = dialect_of(self.config, language)
        try:
            dialect.read_measurements(self._list(dialect.measurements()))
        except QueryError as error:
            return not missing(error.words)
        except Failed as failed:
            if isinstance(failed.answer, OperatorNeeded) and failed.answer.reason == "not_found":
                return False
            raise
        return True

    def _columns_of(self, measurement: str, window: TimeWindow, dialect: Dialect) -> tuple[Column, ...]:
        """Tags and fields. Points of a window may have keys that are as young as its end and the buffer allow."""
        asked = dialect.columns(measurement)
        if asked is None:
            return ()
        columns, at, since = self._columns.get(measurement, ((), 0, 0.0))
        now = time.time_ns(), time.monotonic()
        if now[1] - since > COLUMNS_SECONDS or window.end + self.config.buffer_duration_ms * 1_000_000 > at:
            try:
                columns = dialect.read_columns(self._list(asked))
            except QueryError as error:
                raise said(error) from None
            self._columns[measurement] = columns, *now
        return columns

    def _list(self, asked: QueryRequest) -> bytes:
        """A short answer as a whole."""
        taker = self._channel.listing()
        with self._ask(asked) as reply:
            for piece in reply:
                taker.take(piece)
                if taker.size > MAX_LIST_BYTES:
                    raise Failed(OperatorNeeded("refused", f"a list of more than {MAX_LIST_BYTES} bytes"))
        return taker.finish(complete=True).body

    def _take(self, asked: QueryRequest, dialect: Dialect, whole: bool) -> tuple[QueryAnswer, bool]:
        """An answer to a page query; True with it when it is more than a page."""
        taker, complete = dialect.taker(), True
        with self._ask(asked) as reply:
            try:
                for piece in reply:
                    taker.take(piece)
                    if taker.size > MAX_ANSWER_BYTES:
                        raise Failed(OperatorNeeded("refused", f"an answer of more than {MAX_ANSWER_BYTES:,} bytes"))
                    if not whole and (taker.size > self.config.max_page_bytes or (
                            taker.rows > self.config.page_size and not dialect.ordered)):
                        complete = False
                        break
                full = not complete or (not whole and taker.rows > self.config.page_size)
                return taker.finish(complete), full
            except QueryError as error:
                raise said(error) from None

    def _ask(self, asked: QueryRequest) -> Reply:
        """The answer of the first server that accepts the query. Raises Failed."""
        version = self._known[0] if self._known else "v2"
        failed: Failed | None = None
        for url in self._urls():
            try:
                return self._ask_one(url, asked, version)
            except Failed as error:
                failed = failed or error
        assert failed is not None
        raise failed

    def _ask_one(self, url: str, asked: QueryRequest, version: Version) -> Reply:
        try:
            return self._channel.ask(url, asked, version)
        except Failed as error:
            if error.answer.reason == "unauthorized" and self._channel.reload():
                self.logger.info("source %s: the token file has another token; trying with it", self.config.name)
                return self._channel.ask(url, asked, version)
            raise

    def _urls(self) -> tuple[str, ...]:
        return (self.config.influxdb.url, *self.config.influxdb.more_urls)


def _channel(config: SourceConfig) -> Channel:
    if config.influxdb.transport == "flight":
        # Only those who use it pay for its libraries.
        from stages.query.flight import Flight
        return Flight(as_influx_config(config), config.influxdb.gzip)
    return Http(as_influx_config(config), config.influxdb.gzip)


def wanted(config: SourceConfig, measurement: str) -> bool:
    """Whether a measurement is to be read: by the patterns to include and to exclude."""
    return (any(fnmatch.fnmatchcase(measurement, pattern) for pattern in config.measurements)
            and not any(fnmatch.fnmatchcase(measurement, pattern) for pattern in config.exclude))


def as_influx_config(config: SourceConfig) -> InfluxConfig:
    """The options that reading and writing share, for what they share."""
    source = config.influxdb
    return InfluxConfig(
        url=source.url, more_urls=source.more_urls, version=source.version, org=source.org, org_id=source.org_id,
        bucket=source.bucket, database=source.database, token=source.token, token_file=source.token_file,
        username=source.username, password=source.password, gzip=False, headers=source.headers,
        ca_file=source.ca_file, client_cert_file=source.client_cert_file, client_key_file=source.client_key_file,
        insecure_skip_verify=source.insecure_skip_verify, proxy=source.proxy,
        connect_timeout_ms=source.connect_timeout_ms, read_timeout_ms=source.read_timeout_ms)
