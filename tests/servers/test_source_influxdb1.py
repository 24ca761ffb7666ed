"""InfluxDB 1.6.7 to Iggy, with real processes: every point once, types kept, nothing lost whatever dies."""

import gzip
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from pipeline.points.shards import parse_duration, shard_start
from pipeline.points.times import MIN_TIME, parse_time
from pipeline.testbed.harness.waiting import wait_until
from pipeline.wire import source as source_wire
from stages.produce.sender import fit_name
from tests.support.iggy_servers import SandboxIggy
from tests.support.influxdb_servers import running_influxdb, running_influxdb1
from tests.support.sinks import SandboxInflux
from tests.support.sources import Source, identity, read_partitions, soon

POINTS = 20_000
FIRST_TIME = 1_700_000_000_000_000_000
#: Windows of a measurement that are read in parallel: sent in order, or as they come.
PARALLEL = "parallel_windows = 4\nmax_parallel_queries = 4\n"
WINDOWS = {"one": "", "parallel": PARALLEL, "as they come": f"{PARALLEL}keep_order = false\n"}
Start = Callable[..., Source]


@pytest.fixture
def database(influxdb1: str) -> Iterator[str]:
    """The name of an empty database."""
    name = "source"
    query(influxdb1, f"DROP DATABASE {name}")
    query(influxdb1, f"CREATE DATABASE {name}")
    yield name


@pytest.fixture
def start(tmp_path: Path, sandbox: SandboxIggy, influxdb1: str, database: str, stream: str) -> Iterator[Start]:
    """Starts sources that read the database; all end with the test."""
    with ExitStack() as running:
        def begin(**options: Any) -> Source:
            folder = tmp_path / f"p{len(list(tmp_path.iterdir()))}"
            run = Source(folder, sandbox.address, influxdb1, f'version = "v1"\ndatabase = "{database}"',
                         options.pop("stream", stream), **options)
            running.callback(run.close)
            return run

        yield begin


def query(url: str, text: str, **more: str) -> dict[str, Any]:
    """One InfluxQL statement."""
    answer = requests.post(f"{url}/query", params={"q": text, **more}, timeout=60)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def write(url: str, database: str, lines: list[str]) -> None:
    """Stores lines, 5,000 at a time."""
    for at in range(0, len(lines), 5_000):
        answer = requests.post(f"{url}/write?db={database}", data="\n".join(lines[at:at + 5_000]).encode(), timeout=60)
        assert answer.status_code == 204, answer.text


def line(number: int) -> str:
    """Point `number`: 40 devices have a point at each second."""
    device, tick = number % 40, number // 40
    return (f"sensors,device=d{device:02},site=s{device % 3} temperature={tick % 300}.5,whole={tick}.0,count={number}i,"
            f'ok={"true" if tick % 2 else "false"},note="n {number}" {FIRST_TIME + tick * 1_000_000_000}')


def point(number: int) -> dict[str, Any]:
    """What `line(number)` is as a JSON object."""
    device, tick = number % 40, number // 40
    return {"measurement": "sensors", "tags": {"device": f"d{device:02}", "site": f"s{device % 3}"},
            "fields": {"count": number, "note": f"n {number}", "ok": tick % 2 == 1, "temperature": tick % 300 + 0.5,
                       "whole": float(tick)}, "time": FIRST_TIME + tick * 1_000_000_000}


def check_all(points: list[dict[str, Any]], count: int, once: bool = True) -> None:
    """None missing, each as it was stored, and with `once` none twice."""
    found = Counter(p["fields"]["count"] for p in points)
    assert sorted(found) == list(range(count))
    assert not once or max(found.values(), default=1) == 1
    for p in points:
        assert p == point(p["fields"]["count"])
        assert isinstance(p["fields"]["whole"], float)


def test_every_point_comes_once_with_its_types_and_the_source_ends(
        influxdb1: str, database: str, start: Start) -> None:
    write(influxdb1, database, [line(n) for n in range(POINTS)])
    run = start(source="page_size = 3_000", arguments=["--until-caught-up"])
    assert run.ends() == 0
    check_all(run.points(), POINTS)
    assert f"{POINTS} points of 1 measurements" in run.log()


