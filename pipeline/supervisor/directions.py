"""The processes of one direction, as the supervisor sees them: a coordinator, its stages, and what it last said."""

import logging
import time
from abc import ABC, abstractmethod

import msgspec
import zmq

from pipeline.config.plan import Plan
from pipeline.errors import PipelineError
from pipeline.sockets.control_link import ControlLink
from pipeline.sockets.control_socket import STATUS_BYTES, limit
from pipeline.sockets.endpoints import LOCAL_RECONNECT_MILLISECONDS, Endpoints
from pipeline.sockets.intake import Dropped
from pipeline.supervisor.watchdog import Watchdog
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire


class Direction(ABC):
    """One direction."""

    def __init__(self, coordinator: str, stages: list[str], endpoints: Endpoints, control: str, status: str,
                 timeout: float) -> None:
        """`control` and `status` are the coordinator's endpoints; a process silent for `timeout` seconds hangs."""
        self.coordinator = coordinator
        #: Of all its processes, in the order in which they are started.
        self.names = [coordinator, *stages]
        self.watchdog = Watchdog(timeout, coordinator)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.link = ControlLink(context, endpoints, control, "supervisor")
        self._subscriber = context.socket(zmq.SUB)
        self._subscriber.setsockopt(zmq.CONFLATE, 1)
        self._subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        self._subscriber.setsockopt(zmq.RECONNECT_IVL, LOCAL_RECONNECT_MILLISECONDS)
        limit(self._subscriber, STATUS_BYTES)
        self._subscriber.connect(status)
        self._dropped = Dropped(logging.getLogger("supervisor"))
        #: What it consists of, for people.
        self.label = ""
        #: What has gone through when progress was last told.
        self._told = -1

    def receive(self) -> None:
        """Takes in the last Status, if one has come. Raises PipelineError when it says that all must stop."""
        while self._subscriber.poll(0):
            try:
                status = self._take(self._subscriber.recv())
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._dropped.drop("", f"no Status: {type(error).__name__}")
                continue
            self.watchdog.heard(status, time.monotonic())
            if status.fatal:
                raise PipelineError(status.fatal)

    def excused(self) -> list[wire.Excused]:
        """The deaths that its coordinator has found a message to blame for."""
        found = []
        while (message := self.link.receive(0)) is not None:
            if isinstance(message, wire.Excused):
                found.append(message)
        return found

    @abstractmethod
    def _take(self, frame: bytes) -> wire.Status | source_wire.SourceStatus:
        """Keeps the Status in a frame."""

    @property
    @abstractmethod
    def drained(self) -> bool:
        """Whether nothing is left in flight, and all is stored."""

    @abstractmethod
    def summary(self) -> tuple[bool, str]:
        """How it ended, for people; True with it when nothing is left."""

    @abstractmethod
    def progress(self, seconds: float) -> str:
        """How it goes, `seconds` after this was last asked; "" when nothing has gone through since."""

    def _delta(self, total: int) -> int | None:
        """How many since the last time; None when none have."""
        since = None if total == self._told else max(0, total - max(self._told, 0))
        self._told = total
        return since


class SinkDirection(Direction):
    """Iggy to InfluxDB."""

    status: wire.Status | None = None

    def __init__(self, plan: Plan, timeout: float) -> None:
        endpoints = Endpoints(plan.folder, plan.config.network)
        super().__init__("coordinator", plan.stages(), endpoints, endpoints.control, endpoints.status, timeout)
        self.label = f": {plan.ingests} ingest, {plan.encoders} encoders, {plan.writers} writers, 1 coordinator"

    def _take(self, frame: bytes) -> wire.Status:
        self.status = wire.decode_status(frame)
        return self.status

    @property
    def drained(self) -> bool:
        """See `Direction`."""
        return self.status is not None and self.status.drained

    def summary(self) -> tuple[bool, str]:
        """See `Direction`."""
        status = self.status
        if status is None:
            return False, "stopped before anything was read"
        if status.drained:
            return True, (f"stopped: {status.read} messages read, {status.written} points written, "
                          f"{_overwritten(status)}{status.rejected} rejected, every offset committed")
        left = ", ".join(f"{p.stream}/{p.topic} partition {p.partition}: offsets {p.committed + 1} to {p.dispatched}"
                         for p in status.partitions if p.dispatched > p.committed)
        return False, (f"stopped with {status.in_flight} messages in flight; not committed, and read again at the "
                       f"next start: {left or 'nothing'}")

    def progress(self, seconds: float) -> str:
        """See `Direction`."""
        status = self.status
        read = self._delta(status.read) if status is not None else None
        if status is None or read is None:
            return ""
        lag = sum(partition.lag for partition in status.partitions)
        return (f"read {status.read} ({read / seconds:.0f}/s), written {status.written}, {_overwritten(status)}"
                f"rejected {status.rejected}, in flight {status.in_flight}, lag {lag}")


def _overwritten(status: wire.Status) -> str:
    """How many points took the place of others, where any did."""
    return f"{status.overwritten} overwritten by others, " if status.overwritten else ""


class SourceDirection(Direction):
    """InfluxDB to Iggy."""

    status: source_wire.SourceStatus | None = None

    def __init__(self, plan: Plan, timeout: float) -> None:
        endpoints = Endpoints(plan.folder)
        super().__init__("source-coordinator", plan.source_stages(), endpoints, endpoints.source_control,
                         endpoints.source_status, timeout)
        self.label = (f" for {len(plan.config.sources)} sources: query, {plan.encoders} converters, produce, "
                      "1 coordinator")

    def _take(self, frame: bytes) -> source_wire.SourceStatus:
        self.status = source_wire.decode_status(frame)
        return self.status

    @property
    def drained(self) -> bool:
        """See `Direction`."""
        return self.status is not None and self.status.drained

    def summary(self) -> tuple[bool, str]:
        """See `Direction`."""
        status = self.status
        if status is None:
            return False, "source stopped before anything was read"
        if status.drained:
            return True, (f"source stopped: {status.points} points of {len(status.lanes)} measurements sent as "
                          f"{status.messages} messages, {status.rejected} rows rejected, every mark stored")
        return False, (f"source stopped with {status.in_flight} pages on their way; their windows are read again at "
                       "the next start")

    def progress(self, seconds: float) -> str:
        """See `Direction`."""
        status = self.status
        points = self._delta(status.points) if status is not None else None
        if status is None or points is None:
            return ""
        behind = max(0.0, time.time() - min((lane.mark / 1e9 for lane in status.lanes), default=time.time()))
        return (f"source: sent {status.points} points ({points / seconds:.0f}/s) in {status.messages} messages, "
                f"rejected {status.rejected}, {status.in_flight} pages on their way, {behind:.0f} s behind at most")
