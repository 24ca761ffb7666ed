"""Jobs against servers of every flavour: exactly the bad lines of a body are refused, exactly the good ones stored."""

import json
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from pipeline.compression import compress
from pipeline.config.schema import InfluxConfig, MappingConfig
from stages.influxdb.answers import Accepted, OperatorNeeded, Retry
from stages.mapping.encoder import BatchOrigin, Encoder
from stages.write.job import WriteJob
from stages.write.startup_check import log_servers
from stages.write.transport import Transport
from tests.support.influxdb_servers import running_influxdb, running_influxdb1

LINES = 5_000
CONFIGS = {
    "v1": InfluxConfig(version="v1", database="sandbox"),
    "v2": InfluxConfig(version="v2", org="sandbox", bucket="sandbox", token="sandbox-token"),
    "v2, not compressed": InfluxConfig(version="v2", org="sandbox", bucket="sandbox", token="sandbox-token",
                                       gzip=False),
    "v3": InfluxConfig(version="v3", database="sandbox", token="sandbox-token"),
    "v3, all or nothing": InfluxConfig(version="v3", database="sandbox", token="sandbox-token", accept_partial=False),
    "1.6.7": InfluxConfig(version="v1", database="sandbox"),
}


@contextmanager
def server(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a server that has the database or bucket `sandbox`."""
    if kind != "1.6.7":
        with running_influxdb(flavour=kind[:2]) as running:
            yield running.url
        return
    with running_influxdb1(folder) as url:
        requests.post(f"{url}/query", data={"q": "CREATE DATABASE sandbox"}, timeout=60)
        yield url


def stored(kind: str, url: str) -> int:
    """Points stored in the measurement m."""
    if kind != "1.6.7":
        return int(requests.get(f"{url}/sandbox/count?bucket=sandbox", timeout=60).json()["points"])
    reply = requests.get(f"{url}/query", params={"db": "sandbox", "q": "SELECT count(f) FROM m"}, timeout=60).json()
    return int(reply["results"][0]["series"][0]["values"][0][1])


def run(job: WriteJob, transport: Transport) -> int:
    """Sends the job to its end; the number of requests."""
    count = 0
    while not job.done:
        piece = job.take()
        assert piece is not None
        answer = transport.post(piece.body or b"", "")
        assert not isinstance(answer, Retry | OperatorNeeded), answer
        job.answered(piece, answer, count)
        count += 1
    return count


def transport_to(url: str, kind: str) -> Transport:
    """A transport to one server."""
    return Transport(CONFIGS[kind], (url,), logging.getLogger("test"))


@pytest.mark.parametrize("kind", ["v1", "v2", "v3", "v3, all or nothing", "1.6.7"])
@pytest.mark.parametrize("bad", ["m,t=x f=zz 1", "m f=\"text\" 1", "mixed"])
def test_bad_lines_stand_alone_and_the_good_ones_are_stored(tmp_path: Path, kind: str, bad: str) -> None:
    places = random.Random(kind + bad).sample(range(1, LINES), 12)
    lines = [f"m,t={index % 10} f={index} {index + 1}" for index in range(LINES)]
    for number, place in enumerate(places):
        text = ["m,t=x f=zz 1", 'm f="text" 1'][number % 2] if bad == "mixed" else bad
        lines[place] = text.removesuffix("1") + str(place)
    with server(kind, tmp_path) as url:
        transport = transport_to(url, kind)
        run(WriteJob(compress(b"m,t=0 f=0 1\n"), 1, gzip=True), transport)
        job = WriteJob(compress("".join(f"{line}\n" for line in lines).encode()), LINES, gzip=True)
        run(job, transport)
        assert {refused.line for refused in job.refused} == set(places)
        assert {refused.reason for refused in job.refused} <= {"parse_error", "type_conflict"}
        assert all(refused.text == lines[refused.line] and refused.message for refused in job.refused)
        assert stored(kind, url) == LINES - len(places)


def test_a_body_over_the_limit_is_split_and_the_limit_learned() -> None:
    lines = b"".join(b"m,t=%d f=%d %d\n" % (index, index, index) for index in range(LINES))
    with running_influxdb(max_body_bytes=20_000) as running:
        job = WriteJob(lines, LINES, gzip=False)
        run(job, transport_to(running.url, "v2, not compressed"))
        assert stored("v2", running.url) == LINES
        assert job.refused == []


def test_a_line_too_large_alone_is_refused_and_the_others_are_stored() -> None:
    huge = b'm s="' + b"x" * 30_000 + b'" 5\n'
    lines = [b"m f=%d %d\n" % (index, index + 10) for index in range(50)]
    lines.insert(20, huge)
    with running_influxdb(max_body_bytes=20_000) as running:
        job = WriteJob(b"".join(lines), 51, gzip=False)
        run(job, transport_to(running.url, "v2, not compressed"))
        assert [(refused.line, refused.reason) for refused in job.refused] == [(20, "too_large")]
        assert stored("v2", running.url) == 50


@pytest.mark.parametrize(("flavour", "path"), [("v1", "/write"), ("v2", "/api/v2/write"), ("v3", "/api/v3/write_lp")])
def test_auto_finds_the_flavour_and_says_so(flavour: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    target = {"bucket": "sandbox", "org": "sandbox"} if flavour == "v2" else {"database": "sandbox"}
    with running_influxdb(flavour=flavour) as running, caplog.at_level("INFO"):
        config = InfluxConfig(url=running.url, version="auto", token="sandbox-token", **target)  # type: ignore[arg-type]
        transport = Transport(config, config.servers(), logging.getLogger("test"))
        run(WriteJob(compress(b"m f=1 1\n"), 1, gzip=True), transport)
        log_servers(config, logging.getLogger("test"))
        assert path in caplog.text
        assert stored(flavour, running.url) == 1


@pytest.mark.parametrize(("flavour", "version"), [
    ("v1", "v1"), ("v2", "v2"), ("v3", "v3"), ("v3", "v2"), ("v3", "v1"), ("v3", "auto")])
@pytest.mark.parametrize("gzip", [True, False])
def test_backslashes_are_stored_as_they_are_whichever_server_reads_them(
        flavour: str, version: str, gzip: bool) -> None:
    tags = {"a": "x\\y", "path": "\\\\host\\share\\\\x", "name": "O=A\\,B\\=C"}
    payload = json.dumps({"measurement": "m\\\\m", "tags": tags, "f\\\\f": 'a "b" \\ \\\\n\n'}).encode()
    mapping = MappingConfig(measurement_from="field", measurement_field="measurement", tag_map_field="tags")
    (lines,) = Encoder(mapping, "ns", "s", "t").encode([payload], BatchOrigin(timestamps=[5])).groups
    with running_influxdb(flavour=flavour) as running:
        config = InfluxConfig(url=running.url, version=version, gzip=gzip, database="sandbox",  # type: ignore[arg-type]
                              bucket="sandbox" if version == "v2" else "", org="sandbox", token="sandbox-token",
                              username="sandbox", password="sandbox-token")
        answer = Transport(config, config.servers(), logging.getLogger("test")).post(
            compress(lines.body) if gzip else lines.body, "", lines.escapes)
        assert isinstance(answer, Accepted), answer
        (point,) = requests.get(f"{running.url}/sandbox/points?bucket=sandbox", timeout=60).json()
    assert (point["measurement"], dict(point["tags"]), point["fields"]) == (
        "m\\\\m", tags, {"f\\\\f": 'a "b" \\ \\\\n\n'})


@pytest.mark.parametrize(("flavour", "options", "most"), [
    ("v2", {"bucket": "sandbox", "org": "sandbox"}, 8), ("v3", {"database": "sandbox"}, 64),
    ("v3", {"bucket": "sandbox"}, 64), ("v3", {"database": "sandbox", "max_requests_in_flight": 7}, 7)])
def test_a_server_that_gathers_requests_gets_many_at_a_time(flavour: str, options: dict[str, Any], most: int) -> None:
    with running_influxdb(flavour=flavour) as running:
        config = InfluxConfig(url=running.url, token="sandbox-token", **options)
        transport = Transport(config, config.servers(), logging.getLogger("test"))
        run(WriteJob(compress(b"m f=1 1\n"), 1, gzip=True), transport)
        assert transport.max_in_flight == most


@pytest.mark.parametrize(("flavour", "version", "advice"), [
    ("v1", "v2", 'set version = "v1"'), ("v2", "v3", 'set version = "v2"'), ("v1", "v3", 'set version = "v1"')])
def test_a_wrong_version_is_explained_at_the_start(
        flavour: str, version: str, advice: str, caplog: pytest.LogCaptureFixture) -> None:
    with running_influxdb(flavour=flavour) as running:
        config = InfluxConfig(url=running.url, version=version, bucket="b", org="o",  # type: ignore[arg-type]
                              database="d")
        log_servers(config, logging.getLogger("test"))
    assert advice in caplog.text


def test_a_token_file_is_read_again_when_the_token_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("wrong\n")
    with running_influxdb() as running:
        config = InfluxConfig(url=running.url, version="v2", org="sandbox", bucket="sandbox", token_file=str(token))
        transport = Transport(config, config.servers(), logging.getLogger("test"))
        answer = transport.post(compress(b"m f=1 1\n"), "")
        assert isinstance(answer, OperatorNeeded)
        assert answer.reason == "unauthorized"
        token.write_text("sandbox-token\n")
        run(WriteJob(compress(b"m f=1 1\n"), 1, gzip=True), transport)


def test_failover_writes_to_the_next_server_and_remembers_the_dead_one() -> None:
    with running_influxdb() as first, running_influxdb() as second:
        config = InfluxConfig(urls=("http://127.0.0.1:9", second.url, first.url), version="v2", org="sandbox",
                              bucket="sandbox", token="sandbox-token")
        transport = Transport(config, config.servers(), logging.getLogger("test"))
        run(WriteJob(compress(b"m f=1 1\n"), 1, gzip=True), transport)
        run(WriteJob(compress(b"m f=1 2\n"), 1, gzip=True), transport)
        assert stored("v2", second.url) == 2
        assert stored("v2", first.url) == 0


def test_user_and_password_of_influxdb_1_are_used(tmp_path: Path) -> None:
    with running_influxdb1(tmp_path, auth=True) as url:
        query = f"{url}/query"
        requests.post(query, data={"q": "CREATE USER me WITH PASSWORD 'secret' WITH ALL PRIVILEGES"}, timeout=60)
        requests.post(query, data={"q": "CREATE DATABASE sandbox"}, auth=("me", "secret"), timeout=60)
        right = InfluxConfig(url=url, version="v1", database="sandbox", username="me", password="secret")
        transport = Transport(right, right.servers(), logging.getLogger("test"))
        run(WriteJob(compress(b"m f=1 1\n"), 1, gzip=True), transport)
        wrong = InfluxConfig(url=url, version="v1", database="sandbox", username="me", password="guess")
        answer = Transport(wrong, wrong.servers(), logging.getLogger("test")).post(compress(b"m f=1 2\n"), "")
        assert isinstance(answer, OperatorNeeded)
        assert answer.reason == "unauthorized"
        assert "guess" not in answer.message
