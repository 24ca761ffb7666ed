"""The sandbox's side of WebSocket: frames in pieces of any size come out whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.testbed.sandbox.iggy.websocket import BadFrame, FrameReader, NotWebSocket, frame, handshake

MAX_BYTES = 200_000


def masked(opcode: int, content: bytes, mask: bytes, last: bool = True) -> bytes:
    """A frame as clients send it."""
    head = bytearray(frame(len(content), opcode))
    head[0] = (0x80 if last else 0) | opcode
    head[1] |= 0x80
    return bytes(head) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))


@given(st.lists(st.tuples(st.sampled_from([2, 0, 9, 10]), st.binary(max_size=300), st.binary(min_size=4, max_size=4)),
                max_size=6), st.lists(st.integers(1, 200), min_size=1, max_size=20))
def test_what_clients_send_comes_out_however_it_is_cut(frames: list[tuple[int, bytes, bytes]], cuts: list[int]) -> None:
    reader, sent, found, at, turn = FrameReader(MAX_BYTES), b"".join(masked(*one) for one in frames), b"", 0, 0
    while at < len(sent):
        size = cuts[turn % len(cuts)]
        found += reader.feed(sent[at:at + size])
        at, turn = at + size, turn + 1
    assert found == b"".join(content for opcode, content, _ in frames if opcode in (0, 2))
    assert reader.replies == [frame(len(content), 10) + content for opcode, content, _ in frames if opcode == 9]


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 150_000])
def test_frames_of_every_length_are_read(size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert FrameReader(MAX_BYTES).feed(masked(2, content, b"\x01\x80\xff\x00")) == content


@pytest.mark.parametrize("bad", [frame(5) + b"plain", masked(1, b"text", b"abcd"), masked(2, bytes(200_001), b"abcd"),
                                 masked(3, b"", b"abcd")])
def test_frames_that_no_client_may_send_are_refused(bad: bytes) -> None:
    with pytest.raises(BadFrame):
        FrameReader(MAX_BYTES).feed(bad)


def test_the_handshake_is_that_of_the_standard() -> None:
    asked = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in handshake(asked)
    with pytest.raises(NotWebSocket):
        handshake(b"GET / HTTP/1.1\r\nHost: a")


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    try:
        FrameReader(MAX_BYTES).feed(data)
    except BadFrame:
        pass
