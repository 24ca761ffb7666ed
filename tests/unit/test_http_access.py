"""Who may ask over HTTP, under which names; where the local socket is; what counts as ready."""

import base64
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.hidden import HIDDEN, shown_config
from pipeline.config.http_checks import http_problems, http_warnings
from pipeline.config.http_schema import HttpConfig
from pipeline.config.plan import Plan
from pipeline.config.schema import Config, InfluxConfig, PipelineConfig, TopicConfig
from pipeline.errors import PipelineError
from pipeline.http.client import NotRunning, Running, request
from pipeline.http.feeds import Snapshot
from pipeline.http.guard import Access
from pipeline.http.health import readiness
from pipeline.http.history import History, Sample
from pipeline.http.listeners import Listeners, check_port
from pipeline.http.payloads import Payload, payload_of
from pipeline.http.place import identity, sweep_places
from pipeline.wire.common import Waiting
from pipeline.wire.supervisor import SupervisorStatus
from tests.unit.test_metrics import sink_status

TOKEN = "t0ken-ünusual"
CONFIG = Config(topics=(TopicConfig(stream="s", topic="t"),), http=HttpConfig(listen=""))


@pytest.mark.parametrize(("authorization", "expected"), [
    ("Bearer t0ken", True), ("bearer  t0ken ", True), ("Basic " + base64.b64encode(b"me:t0ken").decode(), True),
    ("Basic " + base64.b64encode(b":t0ken").decode(), True), ("", False), ("t0ken", False), ("Bearer", False),
    ("Bearer t0ke", False), ("Bearer t0ken0", False), ("Basic t0ken", False), ("Basic =", False),
    ("Basic " + base64.b64encode(b"t0ken").decode(), False), ("Bearer " + "x" * 100_000, False),
    ("Bearer t\xf6ken", False), ("Digest t0ken", False)])
def test_a_token_is_sent_as_bearer_or_as_a_password(authorization: str, expected: bool) -> None:
    assert Access("t0ken", ()).has_token(authorization) is expected
    assert not Access("", ()).has_token(authorization)


@pytest.mark.parametrize(("host", "expected"), [
    ("127.0.0.1:17109", True), ("127.0.0.1", True), ("[::1]:17109", True), ("[::1]", True), ("10.0.0.7:80", True),
    ("localhost:17109", True), ("LOCALHOST", True), ("pipeline:17109", True), ("a.svc.cluster.local:1", True),
    ("status.example.com", True), ("Status.Example.com.:443", True), ("evil.example.net:17109", False), ("", False),
    ("127.0.0.1.evil.example", False), ("status.example.com.evil.net", False), ("xstatus.example.com", False),
    ("a.local.evil.net", False), (":17109", False), ("[::1", True), ("evil.net:x", False)])
def test_the_host_header_has_to_name_this_server(host: str, expected: bool) -> None:
    assert Access("", ("status.example.com",)).knows(host) is expected


@given(st.text(), st.text())
def test_no_header_is_too_odd(host: str, authorization: str) -> None:
    access = Access("t0ken", ())
    assert access.knows(host) in (True, False)
    assert not access.has_token(authorization) and not access.has_token(f"Basic {authorization}")


@pytest.mark.parametrize(("http", "problem"), [
    (HttpConfig(), ""), (HttpConfig(listen=""), ""), (HttpConfig(listen="[::1]:0"), ""),
    (HttpConfig(listen="9109"), "http.listen: "), (HttpConfig(listen="http://h:1"), "http.listen: "),
    (HttpConfig(listen="h:70000"), "http.listen: "), (HttpConfig(listen="::1:80"), "http.listen: "),
    (HttpConfig(token="a", token_file="b"), "http.token_file: not beside"),
    (HttpConfig(token="a\nb"), "http.token: holds a line break"),
    (HttpConfig(key_file="k"), "http.key_file: only with"),
    (HttpConfig(token_file="/no/such"), "http.token_file: /no/such: No such file"),
    (HttpConfig(cert_file="/no/such"), "http.cert_file: /no/such does not exist"),
    (HttpConfig(cert_file="/dev/null"), "http.cert_file: /dev/null holds no certificate"),
    (HttpConfig(token_file="/dev/null"), "http.token_file: /dev/null is empty"),
    (HttpConfig(allowed_hosts=("http://h",)), "http.allowed_hosts: "), (HttpConfig(allowed_hosts=("h:1",)),
                                                                       "http.allowed_hosts: ")])
