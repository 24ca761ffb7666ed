"""Each way in which a database can't be reached has its own words and advice, whichever version is configured."""

import datetime
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from pipeline.compression import compress
from pipeline.config.schema import InfluxConfig
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.write.startup_check import log_servers
from stages.write.transport import Transport
from tests.support.iggy_servers import SandboxIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.raw_servers import Script, always, answer, once, raw_server, read_request
from tests.support.tls import Authority

OK = always(answer("204 No Content"))
#: Where nothing listens: the discard port.
NOBODY = "127.0.0.1:9"


@pytest.fixture
def tls(tmp_path: Path) -> Authority:
    """An authority, and certificates for 127.0.0.1."""
    return Authority(tmp_path, "127.0.0.1")


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    """Servers that end with the test."""
    with ExitStack() as running:
        yield running


def check(caplog: pytest.LogCaptureFixture, kind: Any, said: str, advised: str,
          describes: bool = True, **options: Any) -> None:
    """A write means `kind`, in words with `said` and `advised`: the same with version "v2", "auto" and at the start.

    `describes`: this goes wrong before anything is written.
    """
    found = []
    for version in ("v2", "auto"):
        config = InfluxConfig(version=version, org="o", bucket="b", **options)
        transport = Transport(config, config.servers(), logging.getLogger("test"))
        found += [transport.post(compress(b"m f=1 1\n"), "") for _ in range(2)]
        caplog.clear()
        log_servers(config, logging.getLogger("test"))
        if describes:
            assert said in caplog.text and advised in caplog.text
    for one in found:
        assert isinstance(one, kind), one
        assert said in one.message and advised in one.message, one.message
        assert "object at 0x" not in one.message and "secret" not in one.message
    assert len({one.message for one in found if isinstance(one, Retry | OperatorNeeded)}) == 1


def test_nothing_listens(caplog: pytest.LogCaptureFixture) -> None:
    check(caplog, Retry, "nothing listens there", "start the server", url=f"http://{NOBODY}")


def test_a_name_that_is_none(caplog: pytest.LogCaptureFixture) -> None:
    check(caplog, Retry, "has no address", "correct the host in url", url="http://nothing.invalid:8086")


def test_a_certificate_that_nobody_trusts(caplog: pytest.LogCaptureFixture, tls: Authority, servers: ExitStack) -> None:
    port = servers.enter_context(raw_server(OK, tls.context(False)))
    check(caplog, OperatorNeeded, "certificate verify failed", "set ca_file", url=f"https://127.0.0.1:{port}")


def test_a_certificate_of_another_name(caplog: pytest.LogCaptureFixture, tls: Authority, servers: ExitStack) -> None:
    port = servers.enter_context(raw_server(OK, tls.context(False)))
    check(caplog, OperatorNeeded, "localhost", "correct the host in url", url=f"https://localhost:{port}",
          ca_file=tls.ca_file)


def test_a_certificate_that_has_expired(caplog: pytest.LogCaptureFixture, tmp_path: Path, servers: ExitStack) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_after=datetime.datetime(2020, 1, 2)).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "old.pem"))
    port = servers.enter_context(raw_server(OK, context))
    check(caplog, OperatorNeeded, "expired", "renew the certificate", url=f"https://127.0.0.1:{port}",
          ca_file=str(tmp_path / "old.pem"))