def test_points_written_while_it_runs_follow_and_a_restart_sends_none_again(
        influxdb1: str, database: str, start: Start) -> None:
    write(influxdb1, database, [line(n) for n in range(1_000)])
    run = start(source='from = "2020-01-01T00:00:00Z"')
    run.wait_for(lambda status: status.points == 1_000)
    query(influxdb1, f"CREATE DATABASE {database}")
    requests.post(f"{influxdb1}/write?db={database}", data=f"live v=1i {soon()}", timeout=60).raise_for_status()
    run.wait_for(lambda status: status.points == 1_001)
    assert run.stop() == 0
    run.start("--until-caught-up")
    assert run.ends() == 0
    points = run.points()
    check_all([p for p in points if p["measurement"] == "sensors"], 1_000)
    assert [p["fields"] for p in points if p["measurement"] == "live"] == [{"v": 1}]


@pytest.mark.parametrize(("fields", "max_page_bytes"), [(400, 100_000), (400, 1_024), (5, 20_000)])
def test_pages_are_fitted_to_large_rows_and_the_watermark_stays_with_them(
        influxdb1: str, database: str, start: Start, fields: int, max_page_bytes: int) -> None:
    rows = 200 if max_page_bytes > 2_000 else 50
    write(influxdb1, database, [
        f"wide,t=a {','.join(f'field{n}={n + row}i' for n in range(fields))} {FIRST_TIME + row * 1_000_000_000}"
        for row in range(rows)])
    run = start(source=f"max_page_bytes = {max_page_bytes}")
    marks: set[int] = set()

    def all_sent(status: source_wire.SourceStatus) -> bool:
        marks.update(lane.watermark for lane in status.measurements)
        return status.points == rows

    run.wait_for(all_sent)
    assert [point["fields"]["field1"] for point in run.points()] == [1 + row for row in range(rows)]
    # A watermark never moves to a time that no row gave.
    assert all(mark == MIN_TIME or mark >= FIRST_TIME for mark in marks)


@pytest.mark.parametrize(("victim", "windows"), [
    ("query", "parallel"), ("convert-0", "one"), ("convert-1", "as they come"), ("produce", "parallel"),
    ("source-coordinator", "as they come")])
def test_killing_a_process_loses_nothing(
        influxdb1: str, database: str, start: Start, victim: str, windows: str) -> None:
    write(influxdb1, database, [line(n) for n in range(POINTS)])
    run = start(source=f"page_size = 100\npages_in_flight = 4\n{WINDOWS[windows]}", arguments=["--until-caught-up"])
    run.wait_for(lambda status: status.points >= 2_000)
    run.kill(victim)
    assert run.ends() == 0
    check_all(run.points(), POINTS, once=False)


def test_killing_everything_loses_nothing_and_a_new_start_goes_on(
        influxdb1: str, database: str, start: Start) -> None:
    write(influxdb1, database, [line(n) for n in range(POINTS)])
    run = start(source=f"page_size = 100\n{PARALLEL}")
    status = run.wait_for(lambda status: status.points >= 3_000)
    run.close()
    for pid in status.pids.values():
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}/cmdline").exists()  # type: ignore[misc]
                   or not Path(f"/proc/{pid}/cmdline").read_bytes(), f"process {pid} to end")
    run.start("--until-caught-up")
    assert run.ends() == 0
    points = run.points()
    check_all(points, POINTS, once=False)
    assert len(points) < POINTS + 10_000


def test_more_points_at_one_time_than_a_page_are_all_sent(influxdb1: str, database: str, start: Start) -> None:
    lines = [f"m,t={n} v={n}i {FIRST_TIME + (n >= 700) + (n >= 1_400)}" for n in range(2_000)]
    write(influxdb1, database, lines)
    run = start(source="page_size = 100", arguments=["--until-caught-up"])
    assert run.ends() == 0
    assert sorted(p["fields"]["v"] for p in run.points()) == list(range(2_000))


def test_odd_names_and_values_come_as_they_are(influxdb1: str, database: str, start: Start) -> None:
    write(influxdb1, database, [
        r'odd\ "m"\,,t\ "g=a\,b\ c same=1,i=-9223372036854775808i,s="q\"u,o],[te\\" -5',
        r'plain,same=tag same=1e300,s="",zero=-0.0 7', 'plain other="ü\n2" 7'])
    run = start(arguments=["--until-caught-up"])
    assert run.ends() == 0
    assert sorted(run.points(), key=identity) == sorted([
        {"measurement": 'odd "m",', "tags": {'t "g': "a,b c"},
         "fields": {"i": -2**63, "s": 'q"u,o],[te\\', "same": 1.0}, "time": -5},
        {"measurement": "plain", "tags": {"same": "tag"}, "fields": {"s": "", "same": 1e300, "zero": -0.0},
         "time": 7},
        {"measurement": "plain", "tags": {}, "fields": {"other": "ü\n2"}, "time": 7}], key=identity)
    # Equality does not see the sign.
    assert any(b'"zero":-0.0' in message.payload() for message in run.messages())


