"""Iggy over TLS: nothing can be read on the way, and every fault says what it is."""

import asyncio
import os
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from pipeline.config.iggy_schema import IggyConfig, IggyTlsConfig
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyAuthenticationFailed, IggyError
from pipeline.testbed.harness.runs import SinkRun
from pipeline.testbed.harness.waiting import wait_until
from pipeline.testbed.sandbox.iggy import protocol
from tests.support.iggy_clients import delete_token, make_token, make_topics
from tests.support.iggy_servers import SandboxIggy, running_sandbox
from tests.support.relay import relay_to
from tests.support.sinks import SandboxInflux, message, send_with
from tests.support.tls import Authority

#: TLS address of a real server, with user and password `iggy`, and the authority of its certificate.
TLS_SERVER, TLS_CA_FILE = os.environ.get("IGGY_TEST_TLS", ""), os.environ.get("IGGY_TEST_CA", "")
EXAMPLE = Path(__file__).parents[2] / "configs" / "iggy-tls.toml"
MARKER = "not-to-be-read-on-the-way"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A new certificate authority."""
    return Authority(tmp_path)


@pytest.fixture(params=["sandbox", "server"] if TLS_SERVER else ["sandbox"])
def root(request: pytest.FixtureRequest, authority: Authority) -> Iterator[IggyConfig]:
    """How root reaches an Iggy with TLS: the sandbox's, and a real server if there is one."""
    if request.param == "server":
        yield IggyConfig(address=TLS_SERVER, tls=IggyTlsConfig(enabled=True, ca_file=TLS_CA_FILE))
        return
    with running_sandbox(tls=authority.context(False)) as sandbox:
        yield IggyConfig(address=sandbox.address, tls=IggyTlsConfig(enabled=True, ca_file=authority.ca_file))


def test_the_example_runs_with_a_token_and_nothing_can_be_read_on_the_way(
        root: IggyConfig, stream: str, influxdb: SandboxInflux, tmp_path: Path) -> None:
    make_topics(root, "telemetry", "sensors")
    token = make_token(root, stream[:30])
    (tmp_path / "iggy-token").write_text(token + "\n")
    (tmp_path / "iggy-token").chmod(0o600)
    send_with(root, "telemetry", "sensors", [message(n, note=MARKER) for n in range(500)])
    seen = bytearray()
    with relay_to(root.servers()[0], seen) as address:
        run = SinkRun(tmp_path / "p", EXAMPLE.read_text() + f'\n[pipeline]\nruntime_dir = "{tmp_path}/p/run"\n', [], {
            "IGGY_ADDRESS": address, "IGGY_CA_FILE": root.tls.ca_file, "CREDENTIALS_DIRECTORY": str(tmp_path),
            "INFLUX_URL": influxdb.url, "INFLUX_ORG": "sandbox", "INFLUX_BUCKET": "sandbox",
            "INFLUX_TOKEN": "sandbox-token"})
        with run:
            wait_until(lambda: influxdb.count() >= 500, "the points")
            run.wait_for(lambda status: status.pids)
            shown = b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for pid in descendants(run.process.pid)
                             for name in ("environ", "cmdline"))
            assert run.stop() == 0
    delete_token(root, stream[:30])
    assert len(seen) > 500 * len(MARKER)
    for secret in (token, MARKER):
        assert secret.encode() not in seen
        assert secret not in run.log()
    for secret in (token, "sandbox-token"):
        assert secret.encode() not in shown


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return own + [below for child in own for below in descendants(child)]


def test_without_tls_the_same_look_finds_everything(sandbox: SandboxIggy) -> None:
    root, seen = IggyConfig(address=sandbox.address), bytearray()
    make_topics(root, "telemetry", "sensors")
    token = make_token(root, "t")
    with relay_to(sandbox.address, seen) as address:
        send_with(IggyConfig(address=address, token=token), "telemetry", "sensors", [message(1, note=MARKER)])
    assert token.encode() in seen and MARKER.encode() in seen


