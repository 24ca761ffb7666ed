"""HTTP/1.1 for the sandbox: requests cut from a connection, answers put on it, and ways to break it off.

Keep-alive, `Content-Length` and chunked bodies, `Expect: 100-continue`. Source: RFC 9112.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from http import HTTPStatus
from typing import Literal, Protocol
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

#: Longest request line and headers, bytes.
MAX_HEAD_BYTES = 65_536
#: linger on, for 0 seconds: closing sends RST.
_LINGER_NOT = struct.pack("ii", 1, 0)

#: How a connection is to be broken off: before the body is read, in the middle of it, or not so early.
Break = Literal["", "before", "middle"]


class Request(Struct):
    """A request; the body comes last. Names of headers are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


class Response(Struct, frozen=True):
    """An answer. `Content-Length` is added; `pieces` go as chunks in the place of `body`, as fast as they are taken."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    #: Close the connection after it.
    close: bool = False
    pieces: Iterator[bytes] | None = None


class BadRequest(Exception):
    """What came is not HTTP/1.1."""


class Application(Protocol):
    """What answers requests."""

    def opened(self, connection: "Connection") -> None:
        """A client has connected."""

    def closed(self, connection: "Connection") -> None:
        """The connection is gone."""

    def head(self, request: Request) -> Break:
        """Called when a request's head has arrived and its body has not. Returns whether to break off."""

    def request(self, connection: "Connection", request: Request) -> None:
        """Called with a complete request; calls `connection.answer` or `connection.reset`, now or later, or never."""


def json_response(status: int, value: object) -> Response:
    """`value` as JSON."""
    return Response(status, json.dumps(value).encode() + b"\n", (("Content-Type", "application/json"),))


def parse_head(head: bytes) -> Request:
    """Request line and headers, without the empty line after them. Raises BadRequest."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest
    path, _, query = words[1].partition("?")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest
        headers[name.strip().lower()] = value.strip()
    return Request(words[0], unquote(path), dict(reversed(parse_qsl(query, keep_blank_values=True))), headers)


def cut_chunked(data: bytes | bytearray, start: int) -> tuple[bytes, int] | None:
    """The chunked body that begins at `start`, and where it ends; None when it isn't whole. Raises BadRequest."""
    body = bytearray()
    while True:
        line = data.find(b"\r\n", start)
        if line < 0:
            return None
        try:
            size = int(data[start:line].partition(b";")[0], 16)
        except ValueError:
            raise BadRequest from None
        if size < 0:
            raise BadRequest
        start = line + 2
        if size == 0:
            end = data.find(b"\r\n", start)
            while end > start:  # trailers
                start = end + 2
                end = data.find(b"\r\n", start)
            return None if end < 0 else (bytes(body), end + 2)
        if len(data) < start + size + 2:
            return None
        body += data[start:start + size]
        start += size + 2


class Connection(asyncio.Protocol):
    """One client's connection. One request at a time: the next is looked at when the one before is answered."""

    transport: asyncio.Transport

    def __init__(self, application: Application) -> None:
        self._application = application
        self._buffer = bytearray()
        self._request: Request | None = None
        self._break: Break = ""
        self._busy = False
        #: Of the answer under way: what is left of it; whether it is the last one, the client has no room, and its next
        #: piece's turn is set.
        self._pieces: Iterator[bytes] | None = None
        self._closes = self._paused = self._soon = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._application.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._pieces = None
        self._application.closed(self)

    def data_received(self, data: bytes) -> None:
        """Goes on with the request."""
        self._buffer += data
        self._advance()

    def answer(self, response: Response) -> None:
        """Answers the current request, and handles the next."""
        if self.transport.is_closing():
            return
        head = [f"HTTP/1.1 {response.status} {_phrase(response.status)}",
                *(f"{name}: {value}" for name, value in response.headers)]
        if response.pieces is not None:
            head.append("Transfer-Encoding: chunked")
        elif response.status not in (204, 304):
            head.append(f"Content-Length: {len(response.body)}")
        if response.close:
            head.append("Connection: close")
        self.transport.write("\r\n".join(head).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + response.body)
        self._pieces, self._closes = response.pieces, response.close
        if self._pieces is None:
            self._answered()
        else:
            self._go_on()

    def _answered(self) -> None:
        self._busy = False
        if self._closes:
            self.transport.close()
        else:
            self._advance()

    def _go_on(self) -> None:
        """Sends the next piece when others have had their turn; not while the client has no room."""
        if self._pieces is not None and not self._soon and not self._paused:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._next_piece)

    def _next_piece(self) -> None:
        self._soon = False
        if self._pieces is None:
            return
        try:
            piece = next(self._pieces, None)
        except Exception:
            self.reset()  # or the client would wait for the rest
            raise
        if piece is None:
            self._pieces = None
            self.transport.write(b"0\r\n\r\n")
            self._answered()
            return
        if piece:
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self._go_on()

    def pause_writing(self) -> None:
        """The client takes no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._paused = False
        self._go_on()

    def reset(self) -> None:
        """Breaks the connection off with RST."""
        if not self.transport.is_closing():
            raw: socket.socket = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            self.transport.abort()

    def _advance(self) -> None:
        try:
            while not self._busy and not self.transport.is_closing() and self._step():
                pass
        except BadRequest:
            self.answer(Response(400, b"bad request\n", (("Content-Type", "text/plain"),), close=True))

    def _step(self) -> bool:
        """One head or one body; False when more has to come first."""
        if self._request is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise BadRequest
                return False
            request = self._request = parse_head(bytes(self._buffer[:end]))
            del self._buffer[:end + 4]
            self._break = self._application.head(request)
            if self._break == "before":
                self.reset()
                return False
            if request.headers.get("expect", "").lower() == "100-continue":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request = self._request
        if self._break == "middle":
            if 2 * len(self._buffer) >= _length(request):
                self.reset()
            return False
        if "chunked" in request.headers.get("transfer-encoding", "").lower():
            cut = cut_chunked(self._buffer, 0)
            if cut is None:
                return False
            request.body, end = cut
        else:
            end = _length(request)
            if len(self._buffer) < end:
                return False
            with memoryview(self._buffer) as view:
                request.body = bytes(view[:end])
        del self._buffer[:end]
        self._request, self._busy = None, True
        self._application.request(self, request)
        return True


def _length(request: Request) -> int:
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise BadRequest
    return int(length)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
