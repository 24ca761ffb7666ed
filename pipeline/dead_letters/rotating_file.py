"""An NDJSON file that is rotated at a size. Several processes may write to it.

Lines are written completely or not at all: a partial write, on a full disk, is undone; and an incomplete line that a
crash has left is terminated before the next one is appended.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from pipeline.files import close_to_others, open_own, sync_folder

#: Longest wait for the lock of the file, seconds.
LOCK_SECONDS = 10.0
_LOCK_PAUSE_SECONDS = 0.01
#: Longer lines are no dead letters, and are not held in memory.
MAX_LINE_BYTES = 128 << 20
#: Written to test whether there is room: empty lines, a block of most file systems.
_PROBE = b"\n" * 4_096
#: Error numbers of file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Line(Struct, frozen=True):
    """A line of one of the files."""

    #: File and number of the line, from 1, for people.
    where: str
    #: Without the line break; cut at `MAX_LINE_BYTES`.
    content: bytes
    #: False if it was cut.
    whole: bool = True


class RotatingFile:
    """Appends lines to `name`. After a rotation the previous file is `name.1`, and so on."""

    def __init__(self, name: str, max_bytes: int, keep: int) -> None:
        """`max_bytes`: of one file; `keep`: rotated files that are kept. Opens nothing yet."""
        self.path = Path(name)
        self._max_bytes = max_bytes
        self._keep = keep

    def write(self, lines: list[bytes]) -> list[Path]:
        """Appends lines and waits until they are on the disk. Returns the rotated files that were deleted.

        Raises OSError; then none of the lines was written.
        """
        data = b"".join([line + b"\n" for line in lines])
        deleted: list[Path] = []
        with self._locked(self._open_to_write) as descriptor:
            size = os.fstat(descriptor).st_size
            if not size or size + len(data) <= self._max_bytes:
                _append(descriptor, data)
                return deleted
            deleted = self._rotate()
        # Another process may have created the new file and written to it; it is not rotated again for that.
        with self._locked(self._open_to_write) as descriptor:
            _append(descriptor, data)
        return deleted

    def check(self) -> None:
        """Creates the file if it is missing, and tests whether there is room. Raises OSError if `write` would.

        Files of earlier versions that other users could read become private.
        """
        with self._locked(self._open_to_write) as descriptor:
            for path in (*self._numbered().values(), self.path):
                with contextlib.suppress(OSError):
                    close_to_others(path)
            size = os.fstat(descriptor).st_size
            _append(descriptor, _PROBE)
            os.ftruncate(descriptor, size)

    def lines(self) -> Iterator[Line]:
        """All lines that are not empty, oldest first. Raises OSError."""
        with contextlib.ExitStack() as opened:
            files = [(path, opened.enter_context(os.fdopen(descriptor, "rb"))) for path, descriptor in self._opened()]
            for path, file in files:
                number = 0
                while line := file.readline(MAX_LINE_BYTES):
                    number += 1
                    whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                    rest = line
                    while not whole and not rest.endswith(b"\n") and (rest := file.readline(MAX_LINE_BYTES)):
                        pass
                    if line.strip():
                        yield Line(f"{path}, line {number}", line.rstrip(b"\r\n"), whole)

    def clear(self) -> None:
        """Deletes the file and the rotated ones. Raises OSError."""
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):
                held.enter_context(self._locked(_open_to_read))
            for path in [*self._numbered().values(), self.path]:
                path.unlink(missing_ok=True)

    def _opened(self) -> list[tuple[Path, int]]:
        """All files that exist, oldest first, opened while no other process rotates them."""
        found: list[tuple[Path, int]] = []
        try:
            with contextlib.ExitStack() as held:
                with contextlib.suppress(FileNotFoundError):
                    held.enter_context(self._locked(_open_to_read))
                for _, path in sorted(self._numbered().items(), reverse=True):
                    found.append((path, _open_to_read(path)))
                with contextlib.suppress(FileNotFoundError):
                    found.append((self.path, _open_to_read(self.path)))
        except OSError:
            for _, descriptor in found:
                os.close(descriptor)
            raise
        return found

    @contextlib.contextmanager
    def _locked(self, opened: Callable[[Path], int]) -> Iterator[int]:
        """The newest file, locked against writes and rotation by other processes. Raises OSError."""
        until = time.monotonic() + LOCK_SECONDS
        while True:
            descriptor = opened(self.path)
            try:
                _lock(descriptor, until)
                if _is_at(descriptor, self.path):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)

    def _open_to_write(self, path: Path) -> int:
        is_new = not path.exists()
        descriptor = open_own(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        if is_new:
            sync_folder(path.parent)
        return descriptor

    def _numbered(self) -> dict[int, Path]:
        """The rotated files, by number."""
        found = {}
        for path in self.path.parent.glob(f"{_literal(self.path.name)}.*"):
            number = path.name[len(self.path.name) + 1:]
            if number.isascii() and number.isdigit() and number == str(int(number)) and number != "0":
                found[int(number)] = path
        return found

    def _rotate(self) -> list[Path]:
        deleted = []
        for number, path in sorted(self._numbered().items(), reverse=True):
            if number >= self._keep:
                path.unlink()
                deleted.append(path)
            else:
                path.replace(self._at(number + 1))
        self.path.replace(self._at(1))
        sync_folder(self.path.parent)
        return deleted

    def _at(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _literal(name: str) -> str:
    """A glob pattern that matches only this name."""
    return "".join([f"[{c}]" if c in "*?[" else c for c in name])


def _open_to_read(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return descriptor


def _lock(descriptor: int, until: float) -> None:
    """Waits for the lock until `until` (monotonic). Raises OSError."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise OSError(errno.EWOULDBLOCK, f"another process has kept it locked for {LOCK_SECONDS:g} s") from None
            time.sleep(_LOCK_PAUSE_SECONDS)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return
            raise


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still at `path`: it may have been rotated."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _append(descriptor: int, data: bytes) -> None:
    """Appends `data` as separate lines and syncs; all of it or nothing. Raises OSError."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        data = b"\n" + data
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest):]
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
