"""The time that an HTTP exchange may take."""

import time

from msgspec import Struct

from stages.influxdb.http_answer import HttpFault


class Limits(Struct, frozen=True):
    """Limits of an exchange, in seconds and bytes."""

    #: From the start to the last byte of the answer; with `HttpClient.open`, to the last byte of its headers.
    seconds: float
    #: Longest wait for the next bytes; 0: only `seconds` counts.
    silence: float = 0.0
    #: To connect, with TLS and a proxy, at most `seconds`; 0: only `seconds` counts.
    connect: float = 0.0
    #: Of the answer's body, as sent and decompressed each.
    max_bytes: int = 1_000_000


class Deadline:
    """When an exchange has to be complete."""

    def __init__(self, limits: Limits) -> None:
        """The time starts now."""
        self._limits = limits
        self._ends = time.monotonic() + limits.seconds

    def renew(self) -> None:
        """Starts the time again."""
        self._ends = time.monotonic() + self._limits.seconds

    def left(self) -> float:
        """Seconds for the next step, more than 0. Raises HttpFault when there are none."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise HttpFault("timeout", f"there was no complete answer within {self._limits.seconds:g} s")
        return min(left, self._limits.silence or left)

    def connecting(self) -> "Deadline":
        """The deadline for connecting."""
        return Deadline(Limits(min(self._limits.connect or self._limits.seconds, self._limits.seconds)))
