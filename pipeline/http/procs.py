"""CPU time and memory of the processes of this machine."""

from collections.abc import Iterable

import psutil
from msgspec import Struct


class Usage(Struct, frozen=True):
    """What one process uses."""

    #: Seconds since its start, user and system.
    cpu_seconds: float
    #: Resident memory, with pages that it shares with others; bytes.
    rss_bytes: int


class Processes:
    """The processes whose usage was asked for."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}

    def usage(self, pids: Iterable[int]) -> dict[int, Usage]:
        """The usage of those that live."""
        found: dict[int, Usage] = {}
        known = {}
        for pid in pids:
            try:
                process = self._known.get(pid) or psutil.Process(pid)
                with process.oneshot():
                    times = process.cpu_times()
                    found[pid] = Usage(times.user + times.system, process.memory_info().rss)
                known[pid] = process
            except psutil.Error:
                continue
        self._known = known
        return found
