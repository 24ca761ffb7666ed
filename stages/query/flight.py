"""The Arrow Flight transport (gRPC over HTTP/2) of queries to InfluxDB 3.

Sources: influxdb3-python, `query/query_api.py` (DoGet with a ticket of JSON, `authorization` in the metadata, options
of the gRPC channel); influxdata/influxdb, `core/service_grpc_flight/src/lib.rs` (gRPC status of each error; an
empty batch every 5 s while a query has no rows yet) and `core/authz/src/lib.rs` (Bearer, Token and Basic); gRPC
core, `include/grpc/impl/channel_arg_names.h`.
"""

import base64
import os
import re
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import flight
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from pipeline import __version__
from pipeline.config.connection_schema import ConnectionConfig
from pipeline.config.source_checks import HEADER_VALUE
from pipeline.errors import PipelineError
from pipeline.printable import excerpt
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.influxdb.credentials import Credentials
from stages.influxdb.flavour import Version
from stages.languages.arrow import ArrowAnswerReader
from stages.languages.language import QueryRequest
from stages.query.transport import QueryFailed, refusal

#: Record batches of one answer that may be queued; InfluxDB's have at most 2 MB, unless one row is larger.
QUEUED_BATCHES = 4
#: Largest record batch, bytes.
MAX_BATCH_BYTES = 256_000_000
#: Deadline of a whole call, as a multiple of `read_timeout_ms`. It ends abandoned calls, since a call can be cancelled
#: only after its first answer.
CALL_FACTOR = 10
#: gRPC's pause after a failed connection, milliseconds; shorter than our own backoff.
RECONNECT_MILLISECONDS = 500
#: What pyarrow puts around a server's message.
_BEFORE = re.compile(r".*?, with message: |Flight RPC failed with message: ", re.DOTALL)
_AFTER = re.compile(r"\. (?:gRPC client debug context: |Detail: ).*", re.DOTALL)


