"""Writes over TLS, with certificates of both sides, and through a proxy."""

import asyncio
import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from influxdb_servers import running_influxdb

from pipeline.schema import InfluxConfig
from stages.influxdb.answers import Answer, Paused, Written
from stages.influxdb.body import compress
from stages.influxdb.transport import Transport

BODY = compress(b"m f=1 1\n")


@contextmanager
def forwarder(port: int, tls: ssl.SSLContext | None, seen: list[bytes]) -> Iterator[int]:
    """A server that passes all to the local `port`, decrypted; `seen` gets the first bytes of each connection."""
    loop = asyncio.new_event_loop()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                seen.append(data[:1_000])
                writer.write(data)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, onward_writer), pipe(onward_reader, writer))

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls), loop).result(10)
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


class Authority:
    """A certificate authority, a server's certificate and a client's."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.server = self.ca.issue_cert("127.0.0.1")
        self.ca_file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)
        client = self.ca.issue_cert("client@example.org")
        self.client_cert_file, self.client_key_file = str(folder / "client.pem"), str(folder / "client.key")
        client.cert_chain_pems[0].write_to_path(self.client_cert_file)
        client.private_key_pem.write_to_path(self.client_key_file)

    def context(self, mutual: bool) -> ssl.SSLContext:
        """The server's side; `mutual`: clients have to have a certificate, too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.configure_cert(context)
        if mutual:
            self.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def post(url: str, **options: Any) -> Answer:
    """One write."""
    config = InfluxConfig(url=url, version="v2", org="sandbox", bucket="sandbox", token="sandbox-token", **options)
    return Transport(config, config.urls(), logging.getLogger("test")).post(BODY, "")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A new certificate authority."""
    return Authority(tmp_path)


def test_a_certificate_of_our_own_authority_is_trusted_when_named(authority: Authority) -> None:
    with running_influxdb() as server, forwarder(server.port, authority.context(False), []) as port:
        assert post(f"https://127.0.0.1:{port}", ca_file=authority.ca_file) == Written()
        refused = post(f"https://127.0.0.1:{port}")
        assert isinstance(refused, Paused)
        assert "certificate verify failed" in refused.words
        assert "ca_file" in refused.words
        assert post(f"https://127.0.0.1:{port}", insecure_skip_verify=True) == Written()


def test_a_server_that_asks_for_our_certificate_gets_it(authority: Authority) -> None:
    with running_influxdb() as server, forwarder(server.port, authority.context(True), []) as port:
        url = f"https://127.0.0.1:{port}"
        assert post(url, ca_file=authority.ca_file, client_cert_file=authority.client_cert_file,
                    client_key_file=authority.client_key_file) == Written()
        assert not isinstance(post(url, ca_file=authority.ca_file), Written)


def test_requests_go_through_the_proxy_with_the_extra_headers() -> None:
    seen: list[bytes] = []
    with running_influxdb() as server, forwarder(server.port, None, seen) as port:
        post("http://influx.example:8086", proxy=f"http://127.0.0.1:{port}", headers={"X-Team": "plant-7"})
        assert seen[0].startswith(b"POST http://influx.example:8086/api/v2/write?")
        post(f"http://127.0.0.1:{port}", headers={"X-Team": "plant-7"})
        assert any(b"X-Team: plant-7" in data for data in seen)
