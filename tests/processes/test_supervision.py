"""The life of the processes: the dead and the hung are replaced, the hopeless stop the whole, no orphan is left."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.testbed.harness.procfs import is_alive
from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import SandboxIggy
from tests.support.killer import children, pid_of
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, send

Start = Callable[..., Sink]
HASTY = "heartbeat_timeout_ms = 3_000"


def child(sink: Sink, name: str) -> int:
    """The process of a name, once it is there; it may not have said anything yet."""
    wait_until(lambda: pid_of(sink, name) is not None, f"{name} to be there")
    return pid_of(sink, name) or 0


def test_nothing_is_read_before_every_process_is_there(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                      start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(2_000)], 2)
    for _ in range(5):
        sink = start_sink(sandbox.address, stream, influxdb)
        late = child(sink, "write-0")
        os.kill(late, signal.SIGSTOP)
        present = sink.wait_for(lambda status: len(status.pids) >= 5 and status.partitions)
        if "write-0" not in present.pids:
            break
        sink.close()  # it had said that it is there before it was stopped
    later = sink.wait_for(lambda status: status.now >= present.now + 1)
    assert "write-0" not in later.pids and later.read == 0
    os.kill(late, signal.SIGCONT)
    sink.settles(2_000)
    assert sink.stop() == 0


@pytest.mark.parametrize("victim", ["ingest", "encode-0", "write-0", "dead-letter", "coordinator"])
def test_a_process_that_hangs_is_killed_and_replaced(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                     start_sink: Start, victim: str) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(6_000)], 2)
    influxdb.stall_after(4)
    sink = start_sink(sandbox.address, stream, influxdb, options=HASTY)
    status = sink.wait_for(lambda status: status.ready)
    wait_until(lambda: influxdb.count() >= 500, "the first points")
    sink.wait_for(lambda later: later.now > status.now + 1)  # the supervisor has heard of it, too
    os.kill(status.pids[victim], signal.SIGSTOP)
    sink.wait_for_log(f"{victim} hangs: no heartbeat for 3 s")
    wait_until(lambda: not is_alive(status.pids[victim]), "the death of what hangs")
    influxdb.fail()
    sink.settles(6_000)
    assert numbers(influxdb.points()) == list(range(6_000))
    assert sink.stop() == 0


def test_a_writer_that_waits_for_the_database_does_not_hang(sandbox: SandboxIggy, stream: str,
                                                           influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [message(n) for n in range(100)])
    influxdb.fail({"delay_seconds": 7.0, "times": 1})
    sink = start_sink(sandbox.address, stream, influxdb, options=HASTY)
    sink.settles(100)
    assert "write-0 hangs" not in sink.log()


def test_too_many_deaths_stop_the_pipeline_with_a_last_word(sandbox: SandboxIggy, stream: str,
                                                           influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    sink = start_sink(sandbox.address, stream, influxdb, options="max_restarts = 2\nrestart_window_ms = 60_000")
    killed: set[int] = set()
    for _ in range(3):
        status = sink.wait_for(lambda status: status.pids.get("encode-0", 0) not in {0, *killed})
        killed.add(status.pids["encode-0"])
        os.kill(status.pids["encode-0"], signal.SIGKILL)
    assert sink.ends() == 1
    assert "3 processes died within 60 s (pipeline.max_restarts is 2), the last was encode-0 (signal SIGKILL)" \
        in sink.log()


def test_a_process_that_can_not_start_stops_the_pipeline_with_its_reason(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, tmp_path: Path) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    broken = tmp_path / "token"
    broken.write_bytes(b"\xff\xfe")
    broken.chmod(0o600)
    target = f'version = "v2"\norg = "sandbox"\nbucket = "sandbox"\ntoken_file = "{broken}"'
    sink = start_sink(sandbox.address, stream, influxdb, target=target)
    assert sink.ends() == 1
    assert "failed to start: exit code 1: influxdb.token_file" in sink.log()
    assert "Traceback" not in sink.log()


def test_kill_9_of_the_supervisor_ends_all_and_hinders_no_new_start(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(4_000)], 2)
    influxdb.stall_after(4)
    sink = start_sink(sandbox.address, stream, influxdb)
    status = sink.wait_for(lambda status: status.ready)
    wait_until(lambda: influxdb.count() >= 500, "the first points")
    sink.process.kill()
    sink.process.wait()
    wait_until(lambda: not any(map(is_alive, status.pids.values())), "the end of all its processes")
    influxdb.fail()
    sink.start()
    sink.settles(4_000)
    assert numbers(influxdb.points()) == list(range(4_000))
    assert sink.stop() == 0


def test_kill_9_of_the_fork_server_is_one_death_and_loses_nothing(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(4_000)], 2)
    influxdb.stall_after(4)
    sink = start_sink(sandbox.address, stream, influxdb, options="max_restarts = 1")
    status = sink.wait_for(lambda status: status.ready)
    wait_until(lambda: influxdb.count() >= 500, "the first points")
    (server,) = [pid for pid in children(sink.process.pid) if children(pid)]
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, status.pids.values())), "the end of what was forked from it")
    influxdb.fail()
    sink.wait_for(lambda after: after.epoch > status.epoch and after.drained is False and after.ready)
    wait_until(lambda: len(set(numbers(influxdb.points()))) == 4_000, "all points")
    assert numbers(influxdb.points()) == list(range(4_000))
    assert sink.stop() == 0


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_is_a_stop_like_one_to_the_supervisor(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, signal_: signal.Signals) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(2_000)], 2)
    sink = start_sink(sandbox.address, stream, influxdb)
    sink.wait_for(lambda status: status.ready and status.read >= 500)
    servers = children(sink.process.pid)
    for pid in [sink.process.pid, *servers, *[pid for server in servers for pid in children(server)]]:
        os.kill(pid, signal_)
    assert sink.ends() == 0, sink.log()
    assert "every offset committed" in sink.log() and "Traceback" not in sink.log()


def test_a_second_pipeline_on_the_same_offsets_is_refused_in_one_line(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    first = start_sink(sandbox.address, stream, influxdb)
    first.wait_for(lambda status: status.ready)
    second = start_sink(sandbox.address, stream, influxdb)
    assert second.ends() == 1
    lines = second.log().splitlines()
    assert len(lines) == 1, lines
    assert f"another pipeline (process {first.process.pid}) reads {stream}/{TOPIC}" in lines[0]
    assert first.stop() == 0
    second.start()
    second.wait_for(lambda status: status.ready)


def test_two_pipelines_share_a_topic_by_partitions_but_not_a_partition(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 3)
    send(sandbox.address, stream, [message(n) for n in range(3_000)], 3)
    first = start_sink(sandbox.address, stream, influxdb, topic="partitions = [0, 2]")
    first.settles(2_000)
    overlapping = start_sink(sandbox.address, stream, influxdb, topic="partitions = [1, 2]")
    assert overlapping.ends() == 1
    whole = start_sink(sandbox.address, stream, influxdb)
    assert whole.ends() == 1
    second = start_sink(sandbox.address, stream, influxdb, topic="partitions = [1]")
    second.settles(1_000)
    assert numbers(influxdb.points()) == list(range(3_000))


def test_two_pipelines_do_not_share_a_runtime_folder(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    first = start_sink(sandbox.address, stream, influxdb)
    first.wait_for(lambda status: status.ready)
    second = Sink(first.folder / "second", sandbox.address, stream, influxdb.url, TARGET)
    second.close()
    text = second.config.read_text().replace(f"{second.folder}/run", f"{first.folder}/run")
    second.config.write_text(text.replace("[iggy]", '[iggy]\nconsumer = "other"'))
    second.start()
    try:
        assert second.ends() == 1
        assert "has its sockets in" in second.log()
    finally:
        second.close()


TARGET = 'version = "v2"\norg = "sandbox"\nbucket = "sandbox"\ntoken = "sandbox-token"'


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for temporary files: sockets in it have short enough names."""
    with tempfile.TemporaryDirectory(prefix="ps-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_in_the_temporary_folder(
        signal_: signal.Signals, sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start,
        short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(short_folder))
    sandbox.create_topic(stream, TOPIC, 1)
    sink = start_sink(sandbox.address, stream, influxdb)
    sink.wait_for(lambda status: status.ready)
    sink.close()
    # In a folder of its own, which the next start removes.
    sink.config.write_text(sink.config.read_text().replace("runtime_dir", "#"))
    sink.start()
    wait_until(lambda: sink.log().count("sockets in") == 2, "the pipeline")
    sink.process.send_signal(signal_)
    sink.ends()
    assert signal_ == signal.SIGKILL or not list(short_folder.iterdir())
    sink.config.write_text(sink.config.read_text().replace("#", "runtime_dir"))
    sink.start()
    sink.wait_for(lambda status: status.ready)
    assert not list(short_folder.iterdir())
    assert sink.stop() == 0