def test_a_field_whose_type_differs_between_shards_keeps_each_type(
        influxdb1: str, database: str, start: Start) -> None:
    week = 7 * 86_400 * 10**9
    write(influxdb1, database, [f"m f=1.5,i=2.0 {FIRST_TIME}"])
    write(influxdb1, database, [f'm f="text",i=3i {FIRST_TIME + 2 * week}'])
    write(influxdb1, database, [f"m f=true {FIRST_TIME + 4 * week}"])
    run = start(source="windows_by_shard = true", arguments=["--until-caught-up"])
    assert run.ends() == 0
    assert [p["fields"] for p in sorted(run.points(), key=identity)] == [
        {"f": 1.5, "i": 2.0}, {"f": "text", "i": 3.0}, {"f": True}]
    assert "are read as floats: 'i'. Integers beyond 2^53" in run.log()


def test_new_measurements_that_fit_the_patterns_and_new_fields_are_found(
        influxdb1: str, database: str, start: Start) -> None:
    for name in ("cpu_a", "cpu_b", "cpu_temp", "disk"):
        write(influxdb1, database, [f"{name} v=1i {FIRST_TIME}"])
    run = start(source='measurements = ["cpu_*"]\nexclude_measurements = ["*_temp"]',
                output='headers = {"from" = "{source}/{measurement}"}')
    run.wait_for(lambda status: status.points == 2)
    at = soon()
    body = f"cpu_c v=1i {at}\ndisk v=1i {at}\ncpu_a v=2i,extra=3i,new=t {at}"
    requests.post(f"{influxdb1}/write?db={database}", data=body, timeout=60).raise_for_status()
    run.wait_for(lambda status: status.points == 4)
    points = run.points()
    assert Counter(p["measurement"] for p in points) == {"cpu_a": 2, "cpu_b": 1, "cpu_c": 1}
    headers = [m.user_headers() for m in run.messages()]
    assert all(headers) and "source/cpu_a" in str(headers)
    assert {"v": 2, "extra": 3, "new": True} in [p["fields"] for p in points]


def test_late_points_within_the_overlap_are_sent_and_nothing_else_again(
        influxdb1: str, database: str, start: Start) -> None:
    now = time.time_ns()
    write(influxdb1, database, [f"m,t={n} v={n}i {now - 5 * 10**9 + n}" for n in range(500)])
    run = start(source="overlap_ms = 600_000")
    run.wait_for(lambda status: status.points == 500)
    # Later than its time, within the overlap; and one that changes a point.
    write(influxdb1, database, [f"m,t=late v=1000i {now - 60 * 10**9}", f"m,t=7 v=7007i {now - 5 * 10**9 + 7}"])
    run.wait_for(lambda status: status.points == 502)
    pages = run.wait_for(lambda status: status.points == 502).pages
    run.wait_for(lambda status: status.pages >= pages + 5)
    assert run.stop() == 0
    run.start()
    run.wait_for(lambda status: status.pages >= 5)
    values = Counter(p["fields"]["v"] for p in run.points())
    assert values == Counter([*range(500), 1_000, 7_007])


def test_a_backfill_sends_its_window_and_leaves_the_mark_alone(influxdb1: str, database: str, start: Start) -> None:
    write(influxdb1, database, [line(n) for n in range(4_000)])
    run = start(start=False)
    run.start("--from", "2023-11-14T22:13:30Z", "--to", "2023-11-14T22:13:40Z")
    assert run.ends() == 0
    assert sorted(p["fields"]["count"] for p in run.points()) == list(range(10 * 40, 20 * 40))
    assert not run.state_file.exists()
    run.start("--from", "2023-11-14T22:13:30Z", "--to", "2023-11-14T22:13:40Z")
    assert run.ends() == 0
    assert len(run.points()) == 400


