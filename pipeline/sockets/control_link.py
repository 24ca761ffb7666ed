"""The link that each process of a pipeline keeps to its coordinator."""

import logging
import os
import time
from collections.abc import Callable

import zmq
from msgspec import Struct

from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.intake import Dropped
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire.frames import cut

#: Seconds between two Hellos.
HEARTBEAT_SECONDS = 1.0


class ControlLink:
    """The DEALER of a synchronous process to the coordinator; says Hello once a second when asked to `beat`."""

    #: What is sent instead, made of the CPU seconds that the start-up took.
    greeting: Callable[[float], Struct] | None = None

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoints: Endpoints, endpoint: str,
                 name: str) -> None:
        """`endpoint` is the coordinator's, one of `endpoints`."""
        self.name = name
        self.dropped = Dropped(logging.getLogger(name))
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, name.encode())
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        endpoints.connect(self.socket, endpoint)
        self._hello_at = float("-inf")
        self._reported = common.Retrying("")
        self._startup_cpu = 0.0

    def send(self, message: Struct) -> None:
        """Sends one control message; queued while the coordinator is away."""
        self.socket.send_multipart(cut([common.encode(message)]))

    def report(self, problem: str, paused: bool) -> None:
        """Sends what fails outside of this process, if that has changed; "" once all works.

        `paused`: the operator has to act before it can work again.
        """
        retrying = common.Retrying(problem, paused)
        if retrying != self._reported:
            self._reported = retrying
            self.send(retrying)

    def receive(self, milliseconds: int) -> wire.Control | None:
        """The next message from the coordinator, if one comes in that time. What is none is dropped."""
        if not self.socket.poll(milliseconds):
            return None
        try:
            return wire.read_control(self.socket.recv_multipart())
        except wire.Malformed as error:
            self.dropped.drop("", str(error))
            return None

    def beat(self) -> None:
        """Says Hello if a second has passed since the last one."""
        now = time.monotonic()
        if now - self._hello_at >= HEARTBEAT_SECONDS:
            self._hello_at = now
            self._startup_cpu = self._startup_cpu or time.process_time()
            greeting = self.greeting or (lambda startup_cpu: common.Heartbeat(
                self.name, os.getpid(), startup_cpu, self.dropped.count))
            self.send(greeting(self._startup_cpu))
