"""Publishes what the supervisor knows of the processes (PUB), for the HTTP process."""

import os
import time
from typing import Final

import zmq

from pipeline.sockets.endpoints import Endpoints
from pipeline.wire import common
from pipeline.wire.supervisor import ControlsStatus, ProcessStatus, ReloadStatus, SupervisorStatus

#: Seconds between two messages without a change. The main loop turns at least as often.
PUBLISH_SECONDS: Final = 1.0


class ProcessPublisher:
    """The PUB of the supervisor."""

    def __init__(self, endpoints: Endpoints, run: str) -> None:
        """`run`: `Plan.run`."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._socket = context.socket(zmq.PUB)
        endpoints.bind(self._socket, endpoints.supervisor)
        self._run = run
        self._started_at = time.time()
        self._published_at = float("-inf")
        self._last: tuple[list[ProcessStatus], bool, ReloadStatus, ControlsStatus] | None = None

    def publish(self, processes: list[ProcessStatus], stopping: bool, reload: ReloadStatus,
                controls: ControlsStatus, at_once: bool = False) -> None:
        """Publishes all that is known, if it has changed, or a second has passed, or `at_once`."""
        now = time.monotonic()
        told = processes, stopping, reload, controls
        if not at_once and told == self._last and now - self._published_at < PUBLISH_SECONDS:
            return
        self._published_at, self._last = now, told
        self._socket.send(common.encode(SupervisorStatus(now, os.getpid(), self._started_at, self._run, stopping,
                                                         processes, reload, controls)))


