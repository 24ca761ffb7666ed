"""The link of each process of a pipeline to its coordinator: heartbeats, reports and orders."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import zmq
from msgspec import Struct

from pipeline.sockets.control_socket import ControlSocket
from pipeline.sockets.dropped import DroppedMessages
from pipeline.sockets.endpoints import Endpoints
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire.frames import cut

#: Seconds between two heartbeats. All processes send theirs at the same times, whole seconds of CLOCK_MONOTONIC, so
#: that the coordinator wakes up once for all of them.
HEARTBEAT_SECONDS = 1.0
#: By then all heartbeats of a second have arrived, seconds: what a coordinator does every second, it does then.
ARRIVAL_SECONDS = 0.011
M = TypeVar("M")


def seconds_to_heartbeat(now: float) -> float:
    """Seconds from `now` (monotonic) to the next heartbeat."""
    return HEARTBEAT_SECONDS - now % HEARTBEAT_SECONDS


def seconds_to_heartbeats(now: float) -> float:
    """Seconds from `now` (monotonic) until the next heartbeats of all processes have arrived."""
    return seconds_to_heartbeat(now - ARRIVAL_SECONDS)


def _dealer(context: "zmq.Context[zmq.Socket[bytes]]", endpoints: Endpoints, endpoint: str,
            name: str) -> "zmq.Socket[bytes]":
    """A DEALER to the coordinator without a high-water mark: a send never blocks."""
    dealer = context.socket(zmq.DEALER)
    dealer.setsockopt(zmq.IDENTITY, name.encode())
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.setsockopt(zmq.SNDHWM, 0)
    endpoints.connect(dealer, endpoint)
    return dealer


class ControlLink:
    """The link of a synchronous process. `beat` has to be called more often than once a second."""

    #: Makes another message than Heartbeat, from the CPU seconds that the start-up took.
    make_heartbeat: Callable[[float], Struct] | None = None

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoints: Endpoints, endpoint: str,
                 name: str) -> None:
        """`endpoint` is the coordinator's, one of `endpoints`."""
        self.name = name
        self.dropped = DroppedMessages(logging.getLogger(name))
        self.socket = _dealer(context, endpoints, endpoint, name)
        #: When the next heartbeat is due, seconds, monotonic.
        self._heartbeat_at = float("-inf")
        self._reported = common.Retrying("")
        self._startup_cpu = 0.0

    @property
    def descriptor(self) -> int:
        """Becomes readable when there may be a message."""
        return int(self.socket.getsockopt(zmq.FD))

    def send(self, message: Struct) -> None:
        """Sends one control message. It is queued while the coordinator is down."""
        self.socket.send_multipart(cut([common.encode(message)]))

    def milliseconds_to_beat(self) -> int:
        """How long a process may wait until it has to call `beat`."""
        return max(1, math.ceil((self._heartbeat_at - time.monotonic()) * 1000))

    def report(self, problems: list[common.Problem]) -> None:
        """Sends what fails outside of this process, if that has changed; nothing once all works."""
        retrying = common.Retrying("; ".join([one.reason for one in problems]), any(one.paused for one in problems),
                                   problems)
        if retrying != self._reported:
            self._reported = retrying
            self.send(retrying)

    def receive(self, milliseconds: int) -> wire.Control | None:
        """The next message from the coordinator, or None when none comes in that time. Malformed ones are dropped."""
        if not self.socket.poll(milliseconds):
            return None
        try:
            return wire.read_control(self.socket.recv_multipart())
        except wire.Malformed as error:
            self.dropped.drop("", str(error))
            return None

    def beat(self) -> None:
        """Sends a heartbeat if one is due."""
        now = time.monotonic()
        if now < self._heartbeat_at:
            return
        self._heartbeat_at = now + seconds_to_heartbeat(now)
        self._startup_cpu = self._startup_cpu or time.process_time()
        if self.make_heartbeat is not None:
            self.send(self.make_heartbeat(self._startup_cpu))
        else:
            self.send(common.Heartbeat(self.name, os.getpid(), self._startup_cpu, self.dropped.count))


class AsyncControlLink(Generic[M]):
    """The link of an asyncio process."""

    def __init__(self, endpoints: Endpoints, endpoint: str, name: str, read: Callable[[Sequence[Any]], M],
                 check: Callable[[M], str]) -> None:
        """`endpoint` is the coordinator's, one of `endpoints`. `read` decodes frames, and raises Malformed; `check`
        returns why a message does not fit this pipeline, or ""."""
        self.name = name
        self.dropped = DroppedMessages(logging.getLogger(name))
        self._read = read
        self._check = check
        self._socket = ControlSocket(_dealer(zmq.Context.instance(), endpoints, endpoint, name))

    def send(self, message: Struct) -> None:
        """Sends one control message. It is queued while the coordinator is down."""
        self._socket.send(common.encode(message))

    async def receive(self) -> list[M]:
        """The messages that have arrived; waits for the first. Those that are malformed or do not fit are dropped."""
        messages = []
        for frames in await self._socket.receive():
            try:
                message = self._read(frames)
                problem = self._check(message)
            except wire.Malformed as error:
                problem = str(error)
            if problem:
                self.dropped.drop("the coordinator", problem)
            else:
                messages.append(message)
        return messages

    async def send_heartbeats(self) -> None:
        """Sends a heartbeat every second, until cancelled."""
        startup_cpu = time.process_time()
        while True:
            self.send(common.Heartbeat(self.name, os.getpid(), startup_cpu, self.dropped.count))
            await asyncio.sleep(seconds_to_heartbeat(time.monotonic()))
