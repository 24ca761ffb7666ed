"""What must leave no gap: answers that something in between cuts off cleanly, and rows larger than a page."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from pipeline.testbed.sandbox.influxdb.answers import Flavour
from tests.support.iggy_servers import RunningIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sinks import SandboxInflux
from tests.support.sources import FIRST_TIME, Source, check, identity, lines_of, write

#: flavour, language -> `[sources.influxdb]`, more of `[[sources]]`, and what a page query has in it, as sent.
LANGUAGES: dict[str, tuple[Flavour, str, str, str]] = {
    "v1": ("v1", 'database = "sandbox"', "", "ORDER"),
    "v2 flux": ("v2", 'bucket = "sandbox"\norg = "sandbox"\ntoken = "sandbox-token"', 'language = "flux"', "range"),
    "v2 influxql": ("v2", 'bucket = "sandbox"\norg = "sandbox"\ntoken = "sandbox-token"', "", "ORDER"),
    "v3 sql": ("v3", 'database = "sandbox"\ntoken = "sandbox-token"', "", "ORDER"),
}
#: Bytes that are left of an answer; negative: that are missing at its end.
CUTS = (0, 1, 2, 60, 400, 3_000, -1, -2, -3, -60, -400)
Start = Callable[..., Source]


@pytest.fixture
def start(tmp_path: Path, iggy: RunningIggy, stream: str) -> Iterator[Start]:
    """Starts sources that read a sandbox until they have caught up; all end with the test."""
    with ExitStack() as running:
        def begin(influxdb: SandboxInflux, language: str, source: str, options: str = "") -> Source:
            _, table, more, _ = LANGUAGES[language]
            folder = tmp_path / f"p{len(list(tmp_path.iterdir()))}"
            table, more = f"{table}\n{options}", f"{more}\n{source}"
            run = Source(folder, iggy.address, influxdb.url, table, stream, source=more,
                         arguments=["--until-caught-up"])
            running.callback(run.close)
            return run

        yield begin


def cuts(match: str) -> list[dict[str, Any]]:
    """Faults: the next queries with `match` in them are cut at one place after the other."""
    return [{"query": True, "match": match, "cut": cut, "times": 1} for cut in CUTS]


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_that_are_cut_off_cleanly_are_read_again(start: Start, language: str) -> None:
    flavour, _, _, page = LANGUAGES[language]
    with running_influxdb(flavour=flavour) as server:
        influxdb = SandboxInflux(server.url, flavour)
        write(influxdb, lines_of(2_000))
        # Of pages first: what is left acts on the lists of measurements and columns.
        influxdb.fail(*cuts(page), *cuts(""))
        run = start(influxdb, language, "page_size = 300\nparallel_windows = 2")
        assert run.ends() == 0
        check(run.points(), 2_000)
        assert "incomplete" in run.log() or "not a whole" in run.log()


def test_a_custom_query_in_flux_that_is_cut_between_tables_is_read_again(start: Start) -> None:
    text = 'from(bucket: "sandbox") |> range(start: time(v: {}), stop: time(v: {})) |> filter(fn: (r) => ' \
           'r._measurement == "m")'
    with running_influxdb(flavour="v2") as server:
        influxdb = SandboxInflux(server.url, "v2")
        write(influxdb, lines_of(50))
        whole = requests.post(f"{server.url}/api/v2/query?org=sandbox", timeout=60, data=json.dumps(
            {"query": text.format(0, FIRST_TIME * 2)}), headers={"Authorization": "Token sandbox-token",
                                                                "Accept-Encoding": "identity"}).content
        # Uncompressed, and once only the first table; the query at the start has another time.
        end = whole.index(b"\r\n\r\n") + 4
        plain = {"query": True, "match": "start: time(v: 2023-11-14"}
        influxdb.fail({**plain, "cut": end, "times": 1}, {**plain, "cut": len(whole) + 1})
        run = start(influxdb, "v2 flux", f"""query = '''{text.format("$from", "$to")}'''
