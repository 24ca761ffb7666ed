"""Keeps a second pipeline away from the same offsets, and from the same runtime folder. Of one user on one host.

The locks are `flock`s: the kernel lets go of them when the supervisor ends, however it ends.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.schema import Config, Subscription

#: Runtime folders that we make have this prefix, and hold a lock file of this name.
FOLDER_PREFIX = "pipeline-run-"
FOLDER_LOCK = "lock"


class Locked(PipelineError):
    """Somebody else has the lock."""


class Locks:
    """The locks that this process holds. They end with `release`, or with the process."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def take(self, path: Path, what: str, shared: bool = False) -> None:
        """Locks a file, made if need be. Raises Locked, which says who holds it and that they hold `what`."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "?"
            os.close(descriptor)
            raise Locked(f"another pipeline (process {holder}) {what}") from None
        self._held.append(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Lets go of all."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()


def lock_folder() -> Path:
    """Where the locks of this user are: under XDG_RUNTIME_DIR, or else under the system's temporary folder."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / "pipeline-locks"
    return Path(tempfile.gettempdir()) / f"pipeline-locks-{os.getuid()}"


def lock_offsets(locks: Locks, config: Config) -> None:
    """Takes the lock of every topic (or, where they are named, of every partition) for its consumer.

    Members of a consumer group share their topic, and lock nothing. Raises Locked.
    """
    for source in config.subscriptions():
        if source.group:
            continue
        what = (f"reads {source.stream}/{source.topic} of {config.iggy.address} as consumer \"{source.consumer}\" "
                "already; stop it, or give one of the two another iggy.consumer, or other partitions")
        locks.take(_path(config, source, ""), what, shared=bool(source.partitions))
        for partition in source.partitions:
            locks.take(_path(config, source, str(partition)), what)


def _path(config: Config, source: Subscription, part: str) -> Path:
    key = "\0".join([config.iggy.address, source.consumer, source.stream, source.topic, part])
    return lock_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.lock"


def lock_runtime_folder(locks: Locks, folder: str) -> None:
    """Makes the folder of the sockets ours. Raises Locked."""
    locks.take(Path(folder) / FOLDER_LOCK, f"has its sockets in {folder} already; give another pipeline.runtime_dir")


def sweep_runtime_folders() -> None:
    """Removes the runtime folders under the temporary folder whose pipelines were killed."""
    for lock in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*/{FOLDER_LOCK}"):
        abandoned = Locks()
        try:
            abandoned.take(lock, "lives")
            shutil.rmtree(lock.parent, ignore_errors=True)
        except (Locked, OSError):
            continue
        finally:
            abandoned.release()
