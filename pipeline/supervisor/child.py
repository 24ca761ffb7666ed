"""What every child process does first; and the module of each kind of process."""

import ctypes
import importlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Final, Protocol

import setproctitle

from pipeline.config.plan import Plan
from pipeline.config.secrets import secrets_of
from pipeline.errors import PipelineError
from pipeline.logs import clean, setup_logging
from pipeline.plan_updates import PlanUpdates
from pipeline.supervisor.fork_server import is_orphan, leave_fork_server
from pipeline.supervisor.malloc import keep_freed_memory

PR_SET_PDEATHSIG = 1
#: Kind of process -> its module, which has a function `run` as `RunProcess`. A kind is a name without its number.
SINK_MODULES: Final = MappingProxyType({
    "coordinator": "pipeline.coordinator.process",
    "ingest": "stages.ingest.process",
    "encode": "stages.encode.process",
    "write": "stages.write.process",
    "dead-letter": "stages.dead_letter.process",
})
SOURCE_MODULES: Final = MappingProxyType({
    "source-coordinator": "pipeline.source_coordinator.process",
    "query": "stages.query.process",
    "convert": "stages.convert.process",
    "produce": "stages.produce.process",
})
#: The process that answers over HTTP, and its module. The fork server does not import it.
HTTP: Final = "http"
HTTP_MODULE: Final = "pipeline.http.process"


class RunProcess(Protocol):
    """Runs a process until it is killed."""

    def __call__(self, name: str, index: int, plan: Plan, logger: logging.Logger, updates: PlanUpdates, /) -> None:
        """`name`: as `ps` shows it, and `index` its number among those of its kind. `updates`: of its plan, for kinds
        of processes that can change while they run."""


def preloaded_modules(plan: Plan) -> list[str]:
    """The modules that the fork server has to import."""
    return [__name__, *(SINK_MODULES.values() if plan.stages() else ()),
            *(SOURCE_MODULES.values() if plan.source_stages() else ())]


def run_child(name: str, index: int, plan: Plan, reasons: Connection) -> None:
    """Runs one stage or coordinator in this process, which was forked from the fork server, until it is killed.

    If it fails, the reason is sent to `reasons` as a text, and the process ends with exit code 1.
    """
    _run(name, plan, reasons,
         lambda logger: _module_run(name)(name, index, plan, logger, PlanUpdates(reasons, logger)))


def run_http(sockets: Sequence[socket.socket], local: int, plan: Plan, reasons: Connection) -> None:
    """The same for the HTTP process. It answers on these sockets, of which the first `local` ones are Unix sockets."""
    def run(logger: logging.Logger) -> None:
        # Imported here: no other process needs it.
        module = importlib.import_module(HTTP_MODULE)
        module.run(sockets[:local], sockets[local:], plan, logger, PlanUpdates(reasons, logger))

    _run(HTTP, plan, reasons, run)


def _run(name: str, plan: Plan, reasons: Connection, run: Callable[[logging.Logger], None]) -> None:
    """Prepares this process, and runs what it is for. Does not return."""
    # A terminal and systemd signal the whole group; only the supervisor decides when a child ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    leave_fork_server()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if is_orphan():
        os._exit(1)
    keep_freed_memory()
    setproctitle.setproctitle(f"pipeline: {name}")
    logger = setup_logging(name, plan.log_level(name), secrets_of(plan.config), plan.config.pipeline.log_format)
    try:
        run(logger)
    except PipelineError as error:
        reasons.send(clean(str(error)))
    except Exception as error:
        logger.exception("failed; this is a fault in the pipeline, please report it")
        reasons.send(clean(f"{type(error).__name__}: {error}"))
    # Threads of the Iggy client and of writers must not delay the exit.
    os._exit(1)


def _module_run(name: str) -> RunProcess:
    """The function that runs the process `name`."""
    modules = {**SINK_MODULES, **SOURCE_MODULES}
    module = modules.get(name) or modules[name.rpartition("-")[0]]
    run: RunProcess = importlib.import_module(module).run
    return run
