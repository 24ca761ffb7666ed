"""Reads one HTTP/1.x answer, however hostile, within limits on bytes. Knows no sockets: `receive` is passed in.

Source: RFC 9112 (messages, chunks, when a body ends), RFC 9110 (interim answers, Content-Encoding).
"""

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct

#: Bytes asked of the socket at once, and largest piece of a body that is handed on.
PIECE_BYTES = 65_536
#: Status lines and headers, those of interim answers and of the trailers with them, bytes.
MAX_HEAD_BYTES = 65_536
#: Window bits for zlib: a gzip member.
_GZIP_WINDOW_BITS = 31
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: [^\r\n]*)?")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
#: Start of a TLS 1.x alert record, which a TLS server sends to a client without TLS. Source: RFC 8446, 5.1.
_TLS_ALERT = b"\x15\x03"
TLS_EXPECTED = "it speaks TLS on this port, and was spoken to without"
#: Most bytes of a malformed answer that are shown.
_SHOWN_BYTES = 60

#: The kinds of faults of an exchange; `stages.influxdb.failures` has the advice for each.
FaultKind = Literal[
    "url", "resolve", "refused", "unreachable", "connect_timeout", "broken", "timeout", "too_large", "malformed",
    "tls_untrusted", "tls_name", "tls_expired", "tls_not_spoken", "tls_expected", "tls_client_certificate", "tls",
    "tls_files", "proxy", "proxy_refused", "proxy_credentials", "header"]


