"""What systemd is told, over a real datagram socket; and when a sign of life is withheld."""

import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.commands.install_service import units
from pipeline.supervisor.service_manager import STUCK_TIMEOUTS, ServiceManager, WorkMonitor
from pipeline.wire.common import CoordinatorStatus, Waiting

STATUS = CoordinatorStatus(epoch=1, ready=True, drained=False, rejected=0, sent_bytes=10, in_flight=5, redelivered=0,
                           pids={}, startup_cpu={}, retrying={}, paused=False)


class Listener:
    """A service manager's end."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(10)

    def receive(self) -> list[str]:
        """The lines of the next message."""
        return self._socket.recv(65_536).decode().split("\n")

    def is_silent(self) -> bool:
        """Whether nothing was sent."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(65_536)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(10)
        return False

    def close(self) -> None:
        """Closes it."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Listener, str]]:
    """The listener, and the address for NOTIFY_SOCKET."""
    name = f"pipeline-test-{uuid.uuid4().hex}"
    address = str(tmp_path / "n") if request.param == "path" else f"@{name}"
    found = Listener(address.replace("@", "\0", 1))
    yield found, address
    found.close()


def test_the_protocol_of_a_run_with_a_reload(listener: tuple[Listener, str]) -> None:
    said, address = listener
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid()), "OTHER": "x"}
    now = 100.0
    manager = ServiceManager(environ, lambda: now)
    assert environ == {"OTHER": "x"}
    manager.ready("reading")
    assert said.receive() == ["READY=1", "STATUS=reading"]
    manager.reloading()
    lines = said.receive()
    assert lines[0] == "RELOADING=1" and lines[1].removeprefix("MONOTONIC_USEC=").isdigit()
    manager.ready()
    assert said.receive() == ["READY=1"]
    manager.tick([], lambda: "read 5\nREADY=0")
    assert said.receive() == ["WATCHDOG=1"]
    assert said.receive() == ["STATUS=read 5\\nREADY=0"]
    now += 1.9
    manager.tick([], lambda: "x")
    assert said.is_silent()
    now += 0.1
    manager.tick([], lambda: "x")
    assert said.receive() == ["WATCHDOG=1"]
    manager.stopping("finishing")
    assert said.receive() == ["STOPPING=1", "STATUS=finishing"]


def test_a_sign_of_life_is_withheld_while_no_work_goes_on(listener: tuple[Listener, str]) -> None:
    said, address = listener
    now = 0.0
    manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"}, lambda: now)
    monitor = WorkMonitor(60)
    manager.tick([monitor], lambda: "")
    assert said.is_silent()
    monitor.observe(STATUS, now)
    manager.tick([monitor], lambda: "")
    assert said.receive() == ["WATCHDOG=1"]
    now = 30.0
    manager.tick([monitor], lambda: "")
    assert said.is_silent()


def test_work_is_stuck_when_nothing_is_settled_and_nothing_is_waited_for() -> None:
    def goes_on(**changes: object) -> bool:
        monitor = WorkMonitor(60)
        monitor.observe(STATUS, 0)
        after = STUCK_TIMEOUTS * 60 + 1
        monitor.observe(msgspec.structs.replace(STATUS, **changes), after)
        return monitor.goes_on(after)

    assert not goes_on()
    assert goes_on(sent_bytes=11) and goes_on(rejected=1) and goes_on(in_flight=0) and goes_on(epoch=2)
    assert goes_on(waiting=[Waiting("write-0", "main", "no connection", False, 0.0)])


@pytest.mark.parametrize("environ", [
    {}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "/no/such/socket"},
    {"NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1"},
    {"NOTIFY_SOCKET": "/" + "a" * 300}])
def test_a_service_manager_that_is_not_there_harms_nothing(environ: dict[str, str]) -> None:
    manager = ServiceManager(environ)
    manager.ready("x")
    manager.tick([], lambda: "x")
    manager.reloading()
    manager.failed("x")


def test_the_units_are_written_once_and_own_changes_are_kept(tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["install-service", "--to", str(tmp_path / "units"), *arguments])
        return result.exit_code, result.output

    assert run()[0] == run()[0] == 0
    unit = tmp_path / "units" / "pipeline.service"
    unit.write_text(unit.read_text() + "# own\n")
    assert run()[0] == 1 and "drop-in" in run()[1]
    assert run("--config", "etc")[0] == run("--config", "/a\nUser=root")[0] == run("--config", "/%n")[0] == 2
    assert run("--force")[0] == 0 and "# own" not in unit.read_text()
    assert {path.name for path in unit.parent.iterdir()} == {"pipeline.service", "pipeline@.service"}
    assert unit.stat().st_mode & 0o777 == 0o644


def test_the_kind_of_service_fits_the_version_of_systemd() -> None:
    for version, wanted in ((252, "Type=notify\nExecReload=/bin/kill -HUP $MAINPID\n"), (253, "Type=notify-reload\n")):
        for text in units("/usr/bin/pipeline", "/etc/pipeline", version).values():
            assert wanted in text and text.count("\nType=") == 1
            # What `RestartPreventExitStatus` says holds for ExecStart only: a check before it would fail for ever.
            assert "ExecStartPre" not in text
            assert "ExecStart=/usr/bin/pipeline start -c /etc/pipeline/" in text


def test_units_share_no_folder_with_each_other() -> None:
    """With DynamicUser, systemd makes /var/lib/pipeline a link, and no folder below it."""
    service, template = units("/usr/bin/pipeline", "/etc/pipeline", 253).values()
    for kind in ("State", "Runtime"):
        assert f"\n{kind}Directory=pipeline\n" in service
        assert f"\n{kind}Directory=pipeline-%i\n" in template


def test_systemd_accepts_the_units_and_finds_them_hardened(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        return
    result = CliRunner().invoke(main, ["install-service", "--to", str(tmp_path)])
    assert result.exit_code == 0
    (tmp_path / "pipeline@x.service").write_text((tmp_path / "pipeline@.service").read_text())
    for name in ("pipeline.service", "pipeline@x.service"):
        path = str(tmp_path / name)
        verified = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60)
        assert (verified.returncode, verified.stderr) == (0, "")
        judged = subprocess.run(["systemd-analyze", "security", "--offline=yes", path], capture_output=True, text=True,
                                timeout=60)
        level = float(judged.stdout.rpartition("exposure level for ")[2].split()[1])
        assert level < 2.0, judged.stdout


def test_the_units_start_what_is_installed_here() -> None:
    result = CliRunner().invoke(main, ["install-service", "--to", "/dev/null/x"])
    assert result.exit_code == 1 and "/dev/null" in result.output
    assert os.access(sys.executable, os.X_OK)
