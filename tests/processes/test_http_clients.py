"""Clients that are broken, slow or hostile get what they deserve, and others their answers."""

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import requests

from pipeline.config.http_schema import HttpConfig
from pipeline.config.plan import Plan
from pipeline.config.schema import Config, PipelineConfig, TopicConfig
from pipeline.http import guard, server
from pipeline.http.client import request
from pipeline.http.feeds import Feeds
from pipeline.http.history import History
from pipeline.http.listeners import Listeners
from pipeline.http.server import Servers
from pipeline.testbed.harness.waiting import wait_until
from tests.support.tls import Authority

CONFIG = Config(topics=(TopicConfig(stream="s", topic="t"),))


@contextmanager
def serving(folder: Path, http: HttpConfig) -> Iterator[tuple[Config, str]]:
    """A server, in a thread, of a pipeline that does not run: its configuration, and the address of its port."""
    config = msgspec.structs.replace(CONFIG, http=http, pipeline=PipelineConfig(runtime_dir=str(folder)))
    listeners = Listeners(config)
    plan = Plan(config, str(folder), 1, 1)
    loop = asyncio.new_event_loop()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        servers = Servers(listeners.local, listeners.port, plan, Feeds(plan), History(), logging.getLogger("http"))
        task = loop.create_task(servers.run())
        loop.call_soon(started.set)
        tasks.append(task)
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    started, tasks = threading.Event(), list[asyncio.Task[None]]()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(60)
    try:
        yield config, listeners.address
    finally:
        loop.call_soon_threadsafe(tasks[0].cancel)
        thread.join(60)
        listeners.close()


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def answer_to(address: str, data: bytes) -> bytes:
    """The whole answer to some bytes, until the server closes the connection."""
    received = b""
    with connected(address) as one:
        with contextlib.suppress(ConnectionError):
            one.sendall(data)
            while more := one.recv(65_536):
                received += more
    return received


def test_malformed_requests_are_refused_and_slow_ones_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(guard, "BODY_BYTES", 1_000)
    with serving(tmp_path, HttpConfig(listen="127.0.0.1:0")) as (config, address):
        url = f"http://{address}"
        assert requests.get(f"{url}/livez", timeout=60).json()["alive"] is False
        for data in (b"\x00\xff\x16\x03\x01 garbage\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\r\n\r\n",
                     b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /livez HTTP/1.1\r\n\r\n",
                     b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 3_000_000 + b"\r\n\r\n"):
            assert answer_to(address, data)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 421", b"HTTP/1.1 431", b""), data[:40]
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "evil.example#127.0.0.1"):
            found = requests.get(f"{url}/status", headers={"Host": host}, timeout=60)
            assert found.status_code == 421 and "allowed_hosts" in found.json()["error"]
        assert requests.get(f"{url}/payload", timeout=60).status_code == 403
        assert requests.post(f"{url}/status", data=b"x" * 10_000, timeout=60).status_code == 405
        assert requests.get(f"{url}/../../etc/passwd", timeout=60).status_code == 404
        # A head that does not end, byte by byte; and one that is never begun.
        began = time.monotonic()
        assert answer_to(address, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ") == b""
        assert answer_to(address, b"") == b""
        assert 0.5 < time.monotonic() - began < 30
        # The second request of a connection is bounded in the same way.
        complete = b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        assert answer_to(address, complete + complete + b"GET /ver").count(b'{"version"') == 2
        assert request(config, "GET", "/version")["version"]


def test_who_takes_all_connections_of_the_port_does_not_shut_out_the_commands(tmp_path: Path) -> None:
    with serving(tmp_path, HttpConfig(listen="127.0.0.1:0")) as (config, address), contextlib.ExitStack() as stack:
        for _ in range(3 * server.MAX_CONNECTIONS):
            with contextlib.suppress(OSError):
                stack.enter_context(connected(address))
        assert request(config, "GET", "/status")["state"] == "starting"
        stack.close()

        def answers() -> bool:
            try:
                return requests.get(f"http://{address}/version", timeout=60).ok
            except requests.ConnectionError:
                return False

        wait_until(answers, "the port answers again")


def test_over_tls_nothing_is_answered_in_the_clear(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = str(tmp_path / "server.pem"), str(tmp_path / "server.key")
    authority.server.cert_chain_pems[0].write_to_path(cert)
    authority.server.private_key_pem.write_to_path(key)
    (tmp_path / "run").mkdir()
    http = HttpConfig(listen="127.0.0.1:0", cert_file=cert, key_file=key, token="t0ken")
    with serving(tmp_path / "run", http) as (config, address):
        url = f"https://{address}"
        answer = requests.get(f"{url}/version", headers={"Authorization": "Bearer t0ken"}, timeout=60,
                              verify=authority.ca_file)
        assert answer.ok and answer.headers["Cache-Control"] == "no-store"
        assert requests.get(f"{url}/version", timeout=60, verify=authority.ca_file).status_code == 401
        assert b"HTTP/1.1 200" not in answer_to(address, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with connected(address) as one, old.wrap_socket(one) as tls:
            assert tls.version() in ("TLSv1.2", "TLSv1.3")
        assert request(config, "GET", "/version")["version"]
