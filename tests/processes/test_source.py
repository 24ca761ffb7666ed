"""The source direction against the sandbox InfluxDB, in every language: arrival, failures, dead letters."""

import json
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.testbed.harness.waiting import wait_until
from pipeline.testbed.sandbox.influxdb.answers import Flavour
from pipeline.wire import source as source_wire
from tests.support.iggy_servers import RunningIggy, SandboxIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sinks import SandboxInflux
from tests.support.sources import FIRST_TIME, Source, check, identity, lines_of, soon, write

FLIGHT = 'database = "sandbox"\ntoken = "sandbox-token"\ntransport = "flight"'
#: flavour, language -> `[sources.influxdb]` and more of `[[sources]]`.
LANGUAGES: dict[str, tuple[Flavour, str, str]] = {
    "v1": ("v1", 'database = "sandbox"', ""),
    "v2 flux": ("v2", 'bucket = "sandbox"\norg = "sandbox"\ntoken = "sandbox-token"', 'language = "flux"'),
    "v2 influxql": ("v2", 'bucket = "sandbox"\norg = "sandbox"\ntoken = "sandbox-token"', ""),
    "v3 sql": ("v3", 'database = "sandbox"\ntoken = "sandbox-token"', ""),
    "v3 flight sql": ("v3", FLIGHT, ""),
}
Start = Callable[..., Source]


@pytest.fixture
def start(tmp_path: Path, iggy: RunningIggy, stream: str) -> Iterator[Start]:
    """Starts sources that read a sandbox in one of LANGUAGES; all end with the test."""
    with ExitStack() as running:
        def begin(influxdb: SandboxInflux, language: str = "v2 flux", **options: Any) -> Source:
            _, table, more = LANGUAGES[language]
            folder = tmp_path / f"p{len(list(tmp_path.iterdir()))}"
            url = influxdb.flight_url if table is FLIGHT else influxdb.url
            run = Source(folder, options.pop("address", iggy.address), url,
                         table + "\n" + options.pop("influxdb_options", ""), stream,
                         source=more + "\n" + options.pop("source", ""), **options)
            running.callback(run.close)
            return run

        yield begin


@pytest.fixture(params=list(LANGUAGES))
def language(request: pytest.FixtureRequest) -> str:
    """One of LANGUAGES after the other."""
    return str(request.param)


def test_every_language_brings_every_point_once_with_its_types(start: Start, language: str) -> None:
    flavour, table, _ = LANGUAGES[language]
    with running_influxdb(flavour=flavour, flight_port=0 if table is FLIGHT else None) as server:
        influxdb = SandboxInflux(server.url, flavour, server.flight_url)
        write(influxdb, lines_of(2_000))
        write(influxdb, [r'odd\ "$m"\,,t\ "g=a\,b\ $c s="q\"u,o\\ ${x}",f=1e300 -5', 'odd\\ "$m"\\, other=-9i -4'])
        run = start(influxdb, language, source="page_size = 300", arguments=["--until-caught-up"])
        assert run.ends() == 0
        check([p for p in run.points() if p["measurement"] == "m"], 2_000)
        assert sorted((p for p in run.points() if p["measurement"] != "m"), key=identity) == [
            {"measurement": 'odd "$m",', "tags": {}, "fields": {"other": -9}, "time": -4},
            {"measurement": 'odd "$m",', "tags": {'t "g': "a,b $c"}, "fields": {"f": 1e300, "s": 'q"u,o\\ ${x}'},
             "time": -5}]


def test_rows_without_all_fields_come_whole_page_by_page(start: Start, language: str) -> None:
    flavour, table, _ = LANGUAGES[language]
    with running_influxdb(flavour=flavour, flight_port=0 if table is FLIGHT else None) as server:
        influxdb = SandboxInflux(server.url, flavour, server.flight_url)
        write(influxdb, [f"m f={n},g={n} {n}" if n % 3 == 0 else f"m f={n} {n}" for n in range(600)])
        run = start(influxdb, language, source="page_size = 50", arguments=["--until-caught-up"])
        assert run.ends() == 0
        assert sorted((point["time"], point["fields"]) for point in run.points()) == [
            (n, {"f": n, "g": n} if n % 3 == 0 else {"f": n}) for n in range(600)]


