"""A server behind a link with latency: a port that passes everything on, requests later than they came."""

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

#: Bytes that are passed on at once.
PIECE_BYTES: Final = 1 << 18


@contextlib.contextmanager
def slow_link(port: int, milliseconds: float) -> Iterator[int]:
    """Another port of a server on this machine, while the block lasts: what is sent to the server takes so long."""
    listener = socket.create_server(("127.0.0.1", 0))
    opened: deque[socket.socket] = deque([listener])

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = listener.accept()
                theirs = socket.create_connection(("127.0.0.1", port))
                opened.extend((ours, theirs))
                for one, other, pause in ((ours, theirs, milliseconds / 1000), (theirs, ours, 0.0)):
                    threading.Thread(target=_pass_on, args=(one, other, pause), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        for one in opened:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _pass_on(one: socket.socket, other: socket.socket, pause: float) -> None:
    """Passes on what comes, each piece after a pause."""
    with contextlib.suppress(OSError):
        while data := one.recv(PIECE_BYTES):
            time.sleep(pause)
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
