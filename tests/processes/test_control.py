"""An operator pauses, resumes and drains a running pipeline, over its local socket."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.commands.config import load_config
from pipeline.http.client import request
from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, send


def run(sink: Sink, command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "pipeline", *command.split(), "-c", str(sink.config), *arguments],
                          capture_output=True, text=True, timeout=120, env=sink.environ)


def test_a_paused_partition_is_not_read_the_others_are_and_a_restart_changes_nothing(
        tmp_path: Path, sandbox: SandboxIggy, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    sandbox.create_topic("s", TOPIC, 2)
    sink = start_sink(sandbox.address, "s", influxdb, environ={"STATE_DIRECTORY": str(tmp_path)})
    config = load_config(str(sink.config))

    def status() -> dict[str, Any]:
        found: dict[str, Any] = request(config, "GET", "/status")
        return found

    def committed() -> list[int]:
        return [one["committed"] for one in (status()["sink"] or {"partitions": []})["partitions"]]

    send(sandbox.address, "s", [message(number) for number in range(100)], 2, at_once=10)
    sink.wait_for(lambda status: status.written == 100)
    wrong = run(sink, "pause", "--topic", "s/nothing")
    assert wrong.returncode == 2 and f"s/{TOPIC}" in wrong.stderr
    paused = run(sink, "pause", "--topic", f"s/{TOPIC}", "--partition", "1", "--keep")
    assert paused.returncode == 0, paused.stderr
    assert status()["state"] == "paused"
    send(sandbox.address, "s", [message(number) for number in range(100, 200)], 2, at_once=10)
    wait_until(lambda: committed() == [99, 49], "the messages of the other partition")
    sink.kill("ingest")
    sink.wait_for(lambda status: "ingest" in status.pids)
    assert sink.stop() == 0
    sink.start()
    send(sandbox.address, "s", [message(number) for number in range(200, 300)], 2, at_once=10)
    wait_until(lambda: influxdb.count() == 200, "the messages of the other partition, after a restart")
    wait_until(lambda: committed() == [149, 49], "their offsets")

    resumed = run(sink, "resume")
    assert (resumed.returncode, resumed.stdout) == (0, "nothing is paused\n"), resumed.stderr
    wait_until(lambda: influxdb.count() == 300, "the messages of the paused partition")
    drained = run(sink, "drain")
    assert drained.returncode == 0 and "drained" in drained.stdout, drained.stderr
    send(sandbox.address, "s", [message(number) for number in range(300, 400)], 2, at_once=10)
    debug = run(sink, "log-level", "debug")
    assert debug.returncode == 0, debug.stderr
    assert influxdb.count() == 300
    wait_until(lambda: status()["sink"]["partitions"][0]["end"] == 199, "the end of the partition")
    too_far = run(sink, "skip", "--topic", f"s/{TOPIC}", "--partition", "0", "--to", "1000")
    assert too_far.returncode == 2 and "199" in too_far.stderr
    skipped = run(sink, "skip", "--topic", f"s/{TOPIC}", "--partition", "0", "--to", "174")
    assert skipped.returncode == 0, skipped.stderr
    assert run(sink, "resume").returncode == 0
    wait_until(lambda: influxdb.count() == 375, "all points but those that were given up")
    odd = {number for first in range(300, 400, 20) for number in range(first, first + 10)}
    given_up = sorted(odd)[:25]
    assert numbers(influxdb.points()) == sorted(set(range(400)) - set(given_up))
    letters = run(sink, "dlq list", "--reason", "skipped")
    assert letters.stdout.count("skipped") >= 25, letters
