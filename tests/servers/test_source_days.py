"""Sums of the days of a time zone out of InfluxDB 1.6.7, window by window, are those of one query over all of them."""

from pathlib import Path

import requests

from pipeline.points.times import parse_time
from tests.processes.test_source_verify import verify
from tests.support.iggy_servers import SandboxIggy
from tests.support.sources import Source

#: Three weeks around the end of summer time.
FIRST, LAST = parse_time("2025-10-13T00:00:00Z"), parse_time("2025-11-03T00:00:00Z")
QUERY = ("SELECT sum(v) AS total FROM m WHERE time >= {} AND time < {} "
         "GROUP BY time(1d), t fill(none) tz('Europe/Berlin')")


def test_days_with_25_hours_are_not_cut(tmp_path: Path, sandbox: SandboxIggy, influxdb1: str, stream: str) -> None:
    requests.post(f"{influxdb1}/query", params={"q": "CREATE DATABASE days"}, timeout=60).raise_for_status()
    half_hour = 1_800 * 10**9
    lines = [f"m,t={t} v={number}i {time}" for t in "ab" for number, time in enumerate(range(FIRST, LAST, half_hour))]
    answer = requests.post(f"{influxdb1}/write?db=days", data="\n".join(lines).encode(), timeout=60)
    assert answer.status_code == 204, answer.text
    whole = requests.post(f"{influxdb1}/query", timeout=60, params={"db": "days", "epoch": "ns"},
                          data={"q": QUERY.format(FIRST, LAST)}).json()["results"][0]["series"]
    expected = sorted((series["tags"]["t"], *row) for series in whole for row in series["values"])
    query = QUERY.format("$from", "$to")
    source = f"""query = "{query}"
measurement = "per_day"
types = {{ total = "integer" }}
window_align_ms = 86_400_000
window_align_zone = "Europe/Berlin"
from = "2025-10-01T00:00:00Z"
to = "2025-11-10T00:00:00Z"
page_size = 12
"""
    with Source(tmp_path, sandbox.address, influxdb1, 'version = "v1"\ndatabase = "days"', stream, source=source,
                start=False) as run:
        assert run.ends() == 0, run.log()
        found = sorted((point["tags"]["t"], point["time"], point["fields"]["total"]) for point in run.points())
        assert found == expected
        assert {later - time for (t, time, _), (u, later, _) in zip(found, found[1:], strict=False) if t == u} == {
            24 * 2 * half_hour, 25 * 2 * half_hour}
        # In the middle of a day, whose point is at its beginning.
        requests.post(f"{influxdb1}/write?db=days", data=f"m,t=a v=1i {FIRST + 241 * half_hour + 1}",
                      timeout=60).raise_for_status()
        code, compared = verify(run)
        assert (code, compared["missing"], compared["changed"], compared["only_in_iggy"]) == (1, 0, 1, 0)
