"""Reading an answer: the same however it arrives, and never anything but an answer or a fault."""

import gzip
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from stages.influxdb.http_answer import MAX_HEAD_BYTES, AnswerReader, HttpFault

MAX_BYTES = 2_000


def receiver(data: bytes, sizes: list[int]) -> Callable[[int], bytes]:
    """Gives out `data` in pieces of these sizes, again and again; then b""."""
    left = bytearray(data)
    turn = 0

    def receive(most: int) -> bytes:
        nonlocal turn
        size = min(most, sizes[turn % len(sizes)])
        turn += 1
        piece = bytes(left[:size])
        del left[:size]
        return piece

    return receive


def read(data: bytes, sizes: list[int]) -> tuple[int, dict[str, str], bytes] | str:
    """The answer, or the kind of fault."""
    reader = AnswerReader(receiver(data, sizes), MAX_BYTES)
    try:
        head = reader.head()
        body = b"".join(reader.body(head))
    except HttpFault as fault:
        assert str(fault).isprintable()
        return fault.kind
    assert len(body) <= MAX_BYTES
    return head.status, head.headers, body


SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=5)


@given(st.binary(max_size=300), SIZES)
def test_any_bytes_are_an_answer_or_a_fault(data: bytes, sizes: list[int]) -> None:
    assert read(data, sizes) == read(data, [10**6])


@given(st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 400 Bad\n", b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204\r\n"]),
       st.lists(st.sampled_from([b"Content-Length: 3", b"Content-Length: 9999", b"Transfer-Encoding: chunked",
                                 b"Content-Encoding: gzip", b"X: \xff\x00\x1b[0m", b" folded", b"nonsense", b": x"])),
       st.lists(st.sampled_from([b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", gzip.compress(b"abc" * 500),
                                 gzip.compress(bytes(1_000_000)), b"\x15\x03", b"ffffffffffffffffffff\r\n"])), SIZES)
def test_pieces_of_answers_put_together_anyhow_are_an_answer_or_a_fault(
        first: bytes, headers: list[bytes], body: list[bytes], sizes: list[int]) -> None:
    data = first + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + b"".join(body)
    assert read(data, sizes) == read(data, [10**6])


@given(st.binary(max_size=MAX_BYTES), st.sampled_from(["length", "chunked", "end"]), st.booleans(), SIZES)
def test_a_body_comes_out_as_it_was_however_it_is_framed_and_cut(
        body: bytes, framing: str, compressed: bool, sizes: list[int]) -> None:
    sent = gzip.compress(body) if compressed else body
    if len(sent) > MAX_BYTES:
        return
    lines = [b"HTTP/1.1 200 OK", *[b"Content-Encoding: gzip"] * compressed]
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(sent))
    if framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        pieces = [sent[at:at + 7] for at in range(0, len(sent), 7)]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    found = read(b"\r\n".join(lines) + b"\r\n\r\n" + sent, sizes)
    assert isinstance(found, tuple)
    assert found[2] == body


def test_what_is_held_of_an_endless_answer_is_bounded() -> None:
    taken = 0

    def endless(most: int) -> bytes:
        nonlocal taken
        taken += most
        return b"x" * most

    reader = AnswerReader(endless, MAX_BYTES)
    try:
        reader.head()
    except HttpFault as fault:
        assert fault.kind == "too_large"
    assert taken <= 3 * MAX_HEAD_BYTES
