"""An HTTP client whose every exchange ends: it has one deadline from the first byte to the last, and limits on bytes.

`HttpClient.exchange` is for answers that are wanted whole, `HttpClient.open` for those taken piece by piece. What goes
wrong is an HttpFault, whose kind and text `stages.influxdb.failures` turns into what to do.
"""

import base64
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from urllib.parse import SplitResult, quote, unquote, urlsplit

from msgspec import Struct
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from pipeline.config.schema import InfluxConfig
from stages.influxdb.http_answer import TLS_EXPECTED, AnswerHead, AnswerReader, FaultKind, HttpFault

#: A connection that was idle for so long is not used again, seconds: firewalls and proxies forget it without a word.
MAX_IDLE_SECONDS = 60.0
#: Largest answer of a proxy to CONNECT, bytes.
_MAX_PROXY_BYTES = 65_536
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
#: What OpenSSL says where the other side does not speak TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG",
           "RECORD_LAYER_FAILURE", "HTTPS_PROXY_REQUEST")
#: What it says where the server wants a certificate of ours, or does not take the one it got.
_CLIENT_CERTIFICATE = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "HANDSHAKE_FAILURE", "UNKNOWN_CA", "ACCESS_DENIED",
                       "CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED")
#: X509_V_ERR_: CERT_NOT_YET_VALID, CERT_HAS_EXPIRED; HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH.
_DATE_CODES, _NAME_CODES = (9, 10), (62, 64)


#: How long is tried whether a server speaks TLS, seconds.
TLS_PROBE_SECONDS = 2.0


class Reply(Struct, frozen=True):
    """A whole answer."""

    status: int
    #: By name in lower case.
    headers: Mapping[str, str]
    body: bytes


class Limits(Struct, frozen=True):
    """What an exchange may take. Seconds and bytes."""

    #: From the beginning to the last byte of the answer, or of its head where pieces are taken one by one.
    seconds: float
    #: Longest wait for the next bytes; no limit of its own when 0.
    silence: float = 0.0
    #: To connect, TLS and a proxy included; at most `seconds`. No limit of its own when 0.
    connect: float = 0.0
    #: Of the answer's body, as sent and decompressed each.
    max_bytes: int = 1_000_000


class _Deadline:
    """When an exchange ends."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ends = time.monotonic() + limits.seconds

    def renew(self) -> None:
        """The exchange has `seconds` once more."""
        self._ends = time.monotonic() + self._limits.seconds

    def left(self) -> float:
        """Seconds for the next step, more than 0. Raises HttpFault when there are none."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise HttpFault("timeout", f"there was no complete answer within {self._limits.seconds:g} s")
        return min(left, self._limits.silence or left)

    def connecting(self) -> "_Deadline":
        """The one for connecting."""
        seconds = min(self._limits.connect or self._limits.seconds, self._limits.seconds)
        return _Deadline(Limits(seconds))