class HttpFault(Exception):
    """There is no answer, or a malformed one. The text says what happened, and contains no secrets."""

    def __init__(self, kind: FaultKind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class AnswerHead(Struct, frozen=True):
    """Status line and headers."""

    status: int
    #: By name in lower case; values of the same name are joined by ", ".
    headers: dict[str, str]
    #: HTTP/1.1 or later.
    persistent_by_default: bool


class AnswerReader:
    """Takes one answer from `receive`, a function from a number of bytes to that many at most; b"" at the end.

    `receive` keeps the deadline: it raises HttpFault after it.
    """

    def __init__(self, receive: Callable[[int], bytes], max_bytes: int) -> None:
        """`max_bytes`: of the body, as sent and decompressed each."""
        self._receive = receive
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._head_left = MAX_HEAD_BYTES
        #: Bytes that have come so far.
        self.received = 0
        #: The body was read to its end.
        self.complete = False

    @property
    def leftover(self) -> bool:
        """Whether more has come than the answer: the connection is out of step, and can't be used again."""
        return bool(self._buffer)

    def head(self) -> AnswerHead:
        """The final status line and headers; interim answers (1xx) are passed over. Raises HttpFault."""
        while True:
            head = self._one_head()
            if head.status >= 200 or head.status == 101:
                return head

    def body(self, head: AnswerHead, has_none: bool = False) -> Iterator[bytes]:
        """The body's pieces, decompressed. `has_none`: the answer is one to HEAD. Raises HttpFault."""
        encoding = head.headers.get("content-encoding", "").strip().lower()
        raw = self._limited(self._raw_body(head, has_none))
        if encoding in ("gzip", "x-gzip"):
            yield from self._limited(_gunzip(raw))
        elif encoding in ("", "identity"):
            yield from raw
        else:
            raise HttpFault("malformed", f"its body is encoded as {shown(encoding.encode())}, which was not asked for")
        self.complete = True

    def _limited(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        size = 0
        for piece in pieces:
            size += len(piece)
            if size > self._max_bytes:
                raise HttpFault("too_large", f"it answers with more than {self._max_bytes} bytes")
            if piece:
                yield piece

    def _one_head(self) -> AnswerHead:
        first = self._line()
        if first.startswith(_TLS_ALERT):
            raise HttpFault("tls_expected", TLS_EXPECTED)
        match = _STATUS_LINE.fullmatch(first)
        if not match:
            raise HttpFault("malformed", f"it does not answer in HTTP: {shown(first)}")
        headers: dict[str, str] = {}
        while line := self._line():
            name, colon, value = line.partition(b":")
            # A line that starts with a space continues the one before: obsolete, and not needed here.
            if line[:1] in b" \t":
                continue
            if not colon or not name.strip():
                raise HttpFault("malformed", f"a header of it is none: {shown(line)}")
            key, text = name.strip().lower().decode("latin-1"), value.strip().decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return AnswerHead(int(match[2]), headers, match[1] != b"0")

    def _raw_body(self, head: AnswerHead, has_none: bool) -> Iterator[bytes]:
        """The body as it is sent, without the framing."""
        coding = head.headers.get("transfer-encoding", "").strip().lower()
        if has_none or head.status in (101, 204, 304):
            return
        if coding:
            if coding != "chunked":
                raise HttpFault("malformed", f"its Transfer-Encoding is {shown(coding.encode())}")
            yield from self._chunks()
            return
        length = _content_length(head.headers.get("content-length"))
        if length is not None:
            if length > self._max_bytes:
                raise HttpFault("too_large", f"it answers with {length} bytes, where {self._max_bytes} are the limit")
            yield from self._exactly(length)
            return
        while piece := self._some(PIECE_BYTES):
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = self._line().partition(b";")[0].strip()
            if not _CHUNK_SIZE.fullmatch(size):
                raise HttpFault("malformed", f"a chunk of its body has no size: {shown(size)}")
            if int(size, 16) == 0:
                while self._line():  # trailers
                    pass
                return
            yield from self._exactly(int(size, 16))
            if self._line():
                raise HttpFault("malformed", "a chunk of its body is longer than its declared length")

    def _line(self) -> bytes:
        """A line without its end; counts as head."""
        at = 0
        while (end := self._buffer.find(b"\n", at)) < 0:
            at = len(self._buffer)
            # A TLS alert has no line break, so it would look like an answer that never arrives.
            if self._buffer.startswith(_TLS_ALERT):
                return bytes(self._buffer)
            if at > self._head_left:
                break
            if not self._fill():
                raise self._ended()
        else:
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[:end + 1]
            self._head_left -= end + 1
            if self._head_left >= 0:
                return line
        raise HttpFault("too_large", f"it answers with more than {MAX_HEAD_BYTES} bytes of headers")

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._some(min(size, PIECE_BYTES))
            if not piece:
                raise self._ended()
            size -= len(piece)
            yield piece

    def _some(self, most: int) -> bytes:
        """Up to `most` bytes; b"" at the end of the connection."""
        if not self._buffer:
            self._fill()
        piece = bytes(self._buffer[:most])
        del self._buffer[:most]
        return piece

    def _fill(self) -> bool:
        """Takes more in; False at the end of the connection."""
        data = self._receive(PIECE_BYTES)
        self._buffer += data
        self.received += len(data)
        return bool(data)

    def _ended(self) -> HttpFault:
        if not self.received:
            return HttpFault("broken", "it closed the connection without an answer")
        return HttpFault("broken", f"it closed the connection in the middle of its answer ({self.received} bytes came)")


def _content_length(value: str | None) -> int | None:
    """Of the header; equal ones that were joined count once. Raises HttpFault."""
    if value is None:
        return None
    lengths = {text.strip() for text in value.split(",")}
    text = lengths.pop()
    if lengths or not re.fullmatch("[0-9]{1,18}", text):
        raise HttpFault("malformed", f"its Content-Length is {shown(value.encode())}")
    return int(text)


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The content of gzip members, in pieces of PIECE_BYTES at most, whatever they grow to."""
    member = zlib.decompressobj(_GZIP_WINDOW_BITS)
    began = False
    for piece in pieces:
        while piece:
            if member.eof:
                member = zlib.decompressobj(_GZIP_WINDOW_BITS)
            began = True
            try:
                yield member.decompress(piece, PIECE_BYTES)
            except zlib.error:
                raise HttpFault("malformed", "its body is not gzip, as its Content-Encoding declares") from None
            piece = member.unused_data if member.eof else member.unconsumed_tail
    while began and not member.eof:  # what zlib still holds of the last piece
        piece = member.decompress(member.unconsumed_tail, PIECE_BYTES)
        if not piece and not member.eof:
            raise HttpFault("broken", "its gzip body ends early")
        yield piece


def shown(data: bytes) -> str:
    """The beginning of some bytes for logs, with escapes for what could act on a terminal or start a line."""
    return ascii(data[:_SHOWN_BYTES].decode("latin-1")) + ("..." if len(data) > _SHOWN_BYTES else "")
