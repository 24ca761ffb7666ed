"""One way to ask an InfluxDB for points, and to take its answer in: what all of them have in common. Pure."""

from collections.abc import Iterator
from typing import Any, Protocol

from msgspec import Struct

from pipeline.errors import PipelineError
from pipeline.points.table import Column, Table
from pipeline.points.windows import TimeWindow


class QueryRequest(Struct, frozen=True):
    """A query: a POST's path and body, or a Flight ticket, which has a body and no path."""

    #: After the server's URL, from the slash on; with its parameters.
    path: str
    body: bytes
    content_type: str = ""
    accept: str = ""


class QueryError(PipelineError):
    """An answer of status 200 says inside that the query failed, or breaks off. `words` are the server's."""

    def __init__(self, words: str, again: bool = False) -> None:
        """`again`: to be tried again; else a person has to do something."""
        super().__init__(words)
        self.words = words
        self.again = again


class QueryAnswer(Struct, frozen=True):
    """What a Taker took in: an answer, or the beginning of one where it was stopped."""

    body: bytes
    rows: int
    #: Time of the first row; 0 where that isn't known.
    first: int = 0
    #: Time of the last row, where the answer is in the order of time; else 0.
    last: int = 0


class Taker(Protocol):
    """Takes in one answer, piece by piece as the channel gives them, and counts its rows."""

    rows: int
    #: Bytes taken in.
    size: int

    def take(self, piece: Any) -> None:
        """The next bytes, or record batch. Raises ServerSaid."""

    def finish(self, complete: bool) -> QueryAnswer:
        """What was taken in; with `complete`, raises ServerSaid when the answer isn't whole."""


class Dialect(Protocol):
    """A query language at one API."""

    #: Page queries are answered in the order of time, with at most as many rows as asked for.
    ordered: bool

    def measurements(self) -> QueryRequest:
        """All measurements there are."""

    def read_measurements(self, body: bytes) -> list[str]:
        """From the answer to `measurements`. Raises ServerSaid."""

    def columns(self, measurement: str) -> QueryRequest | None:
        """Tag and field keys of a measurement; None where the answers say themselves what their columns are."""

    def read_columns(self, body: bytes) -> tuple[Column, ...]:
        """From the answer to `columns`. Raises ServerSaid."""

    def page(self, measurement: str, columns: tuple[Column, ...], window: TimeWindow, limit: int) -> QueryRequest:
        """The points in a window; `limit` rows at most where answers are ordered, 0: all."""

    def custom(self, query: str, window: TimeWindow) -> QueryRequest:
        """A query of the user's."""

    def taker(self) -> Taker:
        """For the answer to one `page` or `custom`."""

    def tables(self, measurement: str, columns: tuple[Column, ...], body: bytes, before: int) -> Iterator[Table]:
        """The rows of what a Taker took in, of times before `before`. With no `columns`, from the answer itself.

        In pieces where that can be done, so that few rows are in memory at a time. Raises ServerSaid.
        """


def lines_of(body: bytes) -> Iterator[bytes]:
    """The lines of an answer, but for empty ones, each cut off when it is wanted."""
    start = 0
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        if end > start:
            yield body[start:end]
        start = end + 1


def fill(query: str, start: str, end: str) -> str:
    """A user's query with its window: `$from` and `$to` replaced."""
    return query.replace("$from", start).replace("$to", end)
