"""What Ctrl-C and SIGTERM do to a command: they end it in a line, from its first moment on.

No handler raises: an exception in the middle of an import or of a callback is a traceback somewhere. Every process
imports this module first, so it imports little itself.
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
#: Exit codes of a process that a signal has ended are this and the signal's number, as shells have it.
EXIT_CODE_BASE: Final = 128
SHOW_CURSOR: Final = b"\x1b[?25h"
#: Longest wait for killed processes, seconds.
KILLED_SECONDS: Final = 2.0

Handler = Callable[[int, FrameType | None], None]


def end_on_interrupt(words: str = "pipeline: interrupted") -> None:
    """Has SIGINT end this process at once, with exit code 130 and `words`; SIGTERM ends it by itself, silently.

    The first thing that a command does, and any process that was started with its signals held (`started`, `held`).
    """
    signal.signal(signal.SIGINT, _ending(words))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def end_with_parent(parent: int) -> None:
    """Has this process ignore SIGINT and SIGTERM, which a terminal and systemd send to the whole group, and be killed
    when `parent` ends: that one decides.
    """
    import ctypes

    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _ending(words: str, cleanup: Callable[[], None] = lambda: None) -> Handler:
    def end(number: int, _frame: FrameType | None) -> None:
        for held_back in SIGNALS:
            signal.signal(held_back, signal.SIG_IGN)
        cleanup()
        with suppress(OSError):
            if os.isatty(1):
                os.write(1, SHOW_CURSOR)
            if words:
                os.write(2, f"{words}\n".encode())
        os._exit(EXIT_CODE_BASE + number)

    return end


@contextmanager
def held() -> Iterator[None]:
    """SIGINT and SIGTERM wait for the block's end; processes that are started in it never get them, until they ask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def started(process: "BaseProcess") -> None:
    """Starts a process of `multiprocessing` that gets neither SIGINT nor SIGTERM while it imports."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it lets signals through itself once it has been started
    with held():
        process.start()


@contextmanager
def temporary_folder(prefix: str) -> Iterator["Path"]:
    """A folder while the block lasts. SIGINT and SIGTERM meanwhile kill all processes that this one has started, remove
    the folder, and end this process. In the main thread only.
    """
    import shutil
    import tempfile
    import threading
    from pathlib import Path

    folder = tempfile.mkdtemp(prefix=prefix)

    def cleanup() -> None:
        # What other threads miss from now on, we have killed.
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
    """Kills the processes that this one has started, and those that they have, and waits for its own."""
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