class _Connection:
    """A socket that is connected, with TLS and through a proxy where that is wanted."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.used = time.monotonic()

    def stale(self) -> bool:
        """Whether the server has closed it, or sent what nobody asked for; or whether it was idle for too long."""
        if time.monotonic() - self.used > MAX_IDLE_SECONDS:
            return True
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        return bool(poller.poll(0))

    def close(self) -> None:
        """Ends it."""
        self.sock.close()


class HttpClient:
    """Speaks to the servers of one configuration. Thread-safe: each thread has connections of its own."""

    def __init__(self, config: InfluxConfig) -> None:
        """TLS files, proxy, user and headers are those of `config`; nothing is read before the first exchange."""
        self._config = config
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._local = threading.local()

    def exchange(self, method: str, url: str, data: bytes, headers: Mapping[str, str], limits: Limits) -> Reply:
        """Sends a request and takes the whole answer. Raises HttpFault; the connection is closed then."""
        with self.open(method, url, data, headers, limits) as reply:
            return Reply(reply.status, reply.headers, b"".join(reply))

    def open(self, method: str, url: str, data: bytes, headers: Mapping[str, str], limits: Limits) -> "OpenReply":
        """Sends a request, and takes the answer's head. Raises HttpFault."""
        deadline = _Deadline(limits)
        parts, target = self._target(url)
        request = _head(method, target, self._headers(parts, headers), len(data)) + data
        kept: dict[str, _Connection] = self._local.__dict__.setdefault("connections", {})
        key = f"{parts.scheme}://{parts.netloc}"
        connection = kept.pop(key, None)
        if connection is not None and connection.stale():
            connection.close()
            connection = None
        is_new, reader = connection is None, None
        try:
            connection = connection or self._connect(parts, deadline.connecting())
            sock = connection.sock
            unsent = _send(sock, request, deadline)
            reader = AnswerReader(lambda most: _receive(sock, most, deadline, unsent), limits.max_bytes)
            head = reader.head()
        except BaseException as error:
            # Files that are corrected while we run are read again.
            self._context = None
            if connection is not None:
                connection.close()
            if is_new and reader and not reader.received and isinstance(error, HttpFault) and error.kind == "broken":
                self._check_for_tls(parts)
            raise
        return OpenReply(connection, reader, head, deadline, kept, key, method == "HEAD")

    def disconnect(self) -> None:
        """Closes this thread's connections: the next request is to find its way, and its server, anew."""
        kept: dict[str, _Connection] = self._local.__dict__.pop("connections", {})
        for connection in kept.values():
            connection.close()

    def _target(self, url: str) -> tuple[SplitResult, str]:
        """The URL's parts, and what to ask for: the path, or all of it for a proxy that is to pass it on."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise HttpFault("url", f"it is no URL: {error}") from None
        if parts.scheme not in ("http", "https") or not host or port == 0:
            raise HttpFault("url", "it is no URL of a server")
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
        return parts, f"http://{_netloc(parts)}{path}" if self._config.proxy and parts.scheme == "http" else path

    def _headers(self, parts: SplitResult, asked: Mapping[str, str]) -> dict[str, str]:
        """All headers: the configured ones take the place of ours, but for an Authorization that is `asked`."""
        config, headers = self._config, {"host": _netloc(parts), "accept-encoding": "identity"}
        if config.username and not (config.token or config.token_file):
            headers["authorization"] = _basic(config.username, config.password)
        if config.proxy and parts.scheme == "http":
            headers |= _proxy_headers(_proxy_parts(config.proxy))
        asked = {name.lower(): value for name, value in asked.items()}
        headers |= asked | {name.lower(): value for name, value in config.headers.items()}
        if "authorization" in asked:
            headers["authorization"] = asked["authorization"]
        return {name.title(): value for name, value in headers.items()}

    def _connect(self, parts: SplitResult, deadline: _Deadline) -> _Connection:
        """Raises HttpFault."""
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        context = self._tls() if parts.scheme == "https" else None
        if not self._config.proxy:
            sock = _dial(host, port, deadline)
        else:
            proxy = _proxy_parts(self._config.proxy)
            try:
                sock = _dial(proxy.hostname or "", proxy.port or 8080, deadline)
            except HttpFault as fault:
                raise HttpFault("proxy", f"the proxy {proxy.hostname}:{proxy.port or 8080}: {fault}") from None
        try:
            if self._config.proxy and context:
                _tunnel(sock, f"{_bracketed(host)}:{port}", _proxy_parts(self._config.proxy), deadline)
            if context:
                sock = _handshake(sock, context, host, deadline)
        except BaseException:
            sock.close()
            raise
        return _Connection(sock)

    def _check_for_tls(self, parts: SplitResult) -> None:
        """Raises HttpFault if a server that closes connections without an answer wants to be spoken to in TLS.

        One that does says so at once; another may wait for more of a request, for as long as it is let.
        """
        if parts.scheme == "https" or self._config.proxy:
            return
        deadline = _Deadline(Limits(TLS_PROBE_SECONDS))
        try:
            with _dial(parts.hostname or "", parts.port or 80, deadline) as sock:
                _handshake(sock, _no_questions(), parts.hostname or "", deadline).close()
        except HttpFault:
            return
        raise HttpFault("tls_expected", TLS_EXPECTED)

    def _tls(self) -> ssl.SSLContext:
        """The context for TLS, made when it is needed first. Raises HttpFault."""
        with self._lock:
            if self._context is None:
                self._context = tls_context(self._config)
            return self._context


class OpenReply:
    """An answer of which the head is there. Its pieces come by iterating; leave it with `with` or `close`."""

    def __init__(self, connection: _Connection, reader: AnswerReader, head: AnswerHead, deadline: _Deadline,
                 kept: dict[str, _Connection], key: str, has_none: bool) -> None:
        self.status = head.status
        #: By name in lower case.
        self.headers: Mapping[str, str] = head.headers
        self._connection = connection
        self._reader = reader
        self._head = head
        self._deadline = deadline
        self._kept, self._key = kept, key
        self._pieces = reader.body(head, has_none)

    def __iter__(self) -> Iterator[bytes]:
        """The pieces of the body, decompressed. Raises HttpFault."""
        return self._pieces

    def renew(self) -> None:
        """Grants the time anew: for an answer that is as long as it is, as long as something comes."""
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
            self._connection.used = time.monotonic()
            self._kept[self._key] = self._connection
        else:
            self._connection.close()

    def _is_framed(self) -> bool:
        """Whether the body's end is known otherwise than by the connection's."""
        return self.status in (204, 304) or bool({"content-length", "transfer-encoding"} & self.headers.keys())


def tls_context(config: InfluxConfig) -> ssl.SSLContext:
    """The client's side of TLS. Raises HttpFault (`tls_files`) that says which file can't be used."""
    context = _no_questions() if config.insecure_skip_verify else trusting(config.ca_file)
    if config.client_cert_file:
        try:
            # A key that is encrypted would be asked for on the terminal.
            context.load_cert_chain(config.client_cert_file, config.client_key_file or None, password=lambda: "-")
        except (OSError, ValueError) as error:
            why = _file_error(error) or "there is no certificate with its own, unencrypted key in PEM form"
            raise HttpFault("tls_files", f"client_cert_file {config.client_cert_file}"
                            + f" with client_key_file {config.client_key_file}" * bool(config.client_key_file)
                            + f" can't be used: {why}") from None
    return context


def trusting(ca_file: str) -> ssl.SSLContext:
    """A context that takes certificates of the authorities in `ca_file`, or of those that browsers trust (certifi).

    Raises HttpFault when the file can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(ca_file or DEFAULT_CA_BUNDLE_PATH)
    except (OSError, ValueError) as error:
        raise HttpFault("tls_files", f"ca_file {ca_file} can't be used: "
                        f"{_file_error(error) or 'it holds no certificate in PEM form'}") from None
    return context


