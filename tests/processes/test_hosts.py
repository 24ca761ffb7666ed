"""Encoders on other machines: encrypted, authenticated, and free to come and go. (Here over loopback.)"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from pipeline.errors import PipelineError
from pipeline.sockets.curve_keys import add_worker, load_identity, make_keys
from pipeline.sockets.endpoints import BATCH_PORTS, WRITER_PORTS
from pipeline.testbed.harness.waiting import free_port, wait_until
from tests.support.iggy_servers import SandboxIggy
from tests.support.killer import Killer
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, send

Start = Callable[..., Sink]
OWN_ENCODERS = ("encode-0", "encode-1")


class Remote:
    """A running `pipeline stage encode`."""

    def __init__(self, folder: Path, config: Path, port: int, keys: Path, name: str) -> None:
        self.log_file = folder / f"{name}.log"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", "stage", "encode", "-c", str(config), "--connect",
                 f"127.0.0.1:{port}", "--keys", str(keys), "--name", name], stderr=log)

    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A pipeline's keys, with a worker `far`."""
    folder = tmp_path / "keys"
    make_keys(str(folder))
    add_worker(str(folder), "far")
    return folder


@pytest.fixture
def remotes() -> Iterator[ExitStack]:
    """Ends the remote encoders with the test."""
    with ExitStack() as stack:
        yield stack


def start(start_sink: Start, sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
          keys: Path, more: str = "") -> tuple[Sink, int]:
    """A pipeline that listens, with `more` in `[pipeline]`, and its port."""
    port = free_port(BATCH_PORTS, WRITER_PORTS, WRITER_PORTS + 1)
    network = f'{more}\n[network]\nlisten = "127.0.0.1"\nport = {port}\nkeys = "{keys}"'
    sandbox.create_topic(stream, TOPIC, 2)
    return start_sink(sandbox.address, stream, influxdb, options=network), port


def join(remotes: ExitStack, sink: Sink, port: int, keys: Path, name: str) -> Remote:
    """A remote encoder that takes part."""
    remote = Remote(sink.folder, sink.config, port, keys, name)
    remotes.callback(remote.process.wait)
    remotes.callback(remote.process.kill)
    sink.wait_for(lambda status: f"encode-{name}" in status.pids)
    return remote


def test_remote_encoders_come_and_go_and_nothing_is_lost(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, keys: Path,
        remotes: ExitStack) -> None:
    sink, port = start(start_sink, sandbox, stream, influxdb, keys)
    sink.wait_for(lambda status: status.ready)
    killed, leaving = (join(remotes, sink, port, keys / "worker-far", name) for name in ("killed", "leaving"))
    influxdb.stall_after(8)
    send(sandbox.address, stream, [message(n) for n in range(20_000)], 2)
    wait_until(lambda: influxdb.count() >= 500, "the first points")
    killed.process.kill()
    leaving.process.send_signal(signal.SIGTERM)
    influxdb.fail()
    assert leaving.process.wait(60) == 0
    sink.settles(20_000)
    assert numbers(influxdb.points()) == list(range(20_000))
    sink.wait_for(lambda status: not {"encode-killed", "encode-leaving"} & status.pids.keys())
    sink.wait_for_log("worker encode-leaving leaves")
    sink.wait_for_log("no heartbeat from worker encode-killed for 10 s")
    join(remotes, sink, port, keys / "worker-far", "again")
    assert sink.stop() == 0


def test_a_remote_encoder_that_dies_reports_what_it_was_working_on(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, keys: Path,
        remotes: ExitStack) -> None:
    poison = 10_314
    sink, port = start(start_sink, sandbox, stream, influxdb, keys, "heartbeat_timeout_ms = 300_000")
    far = join(remotes, sink, port, keys / "worker-far", "far")
    own = [pid for name, pid in sink.wait_for(lambda status: status.ready).pids.items() if name in OWN_ENCODERS]
    for pid in own:
        os.kill(pid, signal.SIGSTOP)
    # The stopped ones have their hands full before the poison comes.
    send(sandbox.address, stream, [message(n) for n in range(10_000)])
    sink.wait_for(lambda status: status.written >= 5_000)
    payloads = [message(n) for n in range(10_000, 10_500)]
    payloads[314] = message(poison, slow={f"k{key}": str(key) for key in range(9_000)})
    send(sandbox.address, stream, payloads)
    with Killer(sink, ["encode-far"], {poison}, watcher=far.process.pid):
        sink.wait_for_log(f"offset {poison} is quarantined")
    for pid in own:
        os.kill(pid, signal.SIGCONT)
    sink.settles(10_500)
    assert [number for number in range(10_500) if number != poison] == numbers(influxdb.points())
    assert "the encoder died (signal SIGKILL); starting it again" in far.log()
    far.process.send_signal(signal.SIGTERM)
    assert far.process.wait(60) == 0


