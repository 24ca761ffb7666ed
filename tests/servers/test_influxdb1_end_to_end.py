"""The whole pipeline, real processes, from the sandbox broker into a real InfluxDB 1.6."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from pipeline import rig
from pipeline.sandbox.broker import Broker

MESSAGES = 30_000
CONFIG = """
[iggy]
address = "{iggy}"
[[topics]]
stream = "telemetry"
topic = "sensors"
[mapping]
tag_fields = ["site", "device"]
timestamp_from = "field"
timestamp_field = "ts"
[influxdb]
url = "{influxdb}"
version = "v1"
database = "telemetry"
precision = "ms"
[pipeline]
batch_size = 500
runtime_dir = "{folder}"
"""


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A sandbox broker on its own thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    broker = Broker()
    asyncio.run_coroutine_threadsafe(broker.start(), loop).result(10)
    yield broker
    asyncio.run_coroutine_threadsafe(broker.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.fixture
def influxdb(tmp_path: Path) -> Iterator[str]:
    """A real InfluxDB 1.6 with an empty database `telemetry`."""
    port, rpc = free_port(), free_port()
    config = tmp_path / "influxdb.conf"
    config.write_text(f"""reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{tmp_path}/meta"
[data]
dir = "{tmp_path}/data"
wal-dir = "{tmp_path}/wal"
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
[monitor]
store-enabled = false
""")
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(["influxd", "-config", str(config)], stderr=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            return requests.get(f"{url}/ping", timeout=1).status_code == 204
        except requests.ConnectionError:
            return False

    rig.wait_until(answers, 30, "influxd")
    requests.post(f"{url}/query", data={"q": "CREATE DATABASE telemetry"}, timeout=10)
    yield url
    process.kill()
    process.wait()


def count(url: str) -> int:
    """Points stored."""
    query = {"db": "telemetry", "q": "SELECT count(temperature) FROM sensors"}
    series = requests.get(f"{url}/query", params=query, timeout=10).json()["results"][0].get("series")
    return int(series[0]["values"][0][1]) if series else 0


@pytest.mark.parametrize("victim", ["", "encode-0", "write-0", "ingest", "coordinator"])
def test_every_message_is_stored_also_when_a_process_is_killed(
        broker: Broker, influxdb: str, tmp_path: Path, victim: str) -> None:
    rig.produce_now(broker.address, MESSAGES, 2)
    config = tmp_path / "pipeline.toml"
    config.write_text(CONFIG.format(iggy=broker.address, influxdb=influxdb, folder=tmp_path / "run"))
    command = [sys.executable, "-m", "pipeline", "start", "-c", str(config), "--workers", "2"]
    process = subprocess.Popen(command)
    try:
        rig.wait_until(lambda: count(influxdb) > 0, 30, "the first points")
        if victim:
            pids = subprocess.run(["pgrep", "-P", str(process.pid), "-f", f"pipeline: {victim}"], text=True,
                                  capture_output=True, check=True).stdout.split()
            os.kill(int(pids[0]), signal.SIGKILL)
        rig.wait_until(lambda: count(influxdb) == MESSAGES, 60, "all points")
        rig.wait_until(lambda: all(
            broker.stored_offset("telemetry", "sensors", p, "pipeline") == MESSAGES // 2 - 1 for p in (0, 1)),
            30, "the last offsets")
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