OWN = """query = 'SELECT time, "f" FROM "m" WHERE time >= $from AND time < $to ORDER BY time ASC'
measurement = "m"
from = "2023-11-14T00:00:00Z"
"""


@pytest.mark.parametrize("language", ["v3 sql", "v3 flight sql"])
@pytest.mark.parametrize(("more", "fields", "asked"), [
    (OWN, {"f"}, "in (v3|flight)_influxql"), ("page_size = 50", {"f", "g"}, "in (flight_)?sql")])
def test_influxql_of_influxdb_3_is_for_a_query_of_ones_own(
        start: Start, language: str, more: str, fields: set[str], asked: str) -> None:
    _, table, _ = LANGUAGES[language]
    with running_influxdb(flavour="v3", flight_port=0 if table is FLIGHT else None) as server:
        influxdb = SandboxInflux(server.url, "v3", server.flight_url)
        write(influxdb, [f"m,t=a f={n},g={n} {FIRST_TIME + n}" for n in range(600)])
        run = start(influxdb, language, source=f'language = "influxql"\n{more}', arguments=["--until-caught-up"])
        assert run.ends() == 0
        assert re.search(asked, run.log())
        points = run.points()
        assert len({point["time"] for point in points}) == len(points) == 600
        assert {frozenset(point["fields"]) for point in points} == {frozenset(fields)}


def test_unsigned_integers_stay_what_they_are_in_line_protocol(start: Start) -> None:
    for flavour in ("v2", "v3"):
        with running_influxdb(flavour=flavour) as server:
            influxdb = SandboxInflux(server.url, flavour)
            write(influxdb, [f"u,t=x u=18446744073709551615u,i=-1i {FIRST_TIME}"])
            run = start(influxdb, "v2 flux" if flavour == "v2" else "v3 sql",
                        output='format = "line_protocol"', arguments=["--until-caught-up"])
            assert run.ends() == 0
            payloads = {message.payload() for message in run.messages()}
            assert payloads == {b"u,t=x i=-1i,u=18446744073709551615u %d" % FIRST_TIME}


def test_messagepack_batches_are_arrays_of_points(start: Start, influxdb: SandboxInflux) -> None:
    write(influxdb, lines_of(250))
    run = start(influxdb, output='format = "msgpack"\nbatch_points = 100', arguments=["--until-caught-up"])
    assert run.ends() == 0
    batches = [msgspec.msgpack.decode(message.payload()) for message in run.messages()]
    assert [len(batch) for batch in batches] == [100, 100, 50]
    check([point for batch in batches for point in batch], 250)


@pytest.mark.parametrize("rule", [
    {"status": 503, "times": 3}, {"status": 429, "headers": {"Retry-After": "1"}, "times": 2},
    {"reset": "before", "times": 3}, {"status": 500, "times": 2}], ids=json.dumps)
def test_a_database_in_trouble_is_asked_again_until_it_answers(
        start: Start, influxdb: SandboxInflux, rule: dict[str, Any]) -> None:
    write(influxdb, lines_of(500))
    run = start(influxdb, source="page_size = 100", start=False)
    influxdb.fail({**rule, "query": True, "match": "range"})
    run.start("--until-caught-up")
    assert run.ends() == 0
    check(run.points(), 500)
    assert "reading m failed (1 in a row)" in run.log() and "answers again" in run.log()


def test_a_wrong_token_pauses_and_the_right_one_goes_on(
        start: Start, influxdb: SandboxInflux, tmp_path: Path) -> None:
    write(influxdb, lines_of(100))
    (tmp_path / "token").write_text("sandbox-token\n")
    (tmp_path / "token").chmod(0o600)
    run = start(influxdb, influxdb_options=f'token_file = "{tmp_path}/token"', start=False)
    run.config.write_text(run.config.read_text().replace('token = "sandbox-token"\n', ""))
    influxdb.fail({"token": "another", "query": True})
    run.start()
    status = run.wait_for(lambda status: status.paused)
    assert "401" in status.retrying["query"] and not status.ready
    run.wait_for_log("correct the token")
    (tmp_path / "token").write_text("another")
    run.wait_for(lambda status: status.points == 100 and status.ready)
    check(run.points(), 100)


