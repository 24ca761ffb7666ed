"""The process that all others of a pipeline are forked from: it has imported what they need, so each starts at once.

It is the one of `multiprocessing`. It ends when the supervisor does, however that ends, and the processes end with it.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, Final

from pipeline.config.plan import Plan

#: Exit code of a process whose fork server ended, as `multiprocessing` has it.
SERVER_GONE: Final = 255
#: The process that imported this module first: in one that was forked from the fork server, the server.
_IMPORTED_BY: Final = os.getpid()
#: What the processes of each direction are made of.
_SINK_MODULES: Final = ("pipeline.coordinator.process", "stages.ingest.process", "stages.encode.process",
                        "stages.write.process", "stages.dead_letter.process")
_SOURCE_MODULES: Final = ("pipeline.source_coordinator.process", "stages.query.process", "stages.convert.process",
                          "stages.produce.process")
_BLOCKED: Final = (signal.SIGINT, signal.SIGTERM)


class ForkServer:
    """The fork server of this process, started when it is needed, and again when it was killed."""

    def __init__(self, plan: Plan) -> None:
        self._context = multiprocessing.get_context("forkserver")
        # Where `multiprocessing` puts its sockets: else in a folder of its own, which nobody removes after a kill.
        multiprocessing.current_process()._config["tempdir"] = plan.folder  # type: ignore[attr-defined]
        self._context.set_forkserver_preload(["pipeline.supervisor.child", *(_SINK_MODULES if plan.stages() else ()),
                                              *(_SOURCE_MODULES if plan.source_stages() else ())])

    def start(self, name: str, target: Callable[..., None], *arguments: Any) -> tuple[ForkServerProcess, Connection]:
        """Forks a process that runs `target(*arguments, connection)`. Returns it, and the other end of the connection.

        Raises OSError or EOFError when the server has just been killed; the next call starts another one.
        """
        # The tracker of multiprocessing, which is started with it, unblocks these signals.
        resource_tracker.ensure_running()
        # A terminal and systemd signal the whole group; the supervisor alone decides when a process ends. The server
        # inherits which signals are blocked.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        ours, theirs = self._context.Pipe(duplex=False)
        with theirs:
            process = self._context.Process(target=target, args=(*arguments, theirs), name=name)
            process.start()
        return process, ours


def leave_fork_server() -> None:
    """To be called first in a forked process: so that the server ends with the supervisor, whoever else still lives.

    Every process forked from it holds the pipe that keeps it alive (CPython, `multiprocessing.forkserver`).
    """
    server: Any = getattr(forkserver, "_forkserver")  # noqa: B009
    os.close(server._forkserver_alive_fd)


def is_orphan() -> bool:
    """Whether the fork server of this process is gone. False where it had not imported this module."""
    return _IMPORTED_BY != os.getpid() and os.getppid() != _IMPORTED_BY
