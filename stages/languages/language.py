"""The interface of a query language at one API: requests, and reading their answers. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from msgspec import Struct

from pipeline.errors import PipelineError
from pipeline.points.table import Column, Table
from pipeline.points.windows import TimeWindow

#: Rows of a chunk, for answers that come in chunks; fewer where rows are large.
CHUNK_ROWS = 10_000


class QueryRequest(Struct, frozen=True):
    """A query: path and body of a POST, or a Flight ticket, which has a body and no path."""

    #: Appended to the server's URL: from the slash on, with its parameters.
    path: str
    body: bytes
    content_type: str = ""
    accept: str = ""
    #: A compressed answer is asked for, whatever the configuration says: it has no other end than the compression's.
    compressed: bool = False


class QueryError(PipelineError):
    """An answer of status 200 contains an error, or is incomplete. `message` is the server's, where it sent one."""

    def __init__(self, message: str, retryable: bool = False) -> None:
        """`retryable`: the same query may succeed later; otherwise an operator is needed."""
        super().__init__(message)
        self.message = message
        self.retryable = retryable


class QueryAnswer(Struct, frozen=True):
    """What a QueryAnswerReader was fed: a whole answer, or its beginning if reading stopped early."""

    body: bytes
    rows: int
    #: Time of the first row; 0 if unknown.
    first: int = 0
    #: Time of the last row if the rows are in time order; otherwise 0.
    last: int = 0


class RetentionPolicy(Struct, frozen=True):
    """A retention policy of a database, and whether it is the default one."""

    name: str
    is_default: bool
    #: Width of its shards, nanoseconds; 0 if unknown.
    shard_width: int = 0


class PointCount(Struct, frozen=True):
    """Numbers for one window. Where points have different fields, a server may count fewer than there are."""

    #: Points, at least.
    points: int
    #: Rows that a page of the window has; at least, where these are not certainly all.
    rows: int
    is_exact: bool = True


class QueryAnswerReader(Protocol):
    """Collects one answer, piece by piece as the transport yields them, and counts its rows."""

    #: Rows of which all has been collected; `finish` has the exact number.
    rows: int
    #: Bytes collected.
    size: int

    def feed(self, piece: Any) -> None:
        """Adds the next bytes, or record batch. Raises QueryError for an error inside it."""

    def finish(self, complete: bool) -> QueryAnswer:
        """The answer. With `complete`, raises QueryError when the end of the answer is missing."""


class Dialect(Protocol):
    """A query language at one API."""

    #: Answers to page queries are in time order and respect `limit`.
    ordered: bool

    def measurements(self) -> QueryRequest:
        """The query for all measurements."""

    def read_measurements(self, body: bytes) -> list[str]:
        """Reads the answer to `measurements`. Raises QueryError."""

    def policies(self, body: bytes) -> list[RetentionPolicy]:
        """From the answer to `measurements`: the retention policies of the database, where it has any."""

    def columns(self, measurement: str) -> QueryRequest | None:
        """The query for tag and field keys of a measurement; None where answers describe their own columns."""

    def read_columns(self, body: bytes) -> tuple[Column, ...]:
        """Reads the answer to `columns`. Raises QueryError."""

    def rounded_fields(self, body: bytes) -> list[str]:
        """From the answer to `columns`: integer fields that are read as floats, and so rounded beyond 2^53."""

    def page(self, measurement: str, columns: tuple[Column, ...], window: TimeWindow, limit: int,
             chunk_rows: int = CHUNK_ROWS) -> QueryRequest:
        """The query for the points in a window: at most `limit` rows if answers are ordered; 0 is no limit.

        `chunk_rows`: rows of a chunk, where answers come in chunks, of which only whole ones can be read.
        """

    def reachable(self, window: TimeWindow) -> TimeWindow:
        """The beginning of a window that one page query can read: all of it, unless the server answers wrongly then.
        Where it ends before the window, `first_time` can be relied on from there on."""

    def before_first(self, first: int) -> int:
        """Where a window begins that has the first point at `first`."""

    def custom_query(self, query: str, window: TimeWindow) -> QueryRequest:
        """The user's `query` for a window."""

    def probe(self, windows: Sequence[tuple[str, TimeWindow]]) -> QueryRequest | None:
        """The query for which of these measurements have points in their windows; None where each has to be read."""

    def read_probe(self, windows: Sequence[tuple[str, TimeWindow]], body: bytes) -> set[str]:
        """Reads the answer to `probe`: the measurements that certainly have none. Raises QueryError."""

    def count(self, measurement: str, window: TimeWindow, every: int = 0) -> QueryRequest | None:
        """The query for the numbers of points in a window: together, or from each multiple of `every` nanoseconds on.
        None for a custom query."""

    def read_count(self, body: bytes) -> dict[int, PointCount]:
        """Reads the answer to `count`, by the start of each part that has points; any start where there is one number
        for all. Raises QueryError."""

    def series(self, measurement: str, window: TimeWindow) -> QueryRequest | None:
        """The query for the number of series, of the window where the server can tell. None for a custom query."""

    def read_series(self, body: bytes) -> int:
        """Reads the answer to `series`. Raises QueryError."""

    def first_time(self, measurement: str, window: TimeWindow) -> QueryRequest | None:
        """The query for the time of the first point in a window. None where a page of few rows tells, and for a custom
        query."""

    def read_first_time(self, body: bytes) -> int | None:
        """Reads the answer to `first_time`; None if there is no point. Raises QueryError."""

    def answer_reader(self) -> QueryAnswerReader:
        """A reader for the answer to one `page` or `custom_query`."""

    def tables(self, measurement: str, columns: tuple[Column, ...], body: bytes, before: int) -> Iterator[Table]:
        """The rows before the time `before` of an answer. Empty `columns`: they are taken from the answer itself.

        Yields several tables where the format allows it, so that few rows are in memory at a time. Raises QueryError.
        """


def non_empty_lines(body: bytes) -> Iterator[bytes]:
    """The non-empty lines of an answer, each sliced only when it is reached."""
    start = 0
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        if end > start:
            yield body[start:end]
        start = end + 1


def substitute(query: str, start: str, end: str) -> str:
    """The user's query with `$from` and `$to` replaced by the window's bounds."""
    return query.replace("$from", start).replace("$to", end)