def test_what_the_server_refuses_of_one_measurement_holds_up_no_other(start: Start, influxdb: SandboxInflux) -> None:
    write(influxdb, [*lines_of(300), *(f"a f={n} {n}" for n in range(10)), "z f=1 1"])
    run = start(influxdb, start=False)
    influxdb.fail({"status": 400, "body": '{"code":"invalid","message":"not this one"}', "query": True,
                   "match": 'r._measurement == \\"a\\"'})
    run.start("--until-caught-up")
    status = run.wait_for(lambda status: status.points == 301 and status.paused)
    assert "not this one" in status.retrying["query"]
    assert "reading a is paused, nothing is lost" in run.log() and "answers again" not in run.log()
    influxdb.fail()
    assert run.ends() == 0
    check([point for point in run.points() if point["measurement"] == "m"], 300)
    assert len(run.points()) == 311 and "reading a has resumed" in run.log()


def test_flux_is_spoken_where_influxdb_2_knows_no_database_of_the_name(start: Start, influxdb: SandboxInflux) -> None:
    write(influxdb, lines_of(300))
    influxdb.fail({"status": 200, "body": '{"results":[{"statement_id":0,"error":"database not found: sandbox"}]}',
                   "query": True, "match": "SHOW+MEASUREMENTS"})
    run = start(influxdb, "v2 influxql", arguments=["--until-caught-up"])
    assert run.ends() == 0
    check(run.points(), 300)
    assert "in flux" in run.log() and "in influxql" not in run.log()
    assert "no database is mapped to the bucket" in run.log()


def test_a_stop_does_not_wait_for_a_database_that_is_away(start: Start, influxdb: SandboxInflux) -> None:
    write(influxdb, lines_of(100))
    influxdb.fail({"status": 503, "query": True, "match": "range"})
    run = start(influxdb)
    run.wait_for(lambda status: status.retrying and status.in_flight)
    assert run.stop(15) == 0
    influxdb.fail()
    run.start("--until-caught-up")
    assert run.ends() == 0
    check(run.points(), 100)


def test_a_missing_bucket_pauses_and_is_named(start: Start, influxdb: SandboxInflux) -> None:
    run = start(influxdb, start=False)
    run.config.write_text(run.config.read_text().replace('bucket = "sandbox"', 'bucket = "nowhere"'))
    run.start()
    status = run.wait_for(lambda status: status.paused)
    assert 'could not find bucket "nowhere"' in status.retrying["query"]
    assert run.stop() == 0


def test_an_answer_that_breaks_off_is_no_answer(start: Start) -> None:
    with running_influxdb(flavour="v1") as server:
        influxdb = SandboxInflux(server.url, "v1")
        write(influxdb, lines_of(100))
        cut = '{"results":[{"series":[{"name":"m","columns":["time"],"values":[]}],"partial":true}]}'
        influxdb.fail({"query": True, "match": "ORDER", "status": 200, "body": cut, "times": 2})
        run = start(influxdb, "v1", arguments=["--until-caught-up"])
        assert run.ends() == 0
        check(run.points(), 100)
        assert "the answer is incomplete" in run.log()


def test_a_broker_that_goes_away_is_waited_for_and_nothing_is_missing(
        start: Start, influxdb: SandboxInflux, sandbox: SandboxIggy) -> None:
    write(influxdb, lines_of(3_000))
    influxdb.fail({"delay_seconds": 0.2, "query": True, "match": "range"})
    run = start(influxdb, address=sandbox.address, source="page_size = 200\npages_in_flight = 3",
                output="messages_per_send = 20")
    run.wait_for(lambda status: status.points >= 400)
    assert sandbox.call(sandbox.broker.drop_connections) >= 1
    run.wait_for_log("sending messages to")
    influxdb.fail()
    run.wait_for(lambda status: status.points >= 3_000)
    assert run.stop() == 0
    check(run.points(), 3_000, once=False)


