"""InfluxDB 3 read through Arrow Flight: what is away, slow, wrong or killed costs nothing but time."""

import json
import logging
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from influxdb_client_3 import InfluxDBClient3
from influxdb_client_3.exceptions import InfluxDB3ClientQueryError

from pipeline.config.source_schema import OutputConfig, SourceConfig, SourceInfluxConfig
from pipeline.points.windows import TimeWindow
from pipeline.testbed.harness.waiting import free_port
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.query.reader import QueryPage, SourceReader
from stages.query.transport import QueryFailed
from tests.support.iggy_servers import RunningIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sinks import SandboxInflux
from tests.support.sources import Source, check, lines_of, write
from tests.support.tls import Authority, forwarder

TABLE = 'version = "v3"\ntransport = "flight"\ndatabase = "sandbox"\n'
TOKEN = 'token = "sandbox-token"\n'
Start = Callable[..., Source]


@pytest.fixture
def sandbox_v3() -> Iterator[SandboxInflux]:
    """A sandbox InfluxDB 3 with a Flight service."""
    with running_influxdb(flavour="v3", flight_port=0) as server:
        yield SandboxInflux(server.url, "v3", server.flight_url)


@pytest.fixture
def start(tmp_path: Path, iggy: RunningIggy, stream: str) -> Iterator[Start]:
    """Starts sources that read a sandbox through Flight; all end with the test."""
    with ExitStack() as running:
        def begin(sandbox_v3: SandboxInflux, table: str = TOKEN, **options: Any) -> Source:
            run = Source(tmp_path / f"p{len(list(tmp_path.iterdir()))}", iggy.address, sandbox_v3.flight_url,
                         TABLE + table, stream, **options)
            running.callback(run.close)
            return run

        yield begin


def reader(url: str, query: str = "", **options: Any) -> SourceReader:
    """What the query process reads with, with `[sources.influxdb]` options."""
    config = SourceConfig(
        name="source", state_file="unused", query=query, measurement="own" if query else "",
        influxdb=SourceInfluxConfig(**{"url": url, "transport": "flight", "version": "v3", "database": "sandbox",
                                       "token": "sandbox-token", **options}), output=OutputConfig(stream="s"))
    return SourceReader(config, logging.getLogger("test"))


def failure(url: str, **options: Any) -> Retry | OperatorNeeded:
    """How a list of measurements fails."""
    with pytest.raises(QueryFailed) as failed:
        reader(url, **options).discover()
    return failed.value.answer


def test_a_client_of_influxdata_reads_the_sandbox_as_it_reads_the_real_one(sandbox_v3: SandboxInflux) -> None:
    write(sandbox_v3, ["m,t=a f=1.5,i=-2i,u=18446744073709551615u,b=true,s=\"x y\" 17", "m,t=b f=2 -1"])
    client: Any = InfluxDBClient3(host=sandbox_v3.flight_url, database="sandbox", token="sandbox-token")
    for language in ("sql", "influxql"):
        table = client.query('SELECT time, "b", "f", "i", "s", "t", "u" FROM "m" ORDER BY time ASC', language=language)
        assert table["time"].cast("int64").to_pylist() == [-1, 17]
        assert table.drop(["time"]).to_pylist()[1] == {
            **({"iox::measurement": "m"} if language == "influxql" else {}), "b": True, "f": 1.5, "i": -2, "s": "x y",
            "t": "a", "u": 2**64 - 1}
        assert table.schema.field("t").metadata == {b"iox::column::type": b"iox::column_type::tag"}
    for wrong, query, words in (({"token": "another"}, "SELECT 1", "Unauthenticated"),
                                ({"database": "zz"}, "SELECT 1", "database not found: zz"),
                                ({}, 'SELECT time, "f" FROM "zz" ORDER BY time ASC', "'public.iox.zz' not found")):
        options = {"host": sandbox_v3.flight_url, "database": "sandbox", "token": "sandbox-token", **wrong}
        with pytest.raises(InfluxDB3ClientQueryError, match=words):
            InfluxDBClient3(**options).query(query)


@pytest.mark.parametrize("rule", [
    {"status": 503, "times": 3}, {"status": 429, "times": 2}, {"status": 500, "times": 2}, {"status": 504, "times": 2},
    {"reset": "before", "times": 2}, {"reset": "middle", "times": 2}], ids=json.dumps)
def test_a_service_in_trouble_is_asked_again_until_it_answers(
        start: Start, sandbox_v3: SandboxInflux, rule: dict[str, Any]) -> None:
    write(sandbox_v3, lines_of(3_000))
    run = start(sandbox_v3, source="page_size = 1_500", start=False)
    sandbox_v3.fail({**rule, "query": True, "match": "ORDER BY"})
    run.start("--until-caught-up")
    assert run.ends() == 0
    check(run.points(), 3_000)
    assert re.search("reading m .*failed", run.log())


