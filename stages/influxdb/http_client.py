"""An HTTP client whose every exchange ends: it has one deadline from the first byte to the last, and limits on bytes.

`HttpClient.exchange` returns whole answers, `HttpClient.open` gives them piece by piece. Whatever goes wrong is an
HttpFault; `stages.influxdb.failures` maps its kind to an answer and advice.
"""

import ssl
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType

from msgspec import Struct

from pipeline.config.connection_schema import ConnectionConfig
from stages.influxdb.deadline import Deadline, Limits
from stages.influxdb.http_answer import TLS_EXPECTED, AnswerHead, AnswerReader, HttpFault
from stages.influxdb.http_connection import Connection, connect, speaks_tls
from stages.influxdb.http_request import headers_of, request_head, split_url, target_of
from stages.influxdb.tls import tls_context


class Reply(Struct, frozen=True):
    """A whole answer."""

    status: int
    #: By name in lower case.
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Sends requests to the servers of one configuration. Thread-safe: each thread has connections of its own."""

    def __init__(self, config: ConnectionConfig) -> None:
        """TLS files, proxy, user and headers are those of `config`; the files are read at the first exchange."""
        self._config = config
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._local = threading.local()

    def exchange(self, method: str, url: str, data: bytes, headers: Mapping[str, str], limits: Limits) -> Reply:
        """Sends a request and returns the whole answer. Raises HttpFault; the connection is closed then."""
        with self.open(method, url, data, headers, limits) as reply:
            return Reply(reply.status, reply.headers, b"".join(reply))

    def open(self, method: str, url: str, data: bytes, headers: Mapping[str, str], limits: Limits) -> "OpenReply":
        """Sends a request, and reads the answer's status and headers. Raises HttpFault."""
        deadline, parts = Deadline(limits), split_url(url)
        all_headers = headers_of(parts, self._config, headers)
        request = request_head(method, target_of(parts, self._config), all_headers, len(data)) + data
        pool: dict[str, Connection] = self._local.__dict__.setdefault("connections", {})
        key = f"{parts.scheme}://{parts.netloc}"
        kept, reader = _usable(pool.pop(key, None)), None
        connection = kept
        try:
            if connection is None:
                context = self._tls() if parts.scheme == "https" else None
                connection = connect(parts, self._config.proxy, context, deadline.connecting())
            reader = _send(connection, request, deadline, limits)
            head = reader.head()
        except BaseException as error:
            # The TLS files may be corrected while we run: they are read again for the next connection.
            self._context = None
            if connection is not None:
                connection.close()
            closed_at_once = isinstance(error, HttpFault) and error.kind == "broken" and reader and not reader.received
            if closed_at_once and kept is None and parts.scheme == "http" and not self._config.proxy:
                if speaks_tls(parts):
                    raise HttpFault("tls_expected", TLS_EXPECTED) from None
            raise
        return OpenReply(connection, reader, head, deadline, pool, key, method == "HEAD")

    def disconnect(self) -> None:
        """Closes this thread's connections, so that the next request resolves the name and connects again."""
        pool: dict[str, Connection] = self._local.__dict__.pop("connections", {})
        for connection in pool.values():
            connection.close()

    def _tls(self) -> ssl.SSLContext:
        """The context for TLS, made when it is needed first. Raises HttpFault."""
        with self._lock:
            if self._context is None:
                self._context = tls_context(self._config)
            return self._context


class OpenReply:
    """An answer whose status and headers were read. Iterate for the pieces of its body; end it by `with` or `close`."""

    def __init__(self, connection: Connection, reader: AnswerReader, head: AnswerHead, deadline: Deadline,
                 pool: dict[str, Connection], key: str, is_bodyless: bool) -> None:
        """`pool` gets the connection back, as `key`. `is_bodyless`: the answer is one to HEAD."""
        self.status = head.status
        #: By name in lower case.
        self.headers: Mapping[str, str] = head.headers
        self._connection = connection
        self._reader = reader
        self._head = head
        self._deadline = deadline
        self._pool, self._key = pool, key
        self._pieces = reader.body(head, is_bodyless)

    def __iter__(self) -> Iterator[bytes]:
        """The pieces of the body, decompressed. Raises HttpFault."""
        return self._pieces

    def renew(self) -> None:
        """Starts the deadline again: for an answer of unknown length, of which something has come."""
        self._deadline.renew()

    def __enter__(self) -> "OpenReply":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Keeps the connection for the next request if the answer was read to its end; else closes it."""
        connection = self._head.headers.get("connection", "").lower()
        persistent = "close" not in connection and (self._head.persistent_by_default or "keep-alive" in connection)
        if self._reader.complete and persistent and not self._reader.leftover and self._is_framed():
            self._connection.touch()
            self._pool[self._key] = self._connection
        else:
            self._connection.close()

    def _is_framed(self) -> bool:
        """Whether the body's end is known otherwise than by the connection's."""
        return self.status in (204, 304) or bool({"content-length", "transfer-encoding"} & self.headers.keys())


def _usable(connection: Connection | None) -> Connection | None:
    """A kept connection, unless it is stale: then it is closed."""
    if connection is not None and connection.is_stale():
        connection.close()
        return None
    return connection


def _send(connection: Connection, request: bytes, deadline: Deadline, limits: Limits) -> AnswerReader:
    """Sends a request. Returns the reader of its answer. Raises HttpFault."""
    unsent = connection.send(request, deadline)
    return AnswerReader(lambda max_bytes: connection.receive(max_bytes, deadline, unsent), limits.max_bytes)