def _no_questions() -> ssl.SSLContext:
    """A context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _file_error(error: Exception) -> str:
    """Why a file can't be read; "" where it can, and is not what it should be."""
    return error.strerror or "" if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else ""


def _is_end(error: ssl.SSLError) -> bool:
    """Whether the other side has closed the connection, without the manners of TLS."""
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or "EOF" in (error.reason or "")


def _dial(host: str, port: int, deadline: _Deadline) -> socket.socket:
    """A TCP connection to the first address of `host` that takes one. Raises HttpFault."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no name of a host"
        raise HttpFault("resolve", f"{host} has no address: {why}") from None
    fault = HttpFault("resolve", f"{host} has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left() / (len(addresses) - tried))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except TimeoutError:
            fault = HttpFault("connect_timeout", f"{address[0]} port {port} did not take the connection in time")
        except ConnectionRefusedError:
            fault = HttpFault("refused", f"{address[0]} port {port} refuses the connection: nothing listens there")
        except OSError as error:
            fault = HttpFault("unreachable", f"{address[0]} port {port} can't be reached: {error.strerror or error}")
        except HttpFault:
            fault = HttpFault("connect_timeout", f"{host} port {port} did not take the connection in time")
        sock.close()
    raise fault


def _handshake(sock: socket.socket, context: ssl.SSLContext, host: str, deadline: _Deadline) -> socket.socket:
    """The same connection with TLS. Raises HttpFault."""
    try:
        sock.settimeout(deadline.left())
        return context.wrap_socket(sock, server_hostname=host)
    except TimeoutError:
        raise HttpFault("tls_not_spoken", "it did not answer a TLS handshake in time") from None
    except ssl.SSLError as error:
        raise _tls_fault(error) from None
    except (OSError, ValueError) as error:
        if isinstance(error, ConnectionError):
            raise HttpFault("broken", "it closed the connection during the TLS handshake") from None
        raise HttpFault("tls", f"TLS: {error}") from None


def _tls_fault(error: ssl.SSLError) -> HttpFault:
    if isinstance(error, ssl.SSLCertVerificationError):
        kind: FaultKind = ("tls_expired" if error.verify_code in _DATE_CODES else
                           "tls_name" if error.verify_code in _NAME_CODES else "tls_untrusted")
        return HttpFault(kind, f"TLS: its certificate is refused: {error.verify_message.rstrip('.')}"
                               " (certificate verify failed)")
    reason = error.reason or ""
    if _is_end(error):
        return HttpFault("broken", "it closed the connection during the TLS handshake")
    if reason in _NO_TLS:
        return HttpFault("tls_not_spoken", "it does not speak TLS on this port")
    words = f"TLS: {reason.replace('_', ' ').lower() or type(error).__name__}"
    wants = any(text in reason for text in _CLIENT_CERTIFICATE)
    return HttpFault("tls_client_certificate" if wants else "tls", words)


def _send(sock: socket.socket, request: bytes, deadline: _Deadline) -> str:
    """Sends all of it; else returns why not: a server may answer, and close, before it has read everything.

    Raises HttpFault at the deadline.
    """
    view = memoryview(request)
    try:
        while view:
            sock.settimeout(deadline.left())
            view = view[sock.send(view):]
    except TimeoutError:
        deadline.left()
        raise HttpFault("timeout", f"it has not taken the request: {len(view)} of {len(request)} bytes are left"
                        ) from None
    except ssl.SSLError as error:
        if not _is_end(error):
            raise _tls_fault(error) from None
        return "it was closed"
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _receive(sock: socket.socket, most: int, deadline: _Deadline, unsent: str) -> bytes:
    """Up to `most` bytes; b"" at the end. `unsent`: why the request could not be sent whole. Raises HttpFault."""
    seconds = deadline.left()
    try:
        sock.settimeout(seconds)
        return sock.recv(most)
    except TimeoutError:
        deadline.left()
        raise HttpFault("timeout", f"no answer within {seconds:g} s") from None
    except ssl.SSLError as error:
        if _is_end(error):
            return b""
        raise _tls_fault(error) from None
    except OSError as error:
        raise HttpFault("broken", f"the connection broke: {unsent or error.strerror or type(error).__name__}"
                        ) from None


def _tunnel(sock: socket.socket, target: str, proxy: SplitResult, deadline: _Deadline) -> None:
    """Has the proxy connect to `target`, host:port. Raises HttpFault."""
    request = _head("CONNECT", target, {"Host": target, **_proxy_headers(proxy)}, None)
    unsent = _send(sock, request, deadline)
    try:
        head = AnswerReader(lambda most: _receive(sock, most, deadline, unsent), _MAX_PROXY_BYTES).head()
    except HttpFault as fault:
        raise HttpFault("proxy", f"the proxy {proxy.hostname}: {fault}") from None
    if not 200 <= head.status < 300:
        kind: FaultKind = ("proxy_credentials" if head.status == 407 else
                           "proxy_refused" if head.status < 500 else "proxy")
        raise HttpFault(kind, f"the proxy {proxy.hostname} answered {head.status} when asked to connect to {target}")


def _head(method: str, target: str, headers: Mapping[str, str], length: int | None) -> bytes:
    """Request line and headers. Raises HttpFault for a header that can't be sent, without its value."""
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            what = "the token, user or password" if name.endswith("Authorization") else f"the header {ascii(name)}"
            raise HttpFault("header", f"{what} has a character (such as a line break) that no header may hold")
        lines.append(f"{name}: {value}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    try:
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
    except UnicodeEncodeError:
        raise HttpFault("url", "it has characters that a URL can't have") from None


def _proxy_parts(proxy: str) -> SplitResult:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme == "http" and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise HttpFault("proxy", "the configured proxy is no URL such as http://host:port")


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    return {"Proxy-Authorization": _basic(unquote(proxy.username), unquote(proxy.password or ""))}


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _netloc(parts: SplitResult) -> str:
    """host:port as it stands in the URL, without credentials; names outside ASCII as DNS has them."""
    try:
        host = (parts.hostname or "").encode("idna").decode() if not (parts.hostname or "").isascii() \
            else parts.hostname or ""
    except UnicodeError:
        raise HttpFault("url", "its host is no name of one") from None
    return _bracketed(host) + (f":{parts.port}" if parts.port is not None else "")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
