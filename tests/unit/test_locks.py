"""Locks: of one user on one host, whatever the environment; nobody else's file is opened, emptied or deleted."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import locks
from pipeline.addresses import names_of
from pipeline.errors import PipelineError
from pipeline.locks import FOLDER_LOCK, FOLDER_PREFIX, Locked, Locks, make_runtime_folder, sweep_runtime_folders

HOLDER = """
import sys
from pathlib import Path
from pipeline import locks as module
from pipeline.locks import Locks
module.LOCK_ROOTS = sys.argv[3].split(":")
locks = Locks()
locks.take_name(sys.argv[1].split(","), "works", shared=sys.argv[2] == "shared")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The places of locks: two of the test's own."""
    found = [tmp_path / "a", tmp_path / "b"]
    for root in found:
        root.mkdir(mode=0o1777)
    monkeypatch.setattr(locks, "LOCK_ROOTS", tuple(map(str, found)))
    return found


@pytest.fixture
def held(roots: list[Path]) -> Iterator["subprocess.Popen[str]"]:
    """Another process, which holds the name "held"."""
    with holder("held", roots) as process:
        yield process
        process.kill()


def holder(names: str, roots: list[Path], kind: str = "alone") -> "subprocess.Popen[str]":
    """A process that holds locks until its standard input ends."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, names, kind, ":".join(map(str, roots))],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_name_is_held_by_one_process_and_let_go_with_it(held: "subprocess.Popen[str]") -> None:
    locks = Locks()
    with pytest.raises(Locked, match=rf"another pipeline \(process {held.pid}\) works"):
        locks.take_name(["free", "held"], "works")
    with pytest.raises(Locked):
        Locks().take_name(["held"], "works", shared=True)
    Locks().take_name(["other"], "works")
    held.kill()
    held.wait()
    locks.take_name(["held"], "works")
    locks.release()


def test_a_shared_name_is_held_by_many_and_by_nobody_alone(roots: list[Path]) -> None:
    with holder("topic", roots, "shared") as other:
        locks = Locks()
        locks.take_name(["topic"], "works", shared=True)
        with pytest.raises(Locked):
            locks.take_name(["topic"], "works")
        other.kill()
        other.wait()
        locks.take_name(["topic"], "works")


def test_locks_are_taken_again_and_those_that_are_not_needed_any_more_are_released(
        roots: list[Path], tmp_path: Path) -> None:
    """As a reload does."""
    mine = Locks()
    kept, left = tmp_path / "kept.lock", tmp_path / "left.lock"

    def take(*paths: Path, names: list[str]) -> None:
        for path in paths:
            mine.take(path, "works")
        mine.take_name(names, "works")

    take(kept, left, names=["kept", "left"])
    mine.keep_only(lambda: take(kept, names=["kept", "new"]))
    with holder("left", roots):
        with pytest.raises(Locked):
            mine.take_name(["left"], "works")
        Locks().take(left, "works")
        with pytest.raises(Locked):
            Locks().take(kept, "works")
    mine.keep_only(lambda: None)
    with holder("kept,new", roots):
        pass


@pytest.mark.parametrize("gone", [0, 1])
def test_one_place_in_common_is_enough(gone: int, held: "subprocess.Popen[str]", roots: list[Path],
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """As where systemd's PrivateTmp hides one of them, or a user's files are removed at the logout."""
    monkeypatch.setattr(locks, "LOCK_ROOTS", (str(roots[gone]), str(roots[gone] / "missing")))
    with pytest.raises(Locked):
        Locks().take_name(["held"], "works")


def test_what_others_put_in_the_state_name_our_folder_is_passed_over(
        roots: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"pipeline-locks-{os.geteuid()}"
    (roots[0] / name).symlink_to(roots[1])
    (roots[0] / f"{name}-1").mkdir()
    (roots[0] / f"{name}-1").chmod(0o777)
    (roots[0] / f"{name}-2").touch()
    with holder("held", roots[:1]):
        assert (roots[0] / f"{name}-3" / "names").exists()
        monkeypatch.setattr(locks, "LOCK_ROOTS", (str(roots[0]),))
        with pytest.raises(Locked):
            Locks().take_name(["held"], "works")
    assert list(roots[1].iterdir()) == []


def test_without_any_place_for_locks_nothing_starts(roots: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LOCK_ROOTS", (str(roots[0] / "missing"),))
    with pytest.raises(PipelineError, match="no folder for locks"):
        Locks().take_name(["name"], "works")


@pytest.mark.parametrize("kind", ["link", "hard", "precious", "folder"])
def test_a_file_that_is_no_lock_is_never_emptied(kind: str, tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_bytes(b"precious")
    folder.mkdir(mode=0o700)
    path = folder / FOLDER_LOCK
    match kind:
        case "link":
            path.symlink_to(victim)
        case "hard":
            os.link(victim, path)
        case "precious":
            path.write_bytes(b"precious")
            path.chmod(0o600)
        case "folder":
            path.mkdir()
    with pytest.raises(PipelineError, match=str(path)):
        make_runtime_folder(Locks(), str(folder))
    assert victim.read_bytes() == b"precious"
    assert kind != "precious" or path.read_bytes() == b"precious"


def test_a_runtime_folder_is_made_for_its_user_alone_and_locked(tmp_path: Path) -> None:
    locks = Locks()
    folder = make_runtime_folder(locks, str(tmp_path / "some" / "run"))
    assert Path(folder).stat().st_mode & 0o777 == 0o700
    with pytest.raises(Locked, match=rf"process {os.getpid()}\) has its sockets in"):
        make_runtime_folder(Locks(), folder)
    locks.release()
    make_runtime_folder(locks, folder)
    locks.release()


def test_a_runtime_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(PipelineError, match=r"pipeline\.runtime_dir: .* can be written to by others"):
        make_runtime_folder(Locks(), str(tmp_path / "run"))
    (tmp_path / "file").touch()
    with pytest.raises(PipelineError, match=r"pipeline\.runtime_dir: "):
        make_runtime_folder(Locks(), str(tmp_path / "file" / "run"))


def test_only_abandoned_folders_of_ours_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (victim / FOLDER_LOCK).write_text("17\n")
    (victim / "precious").write_bytes(b"precious")
    locks, abandoned = Locks(), Locks()
    alive = Path(make_runtime_folder(locks, ""))
    dead = Path(make_runtime_folder(abandoned, ""))
    (dead / "control.ipc").touch()
    abandoned.release()
    new = tmp_path / f"{FOLDER_PREFIX}new"
    new.mkdir(mode=0o700)
    (new / FOLDER_LOCK).touch()
    linked = tmp_path / f"{FOLDER_PREFIX}linked"
    linked.symlink_to(victim)
    trap = tmp_path / f"{FOLDER_PREFIX}trap"
    trap.mkdir(mode=0o700)
    (trap / FOLDER_LOCK).symlink_to(victim / "precious")
    open_to_all = tmp_path / f"{FOLDER_PREFIX}open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (open_to_all / FOLDER_LOCK).write_text("17\n")
    (tmp_path / f"{FOLDER_PREFIX}file").touch()

    sweep_runtime_folders()

    assert not dead.exists() and alive.exists()
    assert all(path.exists() for path in (new, linked, trap, open_to_all))
    assert (victim / "precious").read_bytes() == b"precious" and (victim / FOLDER_LOCK).read_text() == "17\n"
    locks.release()


@pytest.mark.parametrize("address", [
    "127.0.0.1:8090", "LOCALHOST:8090", "localhost.:08090", "[::1]:8090", "0.0.0.0:8090", "127.1:8090",
    "[::ffff:127.0.0.1]:8090"])
def test_spellings_of_this_machine_are_one_server(address: str) -> None:
    assert "localhost:8090" in names_of(address)


def test_other_servers_are_told_apart() -> None:
    assert set(names_of("localhost:8090")).isdisjoint(names_of("localhost:8091"))
    assert names_of("192.0.2.1:8090") == ["192.0.2.1:8090"]
    assert names_of("no-such-host.invalid:8090") == ["no-such-host.invalid:8090"]
    assert names_of("\u2603..:8090")
