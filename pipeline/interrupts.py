"""Ctrl-C and SIGTERM: they end a command with one line, at any time after its start.

No handler raises: an exception in the middle of an import or a callback would end in a traceback. Every process imports
this module first, so it imports little itself.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from pathlib import Path

#: Source: prctl(2).
PR_SET_PDEATHSIG: Final = 1
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
#: Exit code of a process that a signal ended: this plus the signal's number, as in shells.
EXIT_CODE_BASE: Final = 128
SHOW_CURSOR: Final = b"\x1b[?25h"
#: Longest wait for killed processes, seconds.
KILLED_SECONDS: Final = 2.0

Handler = Callable[[int, FrameType | None], None]


def end_on_interrupt(message: str = "pipeline: interrupted") -> None:
    """Makes SIGINT end this process at once with exit code 130, and `message` on standard error. Unblocks both signals.

    Called first by each command, and by each process that was started with its signals blocked (`start_blocked`).
    SIGTERM keeps its default: it ends the process silently.
    """
    signal.signal(signal.SIGINT, _ending(message))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def end_with_parent(parent: int) -> None:
    """Makes this process ignore SIGINT and SIGTERM, and has the kernel kill it when `parent` ends.

    A terminal and systemd send these signals to the whole group; the parent decides when its children stop.
    """
    import ctypes

    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _ending(message: str, cleanup: Callable[[], None] = lambda: None) -> Handler:
    def end(number: int, _frame: FrameType | None) -> None:
        for ignored in SIGNALS:
            signal.signal(ignored, signal.SIG_IGN)
        cleanup()
        with suppress(OSError):
            if os.isatty(1):
                os.write(1, SHOW_CURSOR)
            if message:
                os.write(2, f"{message}\n".encode())
        os._exit(EXIT_CODE_BASE + number)

    return end


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Blocks SIGINT and SIGTERM; they are delivered at the end of the block. Processes started in it inherit the
    mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_blocked(process: "BaseProcess") -> None:
    """Starts a process of `multiprocessing` with SIGINT and SIGTERM blocked until it unblocks them, after its
    imports."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start unblocks signals, so it must run before
    with signals_blocked():
        process.start()


@contextmanager
def temporary_folder(prefix: str) -> Iterator["Path"]:
    """A temporary folder for the duration of the block. In the main thread only.

    SIGINT and SIGTERM during the block kill all processes that this one has started, remove the folder, and end this
    process.
    """
    import shutil
    import tempfile
    import threading
    from pathlib import Path

    folder = tempfile.mkdtemp(prefix=prefix)

    def cleanup() -> None:
        # Other threads fail from here on because their processes are killed; their errors mean nothing.
        threading.excepthook = lambda _: None
        kill_descendants()
        shutil.rmtree(folder, ignore_errors=True)

    before = {number: signal.signal(number, _ending("pipeline: interrupted", cleanup)) for number in SIGNALS}
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def kill_descendants() -> None:
    """Kills all descendants of this process, and waits for its direct children."""
    import time

    for pid in _descendants(os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + KILLED_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                children.setdefault(int(file.read().rpartition(b")")[2].split()[1]), []).append(int(name))
    found = children.get(root, [])
    for pid in found:
        found += children.get(pid, [])
    return found
