"""`pipeline stage encode`: an encoder on another machine than the pipeline. It may come and go."""

import logging
import os
import signal
import time

import setproctitle
import zmq

from pipeline.config.digest import config_digest
from pipeline.config.plan import Plan
from pipeline.config.schema import Config
from pipeline.sockets.control_link import ControlLink
from pipeline.sockets.endpoints import RemoteEndpoints
from pipeline.wire import sink as wire
from stages.encode.process import EncodeStage
from stages.encode.registry_client import check_admitted

#: How long one question whether we may take part waits for its answer, milliseconds.
ANSWER_MILLISECONDS = 1_000
#: Seconds without an answer after which the log says so, again and again.
SILENCE_SECONDS = 10.0


class RemoteEncoder:
    """One encoder for a pipeline elsewhere."""

    def __init__(self, config: Config, name: str, endpoints: RemoteEndpoints, logger: logging.Logger) -> None:
        self._config = config
        self._name = name
        self._endpoints = endpoints
        self._logger = logger
        self._stop = False

    def run(self) -> None:
        """Takes part until SIGTERM or SIGINT. Raises PipelineError when the pipeline does not admit it."""
        signal.signal(signal.SIGINT, self._count_signal)
        signal.signal(signal.SIGTERM, self._count_signal)
        setproctitle.setproctitle(f"pipeline: {self._name}")
        link = ControlLink(zmq.Context.instance(), self._endpoints, self._endpoints.control, self._name)
        digest = config_digest(self._config)
        link.greeting = lambda startup_cpu: wire.Join(self._name, os.getpid(), digest, startup_cpu)
        admitted = self._join(link)
        if admitted is None:
            return
        check_admitted(admitted, self._name)
        self._logger.info("encoding for the pipeline at %s", self._endpoints.control)
        plan = Plan(self._config, "", workers=0, writers=admitted.writers, readers=admitted.ingests)
        EncodeStage(plan, self._endpoints, link, self._logger).run(lambda: self._stop)
        link.send(wire.Leave(self._name))
        zmq.Context.instance().destroy(linger=ANSWER_MILLISECONDS)
        self._logger.info("left; what was on its way here is read again")

    def _count_signal(self, _signal: int, _frame: object) -> None:
        if self._stop:
            os._exit(1)
        self._stop = True

    def _join(self, link: ControlLink) -> wire.Admit | None:
        """The pipeline's answer, however long it takes; None after a signal."""
        said = time.monotonic()
        while not self._stop:
            message = None
            # Where our key is not admitted, the socket takes nothing any more.
            if link.socket.poll(ANSWER_MILLISECONDS, zmq.POLLOUT):
                link.beat()
                message = link.receive(ANSWER_MILLISECONDS)
            if isinstance(message, wire.Admit):
                return message
            if time.monotonic() - said > SILENCE_SECONDS:
                said = time.monotonic()
                self._logger.warning("no answer from %s; is the pipeline running there with [network] listen, and does "
                                     "it have this worker's key?", self._endpoints.control)
        return None
