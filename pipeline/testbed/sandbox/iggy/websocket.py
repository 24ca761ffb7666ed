"""WebSocket's server side, as much as Iggy's client needs: the handshake, and whole binary messages. Pure.

Source: RFC 6455.
"""

import base64
import hashlib
import struct

#: From RFC 6455, 1.3.
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
#: Longest head of a request, bytes.
MAX_HEAD_BYTES = 16_384


class NotWebSocket(Exception):
    """The request does not ask for WebSocket."""


class BadFrame(Exception):
    """A frame that no client may send."""


def handshake(head: bytes) -> bytes:
    """The answer to a request's head, which ends with an empty line. Raises NotWebSocket."""
    headers = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    key = headers.get(b"sec-websocket-key", b"")
    if not head.startswith(b"GET ") or headers.get(b"upgrade", b"").lower() != b"websocket" or not key:
        raise NotWebSocket
    accept = base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())
    return (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")


def frame(size: int, opcode: int = _BINARY) -> bytes:
    """The head of a frame that is a whole message of `size` bytes."""
    first = bytes((0x80 | opcode,))
    if size < 126:
        return first + bytes((size,))
    return first + (struct.pack(">BH", 126, size) if size < 1 << 16 else struct.pack(">BQ", 127, size))


class FrameReader:
    """Takes frames apart; what comes in pieces is kept until it is whole."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        #: What has to be sent at once: pongs, and the answer to a close.
        self.replies: list[bytes] = []
        self.closed = False

    def feed(self, data: bytes) -> bytes:
        """The content of the data frames that are whole now. Raises BadFrame."""
        self._buffer += data
        found = []
        while not self.closed and (piece := self._next()) is not None:
            opcode, content = piece
            if opcode in (_CONTINUATION, _BINARY):
                found.append(content)
            elif opcode == _PING:
                self.replies.append(frame(len(content), _PONG) + content)
            elif opcode == _CLOSE:
                self.closed = True
                self.replies.append(frame(len(content), _CLOSE) + content)
            elif opcode != _PONG:
                raise BadFrame(f"opcode {opcode}")
        return b"".join(found)

    def _next(self) -> tuple[int, bytes] | None:
        """The first frame of the buffer, which is taken out of it; None while it is not whole."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, at = buffer[1] & 0x7f, 2
        if size >= 126:
            length = 2 if size == 126 else 8
            if len(buffer) < at + length:
                return None
            size, at = int.from_bytes(buffer[at:at + length], "big"), at + length
        if not buffer[1] & 0x80 or size > self._max_bytes:
            raise BadFrame("not masked, or too large")
        if len(buffer) < at + 4 + size:
            return None
        mask, content = bytes(buffer[at:at + 4]), bytes(buffer[at + 4:at + 4 + size])
        opcode = buffer[0] & 0x0f
        del buffer[:at + 4 + size]
        return opcode, _unmasked(content, mask)


def _unmasked(content: bytes, mask: bytes) -> bytes:
    size = len(content)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(content, "little") ^ key).to_bytes(size, "little")
