"""One connection to a server: TCP, with TLS and through a proxy where that is configured."""

import select
import socket
import ssl
import time
from urllib.parse import SplitResult

from pipeline.tls_errors import is_end
from stages.influxdb import tls
from stages.influxdb.deadline import Deadline, Limits
from stages.influxdb.http_answer import AnswerReader, FaultKind, HttpFault
from stages.influxdb.http_request import bracketed, proxy_headers, proxy_parts, request_head

#: A connection that was idle for longer is not used again, seconds: firewalls and proxies drop idle ones silently.
MAX_IDLE_SECONDS = 60.0
#: Largest answer of a proxy to CONNECT, bytes.
_MAX_PROXY_BYTES = 65_536
#: Longest try whether a server speaks TLS, seconds.
TLS_PROBE_SECONDS = 2.0


class Connection:
    """A connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._used = time.monotonic()

    def is_stale(self) -> bool:
        """Whether the server has closed it, or sent something unasked; or whether it was idle for too long."""
        if time.monotonic() - self._used > MAX_IDLE_SECONDS:
            return True
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        return bool(poller.poll(0))

    def touch(self) -> None:
        """Starts the time that it is idle."""
        self._used = time.monotonic()

    def close(self) -> None:
        """Ends it."""
        self._sock.close()

    def send(self, request: bytes, deadline: Deadline) -> str:
        """Sends all of a request. Returns "", or why it could not: a server may answer and close before it has read
        everything.

        Raises HttpFault at the deadline.
        """
        view = memoryview(request)
        try:
            while view:
                self._sock.settimeout(deadline.left())
                view = view[self._sock.send(view):]
        except TimeoutError:
            deadline.left()
            raise HttpFault("timeout", f"it has not taken the request: {len(view)} of {len(request)} bytes are left"
                            ) from None
        except ssl.SSLError as error:
            if not is_end(error):
                raise tls.fault_of(error) from None
            return "it was closed"
        except OSError as error:
            return error.strerror or type(error).__name__
        return ""

    def receive(self, max_bytes: int, deadline: Deadline, unsent: str) -> bytes:
        """The next bytes; b"" at the end. `unsent`: what `send` has returned. Raises HttpFault."""
        seconds = deadline.left()
        try:
            self._sock.settimeout(seconds)
            return self._sock.recv(max_bytes)
        except TimeoutError:
            deadline.left()
            raise HttpFault("timeout", f"no answer within {seconds:g} s") from None
        except ssl.SSLError as error:
            if is_end(error):
                return b""
            raise tls.fault_of(error) from None
        except OSError as error:
            raise HttpFault("broken", f"the connection broke: {unsent or error.strerror or type(error).__name__}"
                            ) from None


def connect(parts: SplitResult, proxy: str, context: ssl.SSLContext | None, deadline: Deadline) -> Connection:
    """A connection to the server of a URL. `proxy`: its URL or ""; `context`: with TLS. Raises HttpFault."""
    host, port = parts.hostname or "", port_of(parts)
    sock = _dial_proxy(proxy_parts(proxy), deadline) if proxy else _dial(host, port, deadline)
    try:
        if proxy and context:
            _tunnel(sock, f"{bracketed(host)}:{port}", proxy_parts(proxy), deadline)
        if context:
            sock = tls.handshake(sock, context, host, deadline)
    except BaseException:
        sock.close()
        raise
    return Connection(sock)


def port_of(parts: SplitResult) -> int:
    """The port of a URL."""
    return parts.port or (443 if parts.scheme == "https" else 80)


def speaks_tls(parts: SplitResult) -> bool:
    """Whether a server completes a TLS handshake. Asked where one closes connections without an answer to HTTP.

    A TLS server answers at once; another kind may wait for more input until the time is over.
    """
    host, deadline = parts.hostname or "", Deadline(Limits(TLS_PROBE_SECONDS))
    try:
        with _dial(host, port_of(parts), deadline) as sock:
            tls.handshake(sock, tls.unverified_context(), host, deadline).close()
    except HttpFault:
        return False
    return True


def _dial(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A TCP connection to the first address of `host` that accepts one. Raises HttpFault."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a host name"
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
            fault = HttpFault("connect_timeout", f"{address[0]} port {port} did not accept the connection in time")
        except ConnectionRefusedError:
            fault = HttpFault("refused", f"{address[0]} port {port} refuses the connection: nothing listens there")
        except OSError as error:
            fault = HttpFault("unreachable", f"{address[0]} port {port} can't be reached: {error.strerror or error}")
        except HttpFault:
            fault = HttpFault("connect_timeout", f"{host} port {port} did not accept the connection in time")
        sock.close()
    raise fault


def _dial_proxy(proxy: SplitResult, deadline: Deadline) -> socket.socket:
    port = proxy.port or 8080
    try:
        return _dial(proxy.hostname or "", port, deadline)
    except HttpFault as fault:
        raise HttpFault("proxy", f"the proxy {proxy.hostname}:{port}: {fault}") from None


def _tunnel(sock: socket.socket, target: str, proxy: SplitResult, deadline: Deadline) -> None:
    """Has the proxy connect to `target`, host:port. Raises HttpFault."""
    connection = Connection(sock)
    unsent = connection.send(request_head("CONNECT", target, {"Host": target, **proxy_headers(proxy)}, None), deadline)
    try:
        head = AnswerReader(lambda max_bytes: connection.receive(max_bytes, deadline, unsent), _MAX_PROXY_BYTES).head()
    except HttpFault as fault:
        raise HttpFault("proxy", f"the proxy {proxy.hostname}: {fault}") from None
    if not 200 <= head.status < 300:
        kind: FaultKind = ("proxy_credentials" if head.status == 407 else
                           "proxy_refused" if head.status < 500 else "proxy")
        raise HttpFault(kind, f"the proxy {proxy.hostname} answered {head.status} to CONNECT {target}")