def test_a_query_of_ones_own_in_windows_of_its_groups(influxdb1: str, database: str, start: Start) -> None:
    write(influxdb1, database, [line(n) for n in range(4_000)])
    run = start(source='query = "SELECT max(count) AS top, count(ok) AS n FROM sensors WHERE time >= $from AND time < '
                       '$to GROUP BY time(10s), site fill(none)"\nmeasurement = "tops"\nwindow_align_ms = 10_000\n'
                       'types = {top = "integer"}\nfrom = "2023-11-14T22:13:20Z"\nto = "2023-11-14T22:15:00Z"')
    assert run.ends() == 0
    points = run.points()
    assert len(points) == 30 and {p["measurement"] for p in points} == {"tops"}
    last = max((p for p in points if p["tags"] == {"site": "s0"}), key=lambda p: int(p["time"]))
    assert last == {"measurement": "tops", "tags": {"site": "s0"}, "fields": {"n": 140.0, "top": 3_999},
                    "time": FIRST_TIME + 90 * 10**9}


@pytest.mark.parametrize(("source", "words"), [
    ('query = "SELEC $from $to"\nmeasurement = "m"', "found SELEC, expected SELECT"),
    ('language = "flux"', "needs InfluxDB 2"),
])
def test_a_bad_query_is_named_at_the_start(start: Start, source: str, words: str) -> None:
    run = start(source=source, start=False)
    run.config.write_text(run.config.read_text().replace('version = "v1"', 'version = "auto"'))
    run.start()
    assert run.ends() == 1
    assert words in run.log() and "Traceback" not in run.log()


@pytest.mark.parametrize("windows", ["one", "parallel"])
def test_series_keep_their_order_in_their_partitions(
        influxdb1: str, database: str, start: Start, windows: str) -> None:
    write(influxdb1, database, [line(n) for n in range(8_000)])
    run = start(source=f"page_size = 700\n{WINDOWS[windows]}", output="partitions = 4", arguments=["--until-caught-up"])
    assert run.ends() == 0
    parts = [[json.loads(m.payload()) for m in part] for part in read_partitions(run.iggy, run.stream, "out")]
    assert len(parts) == 4 and all(parts)
    series: dict[str, int] = {}
    for number, part in enumerate(parts):
        times: dict[str, int] = {}
        for p in part:
            device = p["tags"]["device"]
            assert series.setdefault(device, number) == number
            assert times.get(device, 0) < p["time"]
            times[device] = p["time"]
    check_all([p for part in parts for p in part], 8_000)


def test_points_in_batches_long_and_compressed_and_topics_by_measurement(
        influxdb1: str, database: str, start: Start) -> None:
    write(influxdb1, database, [line(n) for n in range(1_000)])
    run = start(output='format = "line_protocol"\nshape = "long"\nbatch_points = 50\ncompression = "gzip"\n'
                       'partitioning = "balanced"', arguments=["--until-caught-up"], start=False)
    run.config.write_text(run.config.read_text().replace('topic = "out"', 'topic = "t-{measurement}"'))
    run.start()
    assert run.ends() == 0
    messages = [gzip.decompress(m.payload()).decode() for m in run.messages("t-sensors")]
    lines = [line for message in messages for line in message.splitlines()]
    assert len(messages) == 100 and len(set(lines)) == 5_000
    assert f"sensors,device=d00,site=s0 count=0i {FIRST_TIME}" in lines


def test_measurements_with_odd_names_have_topics_of_their_own(influxdb1: str, database: str, start: Start) -> None:
    long = ["n" * 300 + ending for ending in "ab"]
    write(influxdb1, database, [f"{name} v=1i 1" for name in (*long, "a[1]", "a1", "17")])
    run = start(source='exclude_measurements = ["a[1]"]', output='headers = {name = "{measurement}"}',
                arguments=["--until-caught-up"], start=False)
    run.config.write_text(run.config.read_text().replace('topic = "out"', 'topic = "{measurement}"'))
    run.start()
    assert run.ends() == 0
    for name in (*long, "a1", "17"):
        assert [point["measurement"] for point in run.points(fit_name(name, "{measurement}"))] == [name]
    assert run.messages("a[1]") == []
    assert run.log().count("Iggy's names have at most 255 bytes") == 3


def test_retention_policies_that_are_not_read_are_named(influxdb1: str, database: str, start: Start) -> None:
    write(influxdb1, database, ["m v=1i 1"])
    query(influxdb1, f"CREATE RETENTION POLICY old ON {database} DURATION INF REPLICATION 1")
    requests.post(f"{influxdb1}/write?db={database}&rp=old", data="m v=2i 1", timeout=10).raise_for_status()
    run = start(arguments=["--until-caught-up"])
    assert run.ends() == 0
    assert [point["fields"] for point in run.points()] == [{"v": 1}]
    assert re.search("retention policies .* are not read: old", run.log())


