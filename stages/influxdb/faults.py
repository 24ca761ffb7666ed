"""What it means when a server gives no answer, or none that is understood, and what to do. Pure."""

from typing import Literal

from stages.influxdb.answers import OperatorNeeded, Retry
from stages.influxdb.http_answer import FaultKind, HttpFault

#: What to do about what a person has to mend.
_PAUSES: dict[FaultKind, str] = {
    "url": "correct url: http://host:port or https://host:port",
    "malformed": "that is not what an InfluxDB answers: correct url; what answers there speaks another protocol, or "
                 "something stands in between",
    "too_large": "that is not what an InfluxDB answers: correct url, or what stands in between",
    "tls_untrusted": "set ca_file to the certificate of the authority that has signed it; or correct url",
    "tls_name": "correct the host in url to a name that the certificate is for, or have one made for this name",
    "tls_expired": "renew the certificate, or correct this machine's clock",
    "tls_not_spoken": "write http:// in url, or the port on which it speaks TLS",
    "tls_expected": "write https:// in url",
    "tls_client_certificate": "the server wants a certificate of ours: set client_cert_file and client_key_file to "
                              "one that it trusts",
    "tls": "correct the TLS setup of the server, or url",
    "tls_files": "correct ca_file, client_cert_file or client_key_file",
    "proxy_refused": "have the proxy allow it, or correct proxy or url",
    "proxy_credentials": "give the proxy's user and password: proxy = \"http://user:password@host:port\"",
    "header": "correct the token (or token_file), username, password or headers",
}
#: What to do about what may pass by itself, if it does not.
_REPEATS: dict[FaultKind, str] = {
    "resolve": "correct the host in url, or this machine's name service",
    "refused": "start the server, or correct host and port in url",
    "unreachable": "correct the network, or host and port in url",
    "connect_timeout": "correct the network or its firewall, or host and port in url",
    "broken": "the server may have been restarted; if it stays so, correct url: host, port, and whether it is https://",
    "timeout": "the server is busy or gone, or this is no port for HTTP: correct url, or give it longer by "
               "read_timeout_ms and request_timeout_ms",
    "proxy": "start the proxy, or correct or remove proxy",
}
#: Of the pauses, those that are about credentials.
_UNAUTHORIZED = ("header", "proxy_credentials")


def meaning_of(fault: HttpFault, url: str) -> Retry | OperatorNeeded:
    """What a fault at `url` means for what was to be written, or asked."""
    if fault.kind in _PAUSES:
        reason: Literal["unauthorized", "refused"] = "unauthorized" if fault.kind in _UNAUTHORIZED else "refused"
        return OperatorNeeded(reason, f"{url}: {fault}", _PAUSES[fault.kind])
    if fault.kind == "timeout":
        return Retry("timeout", f"{url}: {fault}", advice=_REPEATS["timeout"])
    return Retry("no_connection", f"{url}: no connection: {fault}", advice=_REPEATS[fault.kind])
