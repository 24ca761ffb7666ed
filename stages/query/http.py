"""The HTTP transport of queries."""

import time
from collections.abc import Iterator
from types import TracebackType

import msgspec

from pipeline.config.connection_schema import ConnectionConfig
from stages.influxdb.answers import Accepted, OperatorNeeded, Retry, TooLarge
from stages.influxdb.classify import classify
from stages.influxdb.credentials import Credentials
from stages.influxdb.deadline import Limits
from stages.influxdb.failures import answered_by, failure_of
from stages.influxdb.flavour import Flavour, Version, identify
from stages.influxdb.http_answer import HttpFault
from stages.influxdb.http_client import HttpClient, OpenReply
from stages.languages.language import QueryAnswer, QueryRequest
from stages.query.transport import MAX_ANSWER_BYTES, QueryFailed, is_not_found

#: Deadline of a whole answer, as a multiple of `read_timeout_ms`.
ANSWER_FACTOR = 10
#: Bytes that are read of an error.
MAX_ERROR_BYTES = 100_000


class HttpTransport:
    """Queries over HTTP; each thread has its own connections."""

    def __init__(self, config: ConnectionConfig) -> None:
        """With `config.gzip` it asks for compressed answers. Raises PipelineError if the token file cannot be read."""
        self.timeout = config.connect_timeout_ms / 1000, config.read_timeout_ms / 1000
        self._config = config
        self._credentials = Credentials(config)
        self._client = HttpClient(config)

    def reload(self) -> bool:
        return self._credentials.reload()

    def list_reader(self) -> "WholeAnswerReader":
        return WholeAnswerReader()

    def ask(self, url: str, request: QueryRequest, version: Version) -> "HttpReply":
        headers = {"Content-Type": request.content_type, "Accept": request.accept,
                   "Accept-Encoding": "gzip" if self._config.gzip or request.compressed else "identity",
                   **self._credentials.header(version)}
        connect, silence = self.timeout
        limits = Limits(connect + silence * ANSWER_FACTOR, silence, connect, MAX_ANSWER_BYTES)
        try:
            reply = self._client.open("POST", url.rstrip("/") + request.path, request.body, headers, limits)
            if reply.status == 200:
                return HttpReply(reply, url)
            with reply:
                content = _beginning(reply)
        except HttpFault as fault:
            self._client.disconnect()
            raise QueryFailed(failure_of(fault, url)) from None
        raise QueryFailed(_failure(url, reply, content))

    def flavour(self, url: str) -> Flavour | None:
        """The server at `url`; None if it cannot be reached."""
        connect, silence = self.timeout
        try:
            return identify(HttpClient(self._config), url, self._credentials.header("v2"),
                       Limits(connect + silence, silence, connect))
        except HttpFault:
            return None


class HttpReply:
    """An answer of status 200; its pieces are bytes."""

    def __init__(self, reply: OpenReply, url: str) -> None:
        self._reply = reply
        self._url = url
        self.is_compressed = reply.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._reply
        except HttpFault as fault:
            raise QueryFailed(failure_of(fault, self._url)) from None

    def __enter__(self) -> "HttpReply":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._reply.close()


class WholeAnswerReader:
    """Collects the bytes of a short answer without parsing them."""

    def __init__(self) -> None:
        self.rows = 0
        self.size = 0
        self._pieces: list[bytes] = []

    def feed(self, piece: bytes) -> None:
        self.size += len(piece)
        self._pieces.append(piece)

    def finish(self, complete: bool) -> QueryAnswer:
        return QueryAnswer(b"".join(self._pieces), self.rows)


def _failure(url: str, reply: OpenReply, content: bytes) -> Retry | OperatorNeeded:
    """The failure of a query whose answer has another status than 200 and starts with `content`."""
    answer = classify(reply.status, reply.headers, content, time.time())
    message = f"{reply.status}" if isinstance(answer, Accepted) else "; ".join(answer.message.split("\n"))
    # InfluxDB 3 answers 500 for an unknown column in the query, and 400 in plain text for an unknown table.
    about_query = content.startswith(b"Schema error") or (
        reply.status in (400, 422) and isinstance(answer, OperatorNeeded) and answer.reason == "refused")
    if isinstance(answer, Retry | OperatorNeeded) and not about_query:
        return answered_by(msgspec.structs.replace(answer, message=message), url)
    found = isinstance(answer, TooLarge) or not is_not_found(message)
    return answered_by(OperatorNeeded("refused" if found else "not_found", message), url)


def _beginning(reply: OpenReply) -> bytes:
    """The first bytes of an error answer, which are enough for its message."""
    content = b""
    for piece in reply:
        content += piece
        if len(content) >= MAX_ERROR_BYTES:
            break
    return content[:MAX_ERROR_BYTES]
