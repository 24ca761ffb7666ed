"""The process that all others of a pipeline are forked from. It has imported their modules, so that each starts
quickly.

It is the fork server of `multiprocessing`. It ends when the supervisor ends, however that happens, and the processes
end with it.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, Final

#: Exit code that `multiprocessing` reports for a process whose fork server has ended.
SERVER_GONE: Final = 255
#: The process that imported this module first: in a process that was forked from the fork server, the server.
_IMPORTED_BY: Final = os.getpid()
_BLOCKED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ForkServer:
    """The fork server of this process. It is started when it is needed, and restarted when it was killed."""

    def __init__(self, folder: str, modules: list[str], secrets: Collection[str] = ()) -> None:
        """`folder`: for the server's socket; `modules`: imported before the first fork.

        Variables of the environment that hold one of `secrets` are not passed on: the processes have the configuration.
        """
        self._secrets = secrets
        self._context = multiprocessing.get_context("forkserver")
        # Else `multiprocessing` creates a temporary folder, which remains after a kill.
        multiprocessing.current_process()._config["tempdir"] = folder  # type: ignore[attr-defined]
        self._context.set_forkserver_preload(modules)

    def start(self, name: str, target: Callable[..., None], *arguments: Any) -> tuple[ForkServerProcess, Connection]:
        """Forks a process that runs `target(*arguments, connection)`. Returns the process, and the other end of the
        connection, which carries objects in both directions.

        Raises OSError or EOFError when the server has just been killed; the next call restarts it.
        """
        with _without(self._secrets):
            self._ensure_running()
        ours, theirs = self._context.Pipe()
        with theirs:
            process = self._context.Process(target=target, args=(*arguments, theirs), name=name)
            process.start()
        return process, ours

    @staticmethod
    def _ensure_running() -> None:
        # The resource tracker, which is started with the server, unblocks these signals.
        resource_tracker.ensure_running()
        # A terminal and systemd signal the whole group; only the supervisor decides when a process ends. The server
        # inherits the blocked signals.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextmanager
def _without(secrets: Collection[str]) -> Iterator[None]:
    """Takes the variables that hold secrets out of the environment, and puts them back."""
    hidden = {name: value for name, value in os.environ.items() if any(secret in value for secret in secrets)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def leave_fork_server() -> None:
    """To be called first in a forked process, so that the server ends with the supervisor even if this process lives.

    Every forked process inherits the pipe that keeps the server alive (CPython, `multiprocessing.forkserver`).
    """
    server: Any = getattr(forkserver, "_forkserver")  # noqa: B009
    os.close(server._forkserver_alive_fd)


def is_orphan() -> bool:
    """Whether the fork server of this process has ended. False if the server had not imported this module."""
    return _IMPORTED_BY != os.getpid() and os.getppid() != _IMPORTED_BY
