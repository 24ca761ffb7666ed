"""What every child process does first, and which stage it then is."""

import ctypes
import logging
import os
import signal
from multiprocessing.connection import Connection

import setproctitle
import zmq

from pipeline.config.plan import Plan
from pipeline.config.secrets import secrets_of
from pipeline.errors import PipelineError
from pipeline.logs import clean, setup_logging
from pipeline.sockets.control_link import ControlLink
from pipeline.sockets.endpoints import Endpoints
from pipeline.supervisor.fork_server import is_orphan, leave_fork_server
from pipeline.supervisor.malloc import keep_freed_memory

PR_SET_PDEATHSIG = 1


def run_child(name: str, index: int, plan: Plan, reasons: Connection) -> None:
    """Runs one stage or the coordinator in this process, forked from the fork server, until it is killed.

    When it fails instead, it sends the reason, a text, to `reasons`, and ends with exit code 1.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A terminal and systemd signal the whole group; the supervisor alone decides when a child ends.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    leave_fork_server()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if is_orphan():
        os._exit(1)
    keep_freed_memory()
    setproctitle.setproctitle(f"pipeline: {name}")
    logger = setup_logging(name, plan.config.pipeline.log_level, secrets_of(plan.config))
    try:
        _run(name, index, plan, logger)
    except PipelineError as error:
        reasons.send(clean(str(error)))
    except Exception as error:
        logger.exception("failed; this is a fault in the pipeline, please report it")
        reasons.send(clean(f"{type(error).__name__}: {error}"))
    # Threads of the Iggy client and of writers must not hold the process up.
    os._exit(1)


def _run(name: str, index: int, plan: Plan, logger: logging.Logger) -> None:
    """Each process imports only its own stage."""
    kind = name.partition("-")[0]
    if name == "coordinator":
        from pipeline.coordinator.process import run_coordinator
        run_coordinator(plan, logger)
    elif name == "dead-letter":
        from stages.dead_letter.process import run_dead_letter
        run_dead_letter(plan, logger)
    elif kind == "ingest":
        from stages.ingest.process import run_ingest
        run_ingest(name, index, plan, logger)
    elif kind == "encode":
        from stages.encode.process import EncodeStage
        endpoints = Endpoints(plan.folder, plan.config.network)
        link = ControlLink(zmq.Context.instance(), endpoints, endpoints.control, name)
        EncodeStage(plan, endpoints, link, logger).run()
    elif name == "source-coordinator":
        from pipeline.source_coordinator.process import run_source_coordinator
        run_source_coordinator(plan, logger)
    elif kind == "query":
        from stages.query.process import QueryStage
        QueryStage(name, plan, logger).run()
    elif kind == "convert":
        from stages.convert.process import ConvertStage
        ConvertStage(name, plan, logger).run()
    elif kind == "produce":
        from stages.produce.process import run_produce
        run_produce(name, plan, logger)
    else:
        from stages.write.process import WriteStage
        WriteStage(name, index, plan, logger).run()