def test_https_to_a_port_that_speaks_http(caplog: pytest.LogCaptureFixture, servers: ExitStack) -> None:
    def go(connection: socket.socket, number: int) -> None:
        connection.recv(1_000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")

    port = servers.enter_context(raw_server(go))
    check(caplog, OperatorNeeded, "does not speak TLS", "write http://", url=f"https://127.0.0.1:{port}")


def test_https_to_a_port_that_says_nothing_to_it(caplog: pytest.LogCaptureFixture, servers: ExitStack) -> None:
    server = servers.enter_context(running_influxdb())
    check(caplog, OperatorNeeded, "TLS handshake", "write http://", url=f"https://127.0.0.1:{server.port}",
          connect_timeout_ms=500)


@pytest.mark.parametrize(("script", "said"), [
    (once(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"),
     "an HTTPS server"),
    (always(answer("400 Bad Request", b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title>"
                  b"</head></html>", "Content-Type: text/html")), "HTTPS port"),
    (once(b"\x15\x03\x03\x00\x02\x02\x46"), "speaks TLS")], ids=["Go", "nginx", "a TLS alert"])
def test_http_to_a_port_that_speaks_tls(
        caplog: pytest.LogCaptureFixture, servers: ExitStack, script: Script, said: str) -> None:
    port = servers.enter_context(raw_server(script))
    check(caplog, OperatorNeeded, said, "https:// in url", describes=False,
          url=f"http://127.0.0.1:{port}")


def test_http_to_a_port_with_tls_that_hangs_up(
        caplog: pytest.LogCaptureFixture, tls: Authority, servers: ExitStack) -> None:
    port = servers.enter_context(raw_server(OK, tls.context(False)))
    check(caplog, OperatorNeeded, "it speaks TLS", "https://", url=f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("content", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nMIIB\n"])
def test_a_ca_file_that_is_no_pem(
        caplog: pytest.LogCaptureFixture, tls: Authority, servers: ExitStack, tmp_path: Path, content: str) -> None:
    (tmp_path / "ca").write_text(content)
    port = servers.enter_context(raw_server(OK, tls.context(False)))
    check(caplog, OperatorNeeded, "holds no certificate in PEM form", "correct ca_file", url=f"https://127.0.0.1:{port}",
          ca_file=str(tmp_path / "ca"))


def test_a_ca_file_that_is_corrected_is_read_again(tls: Authority, servers: ExitStack, tmp_path: Path) -> None:
    port = servers.enter_context(raw_server(OK, tls.context(False)))
    (tmp_path / "ca").write_text("none yet")
    config = InfluxConfig(version="v2", org="o", bucket="b", url=f"https://127.0.0.1:{port}",
                          ca_file=str(tmp_path / "ca"))
    transport = Transport(config, config.servers(), logging.getLogger("test"))
    assert isinstance(transport.post(compress(b"m f=1 1\n"), ""), OperatorNeeded)
    (tmp_path / "ca").write_bytes(Path(tls.ca_file).read_bytes())
    assert not isinstance(transport.post(compress(b"m f=1 1\n"), ""), OperatorNeeded | Retry)


def test_a_server_that_wants_our_certificate(
        caplog: pytest.LogCaptureFixture, tls: Authority, servers: ExitStack) -> None:
    port = servers.enter_context(raw_server(OK, tls.context(True)))
    check(caplog, OperatorNeeded, "TLS", "client_cert_file", url=f"https://127.0.0.1:{port}", ca_file=tls.ca_file)


def test_a_proxy_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    for url in ("http://influx.example:8086", "https://influx.example:8086"):
        check(caplog, Retry, "the proxy", "start the proxy", url=url, proxy=f"http://me:secret@{NOBODY}")


@pytest.mark.parametrize(("status", "kind", "advice"), [
    ("407 Proxy Authentication Required", OperatorNeeded, "user and password"),
    ("403 Forbidden", OperatorNeeded, "in the proxy"),
    ("502 Bad Gateway", Retry, "proxy"), ("503 Service Unavailable", Retry, "proxy")])
def test_a_proxy_that_does_not_connect(
        caplog: pytest.LogCaptureFixture, servers: ExitStack, status: str, kind: type[Retry] | type[OperatorNeeded],
        advice: str) -> None:
    port = servers.enter_context(raw_server(always(answer(status))))
    check(caplog, kind, f"answered {status[:3]}", advice, url="https://influx.example:8086",
          proxy=f"http://127.0.0.1:{port}")


def test_https_goes_through_a_proxy_with_its_password(tls: Authority, servers: ExitStack) -> None:
    seen: list[bytes] = []
    onward = servers.enter_context(raw_server(OK, tls.context(False)))

    def tunnel(connection: socket.socket, number: int) -> None:
        seen.append(read_request(connection))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", onward)) as there:
            there.setblocking(False)
            connection.setblocking(False)
            _relay(connection, there)

    port = servers.enter_context(raw_server(tunnel))
    config = InfluxConfig(version="v2", org="o", bucket="b", url=f"https://127.0.0.1:{onward}", ca_file=tls.ca_file,
                          proxy=f"http://me:pass%20word@127.0.0.1:{port}", token="not for the proxy")
    found = Transport(config, config.servers(), logging.getLogger("test")).post(compress(b"m f=1 1\n"), "")
    assert not isinstance(found, Retry | OperatorNeeded), found
    assert seen[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % onward)
    assert b"Proxy-Authorization: Basic bWU6cGFzcyB3b3Jk\r\n" in seen[0]
    assert b"not for the proxy" not in seen[0]


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Passes bytes both ways until one side closes."""
    import select
    while True:
        for ready in select.select([one, other], [], [], 30)[0]:
            data = ready.recv(65_536)
            if not data:
                return
            (other if ready is one else one).sendall(data)


@pytest.mark.parametrize("token", ["sec\nret", "secret\r\nX-More: yes", "secret\x00", "secr\u20act"])
def test_a_token_that_no_header_may_hold(
        caplog: pytest.LogCaptureFixture, servers: ExitStack, token: str) -> None:
    seen: list[bytes] = []

    def script(connection: socket.socket, number: int) -> None:
        seen.append(read_request(connection))

    port = servers.enter_context(raw_server(script))
    check(caplog, OperatorNeeded, "the token", "token_file", url=f"http://127.0.0.1:{port}", token=token)
    assert seen == []


def test_the_url_of_iggys_http_api(caplog: pytest.LogCaptureFixture, servers: ExitStack) -> None:
    def iggy(connection: socket.socket, number: int) -> None:
        while request := read_request(connection):
            expose = "access-control-expose-headers: iggy-view"
            connection.sendall(answer("200 OK", b"pong", expose) if request.startswith(b"GET /ping ")
                               else answer("404 Not Found", b"", expose))

    port = servers.enter_context(raw_server(iggy))
    check(caplog, OperatorNeeded, "Apache Iggy", "set url to InfluxDB's", url=f"http://127.0.0.1:{port}")


def test_the_address_of_iggy(caplog: pytest.LogCaptureFixture, sandbox: SandboxIggy) -> None:
    host, _, port = sandbox.address.rpartition(":")
    check(caplog, (Retry, OperatorNeeded), "127.0.0.1", "correct url", url=f"http://{host}:{port}", read_timeout_ms=500)


@pytest.mark.parametrize(("flavour", "version"), [("v2", "v3"), ("v1", "v3"), ("v1", "v2")])
def test_an_endpoint_that_a_server_does_not_have_is_not_a_missing_bucket(flavour: str, version: str) -> None:
    with running_influxdb(flavour=flavour) as server:
        config = InfluxConfig(url=server.url, version=version, org="sandbox",  # type: ignore[arg-type]
                              bucket="sandbox", database="sandbox", token="sandbox-token")
        found = Transport(config, config.servers(), logging.getLogger("test")).post(compress(b"m f=1 1\n"), "")
    assert isinstance(found, OperatorNeeded)
    assert f'set version = "{flavour}"' in found.message and "create" not in found.message
