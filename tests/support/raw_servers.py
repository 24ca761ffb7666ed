"""Servers that speak no more HTTP than a test lets them: bytes on a socket."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

#: What is done with a connection: by its socket, and its number from 0.
Script = Callable[[socket.socket, int], None]


@contextmanager
def raw_server(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server that runs `script` for each connection, in a thread, and closes the connection then."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    ended = threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        with suppress(OSError, ssl.SSLError):
            if tls:
                connection = tls.wrap_socket(connection, server_side=True)
            script(connection, number)
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def accept() -> None:
        with suppress(OSError):
            while not ended.is_set():
                connection, _ = listener.accept()
                connection.settimeout(30)
                threads.append(threading.Thread(target=serve, args=(connection, len(threads)), daemon=True))
                threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()


def read_request(connection: socket.socket) -> bytes:
    """One request with its body; b"" when the client has closed the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65_536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.partition(b":")[2] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    while len(body) < int(lengths[0] if lengths else 0):
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def always(answer: bytes) -> Script:
    """Answers every request so; each connection is kept as long as the client keeps it."""
    def script(connection: socket.socket, number: int) -> None:
        while read_request(connection):
            connection.sendall(answer)

    return script


def once(answer: bytes) -> Script:
    """Answers one request so, and closes the connection."""
    def script(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(answer)

    return script


def dripping(answer: bytes, seconds: float = 0.05) -> Script:
    """Answers a byte at a time, with pauses; for ever, by beginning `answer` anew."""
    def script(connection: socket.socket, number: int) -> None:
        read_request(connection)
        while True:
            for byte in answer:
                connection.sendall(bytes((byte,)))
                time.sleep(seconds)

    return script


def flooding(beginning: bytes, forever: bytes) -> Script:
    """Answers `beginning`, and then `forever` until the client has enough."""
    def script(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(beginning)
        while True:
            connection.sendall(forever)

    return script


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    """A whole HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
