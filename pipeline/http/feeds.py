"""What the HTTP process knows of the others: the newest messages of the supervisor and of both coordinators."""

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from pipeline.config.plan import Plan
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.status_socket import StatusSubscriber
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire
from pipeline.wire.supervisor import SupervisorStatus, decode_supervisor_status

S = TypeVar("S", bound=Struct)


class Feed(Generic[S]):
    """The newest message of one publisher. Decoded when it is asked for."""

    def __init__(self, endpoint: str, decode: Callable[[Any], S]) -> None:
        self._subscriber = StatusSubscriber(endpoint)
        self._decode = decode
        self._newest: S | None = None

    @property
    def newest(self) -> S | None:
        """The newest one; None before the first. A message that cannot be decoded is ignored."""
        frame = None
        while (newer := self._subscriber.receive()) is not None:
            frame = newer
        if frame is not None:
            try:
                self._newest = self._decode(frame)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                pass
        return self._newest


class Feeds:
    """All feeds of a pipeline. A direction that it does not have stays None."""

    def __init__(self, plan: Plan) -> None:
        endpoints = Endpoints(plan.folder)
        self._supervisor = Feed(endpoints.supervisor, decode_supervisor_status)
        self._sink = Feed(endpoints.status, wire.decode_status) if plan.stages() else None
        self._source = Feed(endpoints.source_status, source_wire.decode_status) if plan.source_stages() else None

    @property
    def complete(self) -> bool:
        """Whether each has sent something."""
        return all(feed is None or feed.newest is not None for feed in (self._supervisor, self._sink, self._source))

    def read(self) -> "Snapshot":
        """The newest messages."""
        return Snapshot(time.monotonic(), time.time(), self._supervisor.newest,
                        self._sink.newest if self._sink is not None else None,
                        self._source.newest if self._source is not None else None)


class Snapshot(Struct, frozen=True):
    """What is known at one time. None: not received yet, or the pipeline has no such direction."""

    #: Seconds, CLOCK_MONOTONIC.
    now: float
    #: Seconds since 1970.
    time: float
    supervisor: SupervisorStatus | None
    sink: wire.Status | None
    source: source_wire.SourceStatus | None
