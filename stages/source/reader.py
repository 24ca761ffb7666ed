"""Asks a source's InfluxDB over HTTP, one query at a time in each thread, and cuts the answers into pages."""

import fnmatch
import logging
import threading
import time

import msgspec
import requests
import urllib3
from msgspec import Struct

from pipeline.logs import Muffler
from pipeline.schema import InfluxConfig
from pipeline.source_schema import SourceConfig
from stages.influxdb.answers import Again, Paused, TooLarge, Written, classify
from stages.influxdb.flavour import Flavour, Version, ask
from stages.influxdb.transport import Credentials, new_session
from stages.source.dialect import Ask, Dialect, Language, ServerSaid, Taken
from stages.source.dialects import dialect_of, language_of, mismatch, query_version
from stages.source.table import Column
from stages.source.window import Window, cut_before

#: Bytes taken from an answer at once.
PIECE_BYTES = 65_536
#: Columns of a measurement are asked for again after so long, seconds, or for a window that ends later than they.
COLUMNS_SECONDS = 5.0
#: Longest silence while a source is checked before its start, seconds.
CHECK_SECONDS = 5.0
#: Largest answer about measurements or columns, bytes.
MAX_LIST_BYTES = 100_000_000
_MISSING = ("not found", "does not exist", "could not find")
_DENIED = ("unauthorized", "not authorized", "authorization")


class Failed(Exception):
    """A query failed; `answer` says whether to wait or to call a person."""

    def __init__(self, answer: Again | Paused) -> None:
        super().__init__(answer.words)
        self.answer = answer


class PageRead(Struct, frozen=True):
    """A page: what the server said of a window up to `end`."""

    language: Language
    columns: tuple[Column, ...]
    body: bytes
    end: int
    rows: int
    first: int


class PageTooFull(Struct, frozen=True):
    """More rows than a page; see `source_wire.TooFull`."""

    one_time: bool


