"""What the errors of a TLS handshake mean."""

import ssl
from typing import Final, Literal

TlsFault = Literal["expired", "name", "untrusted", "not_spoken", "closed", "client_certificate", "other"]

#: OpenSSL's reasons where the other side does not speak TLS.
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG",
                  "RECORD_LAYER_FAILURE", "HTTPS_PROXY_REQUEST")
#: OpenSSL's reasons where the server requires a client certificate, or refuses the one that it got.
_CLIENT_CERTIFICATE: Final = (
    "CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "HANDSHAKE_FAILURE", "UNKNOWN_CA", "ACCESS_DENIED",
    "CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED")
#: X509_V_ERR_: CERT_NOT_YET_VALID, CERT_HAS_EXPIRED; HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH.
_DATE_CODES, _NAME_CODES = (9, 10), (62, 64)


def tls_fault(error: ssl.SSLError) -> TlsFault:
    """What is wrong: with the server's certificate, or with the other side's TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ("expired" if error.verify_code in _DATE_CODES else
                "name" if error.verify_code in _NAME_CODES else "untrusted")
    if is_end(error):
        return "closed"
    reason = error.reason or ""
    if reason in _NO_TLS:
        return "not_spoken"
    return "client_certificate" if any(text in reason for text in _CLIENT_CERTIFICATE) else "other"


def is_end(error: ssl.SSLError) -> bool:
    """Whether the other side has closed the connection, with or without a TLS close_notify."""
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or "EOF" in (error.reason or "")