@pytest.mark.parametrize("duration", ["1h", "7d", "10d", "100h"])
def test_shards_are_where_they_are_computed(influxdb1: str, database: str, duration: str) -> None:
    query(influxdb1, f"CREATE RETENTION POLICY p ON {database} DURATION INF REPLICATION 1 SHARD DURATION {duration}")
    times = [FIRST_TIME + n * 3 * 10**15 for n in range(5)]
    answer = requests.post(f"{influxdb1}/write?db={database}&rp=p", timeout=60,
                           data="\n".join(f"m v=1 {at}" for at in times).encode())
    assert answer.status_code == 204, answer.text
    shards = query(influxdb1, "SHOW SHARDS", epoch="ns")["results"][0]["series"]
    [found] = [series for series in shards if series["name"] == database]
    [listed] = query(influxdb1, f"SHOW RETENTION POLICIES ON {database}")["results"][0]["series"]
    [width] = [parse_duration(row[2]) for row in listed["values"] if row[0] == "p"]
    starts = {parse_time(row[found["columns"].index("start_time")]) for row in found["values"]}
    assert starts == {shard_start(at, width) for at in times}


def test_a_user_and_a_password_may_have_any_characters(tmp_path: Path, sandbox: SandboxIggy, stream: str) -> None:
    with running_influxdb1(tmp_path, auth=True) as url:
        login = ("jürgen", "pässwörd €")
        query(url, f"""CREATE USER "{login[0]}" WITH PASSWORD '{login[1]}' WITH ALL PRIVILEGES""")
        auth = tuple(text.encode() for text in login)
        for path, options in (("query", {"params": {"q": "CREATE DATABASE db"}}),
                              ("write?db=db", {"data": "m v=1i 1"})):
            requests.post(f"{url}/{path}", auth=auth, timeout=30, **options).raise_for_status()  # type: ignore[arg-type]
        table = f'version = "v1"\ndatabase = "db"\nusername = "{login[0]}"\npassword = "{login[1]}"'
        run = Source(tmp_path / "p", sandbox.address, url, table, stream, arguments=["--until-caught-up"])
        try:
            assert run.ends() == 0
            assert [point["fields"] for point in run.points()] == [{"v": 1}]
            assert login[1] not in run.log()
        finally:
            run.close()


def test_a_server_that_goes_away_and_comes_back_is_waited_for(
        tmp_path: Path, sandbox: SandboxIggy, stream: str) -> None:
    run = Source(tmp_path / "p", sandbox.address, "http://127.0.0.1:9", 'version = "v1"\ndatabase = "db"', stream)
    try:
        run.wait_for(lambda status: "query" in status.retrying)
        assert "no connection" in run.log()
        assert run.stop() == 0
        with running_influxdb1(tmp_path) as url:
            run.config.write_text(run.config.read_text().replace("http://127.0.0.1:9", url))
            run.start()
            # 1.6.7 says so with status 200.
            status = run.wait_for(lambda status: "query" in status.retrying)
            assert status.paused and "database not found" in status.retrying["query"]
            query(url, "CREATE DATABASE db")
            write(url, "db", [line(n) for n in range(100)])
            run.wait_for(lambda status: status.points == 100 and not status.paused)
            check_all(run.points(), 100)
    finally:
        run.close()


def test_a_damaged_state_is_an_error_and_never_a_start_at_zero(influxdb1: str, database: str, start: Start) -> None:
    run = start(start=False)
    run.state_file.write_text("{}")
    run.start()
    assert run.ends() == 1
    assert "state.json is damaged" in run.log() and "Traceback" not in run.log()
    assert run.messages() == []


def test_a_round_trip_through_our_sink_leaves_every_point_as_it_was(
        influxdb1: str, database: str, start: Start, sandbox: SandboxIggy, stream: str, tmp_path: Path) -> None:
    write(influxdb1, database, [line(n) for n in range(5_000)])
    write(influxdb1, database, [r'odd\ m,t\ g=a\,b s="q\"u\\",b=f,f=-1e-9,i=9i 5'])
    run = start(output='format = "line_protocol"', arguments=["--until-caught-up"])
    assert run.ends() == 0
    with running_influxdb() as server:
        config = tmp_path / "sink.toml"
        config.write_text(SINK.format(iggy=sandbox.address, stream=stream, url=server.url, folder=tmp_path / "sink"))
        ended = subprocess.run([sys.executable, "-m", "pipeline", "start", "-c", str(config), "--until-caught-up"],
                               stderr=subprocess.PIPE, timeout=60)
        assert ended.returncode == 0, ended.stderr.decode()[-2_000:]
        stored = SandboxInflux(server.url).points()
    found = sorted(((p["measurement"], dict(p["tags"]), _sorted(p["fields"]), _sorted(p["types"]),
                     p["time"]) for p in stored), key=repr)
    kinds = {"count": "integer", "note": "string", "ok": "boolean", "temperature": "float", "whole": "float"}
    expected = [(p["measurement"], p["tags"], _sorted(p["fields"]), kinds, p["time"]) for p in map(point, range(5_000))]
    expected.append(("odd m", {"t g": "a,b"}, {"b": False, "f": -1e-9, "i": 9, "s": 'q"u\\'},
                     {"b": "boolean", "f": "float", "i": "integer", "s": "string"}, 5))
    assert found == sorted(expected, key=repr)