class Reader:
    """One source's servers. Thread-safe; a session for each thread."""

    def __init__(self, config: SourceConfig, logger: logging.Logger) -> None:
        """Raises PipelineError when the token file can't be read."""
        self.config = config
        self.logger = logger
        self._influxdb = as_influx_config(config)
        self.credentials = Credentials(self._influxdb)
        self.timeout = config.influxdb.connect_timeout_ms / 1000, config.influxdb.read_timeout_ms / 1000
        self._local = threading.local()
        self._lock = threading.Lock()
        self._known: tuple[Version, Language, Dialect] | None = None
        #: measurement -> its columns, and when they were asked for: nanoseconds since 1970.
        self._columns: dict[str, tuple[tuple[Column, ...], int]] = {}
        self._notes = Muffler(600.0)
        if config.influxdb.insecure_skip_verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def discover(self) -> tuple[list[str], bool]:
        """The measurements to read, and whether pages come in the order of time. Raises Failed."""
        _, _, dialect = self._dialect()
        if self.config.query:
            return [self.config.measurement], dialect.ordered
        body = self._list(dialect.measurements())
        try:
            found = dialect.read_measurements(body)
        except ServerSaid as error:
            raise Failed(_said(error)) from None
        return [name for name in found if wanted(self.config, name)], dialect.ordered

    def read(self, measurement: str, window: Window, whole: bool) -> PageRead | PageTooFull:
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
            return PageTooFull(one_time=False)
        try:
            end = cut_before(window, taken.last)
        except ValueError:
            return PageTooFull(one_time=True)
        return PageRead(language, columns, taken.body, end, taken.rows, taken.first)

    def check(self) -> None:
        """Tries the query of one's own, or the listing of measurements, once and not for long. Raises Failed."""
        self.timeout = min(self.timeout[0], CHECK_SECONDS), min(self.timeout[1], CHECK_SECONDS)
        if self.config.query:
            self.read(self.config.measurement, Window(0, max(1, self.config.align_ms * 1_000_000)), True)
        else:
            self.discover()

    def _dialect(self) -> tuple[Version, Language, Dialect]:
        """What to speak; with version = "auto" that is known once the server has been reached."""
        with self._lock:
            if self._known is None:
                flavour: Flavour | None = None
                if self.config.influxdb.version == "auto":
                    flavour = next(filter(None, (ask(self._session(), url, self.timeout) for url in self._urls())),
                                   None)
                    if flavour is None:
                        raise Failed(Again("no_connection", f"{self.config.influxdb.url}: no connection"))
                version = query_version(self.config, flavour)
                wrong = mismatch(self.config, version)
                if wrong:
                    raise Failed(Paused("refused", f"{self.config.influxdb.url} is {flavour or version}: {wrong}"))
                language = language_of(self.config, version)
                self._known = version, language, dialect_of(self.config, language)
                self.logger.info("source %s: %s, asked in %s", self.config.name, flavour or version, language)
            return self._known

    def _columns_of(self, measurement: str, window: Window, dialect: Dialect) -> tuple[Column, ...]:
        """Tags and fields. Points of a window may have keys that are as young as its end and the buffer allow."""
        asked = dialect.columns(measurement)
        if asked is None:
            return ()
        columns, at = self._columns.get(measurement, ((), 0))
        now = time.time_ns()
        if now - at > COLUMNS_SECONDS * 1e9 or window.end + self.config.buffer_duration_ms * 1_000_000 > at:
            try:
                columns = dialect.read_columns(self._list(asked))
            except ServerSaid as error:
                raise Failed(_said(error)) from None
            self._columns[measurement] = columns, now
        return columns

    def _list(self, asked: Ask) -> bytes:
        """A short answer as a whole."""
        body = bytearray()
        with self._post(asked) as reply:
            try:
                for piece in reply.raw.stream(PIECE_BYTES, decode_content=True):
                    body += piece
                    if len(body) > MAX_LIST_BYTES:
                        raise Failed(Paused("refused", f"a list of more than {MAX_LIST_BYTES} bytes"))
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise Failed(Again("no_connection", f"the answer broke off: {_words(error)}")) from None
        return bytes(body)

    def _take(self, asked: Ask, dialect: Dialect, whole: bool) -> tuple[Taken, bool]:
        """An answer to a page query; True with it when it is more than a page."""
        taker, full, complete = dialect.taker(), False, True
        with self._post(asked) as reply:
            try:
                for piece in reply.raw.stream(PIECE_BYTES, decode_content=True):
                    taker.take(piece)
                    if not whole and (taker.size > self.config.max_page_bytes or (
                            taker.rows > self.config.page_size and not dialect.ordered)):
                        complete = False
                        break
                full = not complete or (not whole and taker.rows > self.config.page_size)
                return taker.finish(complete), full
            except ServerSaid as error:
                raise Failed(_said(error)) from None
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise Failed(Again("no_connection", f"the answer broke off: {_words(error)}")) from None

    def _post(self, asked: Ask) -> requests.Response:
        """The answer, of status 200, at the first server that gives one. Raises Failed."""
        failed: Failed | None = None
        for url in self._urls():
            try:
                return self._post_to(url, asked)
            except Failed as error:
                failed = failed or error
        assert failed is not None
        raise failed

    def _post_to(self, url: str, asked: Ask) -> requests.Response:
        try:
            return self._attempt(url, asked)
        except Failed as error:
            if error.answer.reason == "unauthorized" and self.credentials.reload():
                self.logger.info("source %s: the token file has another token; trying with it", self.config.name)
                return self._attempt(url, asked)
            raise

    def _attempt(self, url: str, asked: Ask) -> requests.Response:
        version = self._known[0] if self._known else "v2"
        headers = {"Content-Type": asked.content_type, "Accept": asked.accept, **self.credentials.header(version)}
        try:
            reply = self._session().post(url.rstrip("/") + asked.path, data=asked.body, headers=headers,
                                         timeout=self.timeout, allow_redirects=False, stream=True)
            if reply.status_code == 200:
                return reply
            content = reply.content
        except requests.exceptions.SSLError as error:
            words = f"{url}: TLS: {_words(error)}; correct ca_file, or the certificate"
            raise Failed(Paused("refused", words)) from None
        except requests.Timeout:
            raise Failed(Again("timeout", f"{url}: no answer within {self.timeout[1]:g} s")) from None
        except requests.RequestException as error:
            raise Failed(Again("no_connection", f"{url}: no connection ({_words(error)})")) from None
        answer = classify(reply.status_code, reply.headers, content, time.time())
        if isinstance(answer, Again | Paused):
            raise Failed(msgspec.structs.replace(answer, words=f"{url} answered {answer.words}"))
        words = f"{reply.status_code}" if isinstance(answer, Written) else answer.words
        reason = "refused" if isinstance(answer, TooLarge) or not _any(_MISSING, words) else "not_found"
        raise Failed(Paused(reason, f"{url} answered {words}"))

    def _urls(self) -> tuple[str, ...]:
        return (self.config.influxdb.url, *self.config.influxdb.more_urls)

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            session = new_session(self._influxdb)
            session.headers.pop("Content-Encoding", None)
            session.headers["Accept-Encoding"] = "gzip" if self.config.influxdb.gzip else "identity"
            self._local.session = session
        session = self._local.session
        assert isinstance(session, requests.Session)
        return session


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
        insecure_skip_verify=source.insecure_skip_verify, proxy=source.proxy)


def _said(error: ServerSaid) -> Again | Paused:
    """The meaning of an error inside an answer of status 200."""
    if error.again:
        return Again("server_error", error.words)
    words = error.words.lower()
    reason = "not_found" if _any(_MISSING, words) else "unauthorized" if _any(_DENIED, words) else "refused"
    return Paused(reason, error.words)


def _any(texts: tuple[str, ...], words: str) -> bool:
    return any(text in words for text in texts)


def _words(error: BaseException) -> str:
    reason = getattr(error.args[0] if error.args else error, "reason", error)
    return str(reason).rpartition(">: ")[2][:200] or type(error).__name__
