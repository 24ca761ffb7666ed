"""Asks the Flight service of an InfluxDB 3: Arrow Flight, which is gRPC over HTTP/2.

Sources: influxdb3-python, `query/query_api.py` (DoGet with a ticket of JSON, `authorization` in the metadata, options
of the gRPC channel); influxdata/influxdb, `core/service_grpc_flight/src/lib.rs` (what fails with which gRPC status; an
empty batch every 5 s while a query has nothing to send) and `core/authz/src/lib.rs` (Bearer, Token and Basic); gRPC
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
from pipeline.config.schema import InfluxConfig
from pipeline.config.source_checks import HEADER_VALUE
from pipeline.errors import PipelineError
from pipeline.printable import excerpt
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.influxdb.flavour import Version
from stages.influxdb.session import Credentials
from stages.languages.arrow import ArrowTaker
from stages.languages.language import QueryRequest
from stages.query.channel import Failed, refusal

#: Record batches of one answer that wait to be taken; InfluxDB's have 2 MB at most, unless one row is larger.
QUEUED_BATCHES = 4
#: Largest record batch, bytes: a page of InfluxDB's has many.
MAX_BATCH_BYTES = 256_000_000
#: The longest silence, so many times, is the longest that a call may take in all: it ends one that nobody waits for any
#: more, as nothing else does before its first answer.
CALL_FACTOR = 10
#: After a connection that failed, the next may be tried after so long, milliseconds: our own backoff is the longer one.
RECONNECT_MILLISECONDS = 500
#: What pyarrow puts around a server's words.
_BEFORE = re.compile(r".*?, with message: |Flight RPC failed with message: ", re.DOTALL)
_AFTER = re.compile(r"\. (?:gRPC client debug context: |Detail: ).*", re.DOTALL)


class Flight:
    """One gRPC channel for each server. See `Channel`."""

    def __init__(self, config: InfluxConfig, gzip: bool) -> None:
        """`gzip`: answers may be compressed. Raises PipelineError when a token or certificate file can't be used."""
        # gRPC's own log tells less than the errors do, and goes to standard error.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        self.timeout = config.connect_timeout_ms / 1000, config.read_timeout_ms / 1000
        self._config = config
        self._credentials = Credentials(config)
        self._tls = _tls_options(config)
        self._options: list[tuple[str, str | int]] = [
            ("grpc.secondary_user_agent", f"iggy-influxdb-pipeline/{__version__}"),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MILLISECONDS),
            ("grpc.max_receive_message_length", MAX_BATCH_BYTES),
            # A proxy must not be guessed from the environment.
            ("grpc.http_proxy", config.proxy) if config.proxy else ("grpc.enable_http_proxy", 0)]
        if not gzip:
            # Of identity, deflate and gzip, only the first.
            self._options.append(("grpc.compression_enabled_algorithms_bitset", 1))
        self._lock = threading.Lock()
        self._clients: dict[str, flight.FlightClient] = {}

    def reload(self) -> bool:
        """See `Channel`."""
        return self._credentials.reload()

    def listing(self) -> ArrowTaker:
        """See `Channel`."""
        return ArrowTaker(ordered=False)

    def ask(self, url: str, asked: QueryRequest, version: Version) -> "FlightReply":
        """See `Channel`."""
        silence = self.timeout[1]
        options = flight.FlightCallOptions(timeout=silence * CALL_FACTOR, headers=self._headers())
        return FlightReply(self._client(url), flight.Ticket(asked.body), options, url, silence)

    def _client(self, url: str) -> "flight.FlightClient":
        with self._lock:
            if url not in self._clients:
                connect = round(self.timeout[0] * 1000)
                self._clients[url] = flight.FlightClient(
                    location(url), generic_options=[*self._options, ("grpc.min_reconnect_backoff_ms", connect)],
                    **(self._tls if url.startswith("https:") else {}))
            return self._clients[url]

    def _headers(self) -> list[tuple[bytes, bytes]]:
        """Metadata of each call. Raises Failed for a token that can't be sent."""
        headers = {**self._config.headers, **self._credentials.header("v3")}
        if "Authorization" not in headers and self._config.username:
            words = f"{self._config.username}:{self._config.password}"
            headers["Authorization"] = "Basic " + base64.b64encode(words.encode()).decode()
        if not HEADER_VALUE.fullmatch(headers.get("Authorization", "")):
            raise Failed(OperatorNeeded("unauthorized", "the token has a character in it that no header may have"))
        return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


