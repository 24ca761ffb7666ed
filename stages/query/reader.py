"""Queries one source's InfluxDB and turns the answers into pages. Used by several threads, one query each."""

import logging
import threading
import time
from collections.abc import Sequence

from msgspec import Struct

from pipeline.config.patterns import matches_any
from pipeline.config.source_names import alignment_of, measurement_of
from pipeline.config.source_schema import SourceConfig
from pipeline.log_formats import facts
from pipeline.logs import RepeatFilter
from pipeline.points.table import Column
from pipeline.points.times import MAX_TIME, SECOND, format_time, parse_time
from pipeline.points.windows import TimeWindow, cut_before
from pipeline.wire.source import Language
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.influxdb.flavour import Flavour, Version
from stages.languages.choice import (
    dialect_of,
    language_mismatch,
    language_of,
    may_fall_back,
    mixes_strings,
    version_to_query,
)
from stages.languages.filters import choice_of
from stages.languages.influxql import InfluxqlDialect
from stages.languages.language import (
    CHUNK_ROWS,
    Dialect,
    PointCount,
    QueryAnswer,
    QueryError,
    QueryRequest,
    RetentionPolicy,
)
from stages.query.http import HttpTransport
from stages.query.policies import PolicyWatch
from stages.query.transport import (
    MAX_ANSWER_BYTES,
    QueryFailed,
    QueryTransport,
    Reply,
    is_not_found,
    to_failure,
    unreadable_is_failure,
)

#: How often a window is read in a row because its columns have changed.
MAX_COLUMN_CHANGES = 10
#: Pause between two counts of a measurement's points in the future, seconds.
FUTURE_SECONDS = 3_600.0
#: A window that ends at most this long before what may be read now is up to date, nanoseconds.
UP_TO_DATE_NANOSECONDS = 60 * SECOND
#: Timeouts of the check before the start, seconds.
CHECK_SECONDS = 5.0
#: Largest list of measurements or columns, bytes.
MAX_LIST_BYTES = 100_000_000
#: Assumed size of a row of an unknown measurement: of its time, and of each column, bytes.
ROW_BYTES, COLUMN_BYTES = 30, 20
#: How often a custom query is asked whose answers have no certain end.
MAX_COMPARED = 5
#: The error for a policy that was dropped. Source: InfluxDB 1.6.7 and 2.7.12.
POLICY_NOT_FOUND = "retention policy not found"
#: Chunks that fit into a page's `max_page_bytes`, and what a chunk is divided by if not one does.
CHUNKS_PER_PAGE, SMALLER_CHUNK = 4, 16


class QueryPage(Struct, frozen=True):
    """The rows of a window up to `end`."""

    language: Language
    columns: tuple[Column, ...]
    body: bytes
    end: int
    rows: int
    first: int
    #: Points in the future, where they were counted.
    future: int | None = None


class PageLimits(Struct, frozen=True):
    """The most rows and bytes of a page, unless the `whole` window is to be read."""

    rows: int
    size: int
    whole: bool = False


class Found(Struct, frozen=True):
    """The measurements of a source; see `source_wire.Discovered`."""

    measurements: list[str]
    ordered: bool
    probes: bool
    shard_widths: dict[str, int] = {}


class WindowOverflow(Struct, frozen=True):
    """A window with more rows than a page, or that takes the server too long; see `source_wire.PageOverflow`."""

    one_time: bool
    first: int
    slow: bool = False


