"""What is no InfluxDB, or answers unlike one, costs no message: it is said what answers, and waited for."""

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.compression import compress
from pipeline.config.schema import InfluxConfig
from stages.influxdb.answers import Accepted, Answer, OperatorNeeded, Retry
from stages.write.startup_check import log_servers
from stages.write.transport import Transport
from tests.processes.test_http_client import FAULTS
from tests.support.iggy_servers import RunningIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.raw_servers import Script, always, answer, dripping, once, raw_server, read_request
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, send

BODY = compress(b"m f=1 1\n")
TARGETS: dict[str, dict[str, Any]] = {
    "v1": {"version": "v1", "database": "d"}, "v2": {"version": "v2", "bucket": "b", "org": "o"},
    "v3": {"version": "v3", "database": "d"}, "auto": {"version": "auto", "bucket": "b", "org": "o"}}
PAGE = b"<!DOCTYPE html>\n<html><head><title>Hotel\x1b[2J WLAN: sign in</title></head><body>...</body></html>"
HTML = "Content-Type: text/html; charset=utf-8"
JSON = "Content-Type: application/json"
#: name -> what answers every request, and what the pause has to say of it.
OTHERS: dict[str, tuple[Script, str]] = {
    "a login page": (always(answer("200 OK", PAGE, HTML)), "sign in"),
    "a login page, compressed": (always(answer("200 OK", compress(PAGE), HTML, "Content-Encoding: gzip")), "sign in"),
    "a login page behind a redirect": (always(answer("302 Found", b"", "Location: http://login.example/")),
                                       "login.example"),
    "a page that says 400": (always(answer("400 Bad Request", b"<html><title>400 Bad Request</title></html>", HTML)),
                             "400 Bad Request"),
    "a page that says 404": (always(answer("404 Not Found", b"<html><title>404 Not Found</title></html>", HTML,
                                           "Server: nginx")), "nginx"),
    "python -m http.server": (always(answer("501 Unsupported method ('POST')", b"<!DOCTYPE HTML><html lang=\"en\">"
                                            b"<head><title>Error response</title></head></html>", HTML)),
                              "Error response"),
    "an empty 200": (always(answer("200 OK")), "200"),
    "an empty 400": (always(answer("400 Bad Request")), "400"),
    "200 with an error in JSON": (always(answer("200 OK", b'{"error":"token expired"}', JSON)), "token expired"),
    "200 with errors in JSON": (always(answer("200 OK", b'{"errors":[{"status":403}]}', JSON)), "403"),
    "202": (always(answer("202 Accepted", b"", "Server: queue")), "queue"),
    "a firewall": (always(answer("403 Forbidden", b"<html><title>Blocked by policy 7</title></html>", HTML)),
                   "Blocked by policy 7"),
    "an API gateway": (always(answer("400 Bad Request", b'{"message":"Bad Request: stage"}', JSON)), "stage"),
    "gzip that is refused in plain text": (always(answer("400 Bad Request", b"invalid gzip header")), "gzip"),
    "the port for TLS": (once(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"),
                         "https://"),
}


@pytest.fixture
def post() -> Iterator[Callable[[int, str], Answer]]:
    """One write to a port of this machine, with a version; the same client each time."""
    transports: dict[tuple[int, str], Transport] = {}

    def post(port: int, version: str) -> Answer:
        if (port, version) not in transports:
            config = InfluxConfig(url=f"http://127.0.0.1:{port}", token="sandbox-token",
                                  request_timeout_ms=20_000, **TARGETS[version])
            transports[port, version] = Transport(config, config.servers(), logging.getLogger("test"))
        return transports[port, version].post(BODY, "")

    yield post


@pytest.mark.parametrize("version", TARGETS)
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_influxdb_is_a_pause_that_says_what_answered(
        post: Callable[[int, str], Answer], name: str, version: str) -> None:
    script, said = OTHERS[name]
    if name == "an empty 200" and version == "v3":
        return  # which is how the first InfluxDB 3 said that it had stored everything
    with raw_server(script) as port:
        for _ in range(2):
            found = post(port, version)
            assert isinstance(found, OperatorNeeded), found
            assert said in found.message and f"127.0.0.1:{port}" in found.message
            assert found.message.isprintable()


@pytest.mark.parametrize("version", TARGETS)
@pytest.mark.parametrize("name", FAULTS)
def test_what_is_not_understood_is_waited_for(
        post: Callable[[int, str], Answer], name: str, version: str, caplog: pytest.LogCaptureFixture) -> None:
    with raw_server(FAULTS[name][0]) as port:
        found = post(port, version)
        assert isinstance(found, Retry | OperatorNeeded)
        assert found.message.isprintable() and f"127.0.0.1:{port}" in found.message
        if version == "auto":
            log_servers(InfluxConfig(url=f"http://127.0.0.1:{port}", bucket="b"), logging.getLogger("test"))
            assert f"127.0.0.1:{port}" in caplog.text


class Gate:
    """Stands before a server: answers by `script` while there is one, and passes everything on else."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.script: Script | None = None
        #: Connections of scripts that the client has closed.
        self.closed = threading.Event()

    def __call__(self, connection: socket.socket, number: int) -> None:
        script = self.script
        if script:
            try:
                script(connection, number)
            except OSError:
                self.closed.set()
            return
        with socket.create_connection(("127.0.0.1", self.port)) as onward:
            while request := read_request(connection):
                onward.sendall(request)
                connection.sendall(onward.recv(65_536))
                if self.script:
                    return


@pytest.fixture
def gate() -> Iterator[tuple[Gate, int, SandboxInflux]]:
    """A gate before a sandbox InfluxDB 2, the gate's port, and that InfluxDB."""
    with running_influxdb() as server:
        passing = Gate(server.port)
        with raw_server(passing) as port:
            yield passing, port, SandboxInflux(server.url)


def test_a_login_page_pauses_the_pipeline_and_nothing_is_committed(
        iggy: RunningIggy, stream: str, tmp_path: Path, gate: tuple[Gate, int, SandboxInflux]) -> None:
    passing, port, influxdb = gate
    passing.script = always(answer("200 OK", PAGE, HTML))
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, [message(number) for number in range(300)])
    sink = Sink(tmp_path, iggy.address, stream, f"http://127.0.0.1:{port}",
                'org = "sandbox"\nbucket = "sandbox"\ntoken = "sandbox-token"')
    try:
        status = sink.wait_for(lambda status: status.paused and "sign in" in sink.log())
        assert status.written == 0 and all(partition.committed < 0 for partition in status.partitions)
        passing.script = None
        assert sink.settles(300).written == 300
        assert numbers(influxdb.points()) == list(range(300))
        assert "\x1b" not in sink.log()
    finally:
        sink.close()


