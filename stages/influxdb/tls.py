"""TLS of the connections to databases: contexts from the configuration, handshakes, and what their errors mean."""

import socket
import ssl
from typing import Final

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from pipeline.config.connection_schema import ConnectionConfig
from pipeline.tls_errors import TlsFault, tls_fault
from stages.influxdb.deadline import Deadline
from stages.influxdb.http_answer import FaultKind, HttpFault

#: The fault of a connection to a database for each of a handshake.
_FAULTS: Final[dict[TlsFault, FaultKind]] = {
    "expired": "tls_expired", "name": "tls_name", "untrusted": "tls_untrusted", "not_spoken": "tls_not_spoken",
    "closed": "broken", "client_certificate": "tls_client_certificate", "other": "tls"}


def tls_context(config: ConnectionConfig) -> ssl.SSLContext:
    """The client's side of TLS. Raises HttpFault (`tls_files`) with the file that can't be used."""
    context = unverified_context() if config.insecure_skip_verify else verified_context(config.ca_file)
    if config.client_cert_file:
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(config.client_cert_file, config.client_key_file or None, password=lambda: "-")
        except (OSError, ValueError) as error:
            why = _file_error(error) or "it holds no certificate with its own, unencrypted key in PEM form"
            key = f" with client_key_file {config.client_key_file}" if config.client_key_file else ""
            raise HttpFault("tls_files", f"client_cert_file {config.client_cert_file}{key} can't be used: {why}"
                            ) from None
    return context


def verified_context(ca_file: str) -> ssl.SSLContext:
    """Trusts the authorities in `ca_file`; with "", those of certifi. Raises HttpFault if the file can't be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(ca_file or DEFAULT_CA_BUNDLE_PATH)
    except (OSError, ValueError) as error:
        raise HttpFault("tls_files", f"ca_file {ca_file} can't be used: "
                        f"{_file_error(error) or 'it holds no certificate in PEM form'}") from None
    return context


def unverified_context() -> ssl.SSLContext:
    """Trusts any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def handshake(sock: socket.socket, context: ssl.SSLContext, host: str, deadline: Deadline) -> socket.socket:
    """The same connection with TLS. Raises HttpFault."""
    try:
        sock.settimeout(deadline.left())
        return context.wrap_socket(sock, server_hostname=host)
    except TimeoutError:
        raise HttpFault("tls_not_spoken", "it did not answer a TLS handshake in time") from None
    except ssl.SSLError as error:
        raise fault_of(error) from None
    except (OSError, ValueError) as error:
        if isinstance(error, ConnectionError):
            raise HttpFault("broken", "it closed the connection during the TLS handshake") from None
        raise HttpFault("tls", f"TLS: {error}") from None


def fault_of(error: ssl.SSLError) -> HttpFault:
    """The fault that an error of OpenSSL means."""
    kind = _FAULTS[tls_fault(error)]
    if isinstance(error, ssl.SSLCertVerificationError):
        return HttpFault(kind, f"TLS: its certificate is refused: {error.verify_message.rstrip('.')}"
                               " (certificate verify failed)")
    if kind == "broken":
        return HttpFault(kind, "it closed the connection during the TLS handshake")
    if kind == "tls_not_spoken":
        return HttpFault(kind, "it does not speak TLS on this port")
    return HttpFault(kind, f"TLS: {(error.reason or '').replace('_', ' ').lower() or type(error).__name__}")


def _file_error(error: Exception) -> str:
    """Why a file can't be read; "" if it was read and has the wrong content."""
    return error.strerror or "" if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else ""
