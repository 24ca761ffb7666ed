"""`pipeline bench --target influxdb1`: the real database takes the backlog and the held load."""

import json
import subprocess
import sys


def test_backlog_and_latency_of_a_real_database_are_reported() -> None:
    done = subprocess.run([sys.executable, "-m", "pipeline", "bench", "--target", "influxdb1", "--messages", "5000",
                           "--rate", "500", "--seconds", "2", "--json"], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["messages"] == 5_000 and result["ratio_to_bare_loop"] > 0
    assert result["held"]["points"] == result["held"]["load"]["messages"] == 1_000
    assert set(result["latency_ms"]) == {"p50", "p90", "p99", "p99.9", "max"}
