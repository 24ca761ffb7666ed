"""What must leave no gap: answers that something in between cuts off cleanly, and rows larger than a page."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.testbed.sandbox.influxdb.answers import Flavour
from tests.support.iggy_servers import RunningIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sinks import SandboxInflux
from tests.support.sources import Source, check, lines_of, write

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
        def begin(influxdb: SandboxInflux, language: str, source: str) -> Source:
            _, table, more, _ = LANGUAGES[language]
            folder = tmp_path / f"p{len(list(tmp_path.iterdir()))}"
            run = Source(folder, iggy.address, influxdb.url, table, stream, source=f"{more}\n{source}",
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
        run = start(influxdb, language, "page_size = 300")
        assert run.ends() == 0
        check(run.points(), 2_000)
        assert "incomplete" in run.log() or "not a whole" in run.log()


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


@pytest.mark.parametrize("language", LANGUAGES)
def test_rows_larger_than_a_page_come_all_and_in_order(start: Start, language: str) -> None:
    flavour, _, _, _ = LANGUAGES[language]
    with running_influxdb(flavour=flavour) as server:
        influxdb = SandboxInflux(server.url, flavour)
        fields = ",".join(f"a_field_with_number_{n}={n}i" for n in range(100))
        write(influxdb, [f"wide,t=a {fields},n={n}i {n * 1_000}" for n in range(60)])
        run = start(influxdb, language, "max_page_bytes = 1_500")
        assert run.ends() == 0
        assert [point["fields"]["n"] for point in run.points()] == list(range(60))
        assert all(len(point["fields"]) == 101 for point in run.points())
