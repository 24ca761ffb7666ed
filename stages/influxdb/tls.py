"""TLS of the connections to databases: contexts from the configuration, handshakes, and what their errors mean."""

import socket
import ssl

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from pipeline.config.connection_schema import ConnectionConfig
from stages.influxdb.deadline import Deadline
from stages.influxdb.http_answer import FaultKind, HttpFault

#: OpenSSL's reasons where the other side does not speak TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG",
           "RECORD_LAYER_FAILURE", "HTTPS_PROXY_REQUEST")
#: OpenSSL's reasons where the server requires a client certificate, or refuses the one that it got.
_CLIENT_CERTIFICATE = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "HANDSHAKE_FAILURE", "UNKNOWN_CA", "ACCESS_DENIED",
                       "CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED")
#: X509_V_ERR_: CERT_NOT_YET_VALID, CERT_HAS_EXPIRED; HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH.
_DATE_CODES, _NAME_CODES = (9, 10), (62, 64)


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
    if isinstance(error, ssl.SSLCertVerificationError):
        kind: FaultKind = ("tls_expired" if error.verify_code in _DATE_CODES else
                           "tls_name" if error.verify_code in _NAME_CODES else "tls_untrusted")
        return HttpFault(kind, f"TLS: its certificate is refused: {error.verify_message.rstrip('.')}"
                               " (certificate verify failed)")
    reason = error.reason or ""
    if is_end(error):
        return HttpFault("broken", "it closed the connection during the TLS handshake")
    if reason in _NO_TLS:
        return HttpFault("tls_not_spoken", "it does not speak TLS on this port")
    requires_ours = any(text in reason for text in _CLIENT_CERTIFICATE)
    return HttpFault("tls_client_certificate" if requires_ours else "tls",
                     f"TLS: {reason.replace('_', ' ').lower() or type(error).__name__}")


def is_end(error: ssl.SSLError) -> bool:
    """Whether the other side has closed the connection, with or without a TLS close_notify."""
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or "EOF" in (error.reason or "")


def _file_error(error: Exception) -> str:
    """Why a file can't be read; "" if it was read and has the wrong content."""
    return error.strerror or "" if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else ""
