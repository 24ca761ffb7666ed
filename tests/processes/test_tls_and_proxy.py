"""Writes over TLS, with certificates of both sides, and through a proxy."""

import logging
from pathlib import Path
from typing import Any

import pytest

from pipeline.compression import compress
from pipeline.config.schema import InfluxConfig
from stages.influxdb.answers import Accepted, Answer, OperatorNeeded
from stages.write.transport import Transport
from tests.support.influxdb_servers import running_influxdb
from tests.support.tls import Authority, forwarder

BODY = compress(b"m f=1 1\n")


def post(url: str, **options: Any) -> Answer:
    """One write."""
    config = InfluxConfig(url=url, version="v2", org="sandbox", bucket="sandbox", token="sandbox-token", **options)
    return Transport(config, config.servers(), logging.getLogger("test")).post(BODY, "")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A new certificate authority."""
    return Authority(tmp_path)


def test_a_certificate_of_our_own_authority_is_trusted_when_named(authority: Authority) -> None:
    with running_influxdb() as server, forwarder(server.port, authority.context(False), []) as port:
        assert post(f"https://127.0.0.1:{port}", ca_file=authority.ca_file) == Accepted()
        refused = post(f"https://127.0.0.1:{port}")
        assert isinstance(refused, OperatorNeeded)
        assert "certificate verify failed" in refused.message
        assert "ca_file" in refused.message
        assert post(f"https://127.0.0.1:{port}", insecure_skip_verify=True) == Accepted()


def test_a_server_that_asks_for_our_certificate_gets_it(authority: Authority) -> None:
    with running_influxdb() as server, forwarder(server.port, authority.context(True), []) as port:
        url = f"https://127.0.0.1:{port}"
        assert post(url, ca_file=authority.ca_file, client_cert_file=authority.client_cert_file,
                    client_key_file=authority.client_key_file) == Accepted()
        assert not isinstance(post(url, ca_file=authority.ca_file), Accepted)


def test_requests_go_through_the_proxy_with_the_extra_headers() -> None:
    seen: list[bytes] = []
    with running_influxdb() as server, forwarder(server.port, None, seen) as port:
        post("http://influx.example:8086", proxy=f"http://127.0.0.1:{port}", headers={"X-Team": "plant-7"})
        assert any(data.startswith(b"POST http://influx.example:8086/api/v2/write?") for data in seen)
        post(f"http://127.0.0.1:{port}", headers={"X-Team": "plant-7"})
        assert any(b"X-Team: plant-7" in data for data in seen)