def test_a_request_that_drips_is_named_given_up_and_repeated(
        iggy: RunningIggy, stream: str, tmp_path: Path, gate: tuple[Gate, int, SandboxInflux]) -> None:
    passing, port, influxdb = gate
    passing.script = dripping(b"HTTP/1.1 204 No Content\r\nServer: " + b"x" * 100_000, 0.1)
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, [message(number) for number in range(300)])
    sink = Sink(tmp_path, iggy.address, stream, f"http://127.0.0.1:{port}",
                'version = "v2"\norg = "sandbox"\nbucket = "sandbox"\ntoken = "sandbox-token"\n'
                "read_timeout_ms = 1_000\nrequest_timeout_ms = 2_000")
    try:
        sink.wait_for(lambda status: "partition 0, offsets 0 to 299" in sink.log())
        assert passing.closed.wait(60)
        passing.script = None
        assert sink.settles(300).written == 300
        assert numbers(influxdb.points()) == list(range(300))
        assert sink.stop() == 0
    finally:
        sink.close()


def test_words_of_servers_in_names_and_values_cost_no_other_message(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    words = ["dropped 99999", "dropped=99999", "partial write: unable to parse 'x'", "field type conflict: input field",
             "outside retention policy", "points beyond retention policy dropped=7", "database not found", "timeout",
             "unable to parse 'readings,device=d1 value=1.0,ok=false 1001': missing fields", "gzip: invalid header",
             "hinted handoff queue not empty", "max request size (1 bytes) exceeded", "organization not found"]
    good = [message(number) for number in range(200)]
    hostile = [json.dumps({"device": "x", text: 1.0, "note": text, "ts": 10_000_000 + number}).encode()
               for number, text in enumerate(words)]
    bad = [json.dumps({"device": text, text: "now a string", "ts": 20_000_000 + number}).encode()
           for number, text in enumerate(words)]
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, [*good, *hostile])
    sink = start_sink(iggy.address, stream, influxdb, mapping="type_guard = false")
    sink.settles(len(good) + len(hostile))
    send(iggy.address, stream, [*bad, *[message(number) for number in range(200, 400)]])
    status = sink.settles(len(good) + len(hostile) + len(bad) + 200)
    assert (status.rejected, status.written) == (len(bad), 400 + len(hostile))
    assert sum(point["time"] < 10_000 for point in influxdb.points()) == 400


def test_a_400_for_whatever_is_sent_costs_nothing(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    influxdb.fail({"status": 400, "body": '{"code":"invalid","message":"the moon is in the wrong quarter"}'})
    iggy.create_topic(stream, TOPIC, 2)
    send(iggy.address, stream, [message(number) for number in range(3_000)], 2)
    sink = start_sink(iggy.address, stream, influxdb)
    sink.wait_for(lambda status: "nothing was ever stored" in sink.log())
    influxdb.fail()
    status = sink.settles(3_000)
    assert (status.written, status.rejected) == (3_000, 0)
    assert numbers(influxdb.points()) == list(range(3_000))


def test_an_accepted_write_of_enterprise_is_not_repeated() -> None:
    queued = answer("500 Internal Server Error", b'{"error":"write failed: hinted handoff queue not empty"}\n', JSON)
    with raw_server(always(queued)) as port:
        config = InfluxConfig(url=f"http://127.0.0.1:{port}", version="v1", database="d")
        assert Transport(config, config.servers(), logging.getLogger("test")).post(BODY, "") == Accepted()