@contextmanager
def of(certificate: trustme.LeafCert | None, **options: Any) -> Iterator[SandboxIggy]:
    """A sandbox with this certificate."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
    with running_sandbox(tls=context, websocket_port=0, **options) as sandbox:
        yield sandbox


def refusal(config: IggyConfig) -> str:
    """The error of a connection."""
    with pytest.raises(IggyError) as refused:
        asyncio.run(IggyConnection(config).connect())
    assert not isinstance(refused.value, IggyAuthenticationFailed)
    return str(refused.value)


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
def test_each_fault_of_a_certificate_says_what_it_is_and_what_to_do(transport: str, authority: Authority,
                                                                    tmp_path: Path) -> None:
    trusting = IggyTlsConfig(enabled=True, ca_file=authority.ca_file)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    expired = authority.ca.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 2, tzinfo=UTC))

    def config(sandbox: SandboxIggy, tls: IggyTlsConfig) -> IggyConfig:
        address = sandbox.broker.websocket_address if transport == "websocket" else sandbox.address
        return msgspec.convert({"address": address, "transport": transport, "tls": msgspec.to_builtins(tls)},
                               IggyConfig)

    with of(authority.server) as sandbox:
        asyncio.run(IggyConnection(config(sandbox, trusting)).connect())
        asyncio.run(IggyConnection(config(sandbox, IggyTlsConfig(enabled=True, validate_certificate=False))).connect())
        localhost = IggyTlsConfig(enabled=True, ca_file=authority.ca_file, domain="localhost")
        asyncio.run(IggyConnection(config(sandbox, localhost)).connect())
        wrong = refusal(config(sandbox, IggyTlsConfig(enabled=True, ca_file=authority.ca_file, domain="iggy.test")))
        assert "certificate is not for iggy.test" in wrong and "iggy.tls.domain" in wrong
        unknown = refusal(config(sandbox, IggyTlsConfig(enabled=True, ca_file=other.ca_file)))
        assert f"an authority that iggy.tls.ca_file {other.ca_file} does not hold" in unknown
        public = refusal(config(sandbox, IggyTlsConfig(enabled=True)))
        assert "an authority that is not public" in public and "as iggy.tls.ca_file" in public
        plain = refusal(config(sandbox, IggyTlsConfig()))
        assert "it speaks TLS on this port" in plain and "enabled = true in [iggy.tls]" in plain
    with running_sandbox(tls=authority.context(True), websocket_port=0) as sandbox:
        assert "one that asks for a certificate of the client cannot be used" in refusal(config(sandbox, trusting))
    with of(expired) as sandbox:
        assert "certificate is out of date" in refusal(config(sandbox, trusting))
    with of(None) as sandbox:
        assert "does not speak TLS on this port" in refusal(config(sandbox, trusting))


class Http(socketserver.BaseRequestHandler):
    """Refuses whatever comes in, as a server of HTTP does."""

    def handle(self) -> None:
        """One connection."""
        if self.request.recv(65_536):
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@contextmanager
def http_server() -> Iterator[str]:
    """host:port of a server of HTTP that knows nothing else."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Http) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "{}:{}".format(*server.server_address)
        server.shutdown()


def test_other_ports_say_what_they_speak() -> None:
    with http_server() as address:
        assert "it speaks HTTP on this port" in refusal(IggyConfig(address=address))
        assert "not WebSocket" in refusal(IggyConfig(address=address, transport="websocket"))
    with of(None) as both:
        assert 'set transport = "websocket"' in refusal(IggyConfig(address=both.broker.websocket_address))
    with of(None) as other, pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "compatible", lambda version: False)
        assert "another version of Iggy's protocol" in refusal(IggyConfig(address=other.address))
    assert "connection refused" in refusal(IggyConfig(address="127.0.0.1:1"))
    assert "the name iggy.invalid is not known" in refusal(IggyConfig(address="iggy.invalid:8090"))
