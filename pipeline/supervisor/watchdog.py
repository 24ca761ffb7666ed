"""Finds the processes that hang: those that live and say nothing. Pure: the caller gives the time.

Every process says Hello to the coordinator once a second, and the coordinator's Status tells when it last heard of
each. So a coordinator that hangs is seen by its Status not coming, and then nothing is known of the others.
"""

from typing import Protocol

#: What a process may take until its first Hello, seconds: many may start at once, on a busy machine.
BOOT_SECONDS = 30.0
#: A suspicion must last so long, seconds: after a halt of the whole machine everybody seems late for a moment.
CONFIRM_SECONDS = 2.0
#: An older Status than this says nothing of who hangs, seconds.
FRESH_SECONDS = 2.0


class Heard(Protocol):
    """Of a coordinator's Status: who lives, when it was sent, and when each was last heard of (CLOCK_MONOTONIC)."""

    @property
    def pids(self) -> dict[str, int]:
        """name -> pid."""

    @property
    def now(self) -> float:
        """Seconds."""

    @property
    def heard(self) -> dict[str, float]:
        """name -> seconds."""


class Watchdog:
    """Knows when each process was started and last heard of. Times are CLOCK_MONOTONIC, one for all processes."""

    def __init__(self, timeout: float, coordinator: str = "coordinator") -> None:
        """A process not heard of for `timeout` seconds hangs. `coordinator`: whose Status it is."""
        self._timeout = timeout
        self._coordinator = coordinator
        self._started: dict[str, float] = {}
        self._suspects: dict[str, float] = {}
        self._status: Heard | None = None
        self._status_at = float("-inf")

    def started(self, name: str, now: float) -> None:
        """A process was started (again)."""
        self._started[name] = now
        self._suspects.pop(name, None)

    def heard(self, status: Heard, now: float) -> None:
        """A Status came in."""
        self._status, self._status_at = status, now

    def booted(self, name: str, pid: int | None) -> bool:
        """Whether this process has ever said Hello."""
        return self._status is not None and self._status.pids.get(name) == pid

    def hung(self, pids: dict[str, int], now: float) -> list[str]:
        """Of the living processes, those that hang."""
        late = {name for name, pid in pids.items() if self._is_late(name, pid, now)}
        self._suspects = {name: self._suspects.get(name, now) for name in sorted(late)}
        return [name for name, since in self._suspects.items() if now - since >= CONFIRM_SECONDS]

    def _is_late(self, name: str, pid: int, now: float) -> bool:
        booting = max(self._timeout, BOOT_SECONDS)
        since = max(self._started.get(name, now), self._started.get(self._coordinator, now))
        status = self._status
        if name == self._coordinator:
            return now - max(since, self._status_at) > (self._timeout if self.booted(name, pid) else booting)
        if status is None or now - self._status_at > FRESH_SECONDS:
            return False
        if not self.booted(name, pid):
            return now - since > booting
        return status.now - max(since, status.heard.get(name, since)) > self._timeout
