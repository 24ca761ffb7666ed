"""Reads one HTTP/1.x answer, however hostile, within limits on bytes. It uses no sockets: `receive` is passed in.

Source: RFC 9112 (messages, chunks, when a body ends), RFC 9110 (interim answers, Content-Encoding).
"""

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct

#: Bytes to receive at once, and the largest piece of a body that is returned.
PIECE_BYTES = 65_536
#: Limit of status lines and headers, including those of interim answers and trailers, bytes.
MAX_HEAD_BYTES = 65_536
#: Window bits for zlib: a gzip member.
_GZIP_WINDOW_BITS = 31
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: [^\r\n]*)?")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
#: What a server that expects TLS answers to plain HTTP: an alert record of TLS 1.x. Source: RFC 8446, 5.1.
_TLS_ALERT = b"\x15\x03"
TLS_EXPECTED = "it speaks TLS on this port, and got a request without TLS"
#: Bytes of an invalid answer that an error quotes.
_SHOWN_BYTES = 60

#: What can go wrong with an exchange; `stages.influxdb.failures` has the meaning and the advice for each.
FaultKind = Literal[
    "url", "resolve", "refused", "unreachable", "connect_timeout", "broken", "timeout", "too_large", "malformed",
    "tls_untrusted", "tls_name", "tls_expired", "tls_not_spoken", "tls_expected", "tls_client_certificate", "tls",
    "tls_files", "proxy", "proxy_refused", "proxy_credentials", "header"]


class HttpFault(Exception):
    """There is no answer, or an invalid one. The text has what happened, without secrets."""

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
    """Reads one answer with `receive`, which returns up to a number of bytes; b"" at the end.

    `receive` enforces the deadline: it raises HttpFault after it.
    """

    def __init__(self, receive: Callable[[int], bytes], max_bytes: int) -> None:
        """`max_bytes`: of the body, as sent and decompressed each."""
        self._receive = receive
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._head_left = MAX_HEAD_BYTES
        #: Bytes received so far.
        self.received = 0
        #: The body was read to its end.
        self.complete = False

    @property
    def leftover(self) -> bool:
        """Whether more was received than the answer: the connection can't be used again."""
        return bool(self._buffer)

    def head(self) -> AnswerHead:
        """The final status line and headers; interim answers (1xx) are skipped. Raises HttpFault."""
        while True:
            head = self._one_head()
            if head.status >= 200 or head.status == 101:
                return head

    def body(self, head: AnswerHead, is_bodyless: bool = False) -> Iterator[bytes]:
        """The pieces of the body, decompressed. `is_bodyless`: it answers HEAD. Raises HttpFault."""
        encoding = head.headers.get("content-encoding", "").strip().lower()
        raw = self._limited(self._raw_body(head, is_bodyless))
        if encoding in ("gzip", "x-gzip"):
            yield from self._limited(_gunzip(raw))
        elif encoding in ("", "identity"):
            yield from raw
        else:
            raise HttpFault("malformed", f"its body is encoded as {_quote(encoding.encode())}, which was not requested")
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
            raise HttpFault("malformed", f"it does not answer in HTTP: {_quote(first)}")
        headers: dict[str, str] = {}
        while line := self._line():
            name, colon, value = line.partition(b":")
            # A line that begins with a space continues the one before: obsolete, and not needed here.
            if line[:1] in b" \t":
                continue
            if not colon or not name.strip():
                raise HttpFault("malformed", f"its header line is invalid: {_quote(line)}")
            key, text = name.strip().lower().decode("latin-1"), value.strip().decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return AnswerHead(int(match[2]), headers, match[1] != b"0")

    def _raw_body(self, head: AnswerHead, is_bodyless: bool) -> Iterator[bytes]:
        """The body as it was sent, without the framing."""
        coding = head.headers.get("transfer-encoding", "").strip().lower()
        if is_bodyless or head.status in (101, 204, 304):
            return
        if coding:
            if coding != "chunked":
                raise HttpFault("malformed", f"its Transfer-Encoding is {_quote(coding.encode())}")
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
                raise HttpFault("malformed", f"a chunk of its body has no size: {_quote(size)}")
            if int(size, 16) == 0:
                while self._line():  # trailers
                    pass
                return
            yield from self._exactly(int(size, 16))
            if self._line():
                raise HttpFault("malformed", "a chunk of its body is longer than its size")

    def _line(self) -> bytes:
        """A line without its end, within the limit of the head."""
        at = 0
        while (end := self._buffer.find(b"\n", at)) < 0:
            at = len(self._buffer)
            # A TLS alert has no line break: without this it would end in a timeout.
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
        """Receives more; False at the end of the connection."""
        data = self._receive(PIECE_BYTES)
        self._buffer += data
        self.received += len(data)
        return bool(data)

    def _ended(self) -> HttpFault:
        if not self.received:
            return HttpFault("broken", "it closed the connection without an answer")
        return HttpFault("broken", f"it closed the connection in the middle of its answer ({self.received} bytes came)")


def _content_length(value: str | None) -> int | None:
    """The value of the header; repeated equal ones count once. Raises HttpFault."""
    if value is None:
        return None
    lengths = {text.strip() for text in value.split(",")}
    text = lengths.pop()
    if lengths or not re.fullmatch("[0-9]{1,18}", text):
        raise HttpFault("malformed", f"its Content-Length is {_quote(value.encode())}")
    return int(text)


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The content of gzip members, in pieces of PIECE_BYTES at most, however much they expand."""
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
                raise HttpFault("malformed", "its body is not gzip, as its Content-Encoding has it") from None
            piece = member.unused_data if member.eof else member.unconsumed_tail
    while began and not member.eof:  # the rest of the last piece, buffered by zlib
        piece = member.decompress(member.unconsumed_tail, PIECE_BYTES)
        if not piece and not member.eof:
            raise HttpFault("broken", "its gzip body ends early")
        yield piece


def _quote(data: bytes) -> str:
    """The beginning of some bytes for an error, in printable ASCII."""
    return ascii(data[:_SHOWN_BYTES].decode("latin-1")) + ("..." if len(data) > _SHOWN_BYTES else "")
