"""Another address of a server: a port that passes everything on."""

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def relay_to(address: str, seen: bytearray | None = None) -> Iterator[str]:
    """host:port of a listener that passes its connections on to `address`, while the block lasts.

    `seen` gets all bytes that pass.
    """
    host, _, port = address.rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = [listener]

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = listener.accept()
                theirs = socket.create_connection((host, int(port)))
                opened.extend((ours, theirs))
                for one, other in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=_pass_on, args=(one, other, seen), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for one in opened:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _pass_on(one: socket.socket, other: socket.socket, seen: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            if seen is not None:
                seen += data
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