@pytest.mark.parametrize("rule", [{"delay_seconds": 60.0}, {"hang": True}], ids=json.dumps)
def test_an_answer_that_stops_is_given_up_after_the_read_timeout(
        start: Start, sandbox_v3: SandboxInflux, rule: dict[str, Any]) -> None:
    write(sandbox_v3, lines_of(3_000))
    run = start(sandbox_v3, TOKEN + "read_timeout_ms = 1000", start=False)
    sandbox_v3.fail({**rule, "query": True, "match": "ORDER BY", "times": 2})
    run.start("--until-caught-up")
    assert run.ends() == 0
    check(run.points(), 3_000)
    assert "no data for 1 s" in run.log()


def test_a_connection_that_is_lost_is_made_again(start: Start, sandbox_v3: SandboxInflux) -> None:
    write(sandbox_v3, lines_of(4_000))
    run = start(sandbox_v3, source="page_size = 100\npages_in_flight = 2")
    run.wait_for(lambda status: status.points >= 300)
    sandbox_v3.fail({"refuse": 4.0})
    run.wait_for_log("no connection")
    run.wait_for(lambda status: status.points == 4_000)
    assert run.stop() == 0
    check(run.points(), 4_000)


def test_a_service_that_is_away_at_the_start_is_waited_for(start: Start) -> None:
    port = free_port()
    run = start(SandboxInflux("", "v3", f"http://127.0.0.1:{port}"))
    run.wait_for_log("starting, and retrying it")
    with running_influxdb(flavour="v3", flight_port=port) as server:
        write(SandboxInflux(server.url, "v3"), lines_of(100))
        run.wait_for(lambda status: status.points == 100)
    run.wait_for_log("no connection")


@pytest.mark.parametrize("victim", ["query", "convert-0", "produce", "source-coordinator"])
def test_killing_a_process_loses_nothing(start: Start, sandbox_v3: SandboxInflux, victim: str) -> None:
    write(sandbox_v3, lines_of(20_000))
    run = start(sandbox_v3, source="page_size = 100\npages_in_flight = 3", arguments=["--until-caught-up"])
    run.wait_for(lambda status: status.points >= 500)
    run.kill(victim)
    assert run.ends() == 0
    check(run.points(), 20_000, once=False)


def test_a_page_that_is_too_large_in_bytes_is_cut(start: Start, sandbox_v3: SandboxInflux) -> None:
    write(sandbox_v3, lines_of(6_000))
    run = start(sandbox_v3, source="max_page_bytes = 60_000", arguments=["--until-caught-up"])
    pages = run.wait_for(lambda status: status.points == 6_000).pages
    assert run.ends() == 0
    check(run.points(), 6_000)
    assert pages >= 3


def test_a_wrong_token_pauses_and_the_right_one_goes_on(
        start: Start, sandbox_v3: SandboxInflux, tmp_path: Path) -> None:
    write(sandbox_v3, lines_of(100))
    (tmp_path / "token").write_text("sandbox-token\n")
    (tmp_path / "token").chmod(0o600)
    sandbox_v3.fail({"token": "another", "query": True})
    run = start(sandbox_v3, f'token_file = "{tmp_path}/token"')
    status = run.wait_for(lambda status: status.paused)
    assert "unauthorized: Unauthenticated" in status.retrying["query"] and not status.ready
    run.wait_for_log("correct the token")
    (tmp_path / "token").write_text("another")
    run.wait_for(lambda status: status.points == 100 and status.ready)
    check(run.points(), 100)
    assert "sandbox-token" not in run.log()


def test_a_missing_database_pauses_and_is_named(start: Start, sandbox_v3: SandboxInflux) -> None:
    run = start(sandbox_v3, start=False)
    run.config.write_text(run.config.read_text().replace('database = "sandbox"', 'database = "nowhere"'))
    run.start()
    status = run.wait_for(lambda status: status.paused)
    assert "database not found: nowhere" in status.retrying["query"]
    assert run.stop() == 0


@pytest.mark.parametrize(("query", "words"), [
    ("SELECT nonsense FROM m WHERE time >= '$from' AND time < '$to'", "is understood"),
    ('SELECT time, "f" FROM "m" WHERE time >= TIMESTAMP \'$from\' AND time < TIMESTAMP \'$to\' ORDER BY time ASC',
     "column f is float, and in types boolean")])
def test_a_query_that_can_not_be_read_ends_the_command_at_its_start(
        start: Start, sandbox_v3: SandboxInflux, query: str, words: str) -> None:
    write(sandbox_v3, lines_of(10))
    run = start(sandbox_v3, source=f'query = """{query}"""\nmeasurement = "own"\ntypes = {{f = "boolean"}}')
    assert run.ends() == 1
    assert words in run.log() and "Traceback" not in run.log()


