"""CPU and memory of processes over time."""

import time
from collections.abc import Mapping

from msgspec import Struct

from pipeline.testbed.harness.procfs import pss_bytes


class Sample(Struct, frozen=True):
    """One sample of one process."""

    #: Seconds since the first look.
    at: float
    #: CPU since the look before, percent of one core.
    cpu_percent: float
    #: Proportional set size, MiB: shared pages count for each process in part.
    pss_mib: float


def cpu_seconds(pid: int) -> float:
    """User and system CPU seconds that a process has used so far, all its threads. Raises OSError when it is gone."""
    return time.clock_gettime(~pid << 3 | 2)


class Sampler:
    """Samples processes by name. A replaced one continues under its name."""

    def __init__(self) -> None:
        self.samples: dict[str, list[Sample]] = {}
        self._began = time.monotonic()
        self._last: dict[str, tuple[int, float, float]] = {}

    def look(self, pids: Mapping[str, int]) -> None:
        """Takes a sample of each process that is there; the first sample of one only stores its CPU."""
        for name, pid in pids.items():
            now = time.monotonic()
            try:
                cpu = cpu_seconds(pid)
            except OSError:
                continue
            before = self._last.get(name)
            self._last[name] = pid, now, cpu
            if before is not None and before[0] == pid and now > before[1]:
                self.samples.setdefault(name, []).append(
                    Sample(now - self._began, (cpu - before[2]) / (now - before[1]) * 100, pss_bytes(pid) / 2**20))
