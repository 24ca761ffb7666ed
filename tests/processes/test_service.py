"""A pipeline under a service manager: what it is told over the notify socket, from start to stop."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path

from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink


def test_a_service_manager_hears_ready_signs_of_life_what_is_done_and_stopping(
        tmp_path: Path, sandbox: SandboxIggy, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    sandbox.create_topic("s", TOPIC, 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        sink = start_sink(sandbox.address, "s", influxdb, environ={
            "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"})
        heard: list[str] = []

        def listen_for(line: str) -> None:
            while not any(one.startswith(line) for one in heard):
                heard.extend(listener.recv(65_536).decode().split("\n"))

        listen_for("READY=1")
        listen_for("WATCHDOG=1")
        assert heard.count("READY=1") == 1
        heard.clear()
        listen_for("STATUS=read ")
        sink.process.send_signal(signal.SIGHUP)
        listen_for("RELOADING=1")
        listen_for("MONOTONIC_USEC=")
        listen_for("STATUS=reload: the configuration has not changed")
        heard.clear()
        text = sink.config.read_text()
        sink.config.write_text(f"{text}\n[nonsense]\n")
        sink.process.send_signal(signal.SIGHUP)
        listen_for("STATUS=reload: ")
        heard.clear()
        assert f"{sink.config}:{len(text.splitlines()) + 2}: nonsense: unknown key" in sink.log()
        sink.config.write_text(text.replace('tag_fields = ["device"]', "tag_fields = []"))
        sink.process.send_signal(signal.SIGHUP)
        listen_for("STATUS=reload: changed: mapping.tag_fields")
        sink.process.terminate()
        listen_for("STOPPING=1")
        assert sink.process.wait(60) == 0