def test_a_remote_encoder_encodes_while_the_pipelines_own_are_stopped(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, keys: Path,
        remotes: ExitStack) -> None:
    sink, port = start(start_sink, sandbox, stream, influxdb, keys)
    join(remotes, sink, port, keys / "worker-far", "far")
    own = [pid for name, pid in sink.wait_for(lambda status: status.ready).pids.items() if name in OWN_ENCODERS]
    for pid in own:
        os.kill(pid, signal.SIGSTOP)
    send(sandbox.address, stream, [message(n) for n in range(5_000)], 2)
    sink.wait_for(lambda status: status.written)
    for pid in own:
        os.kill(pid, signal.SIGCONT)
    sink.settles(5_000)
    assert numbers(influxdb.points()) == list(range(5_000))


def test_a_stranger_is_not_let_in_and_another_configuration_is_refused(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, keys: Path, tmp_path: Path,
        remotes: ExitStack) -> None:
    sink, port = start(start_sink, sandbox, stream, influxdb, keys)
    sink.wait_for(lambda status: status.ready)
    other = tmp_path / "other.toml"
    other.write_text(sink.config.read_text().replace('tag_fields = ["device"]', "tag_fields = []"))
    remote = Remote(tmp_path, other, port, keys / "worker-far", "different")
    assert remote.process.wait(60) == 1
    assert "does not admit encode-different" in remote.log()
    assert "Traceback" not in remote.log()
    strangers = tmp_path / "strangers"
    make_keys(str(strangers))
    add_worker(str(strangers), "far")
    stranger = strangers / "worker-far"
    (stranger / "server.key").write_bytes((keys / "server.key").read_bytes())
    remote = Remote(tmp_path, sink.config, port, stranger, "stranger")
    remotes.callback(remote.process.wait)
    remotes.callback(remote.process.kill)
    wait_until(lambda: "no answer from" in remote.log(), "the stranger's complaint")
    complained = time.monotonic()
    assert "encode-stranger" not in sink.wait_for(lambda status: status.now >= complained).pids


def test_without_keys_a_plain_socket_gets_no_answer(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, keys: Path) -> None:
    sink, port = start(start_sink, sandbox, stream, influxdb, keys)
    sink.wait_for(lambda status: status.ready)
    plain: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    plain.connect(f"tcp://127.0.0.1:{port}")
    plain.send(b"\x81\xa4type\xa5Drain")
    assert not plain.poll(1_000)
    plain.close(linger=0)
    assert sink.process.poll() is None


def test_keys_are_made_once_and_must_be_private(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    run = [sys.executable, "-m", "pipeline", "keys", str(folder)]
    assert subprocess.run(run, capture_output=True, timeout=60).returncode == 0
    again = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert again.returncode == 1
    assert "has keys already" in again.stderr
    made = subprocess.run([*run, "--worker", "far"], capture_output=True, text=True, timeout=60)
    assert "worker-far" in made.stdout
    assert load_identity(str(folder)).server_public == load_identity(str(folder / "worker-far")).server_public
    (folder / "worker-far" / "worker.key_secret").chmod(0o644)
    with pytest.raises(PipelineError, match="can be read by others"):
        load_identity(str(folder / "worker-far"))
    assert [path for path in folder.rglob("*") if path.stat().st_mode & 0o077] == [
        folder / "worker-far" / "worker.key_secret"]
    (folder / "workers").chmod(0o777)
    with pytest.raises(PipelineError, match="written to by others"):
        load_identity(str(folder))