class SourceReader:
    """Reads from one source's servers. Thread-safe."""

    def __init__(self, config: SourceConfig, logger: logging.Logger) -> None:
        """Raises PipelineError if the token file or a certificate cannot be read."""
        self.config = config
        self.logger = logger
        self._transport = _transport(config)
        self._lock = threading.Lock()
        self._known: tuple[Version, Language, Dialect] | None = None
        #: measurement -> its columns, as last read.
        self._columns: dict[str, tuple[Column, ...]] = {}
        #: measurement -> rows of a chunk, by the size of its last answer's rows.
        self._chunk_rows: dict[str, int] = {}
        self._failures = RepeatFilter()
        #: measurement -> when its points in the future are counted again: monotonic seconds.
        self._count_future_at: dict[str, float] = {}
        self._policies = PolicyWatch(config, logger)
        self._choice = choice_of(config)
        self._may_probe = True
        #: measurement -> its integer fields that are read as floats, as last logged.
        self._rounded: dict[str, list[str]] = {}

    @unreadable_is_failure()
    def discover(self) -> Found:
        """The measurements to read. Raises QueryFailed."""
        _, _, dialect = self._dialect()
        if self.config.query:
            return Found([self.config.measurement], dialect.ordered, probes=False)
        body = self._list(dialect.measurements())
        try:
            found = dialect.read_measurements(body)
            policies = dialect.policies(body)
            if self.config.retention_policies and isinstance(dialect, InfluxqlDialect):
                found = self._policies.measurements(policies, dialect, self._list)
            else:
                if self.config.influxdb.retention_policy and isinstance(dialect, InfluxqlDialect):
                    found = self._policies.measurements_of_one(dialect, self._list)
                self._policies.log_unread(policies)
        except QueryError as error:
            raise to_failure(error) from None
        window = "m", TimeWindow(0, 1)
        return Found([name for name in found if is_selected(self.config, name)], dialect.ordered,
                     probes=self._may_probe and dialect.probe([window]) is not None,
                     shard_widths=shard_widths(self.config, policies))

    @unreadable_is_failure()
    def probe(self, windows: Sequence[tuple[str, TimeWindow]]) -> set[str]:
        """The measurements that have no points in their windows. Raises QueryFailed; where the server refuses the
        query, there are no more probes.
        """
        _, _, dialect = self._dialect()
        request = dialect.probe(windows)
        if request is None:
            return set()
        try:
            return dialect.read_probe(windows, self._list(request))
        except QueryError as error:
            raise to_failure(error) from None
        except QueryFailed as failed:
            self._may_probe = self._may_probe and failed.answer.reason != "refused"
            raise

    def limits(self, rows: int = 0, size: int = 0, whole: bool = False) -> PageLimits:
        """What a page may have: as configured, or more where one time of the measurement has had more."""
        return PageLimits(max(self.config.page_size, rows), max(self.config.max_page_bytes, size), whole)

    @unreadable_is_failure()
    def read(self, measurement: str, window: TimeWindow, limits: PageLimits) -> QueryPage | WindowOverflow:
        """The page of a window. Raises QueryFailed."""
        try:
            return self._read(measurement, window, limits)
        except QueryFailed as failed:
            if self.config.retention_policies and POLICY_NOT_FOUND in failed.answer.message:
                # The other policies are there.
                raise QueryFailed(OperatorNeeded("refused", failed.answer.message)) from None
            raise

    def _read(self, measurement: str, wanted: TimeWindow, limits: PageLimits) -> QueryPage | WindowOverflow:
        _, language, dialect = self._dialect()
        columns: tuple[Column, ...] = ()
        window = dialect.reachable(wanted)
        if self.config.query:
            request = dialect.custom_query(self.config.query, window)
            answer, full = self._read_custom(request, dialect, limits)
        else:
            columns, answer, full = self._read_columns_and_rows(measurement, window, limits)
        if not full:
            end = window.end if answer.rows else self._silent_until(measurement, window.end, wanted.end, dialect)
            return QueryPage(language, columns, answer.body, end, answer.rows, answer.first or window.start,
                             self._count_future(measurement, end))
        if not dialect.ordered:
            return WindowOverflow(one_time=False, first=answer.first or window.start)
        if answer.first == answer.last:
            return WindowOverflow(one_time=True, first=answer.first)
        end = cut_before(window, answer.last)
        return QueryPage(language, columns, answer.body, end, answer.rows, answer.first)

    def _silent_until(self, measurement: str, start: int, end: int, dialect: Dialect) -> int:
        """The end of the time from `start` on in which there are no points, or near it; at most `end`. Raises
        QueryFailed."""
        request = dialect.first_time(measurement, TimeWindow(start, end)) if start < end else None
        if request is None:
            return start
        try:
            first = dialect.read_first_time(self._list(request))
        except QueryError as error:
            raise to_failure(error) from None
        return end if first is None else max(start, dialect.before_first(first))

    def _read_columns_and_rows(self, measurement: str, window: TimeWindow,
                               limits: PageLimits) -> tuple[tuple[Column, ...], QueryAnswer, bool]:
        """The columns of a window, the answer to its page query, and whether it is more than a page.

        The columns are read once more after the rows, and if they have changed, so are the rows: tags and fields may be
        written at any time, and a query without them misses values, or whole points, or makes other series of them.
        Raises QueryFailed.
        """
        _, _, dialect = self._dialect()
        request = dialect.columns(measurement)
        if request is None:
            return (), *self._read_rows(measurement, (), window, limits)
        columns = self._columns.get(measurement) or self._list_columns(measurement, request, dialect)
        for _ in range(MAX_COLUMN_CHANGES):
            answer, full = QueryAnswer(b"", 0), False
            if any(column.kind == "field" for column in columns):
                answer, full = self._read_rows(measurement, columns, window, limits)
            before, columns = columns, self._list_columns(measurement, request, dialect)
            self._columns[measurement] = columns
            if columns == before:
                return columns, answer, full
        raise QueryFailed(Retry("server_error", f"the tags and fields of {measurement} have changed during each of "
                                                f"{MAX_COLUMN_CHANGES} queries"))

    def _count_future(self, measurement: str, end: int) -> int | None:
        """Counts the points after now, up to a page, when a window that ends at `end` has brought a measurement up to
        now: at first, and then every FUTURE_SECONDS. None where they are not counted.
        """
        now = time.time_ns()
        if self.config.query or self.config.to and end >= parse_time(self.config.to) \
                or end < now - self.config.buffer_duration_ms * 1_000_000 - UP_TO_DATE_NANOSECONDS \
                or time.monotonic() < self._count_future_at.get(measurement, 0.0):
            return None
        self._count_future_at[measurement] = time.monotonic() + FUTURE_SECONDS
        try:
            _, answer, full = self._read_columns_and_rows(measurement, TimeWindow(now, MAX_TIME), self.limits())
        except QueryFailed:  # it must not hold up the page
            return None
        if answer.rows:
            self.logger.warning("source %s: %s has %s%d points in the future%s, read once their time has come; "
                                "to read them now, set `to` to a time after them, and read_future_points",
                                self.config.name, measurement, "more than " if full else "", answer.rows,
                                f", from {format_time(answer.first)} on" if answer.first else "",
                                extra=facts(source=self.config.name, measurement=measurement))
        return answer.rows

    def _list_columns(self, measurement: str, request: QueryRequest, dialect: Dialect) -> tuple[Column, ...]:
        """Tags and fields of a measurement. Raises QueryFailed."""
        try:
            body = self._list(request)
            rounded = list(filter(self._choice.has_field, dialect.rounded_fields(body)))
            if rounded and self._rounded.get(measurement) != rounded:
                self._rounded[measurement] = rounded
                self.logger.warning("source %s: fields of %s are integers in some shards and floats in others, and are "
                                    "read as floats: %s. Integers beyond 2^53 among them lose their last digits",
                                    self.config.name, measurement, ", ".join(map(repr, rounded)),
                                    extra=facts(source=self.config.name, measurement=measurement))
            return tuple(column for column in dialect.read_columns(body)
                         if column.kind == "tag" or self._choice.has_field(column.name))
        except QueryError as error:
            raise to_failure(error) from None

    def is_answering(self) -> bool:
        """Whether the server answers the query for measurements now."""
        try:
            with unreadable_is_failure():
                self._list(self._dialect()[2].measurements())
        except QueryFailed:
            return False
        return True

    def _read_rows(self, measurement: str, columns: tuple[Column, ...], window: TimeWindow,
                   limits: PageLimits) -> tuple[QueryAnswer, bool]:
        """The answer to a page query, and whether it is more than a page. Raises QueryFailed.

        An answer that is cut at `max_page_bytes` has at least one row: where the first chunk is larger, the query is
        repeated with smaller chunks and a higher limit. Without a row nothing is known of the times that it covers.
        """
        _, _, dialect = self._dialect()
        limit = limits.rows + 1 if dialect.ordered and not limits.whole else 0
        chunk_rows = self._chunk_rows.get(measurement) or chunk_rows_for(
            ROW_BYTES + COLUMN_BYTES * len(columns), self.config.max_page_bytes)
        while True:
            request = dialect.page(measurement, columns, window, limit, chunk_rows)
            answer, full, _ = self._read_answer(request, dialect, limits)
            if answer.rows or not full or not dialect.ordered:
                break
            if self._failures.allows(f"large rows of {measurement}", time.monotonic()):
                self.logger.warning("source %s: %d rows of %s have more than max_page_bytes = %d bytes; reading fewer "
                                    "rows at a time. If this is frequent, increase max_page_bytes", self.config.name,
                                    chunk_rows, measurement, self.config.max_page_bytes,
                                    extra=facts(source=self.config.name, measurement=measurement))
            chunk_rows = max(1, chunk_rows // SMALLER_CHUNK)
            limits = PageLimits(limits.rows, limits.size * 2, limits.whole)
        if answer.rows:
            self._chunk_rows[measurement] = chunk_rows_for(len(answer.body) // answer.rows, self.config.max_page_bytes)
        return answer, full

    @unreadable_is_failure()
    def count(self, measurement: str, window: TimeWindow, every: int = 0) -> dict[int, PointCount] | None:
        """The numbers of points in a window; see `Dialect.count`. None where they cannot be counted. Raises
        QueryFailed."""
        _, _, dialect = self._dialect()
        request = dialect.count(measurement, window, every)
        if request is None:
            return None
        try:
            return dialect.read_count(self._list(request))
        except QueryError as error:
            raise to_failure(error) from None

    @unreadable_is_failure()
    def rows(self, measurement: str, window: TimeWindow) -> int | None:
        """The number of rows of a window, at most a page and one more; None where they come in no order, and are
        counted otherwise. Raises QueryFailed."""
        _, _, dialect = self._dialect()
        if not dialect.ordered:
            return None
        _, answer, _ = self._read_columns_and_rows(measurement, window, self.limits())
        return answer.rows

    @property
    def may_probe(self) -> bool:
        """Whether the server answers probes, as far as is known."""
        return self._may_probe

    @unreadable_is_failure()
    def series(self, measurement: str, window: TimeWindow) -> int | None:
        """The number of series; see `Dialect.series`. None where they cannot be counted. Raises QueryFailed."""
        _, _, dialect = self._dialect()
        request = dialect.series(measurement, window)
        if request is None:
            return None
        try:
            return dialect.read_series(self._list(request))
        except QueryError as error:
            raise to_failure(error) from None

    def check(self) -> bool:
        """Tries the custom query, or the list of measurements, once and with short timeouts. Whether there is something
        to read. Raises QueryFailed."""
        connect, silence = self._transport.timeout
        self._transport.timeout = min(connect, CHECK_SECONDS), min(silence, CHECK_SECONDS)
        if self.config.query:
            alignment = alignment_of(self.config)
            start = alignment.floor(0)
            self.read(self.config.measurement, TimeWindow(start, alignment.after(start)),
                      self.limits(whole=True))
            return True
        return bool(self.discover().measurements)

    def _dialect(self) -> tuple[Version, Language, Dialect]:
        """Version, language and dialect; with version = "auto" detected by the first call that gets an answer."""
        with self._lock:
            if self._known is None:
                flavour: Flavour | None = None
                if self.config.influxdb.version == "auto" and isinstance(self._transport, HttpTransport):
                    flavour = next(filter(None, map(self._transport.flavour, self._urls())), None)
                    if flavour is None:
                        raise QueryFailed(Retry("no_connection", f"{', '.join(self._urls())}: no connection"))
                version = version_to_query(self.config, flavour)
                wrong = language_mismatch(self.config, version)
                if wrong:
                    raise QueryFailed(OperatorNeeded("refused",
                                                f"{self._urls()[0]} is {flavour or version}: {wrong}"))
                language = language_of(self.config, version)
                if may_fall_back(self.config, version, language) and not self._has(language) and self._has("flux"):
                    language = "flux"
                    self.logger.warning("source %s: no database is mapped to the bucket, so it is read in Flux, whose "
                                        "answers are wrong on some servers where strings are empty; create a mapping "
                                        "(influx v1 dbrp create), or see docs/reference/source.rst, Languages",
                                        self.config.name, extra=facts(source=self.config.name))
                elif language == "flux" and mixes_strings(flavour):
                    self.logger.warning("source %s: in Flux, InfluxDB 2.7.10 to 2.8.0 gives wrong values of string "
                                        "fields that are empty at some times; language = \"influxql\" gives the right "
                                        "ones, see docs/reference/source.rst, Languages",
                                        self.config.name, extra=facts(source=self.config.name))
                self._known = version, language, dialect_of(self.config, language)
                self.logger.info("source %s: reading %s in %s", self.config.name, flavour or version, language,
                                 extra=facts(source=self.config.name))
            return self._known

    def _has(self, language: Language) -> bool:
        """Whether the server has the bucket, or a database of its name, in that language. Raises QueryFailed."""
        dialect = dialect_of(self.config, language)
        try:
            dialect.read_measurements(self._list(dialect.measurements()))
        except QueryError as error:
            return not is_not_found(error.message)
        except QueryFailed as failed:
            if isinstance(failed.answer, OperatorNeeded) and failed.answer.reason == "not_found":
                return False
            raise
        return True

    def _list(self, request: QueryRequest) -> bytes:
        """The body of the answer to a list query. Raises QueryFailed."""
        reader = self._transport.list_reader()
        with self._ask(request) as reply:
            for piece in reply:
                reader.feed(piece)
                if reader.size > MAX_LIST_BYTES:
                    raise QueryFailed(OperatorNeeded("refused", f"the list has more than {MAX_LIST_BYTES:,} bytes"))
        return reader.finish(complete=True).body

    def _read_custom(self, request: QueryRequest, dialect: Dialect, limits: PageLimits) -> tuple[QueryAnswer, bool]:
        """The answer to the custom query, and whether it is more than a page. Raises QueryFailed.

        Where only compression would have shown its end, and something in between has removed it, the query is asked
        until two answers in a row are of the same size.
        """
        answer, full, compressed = self._read_answer(request, dialect, limits)
        for _ in range(MAX_COMPARED):
            if full or compressed or not request.compressed:
                return answer, full
            before = answer
            answer, full, compressed = self._read_answer(request, dialect, limits)
            if (answer.rows, len(answer.body)) == (before.rows, len(before.body)):
                return answer, full
        raise QueryFailed(Retry("server_error", "the answer is incomplete, or changes: without compression, which a "
                                                f"proxy has removed, none of {MAX_COMPARED} answers was like the one "
                                                "before"))

    def _read_answer(self, request: QueryRequest, dialect: Dialect,
                     limits: PageLimits) -> tuple[QueryAnswer, bool, bool]:
        """The answer to a query for points, whether it is more than a page, and whether it was compressed. Raises
        QueryFailed.

        It is cut after the limit of bytes, or after a page of an answer that has no order, unless it is to be
        read whole.
        """
        reader, complete = dialect.answer_reader(), True
        with self._ask(request) as reply:
            try:
                for piece in reply:
                    reader.feed(piece)
                    if reader.size > MAX_ANSWER_BYTES:
                        raise QueryFailed(OperatorNeeded(
                            "refused", f"the answer has more than {MAX_ANSWER_BYTES:,} bytes; if one time has so many "
                            "points, divide the series among several sources by tag_values"))
                    if not limits.whole and (reader.size > limits.size or (
                            reader.rows > limits.rows and not dialect.ordered)):
                        complete = False
                        break
                answer = reader.finish(complete)
                return (answer, not complete or (not limits.whole and answer.rows > limits.rows),
                        reply.is_compressed)
            except QueryError as error:
                raise to_failure(error) from None

    def _ask(self, request: QueryRequest) -> Reply:
        """The answer of the first server that accepts the query. Raises QueryFailed."""
        version = self._known[0] if self._known else "v2"
        failed: QueryFailed | None = None
        for url in self._urls():
            try:
                return self._ask_one(url, request, version)
            except QueryFailed as error:
                failed = failed or error
        assert failed is not None
        raise failed

    def _ask_one(self, url: str, request: QueryRequest, version: Version) -> Reply:
        try:
            return self._transport.ask(url, request, version)
        except QueryFailed as error:
            if error.answer.reason == "unauthorized" and self._transport.reload():
                self.logger.info("source %s: the token file has a new token; retrying with it", self.config.name,
                                 extra=facts(source=self.config.name))
                return self._transport.ask(url, request, version)
            raise

    def _urls(self) -> tuple[str, ...]:
        return self.config.influxdb.servers()


def chunk_rows_for(row_bytes: int, max_page_bytes: int) -> int:
    """How many rows of that size a chunk may have, so that several chunks fit into a page."""
    return max(1, min(CHUNK_ROWS, max_page_bytes // CHUNKS_PER_PAGE // max(1, row_bytes)))


def shard_widths(config: SourceConfig, policies: Sequence[RetentionPolicy]) -> dict[str, int]:
    """The widths of the shards of the policies that are read, nanoseconds; that of the default policy as ""."""
    named = bool(config.retention_policies or config.influxdb.retention_policy)
    return {policy.name if named else "": policy.shard_width for policy in policies
            if policy.shard_width and (named or policy.is_default)}


def _transport(config: SourceConfig) -> QueryTransport:
    if config.influxdb.transport == "flight":
        # Imported here, because pyarrow costs every other user start-up time and memory.
        from stages.query.flight import FlightTransport
        return FlightTransport(config.influxdb)
    return HttpTransport(config.influxdb)


def is_selected(config: SourceConfig, kept: str) -> bool:
    """Whether a measurement, by the name that the source keeps it under, matches `measurements`, and not
    `exclude_measurements`, and its retention policy `retention_policies`."""
    policy, name = measurement_of(config, kept)
    return matches_any(name, config.measurements) and not matches_any(name, config.exclude_measurements) and (
        not config.retention_policies or matches_any(policy, config.retention_policies))
