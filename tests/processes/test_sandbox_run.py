"""The sandbox as a process: `pipeline sandbox`, and `python -m pipeline.testbed.sandbox.run` as the tests start it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.commands.config import load_config
from pipeline.testbed.harness.sandboxes import Addresses, start_sandbox

SECONDS = 60.0
TOKEN = {"Authorization": "Token sandbox-token"}
V2 = "/api/v2/write?org=sandbox&bucket=sandbox&precision=s"


@contextmanager
def started(folder: Path, *options: str) -> Iterator[tuple["subprocess.Popen[bytes]", Addresses]]:
    """A sandbox process, killed at the end of the block if it is still there."""
    process, addresses = start_sandbox(folder, *options)
    try:
        yield process, addresses
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_cleanly_at_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as (process, addresses):
        assert addresses.pid == process.pid
        assert requests.post(addresses.influxdb + V2, b"m f=1 5", headers=TOKEN, timeout=SECONDS).status_code == 204
        host, _, port = addresses.iggy.rpartition(":")
        socket.create_connection((host, int(port)), SECONDS).close()
        process.send_signal(number)
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize(("only", "there"), [("iggy", (True, False)), ("influxdb", (False, True))])
def test_one_of_the_two_can_be_started_alone(tmp_path: Path, only: str, there: tuple[bool, bool]) -> None:
    with started(tmp_path, "--only", only) as (_, addresses):
        assert (bool(addresses.iggy), bool(addresses.influxdb)) == there


def test_it_poses_as_the_flavour_and_fails_as_the_command_line_says(tmp_path: Path) -> None:
    options = ("--only", "influxdb", "--flavour", "v1", "--max-body-bytes", "10", "--retention-seconds", "60",
               "--fault", '{"status": 503, "times": 1}')
    with started(tmp_path, *options) as (_, addresses):
        def write(body: bytes) -> int:
            url = f"{addresses.influxdb}/write?db=sandbox&precision=s"
            return requests.post(url, body, timeout=SECONDS).status_code

        assert [write(b"m f=1"), write(b"m f=1"), write(b"m f=1 5"), write(b"#" * 11)] == [503, 204, 400, 413]


def test_with_count_only_every_write_is_taken_unread_and_counted(tmp_path: Path) -> None:
    with started(tmp_path, "--only", "influxdb", "--count-only") as (_, addresses), requests.Session() as session:
        for size in (3, 3_000_000, 0, 7):
            answer = session.post(addresses.influxdb + V2, b"x" * size, headers={"Content-Encoding": "gzip"},
                                  timeout=SECONDS)
            assert (answer.status_code, answer.content) == (204, b"")
        stats = session.get(f"{addresses.influxdb}/sandbox/stats", timeout=SECONDS).json()
        assert stats == {"requests": 4, "bytes": 3_000_010, "statuses": {"204": 4}}
        assert session.post(addresses.influxdb + V2, iter([b"x"]), timeout=SECONDS).status_code == 411


def test_the_broker_beside_it_takes_commands(tmp_path: Path) -> None:
    with started(tmp_path) as (_, addresses):
        url = f"{addresses.influxdb}/sandbox/iggy"
        state = requests.post(url, json={"do": "create_topic", "stream": "s", "topic": "t"}, timeout=SECONDS).json()
        assert [topic["topic"] for topic in state["topics"]] == ["t"]
        refused = requests.post(url, json={"do": "nonsense"}, timeout=SECONDS)
        assert refused.status_code == 400
        assert "nonsense" in refused.json()["error"]


@pytest.mark.parametrize("option", ["--iggy-port", "--influx-port"])
def test_a_port_that_is_taken_is_named_with_what_to_do(option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ports = {"--iggy-port": "0", "--influx-port": "0", option: port}
        ended = subprocess.run([sys.executable, "-m", "pipeline", "sandbox", *sum(ports.items(), ())], text=True,
                               capture_output=True, timeout=SECONDS, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}: Address already in use" in ended.stderr
    assert option in ended.stderr


@pytest.mark.parametrize("host", ["192.0.2.1", "::1"])
def test_a_host_that_is_not_this_machine_is_named(host: str) -> None:
    result = CliRunner().invoke(main, ["sandbox", "--host", host, "--iggy-port", "0"])
    assert result.exit_code == 1
    assert f"Iggy can't listen on {host}:0" in result.output
    assert result.output.endswith("give an address of this machine with --host\n")


@pytest.mark.parametrize("flavour", ["v1", "v2", "v3", "questdb"])
def test_the_configuration_that_it_prints_is_ready_for_use(tmp_path: Path, flavour: str) -> None:
    command = [sys.executable, "-m", "pipeline", "sandbox", "--iggy-port", "0", "--influx-port", "0",
               "--flavour", flavour]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    try:
        printed = ""
        while "Ctrl+C" not in printed:
            line = process.stdout.readline()
            assert line, printed
            printed += line
        assert "not for production" in printed
        config = tmp_path / "pipeline.toml"
        config.write_text(printed[printed.index("[iggy]"):printed.index("Stop it")])
        loaded = load_config(str(config))
        host, _, port = loaded.iggy.address.rpartition(":")
        socket.create_connection((host, int(port)), SECONDS).close()
        token = {"Authorization": f"Token {loaded.influxdb.token}"} if loaded.influxdb.token else {}
        assert requests.get(f"{loaded.influxdb.url}/ping", headers=token, timeout=SECONDS).ok
        process.terminate()
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
