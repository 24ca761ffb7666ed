"""The sandbox InfluxDB over real sockets: what it answers as InfluxDB 2 and 3, what it keeps, and how it fails.

As InfluxDB 1 and 3 it is compared with real ones: tests/servers/test_sandbox_answers_against_influxdb1.py, ...3.py.
"""

import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from pipeline.testbed.harness import waiting
from pipeline.testbed.harness.influxd import pings
from pipeline.testbed.sandbox.influxdb.answers import Identity
from pipeline.testbed.sandbox.influxdb.server import InfluxServer
from tests.support.influxdb_servers import running_influxdb

TOKEN = {"Authorization": "Token sandbox-token"}
V2 = "/api/v2/write?org=sandbox&bucket=sandbox&precision=s"
V3 = "/api/v3/write_lp?db=sandbox&precision=second"
#: Longest wait for an answer that should come, and how long one is watched for not coming, seconds.
ANSWER_SECONDS, QUIET_SECONDS = 60.0, 0.3
INTERNAL = "An internal error has occurred - check server logs"


@pytest.fixture
def v2() -> Iterator[InfluxServer]:
    """As InfluxDB 2."""
    with running_influxdb() as server:
        yield server


@pytest.fixture
def v3() -> Iterator[InfluxServer]:
    """As InfluxDB 3."""
    with running_influxdb(flavour="v3") as server:
        yield server


def write(server: InfluxServer, body: bytes | str, path: str = V2, **headers: str) -> requests.Response:
    """Writes with the right token, unless `Authorization` is among the headers."""
    data = body.encode() if isinstance(body, str) else body
    return requests.post(server.url + path, data=data, headers={**TOKEN, **headers}, timeout=ANSWER_SECONDS)


def get(server: InfluxServer, path: str) -> Any:
    """The JSON at a path of the sandbox's own."""
    answer = requests.get(f"{server.url}/sandbox/{path}", timeout=ANSWER_SECONDS)
    answer.raise_for_status()
    return answer.json()


def told(server: InfluxServer, *rules: dict[str, Any]) -> None:
    """Sets faults."""
    answer = requests.put(f"{server.url}/sandbox/faults", json=rules, timeout=ANSWER_SECONDS)
    assert answer.status_code == 204, answer.text


V2_TABLE: list[tuple[str, str, bytes | str, dict[str, str], int, str, str]] = [
    ("a good line", V2, "m f=1 5", {}, 204, "", ""),
    ("Bearer", V2, "m f=1 5", {"Authorization": "Bearer sandbox-token"}, 204, "", ""),
    ("an unsigned number", V2, "m f=1u 5", {}, 204, "", ""),
    ("an empty body", V2, "", {}, 204, "", ""),
    ("gzip", V2, gzip.compress(b"m f=1 5"), {"Content-Encoding": "gzip"}, 204, "", ""),
    ("the path of InfluxDB 1", "/write?db=sandbox", "m f=1 5", {}, 204, "", ""),
    ("good and malformed lines", V2, "p1,t=a f=1 1700000000\nbad\np2,t=b f=zz 1700000000", {}, 400, "invalid",
     "unable to parse 'bad': missing fields\nunable to parse 'p2,t=b f=zz 1700000000': invalid boolean"),
    ("a time out of range", V2, "m f=1 9999999999999999", {}, 400, "invalid", "unable to parse 'm f=1 9999999999999999'"
     ": time outside range -9223372036854775806 - 9223372036854775806"),
    ("NaN", V2, "m f=NaN", {}, 400, "invalid", "unable to parse 'm f=NaN': invalid number"),
    ("a wrong token", V2, "m f=1", {"Authorization": "Token no"}, 401, "unauthorized", "unauthorized access"),
    ("no token", V2, "m f=1", {"Authorization": ""}, 401, "unauthorized", "unauthorized access"),
    ("no token on InfluxDB 1's path", "/write?db=sandbox", "m f=1", {"Authorization": ""}, 401, "unauthorized",
     "unauthorized access"),
    ("an unknown bucket", "/api/v2/write?org=sandbox&bucket=zz", "m f=1", {}, 404, "not found",
     'bucket "zz" not found'),
    ("an unknown organisation", "/api/v2/write?org=zz&bucket=sandbox", "m f=1", {}, 404, "not found",
     'organization name "zz" not found'),
    ("no bucket", "/api/v2/write?org=sandbox", "m f=1", {}, 404, "not found", "bucket not found"),
    ("a bad precision", "/api/v2/write?org=sandbox&bucket=sandbox&precision=h", "m f=1", {}, 400, "invalid",
     "invalid precision; valid precision units are ns, us, ms, and s"),
    ("gzip that isn't", V2, "m f=1 and more", {"Content-Encoding": "gzip"}, 500, "internal error", INTERNAL),
    ("gzip cut short", V2, gzip.compress(b"m f=1")[:-4], {"Content-Encoding": "gzip"}, 500, "internal error",
     "unable to read data: unexpected EOF"),
    ("InfluxDB 3's path", V3, "m f=1", {}, 404, "not found", "path not found"),
]


