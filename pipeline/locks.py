"""Locks against a second pipeline on the same offsets or in the same runtime folder: of one user on one host.

The kernel releases the locks when the supervisor ends, however it ends. The lock files are in folders private to the
user, at paths that do not depend on environment variables.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import struct
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.addresses import names_of
from pipeline.config.patterns import is_pattern
from pipeline.config.schema import Config, Subscription
from pipeline.errors import PipelineError
from pipeline.files import OTHERS, check_own_folder, describe, open_own

#: Folders for a user's locks. All that exist are used, so that two processes conflict if they share one of them. Not
#: XDG_RUNTIME_DIR, which only some processes of a user have, nor TMPDIR. systemd's PrivateTmp= hides the last two,
#: ProtectSystem=strict leaves only the first writable, and RemoveIPC= empties the first when a user logs out.
LOCK_ROOTS = ("/dev/shm", "/run/lock", "/var/tmp", "/tmp")  # nosec B108  # only a folder of ours in them is used
#: Further names of a user's folder there, if another user has taken the first one.
_SPARE_FOLDERS = 9
#: The file in such a folder in which each locked name is one locked byte.
_NAMES_FILE = "names"
#: `struct flock` of Linux on 64-bit machines: type, whence, start, length, process.
_FLOCK = struct.Struct("hhqqi4x")
#: Prefix of the runtime folders that the pipeline makes, and the name of the lock file in a runtime folder.
FOLDER_PREFIX = "pipeline-run-"
FOLDER_LOCK = "lock"
#: Content of a lock file: the holder's process number.
_CONTENT = re.compile(rb"(?:[0-9]{1,20}\n)?")
#: Tries to open a file that another process deletes at the same time, and the pause between them in seconds.
_TRIES, _PAUSE_SECONDS = 20, 0.01


class Locked(PipelineError):
    """Another process has the lock."""


class Locks:
    """The locks that this process holds, until `release` or the end of the process."""

    def __init__(self) -> None:
        #: Descriptors of the locked files, and the locked names as the bytes that stand for them.
        self._held: dict[Path, int] = {}
        self._starts: set[int] = set()
        #: What was taken, or taken again, since `keep_only` began.
        self._used: set[Path | int] = set()
        #: Descriptors of the name files, by folder. They stay open: closing one would release its locks.
        self._files: dict[Path, int] = {}

    def take(self, path: Path, what: str, shared: bool = False) -> None:
        """Locks a file, and makes it if necessary. One that this object has locked stays locked.

        `what` completes the error: what the holder is doing. Raises Locked, which names the holder, and PipelineError
        if the file cannot be made or is not this user's.
        """
        self._used.add(path)
        if path in self._held:
            return
        try:
            descriptor = _opened_and_locked(path, shared)
            if descriptor is not None:
                self._held[path] = descriptor
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return
            holder = _holder(path)
        except OSError as error:
            raise PipelineError(f"the lock {describe(error, path)}") from None
        raise Locked(f"another pipeline (process {holder}) {what}")

    def take_name(self, names: Iterable[str], what: str, shared: bool = False) -> None:
        """Locks names for this user on this host. Raises as `take` does, and PipelineError if no folder can be made."""
        if not self._files:
            self._open_name_files()
        starts = [_byte_of(name) for name in names]
        for folder, descriptor in self._files.items():
            for start in starts:
                try:
                    fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, start)
                except (BlockingIOError, PermissionError):
                    holder = _holder_of_byte(descriptor, start) or "?"
                    raise Locked(f"another pipeline (process {holder}) {what}") from None
                except OSError as error:
                    raise PipelineError(f"the lock {describe(error, folder / _NAMES_FILE)}") from None
        self._starts.update(starts)
        self._used.update(starts)

    def holder_of_name(self, names: Iterable[str]) -> str:
        """Number of the process that has locked one of these names, "?" if it is not visible; "" if none has. Raises
        PipelineError if no folder can be made."""
        if not self._files:
            self._open_name_files()
        starts = [_byte_of(name) for name in names]
        return next((holder for descriptor in self._files.values() for start in starts
                     if (holder := _holder_of_byte(descriptor, start))), "")

    def keep_only(self, take: Callable[[], None]) -> None:
        """Calls `take`, which takes the locks that are needed, and releases all others. Raises what `take` does."""
        self._used.clear()
        take()
        for path in self._held.keys() - self._used:
            os.close(self._held.pop(path))
        for start in self._starts - self._used:
            for descriptor in self._files.values():
                fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, start)
            self._starts.remove(start)

    def _open_name_files(self) -> None:
        for folder in own_lock_folders():
            try:
                self._files[folder] = open_own(folder / _NAMES_FILE, os.O_RDWR | os.O_CREAT)
            except OSError as error:
                raise PipelineError(f"the lock {describe(error, folder / _NAMES_FILE)}") from None
        if not self._files:
            raise PipelineError(f"no folder for locks can be made in any of {', '.join(LOCK_ROOTS)}; make one of them "
                                "writable")

    def release(self) -> None:
        """Releases all locks."""
        for descriptor in (*self._held.values(), *self._files.values()):
            os.close(descriptor)
        self._held.clear()
        self._starts.clear()
        self._files.clear()


def _byte_of(name: str) -> int:
    """Number of the byte that stands for a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 2