def test_a_query_of_ones_own_has_its_tags_and_types_from_the_answer(start: Start, sandbox_v3: SandboxInflux) -> None:
    write(sandbox_v3, [f"m,t=a u=18446744073709551615u,f={n} {n}" for n in range(2_500)])
    run = start(sandbox_v3, source='query = """SELECT time, "t", "u", "f" FROM "m" WHERE '
                                 'time >= TIMESTAMP \'$from\' AND time < TIMESTAMP \'$to\' ORDER BY time ASC"""\n'
                                 'measurement = "own"\n'
                                 'from = "1970-01-01T00:00:00Z"', output='format = "line_protocol"',
                arguments=["--until-caught-up"])
    assert run.ends() == 0
    assert sorted(message.payload() for message in run.messages()) == sorted(
        f"own,t=a f={n}.0,u=18446744073709551615u {n}".encode() for n in range(2_500))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A new certificate authority."""
    return Authority(tmp_path, "127.0.0.1")


def http2(context: ssl.SSLContext) -> ssl.SSLContext:
    """The server's side of TLS as gRPC wants it."""
    context.set_alpn_protocols(["h2"])
    return context


def port_of(sandbox_v3: SandboxInflux) -> int:
    """Of the Flight service."""
    return int(sandbox_v3.flight_url.rpartition(":")[2])


def test_a_certificate_of_our_own_authority_is_trusted_when_named(
        sandbox_v3: SandboxInflux, authority: Authority) -> None:
    write(sandbox_v3, lines_of(1))
    with forwarder(port_of(sandbox_v3), http2(authority.context(False)), []) as port:
        url = f"https://127.0.0.1:{port}"
        assert reader(url, ca_file=authority.ca_file).discover().measurements == ["m"]
        assert reader(url, insecure_skip_verify=True).discover().measurements == ["m"]
        refused = failure(url)
        assert isinstance(refused, OperatorNeeded) and refused.reason == "refused"
        assert "certificate verify failed" in refused.message and "ca_file" in refused.message
        # The certificate is of another name than this.
        assert isinstance(failure(f"https://localhost:{port}", ca_file=authority.ca_file), OperatorNeeded)


def test_a_service_that_asks_for_our_certificate_gets_it(sandbox_v3: SandboxInflux, authority: Authority) -> None:
    write(sandbox_v3, lines_of(1))
    with forwarder(port_of(sandbox_v3), http2(authority.context(True)), []) as port:
        url = f"https://127.0.0.1:{port}"
        assert reader(url, ca_file=authority.ca_file, client_cert_file=authority.client_cert_file,
                      client_key_file=authority.client_key_file).discover().measurements == ["m"]
        assert isinstance(failure(url, ca_file=authority.ca_file), Retry | OperatorNeeded)


def test_a_file_that_is_no_certificate_ends_the_command_at_its_start(
        start: Start, sandbox_v3: SandboxInflux, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    run = start(sandbox_v3, TOKEN + f'ca_file = "{tmp_path}/ca.pem"')
    assert run.ends() == 1
    assert f"influxdb.ca_file {tmp_path}/ca.pem: cannot be used" in run.log() and "Traceback" not in run.log()


def test_calls_go_through_the_proxy_and_not_through_that_of_the_environment(
        sandbox_v3: SandboxInflux, monkeypatch: pytest.MonkeyPatch) -> None:
    write(sandbox_v3, lines_of(1))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    assert reader(sandbox_v3.flight_url).discover().measurements == ["m"]
    seen: list[bytes] = []
    with forwarder(port_of(sandbox_v3), None, seen) as port:
        # It passes CONNECT on to the service, which does not understand it: that it was asked is enough.
        failure("http://influx.example:8181", proxy=f"http://127.0.0.1:{port}", connect_timeout_ms=1_000)
        assert any(piece.startswith(b"CONNECT influx.example:8181 HTTP/1.1\r\n") for piece in seen)


def test_user_and_password_and_extra_headers_are_sent(sandbox_v3: SandboxInflux) -> None:
    write(sandbox_v3, lines_of(1))
    assert reader(sandbox_v3.flight_url, token="", username="any", password="sandbox-token",
                  headers={"X-Team": "plant-7"}, gzip=False).discover().measurements == ["m"]
    refused = failure(sandbox_v3.flight_url, token="wrong\x7f")
    assert isinstance(refused, OperatorNeeded) and refused.reason == "unauthorized"


def test_the_second_server_is_asked_while_the_first_is_away(sandbox_v3: SandboxInflux) -> None:
    write(sandbox_v3, lines_of(10))
    several = reader("", urls=("http://127.0.0.1:1", sandbox_v3.flight_url))
    read = several.read("m", TimeWindow(0, 2**62), several.limits())
    assert isinstance(read, QueryPage) and read.rows == 10


def test_http_where_flight_is_meant_is_said(sandbox_v3: SandboxInflux) -> None:
    refused = failure(sandbox_v3.url)
    assert "no connection" in refused.message and "HTTP/2" in refused.message
