"""Finds the processes that hang: those that live and send no heartbeats. Pure: the caller gives the time.

Every process sends the coordinator a heartbeat once a second, and the coordinator's Status has the time of the last
one. A coordinator that hangs sends no Status, and then nothing is known of the others.
"""

from pipeline.wire.common import CoordinatorStatus

#: Time until the first heartbeat, seconds: many processes may start at once, on a busy machine.
BOOT_SECONDS = 30.0
#: A process must be late for this time, seconds: after a halt of the whole machine all seem late for a moment.
CONFIRM_SECONDS = 2.0
#: An older Status than this is not used, seconds.
FRESH_SECONDS = 2.0


class Watchdog:
    """Tracks when each process was started and last heard from. Times are CLOCK_MONOTONIC, the same in all
    processes."""

    def __init__(self, timeout: float, coordinator: str = "coordinator") -> None:
        """A process without a heartbeat for `timeout` seconds hangs. `coordinator`: the process that sends the
        Status."""
        self._timeout = timeout
        self._coordinator = coordinator
        self._started: dict[str, float] = {}
        self._suspects: dict[str, float] = {}
        self._status: CoordinatorStatus | None = None
        self._status_at = float("-inf")

    def started(self, name: str, now: float) -> None:
        """A process was started, or restarted."""
        self._started[name] = now
        self._suspects.pop(name, None)

    def received(self, status: CoordinatorStatus, now: float) -> None:
        """A Status was received."""
        self._status, self._status_at = status, now

    def booted(self, name: str, pid: int | None) -> bool:
        """Whether this process has ever sent a heartbeat."""
        return self._status is not None and self._status.pids.get(name) == pid

    def hung(self, pids: dict[str, int], now: float) -> list[str]:
        """The processes that hang among the living ones, name -> pid."""
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
        return status.now - max(since, status.last_heard.get(name, since)) > self._timeout
