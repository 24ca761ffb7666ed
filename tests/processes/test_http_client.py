"""Every exchange ends, whatever a server sends: by an answer that is understood, or a fault that says why not."""

import gzip
import json
import socket
import time
import zlib
from pathlib import Path

import pytest

from pipeline.config.schema import InfluxConfig
from stages.influxdb.deadline import Limits
from stages.influxdb.http_answer import MAX_HEAD_BYTES, HttpFault
from stages.influxdb.http_client import HttpClient, Reply
from tests.support.raw_servers import Script, always, answer, dripping, flooding, once, raw_server, read_request
from tests.support.tls import Authority

LIMITS = Limits(seconds=20.0, max_bytes=100_000)
OK = b"HTTP/1.1 200 OK\r\n"
BOMB = gzip.compress(bytes(50_000_000))
#: name -> what is answered, and the kind of fault.
FAULTS: dict[str, tuple[Script, str]] = {
    "nothing": (once(b""), "broken"),
    "half a status line": (once(b"HTTP/1.1 20"), "broken"),
    "half a header": (once(OK + b"Content-Le"), "broken"),
    "not HTTP": (once(b"220 mail.example ESMTP\r\n"), "malformed"),
    "HTTP/0.9": (once(b"<html>hello</html>\r\n"), "malformed"),
    "bytes without sense": (once(bytes(range(255, 0, -1)) + b"\n"), "malformed"),
    "a TLS alert": (once(b"\x15\x03\x01\x00\x02\x02\x46"), "tls_expected"),
    "a status that is none": (once(b"HTTP/1.1 2OO OK\r\n\r\n"), "malformed"),
    "a status of four digits": (once(b"HTTP/1.1 2000 OK\r\n\r\n"), "malformed"),
    "a header that is none": (once(OK + b"no colon here\r\n\r\n"), "malformed"),
    "a Content-Length that is none": (once(OK + b"Content-Length: many\r\n\r\n"), "malformed"),
    "a negative Content-Length": (once(OK + b"Content-Length: -1\r\n\r\n"), "malformed"),
    "two Content-Lengths": (once(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), "malformed"),
    "a Content-Length that is too large": (once(OK + b"Content-Length: 50\r\n\r\nshort"), "broken"),
    "a Content-Length over the limit": (once(OK + b"Content-Length: 100001\r\n\r\n"), "too_large"),
    "a Content-Length of 10^30": (once(OK + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n"), "malformed"),
    "an unknown transfer encoding": (once(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n"), "malformed"),
    "a chunk without a size": (once(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc"), "malformed"),
    "a negative chunk": (once(OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc"), "malformed"),
    "a chunk that is longer than it says": (once(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n"), "malformed"),
    "a chunked body that ends early": (once(OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc"), "broken"),
    "a chunked body without its end": (once(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), "broken"),
    "a huge chunk": (flooding(OK + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n", b"x" * 65_536), "too_large"),
    "endless chunks": (flooding(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1_000), "too_large"),
    "endless trailers": (flooding(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 1_000), "too_large"),
    "an endless body": (flooding(OK + b"\r\n", b"x" * 65_536), "too_large"),
    "an endless body of an error": (flooding(b"HTTP/1.1 500 Oh\r\n\r\n", b"x" * 65_536), "too_large"),
    "endless headers": (flooding(OK, b"X-More: of the same\r\n" * 1_000), "too_large"),
    "one endless header": (flooding(OK + b"X-Long: ", b"x" * 65_536), "too_large"),
    "an endless status line": (flooding(b"HTTP/1.1 200 ", b"O" * 65_536), "too_large"),
    "endless interim answers": (flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000), "too_large"),
    "a gzip bomb": (once(answer("200 OK", BOMB, "Content-Encoding: gzip")), "too_large"),
    "a gzip bomb of an error": (once(answer("503 Oh", BOMB, "Content-Encoding: gzip")), "too_large"),
    "gzip that is none": (once(answer("200 OK", b"plain text", "Content-Encoding: gzip")), "malformed"),
    "gzip that ends early": (once(answer("200 OK", gzip.compress(b"text")[:-9], "Content-Encoding: gzip")), "broken"),
    "deflate, which nobody asked for": (
        once(answer("200 OK", zlib.compress(b"text"), "Content-Encoding: deflate")), "malformed"),
}


def client(**options: object) -> HttpClient:
    """A client with these options of `[influxdb]`."""
    return HttpClient(InfluxConfig(**options))  # type: ignore[arg-type]


def exchange(port: int, limits: Limits = LIMITS, body: bytes = b"m f=1 1\n") -> Reply:
    """One request."""
    return client().exchange("POST", f"http://127.0.0.1:{port}/write?db=d", body, {}, limits)


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_answer_is_a_fault_of_a_kind(name: str) -> None:
    script, kind = FAULTS[name]
    with raw_server(script) as port, pytest.raises(HttpFault) as caught:
        exchange(port)
    assert caught.value.kind == kind, caught.value
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("sent", "status", "body"), [
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    (b"HTTP/1.1 204\r\n\r\n", 204, b""),
    (b"HTTP/1.1 204 OK\nServer: bare line feeds\n\n", 204, b""),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 10\r\n\r\n", 204, b""),
    (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
     b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    (OK + b"Transfer-Encoding: Chunked\r\n\r\n3;name=value\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n", 200,
     b"abcde"),
    (OK + b"Content-Length: 2, 2\r\n\r\nok", 200, b"ok"),
    (OK + b"X-Folded: one\r\n two\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
    (answer("400 Bad", gzip.compress(b"a") + gzip.compress(b"b"), "Content-Encoding: gzip"), 400, b"ab"),
    (answer("200 OK", b"", "Content-Encoding: gzip"), 200, b""),
    (answer("400 Bad", b"x" * 100_000), 400, b"x" * 100_000)])
def test_an_answer_is_read_however_it_is_framed(sent: bytes, status: int, body: bytes) -> None:
    with raw_server(once(sent)) as port:
        reply = exchange(port)
    assert (reply.status, reply.body) == (status, body)


@pytest.mark.parametrize("sent", [
    b"HTTP/1.1 204 No Content\r\nServer: " + b"x" * 10_000, OK + b"Content-Length: 10000\r\n\r\n" + b"x" * 10_000,
    OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1_000, b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_an_answer_that_drips_ends_at_the_deadline(sent: bytes) -> None:
    with raw_server(dripping(sent, 0.02)) as port:
        began = time.monotonic()
        with pytest.raises(HttpFault) as caught:
            exchange(port, Limits(seconds=1.0, silence=0.5))
        assert 1.0 <= time.monotonic() - began < 60.0
        assert caught.value.kind == "timeout"
        assert "1 s" in str(caught.value)


def test_silence_ends_an_exchange_before_its_deadline() -> None:
    def silent(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.recv(1)  # until the client is gone

    with raw_server(silent) as port, pytest.raises(HttpFault) as caught:
        exchange(port, Limits(seconds=60.0, silence=0.3))
    assert caught.value.kind == "timeout"


def test_a_server_that_does_not_read_is_given_up_at_the_deadline() -> None:
    done: list[bool] = []

    def deaf(connection: socket.socket, number: int) -> None:
        while not done:
            time.sleep(0.02)

    with raw_server(deaf) as port, pytest.raises(HttpFault) as caught:
        try:
            exchange(port, Limits(seconds=1.0), bytes(50_000_000))
        finally:
            done.append(True)
    assert caught.value.kind == "timeout"


def test_a_server_may_answer_and_close_before_it_has_read_the_request() -> None:
    def early(connection: socket.socket, number: int) -> None:
        connection.sendall(answer("413 Too Large", b"", "Connection: close"))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass

    with raw_server(early) as port:
        assert exchange(port, body=bytes(5_000_000)).status == 413


def test_a_connection_is_kept_after_a_whole_answer_only() -> None:
    connections: list[int] = []

    def script(connection: socket.socket, number: int) -> None:
        connections.append(number)
        while request := read_request(connection):
            connection.sendall(json.loads(request.partition(b"\r\n\r\n")[2])["answer"].encode("latin-1"))

    good = "HTTP/1.1 204 No Content\r\n\r\n"
    with raw_server(script) as port:
        one = client()

        def ask(text: str) -> None:
            one.exchange("POST", f"http://127.0.0.1:{port}/", json.dumps({"answer": text}).encode(), {}, LIMITS)

        for _ in range(3):
            ask(good)
        assert connections == [0]
        ask(good + "HTTP/1.1 204 An answer that nobody asked for\r\n\r\n")
        ask(good)
        assert connections == [0, 1]
        ask("HTTP/1.1 204 No Content\r\nConnection: Close\r\n\r\n")
        ask(good)
        assert connections == [0, 1, 2]
        with pytest.raises(HttpFault):
            ask("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")
        ask("HTTP/1.0 204 No Content\r\n\r\n")
        ask(good)
        assert connections == [0, 1, 2, 3, 4]
        one.disconnect()
        ask(good)
        assert connections == [0, 1, 2, 3, 4, 5]


def test_an_answer_is_taken_piece_by_piece_and_may_be_left() -> None:
    with raw_server(flooding(OK + b"\r\n", b"x" * 65_536)) as port:
        limits = Limits(seconds=20.0, max_bytes=10**12)
        with client().open("POST", f"http://127.0.0.1:{port}/", b"", {}, limits) as reply:
            taken = 0
            for piece in reply:
                assert 0 < len(piece) <= 65_536
                taken += len(piece)
                reply.renew()
                if taken > 5_000_000:
                    break


def test_headers_come_in_lower_case_and_ours_say_what_is_configured() -> None:
    seen: list[bytes] = []

    def script(connection: socket.socket, number: int) -> None:
        seen.append(read_request(connection))
        connection.sendall(answer("200 OK", b"", "X-Influxdb-VERSION: 9", "X-A: 1", "x-a: 2"))

    with raw_server(script) as port:
        one = client(username="me", password="pass word", headers={"X-Team": "plant 7", "content-type": "text/x"})
        reply = one.exchange("POST", f"http://127.0.0.1:{port}/a b/%20", b"", {"Content-Type": "text/plain"}, LIMITS)
    assert reply.headers["x-influxdb-version"] == "9"
    assert reply.headers["x-a"] == "1, 2"
    lines = seen[0].split(b"\r\n")
    assert lines[0] == b"POST /a%20b/%20 HTTP/1.1"
    assert {b"Host: 127.0.0.1:%d" % port, b"Authorization: Basic bWU6cGFzcyB3b3Jk", b"X-Team: plant 7",
            b"Content-Type: text/x"} <= set(lines)


@pytest.mark.parametrize("url", ["http://", "http://:80/", "ftp://h/", "http://h:99999/", "http://[::1/", "h:80"])
def test_what_is_no_url_is_a_fault(url: str) -> None:
    with pytest.raises(HttpFault) as caught:
        client().exchange("GET", url, b"", {}, LIMITS)
    assert caught.value.kind == "url"


def test_a_header_that_would_break_the_request_is_never_sent_nor_shown() -> None:
    with raw_server(always(answer("204 No Content"))) as port, pytest.raises(HttpFault) as caught:
        client().exchange("GET", f"http://127.0.0.1:{port}/", b"", {"Authorization": "Token se\ncret"}, LIMITS)
    assert caught.value.kind == "header"
    assert "cret" not in str(caught.value)


def test_limits_hold_behind_tls_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one = client(ca_file=authority.ca_file)
    slow = dripping(OK + b"Server: " + b"x" * 10_000, 0.02)
    with raw_server(slow, authority.context(False)) as port, pytest.raises(HttpFault) as caught:
        one.exchange("POST", f"https://127.0.0.1:{port}/", b"", {}, Limits(seconds=1.0))
    assert caught.value.kind == "timeout"
    with raw_server(flooding(OK, b"a: b\r\n" * 1_000), authority.context(False)) as port, \
            pytest.raises(HttpFault) as caught:
        one.exchange("POST", f"https://127.0.0.1:{port}/", b"", {}, LIMITS)
    assert (caught.value.kind, str(MAX_HEAD_BYTES) in str(caught.value)) == ("too_large", True)