def test_mistakes_are_found_at_the_start(http: HttpConfig, problem: str) -> None:
    found = list(http_problems(http, lambda key: True))
    assert found[0].startswith(problem) if problem else not found


def test_what_is_open_to_others_is_warned_of() -> None:
    assert list(http_warnings(HttpConfig())) == list(http_warnings(HttpConfig(listen="[::1]:7"))) == []
    assert "there is no http.token" in next(iter(http_warnings(HttpConfig(listen="0.0.0.0:7"))))
    assert "there is no http.cert_file" in next(iter(http_warnings(HttpConfig(listen="example.org:7", token="t"))))
    assert list(http_warnings(HttpConfig(listen="0.0.0.0:7", token="t", cert_file="c"))) == []


def test_another_port_is_tried_before_a_reload_uses_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PipelineError, match="its port is in use; give another port"):
            check_port(HttpConfig(), HttpConfig(listen=listen))
        check_port(HttpConfig(listen=listen), HttpConfig(listen=listen.replace("127.0.0.1", "0.0.0.0")))
    check_port(HttpConfig(), HttpConfig(listen=listen))
    check_port(HttpConfig(listen=listen), HttpConfig(listen=""))


def test_the_local_socket_is_private_and_is_found_by_the_configuration(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, pipeline=PipelineConfig(runtime_dir=str(tmp_path)))
    with pytest.raises(NotRunning):
        request(config, "GET", "/status")
    # What a killed pipeline has left is replaced.
    (left := socket.socket(socket.AF_UNIX)).bind(str(tmp_path / "http.sock"))
    left.close()
    listeners = Listeners(config)
    assert stat.S_IMODE((tmp_path / "http.sock").stat().st_mode) == 0o600
    assert listeners.address == ""
    listeners.close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "http.sock").write_text("mine")
    with pytest.raises(PipelineError, match="is no socket"):
        Listeners(config)
    assert (tmp_path / "http.sock").read_text() == "mine"


def test_pipelines_of_one_configuration_get_places_of_their_own() -> None:
    config = msgspec.structs.replace(CONFIG, topics=(TopicConfig(stream=f"s{os.getpid()}", topic="t"),))
    first, second = Listeners(config), Listeners(config)
    try:
        names = [str(one.getsockname()) for one in (*first.local, *second.local)]
        assert len(set(names)) == len(names) > 1
        with pytest.raises(PipelineError, match="2 pipelines of this configuration"):
            request(config, "GET", "/status")
    finally:
        first.close()
        second.close()
    assert not any(map(os.path.exists, names))
    # What a killed pipeline has left is removed by the next one, of any configuration.
    (left := socket.socket(socket.AF_UNIX)).bind(names[0])
    left.close()
    sweep_places()
    assert not os.path.exists(names[0]) and not os.path.exists(names[0].replace(".sock", ".lock"))


def test_a_pipeline_is_found_by_its_files_when_its_configuration_is_another_by_now() -> None:
    listeners = Listeners(msgspec.structs.replace(CONFIG, topics=(TopicConfig(stream=f"f{os.getpid()}", topic="t"),)))
    answer = msgspec.json.encode({"files": ["/etc/here.toml"]})

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))

    threads = [threading.Thread(target=serve, args=(one,), daemon=True) for one in listeners.local]
    for thread in threads:
        thread.start()
    try:
        for now in (CONFIG, None):
            assert request(Running(now, ("/etc/here.toml",)), "GET", "/status")["files"] == ["/etc/here.toml"]
            with pytest.raises(NotRunning):
                request(Running(now, ("/etc/there.toml",)), "GET", "/status")
    finally:
        for one in listeners.local:
            one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        listeners.close()


