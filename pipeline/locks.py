"""Keeps a second pipeline away from the same offsets, and from the same runtime folder. Of one user on one host.

The kernel lets go of the locks when the supervisor ends, however it ends. Their files are in folders that are this
user's alone, at places that no environment variable moves.
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
from collections.abc import Iterable
from pathlib import Path

from pipeline.addresses import names_of
from pipeline.config.schema import Config, Subscription
from pipeline.errors import PipelineError
from pipeline.files import OTHERS, check_own_folder, in_words, open_own

#: Where a user's locks are: in each of these that is there, so that two processes meet if they have one in common.
#: Not XDG_RUNTIME_DIR, which only some processes of a user have, nor TMPDIR. systemd's PrivateTmp= hides the last two,
#: ProtectSystem=strict leaves only the first writable, and RemoveIPC= empties that when a user logs out.
LOCK_ROOTS = ("/dev/shm", "/run/lock", "/var/tmp", "/tmp")  # nosec B108: only a folder of ours in them is used
#: Further names of a user's folder there, where others have taken the first.
_SPARE_FOLDERS = 9
#: In such a folder, the file of which each locked name is a byte.
_NAMES_FILE = "names"
#: `struct flock` of Linux on 64-bit machines: type, whence, start, length, process.
_FLOCK = struct.Struct("hhqqi4x")
#: Runtime folders that we make have this prefix, and hold a lock file of this name.
FOLDER_PREFIX = "pipeline-run-"
FOLDER_LOCK = "lock"
#: What a lock file holds: the holder's process number.
_CONTENT = re.compile(rb"(?:[0-9]{1,20}\n)?")
#: Tries for a file that another process deletes meanwhile, and the pause between them, seconds.
_TRIES, _PAUSE_SECONDS = 20, 0.01


class Locked(PipelineError):
    """Somebody else has the lock."""


class Locks:
    """The locks that this process holds. They end with `release`, or with the process."""

    def __init__(self) -> None:
        self._held: list[int] = []
        #: Descriptors of the files of names, by folder. They are opened once: closing one would let go of its locks.
        self._files: dict[Path, int] = {}

    def take(self, path: Path, what: str, shared: bool = False) -> None:
        """Locks a file, made if need be. `what` says what its holder does.

        Raises Locked, which names the holder, and PipelineError for a file that can't be, or is not ours.
        """
        try:
            descriptor = _opened_and_locked(path, shared)
            if descriptor is not None:
                self._held.append(descriptor)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return
            holder = _holder(path)
        except OSError as error:
            raise PipelineError(f"the lock {in_words(error, path)}") from None
        raise Locked(f"another pipeline (process {holder}) {what}")

    def take_name(self, names: Iterable[str], what: str, shared: bool = False) -> None:
        """Locks names, for this user on this host. Raises as `take`, and PipelineError where no folder can be made."""
        if not self._files:
            self._open_name_files()
        starts = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 2 for name in names]
        for folder, descriptor in self._files.items():
            for start in starts:
                try:
                    fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, start)
                except (BlockingIOError, PermissionError):
                    raise Locked(f"another pipeline (process {_holder_of_byte(descriptor, start)}) {what}") from None
                except OSError as error:
                    raise PipelineError(f"the lock {in_words(error, folder / _NAMES_FILE)}") from None

    def _open_name_files(self) -> None:
        for folder in own_lock_folders():
            try:
                self._files[folder] = open_own(folder / _NAMES_FILE, os.O_RDWR | os.O_CREAT)
            except OSError as error:
                raise PipelineError(f"the lock {in_words(error, folder / _NAMES_FILE)}") from None
        if not self._files:
            raise PipelineError(f"no folder for locks can be made in any of {', '.join(LOCK_ROOTS)}; make one of them "
                                "writable")

    def release(self) -> None:
        """Lets go of all."""
        for descriptor in (*self._held, *self._files.values()):
            os.close(descriptor)
        self._held.clear()
        self._files.clear()


def _holder_of_byte(descriptor: int, start: int) -> str:
    """Number of the process that has locked a byte; "?" where it can't be seen from here."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, 1, 0)
    kind, _, _, _, process = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return str(process) if kind != fcntl.F_UNLCK and process > 0 else "?"


def _opened_and_locked(path: Path, shared: bool) -> int | None:
    """The lock file's descriptor; None when somebody else holds the lock. Raises OSError."""
    for _ in range(_TRIES):
        descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if not _CONTENT.fullmatch(os.pread(descriptor, 32, 0)):
                raise OSError(errno.EEXIST, "is not a lock of ours: it holds something else", str(path))
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(_PAUSE_SECONDS)
    raise OSError(errno.EAGAIN, "is deleted again and again", str(path))


def _holder(path: Path) -> str:
    descriptor = open_own(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "?"
    finally:
        os.close(descriptor)


def own_lock_folders() -> list[Path]:
    """The folders of this user's locks, made if need be: all of them count, so that one that is missing is no matter.

    A folder that somebody else has put in its place is passed over, and another name taken.
    """
    return [folder for root in LOCK_ROOTS for folder in _own_folders(Path(root))]


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
    """Takes the lock of every topic (or, where they are named, of every partition) for its consumer.

    Members of a consumer group share their topic, and lock nothing. Raises Locked.
    """
    servers = names_of(config.iggy.address)
    for source in config.subscriptions():
        if source.group:
            continue
        what = (f"reads {source.stream}/{source.topic} of {config.iggy.address} as consumer \"{source.consumer}\" "
                "already; stop it, or give one of the two another iggy.consumer, or other partitions")
        locks.take_name(_names(servers, source, ""), what, shared=bool(source.partitions))
        for partition in source.partitions:
            locks.take_name(_names(servers, source, str(partition)), what)


def _names(servers: list[str], source: Subscription, part: str) -> list[str]:
    return ["\0".join([server, source.consumer, source.stream, source.topic, part]) for server in servers]


def make_runtime_folder(locks: Locks, configured: str) -> str:
    """Makes the folder of the sockets, a new one where none is configured, and ours alone. Returns its name.

    Raises Locked, and PipelineError for a folder that can't be made, or that others may write to.
    """
    try:
        folder = configured or tempfile.mkdtemp(prefix=FOLDER_PREFIX)
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        check_own_folder(Path(folder))
    except OSError as error:
        name = "pipeline.runtime_dir" if configured else "the folder of the sockets (TMPDIR)"
        raise PipelineError(f"{name}: {in_words(error, error.filename or configured)}") from None
    locks.take(Path(folder) / FOLDER_LOCK, f"has its sockets in {folder} already; give another pipeline.runtime_dir")
    for left in Path(folder).glob("listener-*"):
        # Sockets of `multiprocessing` of a run that was killed.
        left.unlink(missing_ok=True)
    return folder


def sweep_runtime_folders() -> None:
    """Removes this user's runtime folders under the temporary folder whose pipelines were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        abandoned = Locks()
        try:
            if _was_a_runtime_folder(folder):
                abandoned.take(folder / FOLDER_LOCK, "lives")
                shutil.rmtree(folder, ignore_errors=True)
        except (PipelineError, OSError):
            continue
        finally:
            abandoned.release()


def _was_a_runtime_folder(folder: Path) -> bool:
    """Whether a folder is ours alone, and its lock was held once: that of a new one is empty before it is held."""
    return _is_own_folder(folder.lstat()) and (folder / FOLDER_LOCK).lstat().st_size > 0


def _is_own_folder(found: os.stat_result) -> bool:
    """Whether a folder that we have made is this one still: no link, and for this user alone."""
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & OTHERS
