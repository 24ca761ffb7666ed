"""The processes of one direction from the supervisor's view: a coordinator with its newest Status, and its stages."""

import logging
import time
from abc import ABC, abstractmethod
from datetime import timedelta
from typing import Generic, TypeVar

import msgspec
import zmq

from pipeline.config.plan import Plan
from pipeline.errors import PipelineError
from pipeline.sockets.control_link import ControlLink
from pipeline.sockets.dropped import DroppedMessages
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.status_socket import StatusSubscriber
from pipeline.supervisor.watchdog import Watchdog
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire
from pipeline.wire.common import CoordinatorStatus

S = TypeVar("S", bound=CoordinatorStatus)
#: From this share on a source's progress is logged: what is left cannot be told from less.
LEAST_SHARE = 0.01


class BaseDirection(ABC, Generic[S]):
    """One direction."""

    #: First words of its log lines.
    title = ""

    def __init__(self, plan: Plan, coordinator: str, endpoints: Endpoints, control: str, status: str) -> None:
        """`control` and `status` are the coordinator's endpoints."""
        self._plan = plan
        self.coordinator = coordinator
        #: The names of all its processes, in the order in which they are started.
        self.names = [coordinator, *self.stages(plan)]
        self.watchdog = Watchdog(plan.config.pipeline.heartbeat_timeout_ms / 1000, coordinator)
        self.link = ControlLink(zmq.Context.instance(), endpoints, control, "supervisor")
        #: The newest one; None before the first.
        self.status: S | None = None
        self._subscriber = StatusSubscriber(status)
        self._dropped = DroppedMessages(logging.getLogger("supervisor"))
        #: The total of which progress was last logged.
        self._logged_total = -1
        self._rate = 0.0
        #: A Status of an older epoch is one of a coordinator that was replaced.
        self._first_epoch = 0

    @property
    def descriptors(self) -> list[int]:
        """File descriptors that become readable when something may have come from the coordinator."""
        return [self.link.descriptor, self._subscriber.descriptor]

    def receive(self) -> None:
        """Receives the newest Status, if there is one. Raises PipelineError when the pipeline must stop."""
        while (frame := self._subscriber.receive()) is not None:
            try:
                self.status = self._decode(frame)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._dropped.drop("", f"no Status: {type(error).__name__}")
                continue
            if self.status.epoch < self._first_epoch:
                self.status = None
                continue
            self.watchdog.received(self.status, time.monotonic())
            if self.status.fatal:
                raise PipelineError(self.status.fatal)

    @staticmethod
    @abstractmethod
    def stages(plan: Plan) -> list[str]:
        """The names of its processes but the coordinator; empty if a plan has no such direction."""

    def replace(self, plan: Plan) -> None:
        """Its processes have ended, and are to be started by a new plan, which is that of its next coordinator."""
        self._plan = plan
        self.names = [self.coordinator, *self.stages(plan)]
        self.watchdog = Watchdog(plan.config.pipeline.heartbeat_timeout_ms / 1000, self.coordinator)
        self.status, self._first_epoch, self._logged_total = None, plan.epoch, -1

    def excused(self) -> list[wire.Excused]:
        """The deaths that the coordinator has excused because messages caused them."""
        found = []
        while (message := self.link.receive(0)) is not None:
            if isinstance(message, wire.Excused):
                found.append(message)
        return found

    @property
    def drained(self) -> bool:
        """Whether nothing is in flight and everything is stored."""
        return self.status is not None and self.status.drained

    def summary(self) -> tuple[bool, str]:
        """The log line at the end; True with it when nothing is left in flight."""
        if self.status is None:
            return False, f"{self.title}stopped before anything was read"
        if self.status.drained:
            return True, f"{self.title}stopped: {self._totals(self.status)}"
        return False, f"{self.title}stopped with {self._unfinished(self.status)}"

    def progress(self, seconds: float) -> str:
        """The log line about progress, `seconds` after the last one; "" when the total has not changed."""
        status = self.status
        if status is None or (total := self._total(status)) == self._logged_total:
            return ""
        rate = max(0, total - max(self._logged_total, 0)) / seconds
        self._logged_total, self._rate = total, rate
        return f"{self.title}{self._rates(status, rate)}"

    @property
    def total(self) -> int | None:
        """The total by which progress is measured; None before the first Status."""
        return None if self.status is None else self._total(self.status)

    def state(self, rate: float | None = None) -> str:
        """What it does at the moment, for people: what it waits for, and its numbers. `rate`: that of the last log line
        by default."""
        if self.status is None:
            return f"{self.title}starting"
        waits = "; ".join(dict.fromkeys(one.reason for one in self.status.waiting))
        rate = self._rate if rate is None else rate
        return f"{self.title}{f'WAITING: {waits}; ' if waits else ''}{self._rates(self.status, rate)}"

    def has_booted(self, pids: dict[str, int]) -> bool:
        """Whether every process of it has sent a heartbeat."""
        return all(name in pids and self.watchdog.booted(name, pids[name]) for name in self.names)

    @property
    @abstractmethod
    def label(self) -> str:
        """The processes, for the log line at the start."""

    @abstractmethod
    def _decode(self, frame: bytes) -> S:
        """The Status in a frame."""

    @abstractmethod
    def _total(self, status: S) -> int:
        """The total by which progress is measured."""

    @abstractmethod
    def _rates(self, status: S, rate: float) -> str:
        """Progress; `rate`: of the total, a second."""

    @abstractmethod
    def _totals(self, status: S) -> str:
        """What was done in all."""

    @abstractmethod
    def _unfinished(self, status: S) -> str:
        """What was in flight at the end."""


