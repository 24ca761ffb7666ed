"""What every child process does first, and the link it keeps to the coordinator."""

import ctypes
import logging
import os
import signal
import time
from multiprocessing.connection import Connection
from typing import Literal

import setproctitle
import zmq
from msgspec import Struct

from pipeline import wire
from pipeline.endpoints import Endpoints
from pipeline.errors import PipelineError
from pipeline.logs import setup_logging
from pipeline.memory import keep_freed_memory
from pipeline.schema import Config

PR_SET_PDEATHSIG = 1
#: Seconds between two Hellos.
HELLO_SECONDS = 1.0
#: When a pipeline ends by itself: never; when all is written that was there at its start; after one batch a partition.
Until = Literal["", "caught-up", "once"]


class Plan(Struct, frozen=True):
    """All that a child process gets, once, at its start."""

    config: Config
    #: Runtime folder of the sockets.
    folder: str
    workers: int
    writers: int
    #: Ingest processes.
    readers: int = 1
    until: Until = ""

    def ingests(self) -> list[str]:
        """The names of the ingest processes, by number: "ingest", "ingest-1", ..."""
        return ["ingest", *(f"ingest-{index}" for index in range(1, self.readers))]

    def stages(self) -> list[str]:
        """The names of the sinks' processes but the coordinator, in the order in which they are started."""
        if not self.config.all_sinks():
            return []
        return [*(["dead-letter"] if self.config.dead_letters.to else []),
                *(f"write-{index}" for index in range(self.writers)),
                *(f"encode-{index}" for index in range(self.workers)), *self.ingests()]

    def source_stages(self) -> list[str]:
        """The same for the sources."""
        return ["produce", *(f"convert-{index}" for index in range(self.workers)), "query"] \
            if self.config.source else []


def run_child(name: str, index: int, plan: Plan, parent: int, reasons: Connection) -> None:
    """Runs one stage or the coordinator in this (spawned) process until it is killed.

    When it fails instead, it sends the reason, a text, to `reasons`, and ends with exit code 1.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A terminal and systemd signal the whole group; the supervisor alone decides when a child ends.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    keep_freed_memory()
    setproctitle.setproctitle(f"pipeline: {name}")
    logger = setup_logging(name, plan.config.pipeline.log_level)
    try:
        _run(name, index, plan, logger)
    except PipelineError as error:
        reasons.send(str(error))
    except Exception as error:
        logger.exception("failed; this is a fault in the pipeline, please report it")
        reasons.send(f"{type(error).__name__}: {error}")
    # Threads of the Iggy client and of writers must not hold the process up.
    os._exit(1)


def _run(name: str, index: int, plan: Plan, logger: logging.Logger) -> None:
    """Each process imports only its own stage."""
    kind = name.partition("-")[0]
    if name == "coordinator":
        from pipeline.coordinator import run_coordinator
        run_coordinator(plan, logger)
    elif name == "dead-letter":
        from stages.dead_letter import run_dead_letter
        run_dead_letter(plan, logger)
    elif kind == "ingest":
        from stages.ingest import run_ingest
        run_ingest(name, index, plan, logger)
    elif kind == "encode":
        from stages.encode import EncodeStage
        endpoints = Endpoints(plan.folder, plan.config.network)
        link = ControlLink(zmq.Context.instance(), endpoints, endpoints.control, name)
        EncodeStage(plan, endpoints, link, logger).run()
    elif name == "source-coordinator":
        from pipeline.source_coordinator import run_source_coordinator
        run_source_coordinator(plan, logger)
    elif kind == "query":
        from stages.query import QueryStage
        QueryStage(name, plan, logger).run()
    elif kind == "convert":
        from stages.convert import ConvertStage
        ConvertStage(name, plan, logger).run()
    elif kind == "produce":
        from stages.produce import run_produce
        run_produce(name, plan, logger)
    else:
        from stages.write import WriteStage
        WriteStage(name, index, plan, logger).run()


class ControlLink:
    """The DEALER of a synchronous process to the coordinator; says Hello once a second when asked to `beat`."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoints: Endpoints, endpoint: str,
                 name: str) -> None:
        """`endpoint` is the coordinator's, one of `endpoints`."""
        self.name = name
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, name.encode())
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        endpoints.connect(self.socket, endpoint)
        self._hello_at = float("-inf")
        self._startup_cpu = 0.0

    def send(self, message: Struct) -> None:
        """Sends one control message; queued while the coordinator is away."""
        self.socket.send(wire.encode(message))

    def receive(self, milliseconds: int) -> wire.Control | None:
        """The next message from the coordinator, if one comes in that time."""
        return wire.decode_control(self.socket.recv()) if self.socket.poll(milliseconds) else None

    def beat(self) -> None:
        """Says Hello if a second has passed since the last one."""
        now = time.monotonic()
        if now - self._hello_at >= HELLO_SECONDS:
            self._hello_at = now
            self._startup_cpu = self._startup_cpu or time.process_time()
            self.send(wire.Hello(self.name, os.getpid(), self._startup_cpu))
