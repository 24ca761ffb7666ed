"""An NDJSON file that is closed, numbered and begun anew at a size. Several processes may write to it.

A line is whole or not there: what could only be written in part, on a full disk, is taken back; and what a crash has
left without an end is never written to, but ended first.
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

#: Longest wait for another process that writes to the file, seconds.
LOCK_SECONDS = 10.0
_LOCK_PAUSE_SECONDS = 0.01
#: A longer line is none of ours, and is not kept in memory.
MAX_LINE_BYTES = 128 << 20
#: What is written to see whether there is room: a whole block of most file systems, of empty lines.
_PROBE = b"\n" * 4_096
#: Of file systems that know no locks.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Line(Struct, frozen=True):
    """A line of one of the files."""

    #: For people: file and number of the line, from 1.
    where: str
    #: Without its end; of a line over `MAX_LINE_BYTES`, the beginning.
    content: bytes
    #: Whether all of it is there.
    whole: bool = True


class RotatingFile:
    """Appends lines; `name` is the newest, `name.1` the one before, and so on."""

    def __init__(self, name: str, max_bytes: int, keep: int) -> None:
        """`max_bytes` of one file; `keep` files beside the newest. Nothing is opened yet."""
        self.path = Path(name)
        self._max_bytes = max_bytes
        self._keep = keep

    def write(self, lines: list[bytes]) -> list[Path]:
        """Appends lines and waits until they are on the disk. Returns the files that were too many, and deleted.

        Raises OSError; then none of the lines is there.
        """
        data = b"".join([line + b"\n" for line in lines])
        deleted: list[Path] = []
        with self._locked(self._open_to_write) as descriptor:
            size = os.fstat(descriptor).st_size
            if not size or size + len(data) <= self._max_bytes:
                _append(descriptor, data)
                return deleted
            deleted = self._rotate()
        # Whoever comes first makes the new file; it may have grown meanwhile, but not by much.
        with self._locked(self._open_to_write) as descriptor:
            _append(descriptor, data)
        return deleted

    def check(self) -> None:
        """Makes the file if it is missing, and sees whether there is room. Raises OSError where `write` would.

        Files that others could read, as earlier versions made them, are for their owner alone from then on.
        """
        with self._locked(self._open_to_write) as descriptor:
            for path in (*self._numbered().values(), self.path):
                with contextlib.suppress(OSError):
                    close_to_others(path)
            size = os.fstat(descriptor).st_size
            _append(descriptor, _PROBE)
            os.ftruncate(descriptor, size)

    def lines(self) -> Iterator[Line]:
        """All lines that are not empty, the oldest first. Raises OSError."""
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
        """Deletes the files, whatever they are. Raises OSError."""
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):
                held.enter_context(self._locked(_open_to_read))
            for path in [*self._numbered().values(), self.path]:
                path.unlink(missing_ok=True)

    def _opened(self) -> list[tuple[Path, int]]:
        """All files that are there, the oldest first, opened while nobody numbers them."""
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
        """The newest file, which no other process writes to or numbers while the block lasts. Raises OSError."""
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
        """The files but for the newest, by number."""
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
    """A name as a pattern that only fits this name."""
    return "".join([f"[{c}]" if c in "*?[" else c for c in name])


def _open_to_read(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return descriptor


def _lock(descriptor: int, until: float) -> None:
    """Waits for the lock, up to the moment `until` (monotonic). Raises OSError."""
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
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _append(descriptor: int, data: bytes) -> None:
    """Writes all of `data` as lines of their own, and to the disk; or nothing. Raises OSError."""
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
