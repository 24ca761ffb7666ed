"""`pipeline load` and `pipeline bench` for two seconds: what they put out, not how fast it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.iggy_servers import SandboxIggy


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command to its end."""
    return subprocess.run([sys.executable, "-m", "pipeline", *arguments], capture_output=True, text=True, timeout=280)


def test_a_load_reaches_the_topic_and_says_how_it_went(sandbox: SandboxIggy, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[iggy]\naddress = "{sandbox.address}"\n[[topics]]\nstream = "a"\ntopic = "b"\n'
                      '[influxdb]\norg = "o"\nbucket = "b"\n')
    done = run("load", "-c", str(config), "--rate", "500", "--seconds", "2", "--partitions", "3", "--size", "200",
               "--json")
    result = json.loads(done.stdout)
    assert result["messages"] == 1_000 and done.returncode == (0 if result["held"] else 1), done.stderr
    assert len(sandbox.broker.state.streams["a"].topics["b"].logs) == 3
    assert "sent 1,000 messages" in done.stderr


def test_a_load_that_no_server_takes_is_one_line(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[iggy]\naddress = "127.0.0.1:9"\n[[topics]]\nstream = "a"\ntopic = "b"\n'
                      '[influxdb]\norg = "o"\nbucket = "b"\n')
    done = run("load", "-c", str(config), "--seconds", "1")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "Iggy at 127.0.0.1:9 can't be reached" in done.stderr


@pytest.mark.long
def test_a_bench_reports_throughput_latency_and_processes(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = run("bench", "--messages", "20000", "--rate", "1000", "--seconds", "2", "--html", str(page), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["messages"] == 20_000 and result["messages_per_second"] > 0 and result["bytes_per_point"] > 0
    assert {"total", "coordinator", "encode", "ingest", "write"} <= set(result["cpu_us_per_message"])
    assert result["ratio_to_generic_encoder"] > 0
    assert set(result["latency_ms"]) == {"p50", "p90", "p99", "p99.9", "max"}
    assert result["held"]["points"] == result["held"]["load"]["messages"] == 2_000
    assert {"ingest", "encode-0", "write-0", "coordinator", "supervisor"} <= set(result["held"]["processes"])
    assert page.read_text().count("<svg") == 5
    assert "latency in ms" in done.stderr


@pytest.mark.long
def test_everyday_rates_are_measured_one_by_one() -> None:
    done = run("bench", "everyday", "--rates", "0,200", "--partitions", "2", "--seconds", "2", "--json")
    assert done.returncode == 0, done.stderr
    idle, busy = json.loads(done.stdout.splitlines()[-1])["everyday"]
    assert (idle["rate"], idle["requests_per_second"], idle["latency_ms"]) == (0, 0, {})
    assert (busy["rate"], busy["partitions"]) == (200, 2)
    assert busy["points_per_request"] > 1 and busy["latency_ms"]["p50"] <= busy["latency_ms"]["p99"]
    assert {"supervisor", "coordinator", "ingest", "encode-0", "write-0"} <= busy["cpu_percent"].keys()


def test_workloads_are_measured_by_name() -> None:
    ended = subprocess.run([sys.executable, "-m", "pipeline.commands.bench_main", "workloads", "log_lines", "--json"],
                           capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    (row,) = json.loads(ended.stdout.splitlines()[-1])["rows"]
    assert row["name"] == "log_lines" and row["ratio"] > 0


def test_topics_and_pipelines_of_a_group_are_measured_case_by_case(tmp_path: Path) -> None:
    plots = [tmp_path / "law.svg", tmp_path / "cost.svg"]
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.commands.bench_main", "scale", "--case", "3,2,1", "--messages", "6000",
         "--seconds", "0.2", "--json", "--svg", str(plots[0]), "--cost-svg", str(plots[1])],
        capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    (found,) = json.loads(ended.stdout.splitlines()[-1])["scale"]
    assert found["case"] == {"topics": 3, "partitions": 2, "pipelines": 1}
    assert {"total", "coordinator", "encode", "ingest", "write"} <= found["cpu_us_per_message"].keys()
    assert 0 < found["idle_mib"] <= found["busy_mib"] and found["batches"] >= 1
    assert "3 topics, 2 partitions each" in ended.stderr
    assert all("<polyline" in plot.read_text() or "<rect" in plot.read_text() for plot in plots)


def test_flight_is_compared_with_json_lines_turn_by_turn() -> None:
    done = run("bench", "flight", "--points", "2000", "--page-size", "500", "--turns", "2", "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    names = {"points_per_second", "cpu_us_per_point", "query_cpu_us_per_point", "convert_cpu_us_per_point",
             "server_cpu_us_per_point", "peak_pss_mb", "query_peak_pss_mb", "startup_cpu_seconds"}
    for transport in ("http", "flight"):
        turns = result["turns"][transport]
        assert [(turn["points"], turn["page_size"]) for turn in turns] == [(2_000, 500)] * 2
        assert all({"total", "query", "convert", "produce"} <= set(turn["cpu_us_per_point"]) for turn in turns)
        assert set(result["flight"][transport]) == names
    assert set(result["flight"]["ratio"]) == names
    assert all(0 < one["least"] <= one["middle"] <= one["most"] for one in result["flight"]["ratio"].values())
    # Which goes first changes with each turn.
    told = [line.partition(":")[0] for line in done.stderr.splitlines() if " points/s of 2,000" in line]
    assert told == ["http", "flight", "flight", "http"]
    assert "flight / http" in done.stderr