def _holder_of_byte(descriptor: int, start: int) -> str:
    """Number of the process that has locked a byte; "?" if it is not visible (another PID namespace), "" if none
    has."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, 1, 0)
    kind, _, _, _, process = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return "" if kind == fcntl.F_UNLCK else str(process) if process > 0 else "?"


def holder_of(path: Path) -> str:
    """Number of the process that has locked a file with `Locks.take`; "" if none has, or the file cannot be opened.

    Shares the lock for a moment, since Linux has no other way to ask for it.
    """
    try:
        descriptor = open_own(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ""
    except BlockingIOError:
        return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "?"
    finally:
        os.close(descriptor)


def _opened_and_locked(path: Path, shared: bool) -> int | None:
    """Descriptor of the locked file; None if another process holds the lock. Raises OSError."""
    for _ in range(_TRIES):
        descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if not _CONTENT.fullmatch(os.pread(descriptor, 32, 0)):
                raise OSError(errno.EEXIST, "is not a lock file of the pipeline: it has other content", str(path))
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(_PAUSE_SECONDS)
    raise OSError(errno.EAGAIN, "was deleted by another process on every try", str(path))


def _holder(path: Path) -> str:
    descriptor = open_own(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "?"
    finally:
        os.close(descriptor)


def own_lock_folders() -> list[Path]:
    """The folders of this user's locks, made if necessary. All of them are used, so a missing one does no harm.

    A folder of another user under the expected name is skipped, and the next name is used.
    """
    return [folder for root in LOCK_ROOTS for folder in _own_folders(Path(root))]


def reachable_lock_folders() -> list[Path]:
    """`own_lock_folders`, and for root those of all other users behind them: root steers what a service's user runs."""
    return own_lock_folders() + ([] if os.geteuid() else [
        path for root in LOCK_ROOTS for path in sorted(Path(root).glob("pipeline-locks-*")) if _is_users_folder(path)])


def _is_users_folder(path: Path) -> bool:
    """Whether this is the folder of locks of another user, whose number it is named by, and private to that user."""
    named = re.fullmatch(r"pipeline-locks-(\d{1,10})(?:-\d)?", path.name)
    try:
        found = path.lstat()
    except OSError:
        return False
    return named is not None and found.st_uid == int(named[1]) != os.geteuid() and stat.S_ISDIR(found.st_mode) \
        and not found.st_mode & OTHERS