def _sorted(table: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(table.items()))


SINK = """
[iggy]
address = "{iggy}"
[[topics]]
stream = "{stream}"
topic = "out"
[mapping]
format = "line_protocol"
[influxdb]
url = "{url}"
version = "v2"
org = "sandbox"
bucket = "sandbox"
token = "sandbox-token"
[pipeline]
runtime_dir = "{folder}"
"""


def test_late_points_are_counted_and_the_hint_brings_them(influxdb1: str, database: str, start: Start) -> None:
    write(influxdb1, database, ["dense f=1,g=1 1", "sparse a=1 1"])
    run = start(source="late_check_ms = 1_000")
    run.wait_for(lambda status: status.points == 2 and status.caught_up)
    at = soon()
    write(influxdb1, database, [f"dense f=1,g=1 {at}", f"sparse a=1 {at}", f"sparse b=1 {at + 1}"])
    run.wait_for(lambda status: status.points == 5 and min(one.watermark for one in status.measurements) > at + 10)
    # No field of "sparse" has more values than points were read.
    write(influxdb1, database, [f"dense f=1,g=1 {at + 2}", f"dense f=1,g=1 {at + 3}", f"sparse b=1 {at + 4}"])
    run.wait_for(lambda status: {one.measurement: one.late for one in status.measurements} == {"dense": 2, "sparse": 1})
    assert run.stop() == 0
    hint = re.search(r"--from (\S+) --to (\S+)\. To", run.log())
    assert hint is not None and "raise buffer_duration_ms = 0, or set overlap_ms" in run.log()
    run.start("--from", hint[1], "--to", hint[2])
    assert run.ends() == 0
    late = {identity(point) for point in run.points() if at + 1 < point["time"] < at + 10}
    assert len(late) >= 2  # those of the first warning: a second one is held back


def test_what_would_be_sent_is_shown_and_nothing_is_sent(
        influxdb1: str, database: str, sandbox: SandboxIggy, stream: str, tmp_path: Path) -> None:
    write(influxdb1, database, [line(n) for n in range(4_000)] + ["rare x=1i 5", "sparse a=1 1", "sparse b=2 2"])
    run = Source(tmp_path, sandbox.address, influxdb1, f'version = "v1"\ndatabase = "{database}"', stream, start=False,
                 output='headers = { from = "{source}" }\npartitions = 3')

    def shown(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-m", "pipeline", *arguments, "-c", str(run.config)],
                              capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    code, text = shown("preview", "--source", "source", "--json", "--count", "2")
    assert code == 0, text
    rare, sensors, sparse = json.loads(text)["measurements"]
    assert (sensors["points"], sensors["series"], sensors["exists"], sensors["partitions"]) == (4_000, 40, False, 3)
    assert sum(one["points"] for one in sensors["windows"]) == 4_000 and len(sensors["windows"]) > 1
    assert [json.loads(one["text"]) for one in sensors["samples"]][0]["measurement"] == "sensors"
    assert {one["partition"] for one in sensors["samples"]} <= {0, 1, 2} and sensors["headers"] == {"from": "source"}
    assert json.loads(rare["samples"][0]["text"])["fields"] == {"x": 1} and sparse["points"] == 1
    code, text = shown("start", "--from", "2024-01-01T00:00:00Z", "--to", "2024-01-02T00:00:00Z", "--dry-run")
    assert code == 0 and "measurement rare" in text and "at least 0 points" in text and "# nothing was sent" in text
    code, text = shown("preview", "--source", "source", "--measurement", "nothing*")
    assert code == 1 and "no measurement matches nothing*; there are 3, such as rare, sensors, sparse" in text
    assert read_partitions(sandbox.address, stream, "out") == [] and not run.state_file.exists()