class FlightReply:
    """An answer to DoGet; its pieces are record batches, the first one an empty one. See `Reply`.

    A thread of its own receives, since only so a wait can be given up: a call ends by itself only at its deadline.
    """

    def __init__(self, client: "flight.FlightClient", ticket: "flight.Ticket", options: "flight.FlightCallOptions",
                 url: str, silence: float) -> None:
        """Returns when the schema is there. `silence`: longest wait for it, and for each batch, in seconds."""
        self._url = url
        self._silence = silence
        #: Batches; then None or what went wrong.
        self._received: SimpleQueue[Any] = SimpleQueue()
        self._room = threading.Semaphore(QUEUED_BATCHES)
        self._left = False
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
        self._leave()

    def _next(self) -> "pa.RecordBatch | None":
        """The next batch; None at the end. Raises Failed."""
        try:
            found = self._received.get(timeout=self._silence)
        except Empty:
            self._leave()
            raise Failed(Retry("timeout", f"{self._url}: nothing came for {self._silence:g} s")) from None
        self._room.release()
        if isinstance(found, Exception):
            raise Failed(meaning(found, self._url)) from None
        return found

    def _leave(self) -> None:
        """Cancels the call, unless it has ended."""
        self._left = True
        self._room.release()
        if self._reader is not None:
            self._reader.cancel()

    def _receive(self, client: "flight.FlightClient", ticket: "flight.Ticket",
                 options: "flight.FlightCallOptions") -> None:
        try:
            self._reader = reader = client.do_get(ticket, options)
            self._give(pa.RecordBatch.from_pylist([], schema=reader.schema))
            while not self._left:
                batch = reader.read_chunk().data
                if batch is not None:
                    self._give(batch)
            reader.cancel()
        except StopIteration:
            self._received.put(None)
        except Exception as error:
            self._received.put(error)

    def _give(self, batch: "pa.RecordBatch") -> None:
        self._room.acquire()
        self._received.put(batch)


def location(url: str) -> str:
    """Where gRPC finds what is at an http(s) URL."""
    parts = urlsplit(url)
    scheme, port = ("grpc+tls", 443) if parts.scheme == "https" else ("grpc+tcp", 80)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{scheme}://{host}:{parts.port or port}"


def meaning(error: Exception, url: str) -> Retry | OperatorNeeded:
    """What a failed call means, as an HTTP status would; `pyarrow` tells some gRPC statuses only by its words."""
    text = str(error)
    words = _AFTER.sub("", _BEFORE.sub("", text, 1))
    shown = f"{url} answered: {excerpt(words)}"
    match error:
        case flight.FlightUnauthenticatedError() | flight.FlightUnauthorizedError():
            return OperatorNeeded("unauthorized", f"{url} answered: unauthorized: {excerpt(words)}")
        case flight.FlightUnavailableError():
            return _unavailable(words, url)
        case flight.FlightTimedOutError():
            return Retry("timeout", shown)
        case pa.ArrowKeyError():
            return OperatorNeeded("not_found", shown)
        case pa.ArrowNotImplementedError():
            return OperatorNeeded("refused", f"{shown}; is this the address of InfluxDB 3's Flight service?")
        case pa.ArrowInvalid() if "resource exhausted error" in text:
            return Retry("rate_limited", shown)
        case pa.ArrowInvalid() if _AFTER.search(text):
            return refusal(words, shown)
        case _ if "database not found" in words:  # an internal error to InfluxDB 3
            return OperatorNeeded("not_found", shown)
    return Retry("server_error", shown)


def _unavailable(words: str, url: str) -> Retry | OperatorNeeded:
    reason = excerpt(words.rpartition("last error: ")[2])
    if "handshake failed" in words.lower() or "not in peer certificate" in words:
        return OperatorNeeded("refused", f"{url}: TLS: {reason}; correct ca_file, or the certificate")
    if words.startswith(("failed to connect", "errors resolving", "empty address list")) or "closed" in words.lower():
        return Retry("no_connection", f"{url}: no connection ({reason})")
    return Retry("unavailable", f"{url} answered: unavailable: {reason}")


def _tls_options(config: InfluxConfig) -> dict[str, Any]:
    """What the files say. Raises PipelineError when one of them is of no use."""
    options: dict[str, Any] = {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    where = "ca_file"
    try:
        if config.insecure_skip_verify:
            options["disable_server_verification"] = True
        else:
            # The same as over HTTP.
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
        raise PipelineError(f"influxdb.{where} {path}: can't be used ({error.strerror or error}); give PEM") from None
    return options
