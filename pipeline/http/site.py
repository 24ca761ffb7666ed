"""What the answers are made of."""

import logging
from typing import TYPE_CHECKING, Any

from pipeline.config.controls import ControlRequest
from pipeline.config.hidden import shown_config
from pipeline.config.plan import Plan
from pipeline.http.document import Document, make_document
from pipeline.http.exposition import encoded, exposition
from pipeline.http.feeds import Feeds, Snapshot
from pipeline.http.health import Readiness, readiness
from pipeline.http.history import History
from pipeline.http.procs import Processes, Usage
from pipeline.plan_updates import PlanUpdates, newest_plan
from pipeline.wire.sink import RejectStatus

if TYPE_CHECKING:
    from pipeline.http.payloads import Payload, Payloads


class Site:
    """One for both servers."""

    def __init__(self, plan: Plan, feeds: Feeds, history: History, logger: logging.Logger,
                 updates: PlanUpdates | None = None) -> None:
        self._plan = plan
        self._updates = updates
        self.feeds = feeds
        self.history = history
        self.logger = logger
        self._config: dict[str, Any] = shown_config(plan.config)
        self._processes = Processes()
        self._payloads: Payloads | None = None

    @property
    def plan(self) -> Plan:
        """The newest one."""
        if (plan := newest_plan(self._updates)) is not None:
            self._plan, self._payloads = plan, None
            self._config = shown_config(plan.config)
        return self._plan

    def control(self, request: ControlRequest) -> None:
        """Passes a request on to the supervisor. Raises OSError."""
        if self._updates is not None:
            self._updates.tell(request)

    def document(self, trusted: bool) -> Document:
        """The status now; with what was in messages for whom is `trusted`."""
        snapshot = self.feeds.read()
        return make_document(self.plan, snapshot, self.history.rates(), self.usage(snapshot), self._config, trusted)

    def letter(self, stream: str, topic: str, partition: str, offset: str) -> RejectStatus | None:
        """One of the last dead letters; None if there is no such one among them."""
        status = self.feeds.read().sink
        wanted = (stream, topic, partition, offset)
        return next((one for one in (status.rejects if status is not None else ())
                     if (one.stream, one.topic, str(one.partition), str(one.offset)) == wanted), None)

    async def payload(self, letter: RejectStatus) -> "Payload | None":
        """The payload of a dead letter; None if Iggy does not have it any more. Raises PipelineError."""
        if self._payloads is None:
            # Imported here: it needs much memory, and is seldom asked for.
            from pipeline.http.payloads import Payloads
            self._payloads = Payloads(self.plan.config)
        return await self._payloads.read(letter)

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the format that an Accept header asks for, and its content type."""
        snapshot = self.feeds.read()
        found = exposition(self.plan, snapshot, self.usage(snapshot), with_created="openmetrics" in accept)
        return encoded(found, accept)

    def usage(self, snapshot: Snapshot) -> dict[int, Usage]:
        """CPU time and memory of the processes of this machine, by pid."""
        supervisor = snapshot.supervisor
        if supervisor is None:
            return {}
        return self._processes.usage([supervisor.pid, *(one.pid for one in supervisor.processes if one.pid)])

    def readiness(self) -> Readiness:
        """Whether the pipeline is ready now."""
        return readiness(self.plan, self.feeds.read())
