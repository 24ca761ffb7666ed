"""A way to a source's servers: what HTTP and Flight have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol

from pipeline.errors import PipelineError
from pipeline.printable import excerpt
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.influxdb.flavour import Version
from stages.languages.language import QueryError, QueryRequest, Taker

#: Largest answer, as sent and decompressed each, bytes; pages are cut long before.
MAX_ANSWER_BYTES = 1_000_000_000
_MISSING = ("not found", "does not exist", "could not find")
_DENIED = ("unauthorized", "not authorized", "authorization")


class Failed(Exception):
    """A query failed; `answer` says whether to wait or to call a person."""

    def __init__(self, answer: Retry | OperatorNeeded) -> None:
        super().__init__(answer.words)
        self.answer = answer


@contextmanager
def understood() -> Iterator[None]:
    """Has whatever goes wrong while an answer is read be an answer that is not understood. Raises Failed."""
    try:
        yield
    except (Failed, PipelineError):
        raise
    except Exception as error:
        raise Failed(Retry("server_error", f"the answer is not understood ({type(error).__name__}: "
                                           f"{excerpt(str(error))})")) from error


class Reply(Protocol):
    """The answer to a query that a server has accepted. To be left before all of it has come when that is enough."""

    def __iter__(self) -> Iterator[Any]:
        """The pieces, for a Taker. Raises Failed when the answer breaks off, or nothing comes for too long."""

    def __enter__(self) -> "Reply": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...


class Channel(Protocol):
    """Asks servers. Thread-safe."""

    #: Seconds: to connect, and the longest silence.
    timeout: tuple[float, float]

    def ask(self, url: str, asked: QueryRequest, version: Version) -> Reply:
        """Asks one server. Raises Failed."""

    def listing(self) -> Taker:
        """For the answer to a query for measurements or columns."""

    def reload(self) -> bool:
        """Reads the token file again; True when there is another token in it. Raises PipelineError."""


def said(error: QueryError) -> Failed:
    """The meaning of an error inside an answer."""
    if error.again:
        return Failed(Retry("server_error", error.words))
    denied = any(text in error.words.lower() for text in _DENIED)
    return Failed(OperatorNeeded("unauthorized", error.words)
                  if denied and not missing(error.words) else refusal(error.words, error.words))


def refusal(words: str, shown: str) -> OperatorNeeded:
    """What a refusal in these words of the server means: something is missing, or the query is wrong."""
    return OperatorNeeded("not_found" if missing(words) else "refused", shown)


def missing(words: str) -> bool:
    """Whether the server says that a database, bucket or table is not there."""
    return any(text in words.lower() for text in _MISSING)
