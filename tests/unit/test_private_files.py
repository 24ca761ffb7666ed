"""Files and folders of this user alone: what is not, is refused; what goes wrong is said with its file and advice."""

import errno
import os
from pathlib import Path

import pytest

from pipeline import locks
from pipeline.files import check_own_folder, describe, keep_private, open_own, secret_problem


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a file belong to another user, who is not root."""
    if os.geteuid() == 0:
        os.chown(path, 4_711, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4_711)


def test_a_file_is_made_for_its_owner_alone_and_never_emptied(tmp_path: Path) -> None:
    path = tmp_path / "own"
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"kept")
    os.close(descriptor)
    assert path.stat().st_mode & 0o777 == 0o600
    os.close(open_own(path, os.O_RDWR | os.O_CREAT))
    assert path.read_bytes() == b"kept"


@pytest.mark.parametrize(("kind", "words"), [
    ("link", "is a symbolic link"), ("dangling", "is a symbolic link"), ("hard", "second name"), ("fifo", "regular"),
    ("folder", "irectory"), ("open", "written to by others"), ("foreign", "belongs to another user"),
])
def test_what_is_no_file_of_ours_is_refused(kind: str, words: str, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    path, victim = tmp_path / "own", tmp_path / "victim"
    victim.write_bytes(b"precious")
    match kind:
        case "link":
            path.symlink_to(victim)
        case "dangling":
            path.symlink_to(tmp_path / "nothing")
        case "hard":
            os.link(victim, path)
        case "fifo":
            os.mkfifo(path, 0o600)
        case "folder":
            path.mkdir()
        case "open":
            path.touch()
            path.chmod(0o602)
        case "foreign":
            path.touch(0o600)
            give_away(path, monkeypatch)
    with pytest.raises(OSError, match=words):
        open_own(path, os.O_RDWR | os.O_CREAT)
    assert victim.read_bytes() == b"precious" and not (tmp_path / "nothing").exists()


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, link = tmp_path / "run", tmp_path / "link"
    folder.mkdir(mode=0o755)
    link.symlink_to(folder)
    check_own_folder(folder)
    check_own_folder(link)
    folder.chmod(0o775)
    with pytest.raises(OSError, match="written to by others"):
        check_own_folder(folder)
    with pytest.raises(OSError, match="not a folder"):
        check_own_folder(Path("/dev/null"))
    folder.chmod(0o700)
    give_away(folder, monkeypatch)
    with pytest.raises(OSError, match="another user"):
        check_own_folder(folder)


@pytest.mark.parametrize(("mode", "is_bad"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True),
                                              (0o620, True), (0o666, True)])
def test_a_secret_of_ours_is_for_us_alone(mode: int, is_bad: bool, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret")
    path.chmod(mode)
    problem = secret_problem(str(path))
    assert bool(problem) == is_bad
    assert not is_bad or f"chmod 600 {path}" in problem


def test_a_secret_of_another_user_is_that_ones_affair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.touch(0o444)
    monkeypatch.setattr(os, "geteuid", lambda: 4_711)
    assert secret_problem(str(path)) == ""
    assert secret_problem(str(tmp_path / "nothing")) == ""


@pytest.mark.parametrize(("number", "words"), [
    (errno.ENOSPC, "/data/x: No space left on device; free some space there"),
    (errno.ENOENT, "/data/x: No such file or directory; make the folder /data"),
    (errno.EIO, "/data/x: Input/output error"),
])
def test_an_error_is_said_with_its_file_and_what_to_do(number: int, words: str) -> None:
    assert describe(OSError(number, os.strerror(number)), "/data/x") == words


def test_what_is_made_from_now_on_is_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        keep_private()
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o077 for path in tmp_path.iterdir()] == [0, 0]


def test_root_reaches_the_pipelines_of_other_users_but_not_through_folders_that_are_not_theirs(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = 12_345 if os.geteuid() == 0 else os.geteuid()
    names = (f"pipeline-locks-{other}", f"pipeline-locks-{other}-1", "pipeline-locks-777", "pipeline-locks-x")
    for name in names:
        (tmp_path / name).mkdir(mode=0o700)
        os.chown(tmp_path / name, other, -1)
    (tmp_path / f"pipeline-locks-{other}-1").chmod(0o755)
    (tmp_path / f"pipeline-locks-{other}-2").symlink_to(tmp_path / names[0])
    monkeypatch.setattr(locks, "LOCK_ROOTS", (str(tmp_path),))
    monkeypatch.setattr(locks, "own_lock_folders", list)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert locks.reachable_lock_folders() == [tmp_path / names[0]]
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert locks.reachable_lock_folders() == []