def test_the_place_depends_on_what_is_read_and_not_on_how() -> None:
    def changed(**tables: Any) -> str:
        return identity(msgspec.structs.replace(CONFIG, **tables))

    same = identity(CONFIG)
    assert changed(pipeline=PipelineConfig(workers=3), influxdb=InfluxConfig(url="http://h")) == same
    iggy = msgspec.structs.replace(CONFIG.iggy, address="localhost:8090")
    assert changed(iggy=iggy) == same == changed(iggy=msgspec.structs.replace(CONFIG.iggy, address="[::1]:8090"))
    assert changed(iggy=msgspec.structs.replace(CONFIG.iggy, consumer="other")) != same
    assert changed(topics=(TopicConfig(stream="s", topic="u"),)) != same


def test_a_busy_port_is_an_error_only_where_it_was_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        pipeline = PipelineConfig(runtime_dir=str(tmp_path))
        config = msgspec.structs.replace(CONFIG, pipeline=pipeline, http=HttpConfig(listen=address))
        with pytest.raises(PipelineError, match=f"http.listen: {address} cannot be listened on: its port is in use"):
            Listeners(config)
        monkeypatch.setattr("pipeline.config.http_checks.AUTO_ADDRESS", address)
        listeners = Listeners(msgspec.structs.replace(config, http=HttpConfig()))
        assert "its port is in use; set http.listen" in listeners.warning and not listeners.port
        listeners.close()


def test_a_pipeline_is_unready_for_what_lasts_or_needs_an_operator() -> None:
    plan = Plan(CONFIG, "/tmp", 1, 1)
    supervisor = SupervisorStatus(100.0, 1, 0.0, "", False, [])
    pids = dict.fromkeys(["coordinator", *plan.stages()], 1)

    def ready(now: float = 100.0, **fields: Any) -> tuple[bool, list[str]]:
        status = msgspec.structs.replace(sink_status(), **{"pids": pids, "paused": False, "waiting": [], **fields})
        found = readiness(plan, Snapshot(now, 1_000.0, supervisor, status, None))
        return found.ready, [reason.reason for reason in found.reasons]

    assert ready() == (True, [])
    assert ready(waiting=[Waiting("write-0", "main", "503", False, 995.0)]) == (True, ["503"])
    assert ready(waiting=[Waiting("write-0", "main", "503", False, 980.0)]) == (False, ["503"])
    assert ready(ready=False, waiting=[Waiting("write-0", "main", "401", True, 999.0)]) == (False, ["401"])
    assert ready(pids={"coordinator": 1})[1][0].startswith("not started: dead-letter, write-0")
    assert ready(ready=False) == (False, ["it is not known yet what to read"])
    assert ready(now=200.0)[0] is False
    assert not readiness(plan, Snapshot(1.0, 2.0, None, None, None)).ready


def test_rates_survive_a_new_coordinator() -> None:
    history = History()
    assert history.rates().read == 0
    history.samples.extend(Sample(float(second), read=second * 100) for second in range(30))
    assert history.rates().read == 100
    history.samples.append(Sample(30.0, read=50))
    assert 0 <= history.rates().read <= 100


def test_the_shown_configuration_has_no_secrets() -> None:
    config = msgspec.structs.replace(
        CONFIG, http=HttpConfig(token="http-s3cret"), iggy=msgspec.structs.replace(CONFIG.iggy, password="iggy-s3cret"),
        influxdb=InfluxConfig(url="http://me:url-s3cret@host:8086/p", token="influx-s3cret", proxy="http://u:p-s3cret@p:1",
                              headers={"X-Api-Key": "header-s3cret", "X-Plain": "short-s3cret"}))
    text = msgspec.json.encode(shown_config(config)).decode()
    assert "s3cret" not in text
    assert shown_config(config)["influxdb"]["token"] == HIDDEN and "@host:8086/p" in text


@pytest.mark.parametrize(("content", "text", "encoded"), [
    (b"", "", ""), ('{"ä": 1}'.encode(), '{"ä": 1}', ""), (b"\xff\x00", "", "/wA="),
    (b"a" * 70_000, "a" * 65_536, ""), (b"a" * 65_535 + "ä".encode(), "a" * 65_535, "")])
def test_a_payload_is_shown_as_text_where_it_is_text(content: bytes, text: str, encoded: str) -> None:
    assert payload_of(content) == Payload(len(content), text, encoded)
