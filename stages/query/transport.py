"""Query transports: what reading over HTTP and over Arrow Flight have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol

from pipeline.errors import PipelineError
from pipeline.printable import excerpt
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.influxdb.flavour import Version
from stages.languages.language import QueryAnswerReader, QueryError, QueryRequest

#: Largest answer, in bytes, both as sent and decompressed. Pages are limited long before by `max_page_bytes`.
MAX_ANSWER_BYTES = 1_000_000_000
_NOT_FOUND = ("not found", "does not exist", "could not find")
#: Limits of InfluxDB 1 (`max-select-...`, `query-timeout`), 2 (memory, deadline) and 3 (memory, files); proxies.
_HEAVY = ("timeout", "timed out", "time-out", "deadline", "memory", "max-select-", "resources exhausted", "file limit",
          "smaller time range")
_DENIED = ("unauthorized", "not authorized", "authorization")


class QueryFailed(Exception):
    """A query failed; `answer` tells whether to retry it or whether an operator is needed."""

    def __init__(self, answer: Retry | OperatorNeeded) -> None:
        super().__init__(answer.message)
        self.answer = answer


@contextmanager
def unreadable_is_failure() -> Iterator[None]:
    """Turns any unexpected exception while an answer is read into a QueryFailed that is retried."""
    try:
        yield
    except (QueryFailed, PipelineError):
        raise
    except Exception as error:
        raise QueryFailed(unreadable(error)) from error


def unreadable(error: Exception) -> Retry:
    """The outcome of an answer that could not be parsed, whatever the reason."""
    return Retry("server_error", f"the answer is not understood ({type(error).__name__}: "
                                 f"{excerpt(str(error))})")


class Reply(Protocol):
    """The answer to an accepted query, as a context manager. It may be closed before the end of the answer."""

    #: The compression has an end, which a proxy cannot cut off.
    is_compressed: bool

    def __iter__(self) -> Iterator[Any]:
        """The pieces, for a QueryAnswerReader. Raises QueryFailed when the connection breaks or the server stalls."""

    def __enter__(self) -> "Reply": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...


class QueryTransport(Protocol):
    """Sends queries to servers. Thread-safe."""

    #: Seconds: to connect, and between two pieces of an answer.
    timeout: tuple[float, float]

    def ask(self, url: str, request: QueryRequest, version: Version) -> Reply:
        """Sends a query to one server. Raises QueryFailed."""

    def list_reader(self) -> QueryAnswerReader:
        """The reader for answers to queries for measurements or columns."""

    def reload(self) -> bool:
        """Reads the token file again; True when the token has changed. Raises PipelineError."""


def is_too_heavy(answer: Retry | OperatorNeeded) -> bool:
    """Whether a query needs more time or memory than the server, or a proxy, gives it: a smaller window needs less."""
    message = answer.message.lower()
    return isinstance(answer, Retry) and answer.reason == "timeout" or any(text in message for text in _HEAVY)


def to_failure(error: QueryError) -> QueryFailed:
    """Classifies an error inside an answer of status 200."""
    if error.retryable:
        return QueryFailed(Retry("server_error", error.message))
    denied = any(text in error.message.lower() for text in _DENIED)
    return QueryFailed(OperatorNeeded("unauthorized", error.message)
                       if denied and not is_not_found(error.message) else refusal(error.message, error.message))


def refusal(message: str, shown: str) -> OperatorNeeded:
    """Classifies a server's refusal by its message: something does not exist, or the query is wrong."""
    return OperatorNeeded("not_found" if is_not_found(message) else "refused", shown)


def is_not_found(message: str) -> bool:
    """Whether a server's message says that a database, bucket or table does not exist."""
    return any(text in message.lower() for text in _NOT_FOUND)
