"""Tells systemd how the pipeline does: ready, reloading, stopping, what it does, and that work goes on.

Source: sd_notify(3) and systemd.service(5), `Type=notify-reload` and `WatchdogSec=`. Without systemd nothing is sent.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import Final

from pipeline.config.schema import Config
from pipeline.printable import printable
from pipeline.wire.common import CoordinatorStatus

#: Seconds between two texts for `systemctl status`.
STATUS_SECONDS: Final = 5.0
#: A Status older than this means that its coordinator does nothing, seconds.
FRESH_SECONDS: Final = 5.0
#: Longest text of a status, characters.
MAX_CHARACTERS: Final = 300
#: Work counts as stuck when nothing was settled for this many times the longest time that a batch may take, while
#: messages were in flight and nothing was waited for.
STUCK_TIMEOUTS: Final = 3.0


def longest_work(config: Config) -> float:
    """Longest time that a batch may take while nothing is wrong, seconds."""
    milliseconds = [config.pipeline.redelivery_timeout_ms]
    for sink in config.all_sinks():
        influxdb = sink.influxdb
        milliseconds += [sink.mapping.max_message_cpu_ms, influxdb.request_timeout_ms,
                         influxdb.connect_timeout_ms + influxdb.read_timeout_ms]
    milliseconds += [source.influxdb.read_timeout_ms for source in config.sources]
    return max(milliseconds) / 1_000


class WorkMonitor:
    """Whether work goes on in one direction: its coordinator lives, and what is in flight gets settled. Pure."""

    def __init__(self, longest: float) -> None:
        """`longest`: the longest time that a batch may take, seconds."""
        self._stuck_after = STUCK_TIMEOUTS * longest
        self._progress: tuple[int, ...] = ()
        self._progress_at = float("-inf")
        self._received_at = float("-inf")
        self._status: CoordinatorStatus | None = None

    def observe(self, status: CoordinatorStatus | None, now: float) -> None:
        """Takes the newest Status of the coordinator, at `now` (seconds, monotonic)."""
        if status is None or status is self._status:
            return
        self._status, self._received_at = status, now
        progress = status.epoch, status.in_flight, status.rejected, status.sent_bytes
        if progress != self._progress or not status.in_flight or status.waiting:
            self._progress, self._progress_at = progress, now

    def goes_on(self, now: float) -> bool:
        """Whether the coordinator reports, and is not stuck."""
        return now - self._received_at < FRESH_SECONDS and now - self._progress_at < self._stuck_after


class ServiceManager:
    """Sends the messages. All methods are cheap, and never fail: a service manager that is gone changes nothing."""

    def __init__(self, environ: MutableMapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        """Takes NOTIFY_SOCKET and WATCHDOG_USEC out of `environ`: no other process is to use them."""
        self._clock = clock
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address if address.startswith("/") else ""
        #: Seconds between two signs of life; 0: none are wanted.
        self._interval = int(microseconds) / 2e6 if self._address and microseconds.isdigit() \
            and pid in ("", str(os.getpid())) else 0.0
        self._fed_at = self._said_at = float("-inf")
        self.is_ready = False
        self._socket: socket.socket | None = None

    @property
    def is_used(self) -> bool:
        """Whether a service manager listens."""
        return bool(self._address)

    def ready(self, status: str = "") -> None:
        """The pipeline runs; also the end of a reload."""
        self.is_ready = True
        self._send("READY=1", *self._status_lines(status))

    def reloading(self, status: str = "reading the configuration again") -> None:
        """A reload begins; `ready` has to follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}",
                   *self._status_lines(status))

    def stopping(self, status: str) -> None:
        """The pipeline finishes what is in flight."""
        self._send("STOPPING=1", *self._status_lines(status))

    def failed(self, error: str) -> None:
        """The pipeline ends because of an error."""
        self._send("STOPPING=1", *self._status_lines(f"failed: {error}"))

    def tick(self, monitors: Sequence[WorkMonitor], status: Callable[[], str]) -> None:
        """Sends a sign of life if work goes on and one is due, and what the pipeline does every few seconds."""
        if not self._address:
            return
        now = self._clock()
        if self._interval and now - self._fed_at >= self._interval and all(one.goes_on(now) for one in monitors):
            self._fed_at = now
            self._send("WATCHDOG=1")
        if self.is_ready and now - self._said_at >= STATUS_SECONDS:
            self._said_at = now
            self._send(*self._status_lines(status()))

    def _status_lines(self, status: str) -> list[str]:
        return [f"STATUS={printable(status, MAX_CHARACTERS)}"] if status else []

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        with contextlib.suppress(OSError):
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto("\n".join(lines).encode(), self._address)
