"""Why a server cannot be reached: the client says "Cannot establish connection" for everything.

A short look of our own, without credentials: a connection, a TLS handshake, a request of HTTP. It takes some seconds at
most.
"""

import asyncio
import contextlib
import socket
import ssl

from apache_iggy import AutoLogin
from msgspec import Struct

from pipeline.config.iggy_schema import DEFAULT_PORTS, IggyConfig, host_of
from pipeline.iggy.clients import new_client, server_name
from pipeline.tls_errors import TlsFault, tls_fault

#: Longest wait for each answer of the server, seconds.
PROBE_SECONDS = 2.0
#: Longest wait for an alert after a handshake, seconds.
ALERT_SECONDS = 0.5
#: Longest wait for the network's word that no process has a UDP port, seconds.
UDP_SECONDS = 0.3
#: What any server of HTTP answers, and one of WebSocket with 101.
UPGRADE_REQUEST = (b"GET / HTTP/1.1\r\nHost: iggy\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                   b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
#: The beginning of WebSocket's answer.
UPGRADED = b"HTTP/1.1 101"
#: Texts of the client about a server of another version.
OTHER_VERSION = ("incompatible", "invalid format", "invalid version")
NO_TLS = "enable TLS in Iggy's configuration, correct the port in iggy.address, or set iggy.tls.enabled = false"
START_IT = "start it, or correct iggy.address"


class Cause(Struct, frozen=True):
    """What is wrong, and what to do."""

    what: str
    advice: str = START_IT


async def diagnose(config: IggyConfig, address: str, said: str) -> Cause:
    """Why the server at `address` cannot be reached, where the client said `said`. Never raises."""
    if any(text in said.lower() for text in OTHER_VERSION):
        return Cause(f"it speaks another version of Iggy's protocol: {said}",
                     "use a server 0.9, which the client apache-iggy 0.9 is for")
    try:
        cause = await asyncio.to_thread(_look, config, address)
        if cause is None and config.transport == "quic" and config.tls.validate_certificate:
            cause = await _without_verification(config, address)
    except Exception as error:  # whatever stands there: the client's own words remain
        return Cause(f"{said}; {type(error).__name__} while looking why")
    return cause or Cause(said)


def _look(config: IggyConfig, address: str) -> Cause | None:
    host = host_of(address)
    try:
        if config.transport == "quic":
            _look_udp(address)
            return None
        if config.tls.enabled:
            return _look_encrypted(config, address)
        return _look_plain(config, address)
    except socket.gaierror as error:
        return Cause(f"the name {host} is not known: {(error.strerror or str(error)).lower()}",
                     "correct iggy.address, or the name service")
    except TimeoutError:
        return Cause(f"no answer within {PROBE_SECONDS:g} s",
                     "start it, correct iggy.address, or open the way there in the firewall")
    except OSError as error:
        return Cause((error.strerror or str(error)).lower())


def _connected(address: str) -> socket.socket:
    """A connection. Raises OSError."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS)


def _look_udp(address: str) -> None:
    """Raises ConnectionRefusedError if no process has the UDP port, which not every network says."""
    host, _, port = address.rpartition(":")
    family, kind, protocol, _, target = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as sock, contextlib.suppress(TimeoutError):
        sock.settimeout(UDP_SECONDS)
        sock.connect(target)
        sock.send(b"\0")
        sock.recv(1)


def _look_encrypted(config: IggyConfig, address: str) -> Cause | None:
    """What is wrong with the server's TLS. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not config.tls.validate_certificate:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif config.tls.ca_file:
        try:
            context.load_verify_locations(config.tls.ca_file)
        except (OSError, ValueError) as error:
            why = "it holds no certificate in PEM form" if isinstance(error, ssl.SSLError | ValueError) else (
                error.strerror)
            return Cause(f"iggy.tls.ca_file {config.tls.ca_file} cannot be used: {why}", "give the file of the "
                         "authority that has signed the server's certificate")
    else:
        # Imported here: it takes a while, and is needed only when something is wrong.
        from requests.utils import DEFAULT_CA_BUNDLE_PATH
        context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    with _connected(address) as sock:
        return _handshake_cause(config, address, sock, context)


def _handshake_cause(config: IggyConfig, address: str, sock: socket.socket, context: ssl.SSLContext) -> Cause | None:
    """What a handshake shows. Raises OSError."""
    try:
        encrypted = context.wrap_socket(sock, server_hostname=server_name(config, address))
    except ssl.SSLError as error:
        return _tls_cause(config, address, error)
    except TimeoutError:
        return Cause("it does not answer a TLS handshake", NO_TLS)
    except ConnectionError:
        return _tls_cause(config, address, None)
    except ValueError:  # a server name that is none
        return Cause(f"{server_name(config, address)!r} is no name of a server", "correct iggy.tls.domain")
    with encrypted:
        try:
            # A server that wants a certificate of ours says so only now, with TLS 1.3, or just closes the connection.
            answer = _answer_to(encrypted) if config.transport == "websocket" else _unasked(encrypted)
        except ssl.SSLError as error:
            return _tls_cause(config, address, error)
    if answer == b"":
        return Cause("it closes the connection after the TLS handshake", "see the server's log, or that of the proxy "
                     "before it; one that asks for a certificate of the client cannot be used")
    if config.transport == "websocket" and not (answer or b"").startswith(UPGRADED):
        return Cause("it does not answer WebSocket's request", _port_advice(config))
    if not config.tls.validate_certificate:
        return None
    return Cause("the client does not take its certificate, although it is signed by an authority that is trusted, and "
                 "for this name", "give the server one with a subjectAltName that is not an authority's own: openssl "
                 "req -x509 needs -addext basicConstraints=critical,CA:FALSE")


def _unasked(sock: socket.socket) -> bytes | None:
    """What the server sends by itself; None for nothing, b"" if it closes the connection. Raises ssl.SSLError."""
    sock.settimeout(ALERT_SECONDS)
    return _received(sock, 1)


def _received(sock: socket.socket, size: int) -> bytes | None:
    """The next bytes; None if there are none in time, b"" at the connection's end. Raises ssl.SSLError."""
    try:
        return sock.recv(size)
    except TimeoutError:
        return None
    except ssl.SSLError:
        raise
    except OSError:
        return b""


def _tls_cause(config: IggyConfig, address: str, error: ssl.SSLError | None) -> Cause:
    """What a failed handshake means. None: the server has reset the connection."""
    fault: TlsFault = "closed" if error is None else tls_fault(error)
    said = f" ({error.verify_message.rstrip('.')})" if isinstance(error, ssl.SSLCertVerificationError) else ""
    if fault == "expired":
        return Cause(f"its certificate is out of date{said}", "renew it on the server, and check both clocks")
    if fault == "name":
        return Cause(f"its certificate is not for {server_name(config, address)}{said}",
                     "give a name that is in the certificate as iggy.tls.domain, or correct iggy.address")
    if fault == "untrusted":
        trusted = f"iggy.tls.ca_file {config.tls.ca_file} does not hold" if config.tls.ca_file else "is not public"
        return Cause(f"its certificate is signed by an authority that {trusted}{said}",
                     "give the authority's certificate as iggy.tls.ca_file")
    if fault == "not_spoken" or (fault == "closed" and not _speaks_tls(address)):
        return Cause("it does not speak TLS on this port", NO_TLS)
    if fault == "client_certificate":
        return Cause("it asks for a certificate of the client, which Iggy's client cannot give",
                     "let the server, or the proxy before it, do without")
    said = (error.reason or type(error).__name__) if error is not None else "the connection was closed"
    return Cause(f"the TLS handshake failed: {said.replace('_', ' ').lower()}", "see the server's log")


def _look_plain(config: IggyConfig, address: str) -> Cause | None:
    """What else listens there, if it is not what was expected. Raises OSError."""
    if _speaks_tls(address):
        return Cause("it speaks TLS on this port", "set enabled = true in [iggy.tls]")
    with _connected(address) as sock:
        answer = _answer_to(sock) or b""
    where = _port_advice(config)
    if config.transport == "websocket" and not answer.startswith(UPGRADED):
        return Cause("it speaks HTTP on this port, not WebSocket" if answer.startswith(b"HTTP/") else
                     "it does not answer WebSocket's request", where)
    if config.transport == "tcp" and answer.startswith(UPGRADED):
        return Cause("it speaks WebSocket on this port", f'{where}, or set transport = "websocket"')
    if config.transport == "tcp" and answer.startswith(b"HTTP/"):
        return Cause("it speaks HTTP on this port", where)
    return None


def _port_advice(config: IggyConfig) -> str:
    return (f"give the port of Iggy's {'WebSocket' if config.transport == 'websocket' else 'TCP'} listener in "
            f"iggy.address (by default {DEFAULT_PORTS[config.transport]})")


def _speaks_tls(address: str) -> bool:
    """Whether a TLS handshake works, with whatever certificate. Raises OSError if there is no connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with _connected(address) as sock:
        try:
            context.wrap_socket(sock).close()
        except (OSError, ValueError):
            return False
    return True


def _answer_to(sock: socket.socket) -> bytes | None:
    """The beginning of what is answered to a request of WebSocket, as `_received`."""
    with contextlib.suppress(ConnectionError):
        sock.sendall(UPGRADE_REQUEST)
    return _received(sock, 64)


async def _without_verification(config: IggyConfig, address: str) -> Cause | None:
    """Whether QUIC works once the certificate is not verified, so that it is the certificate."""
    client = new_client(config, address, AutoLogin.disabled(), verify=False)
    try:
        await asyncio.wait_for(client.connect(), PROBE_SECONDS)
    except (TimeoutError, RuntimeError):
        return None
    trusted = (f"not signed by an authority in iggy.tls.ca_file {config.tls.ca_file}" if config.tls.ca_file else
               "not signed by an authority that this machine trusts")
    return Cause(f"its certificate is refused: it is {trusted}, or not for {server_name(config, address)}, or out of "
                 "date; Iggy's client does not say which of them",
                 "give the authority's certificate as iggy.tls.ca_file, and a name that is in the certificate as "
                 "iggy.tls.domain. A server without a configured certificate makes one that nobody can verify: give it "
                 "one (IGGY_QUIC_CERTIFICATE_...)")
