"""A receiver that only counts: each POST is answered 204 unread. What a benchmark of everything before it writes to."""

import asyncio
import json

from msgspec import Struct

#: Read at once, bytes.
BUFFER_BYTES = 1 << 20
_NO_CONTENT = b"HTTP/1.1 204 No Content\r\nX-Influxdb-Build: OSS\r\nX-Influxdb-Version: v2.7.12\r\n\r\n"


class Stats(Struct):
    """What was received, as `/sandbox/stats` reports it: bytes of bodies as sent, statuses of answers."""

    requests: int = 0
    bytes: int = 0
    statuses: dict[str, int] = {}
    #: Requests whose connection was reset, or that are never answered, by a fault rule.
    resets: int = 0
    hangs: int = 0

    def count_status(self, status: int) -> None:
        """Counts an answer."""
        self.statuses[str(status)] = self.statuses.get(str(status), 0) + 1


class CountingConnection(asyncio.BufferedProtocol):
    """One client's connection. Bodies need a `Content-Length`; the bytes of one are skipped where they arrive."""

    transport: asyncio.Transport

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._head = b""
        #: Bytes of the body that are still to be received, and the answer then.
        self._left = 0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Counts what came."""
        position = 0
        while position < nbytes:
            if self._left:
                taken = min(self._left, nbytes - position)
                position += taken
                self._left -= taken
                if not self._left:
                    self.transport.write(self._answer)
            else:
                self._head += bytes(self._view[position:nbytes])
                position = nbytes
                head, end, rest = self._head.partition(b"\r\n\r\n")
                if end:
                    self._head = b""
                    position -= len(rest)
                    if not self._begin(head):
                        return

    def _begin(self, head: bytes) -> bool:
        """Takes a request's head; False when the connection is closed over it."""
        lowered = head.lower()
        if head.startswith(b"GET /sandbox/stats"):
            body = json.dumps({"requests": self._stats.requests, "bytes": self._stats.bytes,
                               "statuses": self._stats.statuses}).encode()
            self._answer = (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                            % len(body)) + body
        elif b"transfer-encoding:" in lowered:
            self.transport.write(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.transport.close()
            return False
        else:
            self._answer = _NO_CONTENT
        length = lowered.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0].strip()
        self._left = int(length) if length.isdigit() else 0
        if head.startswith(b"POST"):
            self._stats.requests += 1
            self._stats.bytes += self._left
            self._stats.count_status(204)
        if not self._left:
            self.transport.write(self._answer)
        return True
