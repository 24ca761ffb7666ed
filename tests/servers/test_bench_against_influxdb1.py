"""`pipeline bench --target influxdb1`: the real database takes the backlog and the held load."""

import json
import subprocess
import sys


def test_backlog_and_latency_of_a_real_database_are_reported() -> None:
    done = subprocess.run([sys.executable, "-m", "pipeline", "bench", "--target", "influxdb1", "--messages", "5000",
                           "--rate", "500", "--seconds", "2", "--json"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["messages"] == 5_000 and result["ratio_to_bare_loop"] > 0
    assert result["held"]["points"] == result["held"]["load"]["messages"] == 1_000
    assert set(result["latency_ms"]) == {"p50", "p90", "p99", "p99.9", "max"}


def test_a_fifth_outside_the_retention_costs_no_multiple() -> None:
    """400 messages/s of 100,000 would be a ratio of 0.005: each batch was cut until the bad lines stood alone."""
    done = subprocess.run([sys.executable, "-m", "pipeline.commands.bench_main", "retention", "--messages", "20000",
                           "--pairs", "1", "--json"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["bad"][0]["dead_letters"] == 4_000 and result["good"][0]["dead_letters"] == 0
    assert result["ratio"] > 0.1 and result["cpu_ratio"] < 10