def _own_folders(root: Path) -> list[Path]:
    found: list[Path] = []
    name = f"pipeline-locks-{os.geteuid()}"
    for path in (root / name, *(root / f"{name}-{number}" for number in range(1, _SPARE_FOLDERS + 1))):
        try:
            if not found:
                path.mkdir(mode=0o700, exist_ok=True)
            if _is_own_folder(path.lstat()):
                found.append(path)
        except OSError:
            continue
    return found


def lock_offsets(locks: Locks, config: Config) -> None:
    """Locks every topic (or every configured partition) for its consumer.

    Members of a consumer group share their topics and lock nothing. Raises Locked.
    """
    servers = [name for server in config.iggy.servers() for name in names_of(server)]
    for source in config.subscriptions():
        if source.group:
            continue
        what = (f"reads {source.label()} of {config.iggy.label()} as consumer \"{source.consumer}\" "
                "already; stop it, or set another iggy.consumer, or other partitions, for one of them")
        locks.take_name(_names(servers, source, ""), what, shared=bool(source.partitions))
        for partition in source.partitions:
            locks.take_name(_names(servers, source, str(partition)), what)


class FoundTopicLocks:
    """The locks of an ingest process on topics that patterns have found, until the process ends."""

    def __init__(self, config: Config, index: int) -> None:
        """`index` is that of the ingest process. Uses the system's resolver."""
        self._locks = Locks()
        self._label = config.iggy.label()
        self._servers = [name for server in config.iggy.servers() for name in names_of(server)]
        #: Ingest processes of one pipeline share a topic.
        self._part = f"found {index}" if config.pipeline.readers > 1 else ""

    def take(self, topic: Subscription) -> None:
        """Locks a topic for its consumer, unless a group reads it. Raises Locked."""
        if not topic.group:
            what = f"reads {topic.label()} of {self._label} as consumer \"{topic.consumer}\" already"
            # A topic that is named like a pattern is not the pattern, which has a lock of its own.
            named = "named " if is_pattern(topic.stream) or is_pattern(topic.topic) else ""
            if self._part:
                self._locks.take_name(_names(self._servers, topic, named), what, shared=True)
            self._locks.take_name(_names(self._servers, topic, named + self._part), what)


def _names(servers: list[str], source: Subscription, part: str) -> list[str]:
    return ["\0".join([server, source.consumer, source.stream, source.topic, part]) for server in servers]


def make_runtime_folder(locks: Locks, configured: str) -> str:
    """Makes the private folder of the sockets, a new one if none is configured, and locks it. Returns its path.

    Raises Locked, and PipelineError if the folder cannot be made or others may write to it.
    """
    try:
        folder = configured or tempfile.mkdtemp(prefix=FOLDER_PREFIX)
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        check_own_folder(Path(folder))
    except OSError as error:
        name = "pipeline.runtime_dir" if configured else "the folder of the sockets (TMPDIR)"
        raise PipelineError(f"{name}: {describe(error, error.filename or configured)}") from None
    locks.take(Path(folder) / FOLDER_LOCK, f"has its sockets in {folder} already; set another pipeline.runtime_dir")
    for stale in Path(folder).glob("listener-*"):
        # Sockets of `multiprocessing`, left by a run that was killed.
        stale.unlink(missing_ok=True)
    return folder


def sweep_runtime_folders() -> None:
    """Removes this user's runtime folders in the temporary folder whose pipelines were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        abandoned = Locks()
        try:
            if _was_a_runtime_folder(folder):
                abandoned.take(folder / FOLDER_LOCK, "is running")
                shutil.rmtree(folder, ignore_errors=True)
        except (PipelineError, OSError):
            continue
        finally:
            abandoned.release()


def _was_a_runtime_folder(folder: Path) -> bool:
    """Whether a folder is private to this user and its lock was held once: a lock file is empty before that."""
    return _is_own_folder(folder.lstat()) and (folder / FOLDER_LOCK).lstat().st_size > 0


def _is_own_folder(found: os.stat_result) -> bool:
    """Whether this is a folder private to this user, and not a link."""
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & OTHERS