class FlightTransport:
    """Queries over Arrow Flight; one gRPC channel for each server."""

    def __init__(self, config: ConnectionConfig) -> None:
        """With `config.gzip` answers may be compressed. Raises PipelineError if a file cannot be used."""
        # gRPC's own log has less than the errors, and goes to standard error.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        self.timeout = config.connect_timeout_ms / 1000, config.read_timeout_ms / 1000
        self._config = config
        self._credentials = Credentials(config)
        self._tls = _tls_options(config)
        self._options: list[tuple[str, str | int]] = [
            ("grpc.secondary_user_agent", f"iggy-influxdb-pipeline/{__version__}"),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MILLISECONDS),
            ("grpc.max_receive_message_length", MAX_BATCH_BYTES),
            # gRPC would otherwise use a proxy from the environment.
            ("grpc.http_proxy", config.proxy) if config.proxy else ("grpc.enable_http_proxy", 0)]
        if not config.gzip:
            # Bits: identity, deflate, gzip.
            self._options.append(("grpc.compression_enabled_algorithms_bitset", 1))
        self._lock = threading.Lock()
        self._clients: dict[str, flight.FlightClient] = {}

    def reload(self) -> bool:
        return self._credentials.reload()

    def list_reader(self) -> ArrowAnswerReader:
        return ArrowAnswerReader(ordered=False)

    def ask(self, url: str, request: QueryRequest, version: Version) -> "FlightReply":
        silence = self.timeout[1]
        options = flight.FlightCallOptions(timeout=silence * CALL_FACTOR, headers=self._headers())
        return FlightReply(self._client(url), flight.Ticket(request.body), options, url, silence)

    def _client(self, url: str) -> "flight.FlightClient":
        with self._lock:
            if url not in self._clients:
                connect = round(self.timeout[0] * 1000)
                self._clients[url] = flight.FlightClient(
                    grpc_location(url), generic_options=[*self._options, ("grpc.min_reconnect_backoff_ms", connect)],
                    **(self._tls if url.startswith("https:") else {}))
            return self._clients[url]

    def _headers(self) -> list[tuple[bytes, bytes]]:
        """Metadata of each call. Raises QueryFailed for a token that cannot be sent."""
        headers = {**self._config.headers, **self._credentials.header("v3")}
        if "Authorization" not in headers and self._config.username:
            credentials = f"{self._config.username}:{self._config.password}"
            headers["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
        if not HEADER_VALUE.fullmatch(headers.get("Authorization", "")):
            raise QueryFailed(OperatorNeeded("unauthorized", "the token has a character that no HTTP header may have"))
        return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


class FlightReply:
    """An answer to DoGet; its pieces are record batches, of which the first is empty.

    A separate thread receives, because a read cannot be interrupted: a call ends only at its deadline.
    """

    #: Not needed: gRPC reports how a call ended.
    is_compressed = False

    def __init__(self, client: "flight.FlightClient", ticket: "flight.Ticket", options: "flight.FlightCallOptions",
                 url: str, silence: float) -> None:
        """Returns once the schema has arrived. `silence`: longest wait for it, and for each batch, in seconds."""
        self._url = url
        self._silence = silence
        #: Batches; then None or an exception.
        self._received: SimpleQueue[Any] = SimpleQueue()
        self._room = threading.Semaphore(QUEUED_BATCHES)
        self._closed = False
        self._reader: flight.FlightStreamReader | None = None
        threading.Thread(target=self._receive, args=(client, ticket, options), daemon=True, name="flight").start()
        self._first = self._next()

    def __iter__(self) -> Iterator["pa.RecordBatch"]:
        batch: pa.RecordBatch | None = self._first
        while batch is not None:
            yield batch
            batch = self._next()

    def __enter__(self) -> "FlightReply":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._close()

    def _next(self) -> "pa.RecordBatch | None":
        """The next batch; None at the end. Raises QueryFailed."""
        try:
            found = self._received.get(timeout=self._silence)
        except Empty:
            self._close()
            raise QueryFailed(Retry("timeout", f"{self._url}: no data for {self._silence:g} s")) from None
        self._room.release()
        if isinstance(found, Exception):
            raise QueryFailed(classify_error(found, self._url)) from None
        return found

    def _close(self) -> None:
        """Cancels the call, unless it has ended."""
        self._closed = True
        self._room.release()
        if self._reader is not None:
            self._reader.cancel()

    def _receive(self, client: "flight.FlightClient", ticket: "flight.Ticket",
                 options: "flight.FlightCallOptions") -> None:
        try:
            self._reader = reader = client.do_get(ticket, options)
            self._queue(pa.RecordBatch.from_pylist([], schema=reader.schema))
            while not self._closed:
                batch = reader.read_chunk().data
                if batch is not None:
                    self._queue(batch)
            reader.cancel()
        except StopIteration:
            self._received.put(None)
        except Exception as error:
            self._received.put(error)

    def _queue(self, batch: "pa.RecordBatch") -> None:
        self._room.acquire()
        self._received.put(batch)


def grpc_location(url: str) -> str:
    """The gRPC location of an http(s) URL."""
    parts = urlsplit(url)
    scheme, port = ("grpc+tls", 443) if parts.scheme == "https" else ("grpc+tcp", 80)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{scheme}://{host}:{parts.port or port}"


def classify_error(error: Exception, url: str) -> Retry | OperatorNeeded:
    """Classifies a failed call, like an HTTP status. `pyarrow` reports some gRPC statuses only in the message."""
    text = str(error)
    message = _AFTER.sub("", _BEFORE.sub("", text, 1))
    shown = f"{url} answered: {excerpt(message)}"
    match error:
        case flight.FlightUnauthenticatedError() | flight.FlightUnauthorizedError():
            return OperatorNeeded("unauthorized", f"{url} answered: unauthorized: {excerpt(message)}")
        case flight.FlightUnavailableError():
            return _unavailable(message, url)
        case flight.FlightTimedOutError():
            return Retry("timeout", shown)
        case pa.ArrowKeyError():
            return OperatorNeeded("not_found", shown)
        case pa.ArrowNotImplementedError():
            return OperatorNeeded("refused", f"{shown}; is this the address of InfluxDB 3's Flight service?")
        case pa.ArrowInvalid() if "resource exhausted error" in text:
            return Retry("rate_limited", shown)
        case pa.ArrowInvalid() if _AFTER.search(text):
            return refusal(message, shown)
        case _ if "database not found" in message:  # InfluxDB 3 reports it as an internal error
            return OperatorNeeded("not_found", shown)
    return Retry("server_error", shown)


def _unavailable(message: str, url: str) -> Retry | OperatorNeeded:
    reason = excerpt(message.rpartition("last error: ")[2])
    if "handshake failed" in message.lower() or "not in peer certificate" in message:
        return OperatorNeeded("refused", f"{url}: TLS: {reason}; correct ca_file, or the certificate")
    if (message.startswith(("failed to connect", "errors resolving", "empty address list"))
            or "closed" in message.lower()):
        return Retry("no_connection", f"{url}: no connection ({reason})")
    return Retry("unavailable", f"{url} answered: unavailable: {reason}")


def _tls_options(config: ConnectionConfig) -> dict[str, Any]:
    """TLS options with the files' contents. Raises PipelineError if a file cannot be used."""
    options: dict[str, Any] = {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    where = "ca_file"
    try:
        if config.insecure_skip_verify:
            options["disable_server_verification"] = True
        else:
            # The same roots as over HTTP.
            roots = config.ca_file or DEFAULT_CA_BUNDLE_PATH
            context.load_verify_locations(roots)
            options["tls_root_certs"] = Path(roots).read_bytes()
        if config.client_cert_file:
            where = "client_cert_file"
            key = config.client_key_file or config.client_cert_file
            context.load_cert_chain(config.client_cert_file, key)
            options["cert_chain"] = Path(config.client_cert_file).read_bytes()
            options["private_key"] = Path(key).read_bytes()
    except OSError as error:  # ssl.SSLError, too
        path = getattr(config, where)
        raise PipelineError(f"influxdb.{where} {path}: cannot be used ({error.strerror or error}); give PEM") from None
    return options
