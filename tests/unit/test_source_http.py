"""What a source's server answers over HTTP, however hostile: an answer, or words that it is not understood."""

import gzip
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from pipeline.config.source_schema import OutputConfig, SourceConfig, SourceInfluxConfig
from stages.languages.language import QueryRequest
from stages.query.http import MAX_ERROR_BYTES, HttpTransport
from stages.query.reader import SourceReader
from stages.query.transport import QueryFailed


@contextmanager
def answering(write: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that answers each request as `write` does, and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve() -> None:
            while True:
                with suppress(OSError):  # the client has enough; or the test is over
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(65_536)
                        write(connection)
                if server.fileno() < 0:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def endless(connection: socket.socket) -> None:
    """An error whose body has no end."""
    connection.sendall(b"HTTP/1.1 500 X\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65_536)


def bomb(connection: socket.socket) -> None:
    """An error that grows."""
    connection.sendall(b"HTTP/1.1 500 X\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(200_000_000)))


def headers(connection: socket.socket) -> None:
    """Headers without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-A: " + b"b" * 10_000 + b"\r\n")


@pytest.mark.parametrize("write", [
    endless, bomb, headers, lambda connection: connection.sendall(b"\x00\xff garbage \r\n\r\n"),
    lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nshort"),
    lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nno gzip"),
    lambda connection: None])
def test_no_answer_is_more_than_a_failure(write: Callable[[socket.socket], None]) -> None:
    with answering(write) as url:
        channel = HttpTransport(SourceInfluxConfig(url=url, read_timeout_ms=2_000, token="secret-token"))
        with pytest.raises(QueryFailed) as caught, channel.ask(url, QueryRequest("/query", b"q"), "v2") as reply:
            for _ in reply:
                pass
    assert len(caught.value.answer.message) < MAX_ERROR_BYTES
    assert "secret-token" not in caught.value.answer.message


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
@pytest.mark.parametrize("body", [
    b"<html>login</html>", b"[]", b"null", b'{"results":7}', b'{"results":[{"series":[{"values":[[null]]}]}]}',
    b'{"a":' * 5_000, b"#datatype,string\r\n", b"\xff\xfe\x00", b'"', b"",
    b'{"table_name":[1,{"x":null}]}', b"#datatype,long\n,result,_value\n,,x\n"])
def test_no_list_of_measurements_is_a_fault_of_ours(version: str, body: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with answering(lambda connection: connection.sendall(answer)) as url:
        config = SourceConfig(name="s", state_file="x", output=OutputConfig(stream="s"), influxdb=SourceInfluxConfig(
            url=url, version=version, bucket="b", database="b", read_timeout_ms=2_000))  # type: ignore[arg-type]
        try:
            names = SourceReader(config, logging.getLogger("test")).discover().measurements
        except QueryFailed as failed:
            assert failed.answer.message
        else:
            assert all(isinstance(name, str) for name in names)