measurement = "m"
tags = ["device"]
from = "2023-11-14T00:00:00Z"
""", "gzip = false")
        assert run.ends() == 0
        check(run.points(), 50)


@pytest.mark.parametrize("error", [
    "max-concurrent-queries limit exceeded(2, 2)", "query interrupted", "query-timeout limit exceeded",
    "engine: context canceled"])
def test_a_server_that_is_busy_at_the_start_is_waited_for(start: Start, error: str) -> None:
    with running_influxdb(flavour="v1") as server:
        influxdb = SandboxInflux(server.url, "v1")
        write(influxdb, lines_of(100))
        influxdb.fail({"query": True, "status": 200, "times": 4, "body": json.dumps(
            {"results": [{"statement_id": 0, "error": error}]})})
        run = start(influxdb, "v1", "")
        assert run.ends() == 0
        check(run.points(), 100)


def test_aligned_windows_may_begin_at_the_earliest_time(start: Start) -> None:
    with running_influxdb(flavour="v1") as server:
        influxdb = SandboxInflux(server.url, "v1")
        write(influxdb, lines_of(100))
        run = start(influxdb, "v1", """query = 'SELECT "i" FROM "m" WHERE time >= $from AND time < $to'
measurement = "m"
window_align_ms = 86_400_000
types = {i = "integer"}
""")
        assert run.ends() == 0
        assert sorted(point["fields"]["i"] for point in run.points()) == list(range(100))


#: Page queries of the measurement `slow`, as sent.
SLOW = {"v1": "%22slow%22+WHERE", "v2 flux": r'r._measurement == \"slow\"', "v2 influxql": "%22slow%22+WHERE",
        "v3 sql": r'FROM \"slow\" WHERE'}


@pytest.mark.parametrize(("language", "fault"), [
    ("v1", {"hang": True}), ("v2 flux", {"hang": True}), ("v3 sql", {"hang": True}),
    ("v1", {"status": 200, "body": '{"results":[{"statement_id":0,"error":"max-select-point limit exceeed: (9/5)"}]}'}),
    ("v2 flux", {"status": 500, "body": '{"code":"internal error","message":"memory allocation limit reached"}'}),
    ("v2 influxql", {"status": 504}), ("v2 influxql", {"status": 500}),
    ("v3 sql", {"status": 400, "body": "Query would exceed file limit of 432 parquet files. Please specify a smaller "
                                       "time range for your query."})])
def test_a_query_that_is_too_heavy_is_repeated_with_smaller_windows_beside_others(
        start: Start, language: str, fault: dict[str, Any]) -> None:
    flavour, _, _, _ = LANGUAGES[language]
    with running_influxdb(flavour=flavour) as server:
        influxdb = SandboxInflux(server.url, flavour)
        write(influxdb, [*lines_of(300), *(f"slow f={n} {FIRST_TIME + n}" for n in range(100))])
        influxdb.fail({**fault, "query": True, "match": SLOW[language], "times": 5})
        run = start(influxdb, language, "", "read_timeout_ms = 1_000")
        assert run.ends() == 0
        points = run.points()
        check([point for point in points if point["measurement"] == "m"], 300)
        assert sorted(point["fields"]["f"] for point in points if point["measurement"] == "slow") == list(range(100))
        assert "repeated with smaller windows" in run.log() and "reading m failed" not in run.log()


@pytest.mark.parametrize("language", LANGUAGES)
def test_tags_and_fields_that_are_new_ahead_of_the_watermark_are_read(start: Start, language: str) -> None:
    flavour, _, _, page = LANGUAGES[language]
    with running_influxdb(flavour=flavour) as server:
        influxdb = SandboxInflux(server.url, flavour)
        write(influxdb, [f"m,a=x f={n} {FIRST_TIME + n * 1_000}" for n in range(2_000)])
        # The first pages are read, and no more until the points are written.
        influxdb.fail({"query": True, "match": page, "delay_seconds": 0.01, "times": 30},
                      {"query": True, "match": page, "status": 503})
        run = start(influxdb, language, "page_size = 20")
        run.wait_for(lambda status: "query" in status.retrying)
        write(influxdb, [f"m,a=x,b=new f={n},g=true {FIRST_TIME + n * 1_000}" for n in range(1_990, 2_000)])
        write(influxdb, [f"m,a=x h={n}i {FIRST_TIME + n * 1_000}" for n in range(2_000, 2_010)])
        influxdb.fail()
        assert run.ends() == 0
        points = run.points()
        # Of the points with the new tag, the ones without it are there, too: they are another series.
        assert len({identity(point) for point in points}) == len(points) == 2_020
        assert sum("b" in point["tags"] and point["fields"].get("g") is True for point in points) == 10
        assert sorted(point["fields"]["h"] for point in points if "h" in point["fields"]) == list(range(2_000, 2_010))


def test_a_batch_job_that_finds_no_measurement_fails(start: Start) -> None:
    with running_influxdb(flavour="v1") as server:
        influxdb = SandboxInflux(server.url, "v1")
        write(influxdb, lines_of(10))
        run = start(influxdb, "v1", 'measurements = ["other"]')
        assert run.ends() == 1
        assert "no measurement matches" in run.log()


def write_future(influxdb: SandboxInflux) -> None:
    """100 points of the past, and five of 2100."""
    write(influxdb, [*lines_of(100), *(f"m,device=d0 f=1.0 {4_102_444_800_000_000_000 + n}" for n in range(5))])


@pytest.mark.parametrize("language", LANGUAGES)
def test_points_in_the_future_are_counted_and_not_read(start: Start, language: str) -> None:
    flavour, _, _, _ = LANGUAGES[language]
    with running_influxdb(flavour=flavour) as server:
        influxdb = SandboxInflux(server.url, flavour)
        write_future(influxdb)
        run = start(influxdb, language, "")
        assert run.ends() == 0
        check(run.points(), 100)
        assert "m has 5 points in the future, from 2100-01-01" in run.log()
        assert "5 points in the future not read" in run.log()


@pytest.mark.parametrize("language", LANGUAGES)
def test_points_in_the_future_are_read_by_choice(start: Start, language: str) -> None:
    flavour, _, _, _ = LANGUAGES[language]
    with running_influxdb(flavour=flavour) as server:
        influxdb = SandboxInflux(server.url, flavour)
        write_future(influxdb)
        run = start(influxdb, language, 'to = "2150-01-01T00:00:00Z"\nread_future_points = true')
        assert run.ends() == 0
        points = run.points()
        check([point for point in points if "i" in point["fields"]], 100)
        assert len(points) == 105 and "is in the future" in run.log()
        # A second start has nothing to do: its watermark is right.
        run.start()
        assert run.ends() == 0
        assert len(run.points()) == 105


def test_an_end_in_the_future_is_waited_for_and_said(start: Start) -> None:
    with running_influxdb(flavour="v1") as server:
        influxdb = SandboxInflux(server.url, "v1")
        write_future(influxdb)
        run = start(influxdb, "v1", 'to = "2150-01-01T00:00:00Z"')
        run.wait_for(lambda status: status.points == 100 and status.future == 5)
        assert "the source waits until then" in run.log()
        assert run.stop() == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_rows_larger_than_a_page_come_all_and_in_order(start: Start, language: str) -> None:
    flavour, _, _, _ = LANGUAGES[language]
    with running_influxdb(flavour=flavour) as server:
        influxdb = SandboxInflux(server.url, flavour)
        fields = ",".join(f"a_field_with_number_{n}={n}i" for n in range(100))
        write(influxdb, [f"wide,t=a {fields},n={n}i {n * 1_000}" for n in range(20)])
        run = start(influxdb, language, "max_page_bytes = 1_500")
        assert run.ends() == 0
        assert [point["fields"]["n"] for point in run.points()] == list(range(20))
        assert all(len(point["fields"]) == 101 for point in run.points())


def test_a_measurement_that_is_refused_ends_a_batch_job_with_its_name(start: Start) -> None:
    with running_influxdb(flavour="v1") as server:
        influxdb = SandboxInflux(server.url, "v1")
        write(influxdb, [*lines_of(300), f"slow f=1 {FIRST_TIME}"])
        influxdb.fail({"query": True, "match": SLOW["v1"], "status": 400, "times": 1_000,
                       "body": '{"error":"error parsing query: not this one"}'})
        run = start(influxdb, "v1", "")
        assert run.ends() == 1
        check(run.points(), 300)
        assert "1 measurements could not be read: source: slow" in run.log() and "not this one" in run.log()


def test_times_with_many_series_are_sent_in_parts_and_nothing_is_lost_when_processes_die(start: Start) -> None:
    with running_influxdb(flavour="v1") as server:
        influxdb = SandboxInflux(server.url, "v1")
        write(influxdb, [f"m,t={n} v={n}i {FIRST_TIME + time}" for time in range(6) for n in range(500)])
        # The second time is read once the others may go on.
        page = LANGUAGES["v1"][3]
        influxdb.fail({"query": True, "match": page, "delay_seconds": 0.05, "times": 6},
                      {"query": True, "match": page, "status": 503})
        run = start(influxdb, "v1", "page_size = 70")
        run.wait_for(lambda status: status.points >= 500)
        run.kill("produce")
        run.kill("convert-0")
        influxdb.fail()
        assert run.ends() == 0
        points = [(point["time"], point["fields"]["v"]) for point in run.points()]
        assert sorted(set(points)) == [(FIRST_TIME + time, n) for time in range(6) for n in range(500)]
        # Not much more than what was on the way is sent again.
        assert len(points) < 4_500
