"""A running pipeline reads its configuration again: what changes at once, what after a drain, and what not at all."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, send

#: Reloads of a mapping while messages are written.
RELOADS = 50


def reload(sink: Sink) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "pipeline", "reload", "-c", str(sink.config)], capture_output=True,
                          text=True, timeout=120, env=sink.environ)


def with_tag(text: str, tag: str) -> str:
    head, _, rest = text.partition("[mapping]\n")
    lines = [line for line in rest.split("\n") if not line.startswith("constant_tags")]
    return f'{head}[mapping]\nconstant_tags = {{ v = "{tag}" }}\n' + "\n".join(lines)


def test_a_mapping_is_replaced_under_load_and_each_message_is_written_once(
        tmp_path: Path, sandbox: SandboxIggy, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    sandbox.create_topic("s", TOPIC, 4)
    sink = start_sink(sandbox.address, "s", influxdb)
    text = sink.config.read_text()
    total = 0
    stop = threading.Event()

    def produce() -> None:
        nonlocal total
        while not stop.is_set():
            send(sandbox.address, "s", [message(number) for number in range(total, total + 2_000)], 4)
            total += 2_000

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        pids = dict(sink.wait_for(lambda status: status.written > 2_000 and len(status.pids) >= 6).pids)
        for number in range(RELOADS):
            sink.config.write_text(with_tag(text, f"r{number}"))
            before = sink.log().count("reload: ")
            sink.process.send_signal(signal.SIGHUP)
            wait_until(lambda: sink.log().count("reload: ") > before, "a reload")  # noqa: B023
    finally:
        stop.set()
        producer.join()
    sink.wait_for(lambda status: status.written == total)
    assert sink.wait_for(lambda status: True).pids == pids, "no process was started again"
    points = influxdb.points()
    assert sorted(point["time"] - 1_000 for point in points) == list(range(total))
    tags = {dict(point["tags"]).get("v") for point in points}
    assert f"r{RELOADS - 1}" in tags and len(tags) > 2


def test_what_cannot_change_while_it_runs_is_drained_and_started_again(
        tmp_path: Path, sandbox: SandboxIggy, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    sandbox.create_topic("s", TOPIC, 2)
    sandbox.create_topic("s", "other", 1)
    sink = start_sink(sandbox.address, "s", influxdb, environ={"OF_THE_SINK": "sandbox-token"},
                      target='version = "v2"\norg = "sandbox"\nbucket = "sandbox"\ntoken = "${OF_THE_SINK}"')
    send(sandbox.address, "s", [message(number) for number in range(1_000)], 2)
    sink.wait_for(lambda status: status.written == 1_000)
    text = sink.config.read_text()

    sink.config.write_text(text + "\n[nonsense]\n")
    failed = reload(sink)
    assert failed.returncode == 2
    assert "nonsense: unknown key" in failed.stderr
    sink.process.send_signal(signal.SIGHUP)
    sink.wait_for_log("the pipeline goes on with the configuration that it has")

    sink.config.write_text(text.replace("batch_size = 500", "batch_size = 100").replace(
        "[mapping]", '[[topics]]\nstream = "s"\ntopic = "other"\n\n[mapping]'))
    done = reload(sink)
    assert done.returncode == 0, done.stderr
    assert "topics" in done.stdout and "pipeline.batch_size" in done.stdout
    send(sandbox.address, "s", [message(number) for number in range(1_000, 1_500)], topic="other")
    send(sandbox.address, "s", [message(number) for number in range(1_500, 2_000)], 2)
    wait_until(lambda: influxdb.count() == 2_000, "all points")
    assert sorted(point["time"] - 1_000 for point in influxdb.points()) == list(range(2_000))

    # Processes that die afterwards get the new configuration.
    pids = sink.wait_for(lambda status: len(status.partitions) == 3 and len(status.pids) >= 6).pids
    for name in ("encode-0", "encode-1", "write-0", "coordinator"):
        os.kill(pids[name], signal.SIGKILL)
    send(sandbox.address, "s", [message(number) for number in range(2_000, 2_500)], topic="other")
    wait_until(lambda: influxdb.count() == 2_500, "the points after the deaths")
    assert sink.stop() == 0


def test_writers_that_are_paused_go_on_with_another_token(
        tmp_path: Path, sandbox: SandboxIggy, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    sandbox.create_topic("s", TOPIC, 1)
    sink = start_sink(sandbox.address, "s", influxdb,
                      target='version = "v2"\norg = "sandbox"\nbucket = "sandbox"\ntoken = "wrong-token"')
    send(sandbox.address, "s", [message(number) for number in range(100)])
    sink.wait_for(lambda status: status.waiting)
    sink.config.write_text(sink.config.read_text().replace("wrong-token", "sandbox-token"))
    done = reload(sink)
    assert done.returncode == 0, done.stderr
    assert "influxdb.token" in done.stdout and "sandbox-token" not in done.stdout + sink.log()
    sink.wait_for(lambda status: status.written == 100)


def test_processes_that_are_killed_in_the_middle_of_reloads_lose_nothing(
        tmp_path: Path, sandbox: SandboxIggy, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    sandbox.create_topic("s", TOPIC, 2)
    sink = start_sink(sandbox.address, "s", influxdb, options="max_restarts = 100")
    sink.wait_for(lambda status: status.ready)
    text = sink.config.read_text()
    total = 0
    for number, victim in enumerate(("encode-0", "coordinator", "write-0", "ingest", "encode-1", "coordinator")):
        send(sandbox.address, "s", [message(one) for one in range(total, total + 3_000)], 2)
        total += 3_000
        # Every second reload needs a drain; the others replace the mapping.
        size = 500 + number // 2 % 2
        kept = "type_guard = true" if number % 2 else "merge_duplicates = true"
        sink.config.write_text(text.replace("batch_size = 500", f"batch_size = {size}").replace(
            "[mapping]\n", f"[mapping]\n{kept}\n"))
        before = sink.log().count("reload: ")
        sink.process.send_signal(signal.SIGHUP)
        with contextlib.suppress(ProcessLookupError):  # the reload before has just replaced it
            sink.kill(victim)
        wait_until(lambda: sink.log().count("reload: ") > before, "a reload")  # noqa: B023
    wait_until(lambda: influxdb.count() == total, "every point")
    assert numbers(influxdb.points()) == list(range(total))
    assert sink.stop() == 0
