"""Failed requests, of writing and of querying: whether to retry or to wait for the operator, and the advice. Pure."""

from typing import Literal

import msgspec

from stages.influxdb.answers import OperatorNeeded, Retry
from stages.influxdb.http_answer import FaultKind, HttpFault

#: Advice for faults that only the operator can end.
_OPERATOR: dict[FaultKind, str] = {
    "url": "correct url: http://host:port or https://host:port",
    "malformed": "that is not an answer of InfluxDB: correct url; the server there speaks another protocol, or "
                 "a proxy is between here and the server",
    "too_large": "that is not an answer of InfluxDB: correct url, or the proxy between here and the server",
    "tls_untrusted": "set ca_file to the certificate of the authority that has signed it; or correct url",
    "tls_name": "correct the host in url to a name that the certificate is for, or get one for this name",
    "tls_expired": "renew the certificate, or correct this machine's clock",
    "tls_not_spoken": "write http:// in url, or the port on which it speaks TLS",
    "tls_expected": "write https:// in url",
    "tls_client_certificate": "the server requires a client certificate: set client_cert_file and client_key_file to "
                              "one that it trusts",
    "tls": "correct the TLS setup of the server, or url",
    "tls_files": "correct ca_file, client_cert_file or client_key_file",
    "proxy_refused": "allow it in the proxy, or correct proxy or url",
    "proxy_credentials": "set the proxy's user and password: proxy = \"http://user:password@host:port\"",
    "header": "correct the token (or token_file), username, password or headers",
}
#: Advice for faults that may end by themselves, in case they do not.
_RETRY: dict[FaultKind, str] = {
    "resolve": "correct the host in url, or this machine's name service",
    "refused": "start the server, or correct host and port in url",
    "unreachable": "correct the network, or host and port in url",
    "connect_timeout": "correct the network or its firewall, or host and port in url",
    "broken": "the server may have been restarted; if it stays so, correct url: host, port, and whether it is https://",
    "timeout": "the server is overloaded or down, or this is not an HTTP port: correct url, or raise read_timeout_ms "
               "and request_timeout_ms",
    "proxy": "start the proxy, or correct or remove proxy",
}
#: What a request was for.
Activity = Literal["write", "read"]
_NOT_FOUND = "create the bucket or database, or correct its name, the organization or the URL"
#: Advice for an answer that has none of its own, by its reason.
_ADVICE: dict[tuple[Activity, str], str] = {
    ("write", "unauthorized"): "correct the token (or token_file), user or password, and its right to write to this "
                               "bucket",
    ("write", "not_found"): _NOT_FOUND,
    ("write", "refused"): "correct the [influxdb] section, or the server's setup",
    ("read", "unauthorized"): "correct the token (or token_file), user or password, and its right to read this bucket",
    ("read", "not_found"): _NOT_FOUND,
    ("read", "refused"): "correct the query, or the [sources.influxdb] table",
}
#: Those of `_OPERATOR` that are about credentials.
_UNAUTHORIZED = ("header", "proxy_credentials")


def failure_of(fault: HttpFault, url: str) -> Retry | OperatorNeeded:
    """The failure of a request to `url` that had no answer, or none that is HTTP."""
    if fault.kind in _OPERATOR:
        reason: Literal["unauthorized", "refused"] = "unauthorized" if fault.kind in _UNAUTHORIZED else "refused"
        return OperatorNeeded(reason, f"{url}: {fault}", _OPERATOR[fault.kind])
    if fault.kind == "timeout":
        return Retry("timeout", f"{url}: {fault}", advice=_RETRY["timeout"])
    return Retry("no_connection", f"{url}: no connection: {fault}", advice=_RETRY[fault.kind])


def answered_by(answer: Retry | OperatorNeeded, url: str) -> Retry | OperatorNeeded:
    """The same failure with the URL that answered in its message."""
    return msgspec.structs.replace(answer, message=f"{url} answered {answer.message}")


def with_advice(answer: Retry | OperatorNeeded, activity: Activity) -> Retry | OperatorNeeded:
    """The same failure with the advice in its message: its own, or the one for its reason."""
    advice = answer.advice
    if not advice and isinstance(answer, OperatorNeeded):
        advice = _ADVICE[activity, answer.reason]
    return msgspec.structs.replace(answer, message=f"{answer.message}; {advice}", advice="") if advice else answer
