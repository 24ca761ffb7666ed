"""Files and folders that are this user's alone: opened without following links, their owner and mode looked at.

Whoever may write to the folder of a file could put a link there instead, and have us empty or fill another file. So
what is not ours (or root's), or not what we expect, is refused with an `OSError` whose `strerror` says why.
"""

import errno
import os
import pwd
import stat
from pathlib import Path

#: What to do about an error, by its number; what is missing there says enough by itself.
_ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or raise the quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EACCES: "let user {user} write there",
    errno.EPERM: "let user {user} write there",
    errno.EROFS: "give a place that can be written to",
    errno.ENOENT: "make the folder {folder}",
    errno.ENOTDIR: "make the folder {folder}",
    errno.EISDIR: "give a file",
    errno.ELOOP: "give the file itself",
}
#: Permissions that others than the owner have, and those by which they may write.
OTHERS, OTHERS_WRITE = 0o077, 0o022


def keep_private() -> None:
    """Has this process, and those that it starts, make files and folders that nobody else may read."""
    os.umask(os.umask(OTHERS) | OTHERS)


def user_name() -> str:
    """The name of the user that this process runs as; his number where he has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def open_own(path: Path, flags: int) -> int:
    """Opens a regular file of this user; one that `flags` make (`os.O_CREAT`) is for him alone. Gives a descriptor.

    Raises OSError: also for a link, another user's file, one with a second name (a hard link), and one that others may
    write to.
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
    """Takes away what others may do with a file of ours. Raises OSError as `open_own` does."""
    descriptor = open_own(path, os.O_RDONLY)
    try:
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) & ~OTHERS)
    finally:
        os.close(descriptor)


def _check_file(found: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, "is a folder", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
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
    """Raises OSError unless `path` is a folder of this user, or root's, that nobody else may write to.

    A link to one is all right if it is his, or root's.
    """
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.geteuid()):
        raise OSError(errno.ELOOP, f"is a symbolic link of another user (number {link.st_uid})", str(path))
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(errno.ENOTDIR, "is no folder", str(path))
    _check_owner(found, path)


def secret_problem(path: str) -> str:
    """Why a file is no place for a secret: "" when it is one, or is not there.

    As with OpenSSH's keys, what belongs to this user must be for him alone; the permissions of another's file (root's,
    in a container) are that one's choice.
    """
    try:
        found = os.stat(path)
    except OSError:
        return ""
    if found.st_uid == os.geteuid() and found.st_mode & OTHERS:
        return f"can be read by others (mode {stat.S_IMODE(found.st_mode):04o}); chmod 600 {path}"
    return ""


def sync_folder(path: Path) -> None:
    """Puts the names in a folder on the disk. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def in_words(error: OSError, path: str | os.PathLike[str] = "") -> str:
    """Which file an error is about (`path`, or what the error says), what is wrong with it, and what to do."""
    name = os.fspath(path) or os.fsdecode(error.filename or "")
    return f"{name}: {why(error, name)}" if name else why(error, name)


def why(error: OSError, path: str | os.PathLike[str]) -> str:
    """What is wrong with the file at `path`, and what to do."""
    advice = _ADVICE.get(error.errno or 0, "").format(user=user_name(), folder=os.path.dirname(path) or ".")
    return str(error.strerror or error) + (f"; {advice}" if advice else "")