@pytest.mark.parametrize(("path", "body", "headers", "status", "code", "message"), [row[1:] for row in V2_TABLE],
                         ids=[row[0] for row in V2_TABLE])
def test_it_answers_as_influxdb_2_was_recorded(v2: InfluxServer, path: str, body: bytes | str, headers: dict[str, str],
                                               status: int, code: str, message: str) -> None:
    answer = write(v2, body, path, **headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["X-Influxdb-Build"] == "OSS"
    assert answer.headers["X-Influxdb-Version"] == "v2.7.12"
    if status == 204:
        assert answer.content == b""
    else:
        assert answer.content == json.dumps({"code": code, "message": message}, separators=(",", ":")).encode()
        assert answer.headers["X-Platform-Error-Code"] == code
        assert get(v2, "count")["points"] == 0


def test_influxdb_2_stores_the_good_lines_beside_a_type_conflict(v2: InfluxServer) -> None:
    assert write(v2, "p1,t=a f=1 5").status_code == 204
    answer = write(v2, 'p1,t=b f="x" 6\np1,t=c f=t 6\np1,t=d f=2 6')
    assert answer.status_code == 422
    assert answer.json() == {
        "code": "unprocessable entity",
        "message": 'failure writing points to database: partial write: field type conflict: input field "f" on '
                   'measurement "p1" is type string, already exists as type float dropped=2'}
    assert [point["tags"] for point in get(v2, "points")] == [[["t", "a"]], [["t", "d"]]]


def test_influxdb_2_stores_the_rest_beside_points_outside_the_retention() -> None:
    with running_influxdb(retention_seconds=3_600) as server:
        answer = write(server, "m,t=a\\ b f=1 1700000001\nm f=2\nm f=1 1700000000\n")
        assert answer.status_code == 422
        message = re.sub(r"Lower Bound at [-\dT:.]+Z", "Lower Bound at BOUND", answer.json()["message"])
        assert message == (
            "failure writing points to database: partial write: dropped 2 points outside retention policy of duration "
            "1h0m0s - oldest point m at 2023-11-14T22:13:20Z dropped because it violates a Retention Policy Lower "
            "Bound at BOUND, newest point m,t=a\\ b at 2023-11-14T22:13:21Z dropped because it violates a Retention "
            "Policy Lower Bound at BOUND dropped=2 for database: 5a0db0c500000001 for retention policy: autogen")
        assert [point["fields"] for point in get(server, "points")] == [{"f": 2.0}]


def test_influxdb_2_takes_any_size_unless_told_otherwise(v2: InfluxServer) -> None:
    assert write(v2, b"#" * 30_000_000).status_code == 204
    with running_influxdb(max_body_bytes=1_000) as limited:
        packed = gzip.compress(b"#" * 1_001)
        answer = write(limited, packed, **{"Content-Encoding": "gzip"})
        assert (answer.status_code, answer.json()["code"]) == (413, "request too large")


def test_influxdb_2_tells_how_it_is(v2: InfluxServer) -> None:
    answers = {path: requests.get(v2.url + path, timeout=ANSWER_SECONDS) for path in ("/ping", "/health", "/ready")}
    assert {path: answer.status_code for path, answer in answers.items()} == {"/ping": 204, "/health": 200,
                                                                            "/ready": 200}
    assert answers["/health"].json()["status"] == "pass"
    assert answers["/health"].json()["version"] == "v2.7.12"
    assert answers["/ready"].json()["status"] == "ready"


def test_influxdb_3_stores_the_good_lines_and_lists_each_bad_one(v3: InfluxServer) -> None:
    answer = write(v3, 'm f=1 5\nm f= 6\nm f="x" 7\n# comment\nm,t= f=1 8\nm f=2 soon\nm f=2 9', V3)
    assert answer.status_code == 400
    assert answer.json() == {"error": "partial write of line protocol occurred", "data": [
        {"original_line": "m f= 6", "line_number": 2, "error_message": "No fields were provided"},
        {"original_line": "m f=x 7", "line_number": 3, "error_message":
            "invalid column type for column 'f', expected iox::column_type::field::float, "
            "got iox::column_type::field::string"},
        # A malformed line is shown from the body's lines of which a comment is one, and counted without it.
        {"original_line": "# comment", "line_number": 4, "error_message": "Expected tag value, got ` f=1 8`"},
        {"original_line": "m,t= f=1 8", "line_number": 5, "error_message":
            "Could not parse entire line. Found trailing content: ` soon`"}]}
    assert [point["fields"] for point in get(v3, "points")] == [{"f": 1.0}, {"f": 2.0}]


EXPECTED_SPACE = "Expected at least one space character, got end of input"
CONFLICT = ("invalid column type for column 'f', expected iox::column_type::field::float, got "
            "iox::column_type::field::string")


@pytest.mark.parametrize(("body", "line", "number", "reason"), [
    ("m f=1 5\nbad\nworse", "bad", 2, EXPECTED_SPACE),
    ('m f=1 5\nm,t=longer_than_that f="x" 6', "m,t=longer_than_that", 2, CONFLICT),
    ('m f=1 5\nm f="x" 6\nbad', "m f=x 6", 2, CONFLICT),
])
def test_influxdb_3_stores_nothing_of_a_bad_body_when_asked_to(
        v3: InfluxServer, body: str, line: str, number: int, reason: str) -> None:
    for path in (V3 + "&accept_partial=false", "/write?db=sandbox&precision=s"):
        answer = write(v3, body, path)
        assert answer.status_code == 400
        assert answer.json() == {"error": "parsing failed for write_lp endpoint", "data": {
            "original_line": line, "line_number": number, "error_message": reason}}
    answer = write(v3, body, "/api/v2/write?bucket=sandbox&precision=s")
    assert (answer.status_code, answer.json()) == (400, {
        "code": "invalid", "message": f"write buffer error: line protocol parse failed: {reason}"})
    assert get(v3, "count")["points"] == 0
    assert write(v3, "m f=1i 5", V3 + "&accept_partial=false").status_code == 204  # no type was kept either


@pytest.mark.parametrize(("precision", "stamp"), [
    ("second", "1700000000"), ("millisecond", "1700000000000"), ("microsecond", "1700000000000000"),
    ("nanosecond", "1700000000000000000"), ("auto", "1700000000"), ("auto", "1700000000000"),
    ("auto", "1700000000000000"), ("auto", "1700000000000000000"),
])
def test_influxdb_3_reads_its_own_precisions(v3: InfluxServer, precision: str, stamp: str) -> None:
    assert write(v3, f"m f=1 {stamp}", f"/api/v3/write_lp?db=sandbox&precision={precision}").status_code == 204
    assert [point["time"] for point in get(v3, "points")] == [1_700_000_000_000_000_000]


@pytest.mark.parametrize(("path", "headers", "status", "body"), [
    ("/api/v3/write_lp?precision=second", {}, 400, b"serde error: missing field `db`"),
    ("/api/v3/write_lp?db=_a", {}, 400, b'{"error":"db name did not start with a number or letter"}'),
    ("/api/v2/write?bucket=_a", {}, 400,
     b'{"code":"invalid","message":"db name did not start with a number or letter"}'),
    (V3, {"Authorization": "Bearer no"}, 401, b'{"error": "the request was not authenticated"}'),
    (V3, {"Authorization": "Bearer sandbox-token"}, 204, b""),
    ("/api/v3/write_lp?db=sandbox&precision=s", {}, 204, b""),
    ("/api/v3/write_lp?db=sandbox&precision=h", {}, 400, b"serde error: unknown variant `h`, expected one of `auto`, "
     b"`s`, `second`, `millisecond`, `ms`, `microsecond`, `u`, `us`, `n`, `nanosecond`, `ns`"),
    (V3 + "&no_sync=1", {}, 400, b"serde error: provided string was not `true` or `false`"),
    (V3 + "&no_sync=true", {}, 204, b""),
    ("/api/v3/write_lp?db=new&precision=second", {}, 204, b""),
    ("/api/v2/write?bucket=sandbox&precision=s", {}, 204, b""),
    ("/write?db=sandbox&precision=s", {}, 204, b""),
    ("/nosuch", {}, 404, b"Not found"),
    ("/nosuch", {"Authorization": "Bearer no"}, 401, b'{"error": "the request was not authenticated"}'),
])
def test_it_answers_as_influxdb_3_was_recorded(v3: InfluxServer, path: str, headers: dict[str, str], status: int,
                                               body: bytes) -> None:
    answer = write(v3, "m f=1 5", path, **headers)
    assert (answer.status_code, answer.content) == (status, body)
    assert "Cluster-Uuid" in answer.headers and "Content-Type" not in answer.headers


def test_influxdb_3_says_which_it_is_to_those_who_have_the_token(v3: InfluxServer) -> None:
    health, ping = (requests.get(v3.url + path, headers=TOKEN, timeout=ANSWER_SECONDS) for path in ("/health", "/ping"))
    assert (health.status_code, health.content) == (200, b"OK")
    assert (ping.status_code, ping.json()["version"], ping.headers["X-Influxdb-Build"]) == (200, "3.9.6", "Core")
    assert requests.get(f"{v3.url}/ping", timeout=ANSWER_SECONDS).status_code == 401


@pytest.mark.parametrize(("path", "status"), [
    (V3, 500), ("/write?db=sandbox", 500), ("/api/v2/write?bucket=sandbox", 413)])
def test_influxdb_3_refuses_large_bodies(v3: InfluxServer, path: str, status: int) -> None:
    answer = write(v3, b"#" * 10_485_761, path)
    assert (answer.status_code, "max request size (10485760 bytes) exceeded" in answer.text) == (status, True)


def test_influxdb_3_keeps_the_columns_of_a_line_that_it_refuses(v3: InfluxServer) -> None:
    write(v3, "m,t=a f=1 5", V3)
    answer = write(v3, 'm t=1 6\nm,f=a g=1 6\nm,new=1 f="x" 7\nm new=5 8', V3)
    assert [re.findall("column_type::([a-z:]+)", line["error_message"]) for line in answer.json()["data"]] == [
        ["tag", "field::float"], ["field::float", "tag"], ["field::float", "field::string"], ["tag", "field::float"]]


def test_limit_counts_each_field_in_the_influxql_of_influxdb_3(v3: InfluxServer) -> None:
    write(v3, "m f=1 1\nm f=2 2\nm f=3,g=3 3\nm f=4 4\nm g=5 5", V3)
    query = {"db": "sandbox", "q": 'SELECT time, "f", "g" FROM "m" ORDER BY time ASC LIMIT 2', "format": "jsonl"}
    answers = {language: requests.post(f"{v3.url}/api/v3/query_{language}", json=query, headers=TOKEN,
                                       timeout=ANSWER_SECONDS).text.splitlines() for language in ("sql", "influxql")}
    found = {language: [[json.loads(row).get(name) for name in "fg"] for row in rows]
             for language, rows in answers.items()}
    assert found == {"sql": [[1, None], [2, None]], "influxql": [[1, None], [2, None], [None, 3], [None, 5]]}


def test_influxdb_1_may_want_user_and_password() -> None:
    with running_influxdb(flavour="v1", identity=Identity(password="secret")) as server:
        path = "/write?db=sandbox&precision=s"
        assert write(server, "m f=1 5", path, Authorization="").status_code == 401
        assert write(server, "m f=1 5", f"{path}&u=sandbox&p=secret", Authorization="").status_code == 204


# What is kept.


def test_the_last_write_of_a_point_wins_field_by_field(v2: InfluxServer) -> None:
    write(v2, "m,t=a f=1,g=1 5")
    write(v2, 'm,t=a g=2,h="x" 5\nm,t=b f=1 5')
    assert get(v2, "count") == {"points": 2}
    assert get(v2, "points") == [
        {"measurement": "m", "tags": [["t", "a"]], "fields": {"f": 1.0, "g": 2.0, "h": "x"},
         "types": {"f": "float", "g": "float", "h": "string"}, "time": 5_000_000_000},
        {"measurement": "m", "tags": [["t", "b"]], "fields": {"f": 1.0}, "types": {"f": "float"},
         "time": 5_000_000_000}]


def test_points_are_sorted_and_their_types_told_apart(v2: InfluxServer) -> None:
    write(v2, 'n f=1 1\nm,t=b f=1i 9\nm,t=b f=2i 3\nm,b=1,a=2 u=18446744073709551615u,s="1",k=t 7')
    points = get(v2, "points")
    assert [(p["measurement"], p["tags"], p["time"] // 10**9) for p in points] == [
        ("m", [["a", "2"], ["b", "1"]], 7), ("m", [["t", "b"]], 3), ("m", [["t", "b"]], 9), ("n", [], 1)]
    assert points[0]["fields"] == {"u": 2**64 - 1, "s": "1", "k": True}
    assert [p["types"] for p in points] == [{"u": "unsigned", "s": "string", "k": "boolean"}, {"f": "integer"},
                                            {"f": "integer"}, {"f": "float"}]
    assert [p["time"] // 10**9 for p in get(v2, "points?measurement=m&limit=2")] == [7, 3]


def test_points_and_types_can_be_forgotten(v2: InfluxServer) -> None:
    write(v2, "m f=1 5")
    assert requests.delete(f"{v2.url}/sandbox/points", timeout=ANSWER_SECONDS).status_code == 204
    assert get(v2, "count") == {"points": 0}
    assert write(v2, 'm f="x" 5').status_code == 204


def test_requests_bytes_and_statuses_are_counted(v2: InfluxServer) -> None:
    write(v2, "m f=1 5")
    write(v2, "bad")
    assert get(v2, "stats") == {"requests": 2, "bytes": 10, "statuses": {"204": 1, "400": 1}, "resets": 0, "hangs": 0}


# HTTP.


def test_a_chunked_body_is_read(v2: InfluxServer) -> None:
    answer = requests.post(v2.url + V2, data=iter([b"m f=1 5\nm f", b"=2 6\n"]), headers=TOKEN, timeout=ANSWER_SECONDS)
    assert answer.status_code == 204
    assert get(v2, "count") == {"points": 2}


def test_requests_sent_at_once_on_one_connection_are_answered_in_order(v2: InfluxServer) -> None:
    with socket.create_connection((v2.host, v2.port), ANSWER_SECONDS) as client:
        head = f"POST {V2} HTTP/1.1\r\nHost: h\r\nAuthorization: Token sandbox-token\r\nContent-Length: "
        client.sendall(f"{head}7\r\n\r\nm f=1 5{head}3\r\n\r\nbad".encode() + b"GET /ping HTTP/1.1\r\n\r\n")
        received = b""
        while received.count(b"HTTP/1.1 ") < 3:
            received += client.recv(65_536)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"204", b"400", b"204"]


def test_a_client_that_waits_for_100_is_told_to_go_on(v2: InfluxServer) -> None:
    with socket.create_connection((v2.host, v2.port), ANSWER_SECONDS) as client:
        client.sendall(f"POST {V2} HTTP/1.1\r\nAuthorization: Token sandbox-token\r\nContent-Length: 7\r\n"
                       "Expect: 100-continue\r\n\r\n".encode())
        assert client.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"m f=1 5")
        assert client.recv(65_536).startswith(b"HTTP/1.1 204 ")


def test_what_is_not_http_is_answered_400_and_cut(v2: InfluxServer) -> None:
    with socket.create_connection((v2.host, v2.port), ANSWER_SECONDS) as client:
        client.sendall(b"nonsense\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(65_536), b""))
    assert received.startswith(b"HTTP/1.1 400 ")


# Faults.


def test_a_status_is_answered_so_many_times_and_nothing_is_stored(v2: InfluxServer) -> None:
    told(v2, {"status": 429, "times": 2, "headers": {"Retry-After": "3"}, "body": "slow down"})
    answers = [write(v2, "m f=1 5") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 204]
    assert (answers[0].headers["Retry-After"], answers[0].text) == ("3", "slow down")
    assert get(v2, "count") == {"points": 1}
    assert get(v2, "stats")["statuses"] == {"429": 2, "204": 1}


@pytest.mark.parametrize(("flavour", "path", "body"), [
    ("v1", "/write?db=sandbox", b'{"error":"Service Unavailable"}\n'),
    ("v2", V2, b'{"code":"unavailable","message":"service unavailable"}'),
    ("v3", V3, b'{"error":"service unavailable"}'),
])
def test_a_status_without_body_has_the_flavours_own(flavour: str, path: str, body: bytes) -> None:
    with running_influxdb(flavour=flavour) as server:
        told(server, {"status": 503})
        assert write(server, "m f=1 5", path).content == body


def test_a_status_without_times_is_answered_until_the_faults_are_removed(v2: InfluxServer) -> None:
    told(v2, {"status": 503})
    assert [write(v2, "m f=1 5").status_code for _ in range(4)] == [503] * 4
    assert get(v2, "faults") == [{"status": 503, "hits": 4}]
    requests.delete(f"{v2.url}/sandbox/faults", timeout=ANSWER_SECONDS)
    assert write(v2, "m f=1 5").status_code == 204


def test_a_sequence_of_statuses_is_answered_in_order(v2: InfluxServer) -> None:
    told(v2, {"sequence": [500, 204, 503]}, {"status": 429, "times": 1})
    assert [write(v2, "m f=1 5").status_code for _ in range(5)] == [500, 204, 503, 429, 204]


def test_only_bodies_with_the_text_in_them_fail_also_when_they_are_packed(v2: InfluxServer) -> None:
    told(v2, {"status": 400, "match": "poison"})
    assert write(v2, "m f=1 5").status_code == 204
    assert write(v2, "m,t=poison f=1 5").status_code == 400
    assert write(v2, gzip.compress(b"m,t=poison f=1 5"), **{"Content-Encoding": "gzip"}).status_code == 400


def test_a_delayed_answer_comes_late_and_the_points_are_stored_before(v2: InfluxServer) -> None:
    told(v2, {"delay_seconds": 2 * QUIET_SECONDS, "times": 1})
    with pytest.raises(requests.ReadTimeout):
        requests.post(v2.url + V2, data=b"m f=1 5", headers=TOKEN, timeout=QUIET_SECONDS)
    assert get(v2, "count") == {"points": 1}
    told(v2, {"delay_seconds": QUIET_SECONDS})
    began = time.monotonic()
    assert write(v2, "m f=1 5").status_code == 204
    assert time.monotonic() - began >= QUIET_SECONDS


def test_a_hanging_server_never_answers_and_stores_nothing(v2: InfluxServer) -> None:
    told(v2, {"hang": True, "times": 1})
    with pytest.raises(requests.ReadTimeout):
        requests.post(v2.url + V2, data=b"m f=1 5", headers=TOKEN, timeout=QUIET_SECONDS)
    assert get(v2, "count") == {"points": 0}
    assert get(v2, "stats")["hangs"] == 1
    assert write(v2, "m f=1 5").status_code == 204


@pytest.mark.parametrize(("when", "stored"), [("before", 0), ("middle", 0), ("after", 1)])
@pytest.mark.parametrize("match", ["", "m f"])
def test_a_connection_is_reset_at_the_moment_that_is_told(v2: InfluxServer, when: str, stored: int, match: str) -> None:
    told(v2, {"reset": when, "times": 1, "match": match})
    with pytest.raises(requests.ConnectionError):
        write(v2, "m f=1 5")
    assert get(v2, "count") == {"points": stored}
    assert get(v2, "stats")["resets"] == 1
    assert get(v2, "faults")[0]["hits"] == 1
    assert write(v2, "m f=1 5").status_code == 204


def test_a_large_body_is_cut_off_while_it_is_still_being_sent(v2: InfluxServer) -> None:
    told(v2, {"reset": "middle"})
    with socket.create_connection((v2.host, v2.port), ANSWER_SECONDS) as client:
        client.sendall(f"POST {V2} HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n".encode() + b"#" * 600_000)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_refusing_server_cuts_connections_and_listens_again_on_its_port(v2: InfluxServer) -> None:
    with requests.Session() as session:
        assert session.get(f"{v2.url}/ping", timeout=ANSWER_SECONDS).status_code == 204
        told(v2, {"refuse": 3.0})
        with pytest.raises(requests.ConnectionError):
            while True:
                session.get(f"{v2.url}/ping", timeout=ANSWER_SECONDS)
        waiting.wait_until(lambda: pings(v2.url), "the server to listen again", ANSWER_SECONDS)
    assert write(v2, "m f=1 5").status_code == 204


def test_another_token_is_wanted_until_the_faults_are_removed(v2: InfluxServer) -> None:
    told(v2, {"token": "new"})
    assert write(v2, "m f=1 5").status_code == 401
    assert write(v2, "m f=1 5", Authorization="Token new").status_code == 204
    requests.delete(f"{v2.url}/sandbox/faults", timeout=ANSWER_SECONDS)
    assert write(v2, "m f=1 5").status_code == 204


@pytest.mark.parametrize(("body", "reason"), [
    ("{", "Input data was truncated"), ('{"statsu": 503}', "unknown field `statsu`"), ("{}", "does nothing"),
    ('{"status": 99}', "Expected `int` >= 100"), ('{"reset": "never"}', "Invalid enum value 'never'"),
])
def test_a_fault_that_makes_no_sense_is_refused_with_the_reason(v2: InfluxServer, body: str, reason: str) -> None:
    answer = requests.put(f"{v2.url}/sandbox/faults", data=body, timeout=ANSWER_SECONDS)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def test_writes_from_many_connections_at_once_are_all_stored(v2: InfluxServer) -> None:
    def send(worker: int) -> None:
        with requests.Session() as session:
            for batch in range(10):
                body = "\n".join(f"m,w={worker} f={i} {batch * 100 + i}" for i in range(100))
                session.post(v2.url + V2, data=body.encode(), headers=TOKEN, timeout=ANSWER_SECONDS).raise_for_status()

    threads = [threading.Thread(target=send, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert get(v2, "count") == {"points": 8_000}


@pytest.mark.parametrize("key", ["_field", "_measurement", "time"])
def test_influxdb_2_refuses_tags_with_the_names_of_its_own_columns(v2: InfluxServer, key: str) -> None:
    answer = write(v2, f"a,{key}=x f=1 1\na f=2 2")
    assert (answer.status_code, answer.json()["message"]) == (
        400, f"unable to parse 'a,{key}=x f=1 1': cannot use reserved tag key \"{key}\"")
    assert get(v2, "points") == []
