"""Opens files and folders that belong to this user: without following links, and with a check of owner and mode.

A user who may write to a file's folder could replace the file with a link and make the pipeline truncate or fill
another file. Files of other users (root excepted) and unexpected kinds of files are therefore refused with an `OSError`
whose `strerror` gives the reason.
"""

import errno
import os
import pwd
import stat
from pathlib import Path

#: Advice by error number; other errors need none.
_ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or raise the quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EACCES: "let user {user} write there",
    errno.EPERM: "let user {user} write there",
    errno.EROFS: "choose a folder that can be written to",
    errno.ENOENT: "make the folder {folder}",
    errno.ENOTDIR: "make the folder {folder}",
    errno.EISDIR: "give a file",
    errno.ELOOP: "give the file itself",
}
#: Permission bits of group and others, and those of them that allow writing.
OTHERS, OTHERS_WRITE = 0o077, 0o022


def keep_private() -> None:
    """Sets the umask of this process and its children: new files and folders are private to the user."""
    os.umask(os.umask(OTHERS) | OTHERS)


def write_for_all(path: Path, content: bytes) -> None:
    """Writes a file that everyone may read. Folders that are missing are made, and everyone may enter them.

    For what holds no secret and is read by others: servers, manual pages. Raises OSError.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        folder.chmod(0o755)
    path.write_bytes(content)
    path.chmod(0o644)


def user_name() -> str:
    """Name of the user that this process runs as; the user number if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def open_own(path: Path, flags: int) -> int:
    """Opens a regular file of this user and returns its descriptor. A new file (`os.O_CREAT`) gets mode 0600.

    Raises OSError, also for a symbolic link, another user's file, a file with a second name (hard link), and one that
    others may write to.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a symbolic link", str(path)) from None
        raise
    try:
        _check_file(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def close_to_others(path: Path) -> None:
    """Removes the permissions of group and others from a file of this user. Raises OSError as `open_own` does."""
    descriptor = open_own(path, os.O_RDONLY)
    try:
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) & ~OTHERS)
    finally:
        os.close(descriptor)


def _check_file(found: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, "is a folder", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    _check_owner(found, path)
    if found.st_nlink > 1:
        raise OSError(errno.EMLINK, "has a second name (a hard link)", str(path))


def _check_owner(found: os.stat_result, path: Path) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise OSError(errno.EEXIST, f"belongs to another user (number {found.st_uid})", str(path))
    if found.st_mode & OTHERS_WRITE:
        raise OSError(errno.EEXIST, f"can be written to by others (mode {stat.S_IMODE(found.st_mode):04o}); chmod "
                                    f"go-w {path}", str(path))


def check_own_folder(path: Path) -> None:
    """Raises OSError unless `path` is a folder of this user, or of root, that nobody else may write to.

    A link to such a folder is accepted if it belongs to this user or root.
    """
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.geteuid()):
        raise OSError(errno.ELOOP, f"is a symbolic link of another user (number {link.st_uid})", str(path))
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(errno.ENOTDIR, "is not a folder", str(path))
    _check_owner(found, path)


def secret_problem(path: str) -> str:
    """Why a file must not hold a secret; "" if it may, or if it does not exist.

    As with OpenSSH's keys, a file of this user must be private to the user. The mode of another user's file (root's, in
    a container) is that user's choice.
    """
    try:
        found = os.stat(path)
    except OSError:
        return ""
    if found.st_uid == os.geteuid() and found.st_mode & OTHERS:
        return f"can be read by others (mode {stat.S_IMODE(found.st_mode):04o}); chmod 600 {path}"
    return ""


def replace_own(path: Path, content: bytes) -> None:
    """Replaces a file of this user atomically and durably: a new one beside it is written, synced and renamed, and the
    folder is synced. Raises OSError as `open_own` does; then the previous file remains.
    """
    beside = path.with_name(path.name + ".new")
    # A leftover of a process that was killed, or a link.
    beside.unlink(missing_ok=True)
    with os.fdopen(open_own(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Writes a folder's entries to disk (fsync): after a rename, for example. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def describe(error: OSError, path: str | os.PathLike[str] = "") -> str:
    """An error for the user: the file (`path`, or the error's own), what is wrong with it, and what to do."""
    name = os.fspath(path) or os.fsdecode(error.filename or "")
    return f"{name}: {problem(error, name)}" if name else problem(error, name)


def problem(error: OSError, path: str | os.PathLike[str]) -> str:
    """What is wrong with the file at `path`, and what to do."""
    advice = _ADVICE.get(error.errno or 0, "").format(user=user_name(), folder=os.path.dirname(path) or ".")
    return str(error.strerror or error) + (f"; {advice}" if advice else "")
