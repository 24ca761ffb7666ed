"""What a source's server answers over HTTP, however hostile: an answer, or words that it is not understood."""

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pipeline.schema import InfluxConfig
from stages.source.channel import Failed
from stages.source.dialect import Ask
from stages.source.http import MAX_WORDS_BYTES, Http


@contextmanager
def answering(write: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that takes one request, and answers as `write` does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                try:
                    write(connection)
                except OSError:
                    pass  # the client has enough

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
        channel = Http(InfluxConfig(url=url, read_timeout_ms=2_000, token="secret-token"), gzip=True)
        with pytest.raises(Failed) as caught, channel.ask(url, Ask("/query", b"q"), "v2") as reply:
            for _ in reply:
                pass
    assert len(caught.value.answer.words) < MAX_WORDS_BYTES
    assert "secret-token" not in caught.value.answer.words