class SinkDirection(BaseDirection[wire.Status]):
    """Iggy to InfluxDB."""

    def __init__(self, plan: Plan) -> None:
        endpoints = Endpoints(plan.folder, plan.config.network)
        super().__init__(plan, "coordinator", endpoints, endpoints.control, endpoints.status)

    @staticmethod
    def stages(plan: Plan) -> list[str]:
        """See the base class."""
        return plan.stages()

    @property
    def label(self) -> str:
        """The processes, for the log line at the start."""
        plan = self._plan
        return f": {plan.ingests} ingest, {plan.encoders} encoders, {plan.writers} writers, 1 coordinator"

    def _decode(self, frame: bytes) -> wire.Status:
        return wire.decode_status(frame)

    def _total(self, status: wire.Status) -> int:
        return status.read

    def _rates(self, status: wire.Status, rate: float) -> str:
        lag = sum(partition.lag for partition in status.partitions)
        return (f"read {status.read} ({rate:.0f}/s), written {status.written}, {_overwritten(status)}"
                f"rejected {status.rejected}, in flight {status.in_flight}, lag {lag}")

    def _totals(self, status: wire.Status) -> str:
        return (f"{status.read} messages read, {status.written} points written, {_overwritten(status)}"
                f"{status.rejected} rejected, every offset committed")

    def _unfinished(self, status: wire.Status) -> str:
        left = ", ".join(f"{p.stream}/{p.topic} partition {p.partition}: offsets {p.committed + 1} to "
                         f"{p.dispatched}" for p in status.partitions if p.dispatched > p.committed)
        return (f"{status.in_flight} messages in flight; not committed, and read again at the next start: "
                f"{left or 'nothing'}")


def _overwritten(status: wire.Status) -> str:
    """How many points replaced others, if any did."""
    return f"{status.overwritten} overwritten by others, " if status.overwritten else ""


def _progress(status: source_wire.SourceStatus) -> str:
    """The share of what is to be caught up with, and about how long the rest takes; "" once there is none."""
    if status.caught_up or not LEAST_SHARE <= status.share < 1:
        return ""
    left = status.seconds_left
    return f", {status.share:.0%} of the time" + (f", about {str(timedelta(seconds=round(left)))} left"
                                                  if left >= 0 else "")


class SourceDirection(BaseDirection[source_wire.SourceStatus]):
    """InfluxDB to Iggy."""

    title = "source "

    def __init__(self, plan: Plan) -> None:
        endpoints = Endpoints(plan.folder)
        super().__init__(plan, "source-coordinator", endpoints, endpoints.source_control, endpoints.source_status)

    @staticmethod
    def stages(plan: Plan) -> list[str]:
        """See the base class."""
        return plan.source_stages()

    @property
    def label(self) -> str:
        """The processes, for the log line at the start."""
        sources = len(self._plan.config.sources)
        return (f" for {sources} source{'' if sources == 1 else 's'}: query, {self._plan.encoders} converters, "
                "produce, 1 coordinator")

    def summary(self) -> tuple[bool, str]:
        """See the base class. A batch job that found nothing to read in one of its sources has not done its work."""
        done, line = super().summary()
        sources = self._plan.config.sources
        found = {one.source for one in self.status.measurements} if self.status is not None else set()
        empty = [source.name for source in sources if source.name not in found]
        caught_up = self.status is not None and self.status.caught_up
        if done and empty and caught_up and (self._plan.until or all(source.to for source in sources)):
            return False, (f"{line}; nothing was read from {', '.join(empty)}, where no measurement matches "
                           "`measurements`: correct it, or the database")
        if done and self.status is not None and self.status.refused and (
                self._plan.until or all(source.to for source in sources)):
            name, message = next(iter(self.status.refused.items()))
            return False, (f"{line}; {len(self.status.refused)} measurements could not be read: {name}: {message}"
                           f"{', ...' if len(self.status.refused) > 1 else ''}")
        return done, line

    def _decode(self, frame: bytes) -> source_wire.SourceStatus:
        return source_wire.decode_status(frame)

    def _total(self, status: source_wire.SourceStatus) -> int:
        return status.points

    def _rates(self, status: source_wire.SourceStatus, rate: float) -> str:
        now = time.time()
        oldest = min((one.watermark / 1e9 for one in status.measurements), default=now)
        # Before a measurement's first point is found, its watermark is long before any.
        behind = f"at most {max(0.0, now - oldest):.0f} s behind" if oldest > 0 else "not all measurements begun"
        return (f"sent {status.points} points ({rate:.0f}/s) in {status.messages} messages, rejected "
                f"{status.rejected}, {status.in_flight} pages in flight, {behind}{_progress(status)}")

    def _totals(self, status: source_wire.SourceStatus) -> str:
        return (f"{status.points} points of {len(status.measurements)} measurements sent as {status.messages} "
                f"messages, {status.rejected} rows rejected, "
                f"{f'{status.future} points in the future not read, ' if status.future else ''}every watermark stored")

    def _unfinished(self, status: source_wire.SourceStatus) -> str:
        return f"{status.in_flight} pages in flight; their windows are read again at the next start"


#: The directions, in the order in which they are started.
DIRECTIONS: tuple[type[SinkDirection] | type[SourceDirection], ...] = (SinkDirection, SourceDirection)
Direction = SinkDirection | SourceDirection
