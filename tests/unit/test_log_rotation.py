"""The dead-letter file: whole lines or none, whatever a crash or a full disk leaves, and nobody else's file."""

import contextlib
import fcntl
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.dead_letters import rotating_file
from pipeline.dead_letters.rotating_file import RotatingFile
from pipeline.files import describe


def contents(file: RotatingFile) -> list[bytes]:
    """All lines."""
    return [line.content for line in file.lines()]


@pytest.fixture
def file(tmp_path: Path) -> RotatingFile:
    """Files of 1,000 bytes, three beside the newest."""
    return RotatingFile(str(tmp_path / "letters.ndjson"), 1_000, 3)


@contextlib.contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file grows beyond so many bytes while the block lasts."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_are_numbered_away_at_the_size_and_the_oldest_deleted(file: RotatingFile, tmp_path: Path) -> None:
    deleted = [path for number in range(50) for path in file.write([b"%03d" % number + b"x" * 96])]
    assert [path.name for path in deleted] == ["letters.ndjson.3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "letters.ndjson", "letters.ndjson.1", "letters.ndjson.2", "letters.ndjson.3"]
    assert [line[:3] for line in contents(file)] == [b"%03d" % number for number in range(10, 50)]
    assert all(path.stat().st_size <= 1_000 for path in tmp_path.iterdir())


def test_fewer_files_are_kept_once_fewer_are_configured(file: RotatingFile, tmp_path: Path) -> None:
    for _ in range(50):
        file.write([b"x" * 99])
    fewer = RotatingFile(str(tmp_path / "letters.ndjson"), 1_000, 1)
    assert len(contents(fewer)) == len(contents(file))
    assert len(fewer.write([b"y" * 999])) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letters.ndjson", "letters.ndjson.1"]


def test_a_torn_tail_is_never_written_to(file: RotatingFile) -> None:
    file.write([b"one"])
    with file.path.open("ab") as handle:
        handle.write(b'{"torn')
    file.write([b"two"])
    assert contents(file) == [b"one", b'{"torn', b"two"]
    assert [line.where.rpartition(", ")[2] for line in file.lines()] == ["line 1", "line 2", "line 3"]


@pytest.mark.parametrize("tail", [b"one\n", b'one\n{"torn'])
def test_what_a_full_disk_takes_only_in_part_is_taken_back(file: RotatingFile, tail: bytes) -> None:
    file.path.write_bytes(tail)
    file.path.chmod(0o600)
    with full_disk(200), pytest.raises(OSError, match="large") as caught:
        file.write([b"x" * 90] * 5)
    assert "ulimit" in describe(caught.value, file.path)
    assert file.path.read_bytes() == tail
    file.write([b"y"] * 2)
    assert contents(file)[-2:] == [b"y", b"y"]


def test_whether_there_is_room_is_seen_without_leaving_anything(file: RotatingFile) -> None:
    file.check()
    assert file.path.read_bytes() == b""
    file.write([b"one"])
    with full_disk(3), pytest.raises(OSError, match="large"):
        file.check()
    file.check()
    assert file.path.read_bytes() == b"one\n"


def test_files_are_for_their_owner_alone(file: RotatingFile, tmp_path: Path) -> None:
    for _ in range(30):
        file.write([b"x" * 99])
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_files_that_others_could_read_are_closed_to_them_at_the_start(file: RotatingFile, tmp_path: Path) -> None:
    file.write([b"one"])
    (tmp_path / "letters.ndjson.1").write_bytes(b"zero\n")
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    file.check()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert contents(file) == [b"zero", b"one"]


def test_a_link_or_what_others_may_write_to_is_refused(file: RotatingFile, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    file.path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        file.write([b"one"])
    file.path.unlink()
    os.link(victim, file.path)
    with pytest.raises(OSError, match="second name"):
        file.write([b"one"])
    file.path.unlink()
    file.path.write_bytes(b"")
    file.path.chmod(0o622)
    with pytest.raises(OSError, match="written to by others"):
        file.write([b"one"])
    file.path.unlink()
    os.mkfifo(file.path, 0o600)
    with pytest.raises(OSError, match="regular"):
        file.write([b"one"])
    with pytest.raises(OSError, match="regular"):
        contents(file)
    assert victim.read_bytes() == b"precious"


def test_clearing_deletes_whatever_is_there(file: RotatingFile, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    file.clear()
    for _ in range(30):
        file.write([b"x" * 99])
    (tmp_path / "letters.ndjson.17").write_bytes(b"\xff\x00" * 100)
    (tmp_path / "letters.ndjson.old").write_bytes(b"not ours")
    file.path.unlink()
    file.path.symlink_to(victim)
    file.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letters.ndjson.old", "victim"]
    assert victim.read_bytes() == b"precious"
    assert contents(file) == []


def test_a_line_of_any_length_costs_bounded_memory(file: RotatingFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotating_file, "MAX_LINE_BYTES", 100)
    file.path.write_bytes(b"a\n" + b"x" * 1_000 + b"\n\n  \nb\r\n" + b"y" * 99 + b"\n" + b"z" * 500)
    lines = list(file.lines())
    assert [(len(line.content), line.whole) for line in lines] == [
        (1, True), (100, False), (1, True), (99, True), (100, False)]
    assert lines[2].content == b"b" and lines[3].where.endswith("line 6")


def test_writers_at_once_lose_nothing_over_rotations(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        mine = RotatingFile(str(tmp_path / "letters.ndjson"), 500, 1_000)
        for number in range(100):
            mine.write([b"%d-%d" % (writer, number)] * 2)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = contents(RotatingFile(str(tmp_path / "letters.ndjson"), 500, 1_000))
    assert sorted(found) == sorted(b"%d-%d" % (writer, number) for writer in range(4) for number in range(100)
                                   for _ in range(2))


def test_a_file_that_another_process_keeps_locked_is_an_error_in_time(
        file: RotatingFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotating_file, "LOCK_SECONDS", 0.1)
    file.write([b"one"])
    with file.path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="locked"):
            file.write([b"two"])
    file.write([b"three"])
    assert contents(file) == [b"one", b"three"]
