"""The processes that send heartbeats to one coordinator. Pure: the caller gives the time."""

import os
import time
from collections.abc import Collection
from typing import Any, Literal

from pipeline.wire import common

#: What a heartbeat shows: a process that is known; a new one; a new one in place of an earlier one of its name.
Arrival = Literal["known", "new", "replacement"]


class Peers:
    """Names, pids and last heartbeats of the processes, and what each of them is retrying.

    The coordinator is one of them. Times are CLOCK_MONOTONIC, seconds.
    """

    def __init__(self, coordinator: str) -> None:
        """`coordinator`: the name of this process."""
        self.pids: dict[str, int] = {coordinator: os.getpid()}
        #: When each process last sent something, by name.
        self.last_heard: dict[str, float] = {}
        self._startup_cpu: dict[str, float] = {coordinator: time.process_time()}
        self._retrying: dict[str, common.Retrying] = {}
        #: Process -> its problems now, by sink: since when, seconds since 1970.
        self._since: dict[str, dict[str, float]] = {}
        self._started_at = time.time()
        #: Messages that each process has dropped.
        self._dropped: dict[str, int] = {}
        #: Names of all processes that have ever sent a heartbeat.
        self._seen: set[str] = set()

    def heartbeat(self, message: common.Heartbeat, now: float) -> Arrival:
        """Records a heartbeat."""
        name = message.name
        self.last_heard[name] = now
        self._dropped[name] = message.dropped
        if self.pids.get(name) == message.pid:
            return "known"
        self.pids[name] = message.pid
        self._startup_cpu[name] = message.startup_cpu
        if name in self._seen:
            return "replacement"
        self._seen.add(name)
        return "new"

    def have_all_started(self, names: Collection[str]) -> bool:
        """Whether each of these has sent a heartbeat at some time."""
        return self._seen.issuperset(names)

    def died(self, name: str) -> bool:
        """Removes a process that has ended. True if it had ever sent a heartbeat: it may have held messages."""
        self._retrying.pop(name, None)
        self._since.pop(name, None)
        self.last_heard.pop(name, None)
        return self.pids.pop(name, None) is not None or name in self._seen

    def forget(self, name: str) -> None:
        """Treats the next process of this name as a new one."""
        self._seen.discard(name)

    def retrying(self, name: str, message: common.Retrying) -> None:
        """Records what a process is retrying; with the reason "", that it works again."""
        self._retrying.pop(name, None)
        before = self._since.pop(name, {})
        if message.reason:
            self._retrying[name] = message
            self._since[name] = {one.name: before.get(one.name, time.time()) for one in _problems(message)}

    def is_retrying(self, name: str = "") -> bool:
        """Whether a process is retrying something; without a name, whether any is."""
        return name in self._retrying if name else bool(self._retrying)

    @property
    def paused(self) -> bool:
        """Whether a process waits for an operator."""
        return any(retrying.paused for retrying in self._retrying.values())

    def status_fields(self, now: float) -> dict[str, Any]:
        """The fields of `common.CoordinatorStatus` that are known here, but for messages dropped by the coordinator."""
        return {"pids": dict(self.pids), "startup_cpu": dict(self._startup_cpu), "paused": self.paused, "now": now,
                "retrying": {name: retrying.reason for name, retrying in self._retrying.items()},
                "last_heard": dict(self.last_heard), "started_at": self._started_at,
                "waiting": [common.Waiting(name, one.name, one.reason, one.paused, self._since[name][one.name])
                            for name, retrying in self._retrying.items() for one in _problems(retrying)]}

    @property
    def dropped(self) -> int:
        """Messages that the other processes have dropped."""
        return sum(self._dropped.values())


def _problems(message: common.Retrying) -> list[common.Problem]:
    """What a process is retrying, one by one."""
    return message.problems or [common.Problem("", message.reason, message.paused)]