def test_a_full_disk_under_the_state_is_waited_for(
        start: Start, influxdb: SandboxInflux) -> None:
    write(influxdb, lines_of(300))
    run = start(influxdb)
    status = run.wait_for(lambda status: status.points == 300 and "source-coordinator" in status.pids)
    coordinator = status.pids["source-coordinator"]
    # As a full disk: no file of the coordinator may grow, its log neither.
    resource.prlimit(coordinator, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    now = soon()
    write(influxdb, [f"m,device=d0 f={n}.5 {now + n}" for n in range(300)])
    run.wait_for(lambda status: "state.json cannot be written" in status.retrying.get("source-coordinator", ""))
    resource.prlimit(coordinator, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    run.wait_for(lambda status: status.points == 600 and not status.retrying)
    assert run.stop() == 0
    assert len({(point["time"], point["tags"]["device"]) for point in run.points()}) == len(run.points()) == 600


def test_the_pages_on_their_way_are_bounded_while_iggy_is_slow(
        start: Start, influxdb: SandboxInflux) -> None:
    write(influxdb, lines_of(2_000))
    run = start(influxdb, source="page_size = 50\npages_in_flight = 3\nparallel_windows = 2",
                output="messages_per_send = 5")
    seen: list[int] = []

    def all_sent(status: source_wire.SourceStatus) -> bool:
        seen.append(status.in_flight)
        return status.points == 2_000

    run.wait_for(all_sent)
    assert max(seen) <= 3


def test_a_message_that_is_too_large_is_a_dead_letter_and_the_rest_arrives(
        start: Start, influxdb: SandboxInflux) -> None:
    write(influxdb, [*lines_of(50), f'big s="{"x" * 5_000}" {FIRST_TIME}'])
    run = start(influxdb, output='max_message_bytes = 2_000\ndead_letter_topic = "lost"',
                arguments=["--until-caught-up"])
    assert run.ends() == 0
    check(run.points(), 50)
    letters = run.points("lost")
    assert [(one["source"], one["measurement"], one["reason"]) for one in letters] == [("source", "big", "too_large")]
    assert re.search(r"rejected source/big row .*: too_large: ", run.log())


def test_two_sources_and_a_sink_run_in_one_pipeline(
        start: Start, influxdb: SandboxInflux, stream: str, tmp_path: Path) -> None:
    write(influxdb, lines_of(300))
    with running_influxdb() as other:
        run = start(influxdb, options=f"""
[[sources]]
name = "second"
state_file = "{tmp_path}/second.json"
to = "2023-11-15T00:00:00Z"
[sources.influxdb]
url = "{influxdb.url}"
bucket = "sandbox"
org = "sandbox"
token = "sandbox-token"
[sources.output]
stream = "{stream}"
topic = "second"
[[topics]]
stream = "{stream}"
topic = "out"
[mapping]
measurement_from = "field"
measurement_field = "measurement"
tag_map_field = "tags"
timestamp_from = "field"
timestamp_field = "time"
timestamp_format = "epoch_ns"
flatten_separator = "/"
[mapping.field_renames]
"fields/i" = "i"
[influxdb]
url = "{other.url}"
bucket = "sandbox"
org = "sandbox"
token = "sandbox-token"
[dead_letters]
stores = []
""")
        copy = SandboxInflux(other.url)
        wait_until(lambda: copy.count() == 300 and len(run.points("second")) == 300, "both directions to be done")
        check(run.points(), 300)
        assert run.stop() == 0
        assert "every offset committed" in run.log() and "every watermark stored" in run.log()


def test_until_caught_up_of_both_directions_ends_when_all_is_written(
        start: Start, influxdb: SandboxInflux, stream: str) -> None:
    write(influxdb, lines_of(3_000))
    with running_influxdb() as other:
        run = start(influxdb, source="page_size = 300", output='format = "line_protocol"', options=f"""
[[topics]]
stream = "{stream}"
topic = "out"
[mapping]
format = "line_protocol"
[influxdb]
url = "{other.url}"
bucket = "sandbox"
org = "sandbox"
token = "sandbox-token"
""", arguments=["--until-caught-up"])
        assert run.ends() == 0
        assert SandboxInflux(other.url).points() == influxdb.points()
        assert "3000 messages read, 3000 points written, 0 rejected, every offset committed" in run.log()
        assert "3000 points of 1 measurements sent as 3000 messages" in run.log()


def test_a_second_pipeline_on_the_same_state_is_refused(start: Start, influxdb: SandboxInflux) -> None:
    run = start(influxdb)
    run.wait_for(lambda status: status.ready)
    second = start(influxdb, start=False)
    second.config.write_text(run.config.read_text().replace(str(run.folder / "run"), str(second.folder / "run")))
    second.start()
    assert second.ends() == 1
    assert "state.json already; stop it, or give another state_file" in second.log()
